"""The Gaussian process against the formulas of the textbook, with dense matrices in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from searchers.gaussian_process import (
    MOST_ADDITIVE,
    Hyperparameters,
    Posterior,
    _negative_log_posterior,
    fit,
)
from searchers.kernel import Floats, Gram, Grid

RNG = np.random.default_rng(5)
OBSERVED, GRID = RNG.random((25, 3)), RNG.random((40, 3))
TARGETS = np.sin(4 * OBSERVED[:, 0]) + OBSERVED[:, 1] - 1.0
EXTRA = np.where(np.arange(25) % 3, 0.0, 0.2)
FITTED = Hyperparameters((-0.5, 0.3, 1.0), -4.0, -0.4)


def matern(left: Floats, right: Floats) -> Floats:
    root = np.sqrt(5.0) * cdist(left, right)
    return np.asarray((1.0 + root + root**2 / 3.0) * np.exp(-root))


def kernel(left: Floats, right: Floats) -> Floats:
    scales = np.exp(np.array(FITTED.log_scales))
    left, right = left / scales, right / scales
    alone = [matern(left[:, [j]], right[:, [j]]) for j in range(3)]
    share = 1.0 / (1.0 + np.exp(0.4))
    return np.asarray((1.0 - share) * matern(left, right) + share * np.mean(alone, axis=0))


def noisy() -> Floats:
    return kernel(OBSERVED, OBSERVED) + np.diag(FITTED.noise + EXTRA)


def added(*parts: slice) -> Posterior:
    posterior = Posterior(Grid(GRID), FITTED)
    for part in parts:
        posterior.add(OBSERVED[part], EXTRA[part])
    return posterior


def one_by_one() -> Posterior:
    return added(*(slice(i, i + 1) for i in range(25)))


@pytest.mark.parametrize(("log_noise", "log_odds"), [(-9.0, 0.6), (-2.0, -3.0)])
def test_gradient_is_that_of_finite_differences(log_noise: float, log_odds: float) -> None:
    observed = OBSERVED.round(1)  # so that some have values in common
    theta = np.array([-0.7, 0.2, 1.1, log_noise, log_odds])

    def value(at: Floats) -> tuple[float, Floats]:
        return _negative_log_posterior(at, Gram(observed), TARGETS, EXTRA)

    _, gradient = value(theta)
    for i in range(5):
        step = np.eye(5)[i] * 1e-5
        difference = (value(theta + step)[0] - value(theta - step)[0]) / 2e-5
        assert gradient[i] == pytest.approx(difference, rel=1e-4, abs=1e-4)


def test_fit_finds_what_matters() -> None:
    found = fit(OBSERVED, TARGETS, Hyperparameters.initial(3), np.zeros(25))
    first, second, third = found.log_scales
    assert first < second < third, "the length scales do not say which feature matters"
    assert found.log_noise < -5.0
    noise = np.random.default_rng(0).normal(size=25)
    assert fit(OBSERVED, noise, Hyperparameters.initial(3), np.zeros(25)).log_noise > found.log_noise


@pytest.mark.parametrize("seed", range(3))
def test_fit_finds_whether_features_act_alone(seed: int) -> None:
    def share(values: Floats) -> float:
        targets = (values - values.mean()) / values.std()
        return fit(x, targets, Hyperparameters.initial(2), np.zeros(60)).share

    x = np.random.default_rng(seed).random((60, 2))
    assert share(np.sin(6 * x).sum(1)) > 0.9
    assert share(np.sin(6 * x).prod(1)) < 0.2


def test_with_many_features_there_is_no_additive_part() -> None:
    x = np.random.default_rng(2).random((20, MOST_ADDITIVE + 1))
    found = fit(x, x.sum(1) - x.sum(1).mean(), Hyperparameters.initial(MOST_ADDITIVE + 1), np.zeros(20))
    assert found.share == 0.0
    posterior = Posterior(Grid(x), found)
    posterior.add(x[:10], np.zeros(10))
    means, deviations = posterior.predict(x[:10].sum(1) - x.sum(1).mean())
    assert means[:10] == pytest.approx(x[:10].sum(1) - x.sum(1).mean(), abs=0.1)
    assert (deviations[:10] < deviations[10:].min()).all()


def test_fit_does_not_mind_equal_targets() -> None:
    found = fit(OBSERVED, np.zeros(25), Hyperparameters.initial(3), np.zeros(25))
    assert np.isfinite([*found.log_scales, found.log_noise]).all()


@pytest.mark.parametrize("posterior", [added(slice(0, 25)), one_by_one()], ids=["at once", "one by one"])
def test_means_and_deviations_are_the_textbooks(posterior: Posterior) -> None:
    inverse, cross = np.linalg.inv(noisy()), kernel(GRID, OBSERVED)
    means, deviations = posterior.predict(TARGETS)
    signal = TARGETS @ inverse @ TARGETS / 25
    assert means == pytest.approx(cross @ inverse @ TARGETS, abs=1e-4)
    variances = signal * (1.0 - np.einsum("ij,jk,ik->i", cross, inverse, cross))
    assert deviations == pytest.approx(np.sqrt(variances), abs=1e-3)


def test_smoothed_targets() -> None:
    """Where a target's own noise is known, the neighbours say what it really is; else it stays."""
    expected = TARGETS - EXTRA * np.linalg.solve(noisy(), TARGETS)
    assert one_by_one().smoothed(TARGETS) == pytest.approx(expected, abs=1e-9)
    assert (one_by_one().smoothed(TARGETS) == TARGETS)[EXTRA == 0].all()


def test_what_is_tentative_is_forgotten_to_the_last_bit() -> None:
    posterior, same = added(slice(0, 10)), added(slice(0, 10))
    with posterior.tentative():
        posterior.add(OBSERVED[10:], EXTRA[10:])
        assert posterior.n == 25
        assert (posterior.predict(TARGETS[:10])[1] < same.predict(TARGETS[:10])[1]).any()
    for one in (posterior, same):
        one.add(OBSERVED[20:22], EXTRA[20:22])
    for found, expected in zip(posterior.predict(TARGETS[:12]), same.predict(TARGETS[:12]), strict=True):
        assert (found == expected).all()


def test_an_observation_without_a_target_is_supposed_to_be_one_deviation_worse_than_expected() -> None:
    posterior = added(slice(0, 10))
    supposed = TARGETS[:10].tolist()
    inverse = np.linalg.inv(noisy()[:10, :10])
    signal = TARGETS[:10] @ inverse @ TARGETS[:10] / 10
    for place in range(3):
        means, deviations = posterior.predict(np.array(supposed))
        supposed.append(means[place] + np.sqrt(deviations[place] ** 2 + FITTED.noise * signal))
        posterior.add(GRID[place : place + 1], np.zeros(1))
    expected = posterior.predict(np.array(supposed))
    for found, wanted in zip(posterior.predict(TARGETS[:10]), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)


def test_the_same_point_many_times() -> None:
    posterior = Posterior(Grid(GRID), Hyperparameters((0.0, 0.0, 0.0), -12.0, 0.0))
    for _ in range(50):
        posterior.add(GRID[:1], np.zeros(1))
    means, deviations = posterior.predict(np.ones(50))
    assert np.isfinite(means).all()
    assert np.isfinite(deviations).all()
    assert means[0] == pytest.approx(1.0, abs=1e-2)
