"""The trainable around an objective, without Ray's processes: Ray Tune's calls are made by hand."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from ciq_ray import ObjectiveFailure
from ciq_ray.errors import ConfigurationError
from ciq_ray.tune import trainable
from searchers import Outcome

Opened = Callable[..., Any]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Opened]:
    """Makes trainables as an actor of Ray Tune would, and ends them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # where a trainable without an experiment has its folder
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "folders"))
    with ExitStack() as stack:

        def make(objective: Callable[[Any], Any], config: dict[str, Any], **options: Any) -> Any:
            made = trainable(objective, **options)(config)
            stack.callback(made.stop)
            return made

        yield make


def all_kinds(config: dict[str, Any]) -> Any:
    kind = config["kind"]
    if kind == "raises":
        raise ValueError("no such tile")
    if kind == "compile_error":
        raise ObjectiveFailure("compile_error", "too many registers")
    if kind == "outcome":
        return Outcome("ok", (3.0,), compile_s=0.5, metrics={"registers": 40})
    if kind == "exit":
        sys.exit(3)
    return {"ok": 2.5, "nan": math.nan, "text": "fast", "pair": (1.0, 2.0)}[kind]


@pytest.mark.parametrize("in_process", [False, True])
def test_what_an_objective_does_becomes_a_result(in_process: bool, opened: Opened) -> None:
    trial = opened(all_kinds, {"kind": "ok"}, metric="ms", in_process=in_process)
    found = {}
    for kind in ("ok", "outcome", "raises", "compile_error", "nan", "text", "pair", "exit"):
        assert trial.reset({"kind": kind})
        result = trial.train()
        assert result["done"]
        assert math.isnan(result["ms"]) == (result["ciq_status"] != "ok")
        found[kind] = (result["ciq_status"], result["ciq_message"])
        assert result["ciq_run_s"] >= 0
        if kind == "outcome":
            assert (result["ciq_compile_s"], result["ciq_metrics"]) == (0.5, {"registers": 40})
    assert [status for status, _ in found.values()] == [
        "ok",
        "ok",
        "run_error",
        "compile_error",
        "invalid_result",
        "invalid_result",
        "invalid_result",
        "run_error",
    ]
    assert "ValueError: no such tile" in found["raises"][1]
    assert found["compile_error"][1] == "too many registers"


def hangs_with_a_child(config: dict[str, Any]) -> float:
    if config["hang"]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        Path(config["hang"]).write_text(str(child.pid))
        child.wait()
    return float(os.getpid())


def test_a_hung_objective_is_killed_with_its_children_and_the_trainable_goes_on(
    opened: Opened, tmp_path: Path
) -> None:
    trial = opened(hangs_with_a_child, {"hang": ""}, task_timeout=1.0)
    before = trial.train()["score"]
    trial.reset({"hang": str(tmp_path / "pid")})
    started = time.monotonic()
    result = trial.train()
    assert 1.0 <= time.monotonic() - started < 2.5
    assert result["ciq_status"] == "run_timeout"
    assert result["done"]
    grandchild = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie"
    trial.reset({"hang": ""})
    after = trial.train()["score"]
    assert before != after != os.getpid()


def dies(config: dict[str, Any]) -> float:
    os.kill(os.getpid(), config["signal"])
    return 1.0


def test_a_crash_is_a_result(opened: Opened) -> None:
    trial = opened(dies, {"signal": signal.SIGSEGV})
    result = trial.train()
    assert result["ciq_status"] == "run_error"
    assert "SIGSEGV" in result["ciq_message"]
    trial.reset({"signal": signal.SIGCONT})
    assert trial.train()["score"] == 1.0


def test_the_process_ends_with_the_trainable(opened: Opened) -> None:
    trial = opened(hangs_with_a_child, {"hang": ""})
    pid = int(trial.train()["score"])
    trial.stop()
    assert not psutil.pid_exists(pid)


def noisy(config: dict[str, Any]) -> float:
    path = Path(config["path"])
    count = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (count + 1))
    if count >= config.get("fails_from", 100):
        raise RuntimeError("worn out")
    return [10.0, 2.0, 4.0][count]


def test_each_repeat_is_a_step_with_the_median_so_far(opened: Opened, tmp_path: Path) -> None:
    trial = opened(noisy, {"path": str(tmp_path / "a")}, repeats=3)
    steps = [trial.train() for _ in range(3)]
    assert [step["score"] for step in steps] == [10.0, 6.0, 4.0]
    assert [step["done"] for step in steps] == [False, False, True]
    assert [step.get("ciq_samples") for step in steps] == [None, 2, 3]
    trial.reset({"path": str(tmp_path / "b"), "fails_from": 1})
    steps = [trial.train() for _ in range(2)]
    assert [step["ciq_status"] for step in steps] == ["ok", "run_error"]
    assert steps[1]["done"]


def two(config: dict[str, Any]) -> tuple[float, float]:
    if config["inner"]["x"] == 2:
        raise ValueError("two")
    return float(config["inner"]["x"]), float(10 * config["inner"]["x"] + config["inner"]["fixed"])


def test_a_batch_has_a_row_for_each_and_the_best_of_each_metric(opened: Opened) -> None:
    batch = [{"inner": {"x": x}} for x in (3, 2, 1)]
    trial = opened(
        two, {"inner": {"fixed": 7}, "ciq_batch": batch}, metric=["time", "size"], mode=["min", "max"]
    )
    result = trial.train()
    assert result["done"]
    assert (result["time"], result["size"], result["ciq_status"]) == (1.0, 37.0, "ok")
    rows = result["ciq_rows"]
    assert [row["ciq_status"] for row in rows] == ["ok", "run_error", "ok"]
    assert [row["size"] for row in rows if row["ciq_status"] == "ok"] == [37.0, 17.0]
    trial.reset({"inner": {"fixed": 7}, "ciq_batch": [{"inner": {"x": 2}}] * 2})
    result = trial.train()
    assert math.isnan(result["time"])
    assert result["ciq_status"] == "run_error"


def length(text: str) -> float:
    return float(len(text))


def test_a_configuration_that_is_no_dict(opened: Opened) -> None:
    trial = opened(length, {"config": "-O3"}, unwrap=True)
    assert trial.train()["score"] == 3.0


async def asynchronous(config: Any) -> float:
    return 1.0


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (3, {}, "objective_function"),
        (asynchronous, {}, "asynchronous"),
        (lambda config: LOCK, {}, "cannot be pickled"),
        (two, {"metric": None}, "metric"),
        (two, {"metric": ["a", "a"]}, "metric"),
        (two, {"mode": "smallest"}, "mode"),
        (two, {"in_process": True, "task_timeout": 3}, "task_timeout"),
        (two, {"task_timeout": 0}, "task_timeout"),
        (two, {"repeats": 0}, "repeats"),
        (two, {"resources": {"cpu": -1}}, "resources"),
        (two, {"label_selector": {"pool": 1}}, "label_selector"),
    ],
)
def test_what_cannot_be_is_refused(objective: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trainable(objective, **options)


def test_resources_are_those_of_the_trial() -> None:
    kind = trainable(two, resources={"cpu": 2, "gpu": 0.5, "a100": 1})
    assert kind.__name__ == "two"
    (bundle,) = kind.default_resource_request({}).bundles
    assert bundle == {"CPU": 2, "GPU": 0.5, "a100": 1}
