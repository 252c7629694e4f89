"""Kernel searches from end to end, with kernels for the CPU: a real compiler, real processes that die."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import psutil
import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.errors import BaselineError, ConfigurationError
from ciq_ray.kernels import time_kernel
from ciq_ray.kernels.stations import Stations
from ciq_ray.kernels.worker import KernelWorker
from ciq_ray.types import WorkerTypes
from ciq_ray.worker.protocol import Task
from searchers import Space
from searchers.outcome import Outcome
from tests.ciq_ray.kernels.host_kernel import Assassin, HostKernel

FAST = {"budget_ms": 2.0, "min_samples": 3, "warmup_ms": 2.0, "window_ms": 1.0}


def outcomes(folder: Path) -> list[dict[str, Any]]:
    with (folder / "journal.jsonl").open() as lines:
        return [record for line in lines if (record := json.loads(line)).get("t") == "outcome"]


def search(kernel: HostKernel, **fields: Any) -> Search:
    options = {
        "objective_function": kernel,
        "search_config": SearchConfiguration(generations=3, pool_size=8),
        "remeasure_every": 0,
        "searcher": "random",
        "seed": 1,
        "final_race": False,
        "disable_progress_bar": True,
        "exit_on_failure": False,
        **fields,
    }
    return Search(**options)


def started(made: Search, **options: Any) -> Any:
    return made.start(**{"num_workers": 2, "task_timeout": 2.0, **FAST, **options})


EXPECTED = {
    "ok": "ok",
    "no_compile": "compile_error",
    "no_load": "resource_exceeded",
    "raises": "run_error",
    "sticky": "run_error",
    "wrong": "wrong",
    "nan": "wrong",
    "nothing": "wrong",
    "constant": "wrong",
    "stray": "wrong",
    "hang": "run_timeout",
    "deaf": "run_timeout",
    "segfault": "run_error",
    "killed": "run_error",
    "exits": "run_error",
    "family": "ok",
}


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch, wait_for: Any) -> Iterator[None]:
    """When a test is over, no process that it has started is left, whoever is its parent now."""
    token = f"CIQ_TEST_{secrets.token_hex(6)}"
    monkeypatch.setenv(token, "1")

    def left() -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
                if alive and token in process.environ():
                    found.append(process.pid)
        return found

    yield
    wait_for(lambda: not left(), "the end of all processes", within=5)


def test_every_way_to_fail_is_told_apart():
    kernel = HostKernel(tuple(EXPECTED))
    configs = [{"behaviour": name, "block": 64, "unroll": 1} for name in EXPECTED]
    made = search(kernel, searcher="finite", searcher_options={"configs": configs})
    result = started(made, task_timeout=1.0)
    found = {row["params"]["behaviour"]: row for row in result.rows()}
    statuses = {record["id"]: record["outcome"]["status"] for record in outcomes(result.folder)}
    assert {name: statuses[str(row["param_id"])] for name, row in found.items()} == EXPECTED


def test_what_compiles_to_the_same_binary_is_timed_once():
    kernel = HostKernel()
    configs = [{"behaviour": "ok", "block": 16, "unroll": level} for level in (1, 2, 3, 4)]
    result = started(search(kernel, searcher="finite", searcher_options={"configs": configs}))
    found = [record["outcome"] for record in outcomes(result.folder)]
    timed = [one for one in found if "same_binary_as" not in one["metrics"]]
    assert len(found) == 4
    assert len(timed) == 2
    assert len({one["metrics"]["digest"] for one in found}) == 2
    by_digest = {one["metrics"]["digest"]: one["values"] for one in timed}
    assert all(one["values"] == by_digest[one["metrics"]["digest"]] for one in found)
    assert all(one["compile_s"] > 0 for one in found)
    assert sum("gpu_at" in one["metrics"] for one in found) == 2


def test_next_ones_compile_while_one_is_timed():
    result = started(search(HostKernel()), budget_ms=30.0, min_samples=500, max_samples=2000)
    metrics = [record["outcome"]["metrics"] for record in outcomes(result.folder)]
    timing = [one["gpu_at"] for one in metrics if "gpu_at" in one]
    compiling = [one["compile_at"] for one in metrics if "compile_at" in one]
    assert any(a < end and begin < b for a, b in timing for begin, end in compiling)


def test_a_kernel_brings_its_space_its_baseline_and_a_race():
    kernel = HostKernel()
    made = Search(
        objective_function=kernel,
        search_config=SearchConfiguration(generations=1, pool_size=8),
        searcher="random",
        seed=3,
        disable_progress_bar=True,
    )
    assert made.space is kernel.space
    assert made.final_race is True


def test_values_over_several_shapes_are_ratios_to_the_baseline():
    kernel = HostKernel(shapes={"small": 512, "large": 16384})
    configs = [kernel.space.default_config(), {"behaviour": "ok", "block": 64, "unroll": 1}]
    result = started(search(kernel, searcher="finite", searcher_options={"configs": configs}))
    for record in outcomes(result.folder):
        (value,), metrics = record["outcome"]["values"], record["outcome"]["metrics"]
        times = {name: timing["median_ms"] for name, timing in metrics["timing"].items()}
        assert set(times) == {"small", "large"}
        # a mean of ratios, if it is a geometric one, is a ratio of means
        assert value == pytest.approx(geometric_mean(times.values()) / metrics["control_ms"])


def test_normalized_scores_are_ratios_to_the_devices_own_control():
    config = SearchConfiguration(generations=1, pool_size=8, normalize=True)
    result = started(search(HostKernel(), search_config=config))
    for record in outcomes(result.folder):
        assert record["baseline"][0] == record["outcome"]["metrics"]["control_ms"]
        assert record["normalized"][0] == pytest.approx(
            record["outcome"]["values"][0] / record["baseline"][0]
        )


def test_a_baseline_that_does_not_compile_ends_a_search_that_needs_it(runs):
    kernel = HostKernel(("no_compile", "ok"))
    with pytest.raises(BaselineError, match=r"cannot be compiled[\s\S]*`initial_configs`"):
        started(search(kernel, final_race=True))
    assert list(runs.iterdir()) in ([], [runs / "1"])
    result = started(search(kernel))  # one that does not goes on
    assert {record["outcome"]["status"] for record in outcomes(result.folder)} == {"ok", "compile_error"}


def test_a_baseline_that_fails_on_the_device_ends_a_search_that_needs_it():
    with pytest.raises(BaselineError, match="fails on the device: wrong"):
        started(search(HostKernel(("wrong", "ok")), final_race=True))


class Endless(HostKernel):
    """Compiles for ever where `block` is 32."""

    def compile(self, config, target, *, keep=False):
        if config["block"] == 32:
            time.sleep(600)
        return super().compile(config, target, keep=keep)


def test_compiling_has_a_limit():
    configs = [{"behaviour": "ok", "block": block, "unroll": 1} for block in (32, 64)]
    made = search(Endless(), searcher="finite", searcher_options={"configs": configs})
    result = started(made, compile_timeout=0.5)
    statuses = [record["outcome"]["status"] for record in outcomes(result.folder)]
    assert Counter(statuses) == {"compile_timeout": 1, "ok": 2}  # with the default


def test_an_owner_that_dies_is_replaced_and_no_candidate_blamed(tmp_path):
    result = started(search(Assassin(str(tmp_path / "done"))))
    assert (tmp_path / "done").exists()
    assert {record["outcome"]["status"] for record in outcomes(result.folder)} == {"ok"}


def test_an_owner_that_dies_under_a_single_timing_blames_nobody(tmp_path):
    config = {"behaviour": "ok", "block": 64, "unroll": 1}
    assert time_kernel(Assassin(str(tmp_path / "done")), config).status == "lost"


def test_an_interrupted_close_still_ends_what_was_started():
    closed = []

    class Slow:
        capacity = places = 1

        def step(self, timeout, wake):
            time.sleep(0.01)
            return []

        def close(self):
            time.sleep(0.5)
            closed.append(True)

    worker = KernelWorker(Slow)
    worker.open(len)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        worker.close()
    timer.join()
    assert closed == [True]


def test_each_candidate_in_a_process_of_its_own():
    kernel = HostKernel(("ok", "segfault"))
    config = SearchConfiguration(generations=1, pool_size=6)
    result = started(search(kernel, worker_type=WorkerTypes.ISOLATED, search_config=config))
    assert {record["outcome"]["status"] for record in outcomes(result.folder)} <= {"ok", "run_error"}


def test_arguments_are_refused_before_anything_is_spent(runs):
    with pytest.raises(ConfigurationError, match=r"`worker_type`.*NATIVE"):
        started(search(HostKernel(), worker_type=WorkerTypes.ASYNC))
    with pytest.raises(ConfigurationError, match="`budget_ms` is -1"):
        started(search(HostKernel()), budget_ms=-1)
    for option, value in (("budget_ms", "x"), ("retries", "x"), ("wait_for_device_s", "x"), ("seeds", 3)):
        with pytest.raises(ConfigurationError, match=f"`{option}`.* is '?[x3]'?; "):
            started(search(HostKernel()), **{option: value})
    with pytest.raises(ConfigurationError, match=r"`devices` is 1\.5"):
        started(search(HostKernel()), devices=1.5)
    with pytest.raises(ConfigurationError, match="`lock_clocks` is 'fast'"):
        started(search(HostKernel()), lock_clocks="fast")
    with pytest.raises(ConfigurationError, match=r"`wait_for_device_s`.* is -1"):
        started(search(HostKernel()), wait_for_device_s=-1)
    with pytest.raises(ConfigurationError, match="`search_space`"):
        Search(objective_function=len, search_config=SearchConfiguration(generations=1))
    assert not runs.exists() or not list(runs.iterdir())


def test_options_nobody_knows_are_a_warning():
    with pytest.warns(UserWarning, match="`bugdet_ms`.*budget_ms") as caught:
        started(search(HostKernel(), max_evaluations=2), bugdet_ms=3)
    assert [warning.filename for warning in caught] == [__file__], "it is the caller's line"


def test_options_of_gpus_are_a_warning_without_one():
    with pytest.warns(UserWarning, match="needs no GPU; without effect: `devices`, `lock_clocks`$") as caught:
        started(search(HostKernel(), max_evaluations=2), devices=[0], lock_clocks="base", power_watts=None)
    assert [warning.filename for warning in caught] == [__file__]


SCRIPT = """
import sys
from ciq_ray import Search, SearchConfiguration
from tests.ciq_ray.kernels.host_kernel import Assassin, HostKernel

KERNEL = HostKernel(("ok", "slow"))

if __name__ == "__main__":
    options = {"num_workers": 1, "budget_ms": 2.0, "warmup_ms": 1.0, "min_samples": 3}
    if len(sys.argv) > 1:
        search = Search.resume(sys.argv[1], KERNEL)
    else:
        search = Search(
            objective_function=KERNEL,
            search_config=SearchConfiguration(generations=3, pool_size=12),
            searcher="random",
            seed=1,
            final_race=False,
            remeasure_every=0,
            disable_progress_bar=True,
        )
    search.start(**options)
"""


class Parricide(HostKernel):
    """Kills the owner of its device whenever `block` is 32."""

    def load(self, artefact, config, runtime, workload):
        if config["block"] == 32:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(artefact, config, runtime, workload)


@pytest.mark.slow
def test_a_candidate_that_ends_every_owner_is_found_out_and_nothing_else_is_lost():
    configs = [{"behaviour": "ok", "block": block, "unroll": 1} for block in (64, 32, 128)]
    made = search(Parricide(), searcher="finite", searcher_options={"configs": configs})
    result = started(made)
    found = {row["params"]["block"]: (row["status"], row["message"]) for row in result.rows()}
    assert {block: status for block, (status, _) in found.items()} == {
        16: "ok",
        64: "ok",
        32: "run_error",
        128: "ok",
    }
    assert "lost 4 times" in found[32][1]


def test_a_twin_that_is_measured_again_is_timed_itself():
    kernel = HostKernel()
    configs = [{"behaviour": "ok", "block": 64, "unroll": level} for level in (1, 2)]
    made = search(kernel, searcher="finite", searcher_options={"configs": configs})
    with (
        Stations(kernel, WorkerTypes.NATIVE, 1, 2.0, FAST) as stations,
        tempfile.TemporaryDirectory() as cache,
    ):
        worker = stations.worker(Path(cache), baseline=None, normalize=False, needed=False, racing=False)
        worker.open(kernel)
        with contextlib.closing(worker):
            first, second = (evaluated(worker, str(n), config) for n, config in enumerate(configs))
            assert second.metrics["same_binary_as"] == "0"
            again = evaluated(worker, "1", configs[1])
            assert "same_binary_as" not in again.metrics
            assert again.metrics["gpu_at"][0] > first.metrics["gpu_at"][1]
    assert made.space is kernel.space


def test_work_goes_on_after_all_was_cancelled(wait_for):
    kernel = HostKernel(("ok", "hang"))
    with (
        Stations(kernel, WorkerTypes.NATIVE, 1, 60.0, FAST) as stations,
        tempfile.TemporaryDirectory() as cache,
    ):
        baseline = kernel.space.default_config()
        worker = stations.worker(Path(cache), baseline=baseline, normalize=True, needed=True, racing=False)
        worker.open(kernel)
        with contextlib.closing(worker):
            config = {"behaviour": "ok", "block": 64, "unroll": 1}
            worker.submit(Task("0", config))
            assert worker.cancel() == ["0"]  # while the control is compiled
            assert evaluated(worker, "1", config).ok
            worker.submit(Task("2", {**config, "behaviour": "hang"}))
            time.sleep(0.3)
            assert worker.cancel() == ["2"]  # while it hangs on the device
            assert evaluated(worker, "3", {**config, "block": 128}).ok


def evaluated(worker: KernelWorker, name: str, config: Any) -> Outcome:
    worker.submit(Task(name, config))
    while not (reports := worker.poll(1.0)):
        pass
    assert [report.task_id for report in reports] == [name]
    return reports[0].outcome


def test_what_is_kept_for_debugging_is_the_logs(monkeypatch):
    monkeypatch.delenv("CIQ_KEEP_CACHE", raising=False)
    result = started(search(HostKernel(), debug=True, max_evaluations=3))
    assert len(result) == 3
    (logs,) = Path(os.environ["CIQ_CACHE_DIR"]).glob("searches/*/logs")
    assert [entry.name for entry in logs.parent.iterdir() if not entry.name.startswith(".")] == ["logs"]


def test_normalized_scores_need_a_baseline_that_works(runs):
    kernel = HostKernel()
    kernel.space = Space(kernel.space.parameters)
    config = SearchConfiguration(generations=1, pool_size=8, normalize=True)
    with pytest.raises(BaselineError, match=r"`default`"):
        started(search(kernel, search_config=config))


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_search_that_is_ended_goes_on_later(number, runs, scripts, wait_for, monkeypatch):
    script = scripts.write(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    process = scripts.start(script)
    journal = runs / "1" / "journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count('"t":"outcome"') >= 5, "5 outcomes")
    process.send_signal(number)
    process.wait(30)
    wait_for(lambda: not scripts.alive(), "the end of what it started")
    before = outcomes(runs / "1")
    done = subprocess.run(
        [sys.executable, str(script), str(runs / "1")],
        cwd=scripts.folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    after = outcomes(runs / "1")
    assert after[: len(before)] == before
    assert len({record["id"] for record in after}) == len(after) == 36
