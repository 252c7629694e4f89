"""Defaults of the algorithms, in one place.

The documented defaults are Helion's "full" effort and CompileIQ's engine. Where CompileIQ's document
only says that a value is calculated, the formula is here.

Helion's names for its three efforts are kept: "none" evaluates the default configuration alone, "quick"
is for a few minutes, "full" is what the constructors have.
"""

from __future__ import annotations

from typing import Any

from searchers.errors import OptionError

__all__ = [
    "COMPILE_TIMEOUT_LOWER_BOUND",
    "COMPILE_TIMEOUT_QUANTILE",
    "COPIES",
    "DE_CROSSOVER_RATE",
    "DE_MAX_GENERATIONS",
    "DE_POPULATION_SIZE",
    "DE_SURROGATE_CANDIDATE_RATIO",
    "DE_SURROGATE_N_ESTIMATORS",
    "DE_SURROGATE_PATIENCE",
    "DE_SURROGATE_REFIT_FREQUENCY",
    "DE_SURROGATE_THRESHOLD",
    "EFFORTS",
    "FAIL_SHARE",
    "FRAC_SELECTED",
    "GENERATIONS",
    "INITIAL_POPULATION",
    "LFBO_PATTERN_NEIGHBORS",
    "LFBO_TREE_NEIGHBORS",
    "MAX_GENERATIONS",
    "MAX_TOP_UPS",
    "MIN_IMPROVEMENT_DELTA",
    "MODEL_INITIAL_POPULATION",
    "MUTATE_RATE",
    "N_TREES",
    "PATIENCE",
    "QUANTILE",
    "QUICK",
    "RADIUS",
    "RANDOM_COUNT",
    "SEED_SHARE",
    "SIMILARITY_PENALTY",
    "cull_size",
    "options_for",
    "pool_size",
]

EFFORTS = ("none", "quick", "full")
"""What `searchers.create` takes as `effort`."""

# -- all of Helion's searchers
MIN_IMPROVEMENT_DELTA = 0.001
COMPILE_TIMEOUT_LOWER_BOUND = 30.0
"""Seconds."""
COMPILE_TIMEOUT_QUANTILE = 0.9

# -- pattern search and LFBO
INITIAL_POPULATION = 100
COPIES = 5
MAX_GENERATIONS = 20
FRAC_SELECTED = 0.1
LFBO_PATTERN_NEIGHBORS = 300
LFBO_TREE_NEIGHBORS = 200
RADIUS = 2
QUANTILE = 0.1
PATIENCE = 1
SIMILARITY_PENALTY = 1.0
N_TREES = 100

# -- differential evolution, without and with a surrogate
DE_POPULATION_SIZE = 40
DE_MAX_GENERATIONS = 40
DE_CROSSOVER_RATE = 0.8
DE_SURROGATE_THRESHOLD = 100
DE_SURROGATE_CANDIDATE_RATIO = 3
DE_SURROGATE_REFIT_FREQUENCY = 5
DE_SURROGATE_N_ESTIMATORS = 50
DE_SURROGATE_PATIENCE = 3

# -- the model-based searchers
MODEL_INITIAL_POPULATION = 10
"""Random candidates before the first fit."""

# -- random search and the genetic engine
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


_QUICK_PATTERN = {"initial_population": 30, "copies": 2, "max_generations": 5}
_QUICK_DE = {"population_size": 20, "max_generations": 8}
_QUICK: dict[str, dict[str, Any]] = {
    "de": _QUICK_DE,
    "de_surrogate": _QUICK_DE,
    "lfbo_pattern": _QUICK_PATTERN,
    "lfbo_tree": _QUICK_PATTERN,
    "pattern": _QUICK_PATTERN,
    "random": {"count": 100},
}


QUICK = tuple(sorted(_QUICK))
"""The searchers of which "quick" has a smaller profile."""


def options_for(name: str, effort: str | None) -> dict[str, Any]:
    """The options that an effort gives a searcher, where they are not its defaults.

    Raises:
        OptionError: There is no such effort.
    """
    if effort is not None and effort not in EFFORTS:
        raise OptionError(f"`effort` is {effort!r}; it must be None or one of {', '.join(EFFORTS)}")
    return dict(_QUICK.get(name, {})) if effort == "quick" else {}
