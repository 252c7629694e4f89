"""Servers that go away, programs that are killed: nothing is lost, nothing is there twice."""

from __future__ import annotations

import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray._mlflow import writer as writers
from ciq_ray._mlflow.link import Link, replay_spool
from ciq_ray._mlflow.spool import Spool, read_spool
from ciq_ray._mlflow.stale import is_gone, process_tags
from ciq_ray._mlflow.store import Away, Record, Refused, Store
from ciq_ray._mlflow.writer import Writer
from ciq_ray._trackers.mlflow import MLflowTracker
from ciq_ray.errors import WorkerError
from searchers import Range, Space
from tests.ciq_ray.mlflow.conftest import EXPERIMENT, Looking, Server


def slow(config: dict[str, Any]) -> float:
    time.sleep(0.1)
    return float(config["x"])


def until_over(path: str, config: dict[str, Any]) -> float:
    """Reaches the target as soon as there is this file."""
    time.sleep(0.3)
    return -1.0 if os.path.exists(path) else float(config["x"])


def until(condition: Callable[[], Any], within: float = 150) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def keys(found: Any) -> list[int]:
    return sorted(map(int, found))


def replayed(folder: Path, *options: str, code: int = 0) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "ciq_ray", "mlflow-replay", str(folder), *options],
        capture_output=True,
        text=True,
    )
    assert run.returncode == code, run.stderr
    return run.stdout + run.stderr


class TestTheServerGoes:
    def went_away(self, server: Server, search: Any, wanted: Any, runs: Path, away_s: float) -> None:
        """A search while the server is stopped and started; it ends once the server has what it missed."""
        looking = self.looking(server)
        before = {run.info.run_id for run in looking.runs()}
        over, spool = runs.parent / "over", runs / "1" / "mlflow-spool.jsonl"

        def go_and_come() -> None:
            journal = runs / "1" / "journal.jsonl"
            until(lambda: journal.exists() and journal.read_bytes().count(b'"t":"outcome"') > 5)
            server.stop()
            until(spool.exists)
            time.sleep(away_s)
            server.start()
            until(lambda: not spool.exists())
            over.touch()

        thread = threading.Thread(target=go_and_come)
        thread.start()
        fields = {"search_config": SearchConfiguration(generations=10**6, pool_size=20), "target": -1}
        fields["search_space"] = Space({"x": Range(0, 10**6)})
        result = search(functools.partial(until_over, str(over)), wanted, **fields).start(num_workers=2)
        thread.join()
        [parent] = [run for run in looking.runs() if run.info.run_id not in before]
        children = looking.runs(parent)
        assert sorted(int(run.data.tags["ciq.key"]) for run in children) == list(range(len(result)))
        assert {run.info.status for run in children} == {"FINISHED"}
        scores = {str(row["param_id"]): row["score"] for row in result.rows()}
        assert {run.data.tags["ciq.key"]: run.data.metrics["score"] for run in children} == scores
        assert parent.info.status == "FINISHED"
        assert "figures" in looking.files(parent)
        assert not looking.running()
        assert not spool.exists()

    def looking(self, server: Server) -> Looking:
        looking = Looking(server.uri)
        looking.client.get_experiment_by_name(EXPERIMENT) or looking.client.create_experiment(EXPERIMENT)
        return looking

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_and_comes_back(
        self, server: Server, config: Any, search: Any, runs: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            self.went_away(server, search, config(server.uri), runs, away_s=1)
        assert "cannot be reached" in caplog.text
        assert "MLflow is back" in caplog.text

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_for_half_a_minute(self, server: Server, config: Any, search: Any, runs: Path) -> None:
        self.went_away(server, search, config(server.uri), runs, away_s=30)

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_for_good_and_the_rest_is_written_later(
        self, server: Server, config: Any, search: Any, runs: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        looking = self.looking(server)
        before = {run.info.run_id for run in looking.runs()}
        journal = runs / "1" / "journal.jsonl"

        def go() -> None:
            until(lambda: journal.exists() and journal.read_bytes().count(b'"t":"outcome"') > 5)
            server.stop()

        threading.Thread(target=go).start()
        fields = {"search_config": SearchConfiguration(generations=2, pool_size=30)}
        result = search(slow, config(server.uri), **fields).start(num_workers=2)
        folder = runs / "1"
        assert len(result) == 60
        assert result.ended == "finished"
        assert "ciq mlflow-replay" in capfd.readouterr().err
        waiting = list(read_spool(folder / "mlflow-spool.jsonl"))
        assert waiting
        assert waiting[-1]["status"] == "FINISHED"
        assert "cannot be" in replayed(folder, code=1)  # it is still away
        server.start()
        saved = (folder / "mlflow-spool.jsonl").read_bytes()
        assert f"{len(waiting)} records are in MLflow" in replayed(folder)
        for attempt in range(2):
            [parent] = [run for run in looking.runs() if run.info.run_id not in before]
            children = looking.runs(parent)
            assert keys(run.data.tags["ciq.key"] for run in children) == list(range(60))
            assert parent.info.status == "FINISHED"
            assert "best_config.json" in looking.files(parent)
            history = looking.client.get_metric_history(parent.info.run_id, "best_score")
            assert [point.step for point in history] == [0, 1]
            if not attempt:  # once more: nothing is there twice
                (folder / "mlflow-spool.jsonl").write_bytes(saved)
                replayed(folder, "--json")
        assert "nothing in" in replayed(folder, code=2)


SCRIPT = """
import time, warnings
warnings.simplefilter("default")  # MLflow uses what its own libraries are about to drop
from ciq_ray import Search, SearchConfiguration
from ciq_ray.types import MLflowTrackerConfig
from searchers import Range, Space

def objective(config):
    time.sleep(0.15)
    return float(config["x"])

if __name__ == "__main__":
    import sys
    Search(
        objective_function=objective,
        search_space=Space({"x": Range(0, 99)}),
        search_config=SearchConfiguration(generations=4, pool_size=10),
        searcher_options={"generational": True},
        seed=1,
        disable_progress_bar=True,
        tracker_config=MLflowTrackerConfig(
            tracking_uri=sys.argv[1], experiment_name="tests", live_runs=sys.argv[2] == "live"
        ),
    ).start(num_workers=2)
"""


class TestTheProgramIsKilled:
    @pytest.mark.parametrize("how", ["live", pytest.param("late", marks=pytest.mark.slow)])
    def test_and_its_search_resumed(
        self, database: Any, scripts: Any, runs: Path, wait_for: Callable[..., None], how: str
    ) -> None:
        process = scripts.start(scripts.write(SCRIPT), database.uri, how)
        journal = runs / "1" / "journal.jsonl"
        wait_for(lambda: journal.exists() and journal.read_bytes().count(b'"t":"outcome"') >= 12, within=60)
        process.kill()
        process.wait()
        [parent] = database.runs()
        assert parent.info.status == "RUNNING"  # nobody was left to say otherwise
        result = Search.resume(runs / "1", disable_progress_bar=True).start()
        parent, children = database.search()
        assert parent.info.status == "FINISHED"
        assert keys(children) == list(range(len(result)))
        assert {run.info.status for run in children.values()} == {"FINISHED"}
        assert not database.running()
        history = database.client.get_metric_history(parent.info.run_id, "best_score")
        assert [point.step for point in history] == [0, 1, 2, 3]

    @pytest.mark.slow
    def test_and_another_search_ends_its_runs(
        self, database: Any, config: Any, search: Any, scripts: Any, runs: Path, wait_for: Callable[..., None]
    ) -> None:
        process = scripts.start(scripts.write(SCRIPT), database.uri, "live")
        wait_for(lambda: len(database.running()) >= 3 if (runs / "1").exists() else False, within=60)
        own = database.client.create_run(database.experiment_id, tags={"ciq.host": os.uname().nodename})
        search(slow, config(database.uri), max_evaluations=1).start(num_workers=1)
        assert process.poll() is None  # it lives: its runs are left alone
        assert len(database.running()) >= 3
        process.kill()
        process.wait()
        search(slow, config(database.uri), max_evaluations=1).start(num_workers=1)
        killed = database.client.search_runs([database.experiment_id], "attributes.status = 'KILLED'")
        assert len(killed) >= 2
        assert [run.info.run_id for run in database.running()] == [own.info.run_id]  # it is none of ours

    @pytest.mark.slow
    def test_by_ctrl_c(self, database: Any, scripts: Any, runs: Path, wait_for: Callable[..., None]) -> None:
        process = scripts.start(scripts.write(SCRIPT), database.uri, "live")
        journal = runs / "1" / "journal.jsonl"
        wait_for(lambda: journal.exists() and journal.read_bytes().count(b'"t":"outcome"') >= 4, within=60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        parent, children = database.search()
        assert (parent.info.status, parent.data.tags["ciq.ended"]) == ("KILLED", "stopped")
        assert {run.info.status for run in children.values()} == {"FINISHED"}
        assert not database.running()

    def test_by_sigterm(self, database: Any, scripts: Any, runs: Path, wait_for: Callable[..., None]) -> None:
        process = scripts.start(scripts.write(SCRIPT), database.uri, "live")
        journal = runs / "1" / "journal.jsonl"
        wait_for(lambda: journal.exists() and journal.read_bytes().count(b'"t":"outcome"') >= 4, within=60)
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143, err
        if (runs / "1" / "mlflow-spool.jsonl").exists():  # the machine was too busy to wait for; that is said
            assert f"ciq mlflow-replay {runs / '1'}" in err
            replayed(runs / "1")
        [parent] = database.runs()
        assert parent.info.status == "KILLED"
        assert not database.running()


def test_whose_process_is_gone() -> None:
    own = process_tags()
    assert not is_gone(own)
    pid, started, world = own["ciq.process"].split()
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        other.wait()
    for process, gone in [
        (f"{other.pid} {started} {world}", True),
        (f"{pid} 1 {world}", True),  # its number has gone to another process
        (f"{pid} {started} another", False),
        (f"{other.pid} {started} another", False),
        ("nonsense", False),
    ]:
        assert is_gone({**own, "ciq.process": process}) is gone
    assert not is_gone({**own, "ciq.host": "elsewhere", "ciq.process": f"{other.pid} {started} {world}"})
    assert not is_gone({})


class FailingStore:
    """It always answers, and fails over some records."""

    uri, parent_id = "http://mlflow", "parent"

    def __init__(self, fails: Callable[[str], bool]) -> None:
        self.fails = fails
        self.failures = 0
        self.taken: list[str] = []

    def probe(self) -> None: ...

    def tidy(self) -> None: ...

    def write(self, record: Record) -> str:
        if self.fails(record["key"]):
            self.failures += 1
            raise Away("database or disk is full")
        self.taken.append(record["key"])
        return ""


class TestWriter:
    def test_a_full_queue_goes_to_the_file_and_holds_nobody_up(self, database: Any, tmp_path: Path) -> None:
        store = Store(database.uri, EXPERIMENT, "a search")
        store.write({"key": ""})
        spool = Spool(tmp_path / "spool.jsonl")
        writer = Writer(store, spool, size=3)
        started = time.monotonic()
        for number in range(50):
            writer.put({"key": f"{number}", "status": "FINISHED", "metrics": [["m", 1.0, 1, 0]]})
        assert time.monotonic() - started < 0.5
        assert spool.path.exists()
        assert writer.close([{"key": "", "status": "FINISHED"}], say=lambda waiting: None) == 0
        assert keys(database.search()[1]) == list(range(50))
        assert not spool.path.exists()
        assert not database.running()

    def test_what_mlflow_refuses_is_said_and_left_out(
        self, database: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = Store(database.uri, EXPERIMENT, "a search")
        writer = Writer(store, Spool(tmp_path / "spool.jsonl"))
        writer.put({"key": "", "params": {"x": "1"}})
        writer.put({"key": "", "params": {"x": "2"}})
        writer.put({"key": "1", "status": "FINISHED"})
        writer.close([], say=lambda waiting: None)
        assert writer.refused == 1
        assert "MLflow does not take a record" in caplog.text
        assert list(database.search()[1]) == ["1"]

    def test_nobody_waits_any_longer(self, tmp_path: Path) -> None:
        store = FailingStore(lambda key: False)
        answering = threading.Event()
        write = store.write

        def slow_write(record: Record) -> str:
            answering.wait(20)
            return write(record)

        store.write = slow_write  # type: ignore[method-assign]
        writer = Writer(store, Spool(tmp_path / "spool.jsonl"))  # type: ignore[arg-type]
        for number in range(5):
            writer.put({"key": f"{number}"})
        asked = iter([False, True])
        writer.settle(lambda waiting: None, lambda: next(asked))
        writer.put({"key": "5"})  # of a final race
        answering.set()
        until(lambda: writer.waiting == 5)
        assert store.taken == ["0"]
        assert writer.close([{"key": ""}], say=lambda waiting: None) == 5
        assert store.taken == ["0", ""]
        assert keys(record["key"] for record in read_spool(tmp_path / "spool.jsonl")) == [1, 2, 3, 4, 5]

    def test_a_record_without_an_answer_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writers, "_FAREWELL_S", 0.2)
        store = FailingStore(lambda key: False)
        answering = threading.Event()
        store.write = lambda record: str(answering.wait(20))  # type: ignore[method-assign]
        writer = Writer(store, Spool(tmp_path / "spool.jsonl"))  # type: ignore[arg-type]
        writer.put({"key": "0"})
        writer.put({"key": "1"})
        until(lambda: len(writer._queue) == 1)
        writer.close([{"key": ""}], say=lambda waiting: None, stop_requested=lambda: True)
        answering.set()
        found = {record["key"] for record in read_spool(tmp_path / "spool.jsonl")}
        assert found == {"", "0", "1"}

    def test_doing_a_record_again_changes_nothing(self, database: Any) -> None:
        record = {
            "key": "7",
            "name": "7",
            "start": 1,
            "end": 2,
            "params": {f"p{i}": "v" for i in range(250)},
            "tags": {f"t{i}": "v" for i in range(250)},
            "metrics": [[f"m{i}", float(i), 1, 0] for i in range(1200)],
            "files": {"a.txt": "text"},
            "status": "FAILED",
        }
        for _ in range(2):
            store = Store(database.uri, EXPERIMENT, "a search")
            store.write({"key": ""})
            store.refresh()
            store.write(record)
            store.write(record)
        _, children = database.search()
        [run] = children.values()
        assert (len(run.data.params), len(run.data.metrics)) == (250, 1200)
        assert {name for name in run.data.tags if name.startswith("t")} == set(record["tags"])
        assert (run.info.status, run.info.start_time, run.info.end_time) == ("FAILED", 1, 2)
        assert len(database.client.get_metric_history(run.info.run_id, "m1")) == 1

    def test_a_child_needs_its_search(self, database: Any) -> None:
        with pytest.raises(Refused, match="not in MLflow"):
            Store(database.uri, EXPERIMENT, "nobody").write({"key": "1"})


class TestMLflowAnswersButFails:
    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, seconds in [("_PROBE_S", 0.01), ("_LONGEST_PROBE_S", 0.05), ("_LAST_PROBES_S", 1.5)]:
            monkeypatch.setattr(writers, name, seconds)

    def writer(self, store: Any, tmp_path: Path) -> Writer:
        return Writer(store, Spool(tmp_path / "spool.jsonl"))

    def test_for_good(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        store = FailingStore(lambda key: True)
        writer = self.writer(store, tmp_path)
        for number in range(5):
            writer.put({"key": f"{number}"})
        until(lambda: store.failures > 12)
        assert writer.away
        assert writer.waiting == 5
        left = writer.close([{"key": ""}], say=lambda waiting: None)
        waiting = list(read_spool(tmp_path / "spool.jsonl"))[-left:]
        assert sorted(record["key"] for record in waiting) == ["", "0", "1", "2", "3", "4"]
        assert (left, writer.refused, writer.written) == (6, 0, 0)
        assert "MLflow is back" not in caplog.text
        assert caplog.text.count("cannot be reached or fails (database or disk is full)") == 1

        store = FailingStore(lambda key: False)  # as when the search is resumed
        assert self.writer(store, tmp_path).close([], say=lambda waiting: None) == 0
        assert set(store.taken) == {"", "0", "1", "2", "3", "4"}
        assert not (tmp_path / "spool.jsonl").exists()

    def test_for_a_while(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        store = FailingStore(lambda key: store.failures < 12)
        writer = self.writer(store, tmp_path)
        for number in range(5):
            writer.put({"key": f"{number}"})
        until(lambda: not writer.waiting)
        assert sorted(store.taken) == ["0", "1", "2", "3", "4"]
        assert caplog.text.count("MLflow is back") == 1
        assert writer.close([{"key": ""}], say=lambda waiting: None) == 0
        assert (writer.written, writer.refused) == (6, 0)

    def test_over_one_record(self, tmp_path: Path) -> None:
        store = FailingStore(lambda key: key == "1")
        writer = self.writer(store, tmp_path)
        for number in range(5):
            writer.put({"key": f"{number}"})
        until(lambda: len(store.taken) == 4)
        assert writer.close([{"key": ""}], say=lambda waiting: None) == 1
        assert store.taken == ["0", "2", "3", "4", ""]
        assert writer.refused == 0
        assert [record["key"] for record in read_spool(tmp_path / "spool.jsonl")][-1] == "1"

    def test_over_the_searchs_own_run(self, tmp_path: Path) -> None:
        store = FailingStore(lambda key: store.failures < 12)
        store.parent_id = ""
        writer = self.writer(store, tmp_path)
        for key in ["", "0", "1"]:
            writer.put({"key": key})
        until(lambda: not writer.waiting)
        assert store.taken == ["", "0", "1"]  # it comes first
        writer.close([], say=lambda waiting: None)

    def test_when_the_rest_is_written_later(
        self, database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Link(database.uri, EXPERIMENT, "a search").write(tmp_path)
        spool = Spool(tmp_path / "mlflow-spool.jsonl")
        spool.append(*({"key": key, "status": "FINISHED"} for key in ["", "0", "1", "2"]))
        write = Store.write

        def failing(store: Store, record: Record) -> str:
            if record["key"] == "1":
                raise Away("500")
            return write(store, record)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "write", failing)
            with pytest.raises(WorkerError, match="does not take 1 of 4 records"):
                replay_spool(tmp_path)
        assert keys(database.search()[1]) == [0, 2]
        assert replay_spool(tmp_path) == 1
        assert keys(database.search()[1]) == [0, 1, 2]


SLOW_TO_WRITE = """
import time, warnings
warnings.simplefilter("default")  # MLflow uses what its own libraries are about to drop
from ciq_ray import Search, SearchConfiguration
from ciq_ray._mlflow.store import Store
from ciq_ray.race import Plan
from ciq_ray.types import MLflowTrackerConfig
from searchers import Range, Space

def objective(config):
    return 1.0 + config["x"]

if __name__ == "__main__":
    import sys
    write = Store.write

    def slow_write(self, record, **options):
        time.sleep(0.1)
        return write(self, record, **options)

    Store.write = slow_write
    result = Search(
        objective_function=objective,
        search_space=Space({"x": Range(0, 999)}, default={"x": 900}),
        search_config=SearchConfiguration(generations=10, pool_size=10),
        disable_progress_bar=True,
        final_race=Plan(1, 1, 6, 1) if sys.argv[2] == "race" else False,
        tracker_config=MLflowTrackerConfig(tracking_uri=sys.argv[1], experiment_name="tests"),
    ).start(num_workers=2)
    print(f"{len(result)} evaluations, {result.ended}, {result.verdict is not None}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["search", "race"])
def test_ctrl_c_while_the_rest_is_written_costs_nothing(
    database: Any, scripts: Any, runs: Path, tmp_path: Path, wait_for: Callable[..., None], how: str
) -> None:
    log = tmp_path / "stderr"
    with log.open("w") as err:
        process = scripts.start(scripts.write(SLOW_TO_WRITE), database.uri, how, stderr=err)
        wait_for(lambda: "records still to be written" in log.read_text(), within=60)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    text = log.read_text()
    assert process.returncode == 0, text
    assert how == "race" or time.monotonic() - started < 10
    assert f"100 evaluations, finished, {how == 'race'}" in out
    assert "evaluations in flight" not in text
    assert f"ciq mlflow-replay {runs / '1'}" in text
    assert 20 < len(list(read_spool(runs / "1" / "mlflow-spool.jsonl"))) <= 115
    assert "records are in MLflow" in replayed(runs / "1")
    parent, children = database.search()
    assert keys(key for key in children if "." not in key) == list(range(100))
    assert parent.info.status == "FINISHED"
    assert "best_config.json" in database.files(parent)
    assert not database.running()


def short_of_patience(config: dict[str, Any]) -> float:
    names = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
    return float("".join(os.environ[name] for name in names))


@pytest.mark.parametrize(("given", "expected"), [(None, 110.0), ("7", 710.0)])
def test_requests_of_an_objective_give_up_soon(
    database: Any,
    config: Any,
    search: Any,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    expected: float,
) -> None:
    if given is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", given)
    result = search(short_of_patience, config(database.uri), max_evaluations=1).start(num_workers=1)
    assert [row["score"] for row in result.rows()] == [expected]


def test_credentials_are_nowhere_but_in_requests(
    config: Any,
    search: Any,
    runs: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = "http://somebody:secret@127.0.0.1:9"  # nobody answers there
    search(slow, config(uri), max_evaluations=2).start(num_workers=1)
    shown = caplog.text + "".join(capfd.readouterr()) + replayed(runs / "1", code=1)
    assert "http://127.0.0.1:9" in shown
    kept = {path.name: path.read_text(errors="replace") for path in runs.rglob("*") if path.is_file()}
    assert {"mlflow.json", "mlflow-spool.jsonl", "journal.jsonl"} <= set(kept)
    for name, text in {**kept, "shown": shown}.items():
        assert "secret" not in text, name
    again = Store("http://127.0.0.1:9", EXPERIMENT)
    assert again.address == again.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    again = Store("http://127.0.0.1:9", EXPERIMENT)
    assert (again.address, again.uri) == (uri, "http://127.0.0.1:9")
    assert Store("http://127.0.0.2:9", EXPERIMENT).address == "http://127.0.0.2:9"
    with pytest.raises(Away, match="API request to http://127") as caught:
        again.connect()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("address", "hosts", "warned"),
    [
        (None, [os.uname().nodename], False),  # a Ray of the search's own, or of the program's
        (None, [os.uname().nodename, "another"], True),
        ("local", [os.uname().nodename], False),
        ("10.0.0.1:6379", [os.uname().nodename], True),  # it may grow
        (None, None, False),
    ],
)
def test_who_is_warned_that_other_nodes_have_no_database(
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str | None,
    hosts: list[str] | None,
    warned: bool,
) -> None:
    nodes = [{"Alive": True, "NodeManagerHostname": host} for host in hosts or []]
    ray = SimpleNamespace(is_initialized=lambda: hosts is not None, nodes=lambda: nodes)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    tracker = MLflowTracker(config("sqlite:////nowhere.db"))
    tracker._header = {"worker_type": "ray"}
    tracker._warn_of_remote_nodes("sqlite:////nowhere.db")
    assert ("other nodes of the cluster cannot reach" in caplog.text) is warned


class TestSpool:
    def test_a_full_disk_leaves_no_half_records(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool = Spool(tmp_path / "spool.jsonl")
        spool.append({"key": "1"})
        write, writes = os.write, []

        def half(descriptor: int, data: bytes) -> int:
            writes.append(data)
            if len(writes) > 1:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[: len(data) // 2])

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space"):
                spool.append({"key": "2"})
        assert spool.waiting == 1
        spool.append({"key": "3"})
        assert [record["key"] for record in read_spool(spool.path)] == ["1", "3"]

    def test_in_order_and_gone_when_done(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "spool.jsonl")
        spool.append({"key": "1"}, {"key": "2"})
        assert spool.waiting == 2
        spool = Spool(spool.path)  # another process
        for expected in "12":
            record, end = spool.next()
            assert record == {"key": expected}
            spool.done(end)
        assert (spool.next()[0], spool.waiting, spool.path.exists()) == (None, 0, False)

    def test_what_comes_meanwhile_is_not_lost(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "spool.jsonl")
        spool.append({"key": "1"})
        _, end = spool.next()
        spool.append({"key": "2"})
        spool.done(end)
        assert spool.next()[0] == {"key": "2"}

    def test_what_is_torn_or_strange_is_left_out(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "spool.jsonl"
        path.write_bytes(b'{"key": "1"}\n[]\n\x00\xff\n{"key": "2')
        assert list(read_spool(path)) == [{"key": "1"}]
        assert caplog.text.count("a line is no record") == 2
        spool = Spool(path)  # of a search that is resumed
        spool.append({"key": "3"})
        assert list(read_spool(path)) == [{"key": "1"}, {"key": "3"}]
        for expected in "13":
            record, end = spool.next()
            assert record == {"key": expected}
            spool.done(end)
        assert not path.exists()
