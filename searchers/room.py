"""How much room a configuration has to move: little at the edge of a space, where much is different.

The largest tile that fits and the smallest there is are often among the best or the worst, and no length
scale says so of all edges at once. A model learns it from one number (`searchers.features`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from searchers.errors import SpaceError
from searchers.space import Space

__all__ = ["room"]


def room(space: Space) -> npt.NDArray[np.int64]:
    """How many neighbours each row of a space that can be enumerated has, shape (len(space.rows),).

    A neighbour is a valid configuration in which one parameter that is not absent has its next higher or
    lower value. Categories have a next one only if there are two of them. What appears with a step, under a
    condition, has its first value; to take a parameter out or back in is no step.

    Raises:
        SpaceError: The space is too large to be enumerated.
    """
    rows = space.rows
    if rows is None:
        raise SpaceError("this space is too large to be enumerated: nobody knows what is next to what")
    counts = np.zeros(len(rows), dtype=np.int64)
    present = ~space.inactive(rows)
    for j, leaf in enumerate(space.encoding.leaves):
        if not leaf.param.ordered and leaf.param.n_levels > 2:
            continue
        for step in (-1, 1):
            levels = rows[:, j] + step
            there = np.flatnonzero(present[:, j] & (levels >= 0) & (levels < leaf.param.n_levels))
            moved = rows[there]
            moved[:, j] = levels[there]
            counts[there] += space.valid(moved)
    return counts
