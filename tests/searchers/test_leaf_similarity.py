from __future__ import annotations

import numpy as np
import pytest

from searchers import LFBOPatternSearch, Range, Space, compute_leaf_similarity


@pytest.mark.parametrize("n_trees", [1, 25])
def test_it_is_the_share_of_trees_with_a_leaf_in_common(n_trees: int) -> None:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(3)
    X = rng.random((60, 5))
    forest = RandomForestClassifier(n_trees, max_depth=4, random_state=0, n_jobs=1).fit(X, X[:, 0] > X[:, 1])
    samples = rng.random((40, 5))
    leaves = forest.apply(samples)
    naive = [[np.mean(leaves[i] == leaves[j]) for j in range(40)] for i in range(40)]
    found = compute_leaf_similarity(forest, samples)
    np.testing.assert_allclose(found, naive)
    assert (found == found.T).all()
    assert (np.diag(found) == 1).all()
    method = LFBOPatternSearch(Space({"x": Range(0, 1)})).compute_leaf_similarity
    assert (method(forest, samples) == found).all()


def test_no_samples_give_an_empty_matrix() -> None:
    class Forest:
        def apply(self, X: object) -> np.ndarray:  # type: ignore[type-arg]
            return np.zeros((0, 7), dtype=np.int64)

    assert compute_leaf_similarity(Forest(), np.zeros((0, 2))).shape == (0, 0)  # type: ignore[arg-type]
