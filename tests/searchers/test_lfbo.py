"""LFBO pattern and tree search, sentence by sentence; their copies are tested in `test_pattern.py`."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from searchers import (
    Boolean,
    Choice,
    LFBOPatternSearch,
    LFBOTreeSearch,
    Outcome,
    PowerOfTwo,
    Range,
    Space,
    SpaceSearcher,
    forest,
    lfbo_tree,
)
from searchers.features import Features
from searchers.moves import Moves
from searchers.testing import label, spaces

CENTRE = {"x": 50, "y": 50, "z": 50}
SPACE = Space({name: Range(0, 99) for name in "xyz"}, default=CENTRE)


def drive(searcher: SpaceSearcher, n: int, batch: int = 8) -> list[list[int]]:
    rows: list[list[int]] = []
    while len(rows) < n and not searcher.finished:
        for candidate in searcher.ask(min(batch, n - len(rows))):
            rows.append(list(candidate.row))
            searcher.tell(candidate.id, label(candidate, searcher))
    return rows


# -- the classifier


def test_the_threshold_is_a_quantile_of_the_successes() -> None:
    losses = np.array([5.0, np.inf, 1.0, 2.0, 3.0, 4.0, np.inf, np.inf])
    good, _ = forest.good_or_bad(losses, 0.5)
    assert losses[good].tolist() == [1.0, 2.0]  # of five successes, not of eight configurations
    good, _ = forest.good_or_bad(losses, 0.1)
    assert losses[good].tolist() == [1.0]


def test_what_is_much_better_weighs_more() -> None:
    losses = np.array([1.0, 7.0, 9.0, 9.5, 10.0, 11.0, 12.0, np.inf, np.inf, 13.0, 14.0])
    good, weights = forest.good_or_bad(losses, 0.5)
    assert good.tolist() == [True] * 4 + [False] * 7
    assert weights[~good].tolist() == [1.0] * 7
    assert weights[good].mean() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[good] / weights[3], [18, 6, 2, 1])


def test_equal_bests_are_all_good() -> None:
    good, weights = forest.good_or_bad(np.array([2.0, 2.0, 2.0, 3.0, np.inf]), 0.1)
    assert good.tolist() == [True, True, True, False, False]
    assert weights.tolist() == [1.0] * 5


def test_there_is_no_forest_where_all_are_of_one_kind() -> None:
    X = np.arange(4.0)[:, None]
    assert forest.fit(X, np.full(4, np.inf), 0.1, 100, 0) is None
    assert forest.fit(X, np.full(4, 1.0), 0.1, 100, 0) is None
    assert forest.fit(X, np.array([1.0, 1.0, 1.0, np.inf]), 0.1, 100, 0) is not None


def test_failures_teach_the_classifier() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((80, 2))
    failed = X[:, 0] > 0.5
    losses = np.where(failed, np.inf, 1 + 1e-3 * X[:, 1])
    fitted = forest.fit(X, losses, 0.5, 100, 0)
    assert fitted is not None
    probe = np.array([[0.1, 0.0], [0.9, 0.0]])
    low, high = forest.probability_of_good(fitted, probe)
    assert low > 0.8
    assert high < 0.1


# -- neighbours


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_random_neighbours_are_within_the_radius_both_ways(radius: int) -> None:
    searcher = LFBOPatternSearch(SPACE, radius=radius, seed=1)
    base = SPACE.encode(CENTRE)
    rows = searcher._neighbours(base, None)
    assert len(rows) == 300
    moved = (rows != base).sum(axis=1)
    assert sorted(set(moved.tolist())) == list(range(1, radius + 1))
    assert set(np.abs(rows - base).ravel().tolist()) == set(range(radius + 1))


def test_important_parameters_change_in_three_of_four_neighbours() -> None:
    parameters: dict[str, Any] = {f"p{i}": Range(0, 9) for i in range(10)}
    space = Space({**parameters, "tile": Range(0, 9, important=True), "warps": Range(0, 9, important=True)})
    base = space.encode(dict.fromkeys([*parameters, "tile", "warps"], 5))
    changed = LFBOPatternSearch(space, num_neighbors=2000, seed=1)._neighbours(base, None) != base
    either = changed[:, 10] | changed[:, 11]
    assert 0.72 < either.mean() < 0.86  # 0.75, and those that draw one of them as any other
    assert changed[:, :10].mean(axis=0).max() < 0.15
    assert changed.sum(axis=1).max() == 3  # radius others besides


def test_a_share_of_the_new_neighbours_is_selected() -> None:
    searcher = LFBOPatternSearch(
        SPACE, num_neighbors=40, frac_selected=0.25, initial_population_strategy="from_default", seed=1
    )
    searcher.tell(searcher.ask(1)[0].id, Outcome("ok", (1.0,)))
    assert 0.15 * 40 <= len(searcher.ask(99)) <= 10


def test_selection_prefers_what_is_probably_good_and_differs() -> None:
    rng = np.random.default_rng(1)
    X = rng.random((200, 2))
    fitted = forest.fit(X, np.where(X[:, 0] < 0.3, X[:, 0], 1.0), 0.3, 100, 0)
    assert fitted is not None
    probe = np.array([[0.05, 0.5], [0.05, 0.5], [0.05, 0.5], [0.25, 0.1], [0.9, 0.9]])
    greedy = LFBOPatternSearch(SPACE, similarity_penalty=0)._diverse_best(fitted, probe, 3)
    diverse = LFBOPatternSearch(SPACE, similarity_penalty=1)._diverse_best(fitted, probe, 2)
    assert greedy == [0, 1, 2]
    assert diverse == [0, 3]


def test_the_surrogate_sees_all_that_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    fit = forest.fit

    def spy(X: Any, losses: Any, *rest: Any) -> Any:
        seen.append((len(X), int(np.isinf(losses).sum())))
        return fit(X, losses, *rest)

    monkeypatch.setattr(forest, "fit", spy)
    searcher = LFBOPatternSearch(SPACE, 12, copies=1, num_neighbors=60, seed=1)
    drive(searcher, 12)  # one in seven fails
    searcher.add_evaluated_point({"x": 0, "y": 0, "z": 0}, 1e6, error=True)
    first = searcher.ask(99)
    for candidate in first:
        searcher.tell(candidate.id, Outcome("compile_timeout"))
    searcher.ask(1)
    assert seen == [(13, 2), (13 + len(first), 2 + len(first))]


# -- the tree search


def _fitted_tree_search(space: Space, **options: Any) -> tuple[LFBOTreeSearch, Any]:
    searcher = LFBOTreeSearch(space, initial_population=60, copies=1, seed=1, **options)
    drive(searcher, 60, batch=60)
    return searcher, searcher._fitted()


def test_trials_change_what_trees_ask_for() -> None:
    space = Space({**{f"p{i}": Range(0, 99) for i in range(4)}, "idle": Choice(["a", "b"])})
    searcher = LFBOTreeSearch(space, initial_population=60, copies=1, seed=1)
    for candidate in searcher.ask(60):
        searcher.tell(candidate.id, Outcome("ok", (float(candidate.row[0]),)))
    base = searcher._trials[searcher._best or 0].row
    rows = searcher._neighbours(base, searcher._fitted())
    changed = (rows != base).mean(axis=0)
    assert changed[0] > 0.5
    assert changed[0] > 2 * changed[1:].max()


def test_trials_stay_within_the_radius_and_the_constraints() -> None:
    for name, space in spaces().items():
        searcher, surrogate = _fitted_tree_search(space, radius=2)
        assert surrogate is not None
        base = searcher._trials[searcher._best or 0].row
        rows = searcher._neighbours(base, surrogate)
        assert len(rows), name
        assert space.valid(rows).all()
        assert (rows != base).any(axis=1).all()
        n = space.encoding.n_parameters
        moved = (~space.inactive(rows) & ~space.inactive(base[None]))[:, space.encoding.ordered[:n]]
        assert np.abs(rows - base)[:, :n][:, space.encoding.ordered[:n]][moved].max() <= 2


def test_a_trial_keeps_what_its_tree_likes_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfbo_tree, "_LEAST_KNOWN", 20)  # the space has no more
    space = Space({"x": Range(0, 9), "y": Boolean()})
    searcher = LFBOTreeSearch(space, initial_population=20, copies=1, radius=3, seed=1)
    for candidate in searcher.ask(20):
        # everything from 6 on is good, below it is bad
        x = candidate.config["x"]
        searcher.tell(candidate.id, Outcome("ok", (1.0 if x >= 6 else 2.0,)))
    surrogate = searcher._fitted()
    assert surrogate is not None
    rows = searcher._neighbours(space.encode({"x": 4, "y": False}), surrogate)
    reached = np.bincount(rows[:, 0], minlength=10)
    assert reached[[6, 7]].min() > 0.25 * len(rows)
    assert reached[[1, 2, 3, 8, 9]].sum() == 0


@pytest.mark.parametrize("kind", [LFBOPatternSearch, LFBOTreeSearch])
def test_a_search_from_the_default_does_not_give_up(kind: type[LFBOPatternSearch]) -> None:
    """One outcome, or a few, grow no forest to walk in."""
    tiles = {name: PowerOfTwo(16, 256) for name in ("BM", "BN", "BK")}
    space = Space(
        {**tiles, "stages": Range(1, 6), "order": Choice(["r", "c"])},
        default={"BM": 16, "BN": 16, "BK": 16, "stages": 1, "order": "r"},
    )
    best = {"BM": 128, "BN": 64, "BK": 32, "stages": 3, "order": "c"}
    for seed in range(4):
        searcher = kind(space, initial_population_strategy="from_default", seed=seed)
        while not searcher.finished:
            for candidate in searcher.ask(4):
                config = candidate.config
                far = sum(abs(math.log2(config[name] / best[name])) for name in tiles)
                far += abs(config["stages"] - 3) + (config["order"] == "r")
                searcher.tell(candidate.id, Outcome("ok", (1.0 + far,)))
        assert searcher.best is not None
        assert searcher.best[1].values[0] <= 2.0
        assert searcher.n_proposed > 30


def test_important_parameters_are_on_every_path() -> None:
    parameters: dict[str, Any] = {"x": Range(0, 99), "tile": Range(0, 99, important=True)}
    space = Space(parameters)
    searcher = LFBOTreeSearch(space, seed=1)
    moves = Moves(space, space.encode({"x": 5, "tile": 5}))
    assert searcher._plan([0], moves) == [0, 1]
    assert searcher._plan([1, 0], moves) == [1, 0]


def test_without_a_forest_tree_search_perturbs_at_random() -> None:
    searcher = LFBOTreeSearch(SPACE, initial_population_strategy="from_default", seed=1)
    searcher.tell(searcher.ask(1)[0].id, Outcome("ok", (1.0,)))
    generation = searcher.ask(99)
    assert 3 <= len(generation) <= 20
    assert all(0 < sum(a != 50 for a in c.row) <= 2 for c in generation)


# -- all of it


@pytest.mark.parametrize("kind", [LFBOPatternSearch, LFBOTreeSearch])
def test_it_finds_the_optimum_where_random_search_does_not(
    kind: type[LFBOPatternSearch | LFBOTreeSearch],
) -> None:
    space = Space({f"p{i}": Range(0, 9) for i in range(5)})
    found = []
    for seed in (1, 2):
        searcher = kind(space, initial_population=30, copies=2, seed=seed)
        searcher.n_trees = 20
        for _ in range(120):
            for candidate in searcher.ask(1):
                loss = sum((level - 3 - i) ** 2 for i, level in enumerate(candidate.row))
                searcher.tell(candidate.id, Outcome("ok", (float(loss),)))
        assert searcher.best is not None
        found.append(searcher.best[1].values[0])
    assert np.mean(found) <= 2  # one of 100,000, or next to it; 120 random ones get to about 12


def test_restored_in_the_middle_of_a_generation_with_outcomes_out_of_order() -> None:
    def make(seed: int) -> LFBOTreeSearch:
        searcher = LFBOTreeSearch(
            spaces()["mixed"], 60, 0.5, initial_population=12, copies=3, patience=5, seed=seed
        )
        searcher.n_trees = 10
        return searcher

    whole, restored = make(4), make(99)
    drive(whole, 12)
    flight = whole.ask(30)
    for candidate in flight[::2]:
        whole.tell(candidate.id, label(candidate, whole))
    assert max(len(copy.waiting) for copy in whole._copies) > 1
    restored.set_state(whole.get_state())
    for searcher in (whole, restored):
        for candidate in reversed(flight[1::2]):
            searcher.tell(candidate.id, label(candidate, searcher))
    assert drive(whole, 40, batch=3) == drive(restored, 40, batch=3)
    assert whole.get_state() == restored.get_state()


def test_a_generation_is_cheap() -> None:
    space = Space({f"p{i}": Range(0, 9) for i in range(10)})
    searcher = LFBOTreeSearch(space, copies=1, seed=1)
    drive(searcher, 100, batch=100)
    searcher._fitted()  # imports scikit-learn
    began = time.process_time()
    proposed = len(searcher.ask(99))
    spent = time.process_time() - began
    assert proposed >= 5
    assert spent < 1.0  # 0.2 s on one slow core


def test_features_of_equal_configurations_are_equal() -> None:
    space = spaces()["nested"]
    rows = space.sample(50, np.random.default_rng(2))
    np.testing.assert_array_equal(Features(space)(rows), Features(space)(space.canonical(rows)))
