"""New configurations from good ones: crossover and small changes, one generation at a time."""

from __future__ import annotations

import numpy as np

from searchers.encoding import Matrix
from searchers.space import Space

__all__ = ["offspring"]

_MUTATED = 0.75
"""Share of the children that are also mutated: in a population that has nearly converged the others are
mostly known."""


def offspring(space: Space, parents: Matrix, n: int, rng: np.random.Generator) -> Matrix:
    """About `n` children, some of which may break constraints, be alike, or be known already.

    Args:
        space: The space.
        parents: Rows, best first, shape (k, columns); of two drawn at random the better one is a parent.
        n: How many.
        rng: Where randomness comes from.

    Returns:
        Rows, shape (n or n + 1, columns).
    """
    from searchers.operators import LevelCrossover, LevelProblem, mutated

    pairs = (n + 1) // 2
    chosen = rng.integers(len(parents), size=(2, 2, pairs)).min(axis=0)
    children = LevelCrossover()._do(LevelProblem(space.encoding, 1), parents[chosen], random_state=rng)
    children = np.concatenate(list(children))
    changed = rng.random(len(children)) < _MUTATED
    children[changed] = mutated(space, children[changed], rng)
    return np.asarray(children)
