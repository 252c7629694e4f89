"""Objectives whose cost is known; in a module of their own, so that worker processes load nothing else."""

from __future__ import annotations

import time
from typing import Any

MILLISECOND = 0.001


def sleeping(config: dict[str, Any]) -> float:
    """Sleep for a millisecond, as an objective does that waits for a GPU."""
    time.sleep(MILLISECOND)
    return value(config)


def busy(config: dict[str, Any]) -> float:
    """Compute for a millisecond, as an objective does that compiles."""
    end = time.perf_counter() + MILLISECOND
    while time.perf_counter() < end:
        pass
    return value(config)


def value(config: dict[str, Any]) -> float:
    """Something that depends on every parameter, differs between configurations, and costs nothing."""
    total = 0.0
    for weight, item in enumerate(config.values(), 1):
        number = len(item) * ord(item[0]) % 7 if isinstance(item, str) else int(item)
        total += weight**0.5 * abs(number - 11)
    return total
