"""New configurations from good ones: crossover and small changes, one generation at a time."""

from __future__ import annotations

import numpy as np

from searchers.encoding import Matrix
from searchers.operators import LevelCrossover, LevelMutation, LevelProblem
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
    pairs = (n + 1) // 2
    chosen = rng.integers(len(parents), size=(2, 2, pairs)).min(axis=0)
    problem = LevelProblem(space.encoding, 1)
    children = LevelCrossover()._do(problem, parents[chosen], random_state=rng)
    children = np.concatenate(list(children))
    mutated = rng.random(len(children)) < _MUTATED
    active = ~space.inactive(children[mutated])
    bits = np.ones((len(active), space.encoding.n_bits), dtype=bool)
    children[mutated] = LevelMutation()._do(
        problem, children[mutated], random_state=rng, active=np.concatenate([active, bits], axis=1)
    )
    return np.asarray(children)
