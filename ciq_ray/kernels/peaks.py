"""The most that a device does, measured: a large matrix product, and a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime

__all__ = ["measured_peaks"]

_SIZES: Final = {"float16": 8192, "bfloat16": 8192, "float32": 4096, "float64": 4096}
"""Side of the product by type: a millisecond or more on a large GPU, 400 MB at most."""
_COPY_BYTES: Final = 512 << 20
_ROUNDS: Final = 10


def measured_peaks(runtime: Runtime, dtype: str) -> dict[str, float]:
    """Measure what a share of the peak refers to.

    Args:
        runtime: Of a CUDA device.
        dtype: Element type of the product. ``float32`` is measured without TF32.

    Returns:
        ``tflops`` of torch's (cuBLAS's) matrix product, the best of ten, if `dtype` is one it has, and
        ``gbs``, bytes read and written in a copy of 512 MiB, the best of ten.
    """
    import torch

    peaks = {"gbs": 2 * _COPY_BYTES / _copy_ms(runtime) / 1e6}
    if dtype in _SIZES:
        size = _SIZES[dtype]
        left = runtime.array((size, size), dtype, "normal", 0)
        right = runtime.array((size, size), dtype, "normal", 1)
        out = runtime.copy(left)
        product: Callable[[], Any] = lambda: torch.matmul(left, right, out=out)  # noqa: E731
        peaks["tflops"] = 2 * size**3 / _best_ms(runtime, product) / 1e9
    return peaks


def _copy_ms(runtime: Runtime) -> float:
    source = runtime.array((_COPY_BYTES,), "uint8", "zeros", 0)
    target = runtime.copy(source)
    return _best_ms(runtime, lambda: runtime.assign(target, source))


def _best_ms(runtime: Runtime, launch: Callable[[], Any]) -> float:
    launch()
    launch()
    runtime.synchronize()
    times = []
    for _ in range(_ROUNDS):
        begin, end = runtime.event(), runtime.event()
        begin.record()
        launch()
        end.record()
        runtime.synchronize()
        times.append(runtime.elapsed_ms(begin, end))
    return min(times)
