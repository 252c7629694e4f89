"""What is computed for many points at once, against few; their values are in test_gaussian_process."""

from __future__ import annotations

import numpy as np
import pytest

from searchers import kernel
from searchers.kernel import Gram, Grid, ScaledGrid, covariances

RNG = np.random.default_rng(3)
POINTS = RNG.integers(0, 5, (40, 4)) / 4
OTHERS = RNG.random((6, 4))
LOG_SCALES = np.array([-0.5, 0.0, 0.4, 2.0])
WEIGHTS = np.exp(-LOG_SCALES)
SHARES = [0.0, 0.3, 1.0]


@pytest.mark.parametrize("share", SHARES)
def test_a_grids_covariances(share: float) -> None:
    found = ScaledGrid(Grid(POINTS), WEIGHTS, share).covariances(OTHERS * WEIGHTS)
    assert found == pytest.approx(covariances(OTHERS * WEIGHTS, POINTS * WEIGHTS, share), abs=1e-5)


def test_many_at_once_are_those_of_one_by_one() -> None:
    grid, many = ScaledGrid(Grid(POINTS), WEIGHTS, 0.6), RNG.random((2 * kernel._BLOCK + 3, 4))
    single = [grid.covariances(point[None, :])[0] for point in many]
    assert grid.covariances(many) == pytest.approx(np.array(single), abs=1e-6)


@pytest.mark.parametrize("share", SHARES)
def test_those_of_a_fit(share: float) -> None:
    expected = covariances(POINTS * WEIGHTS, POINTS * WEIGHTS, share)
    assert Gram(POINTS).at(LOG_SCALES, share) == pytest.approx(expected, abs=1e-12)


def test_a_part_of_a_grid() -> None:
    places = np.array([30, 2, 2, 17])
    part = Grid(POINTS).part(places)
    assert len(part) == 4
    found = ScaledGrid(part, WEIGHTS, 0.5).covariances(OTHERS * WEIGHTS)
    assert found == pytest.approx(covariances(OTHERS * WEIGHTS, POINTS[places] * WEIGHTS, 0.5), abs=1e-5)


def test_each_value_of_a_feature_is_there_once() -> None:
    levels = Grid(POINTS).levels
    assert len(levels.values) == sum(len(np.unique(column)) for column in POINTS.T)
    assert (levels.indicators @ np.diag(levels.values) @ np.eye(4)[levels.owners] == POINTS).all()


def test_a_configuration_says_more_of_those_unlike_it_with_an_additive_part() -> None:
    """As long as one of its features is the same."""
    left, right = np.zeros((1, 8)), np.ones((1, 8))
    right[0, 0] = 0.0
    alone, together = (covariances(left / 0.2, right / 0.2, share)[0, 0] for share in (1.0, 0.0))
    assert together < 1e-3
    assert alone == pytest.approx(1 / 8, rel=0.05)
