"""What to try next: search spaces, and searchers for Ray Tune and for batches.

Nothing is imported before it is used: a space needs numpy only, a searcher needs Ray Tune's base class.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchers.auto import AutoSearch
    from searchers.base import SpaceSearcher
    from searchers.bayesian import BayesianSearch
    from searchers.de_surrogate import DESurrogateHybrid
    from searchers.differential_evolution import DifferentialEvolutionSearch
    from searchers.errors import (
        ConfigError,
        ConstraintError,
        OptionError,
        SearcherError,
        SpaceError,
        StateError,
    )
    from searchers.finite_search import FiniteSearch
    from searchers.genetic import GeneticSearch
    from searchers.initial_population import InitialPopulationStrategy
    from searchers.leaf_similarity import compute_leaf_similarity
    from searchers.lfbo_pattern import LFBOPatternSearch
    from searchers.lfbo_tree import LFBOTreeSearch
    from searchers.lists import ListOf, Permutation
    from searchers.outcome import FAILURES, STATUSES, Candidate, Outcome
    from searchers.params import (
        Boolean,
        Choice,
        Literal,
        LogRange,
        PowerOfTwo,
        Range,
    )
    from searchers.pattern import PatternSearch
    from searchers.random_search import RandomSearch
    from searchers.registry import create
    from searchers.space import Space

__all__ = [
    "FAILURES",
    "STATUSES",
    "AutoSearch",
    "BayesianSearch",
    "Boolean",
    "Candidate",
    "Choice",
    "ConfigError",
    "ConstraintError",
    "DESurrogateHybrid",
    "DifferentialEvolutionSearch",
    "FiniteSearch",
    "GeneticSearch",
    "InitialPopulationStrategy",
    "LFBOPatternSearch",
    "LFBOTreeSearch",
    "ListOf",
    "Literal",
    "LogRange",
    "OptionError",
    "Outcome",
    "PatternSearch",
    "Permutation",
    "PowerOfTwo",
    "RandomSearch",
    "Range",
    "SearcherError",
    "Space",
    "SpaceError",
    "SpaceSearcher",
    "StateError",
    "compute_leaf_similarity",
    "create",
]

_HOME = {
    "auto": ["AutoSearch"],
    "base": ["SpaceSearcher"],
    "bayesian": ["BayesianSearch"],
    "de_surrogate": ["DESurrogateHybrid"],
    "differential_evolution": ["DifferentialEvolutionSearch"],
    "errors": ["ConfigError", "ConstraintError", "OptionError", "SearcherError", "SpaceError", "StateError"],
    "finite_search": ["FiniteSearch"],
    "genetic": ["GeneticSearch"],
    "initial_population": ["InitialPopulationStrategy"],
    "leaf_similarity": ["compute_leaf_similarity"],
    "lfbo_pattern": ["LFBOPatternSearch"],
    "lfbo_tree": ["LFBOTreeSearch"],
    "outcome": ["FAILURES", "STATUSES", "Candidate", "Outcome"],
    "lists": ["ListOf", "Permutation"],
    "params": ["Boolean", "Choice", "Literal", "LogRange", "PowerOfTwo", "Range"],
    "pattern": ["PatternSearch"],
    "random_search": ["RandomSearch"],
    "registry": ["create"],
    "space": ["Space"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'searchers' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"searchers.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
