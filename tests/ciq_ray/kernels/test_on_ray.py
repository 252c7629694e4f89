"""A kernel search on a Ray cluster of two nodes: compiled by some actors, timed by others, and what dies."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.jobs import DEVICE_LOST
from ciq_ray.race import Plan
from ciq_ray.types import WorkerTypes
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.ray_actor import EvaluationActor, Setup
from ciq_ray.worker.ray_payload import ClusterPickler
from searchers.outcome import Outcome
from tests.ciq_ray.kernels.host_kernel import Assassin, HostKernel, RecordingKernel

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_nodes")]

FAST: dict[str, Any] = {"budget_ms": 2.0, "min_samples": 3, "warmup_ms": 2.0, "window_ms": 1.0}


def search(kernel: HostKernel, **fields: Any) -> Search:
    options: dict[str, Any] = {
        "objective_function": kernel,
        "search_config": SearchConfiguration(generations=2, pool_size=8),
        "searcher": "random",
        "seed": 1,
        "worker_type": WorkerTypes.RAY,
        "remeasure_every": 0,
        "disable_progress_bar": True,
        **fields,
    }
    return Search(**options)


def test_two_owners_compare_by_the_control_of_each_and_one_has_the_race(records, tmp_path):
    plan = Plan(finalists=2, pick_blocks=2, verdict_blocks=6, windows=1)
    kernel = RecordingKernel(tmp_path / "loads", ("ok", "segfault", "no_compile"))
    result = search(kernel, final_race=plan).start(num_workers=1, devices=2, task_timeout=5, **FAST)
    found = [record for record in records(result.folder) if record["t"] == "outcome"]
    assert len(found) == 16
    assert all(record["place"]["node"] for record in found)
    statuses = {record["id"]: record["outcome"]["status"] for record in found}
    expected = {"ok": "ok", "segfault": "run_error", "no_compile": "compile_error"}
    for row in result.rows():
        assert statuses[str(row["param_id"])] == expected[row["params"]["behaviour"]]
    assert result.is_normalized
    for record in found:
        if record["outcome"]["status"] == "ok" and "same_binary_as" not in record["outcome"]["metrics"]:
            ratio = record["outcome"]["values"][0] / record["baseline"][0]
            assert record["normalized"][0] == pytest.approx(ratio)
    (begun,) = [record["at"] for record in records(result.folder) if record["t"] == "race_begins"]
    loads = kernel.loads()
    assert len({load["owner"] for load in loads if load["at"] < begun}) == 2
    assert len({load["owner"] for load in loads if load["at"] >= begun}) == 1
    assert result.verdict is not None


@pytest.mark.slow
def test_an_owner_that_dies_is_replaced(records, tmp_path):
    made = search(Assassin(str(tmp_path / "done")), final_race=False)
    result = made.start(num_workers=1, devices=1, task_timeout=5, **FAST)
    assert (tmp_path / "done").exists()
    found = [record for record in records(result.folder) if record["t"] == "outcome"]
    assert len({record["id"] for record in found}) == len(found) == 16
    assert {record["outcome"]["status"] for record in found} == {"ok"}


ACTOR = """
import contextlib, pickle, sys, threading, time
from pathlib import Path
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.ray_actor import EvaluationActor, Setup
from ciq_ray.worker.ray_payload import ClusterPickler


@contextlib.contextmanager
def held():
    Path("held").touch()
    try:
        yield
    finally:
        Path("held").unlink()


def objective(config):
    Path("busy").touch()
    time.sleep(600)


if __name__ == "__main__":
    pickler = ClusterPickler(objective)
    held_by = pickle.dumps(held)
    actor = EvaluationActor("a", Setup(pickler.function, 1, None, None, None, None, sys.argv, False, held_by))
    if len(sys.argv) > 1:
        task = Task("0", pickler.config({}))
        threading.Thread(target=actor.exchange, args=([task],), daemon=True).start()
    time.sleep(600)
"""


@pytest.mark.parametrize("busy", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_actor_that_is_asked_to_end_lets_go_of_its_device(scripts, wait_for, tmp_path, busy):
    process = scripts.start(scripts.write(ACTOR), *(["busy"] if busy else []))
    wait_for((tmp_path / ("busy" if busy else "held")).exists, "its start")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "held").exists()


def lost(config: Any) -> Outcome:
    return Outcome("lost", message="GPU-1 is not used any more", metrics={DEVICE_LOST: config["for_good"]})


@pytest.mark.parametrize("for_good", [False, True])
def test_an_actor_that_has_lost_its_device_for_good_is_given_up(for_good, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which the actor sets for its whole process
    pickler = ClusterPickler(lost)
    setup = Setup(pickler.function, 1, None, None, None, None, sys.argv, False)
    with ThreadPoolExecutor(1) as thread:  # in the main thread it would take signals
        actor = thread.submit(EvaluationActor, "a", setup).result()
    try:
        reply = actor.exchange([Task("0", pickler.config({"for_good": for_good}))])
        if for_good:
            assert reply.error == (False, "a: GPU-1 is not used any more")
        else:
            assert [report.outcome.status for report, _ in reply.reports] == ["lost"]
    finally:
        actor.close()


def test_a_number_of_devices_is_asked_for():
    with pytest.raises(ConfigurationError, match=r"`devices` is \['GPU-1'\]; with RAY it is a number"):
        search(HostKernel()).start(devices=["GPU-1"])
