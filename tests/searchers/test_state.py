"""Saved state that is damaged: refused as a whole, or of no consequence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from searchers import (
    FiniteSearch,
    GeneticSearch,
    Outcome,
    RandomSearch,
    Range,
    Space,
    SpaceSearcher,
    StateError,
)

SPACE = Space({"x": Range(0, 30), "y": Range(0, 30)}, ["x + y < 50"])
CONFIGS = [{"x": x, "y": 3} for x in range(20)]
GONE = object()
WRONG = [GONE, None, "x", -1, 10**9, 1.5, {}, {"x": 1}, [10**9], ["x"], [[1]], [None]]

MAKERS: dict[str, Callable[[], SpaceSearcher]] = {
    "finite": lambda: FiniteSearch(SPACE, CONFIGS, seed=2),
    "genetic": lambda: GeneticSearch(SPACE, pool_size=6, cull_size=2, seed=2, initial_configs=CONFIGS[:2]),
    "random": lambda: RandomSearch(SPACE, seed=2),
}


def advance(searcher: SpaceSearcher, rounds: int) -> None:
    for _ in range(rounds):
        for candidate in searcher.ask(3):
            values = (candidate.config["x"], candidate.config["y"])
            searcher.tell(
                candidate.id, Outcome("wrong") if values[0] == 3 else Outcome("ok", values[0] * values[1])
            )


def half_way(name: str) -> dict[str, Any]:
    searcher = MAKERS[name]()
    advance(searcher, 5)
    searcher.ask(2)
    searcher.remeasure("1")
    state: dict[str, Any] = json.loads(json.dumps(searcher.get_state()))
    return state


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, and the first and last element of every list."""
    inside: list[Any] = []
    if isinstance(node, dict):
        inside = list(node)
    elif isinstance(node, list):
        inside = sorted({0, len(node) - 1}) if node else []
    for key in inside:
        yield (*path, key)
        yield from places(node[key], (*path, key))


def damaged(state: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(state)
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    if value is GONE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", MAKERS)
def test_damage_is_refused_or_of_no_consequence(name: str) -> None:
    state = half_way(name)
    refused = 0
    for path in places(state):
        for value in WRONG:
            searcher = MAKERS[name]()
            advance(searcher, 1)
            searcher._initial.extend(CONFIGS[:2][: state["initial"]])
            before = json.dumps(searcher.get_state())
            try:
                searcher.set_state(damaged(state, path, value))
            except StateError:
                refused += 1
                assert json.dumps(searcher.get_state()) == before, (path, value)
            advance(searcher, 3)
    assert refused > 100


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_missing_is_always_noticed(name: str) -> None:
    state = half_way(name)
    fields = [(key,) for key in state] + [("algorithm", key) for key in state["algorithm"]]
    for path in fields:
        with pytest.raises(StateError, match=path[-1]):
            MAKERS[name]().set_state(damaged(state, path, GONE))


def test_the_message_names_what_is_wrong() -> None:
    state = half_way("genetic")
    with pytest.raises(StateError, match="`ready` is 'x'; it must be a list"):
        MAKERS["genetic"]().set_state({**state, "ready": "x"})
    with pytest.raises(StateError, match="`seed` is 'x'; it must be a whole number of at least 0"):
        MAKERS["genetic"]().set_state({**state, "seed": "x"})
    with pytest.raises(StateError, match="`trials` twice"):
        MAKERS["genetic"]().set_state({**state, "trials": [*state["trials"], state["trials"][0]]})


def test_an_interruption_leaves_the_searcher_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = MAKERS["genetic"]()
    before = json.dumps(searcher.get_state())

    def interrupted(self: GeneticSearch, state: dict[str, Any]) -> None:
        self._blocks = []
        raise KeyboardInterrupt

    monkeypatch.setattr(GeneticSearch, "_load_algorithm_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searcher.set_state(half_way("genetic"))
    assert json.dumps(searcher.get_state()) == before


def test_a_state_that_was_loaded_is_not_shared() -> None:
    state = half_way("genetic")
    before = json.dumps(state)
    searcher = MAKERS["genetic"]()
    searcher.set_state(state)
    advance(searcher, 4)
    assert json.dumps(state) == before
