"""Whole searches on Ray: nodes, actors and processes that die, a driver that is killed, Ctrl-C, trackers."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.errors import ConfigurationError, JournalError
from ciq_ray.race import Plan
from ciq_ray.search_spaces import base
from ciq_ray.types import BaseTracker, DisabledTrackerConfig, LoguruTrackerConfig, WorkerTypes
from tests.ray_cluster import NODE

pytestmark = pytest.mark.timeout(180)

EVALUATIONS = 500


def search(function: Callable[[Any], Any], evaluations: int, **fields: Any) -> Search:
    return Search(
        objective_function=function,
        search_space={"x": base.range(0, 40), "y": base.range(0, 40), "z": base.choice(["a", "bb", "ccc"])},
        search_config=SearchConfiguration(generations=1000, pool_size=20),
        worker_type=WorkerTypes.RAY,
        max_evaluations=evaluations,
        seed=5,
        disable_progress_bar=True,
        **fields,
    )


def outcomes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["t"] == "outcome"]


KINDS = {"ciq_ray.worker.child", "ciq_ray.worker.guard", "ray::EvaluationActor"}
"""What an evaluation needs, by its command line."""


class Mischief:
    """Kills what the evaluations of one owner run in."""

    def __init__(self, cluster: Any, owner: str, seed: int) -> None:
        self.cluster, self.owner = cluster, owner
        self.rng = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.seen: set[str] = set()
        self.node = cluster.add_node(**NODE)

    def children(self) -> list[psutil.Process]:
        return [process for process in self.processes() if "ciq_ray.worker.child" in _command(process)]

    def processes(self) -> list[psutil.Process]:
        """All that evaluations need: children, their guards, and the actors, which Ray renames."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # an actor's own environment is that of its node, and was written before it had a name
                ours = process.environ().get("TEST_OWNER") == self.owner
                if process.status() != psutil.STATUS_ZOMBIE and (
                    ours or _command(process).startswith("ray::EvaluationActor")
                ):
                    found.append(process)
        return found

    def make(self, search: Future[Any]) -> None:
        """Do each deed once or twice at random moments, while the search goes on."""
        deeds = ["node", "actor", "actor", "segfault", "segfault"]
        self.rng.shuffle(deeds)
        for deed in deeds:
            time.sleep(self.rng.uniform(0, 0.7))
            while not search.done() and not self.act(deed, self.children()):
                time.sleep(0.05)

    def act(self, deed: str, children: list[psutil.Process]) -> bool:
        """Whether it could be done."""
        if not children:  # those that there were have just died
            return False
        commands = [_command(process) for process in self.processes()]
        self.seen |= {kind for kind in KINDS if any(kind in command for command in commands)}
        victim = self.rng.choice(children)
        try:
            if deed == "node":
                self.cluster.remove_node(self.node, allow_graceful=False)
                self.node = self.cluster.add_node(**NODE)
            elif deed == "actor":
                victim.parent().kill()
            else:
                victim.send_signal(signal.SIGSEGV)
        except psutil.Error:
            return False
        self.done[deed] += 1
        return True


def all_is_free() -> bool:
    """Whether nobody holds any of the cluster's resources."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    return all(free.get(name, 0.0) == total[name] for name in ("CPU", "GPU", "memory"))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_nodes_actors_and_processes_die_and_nothing_is_lost_or_counted_twice(
    ray_head: Any, records: Any, wait_for: Any, seed: int
) -> None:
    def objective(config: dict[str, Any]) -> float:
        time.sleep((config["x"] * 7 + config["y"] * 3) % 11 / 250)
        return float((config["x"] - 20) ** 2 + config["y"] + len(config["z"]))

    owner = secrets.token_hex(8)
    mischief = Mischief(ray_head, owner, seed)
    options = {"num_gpus": 1, "num_cpus": 0, "runtime_env": {"env_vars": {"TEST_OWNER": owner}}}
    try:
        with ThreadPoolExecutor(1) as thread:  # nodes can be added in the main thread only
            running = thread.submit(search(objective, EVALUATIONS).start, **options)
            mischief.make(running)
            result = running.result(timeout=100)
        wait_for(lambda: not mischief.processes(), "the end of all processes", within=30)
        wait_for(all_is_free, "the return of all resources", within=30)
    finally:
        ray_head.remove_node(mischief.node)
    assert mischief.seen == KINDS, "so it is known what to look for"
    assert mischief.done == {"node": 1, "actor": 2, "segfault": 2}
    found = outcomes(records(result.folder))
    assert sorted(int(record["id"]) for record in found) == [*range(EVALUATIONS)]
    failed = [record["outcome"] for record in found if record["outcome"]["status"] != "ok"]
    assert len(failed) <= mischief.done["segfault"]
    assert all(outcome["status"] == "run_error" and "SIGSEGV" in outcome["message"] for outcome in failed)
    assert len(result.get_results()) == EVALUATIONS
    assert records(result.folder)[-1]["reason"] == "max_evaluations"


SCRIPT = '''
"""usage: script.py EVALUATIONS SLEEP [RUN_TO_GO_ON_WITH]"""
import json, os, sys, time

from ciq_ray import Search, SearchConfiguration, WorkerTypes
from ciq_ray.search_spaces.base import choice, range

os.environ.pop("PYTHONWARNINGS", None)  # Ray's own processes have warnings
TOKEN = next(name for name in os.environ if name.startswith("CIQ_TEST_"))


def objective(config):
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    log = os.open("evaluations.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (json.dumps(config, sort_keys=True) + "\\n").encode())
    os.close(log)
    time.sleep(float(sys.argv[2]))
    return (config["x"] - 20) ** 2 + config["y"] + len(config["z"])


if __name__ == "__main__":
    if len(sys.argv) > 3:
        Search.resume(sys.argv[3]).start()
    else:
        Search(
            objective_function=objective,
            search_space={"x": range(0, 40), "y": range(0, 40), "z": choice(["a", "bb", "ccc"])},
            search_config=SearchConfiguration(generations=100, pool_size=20),
            worker_type=WorkerTypes.RAY,
            max_evaluations=int(sys.argv[1]),
            seed=5,
        ).start(num_workers=2, num_cpus=0.5, runtime_env={"env_vars": {TOKEN: "1"}})
    import ray
    assert not ray.is_initialized()
'''


def configs(run: Path, read: Any) -> tuple[dict[str, str], set[str]]:
    """The configurations by id, and the ids with an outcome."""
    lines = read(run)
    asked = {
        candidate["id"]: json.dumps(candidate["config"], sort_keys=True)
        for record in lines
        if record["t"] == "ask"
        for candidate in record["candidates"]
    }
    return asked, {record["id"] for record in outcomes(lines)}


@pytest.mark.parametrize("joined", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_killed_driver_leaves_nothing_running_and_its_run_goes_on(
    ray_head: Any, scripts: Any, records: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch, joined: bool
) -> None:
    if joined:
        monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    script = scripts.write(SCRIPT)
    run = scripts.folder / "runs" / "1"
    journal = run / "journal.jsonl"
    log = scripts.folder / "evaluations.log"
    driver = scripts.start(script, 200, 0.005)
    wait_for(
        lambda: (
            (journal.exists() and journal.read_bytes().count(b'"t":"outcome"') >= 60)
            or driver.poll() is not None
        ),
        "progress",
        within=60,
    )
    driver.kill()
    driver.wait()
    wait_for(lambda: not scripts.alive(), "the end of its processes", within=10)
    asked, known = configs(run, records)
    assert 60 <= len(known) < 200
    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)  # it goes on wherever there is a Ray
    before = log.read_text().splitlines()
    scripts.run(script, 200, 0.005, run)
    asked, done = configs(run, records)
    assert done == {str(number) for number in map(int, asked)}
    assert len(outcomes(records(run))) == len(done) == 200
    lately = log.read_text().splitlines()[len(before) :]
    assert not {asked[name] for name in known} & set(lately), "a journalled evaluation ran again"
    assert len(lately) == len(set(lately)) == 200 - len(known)


def test_ctrl_c_stops_in_good_order_and_again_at_once(
    ray_head: Any, scripts: Any, records: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    script = scripts.write(SCRIPT)
    run = scripts.folder / "runs" / "1"
    log = scripts.folder / "evaluations.log"
    # as in a terminal, everything in the driver's process group gets it
    driver = scripts.start(script, 200, 0.3, start_new_session=True)
    wait_for(lambda: (log.exists() and log.stat().st_size) or driver.poll() is not None, "start", within=60)
    os.killpg(driver.pid, signal.SIGINT)
    _out, err = driver.communicate(timeout=30)
    assert driver.returncode == 0, err
    assert "stopping: waiting for the evaluations in flight" in err
    assert f"stopped; go on with: ciq resume {run}" in err
    started = set(log.read_text().splitlines())
    asked, done = configs(run, records)
    assert {asked[name] for name in done} == started, "what was in flight was waited for"
    # Ray ends the actors of a driver that has gone, at its own pace
    wait_for(lambda: not scripts.alive(), "the end of its actors", within=20)

    driver = scripts.start(script, 200, 60, run, start_new_session=True)
    size = log.stat().st_size
    wait_for(lambda: log.stat().st_size > size or driver.poll() is not None, "start", within=60)
    os.killpg(driver.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(driver.pid, signal.SIGINT)
    _out, err = driver.communicate(timeout=15)
    assert "stopped at once" in err
    assert "KeyboardInterrupt" in err


DEADLY = """
import os, signal, time

from ciq_ray import Search, SearchConfiguration, WorkerTypes
from ciq_ray.search_spaces.base import range

os.environ.pop("PYTHONWARNINGS", None)  # Ray's own processes have warnings


def objective(config):
    if not os.path.exists("dead"):
        open("dead", "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return config["x"]


if __name__ == "__main__":
    Search(
        objective_function=objective,
        search_space={"x": range(0, 40)},
        search_config=SearchConfiguration(generations=1, pool_size=10),
        worker_type=WorkerTypes.RAY,
        seed=5,
        disable_progress_bar=True,
    ).start(num_workers=1)
    from ray._private.ray_logging import stdout_deduplicator
    assert stdout_deduplicator.skip_re is None
"""


@pytest.mark.slow
def test_a_ray_of_its_own_says_nothing_of_actors_that_die(
    scripts: Any, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    done = scripts.run(scripts.write(DEADLY))
    assert (scripts.folder / "dead").exists()
    lines = records(scripts.folder / "runs" / "1")
    assert len(outcomes(lines)) == 10
    assert any(line["t"] == "again" for line in lines), "the journal does"
    assert done.stdout == ""
    assert "raylet" not in done.stderr


class Lines(BaseTracker):
    """Keeps what it is told of evaluations."""

    def setup(self, **kwargs: Any) -> None:
        self.told: list[dict[str, Any]] = []

    def cleanup(self, **kwargs: Any) -> None: ...

    def search_starts(self, **kwargs: Any) -> None: ...

    def search_ends(self, **kwargs: Any) -> None: ...

    def generation_starts(self, generation_number: int, **kwargs: Any) -> None: ...

    def generation_ends(self, generation_number: int, **kwargs: Any) -> None: ...

    def pre_objective(self, config: Any, **kwargs: Any) -> None: ...

    def post_objective(self, scores: Any, **kwargs: Any) -> None:
        self.told.append({"pid": os.getpid(), **kwargs})


def slow_value(config: dict[str, Any]) -> float:
    time.sleep(0.02)
    return float(config["x"] + 1)


def test_trackers_hear_once_of_each_evaluation_from_two_nodes(ray_nodes: Any, tmp_path: Path) -> None:
    tracker = Lines(DisabledTrackerConfig())
    search(slow_value, 40, tracker_config=tracker).start(num_gpus=1, num_cpus=0)
    assert len({told["task_id"] for told in tracker.told}) == len(tracker.told) == 40
    assert len({told["node_id"] for told in tracker.told}) == 2
    assert {told["pid"] for told in tracker.told} == {os.getpid()}
    assert {told["gpu_id"] for told in tracker.told} == {"0", "1"}

    log = tmp_path / "log.jsonl"
    config = LoguruTrackerConfig(sink=str(log))
    search(slow_value, 40, tracker_config=config).start(num_gpus=1, num_cpus=0)
    nodes = {told["node_id"] for told in tracker.told}
    lines = log.read_text().splitlines()
    for event in ("evaluating", "scored"):
        pattern = rf"\S+ \S+ \| INFO +\| (\d+) \| {event} .*node_id='(\w+)'.*"
        found = [re.fullmatch(pattern, line) for line in lines]
        told = {match[1]: match[2] for match in found if match is not None}
        assert len(told) == sum(match is not None for match in found) == 40
        assert set(told.values()) == nodes


def test_modules_that_other_nodes_lack_travel_with_the_objective(
    ray_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "only_here"
    folder.mkdir()
    (folder / "own_module_of_a_driver.py").write_text("FACTOR = 3\ndef scaled(x):\n    return FACTOR * x\n")
    (folder / "own_objective.py").write_text(
        "import own_module_of_a_driver as own\ndef objective(config):\n    return own.scaled(config['x'])\n"
    )
    monkeypatch.syspath_prepend(folder)
    objective = importlib.import_module("own_objective").objective
    try:
        table = search(objective, 8).start(num_workers=1).get_results()
    finally:
        for name in ("own_objective", "own_module_of_a_driver"):
            del sys.modules[name]
    assert table["score"].tolist() == [3 * params["x"] for params in table["params"]]


@pytest.mark.slow
def test_a_race_runs_on_ray_as_well(ray_nodes: Any) -> None:
    plan = Plan(finalists=1, pick_blocks=1, verdict_blocks=6, windows=1)
    first = [{"x": 39, "y": 0, "z": "a"}]
    result = search(slow_value, 10, final_race=plan, initial_configs=first).start(num_workers=2)
    assert result.verdict is not None


def test_options_come_back_when_a_run_is_resumed(ray_nodes: Any, records: Any) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    result = search(slow_value, 4).start(num_workers=1, num_gpus=1, num_cpus=0)
    kept = {"known": {"num_gpus": 1, "num_cpus": 0}, "unknown": []}
    assert records(result.folder)[0]["worker_options"] == kept
    again = Search.resume(result.folder, slow_value, max_evaluations=8).start()
    places = [record["place"] for record in outcomes(records(again.folder))]
    assert len(places) == 8
    assert all(place["gpu"] in ("0", "1") for place in places)

    strategy = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    result = search(slow_value, 4).start(num_workers=1, scheduling_strategy=strategy)
    with pytest.raises(JournalError, match="`scheduling_strategy` that a journal cannot hold"):
        Search.resume(result.folder, slow_value, max_evaluations=8).start()
    Search.resume(result.folder, slow_value, max_evaluations=8).start(scheduling_strategy=None)


def test_nothing_is_begun_with_options_that_cannot_work(ray_nodes: Any, runs: Path) -> None:
    with pytest.raises(ConfigurationError, match="`num_gpus` is -1"):
        search(slow_value, 4).start(num_gpus=-1)
    assert not runs.exists()
    with pytest.raises(ConfigurationError, match="num_gpus=64"):
        search(slow_value, 4).start(num_gpus=64)
    assert list(runs.iterdir()) == []
