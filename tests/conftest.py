from __future__ import annotations

pytest_plugins = ["tests.browser", "tests.fake_nvml", "tests.ray_cluster"]
