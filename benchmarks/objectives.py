"""Objectives whose cost is known; in a module of their own, so that worker processes load nothing else."""

from __future__ import annotations

import time
from typing import Any

MILLISECOND = 0.001


def sleeping(config: dict[str, Any]) -> float:
    """Sleep for a millisecond, as an objective does that waits for a GPU."""
    time.sleep(MILLISECOND)
    return float(config["BLOCK_M"])


def busy(config: dict[str, Any]) -> float:
    """Compute for a millisecond, as an objective does that compiles."""
    end = time.perf_counter() + MILLISECOND
    while time.perf_counter() < end:
        pass
    return float(config["BLOCK_M"])


def trivial(config: dict[str, Any]) -> float:
    """Return at once: the sum of all that are numbers."""
    return float(sum(value for value in config.values() if isinstance(value, int)))
