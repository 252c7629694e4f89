"""What tables show of a kernel besides its time: throughput, the share of the peak, what it needs.

The numbers are in the metrics of its outcomes (`ciq_ray.kernels.bench.figures`,
`ciq_ray.kernels.protocol.Resources`); here are their order, their names for people and their digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ciq_ray.kernels.protocol import Kernel

__all__ = ["COLUMNS", "columns_of", "number", "present", "text"]

COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "tflops": ("TFLOP/s", ".4g"),
    "gbs": ("GB/s", ".4g"),
    "peak_percent": ("% of peak", ".1f"),
    "registers": ("registers", ".0f"),
    "spill_stores": ("spill stores B", ".0f"),
    "spill_loads": ("spill loads B", ".0f"),
    "shared": ("shared B", ".0f"),
}
"""By the metric's name (`ciq_ray._result_table.METRICS`): its column's title, and its numbers' format."""

_RESOURCES: Final = ("registers", "spill_stores", "spill_loads", "shared")


def columns_of(objective: Any) -> tuple[str, ...]:
    """The columns that a table of results has for an objective; none if it is no kernel.

    They depend on the kernel alone, so that a table has the same ones from its first row on.
    """
    from ciq_ray.kernels.protocol import Kernel

    if not isinstance(objective, Kernel):
        return ()
    kernel: Kernel = objective
    shown = {"tflops": bool(kernel.flops), "gbs": bool(kernel.bytes), **dict.fromkeys(_RESOURCES, True)}
    shown["peak_percent"] = shown["tflops"] or shown["gbs"]
    return tuple(name for name in COLUMNS if shown[name])


def present(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    """Those columns for which any of these metrics has a number."""
    found = list(metrics)
    return [name for name in COLUMNS if any(number(one, name) is not None for one in found)]


def number(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric, ``None`` if it is not there or no finite number."""
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def text(metrics: Mapping[str, Any], name: str) -> str:
    """A metric for people, empty if it is not known."""
    value = number(metrics, name)
    return "" if value is None else format(value, COLUMNS[name][1])
