"""The CPU as a runtime: numpy arrays, launches that return when they are done, the host's clock."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.runtime import POISON_BYTE, check_array, difference_text

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device

__all__ = ["HostRuntime"]

_FLUSH_BYTES: Final = 64 << 20
_CHUNK: Final = 1 << 22


class HostRuntime:
    """See `ciq_ray.gpu.runtime.Runtime`. Kernels run in the calling thread, one at a time.

    Args:
        flush_bytes: What `flush` writes. The default is twice what most CPUs have as their last cache
            level for one core; the L3 of a server is larger, so give more where that matters.
    """

    device: Device | None = None
    timer: Literal["events", "host"] = "host"

    def __init__(self, flush_bytes: int = _FLUSH_BYTES) -> None:
        self.l2_bytes = flush_bytes
        self._value = 0

    @cached_property
    def name(self) -> str:
        """The CPU's model name."""
        with contextlib.suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        return platform.processor() or platform.machine()

    @cached_property
    def _buffer(self) -> np.ndarray[Any, Any]:
        return np.ones(self.l2_bytes, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: str, init: str, seed: int) -> Any:
        """A new array; see the protocol."""
        check_array(shape, dtype, init)
        try:
            kind = np.dtype(dtype)
        except TypeError:
            raise ConfigurationError(
                f"`dtype` is {dtype!r}, which numpy does not have; use float16 or float32 on the CPU"
            ) from None
        rng = np.random.default_rng(seed)
        if init == "normal":
            return rng.standard_normal(shape).astype(kind)
        if init == "uniform":
            return rng.random(shape).astype(kind)
        if init == "integers":
            low, high = {"u": (0, 16), "b": (0, 2)}.get(kind.kind, (-8, 8))
            return rng.integers(low, high, shape).astype(kind)
        if init == "arange":
            return np.arange(int(np.prod(shape))).reshape(shape).astype(kind)
        return np.full(shape, init == "ones", kind)

    def copy(self, array: Any) -> Any:
        """A copy of its own."""
        return np.array(array, order="C", copy=True)

    def assign(self, target: Any, source: Any) -> None:
        """Write `source` into `target`."""
        target[...] = source

    def poison(self, array: Any) -> None:
        """NaN, or a byte that nobody writes."""
        if array.dtype.kind == "f":
            array.fill(np.nan)
        else:
            array.view(np.uint8).fill(POISON_BYTE)

    def difference(self, actual: Any, expected: Any, rtol: float, atol: float) -> str:
        """What differs; see the protocol."""
        actual, expected = np.asarray(actual), np.asarray(expected)
        if actual.shape != expected.shape:
            return f"the shape is {actual.shape} instead of {expected.shape}"
        shape, total = actual.shape, actual.size
        actual, expected = _comparable(actual), _comparable(expected)
        bad, worst, at = 0, -1.0, 0
        for first in range(0, total, _CHUNK):  # double precision of a large array is not needed at once
            left, right = actual[first : first + _CHUNK], expected[first : first + _CHUNK]
            error, wrong = _errors(left, right, rtol, atol)
            found = int(np.count_nonzero(wrong))
            bad += found
            here = int(np.argmax(error))
            if float(error[here]) > worst:
                worst, at = float(error[here]), first + here
        if not bad:
            return ""
        place = tuple(int(i) for i in np.unravel_index(at, shape))
        return difference_text(bad, total, place, actual[at].item(), expected[at].item())

    def pointer(self, array: Any) -> int:
        """Address of the first element."""
        return int(array.ctypes.data)

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def event(self) -> _HostEvent:
        """A point in time."""
        return _HostEvent()

    def elapsed_ms(self, begin: _HostEvent, end: _HostEvent) -> float:
        """Milliseconds between two of them."""
        return (end.at_s - begin.at_s) * 1e3

    def flush(self) -> None:
        """Write the whole buffer, another value each time."""
        self._value = (self._value + 1) % 251
        self._buffer.fill(self._value)

    def graph(self, launch: Callable[[], None], count: int) -> Callable[[], None] | None:
        """There are no graphs."""
        return None

    def block(self) -> None:
        """Launches return when they are done."""


class _HostEvent:
    at_s = float("nan")

    def record(self) -> None:
        """Take the time."""
        self.at_s = time.perf_counter()


def _comparable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One row; a byte that is no truth value must not pass for one."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8) if flat.dtype == np.bool_ else flat


def _errors(
    actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], rtol: float, atol: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """How far off each element is (infinite where no number says it), and whether that is too far."""
    exact = rtol == 0 and atol == 0
    same = actual == expected
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(left - right)
        wrong = ~same if exact else ~(error <= atol + rtol * np.abs(right))
    # an infinite element that is expected would allow for any error
    wrong |= ~np.isfinite(right) | np.isnan(left)
    wrong &= ~(same | (np.isnan(left) & np.isnan(right)))
    error[np.isnan(error)] = np.inf
    return np.where(wrong, error, -1.0), wrong
