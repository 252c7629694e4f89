"""Timing one kernel: warm up, empty the cache, take samples, watch the clocks, know when to stop.

These are steps 6 to 10 of the measurement protocol (docs/kernels.md). What they owe to others: the cold cache
and the blocking kernel in front of short ones are nvbench's, as is dropping samples taken while the clock
was throttled; stopping at a noise level or a budget is nvbench's and Kernel Tuner's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from ciq_ray.errors import CiqError, ConfigurationError
from ciq_ray.gpu.runtime import BLOCK_MS

if TYPE_CHECKING:
    from ciq_ray.gpu.evidence import Evidence
    from ciq_ray.gpu.runtime import Runtime

__all__ = ["Throttled", "Timing", "Watches", "measure", "spread_of"]

_SHORT_MS: Final = 0.05
"""Below this, launching takes the CPU about as long as running takes the device."""
_GRAPH_MS: Final = 0.5
_MOST_IN_GRAPH: Final = 100
_CPU_BOUND: Final = 0.7
"""Share of a batch's time spent launching from which on the device may have idled."""
_MOST_BLOCKS: Final = 20
_BATCH_MS: Final = 5.0
"""About how long the device works between two looks at what it has done."""
_WARM_BATCH: Final = 5
_WAKE_MS: Final = 2.0
_STEADY: Final = 0.02
_FEW: Final = 5
"""Samples that can show a kernel to be slower."""
_LEAST: Final = 3
"""Samples that can show it to be `_FAR` slower, or that took `_PATIENCE` budgets."""
_FAR: Final = 1.5
_PATIENCE: Final = 4.0
_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_MOST_PAUSED_S: Final = 3.0
"""Or the time limit of an evaluation would blame the kernel for what the device does."""
_MAD_TO_SD: Final = 1.4826  # of a normal distribution
_MEDIAN_TO_MEAN: Final = 1.2533  # standard error of the median over that of the mean, sqrt(pi / 2)


class Throttled(CiqError):
    """The device slowed itself down in all samples, or all but two: nothing is known about the kernel."""

    status = "throttled"


class Watches(Protocol):
    """What looks at the device while it works: `ciq_ray.gpu.evidence.Watcher`."""

    def begin(self) -> None:
        """A window begins."""
        ...

    def sample(self) -> None:
        """In the middle of it, while the device is busy."""
        ...

    def end(self) -> Evidence:
        """It is over; what was seen. `spoiled` says why its samples do not count, if so."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """What `measure` found.

    Attributes:
        samples_ms: Milliseconds of one launch, all of them that count, in the order taken.
        median_ms: Their median.
        spread_ms: Their standard deviation, robust against outliers: 1.4826 times the median absolute
            deviation, which is the standard deviation if they are normally distributed.
        timer: ``events`` around each launch, a ``graph`` of several launches, or the ``host`` clock.
        regime: ``cold``: the last cache level was emptied before each launch. ``warm``: it was not.
        launches: Launches behind each sample.
        blocked: Whether a blocking kernel ran in front, so that gaps between launches do not count.
        warmup: Launches before the first sample.
        stopped: Why it was enough: ``noise`` reached, ``budget`` or most ``samples`` used up, clearly
            ``slower`` than the limit, or ``throttled`` too often to go on.
        dropped_ms: Milliseconds of samples taken while the device slowed itself down, which do not count.
        evidence: What was seen of the device meanwhile: medians, the highest temperature, all reasons.
    """

    samples_ms: tuple[float, ...]
    median_ms: float
    spread_ms: float
    timer: Literal["events", "graph", "host"]
    regime: Literal["cold", "warm"]
    launches: int
    blocked: bool
    warmup: int
    stopped: Literal["noise", "budget", "samples", "slower", "throttled"]
    dropped_ms: tuple[float, ...]
    evidence: Evidence | None

    @property
    def dropped(self) -> int:
        """How many samples do not count."""
        return len(self.dropped_ms)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = {name: getattr(self, name) for name in self.__slots__}
        data |= {"samples_ms": list(self.samples_ms), "dropped_ms": list(self.dropped_ms)}
        data["dropped"] = self.dropped
        data["evidence"] = None if self.evidence is None else self.evidence.to_dict()
        return data


def measure(
    launch: Callable[[], None],
    *,
    runtime: Runtime,
    flush: bool = True,
    min_samples: int = 10,
    max_samples: int = 1000,
    noise: float = 0.01,
    budget_ms: float = 50.0,
    warmup_ms: float = 250.0,
    slower_than_ms: float | None = None,
    watcher: Watches | None = None,
    retries: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Timing:
    """Time a kernel.

    It is launched once untimed, then until two batches in a row have medians within 2% of each other,
    `warmup_ms` at most. Samples are taken in batches that are enqueued whole, so that the device
    does not idle while the CPU prepares a launch. Cold, each launch has a write of the whole last cache
    level in front. Launches below 50 µs have a blocking kernel in front of their batch; warm, they are
    timed as a CUDA graph of up to 100 of them. Whatever takes the CPU longer to launch than the device to
    run is blocked, too.

    Args:
        launch: Starts the kernel once.
        runtime: The device.
        flush: Whether to empty the last cache level before each launch.
        min_samples: Samples to take at least. Three are enough once they took four times the budget.
        max_samples: Samples to take at most.
        noise: Stop at this relative standard error of the median; 0: go on to the budget.
        budget_ms: Stop after so many milliseconds, flushes included; warm-up, pauses and what is dropped
            do not count.
        warmup_ms: Longest warm-up.
        slower_than_ms: Stop when five samples are all above this, and their median is by more than three
            of its standard errors; or when three are all above one and a half times this.
        watcher: Looks at the device during each batch; a batch it calls spoiled is dropped, and taken
            again after a pause that doubles each time, and a launch or a few to wake the device. A whole
            warm-up would take a device that is at its power limit there again.
        retries: How often in a row that is done; for three seconds in all at most.
        clock: Seconds; another one is for tests.
        sleep: Waits; another one is for tests.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
        Throttled: So many batches were spoiled that fewer than three samples count.
        Exception: Whatever a launch raises.
    """
    if not 1 <= min_samples <= max_samples:
        raise ConfigurationError(
            f"`min_samples` is {min_samples!r} and `max_samples` is {max_samples!r}; "
            "the least must be at least 1 and not exceed the most"
        )
    if not budget_ms > 0:
        raise ConfigurationError(f"`budget_ms` is {budget_ms!r}; it must be above 0")
    bench = _Bench(launch, runtime, flush, clock, runtime.timer)
    bench.warm_up(warmup_ms, slower_than_ms)
    bench.choose_timer()

    samples: list[float] = []
    dropped: list[float] = []
    seen: list[Evidence] = []
    used_ms, paused_s, spoiled_in_a_row = 0.0, 0.0, 0
    stopped: str | None = None
    while stopped is None:
        count = min(bench.batch_size(min_samples), max_samples - len(samples))
        begun = clock()
        batch, evidence = bench.batch(count, watcher)
        if evidence is not None and evidence.spoiled:
            dropped += batch
            spoiled_in_a_row += 1
            if spoiled_in_a_row > retries or paused_s >= _MOST_PAUSED_S:
                if len(samples) < min(_LEAST, min_samples):
                    raise Throttled(
                        f"{len(dropped)} of {len(dropped) + len(samples)} samples are spoiled: "
                        f"{evidence.spoiled}; "
                        "lock its clocks to base, or wait until it is cool (docs/gpu.md)"
                    )
                stopped = "throttled"
                break
            pause_s = min(_PAUSE_S * 2 ** (spoiled_in_a_row - 1), _LONGEST_PAUSE_S)
            paused_s += pause_s
            sleep(pause_s)
            bench.wake()
            continue
        spoiled_in_a_row = 0
        used_ms += (clock() - begun) * 1e3
        samples += batch
        if evidence is not None:
            seen.append(evidence)
        stopped = _reason_to_stop(
            samples, used_ms, min_samples, max_samples, noise, budget_ms, slower_than_ms
        )
    return Timing(
        samples_ms=tuple(samples),
        median_ms=median(samples),
        spread_ms=spread_of(samples),
        timer=bench.timer,
        regime="cold" if flush else "warm",
        launches=bench.launches,
        blocked=bench.blocked,
        warmup=bench.warmup,
        stopped=stopped,  # type: ignore[arg-type] # one of the five
        dropped_ms=tuple(dropped),
        evidence=_together(seen),
    )


def spread_of(samples: Sequence[float]) -> float:
    """The robust standard deviation of `Timing.spread_ms`."""
    middle = median(samples)
    return _MAD_TO_SD * median(abs(sample - middle) for sample in samples)


def _reason_to_stop(
    samples: Sequence[float],
    used_ms: float,
    min_samples: int,
    max_samples: int,
    noise: float,
    budget_ms: float,
    slower_than_ms: float | None,
) -> str | None:
    count, middle = len(samples), median(samples)
    error = _MEDIAN_TO_MEAN * spread_of(samples) / math.sqrt(count)
    if slower_than_ms is not None and count >= _LEAST:
        fastest = min(samples)
        surely = count >= _FEW and fastest > slower_than_ms and middle - 3 * error > slower_than_ms
        if surely or fastest > _FAR * slower_than_ms:
            return "slower"
    if count >= max_samples:
        return "samples"
    if used_ms >= budget_ms and count >= min_samples:
        return "budget"
    if used_ms >= _PATIENCE * budget_ms and count >= min(_LEAST, min_samples):
        return "budget"
    if noise > 0 and count >= min_samples and error <= noise * middle:
        return "noise"
    return None


@dataclass(slots=True)
class _Bench:
    """Batches of launches, each enqueued whole."""

    launch: Callable[[], None]
    runtime: Runtime
    flush: bool
    clock: Callable[[], float]
    timer: Literal["events", "graph", "host"]
    launches: int = 1
    blocked: bool = False
    warmup: int = 0
    # of one launch; of all that a sample takes; of what of it the CPU takes
    estimate_ms: float = field(default=0.0, init=False)
    sample_ms: float = field(default=0.0, init=False)
    enqueue_ms: float = field(default=0.0, init=False)

    def warm_up(self, limit_ms: float, slower_than_ms: float | None) -> None:
        """Launch until it takes as long as before, or is so slow that nobody cares."""
        first = self.clock()
        self.launch()
        self.runtime.synchronize()
        begun = self.clock()
        self.sample_ms = (begun - first) * 1e3  # with all that a library does at its first call
        self.warmup += self.launches
        before: float | None = None
        while True:
            batch, _ = self.batch(_WARM_BATCH if self.sample_ms < _BATCH_MS else 1, None)
            self.warmup += len(batch) * self.launches
            now = median(batch)
            self.estimate_ms = now
            if self.timer == "events" and not self.blocked:
                # or the device waits for the CPU, and what was timed is the launching
                self.blocked = now < _SHORT_MS or self.enqueue_ms > _CPU_BOUND * self.sample_ms
            if before is not None and abs(now - before) <= _STEADY * before:
                return
            if slower_than_ms is not None and min(batch) > 2 * slower_than_ms:
                return
            if (self.clock() - begun) * 1e3 >= limit_ms:
                return
            before = now

    def wake(self) -> None:
        """Launch after a pause, for so short a time that the device does not reach its power limit by it."""
        count = max(1, min(_WARM_BATCH, int(_WAKE_MS / max(self.sample_ms, 1e-6))))
        self.batch(count, None)
        self.warmup += count * self.launches

    def choose_timer(self) -> None:
        """A graph for what is short, where its launches may leave the cache warm for each other."""
        if self.flush or not self.blocked or self.estimate_ms >= _SHORT_MS:
            return
        count = min(_MOST_IN_GRAPH, math.ceil(_GRAPH_MS / max(self.estimate_ms, 1e-6)))
        graph = self.runtime.graph(self.launch, count)
        if graph is not None:
            self.launch, self.launches, self.timer, self.blocked = graph, count, "graph", False
            self.batch(1, None)  # the first launch of a graph uploads it
            self.warmup += count

    def batch_size(self, most: int) -> int:
        """How many samples fill the time between two looks."""
        return max(1, min(most, math.ceil(_BATCH_MS / max(self.sample_ms, 1e-6))))

    def batch(self, count: int, watcher: Watches | None) -> tuple[list[float], Evidence | None]:
        """Samples in milliseconds, and what was seen of the device meanwhile."""
        runtime = self.runtime
        events = [(runtime.event(), runtime.event()) for _ in range(count)]
        if watcher is not None:
            watcher.begin()
        begun = self.clock()
        if self.blocked:
            # for as long as the batch will take to be enqueued
            for _ in range(min(_MOST_BLOCKS, math.ceil(self.enqueue_ms * count / BLOCK_MS))):
                runtime.block()
        blocked = self.clock()
        for begin, end in events:
            if self.flush:
                runtime.flush()
            begin.record()
            self.launch()
            end.record()
        self.enqueue_ms = (self.clock() - blocked) * 1e3 / count
        if watcher is not None:
            watcher.sample()
        runtime.synchronize()
        self.sample_ms = (self.clock() - begun) * 1e3 / count
        evidence = None if watcher is None else watcher.end()
        return [runtime.elapsed_ms(begin, end) / self.launches for begin, end in events], evidence


def _together(seen: Sequence[Evidence]) -> Evidence | None:
    """One evidence for several windows."""
    if not seen:
        return None
    reasons = 0
    for evidence in seen:
        reasons |= evidence.reasons
    temperatures = [evidence.temp_c for evidence in seen if evidence.temp_c is not None]
    return replace(
        seen[-1],
        sm_mhz=_middle([evidence.sm_mhz for evidence in seen]),
        mem_mhz=_middle([evidence.mem_mhz for evidence in seen]),
        power_w=_middle([evidence.power_w for evidence in seen]),
        temp_c=max(temperatures, default=None),
        reasons=reasons,
    )


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
