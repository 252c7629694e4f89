from __future__ import annotations

pytest_plugins = ["tests.browser", "tests.ray_cluster"]
