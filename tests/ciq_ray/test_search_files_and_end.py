"""`Search`: the files it writes, and what ends it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import searchers
from ciq_ray import Search
from ciq_ray.errors import ConfigurationError, SearchFailedError
from ciq_ray.search_spaces.base import choice
from ciq_ray.search_spaces.base import range as range_of

SPACE = {"x": range_of(0, 30), "y": choice(["a", "b", "c"])}


def named_objective(config: dict[str, Any]) -> float:
    return (config["x"] - 7) ** 2 + "abc".index(config["y"]) * 0.25


def without_a_name() -> Callable[[dict[str, Any]], float]:
    """It goes to worker processes by value, so that they need not import all that this module does."""

    def objective(config):
        return (config["x"] - 7) ** 2 + "abc".index(config["y"]) * 0.25

    return objective


objective = without_a_name()


def make(**fields: Any) -> Search:
    return Search(
        **{
            "objective_function": objective,
            "search_space": SPACE,
            "search_config": {"generations": 2, "pool_size": 8},
            "disable_progress_bar": True,
            "seed": 4,
            **fields,
        }
    )


def header(runs: Path, run: int = 1) -> dict[str, Any]:
    first, *_ = (runs / str(run) / "journal.jsonl").read_bytes().splitlines()
    return json.loads(first)


# -- files ----------------------------------------------------------------------------------------


def test_run_id_is_the_next_free_number(runs):
    (runs / "7").mkdir(parents=True)
    (runs / "notes").mkdir()
    search = make(max_evaluations=1)
    search.start(num_workers=1)
    assert search.run_id == 8
    assert header(runs, 8)["run_id"] == 8


def test_run_id_that_is_given(runs):
    make(run_id=42, max_evaluations=1).start(num_workers=1)
    assert header(runs, 42)["run_id"] == 42
    with pytest.raises(ConfigurationError, match=r"`run_id` is 42, which exists .*`Search.resume"):
        make(run_id=42, max_evaluations=1).start(num_workers=1)


def test_a_search_can_be_started_again(runs):
    search = make(max_evaluations=2)
    first, second = search.start(num_workers=1), search.start(num_workers=1)
    assert search.run_id == 2
    assert list(first.get_results()["params"]) == list(second.get_results()["params"])


def test_folder_of_the_runs_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path / "file" / "runs"))
    with pytest.raises(ConfigurationError, match="CIQ_RUNS_DIR"):
        make().start(num_workers=1)


def test_header_says_what_is_searched(runs):
    make(
        objective_function=named_objective,
        max_evaluations=3,
        time_budget_s=100,
        target=-1.0,
        constraints=["x > 2"],
    ).start(num_workers=1, task_timeout=9)
    found = header(runs)
    assert found["objective"]["qualname"] == "named_objective"
    assert Path(found["objective"]["script"]) == Path(__file__)
    assert found["search_config"]["generations"] == 2
    assert found["searcher"] == {"name": "genetic", "class": None}
    assert (found["seed"], found["num_workers"], found["task_timeout"]) == (4, 1, 9)
    assert (found["max_evaluations"], found["time_budget_s"], found["target"]) == (3, 100, -1.0)
    assert found["constraints"] == ["x > 2"]
    assert searchers.Space.from_dict(found["space"]["parts"][0]["space"]).size == 93


def keep(folder: Path) -> dict[str, bool]:
    """What is in the one cache folder of a run."""
    [cache] = folder.iterdir()
    return {entry.name: True for entry in cache.iterdir()}


def test_cache_folder_is_cleaned_up(tmp_path):
    make(cache_folder=tmp_path / "mine", max_evaluations=1).start(num_workers=1)
    assert list((tmp_path / "mine").iterdir()) == []


def test_cache_folder_is_kept_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CIQ_KEEP_CACHE", "1")
    make(cache_folder=tmp_path / "mine", max_evaluations=1).start(num_workers=1)
    assert set(keep(tmp_path / "mine")) == {"logs", "main_config.json", "search_space.json"}
    assert f"cache files kept: {tmp_path / 'mine'}" in capsys.readouterr().err


def test_cache_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("CIQ_KEEP_CACHE", "1")
    make(max_evaluations=1).start(num_workers=1)
    [cache] = (tmp_path / "cache" / "searches").iterdir()
    assert json.loads((cache / "main_config.json").read_text())["generations"] == 2


def test_debug_keeps_the_logs(tmp_path):
    def talkative(config):
        print("hello from the objective")
        return 1

    make(cache_folder=tmp_path / "mine", debug=True, max_evaluations=1, objective_function=talkative).start(1)
    assert set(keep(tmp_path / "mine")) == {"logs"}
    [cache] = (tmp_path / "mine").iterdir()
    assert "hello from the objective" in "".join(file.read_text() for file in (cache / "logs").iterdir())


def test_cache_is_cleaned_up_after_a_failure_too(tmp_path):
    with pytest.raises(SearchFailedError):
        make(cache_folder=tmp_path / "mine", objective_function=lambda config: None).start(num_workers=1)
    assert list((tmp_path / "mine").iterdir()) == []


def test_cache_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="`cache_folder`"):
        make(cache_folder=tmp_path / "file").start(num_workers=1)


def test_results_are_dumped_after_each_batch_and_never_half(tmp_path):
    path = tmp_path / "folder" / "results.csv"
    sizes: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if path.exists():
                sizes.append(len(pd.read_csv(path)))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def slow(config):
        import time

        time.sleep(0.02)
        return config["x"]

    try:
        result = make(
            dump_results=path, objective_function=slow, search_config={"generations": 5, "pool_size": 8}
        ).start(num_workers=2)
    finally:
        over.set()
        watcher.join()
    assert set(sizes) >= {8, 16, 24, 32}
    assert set(sizes) <= {8, 16, 24, 32, 40}
    assert sizes == sorted(sizes)
    assert len(pd.read_csv(path)) == 40 == len(result.get_results())
    assert [entry.name for entry in path.parent.iterdir()] == ["results.csv"]


def test_last_batch_is_dumped_although_it_is_not_full(tmp_path):
    make(dump_results=tmp_path / "r.csv", max_evaluations=11).start(num_workers=2)
    assert len(pd.read_csv(tmp_path / "r.csv")) == 11


def test_dump_that_cannot_be_written_does_not_stop_the_search(tmp_path, caplog):
    folder = tmp_path / "folder"

    def removes(config):
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        return config["x"]

    with caplog.at_level(logging.WARNING):
        result = make(dump_results=folder / "r.csv", objective_function=removes).start(num_workers=1)
    assert len(result.get_results()) == 16
    assert "cannot write the results" in caplog.text


def test_dump_to_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`dump_results`"):
        make(dump_results=tmp_path).start(num_workers=1)


# -- the end of a search --------------------------------------------------------------------------


def test_exit_on_failure(runs, records):
    def fails(config):
        raise ValueError(f"x was {config['x']}")

    search = make(objective_function=fails, search_config={"generations": 5, "pool_size": 8})
    with pytest.raises(
        RuntimeError, match=r"(?s)all \d+ candidates of the first generation failed .*x was"
    ) as caught:
        search.start(num_workers=1)
    assert isinstance(caught.value, SearchFailedError)
    assert "exit_on_failure=False" in str(caught.value)
    *_, last = records(runs / "1")
    assert last["reason"].startswith("SearchFailedError")
    assert 8 <= sum(record["t"] == "outcome" for record in records(runs / "1")) <= 10


def test_failures_of_a_later_generation_are_not_those_of_the_first():
    def fails(config):
        if config["x"] == 0:
            time.sleep(1)  # the second generation begins meanwhile
        raise ValueError

    search = make(objective_function=fails, initial_configs=[{"x": 0, "y": "a"}])
    with pytest.raises(SearchFailedError, match=r"all 8 candidates of the first .*\(8 run_error\)"):
        search.start(num_workers=2)


def test_exit_on_failure_of_a_search_shorter_than_a_generation():
    with pytest.raises(RuntimeError, match="all 3 candidates"):
        make(objective_function=lambda config: None, max_evaluations=3).start(num_workers=1)


def test_failures_may_be_expected(caplog):
    search = make(objective_function=lambda config: "*", exit_on_failure=False, max_evaluations=30)
    table = search.start(num_workers=2).get_results()
    assert list(table["status"]) == ["invalid_result"] * 30


def test_one_success_in_the_first_generation_is_enough():
    search = make(objective_function=lambda config: 1 if config["x"] % 4 == 0 else None, max_evaluations=12)
    assert len(search.start(num_workers=1).get_results()) == 12


@pytest.mark.parametrize(("limit", "expected"), [(5, 5), (1000, 16)])
def test_max_evaluations(limit, expected):
    assert len(make(max_evaluations=limit).start(num_workers=2).get_results()) == expected


def test_budget_of_a_searcher_without_generations(runs, records):
    assert len(make(searcher="random").start(num_workers=2).get_results()) == 16
    assert records(runs / "1")[-1]["reason"] == "max_evaluations"


def test_space_smaller_than_the_budget(runs, records):
    search = make(search_space={"x": range_of(0, 4)}, objective_function=lambda config: config["x"])
    assert sorted(search.start(num_workers=2).get_results()["score"]) == [0, 1, 2, 3, 4]
    assert records(runs / "1")[-1]["reason"] == "finished"


def test_time_budget(runs, records):
    def slow(config):
        import time

        time.sleep(0.1)
        return 1

    search = make(objective_function=slow, search_config={"generations": 99}, time_budget_s=0.5)
    started = time.monotonic()
    result = search.start(num_workers=1)
    assert time.monotonic() - started < 10
    assert 1 <= len(result.get_results()) <= 6
    assert records(runs / "1")[-1]["reason"] == "time_budget"


@pytest.mark.parametrize(("problem", "target", "x"), [("min", 3, 3), ("max", 27, 27)])
def test_target(problem, target, x, runs, records):
    config = {"generations": 9, "pool_size": 8, "problem_type": problem}
    search = make(objective_function=lambda c: c["x"], search_config=config, target=target)
    best = search.start(num_workers=1).get_best_result()["score"]
    assert best <= x if problem == "min" else best >= x
    assert records(runs / "1")[-1]["reason"] == "target"


def test_target_of_several_objectives(runs, records):
    search = make(
        objective_function=lambda c: (c["x"], "abc".index(c["y"])),
        search_config={"generations": 9, "pool_size": 8, "num_objectives": 2},
        target=(15, 1),
    )
    table = search.start(num_workers=1).get_results()
    assert records(runs / "1")[-1]["reason"] == "target"
    assert any(row["score_0"] <= 15 and row["score_1"] <= 1 for row in table.to_dict("records"))


def test_current_generation():
    search = make(search_config={"generations": 3, "pool_size": 8})
    search.start(num_workers=2)
    assert search.current_generation == 2
