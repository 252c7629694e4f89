"""From configurations to times: compiled by many on CPUs, timed by the few that own a device, all at once.

While a device times one candidate, the next ones are compiled or wait for it, compiled. What compiles to
the same binary as an earlier candidate is not timed again. One thread makes all calls; see
`ciq_ray.kernels.worker` for who that is.
"""

from __future__ import annotations

import logging
import math
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from ciq_ray.errors import BaselineError, ConfigurationError, WorkerError
from ciq_ray.kernels.artefacts import ArtefactStore
from ciq_ray.kernels.jobs import CANDIDATE, WINDOW, Job
from ciq_ray.kernels.protocol import LIBRARY, Artefact
from ciq_ray.kernels.station import PREPARING, Flight, Settings, Stage, Station
from ciq_ray.kernels.timing_stage import of_owner
from ciq_ray.worker.protocol import Report, Task
from searchers.outcome import RETRIED, Outcome

__all__ = ["Pipeline"]

logger = logging.getLogger(__name__)

_CONTROL: Final = "ciq:control"
_SLOWER: Final = 1.25
"""A candidate that takes so many times as long as the incumbent is not measured to the last per cent."""
_GRACE_S: Final = 1.0
"""For a compiler that keeps to its limit by itself, and says more than that it was killed."""
_SLICE_S: Final = 0.005


class Pipeline:
    """One search's way through both stages.

    Args:
        settings: How it is run.
        open_compilers: Opens the stage that compiles, when there is something to compile.
        stations: Where is timed; they stay open when the pipeline is closed.
        store: Compiled kernels, which outlive the pipeline as well.

    Raises:
        WorkerError: None of the stations can be used any more.
    """

    def __init__(
        self,
        settings: Settings,
        open_compilers: Callable[[], Stage],
        stations: Sequence[Station],
        store: ArtefactStore,
    ) -> None:
        self._settings = settings
        self._open_compilers = open_compilers
        self._compilers: Stage | None = None
        self._stations = list(stations)
        self._store = store
        self._compiling: dict[str, Flight] = {}
        self._to_compile: deque[Flight] = deque()
        self._to_time: deque[Flight] = deque()
        self._timing: dict[tuple[int, str], Flight] = {}
        # by digest: who is about to be timed, and who was, with what came of it
        self._leading: dict[str, Flight] = {}
        self._known: dict[str, tuple[str, Report]] = {}
        self._told: set[str] = set()
        self._best_ms: float | None = None
        self._control: bytes | None = None
        self._fresh_next = settings.window
        self._done: list[Report] = []
        self._usable()
        self._begin_control()

    # --- what comes in ---

    @property
    def capacity(self) -> int:
        """How many can be compiled at a time, as far as known."""
        return max(1, len(self._compiling) + (0 if self._compilers is None else self._compilers.free))

    @property
    def places(self) -> int:
        """How many can be timed at a time."""
        return len(self._timing) + sum(station.stage.free for _, station in self._usable())

    def start_compilers(self) -> None:
        """Have compile workers come up before there is something for them."""
        if self._compilers is None:
            self._compilers = self._open_compilers()

    def submit(self, task: Task) -> None:
        """Send a candidate on its way."""
        flight = Flight(task)
        if task.config == LIBRARY:
            self._to_time.append(flight)
            return
        kept = self._store.get(task.config)
        if kept is None:
            self._to_compile.append(flight)
        else:
            self._compiled(flight, Outcome("ok", (0.0,)), kept)

    def step(self, timeout: float, wake: int) -> list[Report]:
        """Do what can be done, waiting for it `timeout` seconds at most.

        Args:
            timeout: Seconds.
            wake: A file descriptor that ends the wait when it is readable.

        Raises:
            WorkerError: No device is left, or a stage cannot go on.
            BaselineError: The baseline fails, and the search needs it.
        """
        self._dispatch()
        if not self._done:
            self._wait(timeout, wake)
        if self._compilers is not None:
            for report in self._compilers.poll(0):
                self._compile_report(report)
        for number, station in enumerate(self._stations):
            for report in station.stage.poll(0):
                self._time_report(number, station, report)
        self._dispatch()
        done, self._done = self._done, []
        return done

    def cancel(self) -> list[str]:
        """Stop everything in flight; the ids of what was."""
        flights = [*self._to_compile, *self._compiling.values(), *self._to_time, *self._timing.values()]
        ids = [each.task.id for flight in flights for each in (flight, *flight.sharers)]
        self._to_compile.clear()
        self._to_time.clear()
        self._leading.clear()
        if self._compilers is not None and self._compiling:
            self._compilers.cancel()
        self._compiling.clear()
        for number in {number for number, _ in self._timing}:
            self._stations[number].stage.cancel()
            self._stations[number].owner_ended()
        self._timing.clear()
        if self._control is None:
            self._begin_control()  # its compiling may have been stopped with the rest
        return [name for name in ids if name != _CONTROL]

    def close(self) -> None:
        """Stop everything, and end the compile workers."""
        try:
            self.cancel()
        finally:
            if self._compilers is not None:
                self._compilers.close()

    # --- on its way ---

    def _dispatch(self) -> None:
        if self._to_compile:
            self.start_compilers()
        while self._to_compile and self._compilers is not None and self._compilers.free > 0:
            flight = self._to_compile.popleft()
            task = flight.task
            self._compiling[task.id] = flight
            flight.began = time.time()
            limit = min(self._settings.compile_timeout, task.compile_timeout or math.inf)
            self._compilers.submit(
                Task(task.id, task.config, compile_timeout=limit, limit_s=limit + _GRACE_S)
            )
        for _, station in self._usable():
            station.prepare()
        if self._control is None:
            return
        for number, station in self._usable():
            while self._to_time and station.ready and station.stage.free > 0:
                flight = self._to_time.popleft()
                self._timing[number, flight.task.id] = flight
                station.stage.submit(Task(flight.task.id, self._job(flight), flight.task.generation))

    def _job(self, flight: Flight) -> Job:
        settings, task = self._settings, flight.task
        fresh, self._fresh_next = settings.fresh or self._fresh_next, False
        return Job(
            kind=WINDOW if settings.window else CANDIDATE,
            config=task.config,
            artefact=flight.artefact,
            control=self._control or b"",
            control_config=settings.baseline,
            generation=task.generation,
            slower_than_ms=None if self._best_ms is None else self._best_ms * _SLOWER,
            fresh=fresh,
        )

    def _wait(self, timeout: float, wake: int) -> None:
        stages = [station.stage for station in self._stations]
        if self._compilers is not None:
            stages.append(self._compilers)
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        for stage in stages:
            # actors of a cluster have no file descriptor: they are looked at again and again
            number = getattr(stage, "fileno", None)
            if number is None:
                timeout = min(timeout, _SLICE_S)
            else:
                poller.register(number(), select.POLLIN)
        poller.poll(max(0.0, timeout) * 1000)

    # --- the first stage ---

    def _begin_control(self) -> None:
        settings = self._settings
        if settings.baseline is None or settings.window:
            self._control = b""
            return
        kept = self._store.get(settings.baseline)
        if kept is not None:
            self._control = kept
        else:
            self._to_compile.appendleft(Flight(Task(_CONTROL, settings.baseline)))

    def _compile_report(self, report: Report) -> None:
        flight = self._compiling.pop(report.task_id, None)
        if flight is None:
            return  # cancelled meanwhile
        outcome = _of_compiling(report.outcome)
        if flight.task.id == _CONTROL:
            self._control_compiled(outcome, report.attached)
            return
        if outcome.ok:
            self._store.put(flight.task.config, report.attached)
            self._compiled(flight, outcome, report.attached)
        elif outcome.status in RETRIED:
            self._report(replace(report, outcome=outcome))
        else:
            metrics = {"compile_at": [flight.began, time.time()], **outcome.metrics}
            seconds = outcome.compile_s if outcome.compile_s is not None else outcome.run_s
            outcome = replace(outcome, metrics=metrics, compile_s=seconds)
            self._report(replace(report, outcome=outcome, attached=b""))

    def _control_compiled(self, outcome: Outcome, artefact: bytes) -> None:
        baseline = self._settings.baseline
        if outcome.ok:
            self._control = artefact
            self._store.put(baseline, artefact)
            return
        text = f"the baseline {baseline!r} cannot be compiled ({outcome.status}): {outcome.message.strip()}"
        if self._settings.needs_baseline:
            raise BaselineError(
                f"{text}\nGive a configuration that works as the space's `default`, or first in "
                "`initial_configs`, or search without `normalize` and with `final_race=False`"
            )
        logger.warning("%s; devices are not watched for drift", text)
        self._control = b""

    def _compiled(self, flight: Flight, outcome: Outcome, artefact: bytes) -> None:
        try:
            flight.digest = Artefact.from_bytes(artefact).digest
        except ConfigurationError as error:
            failed = Outcome("compile_error", message=f"`compile` did not return an artefact: {error}")
            self._report(Report(flight.task.id, failed))
            return
        flight.artefact = artefact
        flight.metrics = {**outcome.metrics, "digest": flight.digest}
        if flight.began:  # else it was compiled before
            flight.metrics.setdefault("compile_at", [flight.began, time.time()])
            flight.compile_s = outcome.compile_s if outcome.compile_s is not None else outcome.run_s
        if not self._settings.window:
            known = self._known.get(flight.digest)
            if known is not None and flight.task.id not in self._told:  # else it is measured again
                self._share(flight, *known)
                return
            leader = self._leading.get(flight.digest)
            if leader is not None:
                leader.sharers.append(flight)
                return
            self._leading[flight.digest] = flight
        self._to_time.append(flight)

    # --- the second stage ---

    def _time_report(self, number: int, station: Station, report: Report) -> None:
        if report.task_id == PREPARING:
            self._prepared(station, report.outcome)
            return
        flight = self._timing.pop((number, report.task_id), None)
        if flight is None:
            return
        outcome = of_owner(report.outcome)
        self._leading.pop(flight.digest, None)
        if outcome is not report.outcome:
            station.owner_ended()
        if station.is_given_up(outcome):
            self._drop(station, outcome.message)
        self._check_control(outcome)
        report = self._settled(flight, report, outcome)
        if outcome.status in RETRIED:
            self._to_time.extendleft(reversed(flight.sharers))  # each is timed by itself then
            return
        if self._settings.window:
            return
        if flight.digest:
            self._known[flight.digest] = flight.task.id, report
        if outcome.ok and self._settings.in_ms:
            self._best_ms = min(outcome.values[0], self._best_ms or outcome.values[0])
        for sharer in flight.sharers:
            self._share(sharer, flight.task.id, report)

    def _settled(self, flight: Flight, report: Report, outcome: Outcome) -> Report:
        """The report of a candidate that has been through both stages."""
        outcome = replace(
            outcome,
            compile_s=flight.compile_s,
            metrics={**flight.metrics, **outcome.metrics},
        )
        gpu = outcome.metrics.get("gpu")
        place = dict(report.place)
        if isinstance(gpu, dict) and gpu.get("uuid"):
            place["gpu"] = gpu["uuid"]
        control = outcome.metrics.get("control_ms") if self._settings.normalize and outcome.ok else None
        settled = replace(
            report,
            task_id=flight.task.id,
            outcome=outcome,
            baseline=None if control is None else (float(control),),
            place=place,
        )
        self._report(settled)
        return settled

    def _share(self, flight: Flight, name: str, report: Report) -> None:
        """Give a candidate what its twin was measured with; it took no time on the device."""
        metrics = {key: value for key, value in report.outcome.metrics.items() if key != "gpu_at"}
        metrics.pop("compile_at", None)
        outcome = replace(
            report.outcome,
            compile_s=flight.compile_s,
            run_s=0.0,
            metrics={**metrics, **flight.metrics, "same_binary_as": name},
        )
        self._report(replace(report, task_id=flight.task.id, outcome=outcome))

    def _report(self, report: Report) -> None:
        self._done.append(report)
        if report.outcome.status not in RETRIED:
            self._told.add(report.task_id)

    # --- the devices ---

    def _usable(self) -> list[tuple[int, Station]]:
        """Stations by number; for a race the first, since only times of one device compare.

        Raises:
            WorkerError: There is none.
        """
        found = [(number, each) for number, each in enumerate(self._stations) if not each.dropped]
        if not found:
            names = ", ".join(station.name for station in self._stations)
            raise WorkerError(f"no device can be used any more: {names}")
        return found[:1] if self._settings.window else found

    def _prepared(self, station: Station, outcome: Outcome) -> None:
        if not outcome.ok:
            self._drop(station, outcome.message)
            return
        station.is_prepared()
        for note in outcome.metrics.get("notes", ()):
            logger.warning("%s", note)

    def _drop(self, station: Station, why: str) -> None:
        station.ready, station.dropped = False, True
        problem = f"{station.name} cannot be used: "
        text = problem + why.strip().removeprefix(problem)  # the device's owner may have said as much
        if self._settings.window or all(other.dropped for other in self._stations):
            raise WorkerError(text)
        logger.warning("%s; the search goes on without it", text)

    def _check_control(self, outcome: Outcome) -> None:
        failed = outcome.metrics.get("control_failed")
        if failed and self._settings.needs_baseline:
            raise BaselineError(f"the baseline {self._settings.baseline!r} fails on the device: {failed}")


def _of_compiling(outcome: Outcome) -> Outcome:
    """What a failure of the process that compiles says about the candidate."""
    status = {"run_timeout": "compile_timeout", "run_error": "compile_error"}.get(outcome.status)
    return outcome if status is None else replace(outcome, status=status)
