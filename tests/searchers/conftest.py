"""What the tests under Ray Tune share: the Ray of all tests, see `tests/ray_cluster.py`."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def cluster(ray_head: Any) -> None:
    """A Ray of this session's own, on this machine."""
