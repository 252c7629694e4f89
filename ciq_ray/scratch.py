"""Folders for files that are needed while a search runs, and no longer.

A driver that is killed cannot remove its own. Each folder therefore has a file that its owner keeps
locked: the kernel lets go of the lock with the process, however that ends, and whoever comes next
removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["owned", "remove_orphans"]

_PREFIX = "run-"
_LOCK = "owner.lock"


@contextmanager
def owned(base: Path, name: str, *, kept: bool) -> Iterator[Path]:
    """A new folder in `base`, removed when the context is left.

    Args:
        base: Where it is made; it is there already.
        name: A part of its name.
        kept: Leave it there, also after this process was killed.

    Raises:
        OSError: It cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-", dir=base))
    if kept:
        yield folder
        return
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_orphans(base: Path) -> None:
    """Remove the folders in `base` whose owners, processes of this machine, are gone."""
    with contextlib.suppress(OSError):
        for folder in base.glob(f"{_PREFIX}*"):
            # a folder without the file is to be kept, or is being made
            with contextlib.suppress(OSError), (folder / _LOCK).open("rb") as lock:
                # a lock may not be seen from another machine that shares the folder
                if lock.read().decode(errors="replace") == platform.node():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    new = folder / f"{_LOCK}.new"
    with new.open("wb") as lock:
        lock.write(platform.node().encode())
        lock.flush()
        # where there are no locks, nobody can tell whether the owner lives: the folder is never an orphan
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(new, folder / _LOCK)  # not seen before it is locked
        yield
