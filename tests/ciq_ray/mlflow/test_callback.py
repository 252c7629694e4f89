"""Trials of Ray Tune in MLflow."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import ObjectiveFailure
from ciq_ray.errors import ConfigurationError
from searchers import Range, Space, create
from tests.ciq_ray.mlflow.conftest import Looking

pytestmark = [pytest.mark.filterwarnings("ignore")]

SCRIPT = """
import sys, time
import ray
from ray import tune
from ciq_ray.tune import MLflowCallback

def trial(config):
    for step in range(3):
        time.sleep(config["pause"])
        tune.report({"ms": config["x"] + 3 - step, "inf": float("inf"), "nested": {"a": step}})
    if config["x"] == 2:
        raise ValueError("two is too much")
    if config["x"] == 3:
        tune.report({"ms": float("nan"), "ciq_status": "wrong", "ciq_message": "three is wrong"})

if __name__ == "__main__":
    uri, folder, how = sys.argv[1:4]
    pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    callback = MLflowCallback(
        tracking_uri=uri, experiment_name="tests", run_name="tuned", metric="ms", description="Trials."
    )
    if how == "restore":
        tuner = tune.Tuner.restore(folder + "/tuned", trial, resume_unfinished=True)
    else:
        tuner = tune.Tuner(
            trial,
            param_space={"x": tune.grid_search([0, 1, 2, 3]), "tile[m]": 1, "pause": pause},
            run_config=tune.RunConfig(name="tuned", storage_path=folder, callbacks=[callback], verbose=0),
        )
    tuner.fit()
    ray.shutdown()
"""


def check(database: Looking) -> None:
    parent, trials = database.search()
    assert (parent.info.run_name, parent.info.status) == ("tuned", "FINISHED")
    assert parent.data.tags["mlflow.note.content"].startswith("Trials.\n\n[All evaluations")
    by_x = {run.data.params["x"]: run for run in trials.values()}
    assert set(by_x) == {"0", "1", "2", "3"}
    assert [by_x[x].info.status for x in "0123"] == ["FINISHED", "FINISHED", "FAILED", "FAILED"]
    assert "two is too much" in by_x["2"].data.tags["ciq.message"]
    assert by_x["3"].data.tags["ciq.status"] == "wrong"
    assert by_x["3"].data.tags["ciq.message"] == "three is wrong"
    assert by_x["0"].data.params["tile_m_"] == "1"
    for x in "01":
        points = database.client.get_metric_history(by_x[x].info.run_id, "ms")
        assert [(point.step, point.value) for point in points] == [(i + 1, int(x) + 3 - i) for i in range(3)]
        assert by_x[x].data.metrics["nested/a"] == 2
        assert "inf" not in by_x[x].data.metrics
    assert parent.data.metrics["best_ms"] == 1
    assert not database.running()


@pytest.mark.slow
def test_an_experiment(database: Any, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), database.uri, str(tmp_path / "tune"), "new"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, run.stderr
    check(database)


@pytest.mark.slow
def test_one_that_is_killed_and_restored(database: Any, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), database.uri, str(tmp_path / "tune")]
    process = subprocess.Popen([*command, "new", "1.5"], start_new_session=True, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 90
        while not database.begun() or not database.runs() or len(database.runs(database.runs()[0])) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(3)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "restore"], check=True, cwd=tmp_path, timeout=120)
    parent, trials = database.search()
    assert parent.info.status == "FINISHED"
    assert len({run.data.params["x"] for run in trials.values()}) == len(trials) == 4
    assert not database.running()


SPACE = Space({"x": Range(0, 7)})


def hostile(config: dict[str, Any]) -> float:
    if config["x"] == 0:
        raise ValueError("nothing at all")
    if config["x"] == 3:
        raise ObjectiveFailure("compile_error", "three")
    return float(config["x"])


@pytest.mark.usefixtures("ray_head")
@pytest.mark.parametrize("batch", [1, 3])
def test_each_configuration_has_its_run_and_the_experiment_one_for_all_calls(
    batch: int, database: Any, tmp_path: Path
) -> None:
    import ciq_ray.tune

    def run(evaluations: int, batch: int) -> None:
        # the first one fails: what it lacks must not spoil the best
        points = [{"x": x} for x in (0, 6, 3, 5, 7)]
        searcher = create("random", SPACE, metric="ms", mode="min", seed=0, points_to_evaluate=points)
        ciq_ray.tune.run(
            hostile,
            SPACE,
            num_samples=evaluations,
            searcher=searcher,
            batch=batch,
            max_concurrent_trials=1,
            storage_path=tmp_path / "tune",
            name="tuned",
            callbacks=[
                ciq_ray.tune.MLflowCallback(
                    tracking_uri=database.uri, experiment_name="tests", metric="ms", mode="min"
                )
            ],
        )

    def best(parent: Any) -> list[tuple[int, float]]:
        points = database.client.get_metric_history(parent.info.run_id, "best_ms")
        return [(point.step, point.value) for point in points]

    run(5, batch)
    parent, runs = database.search()
    assert (parent.info.run_name, parent.info.status) == ("tuned", "FINISHED")
    assert best(parent) == [(2, 6.0), (4, 5.0), (5, 5.0)]
    by_x = {found.data.params["x"]: found for found in runs.values()}
    assert sorted(by_x) == ["0", "3", "5", "6", "7"]
    for x, found in by_x.items():
        assert found.info.end_time >= found.info.start_time
        assert "ciq_run_s" in found.data.metrics
        failed = x in "03"
        assert found.info.status == ("FAILED" if failed else "FINISHED")
        assert found.data.metrics.get("ms") == (None if failed else float(x))
    tags = [by_x[x].data.tags for x in "035"]
    assert [tag["ciq.status"] for tag in tags] == ["run_error", "compile_error", "ok"]
    assert "ValueError: nothing at all" in tags[0]["ciq.message"]
    assert [tag.get("ciq.message") for tag in tags[1:]] == ["three", None]

    # as if the driver had been killed before this one was written
    database.client.delete_run(by_x["3"].info.run_id)
    run(8, batch)
    again, runs = database.search()
    assert (again.info.run_id, again.info.status) == (parent.info.run_id, "FINISHED")
    assert len({found.data.params["x"] for found in runs.values()}) == len(runs) == 8
    (added,) = (found for found in runs.values() if found.data.params["x"] == "3")
    assert added.data.tags["ciq.key"] == by_x["3"].data.tags["ciq.key"]
    assert (added.info.status, added.data.tags["ciq.message"]) == ("FAILED", "three")
    history = best(again)
    assert [step for step, _ in history] == [2, 4, 5, 6, 7, 8]
    assert history[-1] == (8, 1.0)
    assert not database.running()


def hangs_up(config: dict[str, Any]) -> float:
    os.kill(os.getpid(), signal.SIGKILL)  # called in the actor itself
    return 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_a_batch_whose_actor_dies_again_and_again(database: Any, tmp_path: Path) -> None:
    import ciq_ray.tune

    callback = ciq_ray.tune.MLflowCallback(
        tracking_uri=database.uri, experiment_name="tests", metric="score", mode="min"
    )
    ciq_ray.tune.run(
        hangs_up,
        {"x": Range(0, 1)},
        num_samples=2,
        searcher="random",
        in_process=True,
        batch=2,
        max_concurrent_trials=1,
        time_budget_s=60,
        storage_path=tmp_path / "tune",
        callbacks=[callback],
    )
    _, runs = database.search()
    assert {found.info.status for found in runs.values()} == {"FAILED"}
    lost = [found for found in runs.values() if found.data.tags["ciq.status"] == "lost"]
    assert sorted(found.data.params["x"] for found in lost) == ["0", "1"]
    assert not database.running()


def test_it_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from ciq_ray.tune import MLflowCallback

    callback = MLflowCallback(tracking_uri="htp://nowhere")
    with caplog.at_level(logging.ERROR):
        callback.setup()
        callback.on_trial_start(0, [], None)
        callback.on_trial_result(0, [], None, {"ms": 1})
        callback.on_trial_complete(0, [], None)
        callback.on_experiment_end([])
    assert "`tracking_uri` is 'htp://nowhere'" in caplog.text
    with pytest.raises(ConfigurationError, match="`mode` is 'least'"):
        MLflowCallback(mode="least")
