"""Trials of Ray Tune in MLflow."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.errors import ConfigurationError
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
        tune.report({"ms": 0, "status": "wrong", "message": "three is wrong"})

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
    assert by_x["0"].data.params["tile_m_"] == "1"
    for x in "01":
        points = database.client.get_metric_history(by_x[x].info.run_id, "ms")
        assert [(point.step, point.value) for point in points] == [(i + 1, int(x) + 3 - i) for i in range(3)]
        assert by_x[x].data.metrics["nested/a"] == 2
        assert "inf" not in by_x[x].data.metrics
    assert parent.data.metrics["best_ms"] == 1
    assert not database.running()


def test_an_experiment(database: Any, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), database.uri, str(tmp_path / "tune"), "new"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, run.stderr
    check(database)


@pytest.mark.slow
def test_one_that_is_killed_and_restored(database: Any, tmp_path: Path) -> None:
    import os
    import signal

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
