"""Pattern search whose neighbours are chosen by a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from searchers import effort, forest
from searchers.checks import number_option, share_option, whole_option
from searchers.encoding import Matrix
from searchers.features import Features
from searchers.initial_population import InitialPopulationStrategy
from searchers.leaf_similarity import compute_leaf_similarity
from searchers.moves import Moves
from searchers.pattern import PatternSearch
from searchers.space import Space

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = ["LFBOPatternSearch"]

Floats = npt.NDArray[np.float64]

_IMPORTANT_SHARE = 0.75
"""In this share of the random neighbours an important parameter is changed, besides others."""


class LFBOPatternSearch(PatternSearch):
    """Likelihood-free Bayesian optimisation in batches, around the best configurations found.

    The copies are those of `PatternSearch`; their generations are not. For each one

    1. a random forest is fitted to all that is known by then: what is below the `quantile` of the
       successes is good and weighs more the further it is below, all else is bad, failures included;
    2. `num_neighbors` random neighbours of the base are made. Each changes 1 to `radius` parameters by at
       most `radius` levels each. Where there are important ones (`Param.important`), three of four
       neighbours change one of these and 0 to `radius` others;
    3. one after the other, the neighbour is selected whose probability of being good, less
       `similarity_penalty` times its mean similarity to those selected before it, is the highest, until
       there are `frac_selected` of the new ones. Similarity is that of `compute_leaf_similarity`.

    Without a forest (when all is good, or all bad) the selection is random.

    References: Song, Yu, Neiswanger and Ermon, "A general recipe for likelihood-free Bayesian
    optimization" (ICML 2022); Breiman, "Random forests" (Machine Learning 45, 2001).

    Args:
        space: See `SpaceSearcher`.
        initial_population: See `PatternSearch`.
        copies: See `PatternSearch`.
        max_generations: See `PatternSearch`.
        min_improvement_delta: See `PatternSearch`.
        frac_selected: Share of the neighbours to evaluate, rounded, at least one; above 0 and at most 1.
        num_neighbors: How many random neighbours are made for a generation.
        radius: How far a parameter moves, in levels (in log2 for powers of two), and how many do.
        quantile: Where good ends, between 0 and 1; lower is more selective.
        patience: Generations in a row without improvement that a copy survives.
        similarity_penalty: What it costs to be like one that is selected already; 0 for nothing.
        initial_population_strategy: See `PatternSearch`.
        compile_timeout_lower_bound: See `PatternSearch`.
        compile_timeout_quantile: See `PatternSearch`.
        metric: See `PatternSearch`.
        mode: See `PatternSearch`.
        seed: See `SpaceSearcher`; the forests' seeds are drawn from it too.
        initial_configs: See `PatternSearch`.

    Attributes:
        n_trees: Trees of the forest, 100 as Helion has them; the time of a generation is mostly theirs.

    Raises:
        OptionError: An argument has a value it cannot have, or there are several objectives.
    """

    n_trees: int = effort.N_TREES

    _needs: ClassVar[tuple[str, ...]] = ("sklearn.ensemble",)

    def __init__(
        self,
        space: Space | None = None,
        initial_population: int = effort.INITIAL_POPULATION,
        copies: int = effort.COPIES,
        max_generations: int = effort.MAX_GENERATIONS,
        min_improvement_delta: float = effort.MIN_IMPROVEMENT_DELTA,
        frac_selected: float = effort.FRAC_SELECTED,
        num_neighbors: int = effort.LFBO_PATTERN_NEIGHBORS,
        radius: int = effort.RADIUS,
        quantile: float = effort.QUANTILE,
        patience: int = effort.PATIENCE,
        similarity_penalty: float = effort.SIMILARITY_PENALTY,
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
            initial_population,
            copies,
            max_generations,
            min_improvement_delta,
            initial_population_strategy,
            compile_timeout_lower_bound,
            compile_timeout_quantile,
            metric=metric,
            mode=mode,
            seed=seed,
            initial_configs=initial_configs,
        )
        self.frac_selected = share_option("frac_selected", frac_selected, one=True)
        self.num_neighbors = whole_option("num_neighbors", num_neighbors)
        self.radius = whole_option("radius", radius)
        self.quantile = share_option("quantile", quantile)
        self.patience = whole_option("patience", patience, 0)
        self.similarity_penalty = number_option("similarity_penalty", similarity_penalty)

    def compute_leaf_similarity(self, surrogate: RandomForestClassifier, X_test: npt.NDArray[Any]) -> Floats:
        """See `searchers.compute_leaf_similarity`."""
        return compute_leaf_similarity(surrogate, X_test)

    def _next_generation(self, base: Matrix) -> Matrix:
        surrogate = self._fitted()
        rows = self._new_of(self._neighbours(base, surrogate))
        if not len(rows):
            return rows
        n = max(1, round(len(rows) * self.frac_selected))
        if surrogate is None:
            return rows[self._rng.permutation(len(rows))[:n]]
        return rows[self._diverse_best(surrogate, self._features(rows), n)]

    def _fitted(self) -> RandomForestClassifier | None:
        known = [trial for trial in self._trials if trial.outcome is not None]
        losses = np.array([self._loss(trial.index) for trial in known])
        X = self._features(self._rows_of(trial.index for trial in known))
        return forest.fit(X, losses, self.quantile, self.n_trees, int(self._rng.integers(2**31)))

    def _features(self, rows: Matrix) -> Floats:
        return Features(self._known_space())(rows)

    def _neighbours(self, base: Matrix, surrogate: RandomForestClassifier | None) -> Matrix:
        """`num_neighbors` random neighbours, valid or not, some of them twice."""
        moves = Moves(self._known_space(), base, self.radius)
        return np.array([moves.random(self._drawn(moves), self._rng) for _ in range(self.num_neighbors)])

    def _drawn(self, moves: Moves) -> list[int]:
        """The parameters that a random neighbour changes."""
        first: list[int] = []
        if moves.important and self._rng.random() < _IMPORTANT_SHARE:
            first = [moves.important[self._rng.integers(len(moves.important))]]
        others = [j for j in moves.movable if j not in first]
        least, most = min(1 - len(first), len(others)), min(self.radius, len(others))
        n = int(self._rng.integers(least, most, endpoint=True))
        return first + [int(j) for j in self._rng.permutation(others)[:n]]

    def _diverse_best(self, surrogate: RandomForestClassifier, X: Floats, n: int) -> list[int]:
        """Positions of the `n` samples that are selected, in that order."""
        score = forest.probability_of_good(surrogate, X)
        similarity = self.compute_leaf_similarity(surrogate, X)
        selected: list[int] = []
        summed = np.zeros(len(X))
        while len(selected) < n:
            penalised = score - self.similarity_penalty * summed / max(1, len(selected))
            penalised[selected] = -np.inf
            selected.append(int(np.argmax(penalised.round(9))))
            summed += similarity[selected[-1]]
        return selected
