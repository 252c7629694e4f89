"""The kernel of the Gaussian processes: a part that sees all features together, and one that sees each alone.

Both are Matérn 5/2 with a length scale for each feature (Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, chapter 4): the one of the distance in all features, the other the mean over the
features of one of the distance in each. The first can learn everything, but of a configuration only from
those that are like it in all that matters; the second only what each feature does on average, but that from
any. It is the sum of the lowest and the highest order of Duvenaud, Nickisch and Rasmussen, "Additive
Gaussian processes" (2011); the share of each is fitted with the length scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Gram", "Grid", "Levels", "ScaledGrid", "covariances"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_BLOCK = 64
"""Points looked up at a time: with many values of each feature the table for all would be large."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The different values of each feature of N points, L in all.

    Attributes:
        owners: The feature that has each value, shape (L,).
        values: Shape (L,).
        indicators: A sparse matrix, 1 where a point has a value, shape (N, L).
    """

    owners: Places
    values: Floats
    indicators: Any

    @classmethod
    def of(cls, features: Floats) -> Levels:
        """Those of points with `features`, shape (N, n_features)."""
        from scipy.sparse import csr_array

        found = _different(features)
        counts = [len(values) for values, _ in found]
        first = np.cumsum([0, *counts[:-1]])
        columns = np.stack([places for _, places in found], axis=1) + first
        n, width = columns.shape
        indicators = csr_array(
            (np.ones(n * width, dtype=np.float32), columns.ravel(), np.arange(n + 1) * width),
            shape=(n, sum(counts)),
        )
        owners = np.repeat(np.arange(width), counts)
        return cls(owners, np.concatenate([values for values, _ in found]), indicators)


class Grid:
    """Many points whose covariances with few others are wanted.

    Args:
        features: Shape (N, n_features).
        levels: Theirs, where they are known already.

    Attributes:
        features: As given.
    """

    def __init__(self, features: Floats, levels: Levels | None = None) -> None:
        self.features = features
        self._levels = levels

    def __len__(self) -> int:
        return len(self.features)

    @property
    def levels(self) -> Levels:
        """Found when they are first wanted."""
        if self._levels is None:
            self._levels = Levels.of(self.features)
        return self._levels

    def part(self, places: Places) -> Grid:
        """Those at `places`."""
        whole = self.levels
        return Grid(self.features[places], Levels(whole.owners, whole.values, whole.indicators[places]))


class ScaledGrid:
    """A grid on the length scales of a kernel.

    Args:
        grid: N points.
        weights: What features are multiplied with, shape (n_features,).
        share: Of the additive part.
    """

    def __init__(self, grid: Grid, weights: Floats, share: float) -> None:
        # single precision: the noise is far above what it loses; a posterior's factor is in double
        self._points = (grid.features * weights).astype(np.float32)
        self._squares = (self._points * self._points).sum(1)
        self._share = share
        if share:
            levels = grid.levels
            self._owners, self._indicators = levels.owners, levels.indicators
            self._values = levels.values * weights[levels.owners]

    def covariances(self, points: Floats) -> npt.NDArray[np.float32]:
        """With k points, scaled features of shape (k, n_features); shape (k, N)."""
        found = _matern(_squared_distances(points.astype(np.float32), self._points, self._squares))
        if self._share:
            found *= np.float32(1.0 - self._share)
            for first in range(0, len(points), _BLOCK):
                block = slice(first, first + _BLOCK)
                alone = _matern((self._values[:, None] - points[block].T[self._owners]) ** 2)
                alone *= self._share / points.shape[1]
                found[block] += (self._indicators @ alone.astype(np.float32)).T
        return np.asarray(found)


def covariances(left: Floats, right: Floats, share: float) -> Floats:
    """Those of points with points, in units of the signal's variance.

    Args:
        left: Scaled features, shape (n, n_features).
        right: Scaled features, shape (k, n_features).
        share: Of the additive part.

    Returns:
        Shape (n, k).
    """
    found = _matern(_squared_distances(left, right))
    if share:
        found *= 1.0 - share
        for one, other in zip(left.T, right.T, strict=True):
            found += share / left.shape[1] * _matern((one[:, None] - other) ** 2)
    return np.asarray(found)


class Gram:
    """The covariances of n points as a function of length scales and share, for a fit.

    Args:
        features: Shape (n, n_features).
    """

    def __init__(self, features: Floats) -> None:
        self._features = features

    @cached_property
    def _levels(self) -> list[tuple[Floats, Places]]:
        """The different values of each feature, and where in a table of their pairs each two points are."""
        return [
            (values, places[:, None] * len(values) + places) for values, places in _different(self._features)
        ]

    def at(self, log_scales: Floats, share: float) -> Floats:
        """The covariances, shape (n, n); `gradient` is then that at the same place.

        Args:
            log_scales: Logarithms of the length scales, shape (n_features,).
            share: Of the additive part.
        """
        self._share = share
        self._scaled = self._features * np.exp(-log_scales)
        together, self._slope = _matern_and_slope(_squared_distances(self._scaled, self._scaled))
        if not share:
            return together
        alone = np.zeros_like(together)
        self._alone_slopes = []
        for (values, pairs), log_scale in zip(self._levels, log_scales.tolist(), strict=True):
            squares = ((values[:, None] - values) * math.exp(-log_scale)) ** 2
            table, slope = _matern_and_slope(squares)
            alone += table.take(pairs)
            self._alone_slopes.append(squares * slope)
        alone /= len(self._levels)
        self._difference = alone - together
        return np.asarray(together + share * self._difference)

    def gradient(self, outer: Floats) -> tuple[Floats, float]:
        """Of a function of the covariances.

        Args:
            outer: Its derivative with respect to each covariance, symmetric, shape (n, n).

        Returns:
            Its derivatives with respect to the logarithms of the length scales, shape (n_features,), and to
            the share; the latter is 0 where there is no additive part.
        """
        through = self._slope * outer
        # through the squared distance, which has a term for each feature
        by_scale = -4.0 * (
            through.sum(0) @ self._scaled**2 - ((through @ self._scaled) * self._scaled).sum(0)
        )
        if not self._share:
            return by_scale, 0.0
        by_scale *= 1.0 - self._share
        factor = -2.0 * self._share / len(self._levels)
        for j, ((_, pairs), slope) in enumerate(zip(self._levels, self._alone_slopes, strict=True)):
            by_scale[j] += factor * float(np.vdot(slope.take(pairs), outer))
        return by_scale, float(np.vdot(self._difference, outer))


def _different(features: Floats) -> list[tuple[Floats, Places]]:
    """The different values of each feature, and which one each point has."""
    return [np.unique(column, return_inverse=True) for column in features.T]


def _squared_distances(left: Any, right: Any, right_squares: Any = None) -> Any:
    distances = left @ right.T
    distances *= -2.0
    distances += (left * left).sum(1)[:, None]
    distances += ((right * right).sum(1) if right_squares is None else right_squares)[None, :]
    return np.maximum(distances, 0.0, out=distances)


def _matern(squared: Any) -> Any:
    """Matérn 5/2 of squared distances, in their place."""
    root = np.sqrt(squared * 5.0)
    squared *= 5.0 / 3.0
    squared += 1.0
    squared += root
    np.negative(root, out=root)
    squared *= np.exp(root, out=root)
    return squared


def _matern_and_slope(squared: Floats) -> tuple[Floats, Floats]:
    """Matérn 5/2 and its derivative with respect to the squared distance."""
    root = np.sqrt(5.0 * squared)
    decay = np.exp(-root)
    return (1.0 + root + root * root / 3.0) * decay, (-5.0 / 6.0) * (1.0 + root) * decay
