"""NATIVE and ISOLATED: one task at a time in each of a number of slots."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ciq_ray.worker.baseline import baseline_values
from ciq_ray.worker.pool import Death, Pool
from ciq_ray.worker.process import WorkerProcess, kill
from ciq_ray.worker.protocol import Report, Task
from searchers.outcome import Outcome

__all__ = ["IsolatedPool", "NativePool"]

_SEND_ATTEMPTS = 3


@dataclass(slots=True, eq=False)
class _Slot:
    name: str
    process: WorkerProcess | None = None
    spare: WorkerProcess | None = None
    task: Task | None = None
    config: bytes = b""
    # what its process is doing: "" (nothing), "baseline" or "task"
    doing: str = ""
    sends: int = 0
    starts: int = 0
    sent_at: float = 0.0
    log_start: int = 0
    baseline: tuple[float, ...] | None = None
    baseline_generation: int = 0
    # the baseline when the task was sent
    in_force: tuple[float, ...] | None = None


class NativePool(Pool):
    """Long-lived processes, each of which runs one task at a time and has none queued behind it.

    A process that dies or is ended fails its task and is replaced. Each process measures the
    baseline before its first task and before its first task of a new generation.
    """

    mode: ClassVar[str] = "many"
    _name: ClassVar[str] = "native"

    def _start_first(self) -> None:
        self._slots = [_Slot(f"{self._name}-{i}") for i in range(self._num_workers)]
        # ready ones to the left, where the next task is placed
        self._free = deque(self._slots)
        self._homes: dict[WorkerProcess, _Slot] = {}
        for slot in self._slots:
            slot.process = self._start_for(slot)

    @property
    def free(self) -> int:
        """How many tasks can be submitted now; a slot whose process is starting counts."""
        return len(self._free)

    def _accept(self, task: Task, config: bytes) -> None:
        slot = self._free.popleft()
        slot.task, slot.config, slot.sends = task, config, 0
        if slot.process is None:
            slot.process = self._start_for(slot)
        self._advance(slot)

    def _on_ready(self, process: WorkerProcess) -> None:
        slot = self._homes[process]
        if slot.process is process and slot.task is None:
            self._free.remove(slot)
            self._free.appendleft(slot)
        self._advance(slot)

    def _on_message(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        slot = self._homes.get(process)
        if slot is None or slot.process is not process or not slot.doing or not self._watch.disarm(process):
            return  # overdue: it is being ended, which is what is reported
        attached = message[6].pop("attached", b"")
        outcome = self._outcome(process, message, slot.log_start)
        self._used(slot)
        self._settle(slot, outcome, process.pid, message[-1], attached)

    def _on_death(self, process: WorkerProcess, death: Death) -> None:
        slot = self._homes.pop(process, None)
        if slot is None:
            return
        if slot.spare is process:
            slot.spare = None
        if slot.process is not process:
            return
        self._replace(slot)
        if not slot.doing:
            self._advance(slot)
            return
        run_s = death.seen_at - slot.sent_at
        limit = None if slot.task is None else self._limit_of(slot.task)
        outcome = self._ended(death, process, slot.log_start, run_s, limit)
        self._settle(slot, outcome, process.pid)

    def _drop_all(self) -> tuple[list[str], list[WorkerProcess]]:
        ids, processes = [], []
        for slot in self._slots:
            if slot.task is None:
                continue
            ids.append(slot.task.id)
            if slot.process is not None:
                processes.append(slot.process)
                self._homes.pop(slot.process, None)
            slot.task, slot.process, slot.doing = None, None, ""
            self._forget_process(slot)
            self._free.append(slot)
        return ids, processes

    # --- a task on its way ---

    def _advance(self, slot: _Slot) -> None:
        """Have an idle process do what is next for the slot's task: the baseline, or the task itself."""
        process, task = slot.process, slot.task
        if process is None or task is None or slot.doing or not process.ready:
            return
        config = slot.config
        slot.doing = "task"
        stale = slot.baseline is None or slot.baseline_generation < task.generation
        if self._baseline is not None and stale:
            config = self._baseline
            slot.doing = "baseline"
        slot.in_force = slot.baseline
        slot.log_start = process.trim_log()
        slot.sent_at = time.monotonic()
        limit = self._limit_of(task)
        if limit is not None:
            self._watch.arm(process, slot.sent_at + limit)
        try:
            if slot.doing == "task":
                process.send(task.id, config, task.compile_timeout, task.context)
            else:
                process.send(task.id, config)
        except OSError as error:
            # it died while it had nothing to do, which is not the task's fault; its end will be noticed
            kill([process])
            slot.doing = ""
            slot.sends += 1
            if slot.sends >= _SEND_ATTEMPTS:
                text = f"the task could not be sent to a worker process: {error}"
                slot.doing = "task"
                self._settle(slot, Outcome("run_error", message=text), process.pid)
        else:
            self._sent(slot)

    def _settle(
        self,
        slot: _Slot,
        outcome: Outcome,
        pid: int,
        context: Mapping[str, str] | None = None,
        attached: bytes = b"",
    ) -> None:
        """What the slot was doing has come to an end."""
        task, doing, slot.doing = slot.task, slot.doing, ""
        if task is None:
            return
        if doing == "baseline":
            slot.baseline = baseline_values(slot.name, outcome)
            slot.baseline_generation = task.generation
            self._advance(slot)
            return
        report = Report(task.id, outcome, slot.in_force, slot.name, pid, context=context or {})
        self._reports.append(replace(report, attached=attached) if attached else report)
        slot.task, slot.config = None, b""
        if slot.process is not None and slot.process.ready:
            self._free.appendleft(slot)
        else:
            self._free.append(slot)

    # --- where isolated processes differ ---

    def _start_for(self, slot: _Slot) -> WorkerProcess:
        process = self._start(slot.name, slot.name)
        self._homes[process] = slot
        return process

    def _replace(self, slot: _Slot) -> None:
        """The slot's process is dead."""
        self._forget_process(slot)
        # one that died with nothing to do is replaced when there is something
        slot.process = self._start_for(slot) if slot.task is not None else None

    def _forget_process(self, slot: _Slot) -> None:
        slot.baseline = None  # each process measures its own

    def _sent(self, slot: _Slot) -> None:
        """The slot's process has got something to do."""

    def _used(self, slot: _Slot) -> None:
        """The slot's process has done something."""


class IsolatedPool(NativePool):
    """A fresh process for each evaluation; the next one of a slot starts while the present one works.

    Each slot measures the baseline before its first task and before its first task of a new
    generation, in a process of its own. A process may take one second to end by itself; what is
    left of its process group is killed then, and other descendants when the pool is closed.
    """

    mode: ClassVar[str] = "once"
    _name: ClassVar[str] = "isolated"

    def _replace(self, slot: _Slot) -> None:
        slot.process, slot.spare = slot.spare, None
        if slot.process is None and slot.task is not None:
            slot.process = self._start_for(slot)

    def _forget_process(self, slot: _Slot) -> None:
        slot.process, slot.spare = slot.spare, None

    def _sent(self, slot: _Slot) -> None:
        if slot.spare is None:
            slot.spare = self._start_for(slot)

    def _used(self, slot: _Slot) -> None:
        if slot.process is not None:
            self._homes.pop(slot.process)
            self._let_leave(slot.process)
        self._replace(slot)

    def _start_for(self, slot: _Slot) -> WorkerProcess:
        # two files in turn: a spare process must not write where its predecessor does
        slot.starts += 1
        process = self._start(slot.name, f"{slot.name}-{'ab'[slot.starts % 2]}")
        self._homes[process] = slot
        return process
