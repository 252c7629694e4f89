"""Expected improvement, feasibility and the warping of losses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from searchers.acquisition import log_expected_improvement, log_feasible, warped

LOSSES = np.random.default_rng(3).lognormal(size=50)


@pytest.mark.parametrize(
    ("mean", "deviation", "best"), [(0.0, 1.0, 0.5), (2.0, 0.5, -2.0), (-3.0, 0.2, -2.0)]
)
def test_expected_improvement_is_the_integral(mean: float, deviation: float, best: float) -> None:
    low = min(best, mean) - 12.0 * deviation
    expected, _ = quad(lambda y: (best - y) * norm.pdf(y, mean, deviation), low, best, epsabs=0, limit=200)
    found = log_expected_improvement(np.array([mean]), np.array([deviation]), best)
    assert found[0] == pytest.approx(np.log(expected), rel=1e-4)


def test_far_tail_goes_on_falling() -> None:
    """Where the improvement itself would be 0 in floating point, its logarithm still tells points apart."""
    means = np.concatenate([np.linspace(-3, 40, 2000), np.geomspace(40, 1e6, 500)[1:]])
    found = log_expected_improvement(means, np.ones(len(means)), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_more_uncertainty_is_worth_more() -> None:
    found = log_expected_improvement(np.ones(50), np.linspace(0.05, 3, 50), 0.0)
    assert (np.diff(found) > 0).all()


def test_feasible() -> None:
    """The fourth power of the probability of success."""
    sure = log_feasible(np.array([1.0, 0.0, -1.0]), np.full(3, 0.01))
    assert np.exp(sure[0]) > 0.99
    assert np.exp(sure[1]) == pytest.approx(0.5**4)
    assert np.exp(sure[2]) < 1e-9
    unsure = log_feasible(np.array([1.0, -1.0]), np.full(2, 3.0))
    assert 0.3**4 < np.exp(unsure[1]) < np.exp(unsure[0]) < 0.7**4
    assert np.isfinite(log_feasible(np.array([-1e6]), np.array([1e-4]))).all()


def test_warped_losses_are_standardised_and_in_order() -> None:
    targets, noise = warped(LOSSES, np.zeros(50))
    assert targets.mean() == pytest.approx(0.0, abs=1e-12)
    assert targets.var() == pytest.approx(1.0)
    assert (np.argsort(targets) == np.argsort(LOSSES)).all()
    assert (noise == 0.0).all()


def test_differences_near_the_best_count_most() -> None:
    targets, _ = warped(np.array([1.0, 1.1, 3.0, 3.1, 5.0]), np.zeros(5))
    assert targets[1] - targets[0] > 3 * (targets[3] - targets[2])


@pytest.mark.parametrize(("shift", "scale"), [(7.0, 1.0), (-100.0, 1.0), (0.0, 1e-6), (3.0, 2e9)])
def test_neither_unit_nor_origin_matters(shift: float, scale: float) -> None:
    variances = np.full(50, 0.01)
    targets, noise = warped(LOSSES, variances)
    found, found_noise = warped(shift + scale * LOSSES, scale**2 * variances)
    assert found == pytest.approx(targets, abs=1e-6)
    assert found_noise == pytest.approx(noise, rel=1e-4)


def test_noise_near_the_best_counts_most() -> None:
    """The scale is steepest there; the noise is what linearisation makes of it."""
    losses, step = np.linspace(1.0, 4.0, 31), 1e-7
    targets, noise = warped(losses, np.full(31, 1e-6))
    assert (np.diff(noise) < 0).all()
    moved = losses.copy()
    moved[20] += step
    slope = (warped(moved, np.zeros(31))[0][20] - targets[20]) / step
    assert noise[20] == pytest.approx(1e-6 * slope**2, rel=0.15)
    assert warped(losses, np.full(31, 1e300))[1].max() == 1.0


@pytest.mark.parametrize(
    "losses",
    [[3.0] * 5, [0.1] * 7, [0.0, 5e-324, 1e-323], [1e100, -1e100, 0.0], [1.0, 1.0, 1.0, 1e90]],
    ids=["constant", "constant, not a binary fraction", "denormal", "huge", "an outlier"],
)
def test_nothing_breaks_the_scale(losses: list[float]) -> None:
    targets, noise = warped(np.array(losses), np.ones(len(losses)))
    assert np.isfinite(targets).all()
    assert np.isfinite(noise).all()
    if len(set(losses)) == 1:
        assert targets == pytest.approx(np.zeros(len(losses)), abs=1e-6)
