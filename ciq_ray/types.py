"""The types of a search: its configuration, workers, trackers and scores.

Each is loaded when it is first asked for. An objective that only wants `INVALID_SCORE` pays for
nothing else, in a process that may live for one evaluation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciq_ray._types.enums import (
        INVALID_SCORE,
        MultiScoreComparison,
        ProblemType,
        Scores,
        ScoreValue,
        TrackerTypes,
        WorkerTypes,
    )
    from ciq_ray._types.search_configuration import InternalSearchConfiguration, SearchConfiguration
    from ciq_ray._types.tracker import BaseTracker
    from ciq_ray._types.tracker_configs import (
        DefaultTrackerConfig,
        DisabledTrackerConfig,
        LoguruTrackerConfig,
        MLflowTrackerConfig,
        TrackerConfig,
    )
    from ciq_ray._types.worker import Params, Worker
    from ciq_ray.utils.validation import Score

__all__ = [
    "INVALID_SCORE",
    "BaseTracker",
    "DefaultTrackerConfig",
    "DisabledTrackerConfig",
    "InternalSearchConfiguration",
    "LoguruTrackerConfig",
    "MLflowTrackerConfig",
    "MultiScoreComparison",
    "Params",
    "ProblemType",
    "Score",
    "ScoreValue",
    "Scores",
    "SearchConfiguration",
    "TrackerConfig",
    "TrackerTypes",
    "Worker",
    "WorkerTypes",
]

_MODULES = {
    "ciq_ray._types.enums": (
        "INVALID_SCORE MultiScoreComparison ProblemType Scores ScoreValue TrackerTypes WorkerTypes"
    ),
    "ciq_ray._types.search_configuration": "InternalSearchConfiguration SearchConfiguration",
    "ciq_ray._types.tracker": "BaseTracker",
    "ciq_ray._types.tracker_configs": (
        "DefaultTrackerConfig DisabledTrackerConfig LoguruTrackerConfig MLflowTrackerConfig TrackerConfig"
    ),
    "ciq_ray._types.worker": "Params Worker",
    "ciq_ray.utils.validation": "Score",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
