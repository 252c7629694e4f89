"""The points a model chooses from: all of a small space, a sample around what is good of a large one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from searchers.encoding import Matrix
from searchers.features import Features
from searchers.kernel import Grid
from searchers.moves import Moves
from searchers.offspring import offspring
from searchers.space import Space

__all__ = ["GRID_LIMIT", "Points", "sampled"]

GRID_LIMIT = 1 << 15
"""A space with more valid configurations is sampled: scoring all of them would take longer than most
evaluations."""
_CENTRES = 4
_NEIGHBOURS = 384
_CHILDREN = 384
_RANDOM = 384
_RADIUS = 16


class Points:
    """Rows and their features.

    Args:
        space: The space.
        rows: Different valid rows, shape (n, columns).
        features: The translation.

    Attributes:
        rows: As given.
        grid: The features of each row.
    """

    def __init__(self, space: Space, rows: Matrix, features: Features) -> None:
        self.rows = rows
        self.grid = Grid(features(rows))
        self._space = space
        keys = space.keys(rows)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    @cached_property
    def states(self) -> npt.NDArray[np.int64]:
        """The level of each parameter, or how many it has where it is absent, shape (n, n_parameters)."""
        return self._space.encoding.states(self.rows, self._space.inactive(self.rows))

    def places(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Positions of the rows with these keys; those that are not among the points are left out."""
        found = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.asarray(self._order[found[self._keys[found] == keys]], dtype=np.int64)


def sampled(
    space: Space, features: Features, best: Matrix, others: Sequence[Matrix], rng: np.random.Generator
) -> Points:
    """About a thousand points of a space that is too large for all.

    Args:
        space: The space.
        features: The translation.
        best: The best rows so far, best first, shape (k, columns); at least one.
        others: More rows that have to be among the points, such as pending ones.
        rng: Where randomness comes from.
    """
    near = np.concatenate([Moves(space, row, _RADIUS).single() for row in best[:_CENTRES]])
    if len(near) > _NEIGHBOURS:
        near = near[rng.choice(len(near), _NEIGHBOURS, replace=False)]
    made = np.concatenate([near, offspring(space, best, _CHILDREN, rng)])
    made = np.concatenate([made[space.valid(made)], space.sample(_RANDOM, rng)])
    rows = np.concatenate([np.array(others, dtype=np.int32).reshape(-1, made.shape[1]), made])
    _, first = np.unique(space.keys(rows), return_index=True)
    return Points(space, rows[np.sort(first)], features)
