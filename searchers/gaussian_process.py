"""Gaussian-process regression on the features of a space, kept up to date one observation at a time.

The kernel is Matérn 5/2 with a length scale for each feature (Rasmussen and Williams, "Gaussian Processes
for Machine Learning", 2006, chapters 2, 4 and 5). The signal's variance is profiled out of the likelihood,
so that the hyper-parameters are the length scales and the ratio of noise to signal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Hyperparameters", "Posterior", "fit"]

Floats = npt.NDArray[np.float64]

NOISE_FLOOR = 1e-5
"""Least ratio of noise to signal variance: what keeps the matrix well conditioned."""
_ITERATIONS = 20
_SCALE_BOUNDS = (-1.5, 4.0)
_SCALE_PRIOR = (0.3, 0.7)
"""Mean and standard deviation of the logarithm of a length scale, on features between 0 and 1. Without a
lower bound a parameter of many levels is now and then taken for white noise, and tried level by level."""
_NOISE_PRIOR = (math.log(1e-2), 2.0)
_NOISE_BOUNDS = (-12.0, math.log(0.1))
"""A landscape that jumps from one configuration to the next looks like noise, and a model that takes it for
noise has learnt all there is after twenty evaluations. Real noise is told with each label."""
_LEAST_VARIANCE = 1e-8
_GROWTH, _LEAST_CAPACITY = 2, 32


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is fitted.

    Attributes:
        log_scales: Logarithm of the length scale of each feature, shape (n_features,).
        log_noise: Logarithm of the ratio of noise variance to signal variance.
    """

    log_scales: tuple[float, ...]
    log_noise: float

    @classmethod
    def initial(cls, n_features: int) -> Hyperparameters:
        """Where the first fit starts: at the modes of the priors."""
        return cls((_SCALE_PRIOR[0],) * n_features, _NOISE_PRIOR[0])

    @property
    def weights(self) -> Floats:
        """What features are multiplied with, shape (n_features,)."""
        return np.asarray(np.exp(-np.array(self.log_scales)))

    @property
    def noise(self) -> float:
        """Ratio of noise variance to signal variance."""
        return math.exp(self.log_noise) + NOISE_FLOOR


def fit(features: Floats, targets: Floats, start: Hyperparameters, extra_noise: Floats) -> Hyperparameters:
    """Hyper-parameters of the largest posterior density.

    Args:
        features: Shape (n, n_features), between 0 and 1.
        targets: Shape (n,), about mean 0 and variance 1.
        start: Where the search for the maximum starts.
        extra_noise: Known variance of each target in units of the signal's, shape (n,).
    """
    from scipy.optimize import minimize

    found = minimize(
        _negative_log_posterior,
        np.array([*start.log_scales, start.log_noise]),
        args=(features, targets, extra_noise),
        jac=True,
        method="L-BFGS-B",
        bounds=[_SCALE_BOUNDS] * features.shape[1] + [_NOISE_BOUNDS],
        options={"maxiter": _ITERATIONS},
    )
    *scales, noise = found.x.tolist()
    return Hyperparameters(tuple(scales), noise)


def _negative_log_posterior(
    theta: Floats, features: Floats, targets: Floats, extra_noise: Floats
) -> tuple[float, Floats]:
    from scipy.linalg import lapack

    n = len(targets)
    log_scales, log_noise = theta[:-1], theta[-1]
    scaled = features * np.exp(-log_scales)
    kernel, slope = _matern_and_slope(_squared_distances(scaled, scaled))
    kernel[np.diag_indices(n)] += math.exp(log_noise) + NOISE_FLOOR + extra_noise
    factor, failed = lapack.dpotrf(kernel, lower=1, overwrite_a=1, clean=1)
    if failed:
        return 1e10, np.zeros_like(theta)
    inverse, _ = lapack.dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    solved = inverse @ targets
    signal = max(float(targets @ solved) / n, 1e-12)
    value = 0.5 * n * math.log(signal) + float(np.log(np.diag(factor)).sum())
    # d value / d kernel, then through the squared distance of each feature
    outer = 0.5 * (inverse - np.outer(solved, solved) / signal)
    through = slope * outer
    by_scale = 2.0 * (through.sum(0) @ scaled**2 - ((through @ scaled) * scaled).sum(0))
    gradient = np.empty_like(theta)
    gradient[:-1] = -2.0 * by_scale
    gradient[-1] = np.trace(outer) * math.exp(log_noise)
    for part, (mean, deviation) in ((slice(0, -1), _SCALE_PRIOR), (slice(-1, None), _NOISE_PRIOR)):
        away = (theta[part] - mean) / deviation
        value += 0.5 * float((away**2).sum())
        gradient[part] += away / deviation
    return value, gradient


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


class Posterior:
    """Means and deviations over a fixed set of points, given observations that are added one by one.

    Adding an observation costs O(N n); replacing all targets O(n^2), since only the means depend on them.

    Args:
        grid: Features of the N points, shape (N, n_features).
        hyperparameters: As fitted.

    Attributes:
        n: Number of observations.
    """

    def __init__(self, grid: Floats, hyperparameters: Hyperparameters) -> None:
        self.n = 0
        self._weights = hyperparameters.weights
        self._noise = hyperparameters.noise
        # single precision where the noise is far above what it loses; the factor is in double
        self._grid = (grid * self._weights).astype(np.float32)
        self._grid_squares = (self._grid * self._grid).sum(1)
        self._observed = np.empty((0, grid.shape[1]))
        self._own_noise = np.empty(0)
        self._factor = np.empty((0, 0))
        self._whitened = np.empty((0, len(grid)), dtype=np.float32)
        self._explained = np.zeros(len(grid), dtype=np.float32)

    def add(self, features: Floats, extra_noise: Floats) -> None:
        """Take observations in.

        Args:
            features: Shape (k, n_features).
            extra_noise: Known variance of each in units of the signal's, shape (k,).
        """
        from scipy.linalg import blas, lapack

        k, n = len(features), self.n
        self._reserve(n + k)
        new = features * self._weights
        own = _matern(_squared_distances(new, new))
        own[np.diag_indices(k)] = 1.0 + self._noise + extra_noise
        rows = _matern(_squared_distances(new.astype(np.float32), self._grid, self._grid_squares))
        if n:
            cross = _matern(_squared_distances(self._observed[:n], new))
            lower = blas.dtrsm(1.0, self._factor[:n, :n], cross, lower=1).T
            self._factor[n : n + k, :n] = lower
            own -= lower @ lower.T
            rows -= lower.astype(np.float32) @ self._whitened[:n]
        corner, failed = lapack.dpotrf(own, lower=1, clean=1)
        if failed:  # points that are alike to the last bit
            corner = np.diag(np.sqrt(np.maximum(np.diag(own), self._noise)))
        self._factor[n : n + k, n : n + k] = corner
        rows = blas.strsm(1.0, corner.astype(np.float32), rows, lower=1)
        self._whitened[n : n + k] = rows
        self._observed[n : n + k] = new
        self._own_noise[n : n + k] = extra_noise
        self._explained += np.einsum("ij,ij->j", rows, rows)
        self.n = n + k

    def means(self, targets: Floats) -> tuple[Floats, float]:
        """Means at the N points, given the targets of the first observations; and what `deviations` needs.

        Observations without a target are taken to be as expected, so that they change no mean.
        """
        from scipy.linalg import blas

        n = len(targets)
        whitened = blas.dtrsv(self._factor[:n, :n], targets, lower=1)
        means = whitened.astype(np.float32) @ self._whitened[:n]
        return means.astype(np.float64), max(float(whitened @ whitened), 1e-12)

    def deviations(self, squares: float) -> Floats:
        """Standard deviations at the N points.

        Args:
            squares: As `means` returned it; divided by the number of observations it is the variance of the
                signal. Those that are as expected add nothing to it, so a batch becomes less adventurous
                the larger it is.
        """
        left = np.maximum(1.0 - self._explained.astype(np.float64), _LEAST_VARIANCE)
        return np.asarray(np.sqrt(left * (squares / self.n)))

    def smoothed(self, targets: Floats) -> Floats:
        """What the model takes the true values of the first observations to be, shape of `targets`."""
        from scipy.linalg import blas

        n = len(targets)
        factor = self._factor[:n, :n]
        solved = blas.dtrsv(factor, blas.dtrsv(factor, targets, lower=1), lower=1, trans=1)
        return np.asarray(targets - self._own_noise[:n] * solved)

    @contextmanager
    def tentative(self) -> Iterator[None]:
        """Forget at the end what is added inside, to the last bit."""
        n, explained = self.n, self._explained.copy()
        try:
            yield
        finally:
            self.n, self._explained = n, explained

    def _reserve(self, n: int) -> None:
        if n <= len(self._whitened):
            return
        size = max(n, _GROWTH * len(self._whitened), _LEAST_CAPACITY)
        for name in ("_observed", "_own_noise", "_whitened"):
            old = getattr(self, name)
            grown = np.empty((size, *old.shape[1:]), dtype=old.dtype)
            grown[: self.n] = old[: self.n]
            setattr(self, name, grown)
        factor = np.zeros((size, size))
        factor[: self.n, : self.n] = self._factor[: self.n, : self.n]
        self._factor = factor
