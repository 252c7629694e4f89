"""Going on with a run: where its parts come from, and what is refused."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import searchers
from ciq_ray import Search, origin
from ciq_ray.errors import ConfigurationError, JournalError
from ciq_ray.journal import Journal
from ciq_ray.search_spaces.base import choice
from ciq_ray.search_spaces.base import range as range_of
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from ciq_ray.searching import options_record
from ciq_ray.types import Score, Worker

SPACE = {"x": range_of(0, 30), "y": choice(["a", "b"])}


def by_value() -> Any:
    """Objectives that go to worker processes by value: they need not import this module."""
    return lambda config: config["x"], lambda config: 1 / 0


score, never = by_value()


def make(**fields: Any) -> Search:
    return Search(
        **{
            "objective_function": score,
            "search_space": SPACE,
            "search_config": {"generations": 2, "pool_size": 8},
            "disable_progress_bar": True,
            "seed": 4,
            **fields,
        }
    )


def resume(folder: Any, objective: Any = score, **fields: Any) -> Search:
    return Search.resume(folder, objective, **{"disable_progress_bar": True, **fields})


@pytest.fixture
def run(runs: Path) -> Path:
    """A run of 16 evaluations that was stopped after 5."""
    make(max_evaluations=5).start(num_workers=1)
    return runs / "1"


def params(result: Any) -> list[Any]:
    return list(result.get_results()["params"])


def test_a_stopped_run_goes_on_to_where_it_would_have_ended(run):
    whole = params(make().start(num_workers=1))
    result = resume(run, max_evaluations=99).start()
    assert params(result) == whole
    assert list(result.get_results()["generation"]) == [0] * 8 + [1] * 8


def test_a_finished_run_returns_at_once_and_evaluates_nothing(runs, records):
    first = make().start(num_workers=1)
    before = len(records(runs / "1"))
    started = time.monotonic()
    result = resume(runs / "1", never).start()
    assert time.monotonic() - started < 5
    assert params(result) == params(first)
    assert [record["t"] for record in records(runs / "1")[before:]] == ["resumed", "end"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"max_evaluations": 9}, 9),
        ({"max_evaluations": 5}, 5),
        ({"max_evaluations": 99}, 16),
        ({"max_evaluations": 99, "search_config": {"generations": 4, "pool_size": 8}}, 32),
        ({"max_evaluations": None}, 16),
    ],
)
def test_more_budget(run, more, expected):
    table = resume(run, **more).start().get_results()
    assert sorted(table["param_id"]) == list(range(expected))
    assert len({json.dumps(p) for p in table["params"]}) == expected


def test_workers_and_limits_are_those_of_before(runs, records):
    make(max_evaluations=2).start(num_workers=1, task_timeout=0.4)

    def slow(config):
        import time

        time.sleep(20)

    table = resume(runs / "1", slow, max_evaluations=3).start().get_results()
    assert list(table["status"]) == ["ok", "ok", "run_timeout"]


def test_a_run_can_be_named_in_three_ways(run, monkeypatch):
    for name in (run, run / "journal.jsonl", "1"):
        assert len(resume(name).start().get_results()) == 5
    monkeypatch.chdir(run.parent.parent)
    assert len(resume("runs/1").start().get_results()) == 5


@pytest.mark.parametrize("name", ["nowhere", "2", "/"])
def test_a_run_that_is_not_there(run, name):
    with pytest.raises(JournalError, match=f"there is no run '{name}'"):
        resume(name)


def test_fields_come_from_the_journal(runs):
    made = make(
        search_config={"generations": 3, "pool_size": 9, "problem_type": "max"},
        constraints=["x > 3"],
        initial_configs=[{"x": 5, "y": "b"}],
        max_evaluations=2,
        time_budget_s=50,
        target=1e6,
        exit_on_failure=False,
        searcher="genetic",
        searcher_options={"generational": True},
        worker_type="isolated",
    )
    made.start(num_workers=1)
    again = resume(runs / "1")
    for name in (
        "search_config",
        "constraints",
        "initial_configs",
        "max_evaluations",
        "time_budget_s",
        "target",
        "exit_on_failure",
        "searcher",
        "searcher_options",
        "worker_type",
        "seed",
        "run_id",
    ):
        assert getattr(again, name) == getattr(made, name), name
    assert again.space.fingerprint == made.space.fingerprint


def test_seed_that_was_drawn_is_kept(runs):
    make(seed=None, max_evaluations=3).start(num_workers=1)
    assert len(resume(runs / "1", max_evaluations=8).start().get_results()) == 8


def test_lists_files_and_providers_as_spaces(runs, tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(searchers.Space({"z": searchers.Boolean()}).to_dict()))

    def length(parts):
        return len(parts)

    space = [{"x": range_of(0, 9)}, path, PtxasSearchSpace()]
    make(search_space=space, objective_function=length, max_evaluations=3).start(num_workers=1)
    table = resume(runs / "1", length, max_evaluations=6).start().get_results()
    assert len(table) == 6
    assert all(isinstance(p[2], str) for p in table["params"])


def test_changed_space_is_refused(run):
    changed = {"x": range_of(0, 31), "y": choice(["a", "b"])}
    with pytest.raises(JournalError, match="the search space is not the one"):
        resume(run, search_space=changed).start()
    assert len(resume(run, search_space=SPACE).start().get_results()) == 5


def test_space_file_that_changed_is_refused(runs, tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(searchers.Space({"x": searchers.Range(0, 9)}).to_dict()))
    make(search_space=path, max_evaluations=2).start(num_workers=1)
    path.write_text(json.dumps(searchers.Space({"x": searchers.Range(0, 8)}).to_dict()))
    with pytest.raises(JournalError, match="the search space is not the one"):
        resume(runs / "1").start()


def test_changed_options_are_refused(runs):
    make(max_evaluations=14).start(num_workers=1)  # the first 8 are random, whatever the options
    with pytest.raises(JournalError, match="does not propose what"):
        resume(runs / "1", searcher_options={"mutate_rate": 0.99}).start()


def test_code_in_a_space_has_to_be_given_again(runs):
    def allowed(config: dict[str, Any]) -> bool:
        return config["x"] % 2 == 0

    make(constraints=[allowed], max_evaluations=2).start(num_workers=1)
    with pytest.raises(JournalError, match="give them as `constraints`"):
        resume(runs / "1")
    again = resume(runs / "1", constraints=[allowed], max_evaluations=4)
    assert all(p["x"] % 2 == 0 for p in params(again.start()))


@pytest.mark.filterwarnings("ignore:`params` holds values that JSON has no form for")
def test_objects_in_a_space_have_to_be_given_again(runs):
    space = {"x": searchers.Choice([complex(1, 2), complex(3, 4)])}
    make(search_space=space, objective_function=lambda config: config["x"].real, max_evaluations=1).start(1)
    with pytest.raises(JournalError, match="give it as `search_space`"):
        resume(runs / "1")
    again = resume(runs / "1", lambda config: config["x"].real, search_space=space, max_evaluations=2)
    assert sorted(again.start().get_results()["score"]) == [1.0, 3.0]


class Backwards(searchers.RandomSearch):
    """A searcher of one's own."""


def test_searcher_of_ones_own_has_to_be_given_again(runs):
    make(searcher=Backwards, searcher_options={"count": 9}, max_evaluations=4).start(num_workers=1)
    with pytest.raises(JournalError, match=r"searcher of yours, .*Backwards; give it as `searcher`"):
        resume(runs / "1")
    assert len(resume(runs / "1", searcher=Backwards, max_evaluations=99).start().get_results()) == 9


def test_searcher_given_as_an_instance(runs):
    make(searcher=Backwards(count=9, seed=7), max_evaluations=4).start(num_workers=1)
    again = resume(runs / "1", searcher=Backwards(count=9, seed=7), max_evaluations=99)
    assert len(again.start().get_results()) == 9
    with pytest.raises(JournalError, match="does not propose what"):
        resume(runs / "1", searcher=Backwards(count=9, seed=8)).start()


class Plain(Worker):
    def run(self, *, function, params_pool, params_ids, num_function_returns=1, num_workers=1, **kwargs):
        return [
            Score(score=function(p), params=p, param_id=i, num_objectives=num_function_returns)
            for p, i in zip(params_pool, params_ids, strict=True)
        ]

    @classmethod
    def create(cls, cache_folder, normalize, tracker):
        return cls(cache_folder, normalize, tracker)


def test_worker_of_ones_own_has_to_be_given_again(runs):
    make(worker_type=Plain, max_evaluations=4).start(num_workers=1)
    with pytest.raises(JournalError, match="give its class as `worker_type`"):
        resume(runs / "1")
    assert len(resume(runs / "1", worker_type=Plain, max_evaluations=8).start().get_results()) == 8


def test_unknown_field_is_refused(run):
    with pytest.raises(ConfigurationError, match="Did you mean `max_evaluations`"):
        resume(run, max_evaluation=8)


# -- damage ---------------------------------------------------------------------------------------


def test_torn_last_line(run, caplog):
    with (run / "journal.jsonl").open("ab") as file:
        file.write(b'{"t":"outcome","id":"5","outc')
    with caplog.at_level(logging.WARNING):
        result = resume(run, max_evaluations=8).start()
    assert len(result.get_results()) == 8
    assert "was torn; its 29 bytes are cut off" in caplog.text


@pytest.mark.parametrize("damage", [b"\0" * 40, b"garbage", b'{"t":"ask","n":1,"candidates":3}'])
def test_damaged_line_in_the_middle(run, damage):
    lines = (run / "journal.jsonl").read_bytes().splitlines()
    lines.insert(3, damage)
    damaged = b"\n".join(lines) + b"\n"
    (run / "journal.jsonl").write_bytes(damaged)
    with pytest.raises(JournalError, match=r"line 4 .* cannot be read|a record that does not fit"):
        resume(run).start()
    assert (run / "journal.jsonl").read_bytes() == damaged


@pytest.mark.parametrize("lost", ["searcher", "search_config", "space", "objective", "seed", "constraints"])
def test_header_that_lacks_something(run, lost):
    first, *rest = (run / "journal.jsonl").read_bytes().splitlines()
    header = json.loads(first)
    del header[lost]
    (run / "journal.jsonl").write_bytes(b"\n".join([json.dumps(header).encode(), *rest]) + b"\n")
    with pytest.raises((JournalError, ConfigurationError)):
        Search.resume(run).start()


def change_header(run: Path, **fields: Any) -> None:
    first, *rest = (run / "journal.jsonl").read_bytes().splitlines()
    header = {**json.loads(first), **fields}
    (run / "journal.jsonl").write_bytes(b"\n".join([json.dumps(header).encode(), *rest]) + b"\n")


@pytest.mark.parametrize("rows", ["x", [["x"]], [[1]], [[1.5, None]], [[2**40, 0]], 5])
def test_header_whose_initial_rows_are_damaged(run, rows):
    change_header(run, initial_rows=rows)
    with pytest.raises(JournalError, match=r"the header of .* is damaged"):
        resume(run)


def test_options_that_a_journal_cannot_hold_have_to_be_given_again(run):
    change_header(run, searcher_options=None)
    with pytest.raises(JournalError, match="give them as `searcher_options`"):
        resume(run)
    assert resume(run, searcher_options={}).searcher_options == {}


@pytest.mark.parametrize(
    "options", [{}, {"mutate_rate": 0.1, "pool_size": 6}, {"a": [1, "x", None, True], "b": {"c": [1.5]}}]
)
def test_options_that_json_gives_back_are_kept(options):
    assert options_record(options) == options


@pytest.mark.parametrize(
    "options",
    [
        {"a": (1, 2)},
        {"a": [(1,)]},
        {"a": {1: "x"}},
        {"a": np.float64(1.5)},
        {"a": float("nan")},
        {"a": Path("x")},
        {"a": len},
        {"a": {"x"}},
    ],
)
def test_options_that_json_changes_are_not_kept(options):
    assert options_record(options) is None


def test_a_run_that_is_still_going_on(run):
    journal = Journal.reopen(run)
    with pytest.raises(JournalError, match="another process is writing"):
        resume(run).start()
    journal.close()
    assert len(resume(run).start().get_results()) == 5


# -- objectives from scripts ----------------------------------------------------------------------

SCRIPT = """
import sys
from ciq_ray import Search
from ciq_ray.search_spaces.base import range

def objective(config):
    return config["x"]

class Holder:
    @staticmethod
    def inner(config):
        return config["x"]

value = 5

def main():
    Search(
        objective_function={objective},
        search_space={{"x": range(0, 9)}},
        search_config={{"generations": 1, "pool_size": 8}},
        max_evaluations=3,
        seed=1,
    ).start(num_workers=1)

{guard}
"""
GUARD = 'if __name__ == "__main__":\n    main()\n'


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A folder with a script that has searched, to be copied: a process for each test would take long."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "script.py").write_text(SCRIPT.format(objective="objective", guard=GUARD))
    environment = {**os.environ, "CIQ_RUNS_DIR": "runs", "CIQ_CACHE_DIR": "cache"}
    subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, check=True)
    return folder


@pytest.fixture
def script(template, tmp_path, forget_script) -> Path:
    """A script of one's own that has searched, as run 1."""
    path = tmp_path / "script.py"
    shutil.copy(template / "script.py", path)
    shutil.copytree(template / "runs", tmp_path / "runs")
    journal = tmp_path / "runs" / "1" / "journal.jsonl"
    text = journal.read_text()
    assert str(template / "script.py") in text
    journal.write_text(text.replace(str(template / "script.py"), str(path)))
    return path


@pytest.fixture
def forget_script(tmp_path):
    """What importing a script leaves in this process is taken back."""
    yield
    sys.modules.pop(origin.SCRIPT_MODULE, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


@pytest.fixture
def script_run(scripts, forget_script):
    """Runs a script that searches; its path."""

    def run(objective: str = "objective", guard: str = GUARD) -> Path:
        path = scripts.write(SCRIPT.format(objective=objective, guard=guard))
        scripts.run(path)
        return path

    return run


def test_objective_is_imported_from_its_script(script, runs):
    again = Search.resume(runs / "1", max_evaluations=6, disable_progress_bar=True)
    assert len(again.start().get_results()) == 6


def test_objective_inside_a_class(script_run, runs):
    script_run("Holder.inner")
    again = Search.resume(runs / "1", max_evaluations=6, disable_progress_bar=True)
    assert len(again.start().get_results()) == 6


def test_script_that_changed_is_refused_without_force(script, runs):
    script.write_text(script.read_text() + "\n# a remark\n")
    with pytest.raises(JournalError, match=r"script.py' has changed since the run began.*Use --force"):
        Search.resume(runs / "1")
    again = Search.resume(runs / "1", force=True, max_evaluations=6, disable_progress_bar=True)
    assert len(again.start().get_results()) == 6


def test_script_that_is_gone(script, runs):
    script.unlink()
    with pytest.raises(JournalError, match=r"is not there any more; call `Search.resume\(path"):
        Search.resume(runs / "1")


def test_script_without_a_main_guard(script_run, runs):
    script_run(guard="main()\n")
    with pytest.raises(JournalError, match="starts a search when it is imported; put that under"):
        Search.resume(runs / "1")
    assert sorted(entry.name for entry in runs.iterdir()) == ["1"], "and no search was started"


def test_objective_under_the_main_guard(script_run, runs):
    script_run("hidden", 'if __name__ == "__main__":\n    hidden = lambda c: c["x"]\n    main()\n')
    with pytest.raises(JournalError, match="is not a plain function of a module"):
        Search.resume(runs / "1")
    script_run("named", f'if __name__ == "__main__":\n    def named(c):\n        return 1\n{GUARD[27:]}')
    with pytest.raises(JournalError, match="has no 'named' at module level"):
        Search.resume(runs / "2")


@pytest.mark.parametrize("objective", ["lambda c: c['x']", "__import__('functools').partial(objective)"])
def test_objective_without_a_name(script_run, runs, objective):
    script_run(objective)
    with pytest.raises(JournalError, match="is not a plain function of a module"):
        Search.resume(runs / "1")
    again = Search.resume(runs / "1", score, max_evaluations=6, disable_progress_bar=True)
    assert len(again.start().get_results()) == 6


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("1 / 0\n", "failed: ZeroDivisionError"),
        ("(\n", "failed: SyntaxError"),
        ("del objective\n", "has no 'objective' at module level"),
        ("objective = 5\n", "'objective' .* is not a function any more"),
        ("raise SystemExit(3)\n", "failed: SystemExit"),
    ],
)
def test_script_that_cannot_be_imported_any_more(script, runs, addition, message):
    script.write_text(script.read_text().replace(GUARD, addition))
    with pytest.raises(JournalError, match=message):
        Search.resume(runs / "1", force=True)


def test_objective_of_an_importable_module(tmp_path, monkeypatch, runs):
    (tmp_path / "kernels_of_mine.py").write_text("def objective(config):\n    return config['x']\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("kernels_of_mine")
    make(objective_function=module.objective, max_evaluations=2).start(num_workers=1)
    del sys.modules["kernels_of_mine"]
    again = Search.resume(runs / "1", max_evaluations=4, disable_progress_bar=True)
    assert again.objective_function.__module__ == "kernels_of_mine"
    assert len(again.start().get_results()) == 4
    del sys.modules["kernels_of_mine"]


def test_description_of_an_objective():
    described = origin.describe(make)
    assert described["qualname"] == "make"
    assert described["importable"] is True
    assert described["script"] == __file__
    assert len(described["source_sha256"]) == 64
    assert origin.load(described) is make
    assert origin.describe(score)["importable"] is False
    assert origin.describe(Plain.run)["qualname"] == "Plain.run"
    assert origin.describe(len)["source_sha256"] is None


class Kernel:
    def run(self, config: Any = None) -> float:
        return float(config["x"])


def test_a_bound_method_is_not_taken_for_its_function() -> None:
    assert not origin.describe(Kernel().run)["importable"]
    assert origin.describe(Kernel.run)["importable"]
    assert not origin.describe(functools.partial(Kernel.run, Kernel()))["importable"]
    assert not origin.describe(lambda config: 0.0)["importable"]
    assert origin.describe(decorated)["importable"]


def wrapping(function: Any) -> Any:
    @functools.wraps(function)
    def wrapped(config: Any) -> Any:
        return function(config)

    return wrapped


@wrapping
def decorated(config: Any) -> float:
    return float(config["x"])


THREADS = """
import sys
from threadpoolctl import threadpool_info
import searchers
from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import range


class Watched(searchers.BayesianSearch):
    threads = set()

    def _propose_by_model(self, n):
        Watched.threads |= {library["num_threads"] for library in threadpool_info()}
        return super()._propose_by_model(n)


def objective(config):
    return (config["x"] - 37) ** 2 + config["y"]


if __name__ == "__main__":
    fields = {"searcher": Watched, "max_evaluations": int(sys.argv[1]), "disable_progress_bar": True}
    if len(sys.argv) > 2:
        search = Search.resume(sys.argv[2], objective, **fields)
    else:
        search = Search(
            objective_function=objective,
            search_space={"x": range(0, 60), "y": range(0, 60)},
            search_config=SearchConfiguration(generations=10, pool_size=8),
            seed=3,
            **fields,
        )
    search.start(num_workers=1)
    assert Watched.threads == {1}, Watched.threads
"""


def test_a_model_has_one_thread_from_the_first_proposal_on_and_when_it_is_replayed(
    runs, scripts, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a library has that is loaded when nobody limits it
    script = scripts.write(THREADS)
    scripts.run(script, 30)
    scripts.run(script, 34, runs / "1")
