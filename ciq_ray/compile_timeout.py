"""How long a candidate may compile, learnt from those that have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from searchers.initial_population import InitialPopulationStrategy
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from searchers.base import SpaceSearcher

__all__ = ["CompileTimeout"]

LEAST_TIMES = 5
"""Compile times that are needed for a quantile of them."""


class CompileTimeout:
    """The adaptive limit on compiling.

    When the initial population is back, the limit becomes the `quantile` of its compile times, or
    `lower_bound` if that is more, once and for all. Compile times are those of candidates whose compile
    step came to its end: not of those that failed to compile or took too long. There must be at least 5 of
    them; until there are, there is no limit. Who compiles keeps to the lower of this limit and its own.

    It depends on outcomes and their order only, so that a search that is resumed comes to the same.

    Args:
        lower_bound: Seconds.
        quantile: More than 0, at most 1.
        population: Outcomes of the initial population.
    """

    def __init__(self, lower_bound: float, quantile: float, population: int) -> None:
        self.lower_bound = lower_bound
        self.quantile = quantile
        self.population = population
        self._outcomes = 0
        self._times: list[float] = []
        self._limit: float | None = None

    @classmethod
    def of(cls, searcher: SpaceSearcher) -> CompileTimeout | None:
        """That of a searcher with the documented attributes, ``None`` for others.

        They are `compile_timeout_lower_bound` and `compile_timeout_quantile`. The size of the initial
        population is `initial_population` or `population_size`; with FROM_DEFAULT it is 1. (With
        FROM_BEST_AVAILABLE it may be smaller than the attribute says; then it is waited for as many.)
        """

        def attribute(*names: str) -> Any:
            return next(
                (value for name in names if (value := getattr(searcher, name, None)) is not None), None
            )

        lower_bound = attribute("compile_timeout_lower_bound")
        quantile = attribute("compile_timeout_quantile")
        population = attribute("initial_population", "population_size")
        if lower_bound is None or quantile is None or population is None:
            return None
        if attribute("initial_population_strategy") == InitialPopulationStrategy.FROM_DEFAULT:
            population = 1
        return cls(lower_bound, quantile, population)

    @property
    def limit(self) -> float | None:
        """Seconds, ``None`` while there is no limit."""
        return self._limit

    def observe(self, outcome: Outcome) -> None:
        """Learn from what came of a candidate."""
        if self._limit is not None:
            return
        self._outcomes += 1
        if outcome.compile_s is not None and outcome.status not in ("compile_error", "compile_timeout"):
            self._times.append(outcome.compile_s)
        if self._outcomes >= self.population and len(self._times) >= LEAST_TIMES:
            self._limit = max(self.lower_bound, float(np.quantile(self._times, self.quantile)))
