"""MLflow for one search: first contact, the search's own run, the writer, the end."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ciq_ray._mlflow.link import Link
from ciq_ray._mlflow.spool import FILE_NAME, Spool
from ciq_ray._mlflow.stale import process_tags
from ciq_ray._mlflow.store import Away, Record, Refused, Store
from ciq_ray._mlflow.uris import absolute_uri, sqlite_path, without_credentials
from ciq_ray._mlflow.writer import Writer, never
from ciq_ray.errors import ConfigurationError

__all__ = ["Connection"]

logger = logging.getLogger(__name__)

DEFAULT_EXPERIMENT: Final = "ciq-ray"


class Connection:
    """One search's way into MLflow.

    Args:
        uri: MLflow's tracking URI; ``None`` for what MLflow takes by default.
        experiment: The experiment's name; ``None`` for ``MLFLOW_EXPERIMENT_NAME``, else ``ciq-ray``.

    Attributes:
        store: Where the runs are.
        folder: Where it keeps what MLflow cannot take, once it has begun.

    Raises:
        ConfigurationError: MLflow knows no such URI or does not give access. That a server does
            not answer is no error: what is recorded waits for it.
    """

    def __init__(self, uri: str | None, experiment: str | None) -> None:
        import mlflow

        address = absolute_uri(mlflow.get_tracking_uri() if uri is None else uri)
        wanted = without_credentials(address)
        name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
        database = sqlite_path(wanted)
        if database is not None and not database.exists():
            if not database.parent.is_dir():
                raise ConfigurationError(
                    f"`tracking_uri` is {wanted!r}; there is no folder {database.parent}"
                )
            # it has some forty tables, and a history of changes to go through
            print(f"MLflow: making {database}, which takes some seconds", file=sys.stderr)
        self.store = Store(address, name)
        self.folder: Path | None = None
        self.writer: Writer | None = None
        self._away = False
        try:
            self.store.connect()
        except Away as error:
            if database is not None:
                raise ConfigurationError(f"`tracking_uri` is {wanted!r}: {error}") from error
            self._away = True
            logger.warning("MLflow at %s cannot be reached (%s); the search goes on", wanted, error)
        except Refused as error:
            raise ConfigurationError(f"`tracking_uri` is {wanted!r}; MLflow there: {error}") from error

    def begin(self, folder: Path, link: Link, opening: Callable[[bool], Record]) -> None:
        """Make the search's own run, or go on with it, and start the thread that writes.

        Args:
            folder: Where to keep what MLflow cannot take.
            link: The place of the search in MLflow.
            opening: The record that makes the search's run, or goes on with one that is there.
        """
        store, self.folder = self.store, folder
        store.search = link.search
        again = Link.read(folder) == link
        folder.mkdir(parents=True, exist_ok=True)
        link.write(folder)
        spool = Spool(folder / FILE_NAME)
        there = again and (self._away or self._tried(store.reopen_parent) or self._away)
        record = opening(there)
        record["tags"] |= process_tags()
        if self._away or not self._tried(lambda: store.write(record)):
            spool.append(record)

        def prepare() -> None:
            if again:
                store.refresh()
            store.sweep()

        self.writer = Writer(store, spool, away=self._away, before=prepare, after=store.tidy)
        atexit.register(self._at_exit)

    def _tried(self, request: Callable[[], object]) -> bool:
        """Make a request; whether it came to something."""
        try:
            return bool(request())
        except (Away, Refused) as error:
            self._away = True
            logger.warning("MLflow at %s: %s; the search goes on", self.store.uri, error)
            return False

    def put(self, record: Record) -> None:
        """Hand a record over."""
        if self.writer is not None:
            self.writer.put(record)

    def settle(self, stop_requested: Callable[[], bool] = never) -> None:
        """Return when MLflow has everything, or is away.

        Args:
            stop_requested: Whether to wait no longer; what waits is then left in the folder.
        """
        if self.writer is not None:
            self.writer.settle(_Patience(), stop_requested)

    def end(
        self,
        closing: Callable[[], Record],
        status: str,
        tags: dict[str, str],
        *,
        at_once: bool,
        stop_requested: Callable[[], bool] = never,
    ) -> None:
        """Write what waits and how the search ended.

        Args:
            closing: Called when MLflow has all else, for the last that is to be said, if anything.
            status: What becomes of the search's run: FINISHED, FAILED or KILLED.
            tags: For it.
            at_once: Leave what waits in the folder.
            stop_requested: Whether to do so from now on.
        """
        writer, self.writer = self.writer, None
        if writer is None:
            return
        atexit.unregister(self._at_exit)
        patience = _Patience()
        last: list[Record] = []
        try:
            if not at_once:
                writer.settle(patience, stop_requested)
                last += [record for record in [closing()] if record]
        except Exception:
            logger.exception("what MLflow is told at the end is incomplete")
        finally:  # also when somebody does not want to wait
            interrupted = sys.exc_info()[0] is not None
            last.append({"key": "", "tags": tags, "status": status, "end": int(time.time() * 1000)})
            hurry = at_once or interrupted
            left = writer.close(last, at_once=hurry, say=patience, stop_requested=stop_requested)
            if left:
                print(
                    f"MLflow does not have all of it: {left} records wait in {self.folder}; once it can be "
                    f"reached: ciq mlflow-replay {self.folder}",
                    file=sys.stderr,
                )

    def _at_exit(self) -> None:
        self.end(dict, "KILLED", {"ciq.message": "the program ended"}, at_once=True)


class _Patience:
    """Says how much is left to be written, once it is worth saying, and then now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 2.0

    def __call__(self, waiting: int) -> None:
        if waiting and time.monotonic() >= self._next:
            self._next = time.monotonic() + 10.0
            print(f"MLflow: {waiting} records still to be written (Ctrl-C: later)", file=sys.stderr)
