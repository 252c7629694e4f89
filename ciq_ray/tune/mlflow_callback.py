"""Trials of Ray Tune as runs of MLflow, on the same core as `ciq_ray.tracker.MLflowTracker`."""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from ray.tune import Callback

from ciq_ray._mlflow.connection import Connection
from ciq_ray._mlflow.link import Link
from ciq_ray._mlflow.names import finite, flattened, shortened
from ciq_ray._mlflow.store import Record
from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

__all__ = ["MLflowCallback"]

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_TUNES: Final = frozenset(
    {
        "config",
        "date",
        "done",
        "episodes_total",
        "experiment_id",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "timestamp",
        "timesteps_since_restore",
        "timesteps_total",
        "trial_id",
        "warmup_time",
    }
)
"""What Ray Tune adds to each result for itself."""


def _never_raising(function: Callable[_P, None]) -> Callable[_P, None]:
    """An exception in a callback would end the whole experiment."""

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            logger.exception("%s failed; the experiment goes on", function.__qualname__)

    return guarded


class MLflowCallback(Callback):  # type: ignore[misc]  # it has no type information
    """One run for the experiment, and below it one for each trial.

    ::

        tune.Tuner(trainable, run_config=tune.RunConfig(callbacks=[MLflowCallback(metric="ms", mode="min")]))

    Each result of a trial is a step of its metrics. A trial that raises, or whose last result has a
    ``status`` column other than ``ok`` (as those of `ciq_ray.tune.trainable`), becomes FAILED. While
    MLflow is away, what is recorded waits in a file, and later for ``ciq mlflow-replay``. A restored
    experiment goes on in its run.

    Args:
        tracking_uri: MLflow's tracking URI; ``None`` for what MLflow takes by default.
        experiment_name: MLflow's experiment; ``None`` for ``MLFLOW_EXPERIMENT_NAME``, else ``ciq-ray``.
        run_name: Name of the experiment's run; by default that of Ray Tune's experiment.
        description: Text for it, in Markdown.
        metric: What the experiment's run follows the best of; nothing if ``None``.
        mode: Whether small (``"min"``) or large (``"max"``) values of `metric` are better.
        log_config: Whether trials record their configuration.

    Raises:
        ConfigurationError: `mode` is something else.
    """

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        run_name: str | None = None,
        description: str | None = None,
        metric: str | None = None,
        mode: str = "min",
        log_config: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigurationError(f'`mode` is {mode!r}; it must be "min" or "max"')
        self.tracking_uri = tracking_uri
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.description = description
        self.metric = metric
        self.mode = mode
        self.log_config = log_config
        self._connection: Connection | None = None
        self._search = secrets.token_hex(12)
        self._begun: set[str] = set()
        self._best: float | None = None
        self._done = 0

    @_never_raising
    def setup(
        self,
        stop: Any = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Make contact with MLflow."""
        self._connection = Connection(self.tracking_uri, self.experiment_name)

    def get_state(self) -> dict[str, Any]:
        """Which run a restored experiment goes on in."""
        return {
            "search": self._search,
            "begun": sorted(self._begun),
            "best": self._best,
            "done": self._done,
        }

    @_never_raising
    def set_state(self, state: dict[str, Any]) -> None:
        """Go on in that run."""
        self._search, self._begun = str(state["search"]), set(state["begun"])
        self._best, self._done = state["best"], int(state["done"])

    @_never_raising
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial gets its run; one that starts again goes on in it."""
        self._put(trial, self._opening(trial))

    @_never_raising
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Log a result as a step."""
        step, at = int(result.get("training_iteration", 0)), _milliseconds(result.get("timestamp"))
        shown = {name: value for name, value in _flat(result).items() if name.split("/")[0] not in _TUNES}
        metrics, _ = finite(shown)
        self._put(trial, {"metrics": [[name, value, at, step] for name, value in metrics.items()]})

    @_never_raising
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """End the trial's run."""
        result = trial.last_result or {}
        status, message = str(result.get("status", "ok")), str(result.get("message", ""))
        self._end_trial(trial, "FINISHED" if status == "ok" else "FAILED", status, message)
        self._follow(result if status == "ok" else {})

    @_never_raising
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """End the trial's run with what went wrong."""
        message = ""
        with contextlib.suppress(OSError, TypeError):  # it is not in the experiment's storage yet
            message = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        self._end_trial(trial, "FAILED", "error", message)

    @_never_raising
    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Write what waits, and end the experiment's run."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        states = [trial.status for trial in trials]
        unfinished = any(state not in ("TERMINATED", "ERROR") for state in states)
        failed = bool(states) and all(state == "ERROR" for state in states)
        status = "KILLED" if unfinished else "FAILED" if failed else "FINISHED"
        counts = {f"ciq.trials.{state.lower()}": str(states.count(state)) for state in sorted(set(states))}
        connection.end(lambda: self._closing(connection), status, counts, at_once=False)

    # --- records ---

    def _put(self, trial: Trial, fields: Record) -> None:
        if self._connection is None:
            return
        self._begin(self._connection, trial)
        if trial.trial_id not in self._begun:
            fields = self._opening(trial) | fields
        self._begun.add(trial.trial_id)
        self._connection.put({"key": trial.trial_id, **fields})

    def _begin(self, connection: Connection, trial: Trial) -> None:
        if connection.writer is not None:
            return
        from ciq_ray import settings

        store = connection.store
        name = self.run_name or getattr(trial.storage, "experiment_dir_name", None) or "tune"

        def opening(there: bool) -> Record:
            tags = {"mlflow.note.content": self.description} if self.description else {}
            record: Record = {"key": "", "tags": tags}
            return record if there else {**record, "name": name, "start": int(time.time() * 1000)}

        folder = settings.cache_dir() / "mlflow" / self._search
        connection.begin(folder, Link(store.uri, store.experiment, self._search), opening)

    def _opening(self, trial: Trial) -> Record:
        record: Record = {"name": str(trial), "start": int(time.time() * 1000)}
        if self.log_config and trial.trial_id not in self._begun:
            record["params"] = flattened(trial.config)
        return record

    def _end_trial(self, trial: Trial, status: str, kind: str, message: str) -> None:
        tags = {"ciq.status": kind}
        if message.strip():
            tags["ciq.message"] = shortened(message.strip())
        self._put(trial, {"status": status, "end": int(time.time() * 1000), "tags": tags})

    def _follow(self, result: Mapping[str, Any]) -> None:
        """Log the best of `metric` so far, once for each trial that is over."""
        self._done += 1
        value = result.get(self.metric) if self.metric is not None else None
        if self._connection is None or not isinstance(value, (int, float)):
            return
        better = min if self.mode == "min" else max
        self._best = float(value) if self._best is None else float(better(self._best, value))
        at = _milliseconds(result.get("timestamp"))
        metrics, _ = finite({f"best_{self.metric}": self._best})
        rows = [[name, number, at, self._done] for name, number in metrics.items()]
        self._connection.put({"key": "", "metrics": rows})

    def _closing(self, connection: Connection) -> Record:
        from ciq_ray._mlflow.summary import links

        store = connection.store
        note: Sequence[str] = [self.description] if self.description else []
        if store.parent_id:
            note = [*note, links(store.uri, store.experiment_id, store.parent_id, [])]
        return {"key": "", "tags": {"mlflow.note.content": shortened("\n\n".join(note))}} if note else {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}


def _flat(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested results under ``outer/inner``."""
    flat: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _milliseconds(seconds: Any) -> int:
    return int((seconds if isinstance(seconds, (int, float)) else time.time()) * 1000)
