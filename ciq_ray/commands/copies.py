"""Copies of a directory, so that builds do not trample each other, nor the original.

All lie in one temporary folder::

    ciq-work-<token>/
      owner.lock            held by the process that made the folder, for as long as it lives
      source/               the directory as it was at first use
      copy-00/  copy-00.lock  copy-00.built

Whoever uses a copy holds its lock. ``copy-NN.built`` says what was built in it last: an evaluation that
needs the same build takes that copy as it is; for any other build a copy is first made equal to the
source, so that no file of an earlier build is mistaken for one of this build.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from ciq_ray.errors import ConfigurationError

__all__ = ["Copy", "WorkingCopies", "fingerprint"]

_PREFIX: Final = "ciq-work-"
_MOST_BYTES: Final = 2 << 30
_MOST_FILES: Final = 50_000
_BUILDS_BYTES: Final = 1 << 30
_MOST_BUILDS: Final = 16


class Copy:
    """A working copy, for one user at a time.

    Attributes:
        path: Where it is.
        fresh: Whether it is equal to the source; else what was asked for is built in it.
    """

    def __init__(self, path: Path, marker: Path, key: str) -> None:
        self.path = path
        self._marker = marker
        self._key = key
        self.fresh = not (path.is_dir() and _read(marker) == key)

    def built(self) -> None:
        """Note that what was asked for is built."""
        self._marker.write_text(self._key)


class WorkingCopies:
    """Copies of a directory. A copy of this object in another process uses the same ones.

    Builds are kept for up to 16 configurations, or as many as fit into 1 GiB. The folder is removed when
    this object, or the process that made it, ends.

    Args:
        directory: What is copied.
        leave_out: Folders in it that are not.

    Attributes:
        n_files: How many files a copy has.
        n_bytes: Their size.

    Raises:
        ConfigurationError: It is no directory, or is too large to be copied by accident.
    """

    def __init__(self, directory: Path, leave_out: Collection[Path] = ()) -> None:
        self.directory = directory
        self._leave_out = frozenset(str(path) for path in leave_out)
        self.n_files, self.n_bytes = _size(directory, self._leave_out)
        self._keep = max(1, min(_MOST_BUILDS, _BUILDS_BYTES // max(1, self.n_bytes)))
        _sweep()
        self.base = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"
        self.base.mkdir(mode=0o700)
        descriptor = os.open(self.base / "owner.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # copies of this object in other processes own nothing
        self._owner: Any = weakref.finalize(self, _end, self.base, descriptor, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": None}

    def close(self) -> None:
        """Remove all copies, if this process owns them."""
        if self._owner is not None:
            self._owner()

    def keep(self) -> None:
        """Leave the folder behind when this process ends."""
        if self._owner is not None:
            self._owner.detach()

    @contextlib.contextmanager
    def use(self, key: str) -> Iterator[Copy]:
        """Have a copy for oneself.

        Args:
            key: What is to be built in it.

        Raises:
            OSError: It cannot be made.
        """
        self.base.mkdir(mode=0o700, exist_ok=True)
        with self._locked_copy(key) as name:
            copy = Copy(self.base / name, self.base / f"{name}.built", key)
            if copy.fresh:
                copy._marker.unlink(missing_ok=True)
                _mirror(self._source(), copy.path)
            yield copy
            if not copy.fresh:
                os.utime(copy._marker)  # the one not used for longest goes first

    @contextlib.contextmanager
    def _locked_copy(self, key: str) -> Iterator[str]:
        names = sorted(path.stem for path in self.base.glob("copy-*.lock"))
        markers = {name: self.base / f"{name}.built" for name in names}
        right = [name for name in names if _read(markers[name]) == key]
        reusable = names if len(names) >= self._keep else [name for name in names if not _read(markers[name])]
        others = sorted(
            (name for name in reusable if name not in right), key=lambda name: _age(markers[name])
        )
        new = (f"copy-{number:02}" for number in range(len(names), 1 << 20))
        for name in [*right, *others]:
            with _lock(self.base / f"{name}.lock", wait=False) as locked:
                if locked:
                    yield name
                    return
        for name in new:
            with _lock(self.base / f"{name}.lock", wait=False) as locked:
                if locked:
                    yield name
                    return

    def _source(self) -> Path:
        source = self.base / "source"
        with _lock(self.base / "source.lock", wait=True):
            if not source.is_dir():
                temporary = self.base / "source.new"
                _mirror(self.directory, temporary, self._leave_out)
                temporary.rename(source)
        return source


def fingerprint(directory: Path) -> int:
    """A number that changes when a file in a directory does, by its size or time."""
    found = []
    for folder, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                entry = os.lstat(os.path.join(folder, name))
                found.append((folder, name, entry.st_size, entry.st_mtime_ns))
    return hash(tuple(sorted(found)))


def _mirror(source: Path, target: Path, leave_out: Collection[str] = ()) -> None:
    """Make `target` equal to `source`; files that are the same stay."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        target.unlink()
    target.mkdir(exist_ok=True)
    target.chmod(0o700)
    with os.scandir(target) as entries:
        there = {entry.name: entry for entry in entries}
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.path in leave_out or entry.name.startswith(_PREFIX):
                continue
            old = there.pop(entry.name, None)
            if entry.is_dir(follow_symlinks=False):
                _mirror(Path(entry.path), target / entry.name, leave_out)
            elif not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                continue  # a pipe or a socket
            elif old is None or _differ(entry, old):
                if old is not None:
                    _remove(Path(old.path))
                shutil.copy2(entry.path, target / entry.name, follow_symlinks=False)
    for old in there.values():
        _remove(Path(old.path))
    shutil.copystat(source, target)
    target.chmod(stat.S_IMODE(source.stat().st_mode) | 0o700)


def _differ(one: os.DirEntry[str], other: os.DirEntry[str]) -> bool:
    first, second = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    if stat.S_ISLNK(first.st_mode) and stat.S_ISLNK(second.st_mode):
        return os.readlink(one.path) != os.readlink(other.path)
    return (first.st_mode, first.st_size, first.st_mtime_ns) != (
        second.st_mode,
        second.st_size,
        second.st_mtime_ns,
    )


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)  # a build may have made it read-only
    shutil.rmtree(path)


def _size(directory: Path, leave_out: Collection[str]) -> tuple[int, int]:
    if not directory.is_dir():
        raise ConfigurationError(f"`directory` is {str(directory)!r}, which is not a directory")
    n_files = n_bytes = 0
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in leave_out]
        for name in files:
            with contextlib.suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
        n_files += len(files)
        if n_files > _MOST_FILES or n_bytes > _MOST_BYTES:
            raise ConfigurationError(
                f"`directory` is {str(directory)!r}, which has more than {_MOST_FILES} files or "
                f"{_MOST_BYTES >> 30} GiB: too much to copy for each build. Give the directory with the "
                "sources alone, or build in place, with one worker"
            )
    return n_files, n_bytes


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[bool]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _end(base: Path, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # not a forked copy of it
        with contextlib.suppress(OSError):
            _remove(base)
        os.close(descriptor)


def _sweep() -> None:
    """Remove what a process left behind that was killed."""
    for base in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if base.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(base / "owner.lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(base)
            finally:
                os.close(descriptor)
