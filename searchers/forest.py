"""The forest that tells good configurations from bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = ["fit", "good_or_bad", "probability_of_good"]

Floats = npt.NDArray[np.float64]

_DIGITS = 9
"""Probabilities are rounded to this, so that equal ones stay equal whatever the order of a summation."""


def good_or_bad(losses: Floats, quantile: float) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Labels and weights that make a classifier's probability an expected improvement.

    After Song et al., "A general recipe for likelihood-free Bayesian optimization" (ICML 2022): what is
    below the threshold weighs as much as it is below it, scaled to a mean of 1; everything else, failures
    included, is a negative of weight 1.

    Args:
        losses: One for each configuration, inf for a failure, shape (n,).
        quantile: The threshold is this quantile of the losses that are not inf.

    Returns:
        Which are good, and the weights, both of shape (n,). Where none is below the threshold, because the
        best are all equal, those at it are good.
    """
    passed = np.isfinite(losses)
    good = np.zeros(len(losses), dtype=bool)
    weights = np.ones(len(losses))
    if passed.any():
        threshold = np.quantile(losses[passed], quantile)
        good = losses < threshold
        if good.any():
            gain = threshold - losses[good]
            weights[good] = gain / gain.mean()
        else:
            good = losses <= threshold
    return good, weights


def fit(X: Floats, losses: Floats, quantile: float, n_trees: int, seed: int) -> RandomForestClassifier | None:
    """A random forest (Breiman 2001) fitted to `good_or_bad`, ``None`` where all are of one kind.

    Args:
        X: Features, shape (n, n_features).
        losses: See `good_or_bad`.
        quantile: See `good_or_bad`.
        n_trees: How many trees.
        seed: Of the forest.
    """
    from sklearn.ensemble import RandomForestClassifier
    from threadpoolctl import threadpool_limits

    good, weights = good_or_bad(losses, quantile)
    if good.all() or not good.any():
        return None
    forest = RandomForestClassifier(n_trees, criterion="log_loss", n_jobs=1, random_state=seed)
    with threadpool_limits(1):
        forest.fit(X, good, sample_weight=weights)
    return forest


def probability_of_good(forest: RandomForestClassifier, X: Floats) -> Floats:
    """The forest's probability that each sample is good, shape (n,)."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return np.asarray(forest.predict_proba(X)[:, 1].round(_DIGITS), dtype=np.float64)
