"""The protocol between the engine and what runs candidates: submit, results as they come, cancel, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from searchers.outcome import Outcome

__all__ = ["NO_BASELINE", "Report", "StreamingWorker", "TakesOptions", "Task"]


class _NoBaseline:
    def __repr__(self) -> str:
        return "NO_BASELINE"


NO_BASELINE: Final = _NoBaseline()
"""No baseline is measured. (``None`` and ``{}`` are configurations a baseline could have.)"""


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation to be made.

    Attributes:
        id: Unique among the tasks in flight; the report carries it.
        config: What the objective is called with; it gets its own copy.
        generation: The block it belongs to; the first task of a new one has the baseline measured again.
        compile_timeout: Seconds that compiling it may take, for objectives with such a step
            (`ciq_ray.worker.limits`); ``None`` for no limit but their own.
        context: Environment variables of this evaluation alone, with which a tracker makes what the
            objective logs by itself its own (`ciq_ray._mlflow.objective`).
        limit_s: Seconds it may take, if that is less than the worker's own limit.
    """

    id: str
    config: Any
    generation: int = 0
    compile_timeout: float | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one task.

    Attributes:
        task_id: The task's id.
        outcome: Status, raw (not normalised) values, seconds and message.
        baseline: Values of the baseline in force where the task ran, when there is one.
        worker: Name of the process, slot or loop that ran it.
        pid: Process that ran it, where that is known.
        normalized: Normalised values, from a worker that computes them itself; else they are
            ``outcome.values / baseline``.
        metadata: What the worker has to say about it, for the results.
        place: Where it ran, beyond this machine's process: ``node``, ``gpu``, ``actor``, as far as there is
            such a thing.
        context: What the process has to say about the task's context; empty when it had none, or when
            the process did not survive the evaluation.
        attached: Bytes that came with the outcome, see `ciq_ray.worker.attached.Attached`.
    """

    task_id: str
    outcome: Outcome
    baseline: tuple[float, ...] | None = None
    worker: str = ""
    pid: int | None = None
    normalized: tuple[float, ...] | None = None
    metadata: str = ""
    place: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    attached: bytes = b""


@runtime_checkable
class StreamingWorker(Protocol):
    """What the engine drives. The built-in workers are these; others are adapted to it.

    ``open``, then any number of ``submit`` and ``poll``, then ``close``. Not thread-safe: one thread
    makes all calls. Limits are kept, and processes killed, whether or not that thread is in a call.
    """

    def open(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int | None,
        task_timeout: float | None,
        num_objectives: int = 1,
        baseline_config: Any = NO_BASELINE,
        log_dir: Path | None = None,
    ) -> None:
        """Get ready to evaluate `function`; returns while processes are still starting.

        Args:
            function: The objective.
            num_workers: How many evaluations may run at a time; ``None`` for the worker's default.
            task_timeout: Seconds one evaluation may take, counted from its own start; ``None`` for no limit.
            num_objectives: How many numbers the objective returns.
            baseline_config: What to measure a baseline with, if anything.
            log_dir: Where the output of the objective goes; a temporary folder if ``None``.

        Raises:
            ConfigurationError: An argument cannot be used, or the objective cannot be sent to a process.
            WorkerError: Processes cannot be started.
        """
        ...

    @property
    def free(self) -> int:
        """How many tasks can be submitted now without queueing behind another."""
        ...

    def submit(self, task: Task) -> None:
        """Send a task on its way.

        Raises:
            ConfigurationError: The task's configuration cannot be sent to a process.
            WorkerError: Nothing is free, or the worker is not open.
        """
        ...

    def poll(self, timeout: float) -> list[Report]:
        """Wait for at least one report, `timeout` seconds at most.

        Returns:
            All reports there are, in the order they came; none after a time-out.

        Raises:
            WorkerError: The worker cannot go on.
            BaselineError: The baseline failed.
        """
        ...

    def cancel(self) -> list[str]:
        """Stop everything in flight now.

        Returns:
            The ids of the tasks stopped, which are not reported any more.
        """
        ...

    def close(self) -> None:
        """End all processes, whatever state they are in. More calls do nothing."""
        ...


class TakesOptions(ABC):
    """A built-in worker that makes use of further keyword arguments of `Search.start`."""

    @staticmethod
    @abstractmethod
    def hold(num_workers: int | None, options: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Keep what is expensive to start over the life of several workers with these options.

        Raises:
            ConfigurationError: An option has a value that it cannot have.
        """

    @abstractmethod
    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the keyword arguments, before `open`; there is a warning for those that are not known.

        Raises:
            ConfigurationError: One has a value that it cannot have.
        """

    @property
    @abstractmethod
    def max_resends(self) -> int | None:
        """How often a candidate that was lost is sent again; ``None`` for the engine's own limit."""
