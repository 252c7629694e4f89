"""The owner of a device: it holds lock and clocks, has a child that times, and replaces it when it must.

The owner never has a CUDA context. It forks the timing child (`ciq_ray.gpu.child`), which alone has one, and
ends it when a candidate hangs, dies or loses the context. A child that follows such an end must first show
that the device still computes: the canary. If it does not, the device is quarantined.
"""

from __future__ import annotations

import atexit
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import CiqError, ConfigurationError, UnsupportedError, WorkerError
from ciq_ray.gpu.child import ChildDied, ChildFailed, ChildTimeout, ForkedChild
from ciq_ray.kernels.jobs import CANDIDATE, DEVICE_LOST, PREPARE, Job, Measuring, TimingOptions
from ciq_ray.kernels.timing_child import Canary, Evaluate, Prepare, import_for, is_sticky, serve
from ciq_ray.worker.pool import failure_message
from searchers.outcome import RETRIED, Outcome

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device
    from ciq_ray.gpu.hold import Held
    from ciq_ray.kernels.protocol import Kernel

__all__ = ["END_GRACE_S", "Job", "TimingOptions", "TimingStage", "of_owner"]

END_GRACE_S: Final = 3.0
"""Seconds that a process needs at its end to put clocks back; for the pool that has it."""

_OUTPUT: Final = Path("/dev/stderr")
"""Where the child's output goes: the owner's own, which is the log of its pool."""
_DYING_S: Final = 10.0
_DYING_AT_END_S: Final = 1.0
_STARTS: Final = 2
_DRIFT_TRIES: Final = 3


class TimingStage:
    """Times candidates on one device; called with jobs in the process that owns it.

    It is pickled to that process and starts at its first job. One at a time in a process, and from one
    thread, the one that lives longest.

    Args:
        kernel: What is timed.
        device: Where; ``None`` for the CPU.
        options: How.
        measuring: Makes what checks and times in the child, in place of `ciq_ray.kernels.bench.Bench`.
        held: What is held of the device already, if this process's parent does.

    Raises:
        ConfigurationError: A kernel for a GPU without a device.
    """

    def __init__(
        self,
        kernel: Kernel,
        device: Device | None,
        options: TimingOptions,
        *,
        measuring: Callable[..., Measuring] | None = None,
        held: Held | None = None,
    ) -> None:
        if kernel.needs_gpu and device is None:
            raise ConfigurationError(
                f"`device` is None, and {type(kernel).__name__} needs a GPU; "
                "give one of `ciq_ray.gpu.devices.devices()`"
            )
        self.kernel = kernel
        self.device = device
        self.options = options
        self._measuring = measuring
        self._clock_state = "unknown" if held is None else held.clock_state
        self._notes: list[str] = [] if held is None else held.notes
        self._core_mhz = None if held is None else held.core_mhz
        self._holding = held is not None
        self._quarantined = ""
        self._child: ForkedChild | None = None
        self._imported = False
        # the last child was ended, or died, in the middle of something
        self._suspect = False
        self._prepared: Mapping[str, Any] | None = None
        self._control: Mapping[str, float] | None = None
        self._reference: Mapping[str, float] | None = None
        self._control_failed = ""
        self._drift = 0.0
        self._generation: int | None = None
        self._since_control = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the device's lock and clocks; for who owns it, around all jobs. Ends the child at the end.

        Raises:
            ConfigurationError: Another process holds the device, or `TimingOptions.clocks` are not its own.
            NvmlError: The device is lost.
        """
        with contextlib.ExitStack() as stack:
            if self.device is not None:
                from ciq_ray.gpu.hold import Clocks, hold

                clocks = self.options.clocks or Clocks()
                wait_s = self.options.lock_wait_s
                held = stack.enter_context(hold(self.device, clocks, wait_s=wait_s, say=_say))
                self._clock_state, self._notes = held.clock_state, list(held.notes)
                self._core_mhz = held.core_mhz
            self._holding = True
            try:
                yield
            finally:
                self._holding = False
                # one that does not die must not keep the clocks from being put back within END_GRACE_S
                self._end_child(_DYING_AT_END_S)

    def __call__(self, job: Job) -> Outcome:
        """Do a job.

        Returns:
            For ``prepare`` what the device can do, in ``metrics``. For the others what `Measuring.evaluate`
            found, or ``run_error``, ``run_timeout`` and ``resource_exceeded`` for what it did to its
            process, and ``lost`` if the device cannot be used (with ``device_lost`` if that is so for later
            jobs, too). ``metrics`` has ``gpu`` (with ``off_clock`` if a lock of its clock did not hold),
            ``gpu_at`` (begin and end in seconds of ``time.time``) and, if the job has a control,
            ``control_ms``; besides ``control_failed`` if the control does not work, and ``control_drift``,
            its relative change, if that stayed beyond the limit.
        """
        begun = time.time()
        try:
            self._hold_by_itself()
            if job.fresh:
                self._end_child()
            outcome = self._prepare() if job.kind == PREPARE else self._measured(job)
        except _DeviceLostError as error:
            outcome = Outcome("lost", message=str(error), metrics={DEVICE_LOST: True})
        ended = time.time()
        metrics = {**outcome.metrics, "gpu_at": [begun, ended], **self._about_device(outcome)}
        return replace(outcome, metrics=metrics, run_s=ended - begun)

    def close(self) -> None:
        """End the child; a later job starts another."""
        self._end_child()

    # --- what is asked ---

    def _prepare(self) -> Outcome:
        child = self._ready_child()
        try:
            self._prepared = child.call(Prepare(), self.options.start_timeout)
        except (ChildTimeout, ChildDied, ChildFailed) as error:
            self._end_child()
            raise _DeviceLostError(failure_message(f"preparing failed: {error}", _tail(error))) from error
        return Outcome("ok", (0.0,), metrics={**(self._prepared or {}), "notes": self._notes})

    def _measured(self, job: Job) -> Outcome:
        if not job.control:
            return self._evaluate(job, None)
        if self._control_is_due(job):
            failed = self._measure_control(job)
            if failed is not None:
                return failed
        outcome = self._evaluate(job, self._control)
        self._since_control += 1
        return replace(outcome, metrics={**outcome.metrics, **self._about_control()})

    def _evaluate(self, job: Job, control: Mapping[str, float] | None) -> Outcome:
        """Have the child do it; afterwards there is a child that can go on, or none."""
        child = self._ready_child()
        limit = self.options.run_timeout
        request = Evaluate(replace(job, control=b"", control_config=None), control)
        try:
            outcome = child.call(request, limit)
        except ChildTimeout as error:
            self._suspect = True
            text = f"the evaluation took longer than {limit:g} s"
            return Outcome("run_timeout", message=failure_message(text, error.tail))
        except ChildDied as error:
            self._suspect = True
            text = f"the timing process {error.how} during the evaluation"
            return Outcome("run_error", message=failure_message(text, error.tail))
        except ChildFailed as error:
            outcome = Outcome("run_error", message=str(error))
        if not isinstance(outcome, Outcome):
            return Outcome("invalid_result", message=f"the timing process answered {outcome!r}")
        if outcome.status == "lost" or (outcome.status == "run_error" and is_sticky(outcome.message)):
            self._end_child()
            self._suspect = True
        return outcome

    # --- the control ---

    def _control_is_due(self, job: Job) -> bool:
        new = self._generation is None or job.generation > self._generation
        return new or self._since_control >= self.options.control_every

    def _measure_control(self, job: Job) -> Outcome | None:
        """Measure the baseline, again if it has drifted; what the job comes to if that says nothing."""
        control = Job(CANDIDATE, job.control_config, job.control, generation=job.generation)
        for attempt in range(_DRIFT_TRIES + 1):
            outcome = self._evaluate(control, None)
            if not outcome.ok and outcome.status not in RETRIED:
                # once more in a new process: what ran before it may have left the old one spoiled
                self._end_child()
                self._suspect = True
                outcome = self._evaluate(control, None)
            if outcome.status in RETRIED:
                return replace(outcome, message=f"the control: {outcome.message}")
            if not outcome.ok:
                self._control, self._reference, self._drift = None, None, 0.0
                self._control_failed = f"{outcome.status}: {outcome.message}".strip(": ")
                break
            self._control_failed = ""
            self._control = _medians(outcome)
            self._drift = _drift(self._control, self._reference)
            # measuring it is the best way to warm the device up for it
            if abs(self._drift) <= self.options.drift or attempt == _DRIFT_TRIES:
                self._reference = self._control
                break
        self._generation = max(job.generation, self._generation or 0)
        self._since_control = 0
        return None

    def _about_control(self) -> dict[str, Any]:
        about: dict[str, Any] = {}
        if self._control:
            times = [*self._control.values()]
            about["control_ms"] = times[0] if len(times) == 1 else statistics.geometric_mean(times)
        if self._control_failed:
            about["control_failed"] = self._control_failed
        if abs(self._drift) > self.options.drift:
            about["control_drift"] = self._drift
        return about

    # --- the device ---

    def _hold_by_itself(self) -> None:
        if self._holding:
            return
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(self.hold())
        except CiqError as error:
            raise _DeviceLostError(str(error)) from error
        atexit.register(stack.close)

    def _about_device(self, outcome: Outcome) -> dict[str, Any]:
        if self.device is None:
            return {}
        device, state = self.device, self._clock_state
        about: dict[str, Any] = {"uuid": device.uuid, "name": device.name, "arch": device.arch}
        about |= {"driver": device.driver, "clock_state": state}
        if self._core_mhz is not None:
            from ciq_ray.gpu.evidence import Evidence, off_clock

            # whether a lock holds shows under load only
            seen = off_clock(Evidence(sm_mhz=outcome.metrics.get("sm_mhz")), self._core_mhz)
            about |= {"off_clock": seen} if seen else {}
        return {"gpu": about}

    # --- the child ---

    def _ready_child(self) -> ForkedChild:
        """A child that waits for requests, on a device that works."""
        if self._quarantined:
            raise _DeviceLostError(self._quarantined)
        if self._child is not None and not self._child.alive:
            # it died with nothing to do, of what an earlier candidate has left behind
            self._end_child()
            self._suspect = True
        if self._child is not None:
            return self._child
        if self._suspect and (gone := _what_is_lost(self.device)):
            raise self._quarantine(gone)
        try:
            self._import()
        except (ImportError, UnsupportedError) as error:
            raise self._quarantine(str(error)) from error
        problem = ""
        for _ in range(_STARTS):
            self._child = ForkedChild(self._serve, _OUTPUT)
            try:
                self._child.wait(self.options.start_timeout)
                if not self._suspect or self._child.call(Canary(), self.options.start_timeout) is True:
                    self._suspect = False
                    return self._child
                problem = "the canary, a computation with a known answer, came out wrong"
            except (ChildTimeout, ChildDied, ChildFailed) as error:
                problem = failure_message(f"its process cannot start: {error}", _tail(error))
            self._end_child()
            self._suspect = True
        raise self._quarantine(problem)

    def _serve(self) -> Callable[[Any], Any]:
        return serve(self.kernel, self.device, self.options, self._prepared, measuring=self._measuring)

    def _import(self) -> None:
        if not self._imported:
            import_for(self.kernel)
            self._imported = True

    def _end_child(self, dying_s: float = _DYING_S) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close(dying_s)

    def _quarantine(self, problem: str) -> _DeviceLostError:
        name = "the CPU" if self.device is None else f"{self.device.name} ({self.device.uuid})"
        self._quarantined = f"{name} cannot be used: {problem}"
        return _DeviceLostError(self._quarantined)


def of_owner(outcome: Outcome) -> Outcome:
    """What the process that has a `TimingStage` answered; if it died instead, no candidate is to blame."""
    if outcome.ok or outcome.status in RETRIED or "gpu_at" in outcome.metrics:
        return outcome
    return Outcome("lost", message=f"the owner of the device: {outcome.message}")


class _DeviceLostError(WorkerError):
    """Nothing can be timed here; not the candidate's fault."""


def _what_is_lost(device: Device | None) -> str:
    """NVML's words, if it knows that the device is gone."""
    if device is None:
        return ""
    from ciq_ray.gpu.nvml import NvmlError, nvml

    try:
        with nvml() as session:
            session.handle(device.uuid)
    except NvmlError as error:
        return str(error) if error.kind == "lost" else ""
    return ""


def _say(note: str) -> None:
    """To the log of the owner."""
    print(note, file=sys.stderr)


def _tail(error: Exception) -> str:
    return str(getattr(error, "tail", ""))


def _medians(outcome: Outcome) -> dict[str, float]:
    """Milliseconds by shape."""
    timings = outcome.metrics.get("timing")
    if timings:
        return {shape: float(timing["median_ms"]) for shape, timing in timings.items()}
    return {"": outcome.values[0]}


def _drift(now: Mapping[str, float], before: Mapping[str, float] | None) -> float:
    """The largest relative change of a shape, with its sign."""
    if before is None:
        return 0.0
    changes = [now[shape] / before[shape] - 1 for shape in now if shape in before]
    return max(changes, key=abs, default=0.0)
