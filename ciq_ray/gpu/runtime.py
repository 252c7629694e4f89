"""What a kernel needs of the device it runs on: arrays, a clock, and something to empty its caches with.

Kernels, their checks and `ciq_ray.gpu.timing` are written against this protocol alone, so that the same
code runs on a CUDA device (`ciq_ray.gpu.torch_runtime.TorchRuntime`), on the CPU
(`ciq_ray.gpu.host.HostRuntime`) and on a simulated clock in tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device

__all__ = ["BLOCK_MS", "DTYPES", "INITS", "POISON_BYTE", "Event", "Runtime", "check_array", "difference_text"]

DTYPES: Final = (
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "bool",
)
"""Element types by name; the CPU's runtime has no bfloat16 and no float8."""

INITS: Final = ("normal", "uniform", "zeros", "ones", "integers", "arange")
"""Ways to fill a new array: N(0, 1), U[0, 1), 0, 1, whole numbers of -8..7 (0..15 where there is no sign,
0..1 for truth values), and 0, 1, 2, ... in C order."""

POISON_BYTE: Final = 0xA5
"""What every byte of a poisoned array is that cannot hold NaN: odd, not 0, not 1, not -1."""


BLOCK_MS: Final = 0.5
"""About how long `Runtime.block` keeps a device busy."""


class Event(Protocol):
    """A point in the device's time."""

    def record(self) -> None:
        """Put it behind all that was launched so far."""
        ...


class Runtime(Protocol):
    """Arrays and clocks of one device, used by one thread.

    Attributes:
        name: The device's, for people.
        l2_bytes: Size of its last cache level in bytes.
        device: The device; ``None`` for the CPU.
        timer: What `event` is: ``events`` of CUDA, or the ``host`` clock.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - described above
    @property
    def l2_bytes(self) -> int: ...  # noqa: D102
    @property
    def device(self) -> Device | None: ...  # noqa: D102
    @property
    def timer(self) -> Literal["events", "host"]: ...  # noqa: D102

    def array(self, shape: tuple[int, ...], dtype: str, init: str, seed: int) -> Any:
        """A new array in C order, on the device.

        Args:
            shape: Its sizes.
            dtype: One of `DTYPES`.
            init: One of `INITS`.
            seed: Of its random numbers; the same seed gives the same array.

        Raises:
            ConfigurationError: One of these has a value it cannot have here.
        """
        ...

    def copy(self, array: Any) -> Any:
        """A copy in C order, in memory of its own."""
        ...

    def assign(self, target: Any, source: Any) -> None:
        """Write the elements of `source`, of the same shape, into `target`."""
        ...

    def poison(self, array: Any) -> None:
        """Fill with what no kernel writes: NaN, or `POISON_BYTE` in every byte."""
        ...

    def difference(self, actual: Any, expected: Any, rtol: float, atol: float) -> str:
        """Compare element by element; equal are those with ``|a - e| <= atol + rtol * |e|``.

        NaN equals NaN only, an infinity only itself. Compared is in double precision, integers exactly
        in their own type if both tolerances are 0.

        Returns:
            Nothing if they agree, else what differs and where:
            ``3 of 4096 elements differ, the worst at (1, 7): 2.0 instead of 1.0``.
        """
        ...

    def pointer(self, array: Any) -> int:
        """Address of the first element."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was launched is done.

        Raises:
            Exception: A launch failed; on CUDA that may be any launch since the last call.
        """
        ...

    def event(self) -> Event:
        """A new point in time, not recorded yet."""
        ...

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two recorded events, after `synchronize`."""
        ...

    def flush(self) -> None:
        """Launch a write of at least `l2_bytes`, after which no array is in that cache."""
        ...

    def graph(self, launch: Callable[[], None], count: int) -> Callable[[], None] | None:
        """`count` launches as one, ``None`` where that cannot be had."""
        ...

    def block(self) -> None:
        """Keep the device busy for about `BLOCK_MS`, so that what is launched next queues behind it.

        The times between events are then the device's own, even if launching takes the CPU longer than
        the launch takes the device. Does nothing where a launch returns when it is done.
        """
        ...


def check_array(shape: tuple[int, ...], dtype: str, init: str) -> None:
    """Refuse what no runtime can make.

    Raises:
        ConfigurationError: `shape`, `dtype` or `init` has a value it cannot have.
    """
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise ConfigurationError(f"`shape` is {shape!r}; it must be a tuple of integers, none below 0")
    if dtype not in DTYPES:
        raise ConfigurationError(f"`dtype` is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if init not in INITS:
        raise ConfigurationError(f"`init` is {init!r}; it must be one of {', '.join(INITS)}")


def difference_text(bad: int, total: int, at: tuple[int, ...], actual: object, expected: object) -> str:
    """How a runtime says that arrays differ."""
    place = f"({', '.join(map(str, at))})"
    differ = "element differs" if bad == 1 else "elements differ"
    return f"{bad} of {total} {differ}, the worst at {place}: {actual} instead of {expected}"
