"""Servers that go away, programs that are killed: nothing is lost, nothing is there twice."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray._mlflow.spool import Spool, read_spool
from ciq_ray._mlflow.stale import is_gone, process_tags
from ciq_ray._mlflow.store import Refused, Store
from ciq_ray._mlflow.writer import Writer
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
        process.communicate(timeout=60)
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


class TestSpool:
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

    def test_a_torn_line_is_left_out_and_a_strange_one_named(self, tmp_path: Path) -> None:
        path = tmp_path / "spool.jsonl"
        path.write_text(json.dumps({"key": "1"}) + '\n{"key": "2')
        assert list(read_spool(path)) == [{"key": "1"}]
        path.write_text("[]\n")
        with pytest.raises(ValueError, match="not a record"):
            list(read_spool(path))
