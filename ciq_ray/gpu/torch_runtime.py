"""A CUDA device as a runtime: torch's arrays and streams, CUDA events, CUDA graphs.

torch is imported in functions only: `import ciq_ray` must not need it, and the owner of a device imports it
once for all its children (`import_torch`), before any of them touches CUDA.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from ciq_ray.errors import UnsupportedError
from ciq_ray.gpu.runtime import BLOCK_MS, POISON_BYTE, check_array, difference_text

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device

__all__ = ["TorchRuntime", "import_torch"]

_FLUSH_FACTOR: Final = 2
"""Some replacement policies keep lines that one pass of L2's own size would not push out."""
_CYCLES_PER_MS: Final = 2_000_000
"""Of the SM clock; a card that is slower is blocked for longer."""
_CHUNK: Final = 1 << 24
_FLOAT8_NAN: Final = 0x7F  # in both formats


def import_torch() -> Any:
    """Import torch without touching CUDA, and set it up as a reference.

    Matrix products of float32 are computed in float32, not in TF32, and reductions of half-precision
    products are not rounded on the way: what kernels are compared with should be right.

    Raises:
        ImportError: torch is not installed.
    """
    import torch

    with warnings.catch_warnings():
        # from torch 2.9 on these names are the old ones; the new ones are not in older versions
        warnings.simplefilter("ignore", UserWarning)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.set_grad_enabled(False)
    return torch


class TorchRuntime:
    """See `ciq_ray.gpu.runtime.Runtime`. Makes the CUDA context of this process; used by one thread.

    Args:
        device: Which one, for records. It has to be the only one in ``CUDA_VISIBLE_DEVICES``; ``None``:
            whatever CUDA has as its first.

    Raises:
        UnsupportedError: torch is there but has no CUDA device.
    """

    timer: Literal["events", "host"] = "events"

    def __init__(self, device: Device | None = None) -> None:
        self.device = device
        self._torch = torch = import_torch()
        if not torch.cuda.is_available():
            raise UnsupportedError(
                f"torch {torch.__version__} has no CUDA device here; it must be a build for CUDA, and its "
                "driver must not be older than that CUDA (`nvidia-smi` shows both)"
            )
        self._place = torch.device("cuda", 0)
        properties = torch.cuda.get_device_properties(self._place)
        self.name = str(properties.name)
        self.l2_bytes = int(properties.L2_cache_size)
        self._buffer = torch.empty(
            _FLUSH_FACTOR * max(self.l2_bytes, 1 << 20), dtype=torch.uint8, device=self._place
        )

    def array(self, shape: tuple[int, ...], dtype: str, init: str, seed: int) -> Any:
        """A new array; see the protocol. Numbers are drawn on the device."""
        check_array(shape, dtype, init)
        torch, kind = self._torch, getattr(self._torch, dtype)
        draw = torch.float64 if kind == torch.float64 else torch.float32
        generator = torch.Generator(device=self._place).manual_seed(seed)
        if init == "normal":
            new = torch.randn(shape, dtype=draw, device=self._place, generator=generator)
        elif init == "uniform":
            new = torch.rand(shape, dtype=draw, device=self._place, generator=generator)
        elif init == "integers":
            low, high = {torch.uint8: (0, 16), torch.bool: (0, 2)}.get(kind, (-8, 8))
            new = torch.randint(low, high, shape, device=self._place, generator=generator)
        elif init == "arange":
            new = torch.arange(math.prod(shape), device=self._place).reshape(shape)
        else:
            new = torch.full(shape, float(init == "ones"), device=self._place)
        return new.to(kind)

    def copy(self, array: Any) -> Any:
        """A copy of its own."""
        return array.clone(memory_format=self._torch.contiguous_format)

    def assign(self, target: Any, source: Any) -> None:
        """Write `source` into `target`."""
        target.copy_(source)

    def poison(self, array: Any) -> None:
        """NaN, or a byte that nobody writes."""
        torch = self._torch
        if not array.dtype.is_floating_point:
            array.view(-1).view(torch.uint8).fill_(POISON_BYTE)
        elif array.dtype.itemsize == 1:
            array.view(-1).view(torch.uint8).fill_(_FLOAT8_NAN)
        else:
            array.fill_(math.nan)

    def difference(self, actual: Any, expected: Any, rtol: float, atol: float) -> str:
        """What differs; see the protocol. Compared on the device."""
        if tuple(actual.shape) != tuple(expected.shape):
            return f"the shape is {tuple(actual.shape)} instead of {tuple(expected.shape)}"
        shape, total = tuple(actual.shape), actual.numel()
        actual = self._comparable(actual)
        expected = self._comparable(expected.to(self._place))
        bad, worst, at = 0, -1.0, 0
        for first in range(0, total, _CHUNK):  # double precision of a large array is not needed at once
            left, right = actual[first : first + _CHUNK], expected[first : first + _CHUNK]
            found, error, here = self._errors(left, right, rtol, atol)
            bad += found
            if found and error > worst:
                worst, at = error, first + here
        if not bad:
            return ""
        place = []
        rest = at
        for size in reversed(shape):
            rest, index = divmod(rest, size)
            place.append(index)
        numbers = [self._number(side[at]) for side in (actual, expected)]
        return difference_text(bad, total, tuple(reversed(place)), *numbers)

    def pointer(self, array: Any) -> int:
        """Address of the first element."""
        return int(array.data_ptr())

    def synchronize(self) -> None:
        """Wait for the device."""
        self._torch.cuda.synchronize(self._place)

    def event(self) -> Any:
        """A CUDA event with a time."""
        return self._torch.cuda.Event(enable_timing=True)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two of them."""
        return float(begin.elapsed_time(end))

    def flush(self) -> None:
        """Launch a write of twice the size of L2."""
        self._buffer.zero_()

    def graph(self, launch: Callable[[], None], count: int) -> Callable[[], None] | None:
        """`count` launches as one CUDA graph; ``None`` if they cannot be captured.

        The launches of a graph follow each other without a gap and without a flush: what one leaves in L2,
        the next one finds there, which makes a kernel look up to 1.6 times as fast as in a program. Only
        for warm timings, or with launches that rotate through more than L2 of arguments.
        """
        torch = self._torch
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self._place)
        stream.wait_stream(torch.cuda.current_stream(self._place))
        # `torch.cuda.graph` would collect garbage and empty torch's cache each time
        with torch.cuda.stream(stream):
            try:
                graph.capture_begin()
                try:
                    for _ in range(count):
                        launch()
                finally:
                    graph.capture_end()
            except Exception:  # a launch that synchronises, or asks the driver for memory
                return None
        torch.cuda.current_stream(self._place).wait_stream(stream)
        replay: Callable[[], None] = graph.replay
        return replay

    def block(self) -> None:
        """A kernel that waits."""
        sleep = getattr(self._torch.cuda, "_sleep", None)  # private, but torch's own tests live by it
        if sleep is not None:
            sleep(int(BLOCK_MS * _CYCLES_PER_MS))

    def _comparable(self, array: Any) -> Any:
        """One row; a byte that is no truth value must not pass for one."""
        flat = array.contiguous().view(-1)
        return flat.view(self._torch.uint8) if flat.dtype == self._torch.bool else flat

    def _number(self, element: Any) -> float:
        wide = element.to(self._torch.float64) if element.dtype.is_floating_point else element
        number: float = wide.item()
        return number

    def _errors(self, actual: Any, expected: Any, rtol: float, atol: float) -> tuple[int, float, int]:
        """How many elements are too far off, how far the worst is, and where."""
        torch = self._torch
        left, right = actual.to(torch.float64), expected.to(torch.float64)
        # integers of 64 bits do not all fit into a double
        exact = not actual.dtype.is_floating_point and not expected.dtype.is_floating_point
        same = actual == expected if exact else left == right
        error = (left - right).abs()
        wrong = ~same if rtol == 0 and atol == 0 else ~(error <= atol + rtol * right.abs())
        # an infinite element that is expected would allow for any error
        wrong |= ~torch.isfinite(right) | left.isnan()
        wrong &= ~(same | (left.isnan() & right.isnan()))
        found = int(wrong.sum())
        if not found:
            return 0, -1.0, 0
        error = error.nan_to_num(nan=math.inf, posinf=math.inf).masked_fill(~wrong, -1.0)
        here = int(error.argmax())
        return found, float(error[here]), here
