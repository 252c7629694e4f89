"""How often two divides the values of a parameter: what hardware cares about, and order does not show.

A block of 128 threads may be more like one of 64 than like one of 112, next to it. A model sees that if it is
told (`searchers.features`), and first candidates show it if there are some of each kind.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from searchers.encoding import Matrix
from searchers.param import Param
from searchers.space import Space

__all__ = ["Spread", "degrees"]

_LEAST, _MOST = 8, 1 << 12
"""Of fewer values a model learns without help which are alike, and for more the table would be long."""
_TRIES = 8
"""How often values are drawn for a row before it stays as it was: most constraints pass more than half."""


def degrees(param: Param) -> npt.NDArray[np.int64] | None:
    """How often two divides each value of a parameter, shape (n_levels,).

    ``None`` unless it has 8 to 4,096 values in order that are positive whole numbers, and their order does
    not say as much: powers of two differ in nothing else, and odd numbers not in this.
    """
    if not param.ordered or not _LEAST <= param.n_levels <= _MOST:
        return None
    values = [param.value(level) for level in range(param.n_levels)]
    if not all(type(value) is int and value > 0 for value in values):
        return None
    lowest = [value & -value for value in values]  # the largest power of two that divides each
    if lowest == values or len(set(lowest)) == 1:
        return None
    return np.array([power.bit_length() - 1 for power in lowest])


class Spread:
    """Changes random rows so that values of each degree come as often as those of any other.

    Of the multiples of 16 up to 256 every second is an odd one; here every fifth is, and every fifth is 128.

    Args:
        space: The space. Parameters with a seed range are left alone.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._levels: dict[int, list[npt.NDArray[np.intp]]] = {}
        for j, leaf in enumerate(space.encoding.leaves):
            found = degrees(leaf.param)
            if found is not None and leaf.param.seed_levels() == (0, leaf.param.n_levels - 1):
                self._levels[j] = [np.flatnonzero(found == degree) for degree in np.unique(found)]

    def __call__(self, rows: Matrix, rng: np.random.Generator) -> Matrix:
        """Valid rows for valid `rows`, which differ in the values of such parameters alone.

        A row for which no valid values were drawn is as it was, and so are all in a space without such
        parameters, for which nothing is drawn.
        """
        if not self._levels:
            return rows
        spread, left = rows.copy(), np.arange(len(rows))
        for _ in range(_TRIES):
            drawn = rows[left]
            for j, groups in self._levels.items():
                chosen = rng.integers(len(groups), size=len(left)).tolist()
                drawn[:, j] = [rng.choice(groups[group]) for group in chosen]
            valid = self._space.valid(drawn)
            spread[left[valid]] = drawn[valid]
            left = left[~valid]
            if not len(left):
                break
        return spread
