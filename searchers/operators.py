"""Crossover and mutation on the integer matrix, as pymoo operators.

Two traps of rounding real-valued operators are avoided: end levels get half the probability unless the
bounds are half a level further out, and a gene with few levels hardly ever moves unless it is made to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.core.crossover import Crossover
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX

from searchers.encoding import Encoding, Matrix

__all__ = ["LevelCrossover", "LevelMutation", "LevelProblem"]

SBX_ETA = 3.0
"""Spread of simulated binary crossover; wider than the usual 15, which leaves small ranges where they are."""
STEP_SHARE = 0.15
"""Standard deviation of a mutation step, as a share of an ordered parameter's levels."""
RESET_SHARE = 0.3
"""How often a mutated ordered gene goes to any level instead: numbers that are names in disguise, and
valleys wider than a step, cannot be crossed otherwise."""


class LevelProblem(Problem):
    """The columns of a space as pymoo sees them: numbers between -0.5 and n_levels - 0.5."""

    def __init__(self, encoding: Encoding, n_objectives: int) -> None:
        super().__init__(
            n_var=encoding.n_columns,
            n_obj=n_objectives,
            xl=np.full(encoding.n_columns, -0.5),
            xu=encoding.n_levels.astype(float) - 0.5,
        )
        self.encoding = encoding


class LevelCrossover(Crossover):
    """Simulated binary crossover on ordered genes, uniform on the others; a bit travels with its gene.

    Deb and Agrawal, "Simulated Binary Crossover for Continuous Search Space", 1995; Syswerda,
    "Uniform Crossover in Genetic Algorithms", 1989.
    """

    def __init__(self) -> None:
        super().__init__(2, 2, prob=1.0)
        self._sbx = SBX(prob_var=0.5, eta=SBX_ETA, prob=1.0)

    def _do(
        self, problem: LevelProblem, X: Matrix, *args: Any, random_state: np.random.Generator, **kwargs: Any
    ) -> Matrix:
        encoding = problem.encoding
        mixed = np.rint(self._sbx._do(problem, X, random_state=random_state))
        children: Matrix = np.clip(mixed, 0, encoding.n_levels - 1).astype(np.int32)
        swap = random_state.random(X.shape[1:]) < 0.5
        for leaf, column in zip(encoding.leaves, range(encoding.n_parameters), strict=True):
            if leaf.bit is not None:
                swap[:, leaf.bit] = swap[:, column]
        uniform = np.where(swap, X[::-1], X)
        children[:, :, ~encoding.ordered] = uniform[:, :, ~encoding.ordered]
        return children


class LevelMutation(Mutation):
    """Move at least one active gene: an ordered one by at least a level, a category to any other.

    Args:
        extra: Expected number of genes that move besides the first.
    """

    def __init__(self, extra: float = 0.5) -> None:
        super().__init__(prob=1.0)
        self.extra = extra

    def _do(
        self,
        problem: LevelProblem,
        X: Matrix,
        *args: Any,
        random_state: np.random.Generator,
        active: npt.NDArray[np.bool_] | None = None,
        **kwargs: Any,
    ) -> Matrix:
        encoding = problem.encoding
        movable = np.tile(encoding.n_levels > 1, (len(X), 1))
        if active is not None:
            movable &= active
        keys = np.where(movable, random_state.random(X.shape), -1.0)
        chosen = np.zeros(X.shape, dtype=bool)
        chosen[np.arange(len(X)), keys.argmax(axis=1)] = True
        count = movable.sum(axis=1, keepdims=True)
        chosen |= random_state.random(X.shape) < self.extra / np.maximum(count, 1)
        chosen &= movable
        rows, columns = np.nonzero(chosen)
        mutated: Matrix = X.copy()
        mutated[rows, columns] = _moved(
            X[rows, columns], encoding.n_levels[columns], encoding.ordered[columns], random_state
        )
        return mutated


def _moved(
    levels: Matrix, n_levels: Matrix, ordered: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Matrix:
    steps = np.maximum(1, np.rint(np.abs(rng.normal(size=len(levels))) * STEP_SHARE * n_levels))
    up = rng.random(len(levels)) < 0.5
    target = levels + np.where(up, steps, -steps)
    outside = (target < 0) | (target >= n_levels)
    target = np.where(outside, levels + np.where(up, -steps, steps), target)  # turn back at an end
    target = np.clip(target, 0, n_levels - 1)
    still = target == levels
    target = np.where(still, np.where(levels > 0, levels - 1, levels + 1), target)
    other = (levels + rng.integers(1, np.maximum(n_levels, 2))) % n_levels
    local = ordered & (rng.random(len(levels)) >= RESET_SHARE)
    return np.where(local, target, other).astype(np.int32)
