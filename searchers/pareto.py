"""Pareto fronts, for losses (less is better)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["knee", "non_dominated"]

Losses = npt.NDArray[np.float64]


def non_dominated(losses: Losses) -> npt.NDArray[np.bool_]:
    """Which of `losses` (n, objectives) nobody dominates; of equal rows the first."""
    if losses.shape[1] == 1:
        mask = np.zeros(len(losses), dtype=bool)
        if len(losses):
            mask[int(losses[:, 0].argmin())] = True
        return mask
    from moocore import is_nondominated

    return np.asarray(is_nondominated(losses), dtype=bool)


def knee(losses: Losses) -> int:
    """Index of the row closest to the ideal point, each objective scaled to its range."""
    low, high = losses.min(axis=0), losses.max(axis=0)
    scaled = (losses - low) / np.where(high > low, high - low, 1.0)
    return int(np.linalg.norm(scaled, axis=1).argmin())
