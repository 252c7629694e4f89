"""Gaussian-process regression on the features of a space, kept up to date one observation at a time.

After Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5; the kernel
is that of `searchers.kernel`. The signal's variance is profiled out of the likelihood, so that the
hyper-parameters are the length scales, the ratio of noise to signal, and the share of the additive part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from searchers.errors import StateError
from searchers.kernel import Floats, Gram, Grid, ScaledGrid, covariances

__all__ = ["Floats", "Hyperparameters", "Posterior", "fit"]

NOISE_FLOOR = 1e-5
"""Least ratio of noise to signal variance: what keeps the matrix well conditioned."""
_ITERATIONS = 20
_SCALE_BOUNDS = (-1.5, 4.0)
_SCALE_PRIOR = (0.3, 0.7)
"""Mean and standard deviation of the logarithm of a length scale, on features between 0 and 1. Without a
lower bound a parameter of many levels is now and then taken for white noise, and tried level by level."""
_NOISE_PRIOR = (math.log(1e-2), 2.0)
_NOISE_BOUNDS = (-12.0, -2.3025850929940455)  # of 0.1
"""A landscape that jumps from one configuration to the next looks like noise, and a model that takes it for
noise has learnt all there is after twenty evaluations. Real noise is told with each label."""
_ODDS_PRIOR, _ODDS_BOUNDS = (0.0, 1.5), (-5.0, 5.0)
"""Of the logarithm of the odds of the additive part: its share is likely to be between 0.05 and 0.95. It is
there ..."""
MOST_ADDITIVE = 32
"""... with so many features at most: with more it would cost more than all the rest."""
_LEAST_VARIANCE = 1e-8
_GROWTH, _LEAST_CAPACITY = 2, 32


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is fitted.

    Attributes:
        log_scales: Logarithm of the length scale of each feature, shape (n_features,).
        log_noise: Logarithm of the ratio of noise variance to signal variance.
        log_odds: Logarithm of the odds of the additive part of the kernel.
    """

    log_scales: tuple[float, ...]
    log_noise: float
    log_odds: float

    @classmethod
    def initial(cls, n_features: int) -> Hyperparameters:
        """Where the first fit starts: at the modes of the priors."""
        return cls((_SCALE_PRIOR[0],) * n_features, _NOISE_PRIOR[0], _ODDS_PRIOR[0])

    @classmethod
    def load(cls, state: Mapping[str, Any], n_features: int) -> Hyperparameters:
        """The inverse of `state`.

        Raises:
            StateError: `state` is damaged.
        """
        scales = [float(scale) for scale in state["log_scales"]]
        noise, odds = float(state["log_noise"]), float(state["log_odds"])
        bounded = ((scales, _SCALE_BOUNDS), ([noise], _NOISE_BOUNDS), ([odds], _ODDS_BOUNDS))
        if len(scales) != n_features or not all(
            low <= number <= high for numbers, (low, high) in bounded for number in numbers
        ):
            raise StateError(
                f"`log_scales` is {scales}, `log_noise` {noise} and `log_odds` {odds}; the first must be "
                f"{n_features} numbers in {_SCALE_BOUNDS}, the others in {_NOISE_BOUNDS} and {_ODDS_BOUNDS}"
            )
        return cls(tuple(scales), noise, odds)

    def state(self) -> dict[str, Any]:
        """JSON data."""
        return {"log_scales": list(self.log_scales), "log_noise": self.log_noise, "log_odds": self.log_odds}

    @property
    def weights(self) -> Floats:
        """What features are multiplied with, shape (n_features,)."""
        return np.asarray(np.exp(-np.array(self.log_scales)))

    @property
    def noise(self) -> float:
        """Ratio of noise variance to signal variance."""
        return math.exp(self.log_noise) + NOISE_FLOOR

    @property
    def share(self) -> float:
        """Of the additive part of the kernel, between 0 and 1."""
        return _share(self.log_odds, len(self.log_scales))


def _share(log_odds: float, n_features: int) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds)) if n_features <= MOST_ADDITIVE else 0.0


def fit(features: Floats, targets: Floats, start: Hyperparameters, extra_noise: Floats) -> Hyperparameters:
    """Hyper-parameters of the largest posterior density.

    Args:
        features: Shape (n, n_features), between 0 and 1.
        targets: Shape (n,), about mean 0 and variance 1.
        start: Where the search for the maximum starts.
        extra_noise: Known variance of each target in units of the signal's, shape (n,).
    """
    from scipy.optimize import minimize

    bounds = [_SCALE_BOUNDS] * features.shape[1] + [_NOISE_BOUNDS, _ODDS_BOUNDS]
    found = minimize(
        _negative_log_posterior,
        np.array([*start.log_scales, start.log_noise, start.log_odds]),
        args=(Gram(features), targets, extra_noise),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _ITERATIONS},
    )
    *scales, noise, odds = found.x.tolist()
    return Hyperparameters(tuple(scales), noise, odds)


def _negative_log_posterior(
    theta: Floats, gram: Gram, targets: Floats, extra_noise: Floats
) -> tuple[float, Floats]:
    from scipy.linalg import lapack

    n = len(targets)
    noise, share = math.exp(theta[-2]), _share(theta[-1], len(theta) - 2)
    kernel = gram.at(theta[:-2], share)
    kernel[np.diag_indices(n)] += noise + NOISE_FLOOR + extra_noise
    factor, failed = lapack.dpotrf(kernel, lower=1, overwrite_a=1, clean=1)
    if failed:
        return 1e10, np.zeros_like(theta)
    inverse, _ = lapack.dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    solved = inverse @ targets
    signal = max(float(targets @ solved) / n, 1e-12)
    value = 0.5 * n * math.log(signal) + float(np.log(np.diag(factor)).sum())
    outer = 0.5 * (inverse - np.outer(solved, solved) / signal)  # d value / d kernel
    by_scales, by_share = gram.gradient(outer)
    gradient = np.array([*by_scales, np.trace(outer) * noise, by_share * share * (1.0 - share)])
    priors = ((slice(0, -2), _SCALE_PRIOR), (-2, _NOISE_PRIOR), (-1, _ODDS_PRIOR))
    for part, (mean, deviation) in priors:
        away = (theta[part] - mean) / deviation
        value += 0.5 * float((away**2).sum())
        gradient[part] += away / deviation
    return value, gradient


class Posterior:
    """Means and deviations over a fixed set of points, given observations that are added one by one.

    Adding an observation costs O(N n), and so does predicting, with other targets than before or not.

    Args:
        grid: The N points.
        hyperparameters: As fitted.

    Attributes:
        n: Number of observations.
    """

    def __init__(self, grid: Grid, hyperparameters: Hyperparameters) -> None:
        self.n = 0
        self._weights = hyperparameters.weights
        self._noise = hyperparameters.noise
        self._share = hyperparameters.share
        self._grid = ScaledGrid(grid, self._weights, self._share)
        self._observed = np.empty((0, grid.features.shape[1]))
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
        own = covariances(new, new, self._share)
        own[np.diag_indices(k)] = 1.0 + self._noise + extra_noise
        rows = self._grid.covariances(new)
        if n:
            cross = covariances(self._observed[:n], new, self._share)
            lower = blas.dtrsm(1.0, self._factor[:n, :n], cross, lower=1).T
            self._factor[n : n + k, :n] = lower
            own -= lower @ lower.T
            rows -= lower.astype(np.float32) @ self._whitened[:n]
        corner, failed = lapack.dpotrf(own, lower=1, clean=1)
        if failed:  # points that are alike to the last bit
            corner = np.diag(np.sqrt(np.maximum(np.diag(own), self._noise)))
        self._factor[n : n + k, n : n + k] = corner
        # as exact as to solve, and to solve for all points copies them into Fortran's order and back
        inverse, _ = lapack.dtrtri(corner, lower=1)
        rows = np.matmul(inverse.astype(np.float32), rows, out=self._whitened[n : n + k])
        self._observed[n : n + k] = new
        self._own_noise[n : n + k] = extra_noise
        self._explained += np.einsum("ij,ij->j", rows, rows)
        self.n = n + k

    def predict(self, targets: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations at the N points, given the targets of the first observations.

        Those after them, whose targets are unknown, are supposed to be above what all before them say by one
        standard deviation, that of the noise included. So they leave the variance of the signal as it is.
        """
        from scipy.linalg import blas

        n = len(targets)
        # how far each is above what those before it say, where the deviation of each is that of the signal
        whitened = blas.dtrsv(self._factor[:n, :n], targets, lower=1)
        variance = max(float(whitened @ whitened), 1e-12) / n
        whitened = np.append(whitened, np.full(self.n - n, math.sqrt(variance)))
        means = whitened.astype(np.float32) @ self._whitened[: self.n]
        left = np.maximum(1.0 - self._explained.astype(np.float64), _LEAST_VARIANCE)
        return means.astype(np.float64), np.sqrt(left * variance)

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
