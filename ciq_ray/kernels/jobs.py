"""What is asked of the owner of a device, and how it measures."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.gpu.hold import Clocks
    from ciq_ray.kernels.protocol import Artefact
    from searchers.outcome import Outcome

__all__ = ["CANDIDATE", "DEVICE_LOST", "PREPARE", "WINDOW", "Job", "Measuring", "TimingOptions"]

CANDIDATE: Final = "candidate"
WINDOW: Final = "window"
PREPARE: Final = "prepare"
DEVICE_LOST: Final = "device_lost"
"""Among the metrics of a ``lost`` job: true if later ones will be lost as well."""


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to be done on a device; made by the pipeline and by the final race.

    Attributes:
        kind: ``candidate``: load, check and time, stopping as soon as it is known well enough.
            ``window``: the same for a race, timing for `TimingOptions.window_ms` whatever comes out.
            ``prepare``: get ready, and say what the device can do.
        config: The configuration, or `ciq_ray.kernels.protocol.LIBRARY`.
        artefact: `ciq_ray.kernels.protocol.Artefact.to_bytes` of it; empty for the library and ``prepare``.
        control: The baseline's artefact, which is measured first when that is due; empty: none is.
        control_config: The baseline's configuration.
        generation: The block of candidates it belongs to; a new one makes the control due.
        slower_than_ms: Stop timing once it is clearly slower than this; ``None``: never. Only used with
            a single shape.
        fresh: In a new child process.
    """

    kind: Literal["candidate", "window", "prepare"]
    config: Any = None
    artefact: bytes = b""
    control: bytes = b""
    control_config: Any = None
    generation: int = 0
    slower_than_ms: float | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class TimingOptions:
    """How the owner of a device checks and times candidates.

    The defaults are those of the protocol (docs/kernels.md) where it has a number.

    Attributes:
        budget_ms: Milliseconds of timing a candidate gets for each shape, warm-up not counted.
        min_samples: Fewest samples; a slow kernel is let off with three (`ciq_ray.gpu.timing.measure`).
        max_samples: Most samples.
        noise: Stop at this relative standard error of the median.
        warmup_ms: Longest warm-up.
        flush: Whether the last cache level is emptied before each launch (the cold regime).
        retries: How often a spoiled batch is measured again.
        seeds: Of the arguments the answers are checked with; the first one's are timed.
        run_timeout: Seconds for all of one candidate: load, check and time each shape.
        start_timeout: Seconds for a child process to be ready, and for its canary.
        control_every: Measure the control again after so many jobs.
        drift: Relative change of the control beyond which the device is warmed up and it is measured again.
        window_ms: Milliseconds of timing of a window in a race.
        clocks: What to lock clocks to, ``None``: they are left alone.
        lock_wait_s: Seconds to wait for another process that holds the device; ``None``: for ever.

    Raises:
        ConfigurationError: One of these has a value it cannot have.
    """

    budget_ms: float = 50.0
    min_samples: int = 10
    max_samples: int = 1000
    noise: float = 0.01
    warmup_ms: float = 250.0
    flush: bool = True
    retries: int = 5
    seeds: tuple[int, ...] = (0, 1)
    run_timeout: float = 60.0
    start_timeout: float = 120.0
    control_every: int = 50
    drift: float = 0.03
    window_ms: float = 20.0
    clocks: Clocks | None = None
    lock_wait_s: float | None = 60.0

    def __post_init__(self) -> None:
        for name in ("budget_ms", "run_timeout", "start_timeout", "drift", "window_ms"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 < value < math.inf):
                raise ConfigurationError(f"`{name}` is {value!r}; it must be a number above 0")
        for name in ("min_samples", "max_samples", "control_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"`{name}` is {value!r}; it must be an integer above 0")
        for name in ("noise", "warmup_ms", "retries"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < math.inf):
                raise ConfigurationError(f"`{name}` is {value!r}; it must be a number of at least 0")
        if self.max_samples < self.min_samples:
            raise ConfigurationError(
                f"`max_samples` is {self.max_samples}, less than `min_samples`, {self.min_samples}"
            )
        wait_s = self.lock_wait_s
        if wait_s is not None and not (_is_number(wait_s) and 0 <= wait_s < math.inf):
            raise ConfigurationError(
                f"`wait_for_device_s` (`lock_wait_s`) is {wait_s!r}; it must be a number of seconds of at "
                "least 0, or None to wait for ever"
            )
        if not isinstance(self.seeds, Sequence) or len(self.seeds) < 1:
            raise ConfigurationError(
                f"`seeds` is {self.seeds!r}; answers are checked with one seed at least, better two: give "
                "(0, 1)"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real)


class Measuring(Protocol):
    """What runs in the timing child: `ciq_ray.kernels.bench.Bench`.

    It is made there once as ``Bench(kernel, runtime, options=options)``. Whatever a method raises, the
    child turns into an outcome by `ciq_ray.kernels.timing_child.outcome_of`.
    """

    def prepare(self) -> Mapping[str, Any]:
        """What the device can do: versions, measured peaks; JSON-serialisable."""
        ...

    def set_prepared(self, prepared: Mapping[str, Any]) -> None:
        """What `prepare` found in an earlier child of the same device."""
        ...

    def evaluate(self, job: Job, artefact: Artefact | None, control: Mapping[str, float] | None) -> Outcome:
        """Load, check and time.

        Args:
            job: What is asked; its kind is ``candidate`` or ``window``.
            artefact: `Job.artefact`, decoded; ``None`` for the library.
            control: Median milliseconds of the control by shape, as last measured; ``None`` if there is none.
        """
        ...

    def canary(self) -> bool:
        """Whether the device still gives a known answer."""
        ...
