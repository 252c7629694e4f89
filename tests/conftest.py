from __future__ import annotations

import os

pytest_plugins = ["tests.browser", "tests.fake_nvml", "tests.ray_cluster"]

# before anybody imports numpy: test processes run side by side, and each has one processor
os.environ.setdefault("OMP_NUM_THREADS", "1")
