"""The RAY worker on two real nodes of one machine: tasks, limits, GPUs, deaths."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ciq_ray.errors import BaselineError, ConfigurationError, WorkerError
from ciq_ray.worker import RayWorker
from ciq_ray.worker.protocol import Report, Task
from tests.ciq_ray.worker.conftest import Driver
from tests.ray_cluster import NODE

pytestmark = [pytest.mark.usefixtures("ray_nodes"), pytest.mark.timeout(120)]

Opener = Callable[..., Driver]


def owned(owner: str) -> list[int]:
    """Live processes that have inherited the owner's variable: children, guards and what they started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get("TEST_OWNER") == owner:
                found.append(process.pid)
    return found


@pytest.fixture
def opened(tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Opener]:
    """Opens workers; when the test is over closes them and looks for processes they left."""
    owner = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:

        def open_worker(
            function: Callable[[Any], Any], options: dict[str, Any] | None = None, **arguments: Any
        ) -> Driver:
            worker = RayWorker(tmp_path)
            stack.callback(worker.close)
            worker.configure({**(options or {}), "runtime_env": {"env_vars": {"TEST_OWNER": owner}}})
            worker.open(function, **{"num_workers": 1, "task_timeout": None, **arguments})
            return Driver(worker)

        yield open_worker
    wait_until(lambda: owned(owner) == [])


def run_all(driver: Driver, configs: list[Any], within: float = 60) -> dict[str, list[Report]]:
    """Evaluate, sending lost ones again as an engine does; all reports of each."""
    reports: dict[str, list[Report]] = {str(i): [] for i in range(len(configs))}
    todo = [Task(str(i), config) for i, config in enumerate(configs)]
    left = len(configs)
    deadline = time.monotonic() + within
    while left:
        while todo and driver.worker.free:
            driver.worker.submit(todo.pop(0))
        for report in driver.worker.poll(0.5):
            got = reports[report.task_id]
            assert not any(earlier.outcome.status != "lost" for earlier in got), "reported twice"
            got.append(report)
            if report.outcome.status == "lost":
                todo.insert(0, Task(report.task_id, configs[int(report.task_id)]))
            else:
                left -= 1
        assert time.monotonic() < deadline, f"{left} not done in time"
    return reports


def test_values_failures_and_where_they_come_from(opened: Opener) -> None:
    def objective(config: dict[str, Any]) -> float:
        print("printed", config["x"])
        if config["x"] == 3:
            raise ValueError("three")
        if config["x"] == 4:
            os.kill(os.getpid(), signal.SIGSEGV)
        return float(config["x"])

    driver = opened(objective, num_workers=4)
    reports = driver.evaluate(*({"x": x} for x in range(20)), within=60)
    values = [report.outcome.values for report in reports]
    assert values == [() if x in (3, 4) else (float(x),) for x in range(20)]
    raised, crashed = reports[3].outcome, reports[4].outcome
    assert raised.status == crashed.status == "run_error"
    assert "ValueError: three" in raised.message
    assert "printed 3" in raised.message
    assert "SIGSEGV" in crashed.message
    import ray

    for report in reports:
        assert set(report.place) == {"node", "actor"}
        assert report.place["node"] in {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        assert report.worker.startswith("ray-")
        assert report.pid


def test_a_hung_objective_is_killed_with_what_it_started_and_the_actor_lives_on(
    opened: Opener, tmp_path: Path, alive: Callable[[int], bool]
) -> None:
    def objective(config: str) -> float:
        if config == "hang":
            import subprocess

            process = subprocess.Popen(["sleep", "600"], start_new_session=True)
            Path(tmp_path / "pid").write_text(str(process.pid))
            time.sleep(600)
        return 1.0

    driver = opened(objective, task_timeout=1.0)
    before = driver.one("")
    started = time.monotonic()
    hung = driver.one("hang")
    assert time.monotonic() - started < 2.0
    assert hung.outcome.status == "run_timeout"
    assert not alive(int((tmp_path / "pid").read_text()))
    after = driver.one("")
    assert after.outcome.ok
    assert after.place["actor"] == before.place["actor"]
    assert after.pid != before.pid


def test_an_evaluation_sees_its_gpus_and_no_others(opened: Opener) -> None:
    def visible(config: Any) -> tuple[float]:
        time.sleep(0.3)
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        return (float(gpus) if gpus else -1.0,)

    assert opened(visible).one().outcome.values == (-1.0,)
    # CPUs are not asked for: the two nodes have four, and one is taken already
    driver = opened(visible, {"num_gpus": 1, "num_cpus": 0}, num_workers=None)
    reports = run_all(driver, [None] * 12)
    seen = {(r.place["node"], r.outcome.values[0], r.place["gpu"]) for (r,) in reports.values()}
    assert len(seen) == 4, "one actor for each GPU"
    assert {gpu for _, _, gpu in seen} == {"0", "1"}
    assert all(float(gpu) == value for _, value, gpu in seen)


def test_labels_choose_nodes(opened: Opener) -> None:
    import ray

    second = {node["NodeID"] for node in ray.nodes() if node["Labels"].get("pool") == "second"}
    driver = opened(lambda config: 1.0, {"label_selector": {"pool": "second"}}, num_workers=None)
    reports = run_all(driver, [None] * 8)
    assert {report.place["node"] for (report,) in reports.values()} <= second


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_one_that_leaves_is_not_missed(opened: Opener, ray_nodes: Any) -> None:
    def objective(config: Any) -> float:
        time.sleep(0.02)
        return 1.0

    worker = opened(objective, {"num_gpus": 1, "num_cpus": 0}, num_workers=None).worker
    third, seen, sent, done = ray_nodes.add_node(**NODE), set(), 0, 0
    try:
        deadline = time.monotonic() + 60
        while third.node_id not in seen:
            while worker.free:
                worker.submit(Task(str(sent), None))
                sent += 1
            for report in worker.poll(0.5):
                done += 1
                seen.add(report.place["node"])
            assert time.monotonic() < deadline
    finally:
        ray_nodes.remove_node(third, allow_graceful=False)
    while done < sent:
        for report in worker.poll(0.5):
            done += 1
            assert report.outcome.ok or report.place["node"] == third.node_id
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpus": -1}, "`num_gpus` is -1"),
        ({"num_gpus": 1.5}, "`num_gpus` is 1.5"),
        ({"num_gpus": 3}, "num_gpus=3.*the cluster has [23] nodes with"),
        ({"resources": {"TPU": 1}}, "resources={'TPU': 1}"),
        ({"resources": {"GPU": 1}}, "`resources`"),
        ({"label_selector": {"pool": "third"}}, "label_selector={'pool': 'third'}"),
        ({"accelerator_type": "H100"}, "accelerator_type='H100'"),
        ({"scheduling_strategy": "NEAR"}, "`scheduling_strategy` is 'NEAR'"),
        ({"runtime_env": 3}, "`runtime_env` is 3"),
        ({"max_restarts": 2}, "`max_restarts` is set by the RAY worker"),
        ({"max_resends": -1}, "`max_resends` is -1"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, options: Any, message: str) -> None:
    worker = RayWorker(tmp_path)
    with pytest.raises(ConfigurationError, match=message):  # noqa: PT012 - either may refuse it
        worker.configure(options)
        worker.open(len)
    worker.close()


def test_unknown_options_are_a_warning(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"RayWorker does not use `colour`, `num_gpu` \(.* `num_gpus`\?\)"
    ) as w:
        RayWorker(tmp_path).configure({"colour": "red", "num_gpu": 1})
    assert [warning.filename for warning in w] == [__file__], "it is the caller's line"


def test_the_documented_run(tmp_path: Path) -> None:
    worker = RayWorker.create(tmp_path, True, None)
    scores = worker.run(
        function=lambda config: config.get("x", 2.0),
        params_pool=[{"x": 4.0}, {"x": float("nan")}],
        params_ids=[7, 8],
        num_gpus=1,
    )
    assert [(score.param_id, score.norm_score) for score in scores] == [(7, 2.0), (8, "*")]


def test_a_baseline_that_fails_ends_the_search(opened: Opener) -> None:
    def objective(config: dict[str, float]) -> float:
        return 1.0 / config["x"]

    driver = opened(objective, baseline_config={"x": 0.0})
    with pytest.raises(BaselineError, match="ZeroDivisionError"):
        driver.one({"x": 1.0})


def test_the_baseline_is_measured_by_each_actor_and_again_each_generation(opened: Opener) -> None:
    calls: list[int] = []

    def objective(config: dict[str, float]) -> float:
        calls.append(1)
        return float(len(calls)) if config.get("baseline") else 100.0

    driver = opened(objective, baseline_config={"baseline": True})
    assert [driver.one({}, generation=0).baseline for _ in range(2)] == [(1.0,), (1.0,)]
    assert driver.one({}, generation=1).baseline == (4.0,)


def test_an_objective_that_cannot_be_loaded_ends_the_search(opened: Opener) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return (__import__, ("no_such_module",))

        def __call__(self, config: Any) -> float:
            return 1.0

    driver = opened(Bad())
    with pytest.raises(WorkerError, match="No module named 'no_such_module'"):
        driver.one()


def test_a_node_where_it_cannot_be_loaded_is_not_used(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    (second,) = (node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Labels"].get("pool"))

    class OnlyElsewhere:
        def __reduce__(self) -> Any:
            return (load, (second,))

        def __call__(self, config: Any) -> float:
            return 1.0

    def load(lacks: str) -> Any:
        import psutil

        raylet = psutil.Process(os.getppid()).parent()
        if lacks in " ".join(raylet.cmdline()):
            raise ModuleNotFoundError("No module named 'only_on_the_first_node'")

        def objective(config: float) -> float:
            time.sleep(config)
            return config

        return objective

    options = {"num_gpus": 1, "num_cpus": 0}
    driver = opened(OnlyElsewhere(), options, num_workers=None)
    reports = run_all(driver, [0.02] * 60)
    assert {report.place["node"] for (report,) in reports.values()}.isdisjoint({second})
    assert all(report.outcome.ok for (report,) in reports.values()), "none is counted against a candidate"
    warnings = [record.getMessage() for record in caplog.records if "cannot evaluate" in record.getMessage()]
    assert len(warnings) == 1
    assert f"node {second} cannot evaluate" in warnings[0]
    assert "only_on_the_first_node" in warnings[0]


def test_cancel_stops_what_runs(opened: Opener, tmp_path: Path, alive: Callable[[int], bool]) -> None:
    def objective(config: float) -> float:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(config)
        return config

    driver = opened(objective)
    driver.one(0.0)
    driver.worker.submit(Task("a", 600.0))
    assert driver.worker.poll(0.5) == []
    pid = int((tmp_path / "pid").read_text())
    assert driver.worker.cancel() == ["a"]
    assert not alive(pid)
    assert driver.one(0.0).outcome.ok


def test_a_task_that_kills_its_actor_is_the_suspect_and_nobody_else_is(opened: Opener) -> None:
    def objective(config: int) -> float:
        if config == 30:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return float(config)

    worker = opened(objective, num_workers=2).worker
    todo, done, lost = [Task(str(i), i) for i in range(60)], {}, []
    deadline = time.monotonic() + 60
    while len(done) < 60:
        while todo and worker.free:
            worker.submit(todo.pop(0))
        for report in worker.poll(0.5):
            if report.outcome.status == "lost" and lost.count(report.task_id) < 3:
                lost.append(report.task_id)
                todo.insert(0, Task(report.task_id, int(report.task_id)))
                continue
            assert report.task_id not in done
            done[report.task_id] = report.outcome
        assert time.monotonic() < deadline
    assert lost == ["30"] * 3
    assert done.pop("30").status == "lost"
    assert all(outcome.ok for outcome in done.values())


def test_nothing_survives_the_death_of_an_actor(
    opened: Opener, tmp_path: Path, wait_until: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    def objective(config: Any) -> float:
        import subprocess

        if config == "quick":
            return 1.0
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (tmp_path / "pids.tmp").write_text(f"{os.getppid()} {os.getpid()} {child.pid}")
        (tmp_path / "pids.tmp").rename(tmp_path / "pids")
        time.sleep(600)
        return 0.0

    for kill in ("ray.kill", "SIGKILL", "SIGTERM"):
        driver = opened(objective)
        (tmp_path / "pids").unlink(missing_ok=True)
        driver.worker.submit(Task("a", "slow"))
        deadline = time.monotonic() + 30
        while not (tmp_path / "pids").exists():
            assert driver.worker.poll(0.1) == []
            assert time.monotonic() < deadline
        actor, *family = map(int, (tmp_path / "pids").read_text().split())
        if kill == "ray.kill":
            (runner,) = driver.worker._pool._runners.values()
            runner.actor.end()
        else:
            os.kill(actor, getattr(signal, kill))
        (report,) = driver.worker.poll(20) or driver.worker.poll(20)
        assert report.outcome.status == "lost", kill
        wait_until(lambda pids=family: not any(map(alive, pids)), within=3)
        driver.worker.submit(Task("b", "quick"))
        (report,) = driver.worker.poll(20) or driver.worker.poll(20)
        assert report.outcome.ok
        driver.worker.close()


def test_what_waits_behind_a_slow_task_goes_to_an_idle_actor(opened: Opener) -> None:
    def objective(config: float) -> float:
        time.sleep(config)
        return config

    driver = opened(objective, num_workers=2)
    run_all(driver, [0.001] * 200)  # so that many are sent at once
    started = time.monotonic()
    run_all(driver, [3.0] + [0.01] * 60)
    assert time.monotonic() - started < 4.0
