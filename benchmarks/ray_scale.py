"""What a candidate costs the driver of a RAY search with 1, 100, 1,000 and 10,000 actors.

The actors are simulated, behind the interface that the pool has to Ray: they take no time, and whenever the
driver waits, the one that has waited longest answers. Every answer so comes alone, which costs the driver
most. So what is measured is all the driver does but for Ray's calls: searcher, journal, results
and the pool. What Ray's calls add is measured apart, with real actors that do nothing: processor time of
the whole driver, Ray's threads included.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks import spaces
from benchmarks._report import Claim, Result
from benchmarks.throughput import quiet_runs
from ciq_ray.worker.local import PooledWorker
from ciq_ray.worker.protocol import NO_BASELINE, Report, Task
from ciq_ray.worker.ray_actor import Reply
from ciq_ray.worker.ray_payload import ClusterPickler
from ciq_ray.worker.ray_pool import RayPool
from searchers.outcome import Outcome

__all__ = ["run"]

PARAMETERS = 10
ACTORS, QUICK_ACTORS = (1, 100, 1_000, 10_000), (1, 100)
EVALUATIONS, QUICK_EVALUATIONS = 20_000, 1_000
CALLS, QUICK_CALLS = 2_000, 200
CLAIM_US = 1_000.0
SEARCHERS = ("random", "genetic")
CANDIDATE_S = 10.0
STEP = 100
"""Reports from one reading of the clock to the next."""

Done = Callable[["Future[Any]"], object]


class SimulatedActor:
    """Answers when its turn comes, and says that its evaluation took so long that none may wait behind it."""

    def __init__(self, answers: deque[Callable[[], object]]) -> None:
        self.answers = answers

    def hello(self, done: Done) -> None:
        done(_answer({"node": "0", "actor": "0"}))

    def exchange(self, tasks: list[Task], done: Done) -> None:
        reports = [
            (Report(task.id, Outcome("ok", (float(hash(task.id) % 1000),))), CANDIDATE_S) for task in tasks
        ]
        self.answers.append(lambda: done(_answer(Reply(reports))))

    def put(self, tasks: list[Task]) -> None:
        raise AssertionError("there is never an exchange that waits")

    def take_back(self, ids: list[str], done: Done) -> None:
        raise AssertionError("nothing waits")

    def cancel(self, done: Done) -> None:
        done(_answer(None))

    def close(self, done: Done) -> None:
        done(_answer(None))

    def end(self) -> None: ...


class SimulatedCluster:
    """Has place for a number of actors."""

    grows = False
    asked = "nothing"

    def __init__(self, count: int) -> None:
        self.count = count
        self.answers: deque[Callable[[], object]] = deque()

    def start(self, name: str) -> SimulatedActor:
        return SimulatedActor(self.answers)

    def watch(self, changed: Callable[[int], object]) -> None:
        changed(self.count)

    def close(self) -> None: ...


class SimulatedWorker(PooledWorker):
    """The RAY worker's own pool, on a simulated cluster of `count` actors."""

    count = 1

    def open(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int | None = None,
        task_timeout: float | None = None,
        num_objectives: int = 1,
        baseline_config: Any = NO_BASELINE,
        log_dir: Path | None = None,
    ) -> None:
        self.cluster = SimulatedCluster(self.count)
        self.marks: list[float] = []
        self.reported = 0
        self._pool = RayPool(self.cluster, ClusterPickler(function), None)

    def poll(self, timeout: float) -> list[Report]:
        """Let the next actor answer, and hear it; the time of each hundredth report is kept in `marks`."""
        if self.cluster.answers:
            self.cluster.answers.popleft()()
        reports = super().poll(timeout)
        self.reported += len(reports)
        if reports and self.reported % STEP == 0:  # the clock is slow itself
            self.marks.append(time.process_time())
        return reports


def run(quick: bool) -> Result:
    """Measure each number of actors with each searcher, then Ray's own calls."""
    table, claims, raw = [], [], {}
    count = QUICK_EVALUATIONS if quick else EVALUATIONS
    for searcher in SEARCHERS:
        for actors in QUICK_ACTORS if quick else ACTORS:
            us = _driver_us(searcher, actors, count)
            table.append([f"{actors:,} simulated", searcher, f"{us:,.0f}", f"{1e6 / us:,.0f}"])
            raw[f"{searcher}, {actors}"] = us
            if actors == 1_000:
                text = f"{actors:,} actors, {searcher}: driver µs for a candidate"
                claims.append(Claim(text, us, CLAIM_US, at_least=False))
    us = _call_us(QUICK_CALLS if quick else CALLS)
    table.append(["Ray's calls alone, one candidate in each", "", f"{us:,.0f}", f"{1e6 / us:,.0f}"])
    raw["calls"] = us
    header = ["driver", "searcher", "processor µs for a candidate", "candidates/s at most"]
    return Result("ray_scale", header, table, claims, raw)


def _driver_us(searcher: str, actors: int, evaluations: int) -> float:
    """Processor time of the driver for each evaluation after the first tenth."""
    from ciq_ray import Search, SearchConfiguration

    opened: list[SimulatedWorker] = []

    class Counted(SimulatedWorker):
        count = actors

        def open(self, *arguments: Any, **options: Any) -> None:
            opened.append(self)
            super().open(*arguments, **options)

    with quiet_runs():
        Search(
            objective_function=_never_called,
            search_space=spaces.mixed(PARAMETERS),
            search_config=SearchConfiguration(generations=10**6),
            searcher=searcher,
            searcher_options={"count": 10**6} if searcher == "random" else {},
            worker_type=Counted,
            max_evaluations=evaluations + evaluations // 10 + 2 * actors,
            seed=0,
            disable_progress_bar=True,
        ).start()
    marks = opened[0].marks
    # without the time in which the actors get their first task, and that in which they get none any more
    first, last = (evaluations // 10 + actors) // STEP, -1 - actors // STEP
    return (marks[last] - marks[first]) / (len(marks) + last - first) / STEP * 1e6


def _never_called(config: dict[str, Any]) -> float:
    raise AssertionError("simulated actors call nothing")


def _call_us(calls: int) -> float:
    """Processor time of a driver for one call of a real actor, with an answer like those of a search."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:

        class Echo:
            def exchange(self, tasks: list[Task]) -> Reply:
                return Reply([(Report(task.id, Outcome("ok", (1.0,))), 0.0) for task in tasks])

        actor = ray.remote(Echo).remote()
        config = b"x" * 200
        ray.get(actor.exchange.remote([Task("0", config)]))
        begun = time.process_time()
        for number in range(calls):
            actor.exchange.remote([Task(str(number), config)]).future().result()
        return (time.process_time() - begun) / calls * 1e6
    finally:
        ray.shutdown()


def _answer(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
