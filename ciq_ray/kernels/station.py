"""Where candidates are timed, and what a pipeline knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ciq_ray.kernels.jobs import DEVICE_LOST, PREPARE, Job
from ciq_ray.worker.protocol import Report, Task
from searchers.outcome import Outcome

__all__ = ["PREPARING", "Flight", "Settings", "Stage", "Station"]

PREPARING: Final = "ciq:prepare"
"""The task that gets a station ready."""
_MOST_LOST: Final = 5
"""Lost in a row without a new owner in between; more than a candidate is sent again."""


class Stage(Protocol):
    """A pool of processes that do one thing, such as `ciq_ray.worker.slots.NativePool`."""

    @property
    def free(self) -> int: ...  # noqa: D102 - as in `ciq_ray.worker.protocol.StreamingWorker`
    def submit(self, task: Task) -> None: ...  # noqa: D102
    def poll(self, timeout: float) -> list[Report]: ...  # noqa: D102
    def cancel(self) -> list[str]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(slots=True, eq=False)
class Station:
    """Where candidates are timed: the owner of one device, or a pool of such owners.

    Attributes:
        stage: Calls a `ciq_ray.kernels.timing_stage.TimingStage` with jobs.
        name: For people.
        pooled: Whether it is a pool, whose owners prepare by themselves, and which gives up by itself one
            that has lost its device.
        ready: Whether it can be given candidates.
        dropped: Whether it is not used any more.
    """

    stage: Stage
    name: str = ""
    pooled: bool = False
    ready: bool = False
    dropped: bool = False
    _asked: bool = False
    _lost: int = 0

    def prepare(self) -> None:
        """Have it import and allocate what it needs, while the first candidates are compiled."""
        if self.pooled:
            self.ready = True
        elif not self._asked:
            self._asked = True
            self.stage.submit(Task(PREPARING, Job(PREPARE)))

    def is_prepared(self) -> None:
        """Its device works."""
        self.ready, self._lost = True, 0

    def owner_ended(self) -> None:
        """Its owner has been replaced, and has to be prepared like the first."""
        self.ready = self._asked = False

    def is_given_up(self, outcome: Outcome) -> bool:
        """Take note of what came of a job; whether its device must not be used after it."""
        self._lost = self._lost + 1 if outcome.status == "lost" else 0
        if self.pooled:
            return False
        return bool(outcome.metrics.get(DEVICE_LOST)) or self._lost >= _MOST_LOST


@dataclass(frozen=True, slots=True)
class Settings:
    """How a pipeline is run.

    Attributes:
        baseline: The configuration that devices measure as their control; ``None`` if there is none.
        needs_baseline: Whether nothing can go on without it.
        normalize: Whether reports carry the control's time as their baseline.
        window: Whether a job is a window of a race: about 20 ms, on one device, nothing shared between
            candidates, and no control, since the baseline is in the race itself.
        fresh: Whether each candidate gets a process of its own.
        in_ms: Whether values are milliseconds, and not ratios over several shapes.
        compile_timeout: Seconds that compiling may take at most.
    """

    baseline: Any = None
    needs_baseline: bool = False
    normalize: bool = False
    window: bool = False
    fresh: bool = False
    in_ms: bool = True
    compile_timeout: float = 300.0


@dataclass(slots=True, eq=False)
class Flight:
    """A candidate on its way.

    Attributes:
        task: What was submitted.
        began: When compiling began, in seconds of ``time.time``; 0 if it was compiled before.
        metrics: What compiling found.
        compile_s: What it took.
        artefact: What came out.
        digest: Its hash.
        sharers: Others with the same binary, which wait for its timing.
    """

    task: Task
    began: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    compile_s: float | None = None
    artefact: bytes = b""
    digest: str = ""
    sharers: list[Flight] = field(default_factory=list)
