"""How alike configurations are to a forest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = ["compute_leaf_similarity"]

Floats = npt.NDArray[np.float64]


def compute_leaf_similarity(surrogate: RandomForestClassifier, X_test: npt.NDArray[Any]) -> Floats:
    """The share of a forest's trees in which two samples fall into the same leaf.

    This is the proximity of Breiman, "Random forests" (Machine Learning 45, 2001). Each sample is a
    sparse vector with a one for each leaf it is in, and the matrix is their product, which takes neither
    the time nor the memory of comparing all pairs in all trees.

    Args:
        surrogate: A fitted forest (anything with scikit-learn's ``apply``).
        X_test: The samples, shape (n_samples, n_features).

    Returns:
        Symmetric, with ones on the diagonal, shape (n_samples, n_samples).
    """
    from scipy.sparse import csr_array

    leaves = np.asarray(surrogate.apply(X_test))
    n_samples, n_trees = leaves.shape
    if not n_samples:
        return np.zeros((0, 0))
    width = int(leaves.max()) + 1
    columns = (leaves + width * np.arange(n_trees)).ravel()
    starts = np.arange(0, columns.size + 1, n_trees)
    shape = (n_samples, width * n_trees)
    one_hot = csr_array((np.ones(columns.size), columns, starts), shape=shape)
    return np.asarray((one_hot @ one_hot.T).toarray() / n_trees, dtype=np.float64)
