"""Ray Tune's results as a `SearchResult`, and the other way round."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray import tune

from ciq_ray import SearchResult
from ciq_ray.errors import ConfigurationError, ResultError
from ciq_ray.tune import run_config, to_result_grid, to_search_result, tune_config
from searchers import Choice, Range, Space, StateError, create
from searchers.tune_journal import read_results


def table(**columns: list[Any]) -> SearchResult:
    count = len(columns["params"])
    return SearchResult.from_dataframe(pd.DataFrame({"generation": [0] * count, **columns}), "min", False)


MIXED = {
    "params": [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}, {"x": 3, "y": "a"}],
    "score": [2.0, "*", 1.0],
    "status": ["ok", "compile_error", "ok"],
    "message": ["", "no\nregisters", ""],
}


def test_a_search_as_an_experiment_and_back(tmp_path: Path) -> None:
    result = table(**MIXED)
    grid = to_result_grid(result, tmp_path / "made", metric="ms")
    assert len(grid) == 3
    assert grid.num_errors == 0
    best = grid.get_best_result()
    assert (best.config, best.metrics["ms"]) == ({"x": 3, "y": "a"}, 1.0)
    assert grid[1].metrics["ciq_status"] == "compile_error"
    assert math.isnan(grid[1].metrics["ms"])
    frame = grid.get_dataframe()
    assert frame["config/x"].tolist() == [1, 2, 3]
    assert frame["ciq_message"].tolist() == ["", "no\nregisters", ""]

    again = to_search_result(grid)
    assert again.problem_type == result.problem_type
    columns = ["score", "params", "status", "message"]
    pd.testing.assert_frame_equal(again.get_results()[columns], result.get_results()[columns])


def test_it_is_an_experiments_folder(tmp_path: Path) -> None:
    to_result_grid(table(**MIXED), tmp_path / "made", metric="ms")
    analysis = tune.ExperimentAnalysis(str(tmp_path / "made"))
    assert analysis.get_best_config("ms", "min") == {"x": 3, "y": "a"}
    space = Space({"x": Range(0, 9), "y": Choice(["a", "b"])})
    searcher = create("random", space, metric="ms", mode="min", seed=0)
    searcher.add_evaluated_trials(analysis, "ms")
    assert searcher.best is not None
    assert searcher.best[1].values == (1.0,)
    assert searcher.n_proposed == 3


def test_several_scores_texts_and_lists(tmp_path: Path) -> None:
    result = table(params=["-O1", "-O2"], score_0=[1.0, 2.0], score_1=[4.0, 3.0])
    grid = to_result_grid(result, tmp_path / "texts")
    assert [one.config for one in grid] == [{"config": "-O1"}, {"config": "-O2"}]
    again = to_search_result(grid, metric=["score_0", "score_1"], mode="min")
    assert again.get_results()["params"].tolist() == ["-O1", "-O2"]
    assert [row["score"] for row in again.pareto_front()] == [[1.0, 4.0], [2.0, 3.0]]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    result = table(**MIXED)
    with pytest.raises(ConfigurationError, match="metric"):
        to_result_grid(result, tmp_path / "a", metric=["a", "b"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ResultError, match="not empty"):
        to_result_grid(result, tmp_path / "full")
    with pytest.raises(ResultError, match="cannot be written"):
        to_result_grid(result, tmp_path / "full" / "file")
    grid = to_result_grid(result, tmp_path / "b")
    for options in ({"metric": ["a", "a"], "mode": "min"}, {"metric": "score", "mode": "best"}):
        with pytest.raises(ConfigurationError, match=r"metric|mode"):
            to_search_result(grid, **options)
    with pytest.raises(StateError, match="journal"):
        to_search_result(grid, journal=tmp_path / "missing")


def test_a_journal_knows_what_ray_tune_forgot(tmp_path: Path) -> None:
    searcher = create("random", Space({"x": Range(0, 9)}), metric="score", mode="min", seed=0)
    searcher.keep_journal(tmp_path / "journal")
    for number in range(3):
        config = searcher.suggest(f"t{number}")
        assert isinstance(config, dict)
        searcher.on_trial_complete(f"t{number}", {"score": float(config["x"])})
    with (tmp_path / "journal").open("a") as journal:
        journal.write('{"torn')
    known = read_results(tmp_path / "journal")
    assert [trial for trial, _, _ in known] == ["t0", "t1", "t2"]
    grid = to_result_grid(table(**MIXED), tmp_path / "made")
    result = to_search_result(grid, journal=tmp_path / "journal")
    assert result.get_results()["param_id"].tolist() == ["t0", "t1", "t2", "00000", "00001", "00002"]
    assert result.get_results()["score"][0] == known[0][1]["x"]
    lines = (tmp_path / "journal").read_text().splitlines()
    for broken in ('{"version": 99, "space": ""}', "[]", "no"):
        (tmp_path / "other").write_text("\n".join([broken, *lines[1:3], ""]))
        with pytest.raises(StateError, match="line 1"):
            read_results(tmp_path / "other")


def plain(config: dict[str, Any]) -> None:
    if config["x"] == 1:
        raise ValueError("one")
    if config["x"] == 2:
        tune.report({"time": math.nan, "ciq_status": "wrong", "ciq_message": "off"})
        return
    for step in range(3):
        tune.report({"time": float(config["x"] + 10 - step)})


@pytest.mark.usefixtures("ray_head")
@pytest.mark.timeout(300)
def test_trials_of_any_function(tmp_path: Path) -> None:
    searcher = create("random", seed=0)
    tuner = tune.Tuner(
        plain,
        param_space={"x": tune.randint(0, 4)},
        tune_config=tune_config(searcher, max_concurrent_trials=1, metric="time", mode="min"),
        run_config=tune.RunConfig(name="plain", storage_path=str(tmp_path), verbose=0),
    )
    rows = {row["params"]["x"]: row for _, row in to_search_result(tuner.fit()).get_results().iterrows()}
    assert {x: row["status"] for x, row in rows.items()} == {0: "ok", 1: "run_error", 2: "wrong", 3: "ok"}
    assert (rows[0]["score"], rows[3]["score"]) == (8.0, 11.0)
    assert "ValueError: one" in rows[1]["message"]
    assert rows[2]["message"] == "off"
    assert run_config("a").name == "a"
    assert json.dumps(rows[0]["params"]) == '{"x": 0}'
