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

from searchers.encoding import Encoding, Matrix
from searchers.space import Space

__all__ = ["LevelCrossover", "LevelMutation", "LevelProblem", "mutated"]

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

    def _do(
        self, problem: LevelProblem, X: Matrix, *args: Any, random_state: np.random.Generator, **kwargs: Any
    ) -> Matrix:
        encoding = problem.encoding
        swap = random_state.random(X.shape[1:]) < 0.5
        if encoding.n_bits:
            for column, leaf in enumerate(encoding.leaves):
                if leaf.bit is not None:
                    swap[:, leaf.bit] = swap[:, column]
        children: Matrix = np.where(swap, X[::-1], X)
        ordered = encoding.ordered
        mixed = _simulated_binary(X[:, :, ordered], encoding.n_levels[ordered], random_state)
        children[:, :, ordered] = mixed
        return children


def _simulated_binary(parents: Matrix, n_levels: Matrix, rng: np.random.Generator) -> Matrix:
    """The same as pymoo's `SBX` bounded by -0.5 and n_levels - 0.5, then rounded, in a third of its time."""
    low, high = parents.min(axis=0), parents.max(axis=0)
    cross = (rng.random(low.shape) < 0.5) & (low < high)
    below, above = low[cross], high[cross]
    top = np.broadcast_to(n_levels - 1, cross.shape)[cross]
    sum_, delta, u = below + above, above - below, rng.random(len(below))
    left = sum_ - _spread(u, 1.0 + 2.0 * (below + 0.5) / delta) * delta
    right = sum_ + _spread(u, 1.0 + 2.0 * (top + 0.5 - above) / delta) * delta
    swap = rng.random(len(below)) < 0.5
    mixed = np.rint(0.5 * np.where(swap, (right, left), (left, right)))
    children: Matrix = parents.copy()
    # half a level is rounded to even, which may be outside
    children[:, cross] = np.clip(mixed, 0, top)
    return children


def _spread(u: npt.NDArray[np.float64], beta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far children lie apart, as a multiple of their parents' distance, for uniform `u`."""
    x = u * (2.0 - beta ** -(SBX_ETA + 1.0))
    spread: npt.NDArray[np.float64] = np.where(x <= 1.0, x, 1.0 / (2.0 - x)) ** (1.0 / (SBX_ETA + 1.0))
    return spread


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
        movable = np.broadcast_to(encoding.n_levels > 1, X.shape)
        if active is not None:
            movable = movable & active
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


def mutated(space: Space, rows: Matrix, rng: np.random.Generator, *, extra: float = 0.5) -> Matrix:
    """`rows`, each with at least one active gene moved; see `LevelMutation`."""
    active = np.ones(rows.shape, dtype=bool)
    active[:, : space.encoding.n_parameters] = ~space.inactive(rows)
    problem = LevelProblem(space.encoding, 1)
    changed: Matrix = LevelMutation(extra)._do(problem, rows, random_state=rng, active=active)
    return changed


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
