"""Defaults of the algorithms, in one place.

The documented defaults are Helion's "full" effort and CompileIQ's engine. Where CompileIQ's document
only says that a value is calculated, the formula is here.
"""

from __future__ import annotations

from typing import Any

from searchers.errors import OptionError

__all__ = [
    "FAIL_SHARE",
    "GENERATIONS",
    "MAX_TOP_UPS",
    "MUTATE_RATE",
    "RANDOM_COUNT",
    "SEED_SHARE",
    "cull_size",
    "options_for",
    "pool_size",
]

RANDOM_COUNT = 1000
MUTATE_RATE = 0.25
SEED_SHARE = 0.9
GENERATIONS: int | None = None
FAIL_SHARE = 0.2
"""A generation with a smaller share of successes is topped up ..."""
MAX_TOP_UPS = 10
"""... at most this often."""


def pool_size(n_objectives: int) -> int:
    """Evaluations of a generation: 32, 48, 64, ... for 1, 2, 3, ... objectives."""
    return 16 * (n_objectives + 1)


def cull_size(pool: int) -> int:
    """Parents of a generation: half the pool, rounded down to an even number, at least 2."""
    return max(2, pool // 4 * 2)


_PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {"random": {"count": 100}},
    "full": {},
}


def options_for(name: str, effort: str | None) -> dict[str, Any]:
    """The options that an effort gives a searcher.

    Raises:
        OptionError: There is no such effort.
    """
    if effort == "none":
        raise OptionError(f"`effort` is 'none'; it is not in this version, which has {', '.join(_PROFILES)}")
    if effort is not None and effort not in _PROFILES:
        raise OptionError(f"`effort` is {effort!r}; it must be None or one of {', '.join(_PROFILES)}")
    return dict(_PROFILES[effort or "full"].get(name, {}))
