"""What the pool of a RAY search sends to whom, with actors that a test answers for; one actor without Ray."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from ray.exceptions import ActorUnavailableError

from ciq_ray.errors import BaselineError, ConfigurationError, WorkerError
from ciq_ray.worker.payload import Pickler
from ciq_ray.worker.protocol import Report, Task
from ciq_ray.worker.ray_actor import EvaluationActor, Reply, Setup
from ciq_ray.worker.ray_cluster import places
from ciq_ray.worker.ray_faults import Faults
from ciq_ray.worker.ray_options import ActorOptions, read_options
from ciq_ray.worker.ray_payload import Packed
from ciq_ray.worker.ray_pool import RayPool
from searchers.outcome import Outcome

Done = Callable[["Future[Any]"], object]


class Scripted:
    """An actor whose answers a test gives."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.asked_back: list[str] = []
        self.ended = False
        self.avoids: frozenset[str] = frozenset()
        self.greet: Done = lambda future: None
        self.answer: Done = lambda future: None
        self.give: Done = lambda future: None

    def hello(self, done: Done) -> None:
        self.greet = done

    def exchange(self, tasks: list[Task], done: Done) -> None:
        self.tasks += tasks
        self.answer = done

    def put(self, tasks: list[Task]) -> None:
        self.tasks += tasks

    def take_back(self, ids: list[str], done: Done) -> None:
        self.asked_back, self.give = ids, done

    def cancel(self, done: Done) -> None:
        done(answer(None))

    def close(self, done: Done) -> None:
        done(answer(None))

    def end(self) -> None:
        self.ended = True

    def finish(self, count: int, each_s: float) -> None:
        """Report the first tasks, as having taken so long."""
        done, self.tasks = self.tasks[:count], self.tasks[count:]
        self.answer(answer(Reply([(Report(task.id, Outcome("ok", (1.0,))), each_s) for task in done])))

    def break_down(self, reason: str, is_baseline: bool = False) -> None:
        """Live on, and evaluate nothing any more."""
        self.tasks = []
        self.answer(answer(Reply([], (is_baseline, reason))))

    def die(self) -> None:
        future: Future[Any] = Future()
        future.set_exception(ActorUnavailableError("it died", None))
        self.answer(future)


class ScriptedCluster:
    grows = False
    asked = "num_cpus=1"

    def __init__(self, count: int) -> None:
        self.count = count
        self.actors: list[Scripted] = []
        self.changed: Callable[[int], object] = lambda count: None
        self.avoided: frozenset[str] = frozenset()

    def avoid(self, node: str) -> None:
        self.avoided |= {node}

    def start(self, name: str, avoids: frozenset[str]) -> Scripted:
        self.actors.append(Scripted())
        self.actors[-1].avoids = avoids
        return self.actors[-1]

    def watch(self, changed: Callable[[int], object]) -> None:
        self.changed = changed
        changed(self.count)

    def close(self) -> None: ...


def answer(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Case:
    """A pool over scripted actors."""

    def __init__(self, count: int, num_workers: int | None = None) -> None:
        self.cluster = ScriptedCluster(count)
        self.pool = RayPool(self.cluster, Pickler(len), num_workers)
        self.sent = 0
        self.pool.poll(0)
        self.actors = self.cluster.actors

    def greet(self) -> None:
        for number, actor in enumerate(self.actors):
            actor.greet(answer({"node": str(number)}))
        self.pool.poll(0)

    def replace(self, node: str) -> Scripted:
        """Wait for the next actor, and have it on this node, with something to do."""
        count = len(self.actors)
        deadline = time.monotonic() + 5
        while len(self.actors) == count:
            self.pool.poll(0.05)
            assert time.monotonic() < deadline
        self.actors[-1].greet(answer({"node": node}))
        self.pool.poll(0)
        self.fill()
        return self.actors[-1]

    def fill(self, most: int = 1000) -> None:
        while self.pool.free and most:
            self.pool.submit(Task(f"t{self.sent}", self.sent))
            self.sent += 1
            most -= 1
        self.pool.poll(0)

    def settle(self, each_s: float) -> None:
        """Let each actor show how long a task takes."""
        self.fill()
        for actor in self.actors:
            actor.finish(1, each_s)
        self.pool.poll(0)


@pytest.mark.parametrize(
    ("each_s", "depth"), [(0.0001, 100), (0.001, 40), (0.01, 4), (0.1, 2), (0.9, 2), (1.0, 1), (10.0, 1)]
)
def test_an_actor_has_as_much_as_its_speed_asks_for(each_s: float, depth: int) -> None:
    case = Case(2)
    assert case.pool.free == 1, "one may be submitted before there is an actor"
    case.greet()
    assert case.pool.free == 2
    case.settle(each_s)
    assert case.pool.free == 2 * depth
    case.fill()
    assert [len(actor.tasks) for actor in case.actors] == [depth, depth]
    assert case.pool.free == 0
    with pytest.raises(WorkerError, match="nothing is free"):
        case.pool.submit(Task("more", 0))


def test_few_tasks_are_spread_over_all_actors() -> None:
    case = Case(4)
    case.greet()
    case.settle(0.001)
    case.fill(8)
    assert [len(actor.tasks) for actor in case.actors] == [2, 2, 2, 2]


def test_the_one_task_of_a_dead_actor_is_lost_and_a_late_answer_is_dropped() -> None:
    case = Case(2)
    case.greet()
    case.fill()
    first = case.actors[0]
    first.die()
    (report,) = case.pool.poll(0)
    assert (report.task_id, report.outcome.status, report.place) == ("t0", "lost", {"node": "0"})
    assert first.ended
    first.finish(1, 1.0)
    assert case.pool.poll(0) == []


def test_of_several_tasks_of_a_dead_actor_none_is_lost_and_each_runs_alone() -> None:
    case = Case(2)
    case.greet()
    case.settle(0.01)
    case.fill()
    dead, other = case.actors
    theirs = {task.config for task in dead.tasks}
    assert len(theirs) == 4
    dead.die()
    assert case.pool.poll(0) == []
    assert case.pool.free == 0
    seen = set()
    other.finish(4, 0.01)
    while theirs - seen:
        case.pool.poll(0)  # hears
        case.pool.poll(0)  # sends
        (task,) = other.tasks
        seen.add(task.config)
        other.finish(1, 0.01)
    case.pool.poll(0)
    assert case.pool.free == 4, "and then as before"


def test_what_waits_is_taken_back_for_an_idle_actor() -> None:
    case = Case(2)
    case.greet()
    case.settle(0.2)
    case.fill()
    busy, idle = case.actors
    idle.finish(2, 0.2)
    case.pool.poll(0)
    time.sleep(0.1)
    case.pool.poll(0)
    assert busy.asked_back == [busy.tasks[1].id]
    moved = busy.tasks.pop()
    busy.give(answer([moved.id]))
    case.pool.poll(0)
    case.pool.poll(0)
    assert [task.config for task in idle.tasks] == [moved.config]
    busy.finish(1, 0.2)
    idle.finish(1, 0.2)
    assert len(case.pool.poll(0)) == 2


def test_it_grows_and_shrinks_with_the_cluster() -> None:
    case = Case(1, num_workers=3)
    case.greet()
    case.cluster.changed(9)
    case.pool.poll(0)
    case.pool.poll(0)
    assert len(case.actors) == 3, "no more than `num_workers`"
    case.cluster.changed(1)
    case.pool.poll(0)
    assert [actor.ended for actor in case.actors] == [False, True, True], "only those without a place"


def test_actors_that_cannot_start_end_the_search() -> None:
    class Broken(ActorUnavailableError):
        actor_init_failed = True

    case = Case(1)
    for _ in range(2):
        failed: Future[Any] = Future()
        failed.set_exception(Broken("no module named x", None))
        case.actors[-1].greet(failed)
        case.pool.poll(0.8)
    assert len(case.actors) == 3
    case.actors[-1].greet(failed)
    with pytest.raises(WorkerError, match=r"actors cannot be started: .*no module named x"):
        case.pool.poll(0)


def test_a_node_where_nothing_can_be_evaluated_is_avoided(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(3)
    good, bad, neighbour = case.actors
    for actor, node in ((good, "good"), (bad, "bad"), (neighbour, "bad")):
        actor.greet(answer({"node": node}))
    case.pool.poll(0)
    case.settle(0.01)
    case.fill()
    theirs = {task.config for task in [*bad.tasks, *neighbour.tasks]}
    with caplog.at_level(logging.WARNING, "ciq_ray"):
        bad.break_down("ray-1: No module named 'x'")
        neighbour.break_down("ray-2: No module named 'x'")
        assert case.pool.poll(0) == [], "nothing is lost"
    assert [record.getMessage() for record in caplog.records] == [
        "node bad cannot evaluate, and is avoided for a while: ray-1: No module named 'x'"
    ]
    assert bad.ended
    assert neighbour.ended
    seen: set[Any] = set()
    while not theirs <= seen:
        seen |= {task.config for task in good.tasks}
        good.finish(len(good.tasks), 0.01)
        assert all(report.outcome.ok for report in case.pool.poll(0))
        case.pool.poll(0)
    case.replace("good")
    assert case.actors[-1].avoids == {"bad"}


def test_an_actor_that_waits_for_other_nodes_is_placed_anew_when_all_may_be_used_again() -> None:
    case = Case(1)
    case.greet()
    case.settle(0.01)
    case.cluster.avoid("bad")
    case.actors[0].die()
    case.pool.poll(0.8)
    waiting = case.actors[-1]
    assert waiting.avoids == {"bad"}
    case.cluster.avoided = frozenset()
    case.cluster.changed(1)
    case.pool.poll(0)
    case.pool.poll(0)
    assert waiting.ended
    assert case.actors[-1].avoids == frozenset()


@pytest.mark.parametrize(("evaluated", "most"), [(False, 3), (True, 10)])
def test_actors_that_cannot_evaluate_anywhere_end_the_search(
    monkeypatch: pytest.MonkeyPatch, evaluated: bool, most: int
) -> None:
    monkeypatch.setattr("ciq_ray.worker.ray_pool._START_PAUSE_S", 0.0)
    case = Case(1)
    case.greet()
    if evaluated:
        case.settle(2.0)
    case.fill()
    for number in range(most - 1):
        case.actors[-1].break_down("no module named x")
        case.pool.poll(0)
        case.replace(str(number % 2))
    case.actors[-1].break_down("ray-9: no module named x")
    with pytest.raises(WorkerError, match=r"^ray-9: no module named x"):
        case.pool.poll(0)
    with pytest.raises(WorkerError, match="no module named x"):
        case.pool.poll(0)


def test_a_task_that_breaks_each_actor_ends_the_search_though_others_go_well() -> None:
    faults = Faults()
    for number in range(9):
        assert not faults.count(str(number), number, number + 1, "t")
        faults.evaluated()
    assert faults.count("9", 9, 10, "t")


def test_actors_of_one_node_that_fail_together_count_once() -> None:
    faults = Faults()
    assert not any(faults.count("node", actor, 8, None) for actor in range(8))
    assert not faults.count("node", 8, 9, None)
    assert faults.count("node", 9, 10, None)


def test_a_baseline_that_fails_ends_the_search_at_once() -> None:
    case = Case(2)
    case.greet()
    case.fill()
    case.actors[0].break_down("ray-0: it raised", is_baseline=True)
    with pytest.raises(BaselineError, match="ray-0: it raised"):
        case.pool.poll(0)


def test_actors_that_cannot_start_beside_others_that_work_end_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ActorUnavailableError):
        actor_init_failed = True

    monkeypatch.setattr("ciq_ray.worker.ray_pool._START_PAUSE_S", 0.0)
    monkeypatch.setattr("ciq_ray.worker.ray_pool._LONG_PAUSE_S", 0.0)
    failed: Future[Any] = Future()
    failed.set_exception(Broken("no module named ciq_ray", None))
    case = Case(2)
    case.actors[0].greet(answer({"node": "0"}))
    with caplog.at_level(logging.WARNING, "ciq_ray"):
        for _ in range(5):
            case.actors[-1].greet(failed)
            case.pool.poll(0)
            case.pool.poll(0)
    assert len(case.actors) == 7
    assert len(caplog.records) == 1
    assert "goes on with fewer actors" in caplog.text
    case.fill()
    case.actors[0].finish(1, 1.0)
    assert len(case.pool.poll(0)) == 1


# --- the actor itself, without Ray ---


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EvaluationActor]:
    def objective(config: float) -> float:
        time.sleep(config)
        return config

    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    setup = Setup(cloudpickle.dumps(objective), 1, 5.0, None, str(tmp_path), None, sys.argv[:1], False)
    with ThreadPoolExecutor(1) as thread:  # so that it leaves the signals of this process alone
        actor = thread.submit(EvaluationActor, "ray-7", setup).result()
    yield actor
    actor.close()


def task(name: str, config: float) -> Task:
    return Task(name, cloudpickle.dumps(config))


def test_an_actor_answers_when_it_has_enough(actor: EvaluationActor) -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    reply = actor.exchange([task("0", 0.0)])
    assert [report.task_id for report, _ in reply.reports] == ["0"]
    reply = actor.exchange([task(str(i), 0.0) for i in range(10)])
    assert len(reply.reports) > 1, "short ones travel together"
    started = time.monotonic()
    got = [report.task_id for report, _ in reply.reports]
    while len(got) < 10:
        got += [report.task_id for report, _ in actor.exchange([]).reports]
    assert got == [str(i) for i in range(10)]
    reply = actor.exchange([task("a", 0.0), task("b", 0.5), task("c", 0.0)])
    assert [report.task_id for report, _ in reply.reports] == ["a"], "none waits for a slow one"
    assert time.monotonic() - started < 0.4
    assert actor.take_back(["a", "b", "c"]) == ["c"], "what runs is not given up"
    (last,) = actor.exchange([]).reports
    assert last[0].task_id == "b"
    assert last[1] > 0.45


def test_an_actor_that_is_cancelled_goes_on_with_the_next(actor: EvaluationActor) -> None:
    actor.exchange([task("0", 0.0)])
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(actor.exchange, [task("a", 60.0), task("b", 0.0)])
        time.sleep(0.1)
        actor.cancel()
        assert waiting.result(timeout=2).reports == []
    assert [report.task_id for report, _ in actor.exchange([task("c", 0.0)]).reports] == ["c"]


def test_what_is_packed_is_opened_only_where_it_is_used() -> None:
    packed = Packed(cloudpickle.dumps({"x": 1}))
    assert isinstance(packed.data, bytes)
    assert cloudpickle.loads(cloudpickle.dumps(packed)) == {"x": 1}


# --- what fits ---


def node(labels: dict[str, str] | None = None, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": "n", "Alive": alive, "Resources": resources, "Labels": labels or {}}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 12),
        ({"num_gpus": 1}, 6),
        ({"num_gpus": 0.5}, 8),
        ({"num_cpus": 0.5, "num_gpus": 0.4}, 12),
        ({"num_cpus": 3}, 3),
        ({"num_cpus": 0}, 12),
        ({"memory": 60}, 1),
        ({"resources": {"fast": 1}}, 2),
        ({"accelerator_type": "H100"}, 8),
        ({"label_selector": {"pool": "a"}}, 4),
        ({"label_selector": {"pool": "!a"}}, 8),
        ({"label_selector": {"pool": "in(a, c)"}}, 4),
        ({"label_selector": {"pool": "!in(a,b)"}}, 0),
    ],
)
def test_places(options: dict[str, Any], count: int) -> None:
    nodes = [
        node({"pool": "a"}, CPU=4.0, GPU=4.0, memory=50.0, fast=2.0),
        node({"pool": "b"}, CPU=8.0, GPU=2.0, memory=100.0, **{"accelerator_type:H100": 1.0}),
        node(alive=False, CPU=64.0, GPU=8.0),
    ]
    assert places(nodes, read_options(options)) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cpus": float("inf")}, "`num_cpus` is inf"),
        ({"num_cpus": True}, "`num_cpus` is True"),
        ({"num_gpus": float("nan")}, "`num_gpus` is nan"),
        ({"memory": float("inf")}, "`memory` is inf"),
        ({"resources": {"fast": float("inf")}}, r"`resources\['fast'\]` is inf"),
        ({"runtime_env": {"env_var": {}}}, "does not know 'env_var' .did you mean `env_vars`"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_options(options)


def test_names_that_may_be_those_of_a_plugin_are_passed_on() -> None:
    environment = {"env_vars": {"A": "b"}, "company_plugin": 1}
    assert read_options({"runtime_env": environment}).options["runtime_env"] == environment


def test_the_default_is_a_cpu_and_no_gpu() -> None:
    assert (
        read_options({"num_gpus": None}).options == ActorOptions().options == {"num_cpus": 1, "num_gpus": 0}
    )
