"""A model that follows a search: fitted now and then, extended with each observation in between."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers.errors import StateError
from searchers.gaussian_process import Floats, Hyperparameters, Posterior, fit
from searchers.kernel import Grid
from searchers.state import positions, whole

__all__ = ["Surrogate"]

_REFIT_EVERY = 8
"""Observations between fits of the hyper-parameters, while there are few; a fit costs as much as some
ten proposals ..."""
_REFIT_SHARE = 0.08
"""... and later, when each observation changes them less, this share of all, `_KEEP` / 2 at most."""
_FIT_ON = 250
"""Observations that a fit looks at: its cost grows with their cube ..."""
_KEEP = 500
"""... and that the model keeps when it is fitted; beyond, half of them are the best, and the rest are spread
over all others in their order."""


class Surrogate:
    """A Gaussian process on the observations of a search, over the points that may be proposed.

    What it predicts depends only on the observations, in their order, and on what `state` says, so that
    a restored one predicts the same to the last bit. The noise of an observation is part of that: on the
    scale of the targets it changes with all of them, and what is kept is that of the moment it was added.

    Args:
        n_features: Number of features of an observation.
    """

    def __init__(self, n_features: int) -> None:
        self._hyperparameters = Hyperparameters.initial(n_features)
        self._fitted_at: int | None = None
        self._members: list[int] = []
        self._noise: list[float] = []
        self._posterior: Posterior | None = None

    def learn(self, features: Floats, targets: Floats, noise: Floats, grid: Grid, *, new_grid: bool) -> None:
        """Take in all observations of the search that are not known yet.

        Args:
            features: All observations, shape (n, n_features); at least one. Known ones come first.
            targets: Their targets, less is better, shape (n,); those of known ones may have changed.
            noise: Known variance of each target, shape (n,); of those that are known already it is looked at
                only when the model is fitted anew.
            grid: The points to predict at.
            new_grid: Whether `grid` is another one than at the last call.
        """
        n = len(features)
        due = self._fitted_at is None or n - self._fitted_at >= _patience(n)
        if due:
            chosen = _spread(targets, _FIT_ON)
            self._hyperparameters = fit(
                features[chosen], targets[chosen], self._hyperparameters, noise[chosen]
            )
            self._members = _spread(targets, _KEEP).tolist()
            self._noise = noise[self._members].tolist()
            self._fitted_at = n
        known = self._n_added
        self._noise += noise[known:].tolist()
        if due or new_grid or self._posterior is None:
            self._posterior = Posterior(grid, self._hyperparameters)
            self._posterior.add(features[self._members], np.array(self._noise[: len(self._members)]))
            known = self._fitted_at or 0
        first = len(self._noise) - (n - known)
        for row, variance in zip(features[known:], self._noise[first:], strict=True):
            # one by one, so that the sums do not depend on how many came at once
            self._posterior.add(row[None, :], np.array([variance]))

    def predict(self, targets: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations over the grid, given the targets of all observations."""
        return self._known.predict(targets[self._order])

    def smoothed(self, targets: Floats) -> Floats:
        """What the model takes the true targets of the observations it keeps to be."""
        return self._known.smoothed(targets[self._order])

    @contextmanager
    def imagining(self) -> Iterator[None]:
        """Forget at the end what `imagine` was told inside."""
        with self._known.tentative():
            yield

    def imagine(self, features: Floats) -> None:
        """Suppose that pending candidates, shape (k, n_features), will do one deviation worse than expected.

        The kriging believer of Ginsbourger, Le Riche and Carraro, "Kriging is well-suited to parallelize
        optimization" (2010), supposes what is expected. This leaves less to find near them.
        """
        self._known.add(features, np.zeros(len(features)))

    @property
    def hyperparameters(self) -> Hyperparameters:
        """As last fitted."""
        return self._hyperparameters

    @property
    def _known(self) -> Posterior:
        if self._posterior is None:
            raise StateError("the model has learnt nothing yet")
        return self._posterior

    @property
    def _n_added(self) -> int:
        """How many observations have been taken in, those that are not kept included."""
        return (self._fitted_at or 0) + len(self._noise) - len(self._members)

    @property
    def _order(self) -> list[int]:
        return [*self._members, *range(self._fitted_at or 0, self._n_added)]

    def forget(self) -> None:
        """Fit anew at the next occasion: an observation is not what it was."""
        self._fitted_at = self._posterior = None
        self._members, self._noise = [], []

    def state(self) -> dict[str, Any]:
        """JSON data."""
        return {
            **self._hyperparameters.state(),
            "fitted_at": self._fitted_at,
            "members": self._members,
            "noise": list(self._noise),
        }

    def load(self, state: dict[str, Any], n: int) -> None:
        """The inverse of `state`, for a search with `n` observations.

        Raises:
            StateError: `state` is damaged.
        """
        self._hyperparameters = Hyperparameters.load(state, len(self._hyperparameters.log_scales))
        self._fitted_at = None if state["fitted_at"] is None else whole("fitted_at", state["fitted_at"], n)
        self._members = positions("members", state["members"], n, once=True)
        self._noise = [float(variance) for variance in state["noise"]]
        later = n - (n if self._fitted_at is None else self._fitted_at)
        if not 0 <= len(self._noise) - len(self._members) <= later:
            raise StateError(
                f"`noise` has {len(self._noise)} numbers; it must have one for each of {len(self._members)} "
                f"members, and for at most {later} observations after them"
            )
        if not all(0 <= variance < math.inf for variance in self._noise):
            raise StateError(f"`noise` is {self._noise}; it must be finite numbers of at least 0")
        self._posterior = None


def _patience(n: int) -> float:
    return min(max(_REFIT_EVERY, _REFIT_SHARE * n), _KEEP / 2)


def _spread(targets: Floats, most: int) -> npt.NDArray[np.int64]:
    """Positions of all, or of `most`: the best half, and the others evenly over their ranks."""
    n = len(targets)
    if n <= most:
        return np.arange(n)
    order = np.argsort(targets, kind="stable")
    half = most // 2
    others = np.linspace(half, n - 1, most - half).round().astype(np.int64)
    return np.sort(order[np.concatenate([np.arange(half), others])])
