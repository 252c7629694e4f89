"""Differential evolution that evaluates only the promising ones of its children."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from searchers import effort
from searchers.checks import whole_option
from searchers.differential_evolution import DifferentialEvolutionSearch
from searchers.encoding import Matrix
from searchers.errors import StateError
from searchers.features import Features
from searchers.initial_population import InitialPopulationStrategy
from searchers.space import Space
from searchers.state import positions, whole

__all__ = ["DESurrogateHybrid"]

_DIGITS = 9
"""Predictions are compared to so many: the last bits differ by machine."""
_MAX_SEED = 2**31


class DESurrogateHybrid(DifferentialEvolutionSearch):
    """Differential evolution with surrogate-assisted selection.

    As `DifferentialEvolutionSearch` with immediate updates, until `surrogate_threshold` evaluations are
    back. From then on `candidate_ratio` children are bred for each challenger, and the one is evaluated
    of which a random forest expects most. The forest regresses the rank of a configuration among all
    that are known, between 0 and 1, so that the scale of the objective does not matter; a failure has
    the worst, 1. It is fitted to everything known again after every `refit_frequency` complete
    generations.

    Jin, Y. "Surrogate-assisted evolutionary computation: Recent advances and future challenges." Swarm and
    Evolutionary Computation 1 (2011): 61-70. Sun, C. et al. "A surrogate-assisted DE with an adaptive local
    search" (2019). Breiman, L. "Random forests." Machine Learning 45 (2001): 5-32.

    Args:
        space: See `SpaceSearcher`.
        population_size: See `DifferentialEvolutionSearch`.
        max_generations: See `DifferentialEvolutionSearch`.
        crossover_rate: See `DifferentialEvolutionSearch`.
        surrogate_threshold: Evaluations after which the surrogate is used.
        candidate_ratio: Children for each challenger, of which one is evaluated.
        refit_frequency: Generations between two fits.
        n_estimators: Trees of the forest.
        min_improvement_delta: See `DifferentialEvolutionSearch`; early stopping is on by default here.
        patience: See `DifferentialEvolutionSearch`.
        initial_population_strategy: See `DifferentialEvolutionSearch`.
        compile_timeout_lower_bound: See `DifferentialEvolutionSearch`.
        compile_timeout_quantile: See `DifferentialEvolutionSearch`.
        metric: See `SpaceSearcher`; one objective only.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`.

    Raises:
        OptionError: An argument has a value it cannot have, or there are several objectives.
    """

    _needs: ClassVar[tuple[str, ...]] = ("sklearn.ensemble",)

    def __init__(
        self,
        space: Space | None = None,
        population_size: int = effort.DE_POPULATION_SIZE,
        max_generations: int = effort.DE_MAX_GENERATIONS,
        crossover_rate: float = effort.DE_CROSSOVER_RATE,
        surrogate_threshold: int = effort.DE_SURROGATE_THRESHOLD,
        candidate_ratio: int = effort.DE_SURROGATE_CANDIDATE_RATIO,
        refit_frequency: int = effort.DE_SURROGATE_REFIT_FREQUENCY,
        n_estimators: int = effort.DE_SURROGATE_N_ESTIMATORS,
        min_improvement_delta: float | None = effort.MIN_IMPROVEMENT_DELTA,
        patience: int | None = effort.DE_SURROGATE_PATIENCE,
        initial_population_strategy: InitialPopulationStrategy | str | None = None,
        compile_timeout_lower_bound: float = effort.COMPILE_TIMEOUT_LOWER_BOUND,
        compile_timeout_quantile: float = effort.COMPILE_TIMEOUT_QUANTILE,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        super().__init__(
            space,
            population_size,
            max_generations,
            crossover_rate,
            None,
            min_improvement_delta,
            patience,
            initial_population_strategy,
            compile_timeout_lower_bound,
            compile_timeout_quantile,
            metric=metric,
            mode=mode,
            seed=seed,
            initial_configs=initial_configs,
        )
        self.surrogate_threshold = whole_option("surrogate_threshold", surrogate_threshold, 2)
        self.candidate_ratio = whole_option("candidate_ratio", candidate_ratio)
        self.refit_frequency = whole_option("refit_frequency", refit_frequency)
        self.n_estimators = whole_option("n_estimators", n_estimators)
        # what the forest was fitted to, so that the same one can be had again from saved state
        self._known: list[int] = []
        self._ranks: list[float] = []
        self._forest_seed = 0
        self._fitted_at = 0
        self._forest: Any = None

    def _select(self, families: list[Matrix]) -> list[Matrix | None]:
        if not self._ready_for_surrogate():
            return super()._select(families)
        kept = [family[: self.candidate_ratio] for family in families]
        if not any(map(len, kept)):
            return [None] * len(kept)
        scores = iter(self._predict(np.concatenate(kept)))
        chosen: list[Matrix | None] = []
        for family in kept:
            expected = [next(scores) for _ in family]
            chosen.append(family[expected.index(min(expected))] if expected else None)
        return chosen

    def _ready_for_surrogate(self) -> bool:
        """Whether there is a surrogate; it is fitted anew if it is time for that."""
        due = self._closed - self._fitted_at >= self.refit_frequency if self._known else True
        if due:
            known = [trial.index for trial in self._trials if trial.outcome is not None]
            if len(known) < self.surrogate_threshold:
                return False
            self._known, self._ranks = known, self._ranks_of(known)
            self._forest_seed = int(self._rng.integers(_MAX_SEED))
            self._fitted_at, self._forest = self._closed, None
        return True

    def _ranks_of(self, indices: list[int]) -> list[float]:
        """The share of successes that are better, 1 for a failure."""
        losses = np.array([self._loss(index) for index in indices])
        passed = np.sort(losses[np.isfinite(losses)])
        better = np.searchsorted(passed, losses) / max(1, len(passed))
        ranks: list[float] = np.where(np.isfinite(losses), better, 1.0).tolist()
        return ranks

    def _predict(self, rows: Matrix) -> list[float]:
        """The ranks that the forest expects of `rows`."""
        from threadpoolctl import threadpool_limits

        features = Features(self._known_space())
        with threadpool_limits(1):
            if self._forest is None:
                self._forest = self._fit(features)
            expected: npt.NDArray[np.float64] = self._forest.predict(features(rows))
        scores: list[float] = expected.round(_DIGITS).tolist()
        return scores

    def _fit(self, features: Features) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        rows = self._rows_of(self._known)
        forest = RandomForestRegressor(
            n_estimators=self.n_estimators, random_state=self._forest_seed, n_jobs=1
        )
        return forest.fit(features(rows), self._ranks)

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            **super()._algorithm_state(),
            "known": self._known,
            "ranks": self._ranks,
            "forest_seed": self._forest_seed,
            "fitted_at": self._fitted_at,
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        super()._load_algorithm_state(state)
        self._known = positions("known", state["known"], len(self._trials), once=True)
        self._ranks = [_rank(value) for value in state["ranks"]]
        if len(self._ranks) != len(self._known):
            raise StateError(f"`ranks` has {len(self._ranks)} entries for {len(self._known)} trials")
        self._forest_seed = whole("forest_seed", state["forest_seed"], _MAX_SEED - 1)
        self._fitted_at = whole("fitted_at", state["fitted_at"], self._closed)
        self._forest = None


def _rank(value: Any) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        raise StateError(f"`ranks` has {value!r}; it must hold finite numbers")
    return value
