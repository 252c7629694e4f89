"""What an objective logs by itself lands in the run of its evaluation, wherever it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import SearchConfiguration, WorkerTypes

SMALL = SearchConfiguration(generations=1, pool_size=6)
SLOW = pytest.mark.slow  # each process loads MLflow
LIVE = pytest.mark.parametrize(
    "live", [pytest.param(False, id="when it is in"), pytest.param(True, id="live", marks=SLOW)]
)


def logging(config: dict[str, Any]) -> float:
    import mlflow

    mlflow.log_metric("own", config["x"])
    mlflow.log_param("letter", "q")
    mlflow.log_text(str(config["x"]), "notes/x.txt")
    with mlflow.start_span("kernel") as span:
        span.set_inputs({"x": config["x"]})
    return float(config["x"])


async def logging_async(config: dict[str, Any]) -> float:
    import asyncio

    import mlflow

    mlflow.log_metric("own", config["x"])
    await asyncio.sleep(0.05)  # others have their turn
    mlflow.log_param("letter", "q")
    await asyncio.to_thread(mlflow.log_text, str(config["x"]), "notes/x.txt")
    await asyncio.sleep(0.05)
    with mlflow.start_span("kernel"):
        await asyncio.sleep(0.01)
    return float(config["x"])


def check(database: Any, folder: Path) -> dict[str, Any]:
    """Every evaluation has one run, with all that it logged, and nothing else is there."""
    import mlflow

    parent, children = database.search()
    for key, run in children.items():
        assert run.info.status == "FINISHED"
        assert run.data.metrics["own"] == run.data.metrics["score"]
        assert run.data.params["letter"] == "q"
        assert run.data.params["x"] == str(int(run.data.metrics["score"]))
        assert run.data.tags["ciq.key"] == key
        noted = database.client.download_artifacts(run.info.run_id, "notes/x.txt", str(folder))
        assert Path(noted).read_text() == run.data.params["x"]
    experiments = [found.experiment_id for found in database.client.search_experiments()]
    everything = database.client.search_runs(experiments)
    assert len(everything) == len(children) + 1
    assert not database.running()
    mlflow.set_tracking_uri(database.uri)
    try:
        traces = mlflow.search_traces(locations=[database.experiment_id], return_type="list")
    finally:
        mlflow.set_tracking_uri(None)
    found = sorted(trace.info.trace_metadata["mlflow.sourceRun"] for trace in traces)
    assert found == sorted(run.info.run_id for run in children.values())
    assert parent.info.status == "FINISHED"
    return children


@pytest.mark.parametrize(
    ("worker", "live"),
    [
        (WorkerTypes.NATIVE, True),
        pytest.param(WorkerTypes.ASYNC, False, marks=SLOW),
        pytest.param(WorkerTypes.NATIVE, False, marks=SLOW),
        pytest.param(WorkerTypes.ASYNC, True, marks=SLOW),
    ],
)
def test_in_every_worker(
    database: Any, config: Any, search: Any, tmp_path: Path, worker: WorkerTypes, live: bool
) -> None:
    objective = logging_async if worker is WorkerTypes.ASYNC else logging
    wanted = config(database.uri, live_runs=live)
    count = 4 if worker is WorkerTypes.ASYNC else 2
    search(objective, wanted, worker_type=worker, search_config=SMALL).start(num_workers=count)
    assert len(check(database, tmp_path)) == 6


@SLOW
def test_in_a_process_of_its_own(database: Any, config: Any, search: Any, tmp_path: Path) -> None:
    wanted = config(database.uri)
    fields = {"worker_type": WorkerTypes.ISOLATED, "max_evaluations": 2, "search_config": SMALL}
    search(logging, wanted, **fields).start(num_workers=2)
    assert len(check(database, tmp_path)) == 2


@SLOW
@LIVE
def test_on_a_ray_cluster(database: Any, config: Any, search: Any, tmp_path: Path, live: bool) -> None:
    wanted = config(database.uri, live_runs=live)
    fields = {"worker_type": WorkerTypes.RAY, "search_config": SMALL}
    search(logging, wanted, **fields).start(num_workers=2, num_gpus=0)
    assert len(check(database, tmp_path)) == 6


@SLOW
def test_on_another_node_than_the_driver(server: Any, ray_nodes: Any, config: Any, search: Any) -> None:
    """By way of a server: it is all that the nodes of a real cluster have in common."""
    import ray
    from mlflow import MlflowClient

    second = {node["NodeID"] for node in ray.nodes() if node["Labels"].get("pool") == "second"}
    wanted = config(server.uri, experiment_name="second node")
    fields = {"worker_type": WorkerTypes.RAY, "search_config": SMALL}
    result = search(logging, wanted, **fields).start(num_workers=2, label_selector={"pool": "second"})
    client = MlflowClient(server.uri)
    found = client.search_runs([client.get_experiment_by_name("second node").experiment_id])
    [parent] = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["ciq.key"]: run for run in found if run is not parent}
    assert len(children) == len(found) - 1 == len(result.get_results()) == 6
    for run in children.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["ciq.node"] in second
        assert run.data.metrics["own"] == run.data.metrics["score"] == float(run.data.params["x"])
        assert run.data.params["letter"] == "q"
        [note] = client.list_artifacts(run.info.run_id, "notes")
        assert note.path == "notes/x.txt"


def explicit(config: dict[str, Any]) -> float:
    """Uses runs as a script would, threads and further runs included."""
    import threading

    import mlflow

    with mlflow.start_run(run_name="mine"):
        mlflow.log_metric("first", 1)
        with mlflow.start_run(nested=True, run_name="inner"):
            mlflow.log_metric("inner", 1)
    thread = threading.Thread(target=mlflow.log_metric, args=("thread", 1))
    thread.start()
    thread.join()
    mlflow.log_metric("last", 1)
    return 1.0


@LIVE
def test_runs_that_the_objective_starts_itself(database: Any, config: Any, search: Any, live: bool) -> None:
    wanted = config(database.uri, live_runs=live)
    search(explicit, wanted, max_evaluations=2, search_config=SMALL).start(num_workers=1)
    _, children = database.search()
    assert len(children) == 2
    for run in children.values():
        assert {"first", "thread", "last", "score"} <= set(run.data.metrics)
        [inner] = database.runs(run)
        assert inner.data.metrics == {"inner": 1}
    assert not database.running()


def dying(config: dict[str, Any]) -> float:
    import os
    import time

    import mlflow

    mlflow.log_metric("own", 1)
    if config["x"] % 2:
        os.kill(os.getpid(), 9)
    time.sleep(60)
    return 1.0


@SLOW
@LIVE
def test_evaluations_that_are_killed(database: Any, config: Any, search: Any, live: bool) -> None:
    """The process cannot say which run it had begun, nor end it."""
    wanted = config(database.uri, live_runs=live)
    fields = {"max_evaluations": 2, "search_config": SMALL, "exit_on_failure": False}
    fields["initial_configs"] = [{"x": 1, "block[m]": 1}, {"x": 2, "block[m]": 1}]
    search(dying, wanted, **fields).start(num_workers=2, task_timeout=12)
    _, children = database.search()
    assert {run.data.tags["ciq.status"] for run in children.values()} == {"run_error", "run_timeout"}
    for run in children.values():
        assert run.info.status == "FAILED"
        assert run.data.metrics["own"] == 1
    assert not database.running()


PROGRAM = "import mlflow; mlflow.log_metric('program', 1)"


def starting_programs(config: dict[str, Any]) -> float:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
    return 1.0


@SLOW
@LIVE
def test_programs_that_the_objective_starts(database: Any, config: Any, search: Any, live: bool) -> None:
    """A program takes up the run there is; else it makes one, which ends up below that of its evaluation."""
    wanted = config(database.uri, live_runs=live)
    search(starting_programs, wanted, max_evaluations=1, search_config=SMALL).start(num_workers=1)
    _, children = database.search()
    [run] = children.values()
    if not live:
        [found] = database.runs(run)
        assert found.data.metrics == {"program": 1}
    else:
        assert run.data.metrics["program"] == 1


def test_without_mlflow_it_is_not_loaded(database: Any, config: Any, search: Any) -> None:
    result = search(loaded, config(database.uri), max_evaluations=2, search_config=SMALL).start(num_workers=1)
    assert [row["score"] for row in result.rows()] == [0, 0]


def loaded(config: dict[str, Any]) -> float:
    return float("mlflow" in sys.modules)
