"""The benchmark of large spaces: its objectives are what they say, and so are its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import landscape, large_spaces
from benchmarks.functions import PAIRS, PROBLEMS
from benchmarks.large_spaces import RANDOM, SIDES, Task, search
from searchers.points import GRID_LIMIT

GRIDS = ("rosenbrock, 8", "rastrigin, 10", "schwefel, 10", "levy, 12", "griewank, 15", "ackley, 20")


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem(name: str) -> None:
    """Too large to be scored whole, with as many parameters as its name says, and always the same."""
    problem, again = PROBLEMS[name](), PROBLEMS[name]()
    assert problem.space.size is None or problem.space.size > GRID_LIMIT
    rows = problem.space.sample(300, np.random.default_rng(1))
    configs = [problem.space.decode(row) for row in rows]
    assert {len(config) for config in configs} == {int(name.split(", ")[1])}
    values = [problem.objective(config) for config in configs]
    assert values == [again.objective(config) for config in configs]
    assert sum(map(math.isfinite, values)) > 10
    assert len(set(values)) > 10


@pytest.mark.parametrize("name", GRIDS)
def test_the_optimum_of_a_test_function(name: str) -> None:
    """Is 0 where the centre is; Schwefel's is between the levels."""
    problem = PROBLEMS[name]()
    levels = problem.space.encoding.n_levels
    rng = np.random.default_rng(7)
    centre = rng.integers(levels[0] // 5, 4 * levels[0] // 5, len(levels))
    if name.startswith("schwefel"):
        centre = np.full(len(levels), round((420.9687 + 500) / 10))
    best = problem.objective({f"x{i}": int(x) for i, x in enumerate(centre)})
    assert best == pytest.approx(0.0, abs=2.0 if name.startswith("schwefel") else 1e-9)
    for j in range(len(levels)):
        for step in (-3, 3):
            moved = centre.copy()
            moved[j] += step
            assert problem.objective({f"x{i}": int(x) for i, x in enumerate(moved)}) > best


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_landscapes(name: str) -> None:
    """At its best where both are; what is missing in one of them fails."""
    problem = PAIRS[name]()
    first, second = (landscape.load(half) for half in name.split(", ")[0].split(" and "))
    parameters = list(problem.space.decode(problem.space.sample(1, np.random.default_rng(1))[0]))
    assert len(parameters) == len(first.parameters) + len(second.parameters)
    best = [half.keys[int(np.nanargmin(half.times))] for half in (first, second)]
    assert problem.objective(dict(zip(parameters, best[0] + best[1], strict=True))) == pytest.approx(2.0)
    for place in (0, len(parameters) - 1):
        values = [*best[0], *best[1]]
        values[place] = "no such value"
        assert problem.objective(dict(zip(parameters, values, strict=True))) == math.inf


def test_a_search_goes_on_when_a_searcher_has_finished() -> None:
    curve, spent = search(Task("rastrigin, 10", "pattern", 3, 300))
    assert len(curve) == 300
    assert curve == sorted(curve, reverse=True)
    assert spent > 0
    assert search(Task("rastrigin, 10", "pattern", 3, 300))[0] == curve


def test_a_curve_is_kept_as_its_steps() -> None:
    """To six digits: what does not differ in these is no step."""
    curve = [math.inf, 2.7182878, 2.7182878, 2.7182876, 2.0, 2.0]
    assert large_spaces._steps(curve) == [[2, 2.71829], [5, 2.0]]


def test_what_has_found_nothing_yet_counts_as_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_spaces, "SIDES", {"auto": None, RANDOM: None})
    curves = {"auto": [[math.inf, 3.0], [4.0, 2.0]], RANDOM: [[math.inf, 4.0], [6.0, 6.0]]}
    found = {
        Task("nk, 32", side, seed, 2): (curve, 0.3)
        for side, runs in curves.items()
        for seed, curve in enumerate(runs)
    }
    scores = large_spaces._scores("nk, 32", found, 2, (1, 2))
    assert scores["auto"] == pytest.approx([(6 - 5) / (6 - 2), (5 - 2.5) / (5 - 2)])
    assert scores[RANDOM] == pytest.approx([0.0, 0.0])


def test_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 is what random search has on average, 1 the best of all."""
    names = ("nk, 32", "flags, 60")
    monkeypatch.setattr(large_spaces, "PROBLEMS", {name: PROBLEMS[name] for name in names})
    found = {}
    for name in names:
        for side in SIDES:
            for seed, last in enumerate([4.0, 2.0]):
                curve = [5.0] * 3 if side == RANDOM else [6.0, 5.0, last if side == "auto" else 4.5]
                found[Task(name, side, seed, 3)] = (curve, 0.3)
    scores = {name: large_spaces._scores(name, found, 2, (1, 3)) for name in names}
    for of in scores.values():
        assert of[RANDOM].tolist() == [0.0, 0.0]
        assert of["auto"] == pytest.approx([-1 / 3, 2 / 3])
        assert of["genetic"] == pytest.approx([-1 / 3, 1 / 6])
    claims = {claim.text: claim.value for claim in large_spaces._claims(scores, (1, 3))}
    assert claims["auto at 3: behind the best other one on nk, 32, its worst problem"] == pytest.approx(-0.5)
    assert claims["auto at 1: behind the best other one on average, more parameters"] == pytest.approx(0.0)
