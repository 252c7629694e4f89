"""Records that MLflow could not take, one JSON object a line, in the order in which they came."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["FILE_NAME", "Spool", "read_spool"]

logger = logging.getLogger(__name__)

FILE_NAME: Final = "mlflow-spool.jsonl"


class Spool:
    """A file that any thread may append to, while another one reads it back.

    Args:
        path: The file; it is made when there is something to write.

    Attributes:
        waiting: How many records have not been read back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read_to = 0
        self.waiting = sum(1 for _ in read_spool(path)) if path.exists() else 0

    def append(self, *records: dict[str, Any]) -> None:
        """Write all of these records, or none.

        Raises:
            OSError: The disk does not take them.
        """
        data = b"".join(json.dumps(record, default=repr).encode() + b"\n" for record in records)
        with self._lock:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    data = b"\n" + data  # a process was killed while it wrote
                try:
                    while data:
                        data = data[os.write(descriptor, data) :]
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
            self.waiting += len(records)

    def next(self) -> tuple[dict[str, Any] | None, int]:
        """The first record that is not done, and where the one after it begins; ``None`` without any."""
        with self._lock:
            for record, end in _lines(self.path, self._read_to):
                if record is not None:
                    return record, end
                self._read_to = end
            return None, self._read_to

    def done(self, end: int) -> None:
        """The record that ends there is in MLflow; the file goes when all are."""
        with self._lock:
            self._read_to = end
            self.waiting = max(0, self.waiting - 1)
            with contextlib.suppress(OSError):
                if end >= os.stat(self.path).st_size:
                    self.path.unlink()
                    self._read_to = self.waiting = 0


def read_spool(path: Path) -> Iterator[dict[str, Any]]:
    """All records of a spool; a torn last line is left out, and so is what is no record, with a warning.

    Raises:
        OSError: It cannot be read.
    """
    for record, _ in _lines(path, 0):
        if record is not None:
            yield record


def _lines(path: Path, start: int) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Each line's record, ``None`` if it is none, and where the line ends."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in iter(file.readline, b""):
            if not line.endswith(b"\n"):
                return
            record = _record(line)
            if record is None:
                logger.warning("%s: a line is no record and is left out: %r", path, line[:80])
            yield record, file.tell()


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
