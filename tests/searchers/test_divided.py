"""Models of parts of a space."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from searchers import BayesianSearch, Boolean, Outcome, Range, Space, StateError, bayesian
from searchers.acquisition import highest, log_expected_improvement
from searchers.divided import DividedModel, Evidence
from searchers.encoding import Matrix
from searchers.features import Features
from searchers.gaussian_process import Floats, Hyperparameters
from searchers.kernel import Grid
from searchers.points import Points
from searchers.surrogate import Surrogate

SPACE = Space({"tile": Range(0, 15), "steps": Range(0, 15), "limited": Boolean()})
FEATURES = Features(SPACE)
START = Hyperparameters.initial(FEATURES.n_features)


def spilling(rows: Matrix) -> Floats:
    """Large tiles are good, and with a limit on registers terrible."""
    tile, steps, limited = rows.T
    return np.asarray(3.0 - tile / 8 + (steps - 5) ** 2 / 60 + np.where(limited & (tile > 8), 4.0, 0.0))


def everything() -> Matrix:
    rows = SPACE.rows
    assert rows is not None
    return rows


def small_tiles_and_limited_ones(n: int) -> Matrix:
    """Of the tiles above 8 only limited ones."""
    rows = everything()
    seen = rows[(rows[:, 0] <= 8) | (rows[:, 2] == 1)]
    return np.asarray(np.random.default_rng(4).permutation(seen)[:n])


def evidence(rows: Matrix, pending: Matrix | None = None) -> Evidence:
    targets = spilling(rows)
    targets = (targets - targets.mean()) / targets.std()
    pending = rows[:0] if pending is None else pending
    noise = np.zeros(len(rows))
    return Evidence(
        rows.astype(np.int64),
        FEATURES(rows),
        targets,
        noise,
        float(targets.min()),
        pending.astype(np.int64),
        FEATURES(pending),
    )


def chosen(
    model: DividedModel, known: Evidence, free: npt.NDArray[np.bool_] | None = None
) -> list[int] | None:
    points = Points(SPACE, everything(), FEATURES)
    if free is None:
        free = np.ones(len(points.rows), dtype=bool)
        free[points.places(SPACE.keys(known.states.astype(np.int32)))] = False
    place = model.best(known, START, points, free, np.zeros(len(free)), np.random.default_rng(1))
    return None if place is None else points.rows[place].tolist()


def after_sixty() -> BayesianSearch:
    searcher = BayesianSearch(SPACE, metric="x", mode="min", seed=2)
    for _ in range(60):
        (candidate,) = searcher.ask(1)
        (value,) = spilling(np.array([candidate.row], dtype=np.int32)).tolist()
        searcher.tell(candidate.id, Outcome("ok", (value,)))
    return searcher


def test_what_is_bad_at_one_level_may_be_good_at_another() -> None:
    known = evidence(small_tiles_and_limited_ones(90))
    assert chosen(DividedModel(), known) == [15, 5, 0]

    whole, points = Surrogate(FEATURES.n_features), Points(SPACE, everything(), FEATURES)
    whole.learn(known.features, known.targets, known.noise, points.grid, new_grid=True)
    score = log_expected_improvement(*whole.predict(known.targets), known.incumbent)
    assert points.rows[highest(score)][0] <= 8, "the model of the whole space would not look there"


def test_nothing_is_to_be_found_where_something_is_pending() -> None:
    """Nor more than before anywhere else."""
    known, grid = small_tiles_and_limited_ones(90), Grid(FEATURES(everything()))
    pending = np.array([[15, 15, 0]], dtype=np.int32)
    alone = DividedModel()._scores((2, 0), evidence(known), START, grid)
    crowded = DividedModel()._scores((2, 0), evidence(known, pending), START, grid)
    assert (np.exp(crowded) < np.exp(alone) + 1e-6).all()
    there = (everything() == pending).all(1)
    assert crowded[there] < alone[there] - 10


def test_parts_with_few_observations_have_no_model() -> None:
    rows = np.array([[i % 4, i // 4, i % 2] for i in range(18)], dtype=np.int32)
    assert chosen(DividedModel(), evidence(rows)) is None, "nine of each level at most"
    same = np.array([[i % 8, i // 8, 0] for i in range(9)], dtype=np.int32)
    assert chosen(DividedModel(), evidence(same)) is None, "a level that all have is no part"


def test_nothing_is_left() -> None:
    known = evidence(small_tiles_and_limited_ones(60))
    assert chosen(DividedModel(), known, np.zeros(len(everything()), dtype=bool)) is None


def test_targets_that_are_all_alike() -> None:
    rows = small_tiles_and_limited_ones(60)
    flat = replace(evidence(rows), targets=np.zeros(60), incumbent=0.0)
    assert chosen(DividedModel(), flat) is not None


def test_restored_it_goes_on_alike() -> None:
    whole, restored = DividedModel(), DividedModel()
    chosen(whole, evidence(small_tiles_and_limited_ones(50)))
    restored.load(json.loads(json.dumps(whole.state())), FEATURES.n_features)
    assert restored.state() == whole.state()
    known = evidence(small_tiles_and_limited_ones(54))
    assert chosen(restored, known) == chosen(whole, known)
    assert restored.state() == whole.state()
    whole.forget()
    assert whole.state() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_scales", [0.0]),
        ("log_scales", [0.0, math.nan, 0.0]),
        ("log_noise", math.inf),
        ("log_odds", math.nan),
        ("n", -1),
        ("part", [0, -1]),
        ("part", [0.5, 1]),
    ],
)
def test_a_damaged_state_is_refused(name: str, value: Any) -> None:
    good = {
        "part": [0, 1],
        "log_scales": [0.0] * FEATURES.n_features,
        "log_noise": -4.0,
        "log_odds": 0.0,
        "n": 12,
    }
    DividedModel().load([good], FEATURES.n_features)
    with pytest.raises(StateError):
        DividedModel().load([{**good, name: value}], FEATURES.n_features)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_search_that_is_done_asks_its_parts(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved and restored before each proposal, it proposes what the one that was never saved does."""
    monkeypatch.setattr(bayesian, "_CONVERGED", math.inf)  # it never believes its model
    searcher, restored = (BayesianSearch(SPACE, metric="x", mode="min", seed=2) for _ in range(2))
    for _ in range(80 // batch):
        state = json.loads(json.dumps(restored.get_state()))
        restored = BayesianSearch(SPACE, metric="x", mode="min", seed=2)
        restored.set_state(state)
        candidates = searcher.ask(batch)
        assert restored.ask(batch) == candidates
        for candidate in candidates:
            (value,) = spilling(np.array([candidate.row], dtype=np.int32)).tolist()
            for one in (searcher, restored):
                one.tell(candidate.id, Outcome("ok", (value,)))
    assert searcher.get_state()["algorithm"]["divided"]


def test_wide_spaces_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "_CONVERGED", math.inf)
    monkeypatch.setattr(bayesian, "MOST_FEATURES", 2)
    searcher = after_sixty()
    assert not searcher.get_state()["algorithm"]["divided"]


def test_a_refused_state_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "_CONVERGED", math.inf)
    searcher = after_sixty()
    before = json.dumps(searcher.get_state())
    damaged = json.loads(before)
    damaged["algorithm"]["divided"][-1]["n"] = -1
    with pytest.raises(StateError):
        searcher.set_state(damaged)
    assert json.dumps(searcher.get_state()) == before


def test_where_a_parameter_is_absent_is_a_part_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "_CONVERGED", math.inf)
    space = Space({"tiled": Boolean(), "tile": Range(0, 3, when="tiled"), "steps": Range(0, 15)})
    searcher = BayesianSearch(space, metric="x", mode="min", seed=5)
    for _ in range(70):
        (candidate,) = searcher.ask(1)
        config = candidate.config
        searcher.tell(
            candidate.id, Outcome("ok", (config.get("tile", 0) + (config["steps"] - 3) ** 2 / 9.0,))
        )
    parts = [tuple(record["part"]) for record in searcher.get_state()["algorithm"]["divided"]]
    assert (1, 4) in parts, "4 of 4 levels: absent"
