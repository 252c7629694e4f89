"""A model that follows a search."""

from __future__ import annotations

import json

import numpy as np
import pytest

from searchers import StateError, surrogate
from searchers.kernel import Floats, Grid
from searchers.surrogate import Surrogate

RNG = np.random.default_rng(8)
X, GRID = RNG.random((60, 2)), Grid(RNG.random((50, 2)))
Y: Floats = (X**2).sum(1) - 0.7


def learnt(model: Surrogate, n: int, *, new_grid: bool = False) -> Surrogate:
    model.learn(X[:n], Y[:n], np.zeros(n), GRID, new_grid=new_grid)
    return model


def followed(*counts: int) -> Surrogate:
    model = Surrogate(2)
    for n in counts:
        learnt(model, n)
    return model


def predictions(model: Surrogate, n: int) -> list[list[float]]:
    return [predicted.tolist() for predicted in model.predict(Y[:n])]


def test_it_learns() -> None:
    means, _ = followed(10, 20, 40).predict(Y[:40])
    assert means == pytest.approx((GRID.features**2).sum(1) - 0.7, abs=0.1)


def test_how_many_come_at_once_does_not_matter() -> None:
    """Between two fits."""
    assert predictions(followed(10, 11, 12, 15), 15) == predictions(followed(10, 15), 15)


def test_restored_it_predicts_the_same_to_the_last_bit() -> None:
    whole = followed(10, 13, 30, 33)
    restored = Surrogate(2)
    restored.load(json.loads(json.dumps(whole.state())), 33)
    assert predictions(learnt(restored, 34), 34) == predictions(learnt(whole, 34), 34)
    assert predictions(learnt(restored, 60), 60) == predictions(learnt(whole, 60), 60)
    assert restored.state() == whole.state()


@pytest.mark.parametrize("new_grid", [False, True])
def test_restored_it_keeps_the_noise_that_an_observation_came_with(new_grid: bool) -> None:
    """On the scale of the targets it is another one at each moment."""

    def learn(model: Surrogate, n: int) -> list[list[float]]:
        model.learn(X[:n], Y[:n], np.random.default_rng(n).random(n), GRID, new_grid=new_grid)
        return predictions(model, n)

    whole = Surrogate(2)
    for n in (10, 13, 30, 33):
        learn(whole, n)
    restored = Surrogate(2)
    restored.load(json.loads(json.dumps(whole.state())), 33)
    for n in (34, 36, 60):
        assert learn(restored, n) == learn(whole, n)
    assert restored.state() == whole.state()


def test_a_fit_takes_the_noise_of_its_moment() -> None:
    model = learnt(Surrogate(2), 10)
    model.learn(X[:18], Y[:18], np.full(18, 0.5), GRID, new_grid=False)
    assert model.state()["noise"] == [0.5] * 18


def test_another_grid() -> None:
    model = followed(10, 12)
    model.learn(X[:12], Y[:12], np.zeros(12), Grid(GRID.features[:5]), new_grid=True)
    means, deviations = model.predict(Y[:12])
    assert means.shape == deviations.shape == (5,)
    assert means == pytest.approx(followed(10, 12).predict(Y[:12])[0][:5], abs=1e-4)


def test_what_is_imagined_is_forgotten() -> None:
    model = followed(10, 12)
    before = predictions(model, 12)
    with model.imagining():
        model.imagine(GRID.features[:3])
        assert predictions(model, 12) != before
    assert predictions(model, 12) == before


def test_it_is_fitted_anew_when_due_or_told_to() -> None:
    model = followed(10)
    first = model.state()
    assert learnt(model, 17).state() == {**first, "noise": [0.0] * 17}
    assert learnt(model, 18).state()["fitted_at"] == 18
    model.forget()
    assert learnt(model, 19).state()["fitted_at"] == 19


def test_it_keeps_the_best_and_some_of_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "_KEEP", 20)
    model = followed(60)
    members = model.state()["members"]
    order = np.argsort(Y).tolist()
    assert len(members) == 20
    assert set(order[:10]) <= set(members)
    assert order[-1] in members
    assert model.smoothed(Y).shape == (20,)
    assert model.predict(Y)[0].shape == (50,)


def test_what_was_taken_back_does_not_count() -> None:
    """After `forget` there may be fewer observations than were known."""
    model = followed(30)
    model.forget()
    restored = Surrogate(2)
    restored.load(model.state(), 20)
    assert predictions(learnt(restored, 20), 20) == predictions(learnt(model, 20), 20)


@pytest.mark.parametrize(
    "damage",
    [
        {"log_scales": [0.0]},
        {"log_scales": [0.0, float("nan")]},
        {"log_scales": [0.0, 99.0]},
        {"log_noise": float("nan")},
        {"log_noise": 800.0},
        {"log_odds": float("inf")},
        {"fitted_at": 31},
        {"fitted_at": -1},
        {"members": [0, 0]},
        {"members": [99]},
        {"members": None},
        {"noise": [0.0] * 29},
        {"noise": [0.0] * 31},
        {"noise": [float("nan")] * 30},
        {"noise": [-1.0] * 30},
    ],
)
def test_damaged_state_is_refused(damage: dict[str, object]) -> None:
    state = followed(30).state()
    with pytest.raises(StateError):
        Surrogate(2).load({**state, **damage}, 30)


def test_nothing_is_predicted_before_anything_is_known() -> None:
    with pytest.raises(StateError, match="learnt nothing"):
        Surrogate(2).predict(Y[:0])
