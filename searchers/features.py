"""Rows of the integer matrix as numbers that a fitted model understands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from searchers.divisibility import degrees
from searchers.encoding import Matrix
from searchers.errors import SpaceError
from searchers.lists import Permutation
from searchers.param import Param
from searchers.room import room
from searchers.space import Space

__all__ = ["Features"]

Floats = npt.NDArray[np.float64]

_ABSENT = 0.5
"""Where a parameter that is absent stands on its scale; a column of its own says that it is absent."""
_MOST_ALIKE = 0.9
"""A larger share of configurations with the same room, and there is no column for it."""
_MOST_ORDERS = 24
"""A permutation with more orders has a column for the place of each item instead of one for each order."""


class Features:
    """The translation for one space.

    An ordered parameter is one column, its level scaled to 0..1 (so powers of two and logarithmic ranges
    are on their logarithmic scale); a categorical one with two levels one column, with more a column for
    each level, a permutation of more than four items one for the place of each item, scaled to 0..1. A
    parameter that can be absent has one more column: 1 where it is. Rows that are the same configuration
    have the same features.

    With `divisibility`, a parameter of whole numbers has one more column where that tells something new
    (`searchers.divisibility.degrees`): how often two divides its value, scaled to 0..1.

    With `edges`, the last column is how much room a configuration has (`searchers.room.room`), scaled to
    0..1, unless more than nine of ten have the same: what the few others are like would be a guess.

    Args:
        space: The space.
        divisibility: Whether there are columns for divisibility.
        edges: Whether there is a column for the room. The space must be one that can be enumerated, and the
            rows valid.

    Attributes:
        n_features: Number of columns.
        owner: The parameter that each column speaks of, -1 for the room, shape (n_features,).

    Raises:
        SpaceError: `edges` are wanted of a space that is too large to be enumerated.
    """

    def __init__(self, space: Space, *, divisibility: bool = False, edges: bool = False) -> None:
        self._space = space
        owner: list[int] = []
        self._first: list[int] = []
        leaves = space.encoding.leaves
        self._degrees = [_scaled_degrees(leaf.param) if divisibility else None for leaf in leaves]
        for j, (leaf, scaled) in enumerate(zip(leaves, self._degrees, strict=True)):
            self._first.append(len(owner))
            owner += [j] * (_width(leaf.param) + (scaled is not None) + leaf.can_be_absent)
        self._room = _scaled_room(space) if edges else None
        if self._room is not None:
            owner.append(-1)
        self.owner = np.array(owner, dtype=np.int64)
        self.n_features = len(owner)

    def __call__(self, rows: Matrix) -> Floats:
        """Features of `rows`, shape (len(rows), n_features)."""
        encoding = self._space.encoding
        inactive = self._space.inactive(rows)
        out = np.zeros((len(rows), self.n_features))
        for j, leaf in enumerate(encoding.leaves):
            first, levels, param = self._first[j], rows[:, j], leaf.param
            width = _width(param)
            if width == 1:
                out[:, first] = levels / max(1, param.n_levels - 1)
            elif isinstance(param, Permutation) and width < param.n_levels:
                out[:, first : first + width] = _places(param, levels)
            else:
                out[np.arange(len(rows)), first + levels] = 1.0
            last, scaled = first + width, self._degrees[j]
            if scaled is not None:
                out[:, last] = scaled[levels]
                last += 1
            if leaf.can_be_absent:
                absent = inactive[:, j]
                out[absent, first:last] = _ABSENT if width == 1 else 0.0
                out[:, last] = absent
        if self._room is not None:
            places = self._space.index_of(self._space.keys(rows))
            if (places < 0).any():
                raise SpaceError("a row breaks a constraint: nobody knows how much room it has")
            out[:, -1] = self._room[places]
        return out


def _width(param: Param) -> int:
    """Number of columns, without the one for absence."""
    if param.ordered or param.n_levels <= 2:
        return 1
    if isinstance(param, Permutation) and param.n_levels > _MOST_ORDERS:
        return len(param.items)
    return param.n_levels


def _scaled_degrees(param: Param) -> Floats | None:
    found = degrees(param)
    return None if found is None else _scaled(found)


def _scaled_room(space: Space) -> Floats | None:
    found = room(space)
    return None if np.bincount(found).max() > _MOST_ALIKE * len(found) else _scaled(found)


def _scaled(numbers: npt.NDArray[np.int64]) -> Floats:
    """From 0 to 1; not all of them are the same."""
    return np.asarray((numbers - numbers.min()) / np.ptp(numbers))


def _places(param: Permutation, levels: npt.NDArray[np.int32]) -> Floats:
    """Where each item stands, from 0 to 1, shape (len(levels), items)."""
    different, which = np.unique(levels, return_inverse=True)
    n = len(param.items)
    numbered = Permutation(n)
    orders = np.array([numbered.value(level) for level in different.tolist()], dtype=np.int64)
    return np.asarray(orders.reshape(-1, n).argsort(axis=1)[which] / (n - 1))
