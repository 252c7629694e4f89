"""A device with a clock of its own: launches queue on it, the CPU runs ahead, times come from a script."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ciq_ray.gpu.evidence import Evidence

Duration = Callable[[int, np.random.Generator], float]
"""Microseconds of the launch with this number."""


@dataclass
class SimulatedRuntime:
    """CPU and device as two clocks, in microseconds.

    Attributes:
        duration: How long each launch takes the device.
        launch_us: How long a launch takes the CPU.
        flush_us: How long a flush takes the device.
        cold_us: What the first launch after a flush takes longer.
        throttled: Whether the device slows itself down at a time.
    """

    duration: Duration
    launch_us: float = 10.0
    flush_us: float = 60.0
    cold_us: float = 0.0
    graphs: bool = True
    timer: Literal["events", "host"] = "events"
    throttled: Callable[[float], bool] = lambda at: False
    seed: int = 0
    name: str = "simulated"
    l2_bytes: int = 1
    device: Any = None
    cpu: float = field(default=0.0, init=False)
    gpu: float = field(default=0.0, init=False)
    launches: int = field(default=0, init=False)
    slept_s: list[float] = field(default_factory=list, init=False)
    blocks: int = field(default=0, init=False)
    woken: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.flushed = False

    # --- what a test hands to `measure` ---

    def launch(self) -> None:
        self.cpu += self.launch_us
        self._run()

    def clock(self) -> float:
        return self.cpu / 1e6

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.cpu += seconds * 1e6
        self.woken = self.cpu

    # --- Runtime ---

    def synchronize(self) -> None:
        self.cpu = max(self.cpu, self.gpu)

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def elapsed_ms(self, begin: SimulatedEvent, end: SimulatedEvent) -> float:
        return (end.at - begin.at) / 1e3

    def flush(self) -> None:
        self.cpu += 4.0
        self.gpu = max(self.cpu, self.gpu) + self.flush_us
        self.flushed = True

    def block(self) -> None:
        self.blocks += 1
        self.cpu += 4.0
        self.gpu = max(self.cpu, self.gpu) + 500.0

    def graph(self, launch: Callable[[], None], count: int) -> Callable[[], None] | None:
        if not self.graphs:
            return None

        def replay() -> None:
            self.cpu += 8.0
            for _ in range(count):
                self._run()

        return replay

    def _run(self) -> None:
        us = self.duration(self.launches, self.rng) + (self.cold_us if self.flushed else 0.0)
        if self.throttled(self.cpu):
            us *= 1.5
        self.launches += 1
        self.flushed = False
        self.gpu = max(self.cpu, self.gpu) + us


@dataclass
class HotRuntime(SimulatedRuntime):
    """A device that reaches its power limit when it is kept busy.

    Its power is an exponential mean over how busy it was. Above `limit` (1: always busy) its clock is
    lowered, and swings, until it is below again.

    Attributes:
        limit: As a share of what the kernels draw.
        mean_us: Time constant of the mean.
    """

    limit: float = 0.6
    mean_us: float = 100_000.0
    power: float = field(default=0.0, init=False)
    until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.throttled = self._capped

    def flush(self) -> None:
        super().flush()
        self._draw(self.flush_us)

    def _run(self) -> None:
        before = self.gpu
        super()._run()
        if self._capped(before):
            self.gpu += 0.1 * (self.gpu - before) * abs(float(self.rng.standard_normal()))
        self._draw(self.gpu - max(self.until, before))

    def _draw(self, busy_us: float) -> None:
        self._pass(self.gpu - busy_us, 0.0)
        self._pass(self.gpu, 1.0)

    def _pass(self, until: float, level: float) -> None:
        if until > self.until:
            kept = math.exp((self.until - until) / self.mean_us)
            self.power, self.until = self.power * kept + level * (1 - kept), until

    def _capped(self, at: float) -> bool:
        if self.gpu <= at:  # it had nothing to do
            self._pass(at, 0.0)
        return self.power > self.limit


class SimulatedEvent:
    def __init__(self, runtime: SimulatedRuntime) -> None:
        self.runtime = runtime
        self.at = float("nan")

    def record(self) -> None:
        self.runtime.cpu += 1.0
        self.at = max(self.runtime.cpu, self.runtime.gpu)


class SimulatedWatcher:
    """Sees what the simulated device does."""

    def __init__(self, runtime: SimulatedRuntime) -> None:
        self.runtime = runtime
        self.windows = 0

    def begin(self) -> None:
        self.seen: list[bool] = [self.runtime.throttled(self.runtime.cpu)]

    def sample(self) -> None:
        self.seen.append(self.runtime.throttled(self.runtime.cpu))

    def end(self) -> Evidence:
        self.sample()
        self.windows += 1
        bad = any(self.seen)
        clock = 1000.0 + self.windows
        return Evidence(
            clock, 1593.0, 300.0, 40.0 + self.windows, 4 if bad else 0, "SwPowerCap" if bad else ""
        )


def steady(us: float) -> Duration:
    return lambda number, rng: us


def noisy(us: float, relative: float) -> Duration:
    return lambda number, rng: us * (1 + relative * float(rng.standard_normal()))


def heavy_tailed(us: float) -> Duration:
    """1% noise; one launch in ten takes up to eleven times as long."""

    def duration(number: int, rng: np.random.Generator) -> float:
        tail = us * 10 * float(rng.random()) if rng.random() < 0.1 else 0.0
        return us * (1 + 0.01 * float(rng.standard_normal())) + tail

    return duration


def bursts(every_us: float, length_us: float) -> Callable[[float], bool]:
    return lambda at: at % every_us < length_us
