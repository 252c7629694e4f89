"""What `Search.start` takes for a kernel besides the number of workers and the time limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.hold import Clocks
from ciq_ray.kernels.jobs import TimingOptions
from ciq_ray.warn import warn_caller
from ciq_ray.worker.pool import positive_seconds

__all__ = ["GPU_OPTIONS", "OPTIONS", "KernelOptions", "read_options"]

_MEASURING: Final = tuple(
    field.name
    for field in fields(TimingOptions)
    if field.name not in ("clocks", "lock_wait_s", "run_timeout")
)
GPU_OPTIONS: Final = ("devices", "lock_clocks", "mem_clock_mhz", "power_watts", "wait_for_device_s")
"""Names of those that say nothing to a kernel that needs no GPU."""
OPTIONS: Final = (
    *GPU_OPTIONS,
    "compile_timeout",
    "max_resends",
    *_MEASURING,
)
"""Names of all options."""


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """How candidates of a kernel search are compiled and timed.

    Attributes:
        devices: The devices to use, by CUDA's number or UUID; ``None``: all that are visible. For RAY a
            number of them, or ``None`` for as many as the cluster has.
        timing: How they measure, with the clocks they are locked to.
        max_resends: How often a candidate that was lost or throttled is sent again; ``None``: 3 times.
        compile_timeout: Seconds that compiling may take at most.
    """

    devices: Sequence[int | str] | int | None
    timing: TimingOptions
    max_resends: int | None = None
    compile_timeout: float = 300.0


def read_options(
    options: Mapping[str, Any], task_timeout: float | None, *, others: Sequence[str] = ()
) -> KernelOptions:
    """Check keyword arguments of `start`.

    Args:
        options: Any of `OPTIONS`: fields of `TimingOptions`, and `devices`; `lock_clocks` (``True`` or
            ``"base"`` for the base clock, or MHz), `mem_clock_mhz`, `power_watts`, `wait_for_device_s`
            (seconds to wait for a device that another process holds), `compile_timeout` (seconds, 300; less
            once it is known how long compiling takes), `max_resends`. There is a warning for others.
        task_timeout: Seconds that a candidate may take on the device; ``None``: a minute.
        others: Names that somebody else reads.

    Raises:
        ConfigurationError: One has a value it cannot have.
    """
    unknown = [name for name in options if name not in OPTIONS and name not in others]
    if unknown:
        names = ", ".join(f"`{name}`" for name in unknown)
        warn_caller(f"a kernel search does not use {names}; it takes {', '.join(OPTIONS)}")
    measuring = {name: options[name] for name in _MEASURING if options.get(name) is not None}
    if isinstance(measuring.get("seeds"), Sequence):  # a list, where it comes from a journal
        measuring["seeds"] = tuple(measuring["seeds"])
    wait_s = options.get("wait_for_device_s", 60.0)
    if task_timeout is not None:
        measuring["run_timeout"] = float(task_timeout)
    try:
        timing = TimingOptions(clocks=_clocks(options), lock_wait_s=wait_s, **measuring)
    except TypeError as error:
        raise ConfigurationError(f"an option of the timing has the wrong type: {error}") from error
    resends = options.get("max_resends")
    if resends is not None and (not isinstance(resends, int) or isinstance(resends, bool) or resends < 0):
        raise ConfigurationError(f"`max_resends` is {resends!r}; it must be a whole number, at least 0")
    limit = positive_seconds("compile_timeout", options.get("compile_timeout", 300.0)) or math.inf
    return KernelOptions(_devices(options.get("devices")), timing, resends, limit)


def _clocks(options: Mapping[str, Any]) -> Clocks | None:
    lock = options.get("lock_clocks")
    memory, power = options.get("mem_clock_mhz"), options.get("power_watts")
    if lock in (None, False) and memory is None and power is None:
        return None
    if lock is True:
        lock = "base"
    number = isinstance(lock, int) and lock > 0
    if lock not in (None, False, "base") and not number:
        raise ConfigurationError(
            f"`lock_clocks` is {lock!r}; give a number of MHz, 'base' or True for the base clock, or False"
        )
    return Clocks(clock_mhz=lock or None, mem_clock_mhz=memory, power_watts=power)


def _devices(value: Any) -> Sequence[int | str] | int | None:
    single = isinstance(value, (int, str)) and not isinstance(value, bool)
    if value is None or single:
        return value  # type: ignore[no-any-return]
    if (
        isinstance(value, Sequence)
        and value
        and all(isinstance(each, (int, str)) and not isinstance(each, bool) for each in value)
    ):
        return list(value)
    raise ConfigurationError(
        f"`devices` is {value!r}; give CUDA's numbers or UUIDs of GPUs in a list, or None for all of them"
    )
