"""Trials of Ray Tune as runs of MLflow, on the same core as `ciq_ray.tracker.MLflowTracker`."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeGuard

from ray.tune import Callback

from ciq_ray._mlflow.connection import Connection
from ciq_ray._mlflow.link import Link
from ciq_ray._mlflow.names import finite, flattened, legal_name, shortened
from ciq_ray._mlflow.store import Record
from ciq_ray.errors import ConfigurationError
from ciq_ray.tune.objective import ROWS, batch_of
from searchers.outcome import OK

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

__all__ = ["MLflowCallback"]

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_Known = tuple[str, Any, Mapping[str, Any]]
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
    """One run for the experiment, and below it one for each configuration.

    ::

        tune.Tuner(trainable, run_config=tune.RunConfig(callbacks=[MLflowCallback(metric="ms", mode="min")]))

    Each result of a trial is a step of its metrics. A trial of several configurations has no run of its
    own: when it is over, each of them gets one. A trial that raises, or whose last result has a
    ``ciq_status`` other than ``ok`` (as failures of `ciq_ray.tune.trainable` do), becomes FAILED, with
    ``ciq_status`` and ``ciq_message`` as tags. Values that are not finite are left out. While MLflow is
    away, what is recorded waits in a file, and later for ``ciq mlflow-replay``. A restored experiment
    goes on in its run, and so does one that `ciq_ray.tune.run` goes on with.

    Args:
        tracking_uri: MLflow's tracking URI; ``None`` for what MLflow takes by default.
        experiment_name: MLflow's experiment; ``None`` for ``MLFLOW_EXPERIMENT_NAME``, else ``ciq-ray``.
        run_name: Name of the experiment's run; by default that of Ray Tune's experiment.
        description: Text for it, in Markdown.
        metric: What the experiment's run follows the best of, a step for each configuration; nothing if
            ``None``.
        mode: Whether small (``"min"``) or large (``"max"``) values of `metric` are better.
        log_config: Whether configurations are recorded as parameters.

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
        self._folder: Path | None = None
        self._known: Sequence[_Known] = ()
        self._search = secrets.token_hex(12)
        self._begun: set[str] = set()
        self._best: float | None = None
        self._done = 0

    def keep_link(self, folder: str | os.PathLike[str], known: Sequence[_Known] = ()) -> None:
        """Keep in a folder where the experiment is in MLflow: a callback with the same folder goes on there.

        To be called before the experiment begins; `ciq_ray.tune.run` does so with the experiment's folder.

        Args:
            folder: On this machine; what MLflow cannot take waits there, too.
            known: What there was before: an id, such as the trial's, a configuration and its result for
                each. The best of `metric` counts from there, and MLflow gets those that it lacks.
        """
        self._known = known
        self._folder, self._search, self._begun = Path(folder), secrets.token_hex(12), set()
        self._best, self._done = None, 0
        for _, _, result in known:
            self._note(result)

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
        self._begin(trial)
        if batch_of(trial.config) is None:
            self._put(trial, self._opening(trial))

    @_never_raising
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Log a result as a step."""
        if batch_of(trial.config) is None:
            step, at = int(result.get("training_iteration", 0)), _milliseconds(result.get("timestamp"))
            self._put(trial, {"metrics": _metrics(result, at, step)})

    @_never_raising
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """End the trial's run, or log those of its configurations."""
        result = trial.last_result or {}
        batch = batch_of(trial.config)
        if batch is None:
            self._put(trial, _ending(result))
            self._follow([result])
            return
        rows = result.get(ROWS, [])  # one that was stopped has none
        self._put_rows(trial, batch, rows)
        self._follow(rows)

    @_never_raising
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """End the trial's run with what went wrong."""
        message = ""
        with contextlib.suppress(OSError, TypeError):  # it is not in the experiment's storage yet
            message = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        batch = batch_of(trial.config)
        if batch is None:
            self._put(trial, _ending({"ciq_status": "error", "ciq_message": message}))
        else:
            self._put_rows(trial, batch, [{"ciq_status": "lost", "ciq_message": message}] * len(batch))

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
        self._begin(trial)
        if self._connection is None:
            return
        if trial.trial_id not in self._begun:
            fields = self._opening(trial) | fields
        self._begun.add(trial.trial_id)
        self._connection.put({"key": trial.trial_id, **fields})

    def _put_rows(
        self, trial: Trial, batch: Sequence[dict[str, Any]], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """A run for each configuration of a trial that is over."""
        self._begin(trial)
        if self._connection is None:
            return
        for number, (config, row) in enumerate(zip(batch, rows, strict=False)):
            self._connection.put(self._row(f"{trial.trial_id}.{number}", config, row))

    def _row(self, key: str, config: Any, row: Mapping[str, Any]) -> Record:
        """All there is to say of a configuration that is over."""
        record: Record = {"key": key, "name": key, **_ending(row)}
        record["start"] = record["end"] - int(1000 * (row.get("ciq_run_s") or 0.0))
        record["metrics"] = _metrics(row, record["end"], 1)
        if self.log_config:
            record["params"] = flattened(config)
        return record

    def _begin(self, trial: Trial) -> None:
        """Make the experiment's run, or go on with it, once."""
        connection = self._connection
        if connection is None or connection.writer is not None:
            return
        from ciq_ray import settings

        store = connection.store
        name = self.run_name or getattr(trial.storage, "experiment_dir_name", None) or "tune"

        def opening(there: bool) -> Record:
            tags = {"mlflow.note.content": self.description} if self.description else {}
            record: Record = {"key": "", "tags": tags}
            return record if there else {**record, "name": name, "start": int(time.time() * 1000)}

        kept = None if self._folder is None else Link.read(self._folder)
        if kept is not None:
            self._search = kept.search
        folder = self._folder or settings.cache_dir() / "mlflow" / self._search
        connection.begin(folder, Link(store.uri, store.experiment, self._search), opening)
        for known in self._known:  # it passes over those it has
            connection.put(self._row(*known))
        self._known = ()

    def _opening(self, trial: Trial) -> Record:
        record: Record = {"name": str(trial), "start": int(time.time() * 1000)}
        if self.log_config and trial.trial_id not in self._begun:
            record["params"] = flattened(trial.config)
        return record

    def _follow(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Log the best of `metric` so far, once for each configuration that has a value of it."""
        points: list[list[Any]] = []
        for result in results:
            if self._note(result):
                at = _milliseconds(result.get("timestamp"))
                points.append([legal_name(f"best_{self.metric}"), self._best, at, self._done])
        if self._connection is not None and points:
            self._connection.put({"key": "", "metrics": points})

    def _note(self, result: Mapping[str, Any]) -> bool:
        """Count a configuration; whether it has a value, of which the best is kept."""
        self._done += 1
        value = result.get(self.metric) if self.metric is not None else None
        if result.get("ciq_status", OK) != OK or not _is_finite(value):
            return False
        better = min if self.mode == "min" else max
        self._best = float(value) if self._best is None else better(self._best, float(value))
        return True

    def _closing(self, connection: Connection) -> Record:
        from ciq_ray._mlflow.summary import links

        store = connection.store
        note: Sequence[str] = [self.description] if self.description else []
        if store.parent_id:
            note = [*note, links(store.uri, store.experiment_id, store.parent_id, [])]
        return {"key": "", "tags": {"mlflow.note.content": shortened("\n\n".join(note))}} if note else {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "_known": ()}


def _flat(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested results under ``outer/inner``."""
    flat: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _metrics(result: Mapping[str, Any], at: int, step: int) -> list[list[Any]]:
    """The numbers of a result, without Ray Tune's own and those that are not finite."""
    shown = {name: value for name, value in _flat(result).items() if name.split("/")[0] not in _TUNES}
    return [[name, value, at, step] for name, value in finite(shown)[0].items()]


def _ending(result: Mapping[str, Any]) -> Record:
    """How a run ends with its last result."""
    kind, message = str(result.get("ciq_status", OK)), str(result.get("ciq_message", "")).strip()
    tags = {"ciq.status": kind}
    if message:
        tags["ciq.message"] = shortened(message)
    status = "FINISHED" if kind == OK else "FAILED"
    return {"status": status, "end": int(time.time() * 1000), "tags": tags}


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _milliseconds(seconds: Any) -> int:
    return int((seconds if isinstance(seconds, (int, float)) else time.time()) * 1000)
