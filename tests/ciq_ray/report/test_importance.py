"""Which parameters matter: those that do, and none where nothing can be known."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import threadpoolctl

from ciq_ray.report.importance import LEAST_QUALITY, of_failures, of_score


def grid(n, columns, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 8, (n, columns))
    return X, [{f"p{j}": int(value) for j, value in enumerate(row)} for row in X], rng


def test_finds_what_matters(made):
    X, configs, rng = grid(240, 8)
    scores = 3.0 * X[:, 0] + (X[:, 1] - X[:, 2]) ** 2 + 0.1 * rng.normal(size=240)
    data = made(configs, scores.tolist())
    found = of_score(data, 0, data.parameters())
    assert not found.reason
    assert set(found.names[:3]) == {"p0", "p1", "p2"}
    assert max(found.shares[3:]) < 0.02 < min(found.shares[:3])
    assert 0.5 < found.quality <= 1


def test_shares_are_those_of_the_variance(made):
    # ranks of a sum of two parts of unequal size: 16/17 and 1/17 of the variance
    X, configs, _ = grid(800, 4)
    data = made(configs, (4.0 * X[:, 0] + X[:, 1]).tolist())
    found = of_score(data, 0, data.parameters())
    shares = dict(zip(found.names, found.shares, strict=True))
    assert shares["p0"] == pytest.approx(16 / 17, abs=0.08)
    assert shares["p1"] == pytest.approx(1 / 17, abs=0.03)


@pytest.mark.parametrize("scale", [lambda y: 1e9 * y - 5e8, lambda y: np.exp(y / 4)])
def test_does_not_depend_on_the_unit_or_on_outliers(made, scale):
    X, configs, rng = grid(200, 5)
    scores = X[:, 0] + 0.5 * X[:, 3] + 0.1 * rng.normal(size=200)
    data, other = made(configs, scores.tolist()), made(configs, scale(scores).tolist())
    assert of_score(data, 0, data.parameters()).shares == of_score(other, 0, other.parameters()).shares


def test_of_max_is_that_of_min(made):
    X, configs, _ = grid(120, 3)
    low = made(configs, [float(x) for x in X[:, 0]])
    high = made(configs, [-float(x) for x in X[:, 0]], "max")
    assert of_score(low, 0, low.parameters()) == of_score(high, 0, high.parameters())


def test_is_the_same_each_time_and_touches_no_global_generator(made):
    X, configs, rng = grid(100, 4)
    data = made(configs, (X[:, 1] + rng.normal(size=100)).tolist())
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert of_score(data, 0, data.parameters()) == of_score(data, 0, data.parameters())
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_noise_is_said_to_be_noise(made):
    _, configs, rng = grid(150, 10)
    data = made(configs, rng.normal(size=150).tolist())
    found = of_score(data, 0, data.parameters())
    assert "too little to rank them" in found.reason
    assert found.quality < LEAST_QUALITY
    assert found.names == ()


@pytest.mark.parametrize(
    ("configs", "scores", "reason"),
    [
        ([{"x": 1}] * 30, list(map(float, range(30))), "no parameter takes more than one value"),
        ([{"x": i} for i in range(9)], list(map(float, range(9))), "9 evaluations are too few; it takes 16"),
        ([{"x": i} for i in range(30)], [1.0] * 30, "all evaluations are equally good"),
    ],
)
def test_what_cannot_be_known(made, configs, scores, reason):
    data = made(configs, scores)
    assert of_score(data, 0, data.parameters()).reason == reason


def test_failures_are_a_matter_of_their_own(made):
    X, configs, _ = grid(300, 5)
    scores = [None if row[2] >= 6 else float(row[0]) for row in X]
    data = made(configs, scores)
    found = of_failures(data, data.parameters())
    assert found is not None
    assert found.names[0] == "p2"
    assert found.shares[0] > 0.8
    assert of_score(data, 0, data.parameters()).names[0] == "p0"


def test_few_failures_say_nothing(made):
    X, configs, _ = grid(300, 3)
    data = made(configs, [None if i < 9 else float(row[0]) for i, row in enumerate(X)])
    assert of_failures(data, data.parameters()) is None


def test_absent_parameters_and_categories(made):
    rng = np.random.default_rng(0)
    configs, scores = [], []
    for _ in range(200):
        config = {"kind": str(rng.choice(["a", "b", "c"])), "noise": int(rng.integers(9))}
        if rng.random() < 0.5:
            config["flag"] = "-x"
        configs.append(config)
        scores.append(2.0 * ("flag" in config) + (config["kind"] == "b"))
    data = made(configs, scores)
    found = of_score(data, 0, data.parameters())
    assert found.names == ("flag", "kind", "noise")


def test_of_many_rows_some_are_looked_at_with_one_thread(made, monkeypatch):
    X, configs, rng = grid(10_000, 60)
    data = made(configs, (X[:, 0] + rng.normal(size=10_000)).tolist())
    limits = []
    real = threadpoolctl.threadpool_limits
    monkeypatch.setattr(threadpoolctl, "threadpool_limits", lambda n: limits.append(n) or real(n))
    parameters = data.parameters()
    found = of_score(data, 0, parameters)
    assert found.n == 1600
    assert found.names[0] == "p0"
    assert limits == [1]


def test_hundreds_of_parameters_take_little_memory(made):
    X, configs, rng = grid(400, 200)
    data = made(configs, (X[:, 7] + rng.normal(size=400)).tolist())
    parameters = data.parameters()
    tracemalloc.start()
    try:
        found = of_score(data, 0, parameters)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.names[0] == "p7"
    assert len(found.names) == 200
    assert peak < 20e6
