"""What a search of a kernel has measured, by candidate and shape."""

from __future__ import annotations

import math
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.results import SearchResult

__all__ = ["times_of"]


def times_of(
    run: SearchResult | str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What a run measured of each candidate, by shape.

    Times of several devices are made comparable by what the baseline took on each, all shapes together: they
    are those of a device on which it takes the median.

    Args:
        run: The result of a search, a run's folder or its number.

    Returns:
        Configurations by id, and for each id median milliseconds by shape, the median over its
        measurements; of candidates that passed on every shape.

    Raises:
        ConfigurationError: The run has no times by shape.
        JournalError: There is no such run, or its journal cannot be read.
    """
    from ciq_ray.resuming import run_folder
    from ciq_ray.run_view import RunView

    folder = run if isinstance(run, (str, os.PathLike)) else run.folder
    if folder is None:
        raise ConfigurationError("`run` is a table from elsewhere, without a journal; give the run's folder")
    view = RunView(run_folder(Path(folder)))
    configs: dict[str, Any] = {}
    times: dict[str, dict[str, float]] = {}
    scales = _scales(outcome.metrics for entry in view.entries.values() for outcome in entry.outcomes)
    for entry in view.entries.values():
        measured = [_by_shape(outcome.metrics, scales) for outcome in entry.outcomes if outcome.ok]
        measured = [found for found in measured if found]
        if measured:
            configs[entry.id] = entry.config
            times[entry.id] = {
                shape: statistics.median(found[shape] for found in measured if shape in found)
                for shape in measured[0]
            }
    shapes = max((set(found) for found in times.values()), key=len, default=set())
    times = {name: found for name, found in times.items() if found.keys() == shapes}
    if not times:
        raise ConfigurationError(
            f"{view.folder} has no times by shape; only searches of a kernel (`ciq_ray.kernels`) have them"
        )
    return configs, times


def _scales(all_metrics: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What to multiply times with, by device; nothing for a single one."""
    controls: defaultdict[str, list[float]] = defaultdict(list)
    for metrics in all_metrics:
        control = metrics.get("control_ms")
        if isinstance(control, (int, float)) and 0 < control < math.inf:
            controls[_device_of(metrics)].append(control)
    medians = {device: statistics.median(values) for device, values in controls.items()}
    if len(medians) < 2:
        return {}
    middle = statistics.median(medians.values())
    return {device: middle / own for device, own in medians.items()}


def _device_of(metrics: Mapping[str, Any]) -> str:
    gpu = metrics.get("gpu")
    return str(gpu.get("uuid", "")) if isinstance(gpu, Mapping) else ""


def _by_shape(metrics: Mapping[str, Any], scales: Mapping[str, float]) -> dict[str, float]:
    scale = scales.get(_device_of(metrics), 1.0)
    timing = metrics.get("timing")
    if not isinstance(timing, Mapping):
        return {}
    found = {str(shape): one.get("median_ms") for shape, one in timing.items() if isinstance(one, Mapping)}
    return {
        shape: scale * ms for shape, ms in found.items() if isinstance(ms, (int, float)) and 0 < ms < math.inf
    }
