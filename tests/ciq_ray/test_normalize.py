"""Scores that are divided by those of a baseline."""

from __future__ import annotations

from typing import Any

import pytest

import searchers
from ciq_ray import Search
from ciq_ray.errors import BaselineError
from ciq_ray.search_spaces.base import range as range_of
from ciq_ray.search_spaces.compilers import PtxasSearchSpace


def make(**fields: Any) -> Search:
    return Search(
        **{
            "search_space": {"x": range_of(1, 30)},
            "search_config": {"generations": 2, "pool_size": 8, "normalize": True},
            "disable_progress_bar": True,
            "seed": 4,
            **fields,
        }
    )


def test_scores_are_divided_by_those_of_the_default_configuration(runs, records):
    space = searchers.Space({"x": searchers.Range(1, 30)}, default={"x": 8})
    search = make(
        search_space=space,
        objective_function=lambda config: config["x"] * 3,
    )
    result = search.start(num_workers=2)
    assert result.is_normalized
    for row in result.get_results().to_dict("records"):
        assert row["score"] == row["params"]["x"] * 3
        assert row["norm_score"] == pytest.approx(row["params"]["x"] / 8)
    assert all(record["baseline"] == [24.0] for record in records(runs / "1") if record["t"] == "outcome")


def test_baseline_without_a_default_is_the_empty_configuration():
    def with_default(config):
        return config.get("x", 5)

    table = make(objective_function=with_default).start(num_workers=1).get_results()
    assert all(row["norm_score"] == row["params"]["x"] / 5 for row in table.to_dict("records"))


def test_empty_configuration_of_a_list_of_spaces():
    def of_parts(parts):
        return 4 if parts == [{}, ""] else parts[0]["x"] + 1

    search = make(
        search_space=[{"x": range_of(1, 30)}, PtxasSearchSpace(variant="registers")],
        objective_function=of_parts,
        max_evaluations=8,
    )
    assert search.space.default is None, "one of the parts has none"
    table = search.start(num_workers=1).get_results()
    assert all(row["norm_score"] == row["score"] / 4 for row in table.to_dict("records"))


def test_failing_baseline_ends_the_search(runs, records):
    with pytest.raises(BaselineError, match=r"baseline configuration failed .*KeyError"):
        make(objective_function=lambda config: config["x"]).start(num_workers=1)
    assert records(runs / "1")[-1]["reason"].startswith("BaselineError")


def test_baseline_is_measured_again_for_each_generation(tmp_path):
    log = tmp_path / "baselines"

    def drifting(config):
        import os

        if config:
            return 6.0
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, b".")
        os.close(descriptor)
        return float(os.path.getsize(log))

    search = make(
        objective_function=drifting, search_config={"generations": 3, "pool_size": 8, "normalize": True}
    )
    table = search.start(num_workers=1).get_results()
    assert {generation: set(group) for generation, group in table.groupby("generation")["norm_score"]} == {
        0: {6.0},
        1: {3.0},
        2: {2.0},
    }
