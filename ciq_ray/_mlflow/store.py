"""One record into MLflow, as often as it takes and never twice.

A record is JSON data: what to do with one run, which it names by a `key` of ours. The search's own run
has the key ``""``, its children have others. All fields but `key` may be missing:

| field | meaning |
|---|---|
| `key` | the run; it is made if there is none with this key |
| `name`, `start`, `tags` | of a run that is made; `start` in milliseconds since 1970 |
| `params`, `metrics` | to be logged; metrics as ``[name, value, milliseconds, step]`` |
| `files` | artefacts: a text for each path |
| `status`, `end` | the run has ended |
| `run_id` | a run that an objective has started; it gets the key |
| `look` | an objective may have started one: see whether there is one with this key |

Doing a record again changes nothing: a run is found by its key, and MLflow takes equal values once. So a
record is simply repeated when it is not known how far it came.
"""

from __future__ import annotations

import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ciq_ray._mlflow.limits import own_requests
from ciq_ray._mlflow.stale import HOST, is_gone
from ciq_ray._mlflow.uris import absolute_uri, known_uri, sqlite_path, without_credentials
from ciq_ray.errors import CiqError, ConfigurationError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["Away", "Record", "Refused", "Store"]

Record = dict[str, Any]
_T = TypeVar("_T")

_PARENT: Final = "mlflow.parentRunId"
_SEARCH: Final = "ciq.search"
_KEY: Final = "ciq.key"
_MOST_TAGS = _MOST_PARAMS = 100
_OWN_TAGS: Final = 2
_MOST_METRICS: Final = 500
_PAGE: Final = 1000
_AWAY: Final = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "IO_ERROR"}
)


class Away(CiqError):
    """MLflow cannot be reached; what was to be written may be repeated later."""


class Refused(CiqError):
    """MLflow is there and does not take this."""


class Store:
    """Where the runs of one search are. Any thread may use it; one at a time gets through.

    Args:
        uri: MLflow's tracking URI; `None` for what MLflow takes by default.
        experiment: The experiment's name; it is made if there is none.
        search: A name for the search that no other search has, by which its run is found again.

    Attributes:
        uri: MLflow's tracking URI without credentials, fit to be shown and kept.
        address: The URI by which MLflow is reached.
        experiment_id: The experiment's id, ``""`` before the first contact.
        known: The ids of the runs by their key.

    Raises:
        ConfigurationError: MLflow does not know such a URI.
    """

    def __init__(self, uri: str | None, experiment: str, search: str = "") -> None:
        import mlflow

        self.address = known_uri(absolute_uri(mlflow.get_tracking_uri() if uri is None else uri))
        self.uri = without_credentials(self.address)
        self.experiment = experiment
        self.search = search
        self.experiment_id = ""
        self.known: dict[str, str] = {}
        self._ended: set[str] = set()
        self._uncertain: set[str] = set()
        self._lock = threading.RLock()
        self._client = self._make_client()

    def _make_client(self) -> MlflowClient:
        from mlflow import MlflowClient

        try:
            return MlflowClient(self.address)
        except Exception as error:
            raise ConfigurationError(
                f"`tracking_uri` is {self.uri!r}, which MLflow cannot use: {_first_line(error)}"
            ) from self._cause(error)

    @property
    def parent_id(self) -> str:
        """The id of the search's own run, ``""`` while it is not known."""
        return self.known.get("", "")

    def connect(self) -> None:
        """See that MLflow is there and has the experiment.

        Raises:
            Away: It is not there.
            Refused: It is, and something is wrong with what it is asked for.
        """
        if not self.experiment_id:
            self.experiment_id = self._call(self._experiment)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment, self._artifact_location()))
            except MlflowException:  # somebody else made it just now
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise Refused(
                f"the experiment {self.experiment!r} has been deleted in MLflow; restore it there, or give "
                "another `experiment_name`"
            )
        return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        """Next to the database, if it is a file; by default it would be where this program was started."""
        path = sqlite_path(self.uri)
        return None if path is None else (path.parent / "mlruns" / secrets.token_hex(8)).as_uri()

    def probe(self) -> None:
        """See whether MLflow is there, in one cheap request.

        Raises:
            Away: It is not.
        """
        self.connect()
        self._call(lambda: self._client.get_experiment(self.experiment_id))

    # --- records ---

    def write(self, record: Record, *, patience_s: float = -1) -> str:
        """Do what a record says.

        Args:
            record: See above.
            patience_s: Seconds to wait while another thread writes; -1 for as long as it takes.

        Returns:
            The id of its run.

        Raises:
            Away: MLflow is not there; how far it came is not known.
            Refused: MLflow does not take it.
        """
        if not self._lock.acquire(timeout=patience_s):
            raise Away(f"another request has not been answered for {patience_s:g} s")
        try:
            self.connect()
            key = record["key"]
            if key in self._ended and "status" in record and key in self.known and key:
                return self.known[key]  # a child ends once
            run_id, made = self._run(record)
            self._log(run_id, record, made)
            for path, text in record.get("files", {}).items():
                self._call(partial(self._client.log_text, run_id, text, path))
            if "status" in record:
                self._call(lambda: self._client.set_terminated(run_id, record["status"], record.get("end")))
                self._ended.add(key)
            return run_id
        finally:
            self._lock.release()

    def _run(self, record: Record) -> tuple[str, bool]:
        """The run of a record, and whether it was made just now."""
        key = record["key"]
        if key and not self.parent_id:
            self._find("")
            if not self.parent_id:
                raise Refused("the search's own run is not in MLflow")
        if record.get("run_id") and key not in self.known:
            self._adopt(key, record["run_id"])
        if key not in self.known and (key in self._uncertain or record.get("look") or not key):
            self._find(key)
        if key in self.known:
            return self.known[key], False
        own = {_KEY: key, _PARENT: self.parent_id} if key else {_SEARCH: self.search}
        tags = own | record.get("tags", {})  # ours first: there is room for so many only
        self._uncertain.add(key)
        run = self._call(
            lambda: self._client.create_run(
                self.experiment_id,
                record.get("start"),
                dict(islice(tags.items(), _MOST_TAGS)),
                record.get("name"),
            )
        )
        self._uncertain.discard(key)
        self.known[key] = run.info.run_id
        return run.info.run_id, True

    def _adopt(self, key: str, run_id: str) -> None:
        """Take a run that an objective has started for the run with this key."""
        try:
            run = self._call(lambda: self._client.get_run(run_id))
        except Refused:
            return  # it is in another store, which the process could reach and we cannot
        if run.info.experiment_id == self.experiment_id:
            self.known[key] = run_id
            if run.data.tags.get(_KEY) != key or run.data.tags.get(_PARENT) != self.parent_id:
                self._set_tags(run_id, {_KEY: key, _PARENT: self.parent_id})

    def _find(self, key: str) -> None:
        """Look for the run with this key."""
        filters = [f"tags.`{_SEARCH}` = '{self.search}'"]
        if key:
            filters = [f"tags.`{_PARENT}` = '{self.parent_id}'", f"tags.`{_KEY}` = '{_quoted(key)}'"]
        for run in islice(self._search(" and ".join(filters)), 1):
            self.known[key] = run.info.run_id
        self._uncertain.discard(key)

    def _log(self, run_id: str, record: Record, made: bool) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(name, value, at, step) for name, value, at, step in record.get("metrics", ())]
        params = [Param(name, value) for name, value in record.get("params", {}).items()]
        tags = [RunTag(name, value) for name, value in record.get("tags", {}).items()]
        if made:
            tags = tags[_MOST_TAGS - _OWN_TAGS :]
        while metrics or params or tags:
            batch = metrics[:_MOST_METRICS], params[:_MOST_PARAMS], tags[:_MOST_TAGS]
            self._call(partial(self._client.log_batch, run_id, *batch, synchronous=True))
            metrics, params = metrics[_MOST_METRICS:], params[_MOST_PARAMS:]
            tags = tags[_MOST_TAGS:]

    # --- the runs that are there ---

    def refresh(self) -> None:
        """Learn which runs of this search there are already.

        Raises:
            Away: MLflow is not there.
        """
        with self._lock:
            self.connect()
            self._find("")
            if not self.parent_id:
                return
            for run in self._search(f"tags.`{_PARENT}` = '{self.parent_id}'"):
                key = run.data.tags.get(_KEY, "")
                written = "ciq.status" in run.data.tags
                # one that an objective began, and of which nothing came, is left to `tidy`
                if key and (written or (key not in self.known and "ciq.origin" not in run.data.tags)):
                    self.known[key] = run.info.run_id
                    if written and run.info.status != "RUNNING":
                        self._ended.add(key)

    def reopen_parent(self) -> bool:
        """Have the search's own run go on, if there is one.

        Raises:
            Away: MLflow is not there.
        """
        with self._lock:
            self.connect()
            self._find("")
            if self.parent_id:
                self._call(lambda: self._client.update_run(self.parent_id, status="RUNNING"))
            return bool(self.parent_id)

    def tidy(self) -> None:
        """End what evaluations have left running, and put further runs of theirs below their own.

        An objective that was killed cannot end its run; one that starts programs or threads may have
        several runs.

        Raises:
            Away: MLflow is not there.
        """
        with self._lock:
            if not self.parent_id:
                return
            ours = set(self.known.values())
            children = f"tags.`{_PARENT}` = '{self.parent_id}'"
            for run in list(self._search(f"{children} and attributes.status = 'RUNNING'")):
                self._kill(run)
            for run in list(self._search(f"{children} and tags.`ciq.origin` = 'objective'")):
                owner = self.known.get(run.data.tags.get(_KEY, ""))
                if owner is not None and run.info.run_id not in ours:
                    self._set_tags(run.info.run_id, {_PARENT: owner})

    def sweep(self) -> int:
        """End the runs of searches whose process was killed on this machine.

        Returns:
            How many searches there were.

        Raises:
            Away: MLflow is not there.
        """
        with self._lock:
            self.connect()
            host = _quoted(platform.node())
            found = list(self._search(f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{host}'"))
            gone = [run for run in found if is_gone(run.data.tags) and run.info.run_id != self.parent_id]
            for run in gone:
                below = f"tags.`{_PARENT}` = '{run.info.run_id}' and attributes.status = 'RUNNING'"
                for child in list(self._search(below)):
                    self._kill(child)
                self._kill(run)
            return len(gone)

    def _kill(self, run: Run) -> None:
        now = int(time.time() * 1000)
        self._set_tags(run.info.run_id, {"ciq.message": "its process was killed"})
        self._call(lambda: self._client.set_terminated(run.info.run_id, "KILLED", now))

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        batch = [RunTag(name, value) for name, value in tags.items()]
        self._call(lambda: self._client.log_batch(run_id, tags=batch, synchronous=True))

    def _search(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            search = partial(self._client.search_runs, [self.experiment_id], condition, max_results=_PAGE)
            page = self._call(partial(search, page_token=token))
            yield from page
            token = page.token
            if not token:
                return

    def _call(self, request: Callable[[], _T]) -> _T:
        """Make one request, with our limits and our errors."""
        from mlflow.exceptions import MlflowException

        try:
            with own_requests():
                return request()
        except (Away, Refused):
            raise
        except MlflowException as error:
            kind = Away if error.error_code in _AWAY else Refused
            raise kind(_first_line(error)) from self._cause(error)
        except OSError as error:  # those of `requests` are such
            raise Away(_first_line(error)) from self._cause(error)
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {_first_line(error)}") from self._cause(error)

    def _cause(self, error: Exception) -> Exception | None:
        """The error, unless its text may show a password."""
        return error if self.address == self.uri else None


def _quoted(text: str) -> str:
    """A text between single quotes in a filter; it has no way to write one inside them."""
    return text.replace("'", "_")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return without_credentials(lines[0])[:500]
