"""What a run's folder remembers of its place in MLflow, and the writing of a spool that was left there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from ciq_ray._files import write_atomic
from ciq_ray._mlflow.spool import FILE_NAME, read_spool
from ciq_ray._mlflow.store import Away, Record, Refused, Store
from ciq_ray.errors import CiqError, ConfigurationError, JournalError, WorkerError

__all__ = ["Link", "replay_spool"]

LINK_NAME: Final = "mlflow.json"
_FAILURES: Final = 10
"""So many records in a row may find MLflow failing although it answers in between."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a run is in MLflow.

    Attributes:
        uri: MLflow's tracking URI, without credentials.
        experiment: The experiment's name.
        search: By which its run is found there, see `Store`.
    """

    uri: str
    experiment: str
    search: str

    @classmethod
    def new(cls, uri: str, experiment: str) -> Self:
        """A place that no other run has."""
        return cls(uri, experiment, secrets.token_hex(12))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What the folder remembers, ``None`` if nothing.

        Raises:
            JournalError: It cannot be read.
        """
        path = folder / LINK_NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise JournalError(f"{str(path)!r} cannot be read: {error}") from error

    def write(self, folder: Path) -> None:
        """Have the folder remember it.

        Raises:
            OSError: It cannot be written.
        """
        write_atomic(folder / LINK_NAME, [json.dumps(asdict(self), indent=1).encode() + b"\n"])


def replay_spool(folder: Path, say: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Write into MLflow what could not be written while a search ran; nothing is written twice.

    The file goes when all of it is in MLflow. What the place needs of credentials is in
    ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, or in ``MLFLOW_TRACKING_URI`` if that
    is the run's.

    Args:
        folder: The run's folder, of a search that is over.
        say: Called now and then with the number of records that are done, and of all.

    Returns:
        How many records there were.

    Raises:
        ConfigurationError: There is nothing to write.
        JournalError: A file cannot be read.
        WorkerError: MLflow cannot be reached, or does not take some of it, which then stays.
    """
    path, link = folder / FILE_NAME, Link.read(folder)
    if link is None or not path.exists():
        raise ConfigurationError(f"nothing in {str(folder)!r} waits for MLflow")
    try:
        records = list(read_spool(path))
    except OSError as error:
        raise JournalError(f"{str(path)!r} cannot be read: {error}") from error
    store = Store(link.uri, link.experiment, link.search)
    left: list[tuple[Record, CiqError]] = []
    failures = 0
    try:
        store.refresh()
        for number, record in enumerate(records):
            say(number, len(records))
            try:
                store.write(record)
                failures = 0
            except Refused as error:
                left.append((record, error))
            except Away as error:  # over this record, or for good?
                failures += 1
                if failures > _FAILURES or not store.parent_id:
                    raise
                store.probe()
                left.append((record, error))
        store.tidy()
    except (Away, Refused) as error:
        raise WorkerError(f"MLflow at {link.uri} cannot be used: {error}") from error
    if left:
        write_atomic(path, [json.dumps(record).encode() + b"\n" for record, _ in left])
        raise WorkerError(
            f"MLflow does not take {len(left)} of {len(records)} records; they stay in {str(path)!r}. The "
            f"first: {left[0][1]}"
        )
    path.unlink()
    return len(records)
