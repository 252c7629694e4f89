"""Few rows out of many that together lose least in every column: what a dispatch table is made with."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["choose"]

_EXACT: Final = 200_000
"""Most selections that are all tried, which takes about a second; with more the choice is by exchange."""
_CHUNK: Final = 4096
_SAME: Final = 1e-9
"""Sums that differ by less are the same: a row has to be worth more than rounding."""


def choose(losses: Floats, entries: int) -> tuple[list[int], bool]:
    """The at most `entries` rows with the least sum over columns of their smallest loss.

    Args:
        losses: Logarithms of time over best time, shape (configurations, shapes).
        entries: The most rows.

    Returns:
        The rows in ascending order, as few as do, and whether that is exact.
    """
    rows = _undominated(losses)
    most = min(entries, len(rows))
    exact = sum(math.comb(len(rows), size) for size in range(1, most + 1)) <= _EXACT
    if not exact:
        return sorted(rows[place] for place in _exchanged(losses[rows], most)), False
    best, found = math.inf, [0]
    for size in range(1, most + 1):
        loss, selection = _enumerated(losses[rows], size)
        if loss < best - _SAME:
            best, found = loss, selection
    return sorted(rows[place] for place in found), True


def _undominated(losses: Floats) -> list[int]:
    """Rows that no other row is as good as in every column; of equal rows the first."""
    import numpy as np

    kept: list[int] = []
    # whoever dominates a row has a smaller sum, or is equal and comes first
    for row in np.argsort(losses.sum(axis=1), kind="stable"):
        if not (losses[kept] <= losses[row]).all(axis=1).any():
            kept.append(int(row))
    return sorted(kept)


def _enumerated(losses: Floats, size: int) -> tuple[float, list[int]]:
    import numpy as np

    best, found = math.inf, [0]
    selections = itertools.combinations(range(len(losses)), size)
    while chunk := list(itertools.islice(selections, _CHUNK)):
        sums = losses[np.array(chunk)].min(axis=1).sum(axis=1)
        place = int(sums.argmin())
        if sums[place] < best:
            best, found = float(sums[place]), list(chunk[place])
    return best, found


def _exchanged(losses: Floats, most: int) -> list[int]:
    import numpy as np

    selection: list[int] = []
    reached = np.full(losses.shape[1], np.inf)
    current = math.inf
    while len(selection) < most:
        gains = np.minimum(losses, reached).sum(axis=1)
        row = int(gains.argmin())
        if gains[row] >= current - _SAME:
            break
        selection.append(row)
        current, reached = float(gains[row]), np.minimum(reached, losses[row])
    improved = True
    while improved:
        improved = False
        for place in range(len(selection)):
            others = selection[:place] + selection[place + 1 :]
            floor = losses[others].min(axis=0) if others else np.full(losses.shape[1], np.inf)
            gains = np.minimum(losses, floor).sum(axis=1)
            row = int(gains.argmin())
            if gains[row] < current - _SAME:
                selection[place], current, improved = row, float(gains[row]), True
    return selection
