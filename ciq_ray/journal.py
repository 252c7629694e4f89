"""The journal of a run: one append-only file of JSON lines.

The first line is the header: what is searched, by what, on which machine, and where the objective
comes from. Then, in the order in which they happened:

* ``{"t": "ask", "n", "candidates": [{"id", "row", "generation", "config"}, ...]}``: the searcher was
  asked for `n` candidates and proposed these.
* ``{"t": "outcome", "id", "outcome", "baseline", "normalized", "worker", "at"}``: what came of one.
* ``{"t": "remeasure", "ids"}``: these leaders are measured again next, under their ids.
* ``{"t": "again", "id", "reason", "at"}``: it was lost or throttled and is sent again.
* ``{"t": "resumed", "at", "version"}``: another process went on from here.
* ``{"t": "end", "reason", "at"}``: the search ended in an orderly way.
* ``{"t": "race_begins", ...}``, ``{"t": "race", ...}``, ``{"t": "verdict", ...}``: the final race, each
  window of it, and what it said (`ciq_ray.racing`).

Replaying the asks and outcomes into a fresh searcher gives the state it had. Rows are positions in the
space's integer matrix; the configurations are there for people to read. Losing power costs at most the
line being written: a torn last line is cut off when the journal is opened again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from ciq_ray.errors import JournalError

__all__ = ["FILE_NAME", "Journal", "read_header", "read_records"]

logger = logging.getLogger(__name__)

FILE_NAME = "journal.jsonl"
VERSION = 1


class Journal:
    """A journal that is being written.

    Use `create` or `reopen`. One process may hold it at a time, and one thread of it uses it.

    Attributes:
        path: The file.
        header: Its first record.
        size: Bytes written so far.
    """

    def __init__(self, path: Path, descriptor: int, header: dict[str, Any]) -> None:
        self.path = path
        self.header = header
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._synced = self._synced_by_thread = self._requested = 0
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._syncer: threading.Thread | None = None
        self._failure: OSError | None = None

    @classmethod
    def create(cls, folder: Path, header: dict[str, Any]) -> Self:
        """Begin a journal in `folder`.

        Raises:
            JournalError: There is one already, or it cannot be written.
        """
        path = folder / FILE_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"cannot begin the journal {str(path)!r}: {error.strerror}") from error
        _lock(descriptor, path)
        journal = cls(path, descriptor, {"t": "header", "version": VERSION, **header})
        try:
            journal.write([journal.header])
            journal.sync()
        except BaseException:
            os.close(descriptor)
            raise
        return journal

    @classmethod
    def reopen(cls, folder: Path) -> Self:
        """Go on with the journal in `folder`; a torn last line is cut off.

        Raises:
            JournalError: There is none, another process holds it, or it cannot be read.
        """
        path = folder / FILE_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(f"cannot open the journal {str(path)!r}: {error.strerror}") from error
        _lock(descriptor, path)
        try:
            header = read_header(folder)  # what is no journal stays as it is
            _cut_torn_line(descriptor, path)
            return cls(path, descriptor, header)
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records in one write; the kernel has them even if this process dies right after.

        Raises:
            JournalError: The disk does not take them.
        """
        data = b"".join(_line(record) for record in records)
        if not data:
            return
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            self._take_back(written)
            raise JournalError(f"cannot write to the journal {str(self.path)!r}: {error.strerror}") from error
        self.size += len(data)

    def _take_back(self, written: int) -> None:
        """Cut off what a failed write has left: a later record must begin a line of its own."""
        if written:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)

    @property
    def safe(self) -> int:
        """How many of the bytes written are known to have reached the disk."""
        return max(self._synced, self._synced_by_thread)

    def sync(self) -> None:
        """Return when everything written has reached the disk.

        Raises:
            JournalError: It cannot be brought there.
        """
        self._check()
        if self.safe < self.size:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failure = error
                self._check()
            self._synced = self.size

    def sync_soon(self) -> None:
        """Have another thread bring to the disk what is written; `safe` says how far it has come.

        Raises:
            JournalError: It could not do so with something written earlier.
        """
        self._check()
        if self._requested >= self.size or self.safe >= self.size:
            return
        if self._syncer is None:
            self._syncer = threading.Thread(target=self._sync_requested, name="ciq-journal", daemon=True)
            self._syncer.start()
        self._requested = self.size
        self._requests.put(True)

    def _sync_requested(self) -> None:
        while self._requests.get():
            size = self.size
            if self.safe >= size:
                continue
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failure = error
                return
            self._synced_by_thread = size

    def _check(self) -> None:
        # for good: the kernel forgets that it could not write a page once it has said so
        if self._failure is not None:
            raise JournalError(
                f"cannot write to the journal {str(self.path)!r}: {self._failure.strerror}"
            ) from self._failure

    def close(self) -> None:
        """Sync and close; more calls do nothing."""
        if self._descriptor >= 0:
            try:
                if self._syncer is not None:
                    self._requests.put(False)
                    self._syncer.join()
                self.sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1


def read_header(folder: Path) -> dict[str, Any]:
    """The header of the journal in `folder`.

    Raises:
        JournalError: There is no journal, or this release cannot read it.
    """
    for record in _records(folder / FILE_NAME):
        if record.get("t") != "header":
            break
        if record.get("version") != VERSION:
            raise JournalError(
                f"the journal {str(folder / FILE_NAME)!r} has version {record.get('version')!r}; this "
                f"release reads version {VERSION}"
            )
        return record
    raise JournalError(f"{str(folder / FILE_NAME)!r} does not begin with a header; it is not a journal")


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """All records after the header, in order; a torn last line is left out.

    Raises:
        JournalError: There is no journal, or a line in it cannot be read.
    """
    records = _records(folder / FILE_NAME)
    next(records, None)
    return records


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise JournalError(f"cannot read the journal {str(path)!r}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise JournalError(f"line {number} of {str(path)!r} cannot be read: {error}") from error
            if not isinstance(record, dict):
                raise JournalError(f"line {number} of {str(path)!r} is not a record")
            yield record


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), default=repr).encode() + b"\n"


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalError(f"another process is writing {str(path)!r}; wait for it or stop it") from error


def _cut_torn_line(descriptor: int, path: Path) -> None:
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        logger.warning("the last line of %s was torn; its %d bytes are cut off", path, size - end)
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
