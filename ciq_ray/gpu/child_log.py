"""What a child writes: its end in memory, a bounded part of it in a file."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from ciq_ray.worker.process import KEPT, last_lines

__all__ = ["PIPE_BYTES", "ChildLog"]

PIPE_BYTES: Final = 1 << 20
"""Size of the pipe, where the system allows it."""
_CHUNK: Final = 1 << 18
_LOG_LIMIT: Final = 8 << 20
_LOG_PER_CALL: Final = 256 << 10


class ChildLog:
    """Takes in what a child writes to a pipe, so that it can never block for long nor fill a disk.

    Args:
        path: The file; what cannot be written to it is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = b""
        self._room = 0

    @property
    def tail(self) -> str:
        """The last of what was written since `begin`."""
        return last_lines(self._tail)

    def begin(self) -> None:
        """What is written from here on belongs to something new."""
        self._tail = b""
        self._room = _LOG_PER_CALL
        with contextlib.suppress(OSError):
            # what a link leads to, such as /dev/stderr, is for others to keep small
            found = self._path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_size > _LOG_LIMIT:
                os.truncate(self._path, 0)

    def take(self, fd: int) -> bool:
        """Read what there is, a megabyte at most; ``False`` once nobody can write any more."""
        for _ in range(PIPE_BYTES // _CHUNK):
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._tail = (self._tail + data)[-KEPT:]
            self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        if self._room <= 0:
            return
        kept = data[: self._room]
        self._room -= len(kept)
        if not self._room:
            kept += b"\n[more was written, which is not kept]\n"
        # a full disk must not stop the search
        with contextlib.suppress(OSError), self._path.open("ab") as file:
            file.write(kept)
