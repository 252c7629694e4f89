"""LFBO whose neighbours come from walks down single trees of its forest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from searchers import effort
from searchers.encoding import Matrix
from searchers.features import Features
from searchers.initial_population import InitialPopulationStrategy
from searchers.lfbo_pattern import LFBOPatternSearch
from searchers.moves import Moves
from searchers.space import Space

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = ["LFBOTreeSearch"]

_LEAST_KNOWN = 30
"""With fewer outcomes a tree asks for one parameter or for none, and walks find a handful of neighbours."""


class LFBOTreeSearch(LFBOPatternSearch):
    """LFBO pattern search that lets single trees say what to change, and to what.

    A generation's neighbours come from `num_neighbors` trials. A trial picks a tree of the forest at
    random and follows the base down to its leaf. The parameters that the tree asks for on the way, and
    one of the important ones, are then optimised one after the other: among the values up to `radius`
    levels away, the present one included, the one that this tree calls good with the highest probability
    is kept, ties broken at random. A trial that ends where it began gives nothing. What the trials found
    is scored by the whole forest and selected as in `LFBOPatternSearch`. Until there is a forest,
    neighbours are random; up to the 30th outcome there are random ones among them.

    The walk looks at the parameters that matter to the forest; one tree at a time instead of all of them
    makes the neighbours differ.

    References: Song et al. (2022), see `LFBOPatternSearch`; Mišić, "Optimization of tree ensembles"
    (Operations Research 68(5), 2020), which optimises over all trees exactly what is done greedily here.

    Args:
        space: See `SpaceSearcher`.
        num_neighbors: How many trials there are for a generation.
        frac_selected: See `LFBOPatternSearch`.
        radius: How far each parameter moves in a trial, in levels (in log2 for powers of two).
        initial_population: See `PatternSearch`.
        copies: See `PatternSearch`.
        max_generations: See `PatternSearch`.
        min_improvement_delta: See `PatternSearch`.
        quantile: See `LFBOPatternSearch`.
        patience: See `LFBOPatternSearch`.
        similarity_penalty: See `LFBOPatternSearch`.
        initial_population_strategy: See `PatternSearch`.
        compile_timeout_lower_bound: See `PatternSearch`.
        compile_timeout_quantile: See `PatternSearch`.
        metric: See `PatternSearch`.
        mode: See `PatternSearch`.
        seed: See `LFBOPatternSearch`.
        initial_configs: See `PatternSearch`.

    Raises:
        OptionError: An argument has a value it cannot have, or there are several objectives.
    """

    def __init__(
        self,
        space: Space | None = None,
        num_neighbors: int = effort.LFBO_TREE_NEIGHBORS,
        frac_selected: float = effort.FRAC_SELECTED,
        radius: int = effort.RADIUS,
        initial_population: int = effort.INITIAL_POPULATION,
        copies: int = effort.COPIES,
        max_generations: int = effort.MAX_GENERATIONS,
        min_improvement_delta: float = effort.MIN_IMPROVEMENT_DELTA,
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
            frac_selected,
            num_neighbors,
            radius,
            quantile,
            patience,
            similarity_penalty,
            initial_population_strategy,
            compile_timeout_lower_bound,
            compile_timeout_quantile,
            metric=metric,
            mode=mode,
            seed=seed,
            initial_configs=initial_configs,
        )

    def _neighbours(self, base: Matrix, surrogate: RandomForestClassifier | None) -> Matrix:
        if surrogate is None:
            return super()._neighbours(base, surrogate)
        space = self._known_space()
        features = Features(space)
        moves = Moves(space, base, self.radius)
        trees = [tree.tree_ for tree in surrogate.estimators_]
        chosen = self._rng.integers(len(trees), size=self.num_neighbors).tolist()
        x = features(base[None, :]).astype(np.float32)
        paths = {t: _path(trees[t], x, features.owner) for t in sorted(set(chosen))}
        plans = [self._plan(paths[t], moves) for t in chosen]
        rows = np.repeat(base[None, :], len(chosen), axis=0)
        # all trials take a step together: the features of many rows cost little more than those of one
        for step in range(max(map(len, plans))):
            walking = [i for i, plan in enumerate(plans) if step < len(plan)]
            options = [
                np.concatenate([rows[i][None, :], moves.combined(rows[i], moves.of[plans[i][step]])])
                for i in walking
            ]
            stacked = np.concatenate(options)
            valid = space.valid(stacked)
            X = features(stacked).astype(np.float32)
            stop = 0
            for i, choices in zip(walking, options, strict=True):
                start, stop = stop, stop + len(choices)
                good = np.where(valid[start:stop], _probability(trees[chosen[i]], X[start:stop]), -1.0)
                ties = np.flatnonzero(good == good.max())
                rows[i] = choices[ties[self._rng.integers(len(ties))]]
        changed: Matrix = rows[(rows != base).any(axis=1)]
        n_known = sum(trial.outcome is not None for trial in self._trials)
        if n_known < _LEAST_KNOWN:
            return np.concatenate([changed, super()._neighbours(base, None)])
        return changed

    def _plan(self, path: list[int], moves: Moves) -> list[int]:
        """The parameters that a trial optimises, in order."""
        plan = [j for j in path if j in moves.movable]
        if moves.important:
            plan.append(moves.important[self._rng.integers(len(moves.important))])
        return list(dict.fromkeys(plan))


def _path(tree: Any, x: npt.NDArray[np.float32], owner: npt.NDArray[np.int64]) -> list[int]:
    """The parameters that a tree asks for on the way of one sample, shape (1, n_features), to its leaf."""
    # children have higher numbers than their parents, so that a path in order of numbers is one from the root
    asked = tree.feature[np.sort(tree.decision_path(x).indices)]
    return list(dict.fromkeys(owner[asked[asked >= 0]].tolist()))


def _probability(tree: Any, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """A tree's probability that each sample is good, shape (n,)."""
    counts = tree.value[tree.apply(X), 0, :]
    return np.asarray((counts[:, 1] / counts.sum(axis=1)).round(9))
