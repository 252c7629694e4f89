"""Starts that fail, ends that fail, and what neither may leave behind or lose."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import Search, scratch
from ciq_ray.errors import BaselineError, CiqError, ConfigurationError
from ciq_ray.race import Plan
from ciq_ray.session import _whatever_happens
from ciq_ray.tracker import LoguruTracker
from ciq_ray.types import BaseTracker, DisabledTrackerConfig, LoguruTrackerConfig
from searchers import Range
from searchers.errors import SearcherError


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Worker processes need not import this module for it."""
    function.__module__ = "__main__"
    return function


def make(**fields: Any) -> Search:
    return Search(
        **{
            "objective_function": by_value(lambda config: 1.0 + abs(config["x"] - 7)),
            "search_space": {"x": Range(0, 40)},
            "search_config": {"generations": 2, "pool_size": 8},
            "disable_progress_bar": True,
            "seed": 4,
            **fields,
        }
    )


class Notes(BaseTracker):
    """Notes which of its methods are called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        super().__init__(DisabledTrackerConfig())

    def setup(self, **kwargs: Any) -> None:
        super().setup(**kwargs)
        self.calls.append("setup")

    def cleanup(self, **kwargs: Any) -> None:
        self.calls.append("cleanup")

    def search_starts(self, **kwargs: Any) -> None:
        self.calls.append("search_starts")

    def search_ends(self, **kwargs: Any) -> None:
        self.calls.append("search_ends")

    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        pass

    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        pass

    def pre_objective(self, config: Any, **kwargs: Any) -> None:
        pass

    def post_objective(self, scores: str, **kwargs: Any) -> None:
        pass


# -- the end --------------------------------------------------------------------------------------

FULL_DISK = '''
import os, resource, sys

from ciq_ray import Search
from ciq_ray.tracker import logging_exception
from ciq_ray.types import BaseTracker, DisabledTrackerConfig
from searchers import Range


class Fills(BaseTracker):
    """Lets no file grow beyond the journal once three evaluations are back."""

    calls = []
    count = 0

    def search_starts(self, **kwargs): pass
    def generation_starts(self, generation_number, **kwargs): pass
    def generation_ends(self, generation_number, **kwargs): pass
    def pre_objective(self, config, **kwargs): pass

    def post_objective(self, scores, **kwargs):
        self.count += 1
        if self.count == 3:
            size = os.path.getsize("runs/1/journal.jsonl")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def search_ends(self, **kwargs): self.calls.append("search_ends")
    def cleanup(self, **kwargs): self.calls.append("cleanup")


def objective(config):
    return config["x"]


if __name__ == "__main__":
    tracker = Fills(DisabledTrackerConfig())
    try:
        Search(
            objective_function=objective, search_space={"x": Range(0, 100000)}, tracker_config=tracker,
            search_config={"generations": 1000, "pool_size": 8}, dump_results="results.csv",
            disable_progress_bar=True,
        ).start(num_workers=1)
    finally:
        print(*tracker.calls)
'''


def test_a_journal_that_cannot_be_written_loses_nothing_else(scripts, tmp_path, records):
    process = scripts.start(scripts.write(FULL_DISK))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "JournalError: cannot write to the journal" in err
    assert out == "search_ends cleanup\n"
    back = [record for record in records(tmp_path / "runs" / "1") if record["t"] == "outcome"]
    rows = (tmp_path / "results.csv").read_text().splitlines()[1:]
    # an outcome that could not be written was not told
    assert len(rows) == len(back) >= 3
    assert list((tmp_path / "cache" / "searches").iterdir()) == []


def test_the_first_error_is_the_one_raised_and_every_step_is_taken(caplog):
    taken = []

    def fails(name: str) -> None:
        taken.append(name)
        raise KeyError(name)

    def ends(error: Exception | None) -> None:
        with ExitStack() as stack:
            _whatever_happens(stack, lambda: fails("b"))
            _whatever_happens(stack, lambda: fails("a"))
            if error is not None:
                raise error

    with pytest.raises(ValueError, match="the first"):
        ends(ValueError("the first"))
    assert taken == ["a", "b"]
    assert "KeyError: 'a'" in caplog.text
    with pytest.raises(KeyError, match="a"):
        ends(None)
    assert taken == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("fields", "ended"),
    [({}, "finished"), ({"max_evaluations": 3}, "max_evaluations"), ({"target": 1e9}, "target")],
)
def test_a_result_says_why_the_search_ended(fields, ended):
    assert make(**fields).start(num_workers=1).ended == ended


SLOW = """
import sys, time

from ciq_ray import Search
from searchers import Range


def objective(config):
    time.sleep(60)


if __name__ == "__main__":
    Search(
        objective_function=objective,
        search_space={"x": Range(0, 9)},
        search_config={"generations": 1, "pool_size": 8},
    ).start(num_workers=1)
"""


def test_the_second_interrupt_says_how_to_go_on(scripts, runs, wait_for):
    process = scripts.start(scripts.write(SLOW))
    journal = runs / "1" / "journal.jsonl"
    wait_for(lambda: journal.exists() and b'"t":"ask"' in journal.read_bytes(), "the search")
    process.send_signal(signal.SIGINT)
    said = ""
    while "press Ctrl-C again" not in said:
        said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert f"stopped at once; go on with: ciq resume {runs / '1'}\n" in err
    assert err.endswith("KeyboardInterrupt\n")
    assert process.returncode != 0


# -- starts that fail -----------------------------------------------------------------------------


def with_a_lock() -> Callable[[Any], float]:
    lock = threading.Lock()

    def locks(config: Any) -> float:
        with lock:
            return 1.0

    return by_value(locks)


FAILING = {
    "bad option": {"searcher_options": {"mutate_rat": 0.1}},
    "unpicklable objective": {"objective_function": with_a_lock()},
    "synchronous objective": {"worker_type": "async"},
}


@pytest.mark.parametrize("fields", FAILING.values(), ids=FAILING)
def test_a_failed_start_leaves_no_run(fields, runs, tmp_path):
    search = make(**fields)
    with pytest.raises(Exception, match=r"mutate_rat|with_a_lock|not asynchronous"):
        search.start(num_workers=1)
    assert list(runs.iterdir()) == []
    assert search.run_id is None
    assert list((tmp_path / "cache" / "searches").iterdir()) == []


def test_a_failed_start_leaves_no_run_of_a_number_that_was_given(runs):
    search = make(run_id=7, **FAILING["synchronous objective"])
    with pytest.raises(ConfigurationError):
        search.start(num_workers=1)
    assert (list(runs.iterdir()), search.run_id) == ([], 7)


def test_a_search_that_fails_after_it_began_keeps_its_run(runs):
    with pytest.raises(RuntimeError, match="all"):
        make(objective_function=by_value(lambda config: None)).start(num_workers=1)
    assert (runs / "1" / "journal.jsonl").exists()


def test_failed_starts_leave_no_file_and_no_thread_of_a_tracker(runs, tmp_path):
    (runs / "5").mkdir(parents=True)
    config = LoguruTrackerConfig(sink=str(tmp_path / "log"), enqueue=True)
    failing = [*FAILING.values(), {"run_id": 5}]

    def fail_all() -> None:
        for fields in failing:
            with pytest.raises((CiqError, SearcherError)):
                make(tracker_config=config, **fields).start(num_workers=1)

    fail_all()  # what is loaded and opened once and for all
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    fail_all()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_tracker_is_cleaned_up_once_and_set_up_again_for_another_start():
    tracker = Notes()
    make(tracker_config=tracker, max_evaluations=2).start(num_workers=1)
    once = ["setup", "search_starts", "search_ends", "cleanup"]
    assert tracker.calls == once
    with pytest.raises(ConfigurationError):
        make(tracker_config=tracker, **FAILING["synchronous objective"]).start(num_workers=1)
    assert tracker.calls == [*once, "setup", "cleanup"]
    make(tracker_config=tracker, max_evaluations=2).start(num_workers=1)
    assert tracker.calls == [*once, "setup", "cleanup", *once]


def test_a_tracker_of_two_searches_logs_both(tmp_path):
    tracker = LoguruTracker(LoguruTrackerConfig(sink=str(tmp_path / "log"), enqueue=False))
    for _ in range(2):
        make(tracker_config=tracker, max_evaluations=1).start(num_workers=1)
    assert (tmp_path / "log").read_text().count("search starts") == 2


def test_folders_with_strange_numbers_are_no_runs(runs):
    (runs / "²").mkdir(parents=True)
    (runs / "٣").mkdir()
    search = make(max_evaluations=1)
    search.start(num_workers=1)
    assert search.run_id == 1


# -- the race -------------------------------------------------------------------------------------

SMALL = Plan(finalists=2, pick_blocks=1, verdict_blocks=6, windows=1)


def counted(path: Path, score: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def counting(config: dict[str, Any]) -> Any:
        with open(path, "a") as log:
            log.write(json.dumps(config) + "\n")
        return score(config)

    return by_value(counting)


@pytest.mark.parametrize(("baseline", "kind"), [(30, "win"), (7, "loss")])
def test_a_decided_race_is_there_after_resuming(baseline, kind, runs, tmp_path):
    called = counted(tmp_path / "calls", by_value(lambda config: 1.0 + abs(config["x"] - 7)))
    result = make(objective_function=called, final_race=SMALL, initial_configs=[{"x": baseline}]).start(1)
    assert result.verdict.kind == kind
    before = (tmp_path / "calls").read_text()
    again = Search.resume(runs / "1", called, disable_progress_bar=True).start()
    assert (tmp_path / "calls").read_text() == before
    assert again.verdict == result.verdict
    assert again.race == replace(result.race, seconds=0.0)
    assert again.race.chosen.id == ("baseline" if kind == "loss" else again.race.winner.id)


@pytest.mark.parametrize(
    ("score", "error", "words"),
    [
        (
            by_value(lambda config: config["x"] + 1.0),
            BaselineError,
            r"nothing set, \{\}.*KeyError.*initial",
        ),
        (by_value(lambda config: 0.0), ConfigurationError, r"\{\}, and its score is 0.0; .*`default`"),
        (by_value(lambda config: -2), ConfigurationError, r"score is -2.0; "),
    ],
)
def test_a_baseline_that_cannot_be_raced_is_refused_first(score, error, words, runs, tmp_path):
    search = make(objective_function=counted(tmp_path / "calls", score), final_race=True)
    with pytest.raises(error, match=f"(?s){words}"):
        search.start(num_workers=1)
    assert (tmp_path / "calls").read_text() == "{}\n"
    assert list(runs.iterdir()) == []


# -- folders of drivers that were killed ----------------------------------------------------------


def test_the_next_start_removes_what_a_killed_driver_has_left(scripts, runs, tmp_path, wait_for):
    process = scripts.start(scripts.write(SLOW))
    base = tmp_path / "cache" / "searches"
    journal = runs / "1" / "journal.jsonl"
    wait_for(lambda: journal.exists() and b'"t":"ask"' in journal.read_bytes(), "the search")
    [of_another] = base.iterdir()
    make(max_evaluations=1).start(num_workers=1)
    assert list(base.iterdir()) == [of_another], "its owner lives"
    assert (of_another / "search_space.json").exists()
    process.kill()
    process.wait()
    assert of_another.exists()
    make(max_evaluations=1).start(num_workers=1)
    assert list(base.iterdir()) == []


def test_only_orphans_are_removed(tmp_path):
    def names() -> set[str]:
        return {entry.name for entry in tmp_path.iterdir()}

    (tmp_path / "run-1-without-a-lock").mkdir()
    (tmp_path / "of-somebody").mkdir()
    elsewhere = tmp_path / "run-2-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.lock").write_text("another machine")
    there = names()
    with scratch.owned(tmp_path, "3", kept=False) as mine, scratch.owned(tmp_path, "4", kept=True) as kept:
        scratch.remove_orphans(tmp_path)
        assert names() == there | {mine.name, kept.name}
    scratch.remove_orphans(tmp_path)
    assert names() == there | {kept.name}
