"""The tracker that records a search in MLflow."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray._trackers.guarding import logging_exception
from ciq_ray._trackers.run_tracker import RunTracker
from ciq_ray._types.tracker_configs import MLflowTrackerConfig
from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray._mlflow.connection import Connection
    from ciq_ray._mlflow.store import Record
    from ciq_ray._mlflow.summary import Progress, Scores
    from ciq_ray._types.worker import Params
    from ciq_ray.results import SearchResult

__all__ = ["MLflowTracker"]

logger = logging.getLogger(__name__)

_LIVE_PATIENCE_S: Final = 1.0
_NO_LIVE_S: Final = 30.0
_OBJECTIVES: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""For requests of an objective; by default MLflow repeats one to a server that is gone for minutes."""
_LOCAL: Final = ("sqlite:", "file:", "http://localhost", "http://127.", "http://[::1]")


class MLflowTracker(RunTracker):
    """Records a search in MLflow: one run for the search, and below it one for each evaluation.

    Each event takes microseconds: a thread of its own writes, and into a file in the run's folder while
    MLflow cannot be reached. What an objective logs by itself, with ``mlflow.log_metric`` and its like,
    lands in the run of its evaluation.

    Args:
        tracker_config: Where to, and what.

    Raises:
        ConfigurationError: MLflow knows no such `tracking_uri`, or does not give access. A server
            that cannot be reached is none: what is recorded waits for it.
    """

    tracker_config: MLflowTrackerConfig

    def __init__(self, tracker_config: MLflowTrackerConfig) -> None:
        self._forget()
        super().__init__(tracker_config)

    def _forget(self) -> None:
        self._connection: Connection | None = None
        self._known: tuple[Scores, Progress] | None = None
        self._header: Mapping[str, Any] = {}
        self._folder: Path | None = None
        self._measured: Counter[str] = Counter()
        self._generation = 0
        self._latest_ms = 0
        self._answers = False
        self._no_live_before = 0.0
        self._ended = ""

    @staticmethod
    def get_date_string() -> str:
        """The current local time, fit for a run's name: ``2025-01-31_23-59-59``."""
        return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")

    # --- the documented life cycle ---

    def setup(self, **kwargs: Any) -> None:
        """Make contact with MLflow; the very first one makes its database, which takes seconds."""
        from ciq_ray._mlflow.connection import Connection

        super().setup(**kwargs)
        self._forget()
        self._connection = Connection(self.tracker_config.tracking_uri, self.tracker_config.experiment_name)

    @logging_exception
    def cleanup(self, **kwargs: Any) -> None:
        """Write what waits, unless `run_closed` is going to."""
        if self._connection is not None and self._folder is None:
            self._connection.end(dict, "FINISHED", {}, at_once=False)

    @logging_exception
    def search_starts(self, **kwargs: Any) -> None:
        """Make the search's run, unless `run_opened` has."""
        if self._folder is None and self._connection is not None:
            from ciq_ray import settings
            from ciq_ray._mlflow.link import Link

            link = Link.new(self._connection.store.uri, self._connection.store.experiment)
            self._connection.begin(settings.cache_dir() / "mlflow" / link.search, link, self._opening)

    @logging_exception
    def search_ends(self, **kwargs: Any) -> None:
        """Note why."""
        self._ended = str(kwargs.get("reason", ""))

    @logging_exception
    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        """Evaluations count in this generation from now on."""
        self._generation = generation_number

    @logging_exception
    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        """Log how the generation did, at the moment of its last evaluation."""
        if self._known is not None and self._latest_ms:
            found = self._known[1].metrics(generation_number)
            rows = [[name, value, self._latest_ms, generation_number] for name, value in found.items()]
            self._put({"key": "", "metrics": rows})

    @logging_exception
    def pre_objective(self, config: Params, **kwargs: Any) -> None:
        """Nothing: `task_context` has been there before."""

    @logging_exception
    def post_objective(self, scores: str, **kwargs: Any) -> None:
        """Log an evaluation."""
        from ciq_ray._mlflow.records import evaluation_record

        fields = json.loads(scores)
        minimal = {"num_objectives": fields["num_objectives"], "problem_type": "min"}
        names, progress = self._scores({"search_config": minimal})
        task_id = str(kwargs.get("task_id", fields["param_id"]))
        key = _key(task_id, self._measured[task_id])
        self._measured[task_id] += 1
        record = evaluation_record(
            key,
            fields,
            kwargs.get("evaluation"),
            names,
            generation=self._generation,
            place={name: kwargs[name] for name in kwargs if name == "worker" or name.endswith("_id")},
            log_config=self.tracker_config.log_config,
            answers=self._answers,
        )
        values = [value for _, value, _, _ in record["metrics"][: len(names.names)]]
        self._latest_ms = max(self._latest_ms, record["end"])
        progress.add(task_id, self._generation, values if record["status"] == "FINISHED" else None)
        self._put(record)

    # --- around it ---

    def run_opened(self, folder: Path, header: Mapping[str, Any]) -> None:
        """Make the search's run in MLflow, or go on with it.

        Raises:
            ConfigurationError: `score_names` does not fit the search.
        """
        from ciq_ray._mlflow.connection import Connection
        from ciq_ray._mlflow.link import Link

        names, count = self.tracker_config.score_names, int(header["search_config"]["num_objectives"])
        if names and len(names) != count:
            raise ConfigurationError(
                f"`score_names` is {names!r}, {len(names)} of them; the search has `num_objectives`={count}"
            )
        connection = self._connection
        if connection is None:
            return
        link = Link.read(folder)
        if link is not None and self.tracker_config.tracking_uri is None and link.uri != connection.store.uri:
            # the default depends on where a program is started, and on its environment
            self._connection = connection = Connection(link.uri, link.experiment)
        place = (connection.store.uri, connection.store.experiment)
        if link is None or (link.uri, link.experiment) != place:
            link = Link.new(*place)
        self._folder, self._header = folder, header
        self._scores(header)
        self._warn_of_remote_nodes(connection.store.uri)
        connection.begin(folder, link, self._opening)

    def _scores(self, header: Mapping[str, Any]) -> tuple[Scores, Progress]:
        """What the scores are called, and what becomes of them; the first header counts."""
        from ciq_ray._mlflow.summary import Progress, Scores

        if self._known is None:
            scores = Scores(header, self.tracker_config.score_names)
            self._known = scores, Progress(scores)
        return self._known

    def _opening(self, there: bool) -> Record:
        """The record that makes the search's run, or goes on with one that is there."""
        from mlflow.tracking.context.registry import resolve_tags

        from ciq_ray._mlflow.summary import files_at_start, params_of

        if there:
            return {"key": "", "tags": {}}
        config, header = self.tracker_config, self._header
        objective = str((header.get("objective") or {}).get("qualname") or "search")
        name = config.run_name or self.search_title or f"{objective}_{self.get_date_string()}"
        tags = {**resolve_tags(), "mlflow.runName": name}
        if self._folder is not None:
            tags["ciq.folder"] = str(self._folder.absolute())
        if config.description:
            tags["mlflow.note.content"] = config.description
        record: Record = {"key": "", "name": name, "start": int(time.time() * 1000), "tags": tags}
        if header:
            record |= {"params": params_of(header), "files": files_at_start(header)}
        return record

    def task_context(self, task_id: str, measurement: int) -> Mapping[str, str]:
        """Where what the objective logs by itself goes; with `live_runs` its run is made here."""
        from ciq_ray._mlflow.objective import KEY, PARENT, RUN_ID

        if self._connection is None:
            return {}
        self._answers = True
        store, key = self._connection.store, _key(task_id, measurement)
        context = {
            "MLFLOW_TRACKING_URI": store.address,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            **{name: value for name, value in _OBJECTIVES.items() if name not in os.environ},
            PARENT: store.parent_id,
            KEY: key,
        }
        if store.experiment_id:
            context["MLFLOW_EXPERIMENT_ID"] = store.experiment_id
        else:
            context["MLFLOW_EXPERIMENT_NAME"] = store.experiment
        if self.tracker_config.live_runs:
            context[RUN_ID] = self._live_run(self._connection, key)
        return context

    def _live_run(self, connection: Connection, key: str) -> str:
        """Make the run of an evaluation that is about to begin; the search waits for that, but not long."""
        from ciq_ray._mlflow.store import Away, Refused

        away = connection.writer is None or connection.writer.away
        if away or time.monotonic() < self._no_live_before:
            return ""
        record = {"key": key, "name": key, "start": int(time.time() * 1000)}
        try:
            return connection.store.write(record, patience_s=_LIVE_PATIENCE_S)
        except (Away, Refused) as error:
            logger.warning("no run in MLflow before the evaluation: %s", error)
            self._no_live_before = time.monotonic() + _NO_LIVE_S
            return ""

    @logging_exception
    def settle(self, stop_requested: Callable[[], bool]) -> None:
        """Return when MLflow has everything, or is away."""
        if self._connection is not None:
            self._connection.settle(stop_requested)

    @logging_exception
    def run_closed(
        self,
        result: SearchResult | None,
        error: BaseException | None,
        stop_requested: Callable[[], bool],
    ) -> None:
        """Write what waits, and how the search ended."""
        if self._connection is None:
            return
        reason = (result.ended if result is not None else None) or self._ended
        status, tags = "KILLED" if reason == "stopped" else "FINISHED", {"ciq.ended": reason}
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            tags = {"ciq.message": f"{type(error).__name__}: {error}"[:5000]}
        at_once = error is not None and not isinstance(error, Exception)
        self._connection.end(
            lambda: self._closing(result), status, tags, at_once=at_once, stop_requested=stop_requested
        )
        self._folder = None

    def _closing(self, result: SearchResult | None) -> Record:
        """The record of what was found."""
        from ciq_ray._mlflow.names import shortened
        from ciq_ray._mlflow.summary import best_keys, files_at_end, links

        note = [self.tracker_config.description] if self.tracker_config.description else []
        record: Record = {"key": ""}
        if result is not None and self._connection is not None and self._known is not None:
            store = self._connection.store
            keys = [_key(name, self._measured[name] - 1) for name in best_keys(result)]
            best = [store.known[key] for key in keys if key in store.known]
            if result.verdict is not None:
                note.append(result.verdict.words)
            if store.parent_id:
                note.append(links(store.uri, store.experiment_id, store.parent_id, best))
            record["files"] = files_at_end(result, self._known[0])
        record["tags"] = {"mlflow.note.content": shortened("\n\n".join(note))} if note else {}
        return record

    def _put(self, record: Record) -> None:
        if self._connection is not None:
            self._connection.put(record)

    def _warn_of_remote_nodes(self, uri: str) -> None:
        if self._header.get("worker_type") == "ray" and uri.startswith(_LOCAL) and _has_other_nodes():
            logger.warning(
                "MLflow is at %s, which other nodes of the cluster cannot reach: what an objective logs by "
                "itself there is lost. Run `mlflow server` and give its address as `tracking_uri`",
                uri,
            )

    def __getstate__(self) -> dict[str, Any]:
        kept = ("tracker_config", "tracker_type", "kwargs")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget()
        self.__dict__.update(state)


def _has_other_nodes() -> bool:
    """Whether evaluations may run on other machines: on what is there, or on what a cluster may add."""
    from ciq_ray import settings

    if settings.ray_address() not in (None, "local"):
        return True
    ray = sys.modules.get("ray")
    nodes = ray.nodes() if ray is not None and ray.is_initialized() else []
    return any(node["Alive"] and node["NodeManagerHostname"] != platform.node() for node in nodes)


def _key(task_id: str, measurement: int) -> str:
    return f"{task_id}.{measurement}" if measurement > 0 else task_id
