"""The named choices of a search, and what an invalid score looks like."""

from __future__ import annotations

import importlib
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from ciq_ray._types.worker import Worker

__all__ = [
    "INVALID_SCORE",
    "MultiScoreComparison",
    "ProblemType",
    "ScoreValue",
    "Scores",
    "TrackerTypes",
    "WorkerTypes",
]

INVALID_SCORE: Final = "*"
"""What an objective returns, in place of a number, for a candidate that failed."""

ScoreValue: TypeAlias = int | float | Literal["*"]
"""One score: a finite number, or `INVALID_SCORE`."""

Scores: TypeAlias = ScoreValue | list[ScoreValue] | tuple[ScoreValue, ...]
"""What an evaluation scored: one value, or a sequence with one for each objective."""


class ProblemType(StrEnum):
    """Supported problem types, min or max."""

    MIN = "min"
    MAX = "max"


class MultiScoreComparison(StrEnum):
    """Possible ways to aggregate multi-score at the end of the search.

    Attributes:
        AVERAGE: Averages all scores of a candidate.
        STDDEV: Takes the standard deviation of all scores of a candidate.
        PARETO: Takes the Pareto front of all candidates. The preferred method.
    """

    AVERAGE = "avg"
    STDDEV = "stddev"
    PARETO = "pareto_front"


class TrackerTypes(StrEnum):
    """The available tracker types for experiment tracking.

    Trackers log and record the experiment's data during the search.

    Attributes:
        LOGURU: Simple, structured logging with the Loguru library, to a file or a stream.
        MLFLOW: Parameters, metrics and artifacts in MLflow.
        DISABLED: No tracking: nothing is logged.
    """

    LOGURU = "loguru"
    MLFLOW = "mlflow"
    DISABLED = "disabled"


class WorkerTypes(StrEnum):
    """The available workers: how and where the objective function runs.

    Attributes:
        NATIVE: Long-lived local processes that pick work until all generations are complete.
            Local parallelism only.
        DEFAULT: The same as `NATIVE`.
        ISOLATED: Like `NATIVE`, but each evaluation gets a new process: for objectives that leak
            memory or have side effects on later evaluations. A timeout kills the entire process.
            The most robust kind, and the slowest. Local parallelism only.
        RAY: A Ray cluster, which is yours to configure. Local and distributed parallelism.
        ASYNC: Python's asyncio. The objective function must be ``async`` and make use of
            concurrency.
    """

    NATIVE = "native"
    DEFAULT = NATIVE
    ISOLATED = "isolated"
    RAY = "ray"
    ASYNC = "async"

    def worker_type(self) -> type[Worker]:
        """Return the `Worker` subclass for this type."""
        worker: type[Worker] = getattr(importlib.import_module("ciq_ray.worker"), _WORKER_CLASSES[self.value])
        return worker


_WORKER_CLASSES: Final = {
    "native": "MultiProcessWorker",
    "isolated": "IsoMultiProcessWorker",
    "ray": "RayWorker",
    "async": "AsyncWorker",
}
