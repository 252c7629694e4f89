"""Pattern search, sentence by sentence; what concerns the copies holds for LFBO too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from searchers import (
    Candidate,
    LFBOPatternSearch,
    OptionError,
    Outcome,
    PatternSearch,
    Range,
    Space,
    StateError,
    create,
)

SPACE = Space({"x": Range(0, 99), "y": Range(0, 99)}, default={"x": 50, "y": 50})
FROM_DEFAULT = "from_default"


def ok(value: float) -> Outcome:
    return Outcome("ok", (value,))


def tell_all(searcher: PatternSearch, candidates: list[Candidate], f: Callable[[Any], float]) -> None:
    for candidate in candidates:
        searcher.tell(candidate.id, ok(f(candidate.config)))


def points(candidates: list[Candidate]) -> list[tuple[int, int]]:
    return [(c.config["x"], c.config["y"]) for c in candidates]


def test_a_generation_is_one_parameter_moved_by_one_level() -> None:
    searcher = PatternSearch(SPACE, initial_population_strategy=FROM_DEFAULT, seed=1)
    tell_all(searcher, searcher.ask(1), lambda c: 9.0)
    assert sorted(points(searcher.ask(99))) == [(49, 50), (50, 49), (50, 51), (51, 50)]


def test_important_parameters_move_in_pairs_too() -> None:
    parameters = {"x": Range(0, 99, important=True), "y": Range(0, 99, important=True), "z": Range(0, 9)}
    space = Space(parameters, default={"x": 50, "y": 50, "z": 0})
    searcher = PatternSearch(space, initial_population_strategy=FROM_DEFAULT, seed=1)
    tell_all(searcher, searcher.ask(1), lambda c: 9.0)
    assert sum(c.config["z"] == 0 for c in searcher.ask(99)) == 8


def test_the_base_moves_to_the_best_of_a_generation() -> None:
    searcher = PatternSearch(SPACE, initial_population_strategy=FROM_DEFAULT, seed=1)
    tell_all(searcher, searcher.ask(1), lambda c: 9.0)
    tell_all(searcher, searcher.ask(99), lambda c: 5.0 if c["x"] == 51 else 8.0)
    assert sorted(points(searcher.ask(99))) == [(51, 49), (51, 51), (52, 50)]


@pytest.mark.parametrize(
    ("mode", "values", "goes_on"),
    [
        ("min", (100.0, 100.0), False),
        ("min", (100.0, 99.91), False),
        ("min", (100.0, 99.89), True),
        ("max", (100.0, 100.09), False),
        ("max", (100.0, 100.11), True),
        ("min", (-100.0, -100.09), False),
        ("min", (-100.0, -100.11), True),
        ("min", (0.0, -1e-9), True),
        ("min", (0.0, 0.0), False),
    ],
)
def test_a_copy_stops_without_a_relative_improvement(
    mode: str, values: tuple[float, float], goes_on: bool
) -> None:
    strategy = {"initial_population_strategy": FROM_DEFAULT}
    searcher = PatternSearch(SPACE, **strategy, metric="m", mode=mode, seed=1)  # type: ignore[arg-type]
    tell_all(searcher, searcher.ask(1), lambda c: values[0])
    tell_all(searcher, searcher.ask(99), lambda c: values[1])
    assert bool(searcher.ask(99)) == goes_on
    assert searcher.finished != goes_on


def test_without_a_delta_every_improvement_counts() -> None:
    searcher = PatternSearch(SPACE, min_improvement_delta=0, initial_population_strategy=FROM_DEFAULT, seed=1)
    tell_all(searcher, searcher.ask(1), lambda c: 1.0)
    tell_all(searcher, searcher.ask(99), lambda c: 1.0 - 1e-12)
    assert searcher.ask(1)


def test_max_generations_bound_each_copy() -> None:
    searcher = PatternSearch(SPACE, 10, copies=2, max_generations=3, seed=1)
    while not searcher.finished:
        for candidate in searcher.ask(99):
            searcher.tell(candidate.id, ok(-float(candidate.id)))  # every generation improves
    assert [copy.generation for copy in searcher._copies] == [3, 3]


def test_copies_start_from_the_best_when_the_population_is_back() -> None:
    searcher = PatternSearch(SPACE, 8, copies=2, seed=1)
    population = searcher.ask(99)
    assert len(population) == 8
    for place, candidate in enumerate(population[:-1]):
        searcher.tell(candidate.id, ok(float(place)))
    assert searcher.ask(99) == []
    assert not searcher.finished
    searcher.tell(population[-1].id, Outcome("throttled"))
    assert searcher.ask(99) == []
    searcher.tell(population[-1].id, Outcome("run_error"))
    near = points(searcher.ask(99))
    for x, y in near:
        assert min(abs(x - a) + abs(y - b) for a, b in points(population[:2])) == 1


def _two_copies() -> tuple[PatternSearch, list[Candidate], list[Candidate]]:
    """A search with two copies whose first generations are in flight."""
    space = Space({"x": Range(0, 99), "y": Range(0, 99)})
    start = [{"x": 20, "y": 20}, {"x": 80, "y": 80}]
    searcher = PatternSearch(space, 2, copies=2, seed=1, initial_configs=start)
    tell_all(searcher, searcher.ask(2), lambda c: 100.0)
    flight = searcher.ask(99)
    low = [c for c in flight if c.config["x"] < 50]
    high = [c for c in flight if c.config["x"] > 50]
    assert len(low) == len(high) == 4
    return searcher, low, high


def test_copies_do_not_wait_for_one_another() -> None:
    searcher, low, high = _two_copies()
    for _ in range(5):  # one runs ahead while nothing of the other is back
        tell_all(searcher, low, lambda c: 100.0 - c["x"])
        low = searcher.ask(99)
        assert low
        assert all(c.config["x"] < 50 for c in low)
    tell_all(searcher, high[:-1], lambda c: 99.0)
    assert searcher.ask(99) == []
    tell_all(searcher, high[-1:], lambda c: 50.0)
    assert all(c.config["x"] > 50 for c in searcher.ask(99))


def test_a_copy_is_not_asked_before_its_candidates_are_needed() -> None:
    searcher = PatternSearch(SPACE, 8, copies=2, seed=1)
    tell_all(searcher, searcher.ask(8), lambda c: float(c["x"]))
    searcher.ask(1)
    assert [copy.generation for copy in searcher._copies] == [1, 0]
    searcher.ask(6)
    assert [copy.generation for copy in searcher._copies] == [1, 1]


def test_a_dead_copy_does_not_stop_the_others() -> None:
    searcher, low, high = _two_copies()
    tell_all(searcher, low, lambda c: 200.0)
    assert searcher.ask(99) == []
    assert not searcher.finished
    tell_all(searcher, high, lambda c: 50.0)
    high = searcher.ask(99)
    assert high
    tell_all(searcher, high, lambda c: 200.0)
    assert searcher.finished
    assert searcher.ask(9) == []


def test_a_copy_with_nothing_new_around_it_ends() -> None:
    space = Space({"x": Range(0, 99)}, ["x < 2 or x > 90"], default={"x": 0})
    searcher = PatternSearch(space, initial_population_strategy=FROM_DEFAULT, seed=1)
    tell_all(searcher, searcher.ask(9), lambda c: 9.0)
    tell_all(searcher, searcher.ask(9), lambda c: 1.0)
    assert searcher.ask(9) == []
    assert searcher.finished


def test_failures_move_no_base_and_stop_a_copy_in_the_end() -> None:
    searcher = PatternSearch(SPACE, initial_population_strategy=FROM_DEFAULT, seed=1)
    tell_all(searcher, searcher.ask(1), lambda c: 9.0)
    for candidate in searcher.ask(99):
        searcher.tell(candidate.id, Outcome("compile_error"))
    assert searcher.finished


def test_random_ones_follow_a_population_of_failures() -> None:
    searcher = PatternSearch(SPACE, 5, seed=1)
    asked = 0
    while not searcher.finished:
        candidates = searcher.ask(99)
        asked += len(candidates)
        for candidate in candidates:
            searcher.tell(candidate.id, Outcome("run_error"))
    assert asked == 5 * 11
    searcher = PatternSearch(SPACE, initial_population_strategy=FROM_DEFAULT, initial_population=6, seed=1)
    searcher.tell(searcher.ask(1)[0].id, Outcome("run_error"))
    more = searcher.ask(99)
    assert len(more) == 6
    tell_all(searcher, more, lambda c: 1.0)
    assert searcher.ask(1)


def test_a_capped_neighbourhood_is_drawn_at_random() -> None:
    class Capped(PatternSearch):
        num_neighbors_cap = 2

    assert PatternSearch.num_neighbors_cap == -1
    seen = set()
    for seed in range(20):
        searcher = Capped(SPACE, initial_population_strategy=FROM_DEFAULT, seed=seed)
        tell_all(searcher, searcher.ask(1), lambda c: 9.0)
        generation = points(searcher.ask(99))
        assert len(generation) == 2
        seen |= set(generation)
    assert len(seen) == 4


@pytest.mark.parametrize("cap", [0, -5, 2.5, -1.0, "x", None, True])
@pytest.mark.parametrize("name", ["pattern", "lfbo_pattern", "lfbo_tree"])
def test_a_bad_cap_is_named_before_anything_is_evaluated(name: str, cap: Any) -> None:
    searcher: Any = create(name, SPACE, seed=1)
    searcher.num_neighbors_cap = cap
    with pytest.raises(OptionError, match=f"`num_neighbors_cap` is {cap!r}"):
        searcher.ask(1)


def test_patience_counts_generations_in_a_row() -> None:
    searcher = LFBOPatternSearch(
        SPACE, patience=1, initial_population_strategy=FROM_DEFAULT, num_neighbors=20, seed=1
    )
    tell_all(searcher, searcher.ask(1), lambda c: 9.0)
    for value in (9.0, 8.0, 8.5):  # a miss, an improvement, a miss
        tell_all(searcher, searcher.ask(99), lambda c, value=value: value)  # type: ignore[misc]
        assert not searcher.finished
    tell_all(searcher, searcher.ask(99), lambda c: 8.0)
    assert searcher.finished


def test_several_objectives_are_refused() -> None:
    with pytest.raises(OptionError, match=r"2 objectives.*but PatternSearch takes"):
        PatternSearch(SPACE, metric=["a", "b"], mode=["min", "min"])
    searcher = PatternSearch(SPACE, seed=1)
    with pytest.raises(OptionError, match="objectives"):
        searcher.tell(searcher.ask(1)[0].id, Outcome("ok", (1.0, 2.0)))
    assert searcher.n_pending == 1


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("initial_population", (0, 1.5, True, "9")),
        ("copies", (0, -1)),
        ("max_generations", (0,)),
        ("min_improvement_delta", (-0.1, float("nan"), "x")),
        ("compile_timeout_lower_bound", (-1.0, float("inf"))),
        ("compile_timeout_quantile", (0, 1.1)),
        ("frac_selected", (0, 1.1)),
        ("num_neighbors", (0,)),
        ("radius", (0,)),
        ("quantile", (0, 1)),
        ("patience", (-1,)),
        ("similarity_penalty", (-1, None)),
    ],
)
def test_bad_options_are_named(option: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(OptionError, match=f"`{option}` is {value!r}"):
            create("lfbo_tree", SPACE, **{option: value})


@pytest.mark.parametrize(
    "damage",
    [
        {"copies": [[999, 1, 0, True, []]]},
        {"copies": [[0, 1, 0, 1, []]]},
        {"copies": [[0, 21, 0, True, []]]},
        {"copies": [[0, 1, 0, True, [0, 0]]]},
        {"copies": [[0, 1, -1, True, []]]},
        {"copies": [[0, 1]]},
        {"copies": []},
        {"started": None},
        {"given": -1},
        {"populations": "1"},
    ],
)
def test_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    searcher, _, _ = _two_copies()
    state = json.loads(json.dumps(searcher.get_state()))
    searcher.set_state(state)
    state["algorithm"] |= damage
    with pytest.raises(StateError):
        searcher.set_state(state)
