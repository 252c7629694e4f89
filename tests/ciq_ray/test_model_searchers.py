"""Searches with `auto` and `bayesian`: interrupted, resumed, replayed from the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import searchers
from ciq_ray import Search
from ciq_ray.search_spaces.base import choice
from ciq_ray.search_spaces.base import range as range_of
from searchers import Outcome, Space

SPACE = {"x": range_of(0, 30), "y": range_of(0, 30), "mode": choice(["a", "b"])}


def by_value() -> Any:
    """An objective that goes to worker processes by value: they need not import this module."""
    return lambda c: (c["x"] - 20) ** 2 + (c["y"] - 7) ** 2 + 5 * (c["mode"] == "b")


@pytest.mark.parametrize("name", ["auto", "bayesian"])
def test_interrupted_resumed_and_replayed(name: str, runs: Path, records: Any) -> None:
    objective = by_value()
    Search(
        objective_function=objective,
        search_space=SPACE,
        search_config={"generations": 4},
        searcher=name,
        max_evaluations=25,
        disable_progress_bar=True,
        seed=4,
    ).start(num_workers=2)
    resumed = Search.resume(runs / "1", objective, max_evaluations=60, disable_progress_bar=True)
    result = resumed.start(num_workers=2)
    assert len(result.get_results()) == 60
    assert result.get_best_result()["score"] < 10

    searcher = searchers.create(name, Space(SPACE), seed=4)
    asked = 0
    for record in records(runs / "1"):
        if record["t"] == "ask":
            found = [[c.id, list(c.row)] for c in searcher.ask(record["n"])]
            assert found == [[c["id"], c["row"]] for c in record["candidates"]]
            asked += len(found)
        elif record["t"] == "outcome":
            searcher.tell(record["id"], Outcome.from_dict(record["outcome"]))
    assert asked >= 60
