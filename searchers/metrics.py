"""Names and directions of objectives, and their values in Ray Tune's results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from searchers.errors import OptionError
from searchers.outcome import STATUSES, Outcome

__all__ = ["check_metrics", "outcome_of"]

_METRICS: Final = "ciq_metrics/"


def check_metrics(metric: Any, mode: Any) -> tuple[list[str] | None, list[str]]:
    """Metric names (``None`` if not given) and modes, one for each objective."""
    listed = isinstance(metric, (list, tuple)) or (metric is None and isinstance(mode, (list, tuple)))
    metrics = None if metric is None else list(metric) if listed else [metric]
    if mode is None:
        modes = ["min"] * (len(metrics) if metrics else 1)
    else:
        modes = list(mode) if isinstance(mode, (list, tuple)) else [mode]
    if metrics is not None and (not metrics or not all(isinstance(m, str) and m for m in metrics)):
        raise OptionError(f"`metric` is {metric!r}; it must be a name or a list of names")
    if metrics is not None and len(set(metrics)) != len(metrics):
        raise OptionError(f"`metric` is {metric!r}; a name may appear once")
    if not modes or not all(m in ("min", "max") for m in modes):
        raise OptionError(f"`mode` is {mode!r}; it must be 'min' or 'max', or a list of these")
    if metrics is not None and len(metrics) != len(modes):
        raise OptionError(f"`metric` has {len(metrics)} names and `mode` {len(modes)}; give one for each")
    if metrics is not None and mode is not None and isinstance(mode, (list, tuple)) != listed:
        raise OptionError(f"`metric` is {metric!r} and `mode` {mode!r}; give both as lists or neither")
    return metrics, modes


def outcome_of(metrics: list[str] | None, result: dict[str, Any] | None, error: bool) -> Outcome:
    """What a result of Ray Tune says of a trial.

    Besides the metrics, it may have fields of an `Outcome` under names that begin with ``ciq_``:
    ``ciq_status``, ``ciq_message``, ``ciq_run_s``, ``ciq_compile_s``, ``ciq_samples``, ``ciq_spread`` (one
    for each metric) and ``ciq_metrics/<name>`` (Ray Tune writes a dict under ``ciq_metrics`` so). Of those,
    all but the status are left out where they have no such value.
    """
    if error or not result:
        return Outcome("run_error", message="the trial failed")
    status = result.get("ciq_status", "ok")
    if status not in STATUSES:
        return Outcome("invalid_result", message=f"`ciq_status` is {status!r}")
    details = _details(result)
    if status != "ok":
        return Outcome(status, **details)
    names = metrics or []
    missing = [name for name in names if not isinstance(result.get(name), (int, float, np.number))]
    if missing or not names:
        return Outcome("invalid_result", message=f"the result has no number under {missing or 'a metric'}")
    values = tuple(float(result[name]) for name in names)
    return Outcome("ok", values, spread=_spread(result.get("ciq_spread"), len(names)), **details)


def _details(result: dict[str, Any]) -> dict[str, Any]:
    """Fields of an outcome but for status, values and spread."""
    found: dict[str, Any] = {"message": str(result.get("ciq_message", ""))}
    for name in ("run_s", "compile_s"):
        value = result.get(f"ciq_{name}")
        if isinstance(value, (int, float, np.number)) and 0 <= value < math.inf:
            found[name] = float(value)
    samples = result.get("ciq_samples")
    if isinstance(samples, (int, np.integer)) and samples > 0:
        found["samples"] = int(samples)
    nested = result.get("ciq_metrics")
    metrics = dict(nested) if isinstance(nested, Mapping) else {}
    metrics |= {
        name.removeprefix(_METRICS): value for name, value in result.items() if name.startswith(_METRICS)
    }
    if metrics:
        found["metrics"] = metrics
    return found


def _spread(spread: Any, count: int) -> tuple[float, ...] | None:
    spread = list(spread) if isinstance(spread, (list, tuple)) else [spread]
    if len(spread) != count or not all(isinstance(value, (int, float, np.number)) for value in spread):
        return None
    return tuple(map(float, spread))
