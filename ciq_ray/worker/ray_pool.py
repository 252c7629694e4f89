"""RAY: a pool of actors that grows and shrinks, each kept busy with as much as its speed asks for."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import queue
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ciq_ray.errors import BaselineError, WorkerError
from ciq_ray.worker.payload import Pickler
from ciq_ray.worker.protocol import Report, Task
from ciq_ray.worker.ray_actor import Reply
from ciq_ray.worker.ray_cluster import Cluster
from ciq_ray.worker.ray_faults import START_ATTEMPTS, Faults, is_its_own
from ciq_ray.worker.ray_runner import Pace, Runner, end_of
from searchers.outcome import Outcome

__all__ = ["RayPool"]

logger = logging.getLogger(__name__)

_STEAL_S: Final = 0.1
_TICK_S: Final = 0.05
_STARTS_AT_ONCE: Final = 50
_START_PAUSE_S: Final = 0.5
_LONG_PAUSE_S: Final = 30.0
_PATIENCE_S: Final = 10.0
_END_LIMIT_S: Final = 3.0


class RayPool:
    """Actors that evaluate one objective; see `ciq_ray.worker.protocol.StreamingWorker`.

    How much an actor has is the affair of its `Pace`. What waits behind a slow task is taken back as
    soon as another actor has nothing to do.

    When an actor dies, the one task it had is reported as ``lost``. If it had several, nobody knows
    which one was running: they are sent again, each alone, so that a task that kills its actor is
    found out, and none that only waited is ever counted. An actor that lives and cannot evaluate is given
    up, its node avoided for a while, and its tasks are sent again; see `Faults` for when that ends all.

    Args:
        cluster: Where actors are started; closed with the pool.
        pickler: Of the objective; it pickles configurations.
        num_workers: How many actors at most; ``None``: as many as the cluster has place for.
    """

    def __init__(self, cluster: Cluster, pickler: Pickler, num_workers: int | None) -> None:
        self._cluster = cluster
        self._pickler = pickler
        self._most = num_workers
        self._wanted = 0
        self._runners: dict[str, Runner] = {}
        # those with room, in the order they came to it
        self._open: dict[str, Runner] = {}
        self._to_call: dict[str, Runner] = {}
        self._ready = 0
        self._room = 0
        self._waiting: deque[Task] = deque()
        self._suspects: set[str] = set()
        self._killers: set[str] = set()
        self._numbers = itertools.count()
        self._started = 0
        self._events: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._reports: list[Report] = []
        self._pace = Pace()
        self._faults = Faults()
        self._failed_starts = 0
        self._fill_at = 0.0
        self._deserted_since = time.monotonic()
        self._steal_at = 0.0
        self._error: WorkerError | None = None
        self._closed = False
        try:
            cluster.watch(lambda count: self._events.put(("places", "", count)))
            self._take_events(0)
        except BaseException:
            self.close()
            raise

    # --- the protocol ---

    @property
    def free(self) -> int:
        """How many tasks can be submitted now; the first one may be before there is an actor."""
        room = self._room if self._ready else 1
        return 0 if self._closed else max(0, room - len(self._waiting))

    def submit(self, task: Task) -> None:
        """Send a task on its way; see the protocol."""
        self._check()
        free = self.free
        if free < 1:
            raise WorkerError(f"task {task.id!r}: nothing is free; check `free` before `submit`")
        if task.id in self._killers:
            self._suspects.add(task.id)
        self._waiting.append(replace(task, config=self._pickler.config(task.config)))
        if free == 1:  # nothing more will come to travel with it
            self._send()

    def poll(self, timeout: float) -> list[Report]:
        """Wait for reports; see the protocol."""
        self._check()
        deadline = time.monotonic() + timeout
        try:
            while True:
                self._send()
                self._look_after()
                remaining = deadline - time.monotonic()
                self._take_events(max(0.0, min(remaining, _TICK_S)))
                if self._reports or remaining <= 0:
                    break
        except WorkerError as error:
            self._error = error
            raise
        reports, self._reports = self._reports, []
        return reports

    def cancel(self) -> list[str]:
        """Stop everything in flight; see the protocol."""
        ids = [task.id for task in self._waiting]
        self._waiting.clear()
        self._suspects.clear()
        acknowledged: list[Future[Any]] = []
        for runner in self._runners.values():
            ids += [task.id for task in runner.tasks.values()]
            if runner.ready and runner.tasks:
                acknowledged.append(end_of(runner.actor.cancel))
            runner.tasks.clear()
            runner.unsent.clear()
            self._update(runner)
        wait(acknowledged, _END_LIMIT_S)
        return ids

    def close(self) -> None:
        """End all actors; see the protocol."""
        if self._closed:
            return
        self._closed = True
        self._cluster.close()
        # an actor that ends its child itself leaves nothing for the child's guard to do
        ends = [end_of(runner.actor.close) for runner in self._runners.values() if runner.ready]
        try:
            wait(ends, _END_LIMIT_S)
        finally:
            for runner in self._runners.values():
                runner.actor.end()
            self._runners.clear()

    # --- tasks on their way out ---

    def _update(self, runner: Runner) -> None:
        """Account for the room of an actor anew."""
        room = 0
        if runner.ready and runner.name in self._runners:
            depth = 1 if self._suspects else runner.pace.depth(self._pace)
            room = max(0, depth - len(runner.tasks))
        self._room += room - runner.room
        runner.room = room
        if room:
            self._open[runner.name] = runner
        else:
            self._open.pop(runner.name, None)

    def _send(self) -> None:
        """Hand what waits to the actors with the least to do, and listen to all that work."""
        if self._waiting and self._open:
            least = [
                (runner.load_s, len(runner.tasks), number, runner)
                for number, runner in enumerate(self._open.values())
            ]
            heapq.heapify(least)
            while self._waiting and least:
                _, _, number, runner = heapq.heappop(least)
                self._hand(runner, self._waiting.popleft())
                if runner.room:
                    heapq.heappush(least, (runner.load_s, len(runner.tasks), number, runner))
        for runner in self._to_call.values():
            if runner.calling:
                if runner.unsent:
                    runner.actor.put(runner.unsent)
            elif runner.tasks:
                runner.calling = True
                runner.actor.exchange(runner.unsent, partial(self._heard, "answer", runner.name))
            runner.unsent = []
        self._to_call.clear()

    def _hand(self, runner: Runner, task: Task) -> None:
        number = str(next(self._numbers))
        if not runner.tasks:
            runner.heard_at = time.monotonic()
        runner.tasks[number] = task
        runner.unsent.append(replace(task, id=number))
        self._to_call[runner.name] = runner
        self._update(runner)

    def _heard(self, kind: str, name: str, future: Future[Any]) -> None:
        """Called in a thread of Ray's."""
        self._events.put((kind, name, future))

    # --- what comes back ---

    def _take_events(self, timeout: float) -> None:
        """Wait for one event, and take all there are."""
        try:
            event = self._events.get(timeout=timeout) if timeout > 0 else self._events.get_nowait()
            while True:
                self._take(*event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take(self, kind: str, name: str, value: Any) -> None:
        if kind == "places":
            self._resize(value)
            return
        runner = self._runners.get(name)
        if runner is None:
            return  # of an actor that was given up: its tasks run elsewhere by now
        error = value.exception()
        if error is not None:
            self._bury(runner, error)
        elif kind == "hello":
            self._greet(runner, value.result())
        elif kind == "taken":
            self._take_back(runner, value.result())
        else:
            self._answered(runner, value.result())

    def _greet(self, runner: Runner, place: Mapping[str, str]) -> None:
        runner.ready, runner.place = True, place
        self._ready += 1
        self._failed_starts = 0
        self._update(runner)

    def _answered(self, runner: Runner, reply: Reply) -> None:
        runner.calling = False
        runner.heard_at = time.monotonic()
        for report, seconds in reply.reports:
            task = runner.tasks.pop(report.task_id, None)
            if task is None:
                continue  # cancelled meanwhile
            runner.pace.add(seconds)
            self._pace.add(seconds)
            self._reports.append(replace(report, task_id=task.id, worker=runner.name, place=runner.place))
            self._acquit(task)
            self._faults.evaluated()
        if reply.error is not None:
            is_baseline, text = reply.error
            if is_baseline:
                raise BaselineError(text)
            self._give_up(runner, text)
            return
        if runner.tasks:
            self._to_call[runner.name] = runner
        self._update(runner)

    def _acquit(self, task: Task) -> None:
        """A task has not killed its actor."""
        if task.id in self._suspects:
            self._suspects.discard(task.id)
            if not self._suspects:
                for runner in self._runners.values():
                    self._update(runner)

    # --- actors come and go ---

    def _resize(self, count: int) -> None:
        most = math.inf if self._most is None else self._most
        if self._cluster.grows and self._most is not None:
            count = self._most  # those without a place are what makes it grow
        # one without a place is placed as soon as there is one
        self._wanted = max(1, int(min(count, most)))
        for runner in [runner for runner in self._runners.values() if not runner.ready]:
            if not runner.avoids <= self._cluster.avoided:  # it may wait for another place than there is now
                self._remove(runner)
        surplus = len(self._runners) - self._wanted
        for runner in [runner for runner in reversed(self._runners.values()) if not runner.ready]:
            if surplus <= 0:
                break
            surplus -= 1
            self._remove(runner)

    def _fill(self) -> None:
        for _ in range(min(self._wanted - len(self._runners), _STARTS_AT_ONCE)):
            name = f"ray-{self._started}"
            avoids = self._cluster.avoided
            runner = Runner(name, self._started, self._cluster.start(name, avoids), avoids)
            self._started += 1
            self._runners[name] = runner
            runner.actor.hello(partial(self._heard, "hello", name))

    def _remove(self, runner: Runner) -> None:
        del self._runners[runner.name]
        self._to_call.pop(runner.name, None)
        self._update(runner)
        if runner.ready:
            self._ready -= 1
            if not self._ready:
                self._deserted_since = time.monotonic()
        runner.actor.end()

    def _bury(self, runner: Runner, error: BaseException) -> None:
        """An actor is dead, or cannot be reached, which is the same to its tasks."""
        self._remove(runner)
        self._fill_at = time.monotonic() + _START_PAUSE_S
        if not runner.ready:
            # a node that goes may take several with it, which says nothing about the next ones
            self._failed_starts += is_its_own(error)
            if self._failed_starts >= START_ATTEMPTS:
                if not self._ready:
                    raise WorkerError(f"actors cannot be started: {error}") from error
                self._fill_at = time.monotonic() + _LONG_PAUSE_S
                if self._failed_starts == START_ATTEMPTS:
                    logger.warning("goes on with fewer actors, more cannot be started: %s", error)
            return
        lost = list(runner.tasks.values())
        if len(lost) == 1:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            message = f"{runner.name} died during the evaluation: {reason[0]}"
            outcome = Outcome("lost", message=message)
            self._reports.append(Report(lost[0].id, outcome, worker=runner.name, place=runner.place))
            self._acquit(lost[0])
            self._killers.add(lost[0].id)
            return
        self._waiting.extendleft(reversed(lost))
        self._suspects |= {task.id for task in lost}
        for other in self._runners.values():
            self._update(other)

    def _give_up(self, runner: Runner, reason: str) -> None:
        """An actor lives and cannot evaluate, which is not the fault of what it was to evaluate."""
        self._remove(runner)
        self._fill_at = time.monotonic() + _START_PAUSE_S
        tasks = list(runner.tasks.values())
        self._waiting.extendleft(reversed(tasks))
        node = runner.place.get("node", "")
        if self._faults.is_new(node):
            logger.warning("node %s cannot evaluate, and is avoided for a while: %s", node, reason)
        self._cluster.avoid(node)
        if self._faults.count(node, runner.number, self._started, tasks[0].id if tasks else None):
            raise WorkerError(reason)

    def _look_after(self) -> None:
        """What has to be done from time to time."""
        now = time.monotonic()
        if now >= self._fill_at:
            self._fill()
        if self._ready:
            if not self._waiting and now >= self._steal_at:
                self._steal_at = now + _TICK_S
                self._steal(now)
        elif now - self._deserted_since > _PATIENCE_S:
            self._deserted_since = now
            logger.warning("waiting for Ray to give an evaluation its place: %s", self._cluster.asked)

    # --- what waits behind a slow task goes to an actor that has nothing to do ---

    def _steal(self, now: float) -> None:
        idle = sum(not runner.tasks for runner in self._open.values())
        if not idle:
            return
        for runner in self._runners.values():
            spare = len(runner.tasks) - 1
            ahead_s = max(now - runner.heard_at, runner.load_s - runner.pace.each_s)
            if spare > 0 and not runner.stealing and ahead_s > _STEAL_S:
                runner.stealing = True
                numbers = list(runner.tasks)[-math.ceil(spare / 2) :]
                runner.actor.take_back(numbers, partial(self._heard, "taken", runner.name))
                idle -= 1
                if not idle:
                    return

    def _take_back(self, runner: Runner, numbers: list[str]) -> None:
        runner.stealing = False
        taken = [runner.tasks.pop(number) for number in numbers if number in runner.tasks]
        self._waiting.extendleft(reversed(taken))
        self._update(runner)

    def _check(self) -> None:
        if self._closed:
            raise WorkerError("the worker is closed; open it again")
        if self._error is not None:
            raise self._error
