"""Names and directions of objectives, and their values in Ray Tune's results."""

from __future__ import annotations

from typing import Any

import numpy as np

from searchers.errors import OptionError
from searchers.outcome import STATUSES, Outcome

__all__ = ["check_metrics", "outcome_of"]


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
    """What a result of Ray Tune says of a trial; failures come under ``"ciq_status"``."""
    if error or not result:
        return Outcome("run_error", message="the trial failed")
    status = result.get("ciq_status", "ok")
    if status not in STATUSES:
        return Outcome("invalid_result", message=f"`ciq_status` is {status!r}")
    message = str(result.get("ciq_message", ""))
    if status != "ok":
        return Outcome(status, message=message)
    names = metrics or []
    missing = [name for name in names if not isinstance(result.get(name), (int, float, np.number))]
    if missing or not names:
        return Outcome("invalid_result", message=f"the result has no number under {missing or 'a metric'}")
    return Outcome("ok", tuple(float(result[name]) for name in names), message=message)
