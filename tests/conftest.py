from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.browser", "tests.fake_nvml", "tests.ray_cluster"]

# before anybody imports numpy: test processes run side by side, and each has one processor
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_PROCESSES = {"ciq_ray", "cluster", "examples"}
"""Folders whose tests wait for processes, servers and terminals."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In CI, on a machine that others may stall for seconds, such tests have a second try; it is reported."""
    if os.environ.get("CI") != "true":
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.relative_to(here).parts[0] in REAL_PROCESSES:
            item.add_marker(pytest.mark.flaky(reruns=1))
