"""Locks among the processes of a host, and who holds them.

A lock is the kernel's (``flock``) and is gone with the processes that hold it, however they end. A process
that is forked holds it too, so that a card counts as in use until the last one that times on it is gone.

There are two for each card, named after its UUID: whoever times holds ``UUID.timing``, whoever sets clocks
holds ``UUID.clocks``. They are apart so that a script may set the clocks around searches that time.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import shlex
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ciq_ray import settings
from ciq_ray._processes import stat_of
from ciq_ray.errors import ConfigurationError

__all__ = ["HostLock", "Owner", "boot_id", "release_command", "state_folder"]

_SHARED: Final = Path("/var/lock/ciq-ray-gpu")
"""Where all users of a host find each other's ledgers and locks, if they can write to it."""
_POLL_S: Final = 0.02
_FEWEST_TRIES: Final = 3
"""Whoever asks for a lock's holder takes it for an instant, which must not look like a holder."""


def state_folder(*, create: bool = True) -> Path:
    """Where ledgers and locks are.

    ``CIQ_GPU_STATE_DIR``, else ``/var/lock/ciq-ray-gpu``, which all users of the host share, else, where
    that cannot be written to, ``gpu`` in the cache folder, which only this user's processes share.

    Args:
        create: Whether to make it if it is not there.

    Raises:
        ConfigurationError: It cannot be made.
    """
    folder = settings.gpu_state_dir()
    if folder is None:
        if _usable(_SHARED, create=create):
            return _SHARED
        folder = settings.cache_dir() / "gpu"
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{folder}: {error.strerror}; set CIQ_GPU_STATE_DIR to a folder that can be written to"
            ) from error
    return folder


def _usable(folder: Path, *, create: bool) -> bool:
    if create:
        with contextlib.suppress(OSError):
            folder.mkdir()
            folder.chmod(0o1777)  # as /tmp: everybody may make files, nobody removes another's
    try:
        found = folder.lstat()
    except OSError:
        return False
    # a folder that somebody else prepared must not let that one replace our files
    trusted = found.st_uid in (0, os.geteuid()) or bool(found.st_mode & stat.S_ISVTX)
    return stat.S_ISDIR(found.st_mode) and trusted and os.access(folder, os.W_OK | os.X_OK)


def release_command() -> str:
    """What to type to undo as root what this user cannot; root has neither our ``PATH`` nor our folder."""
    folder = state_folder(create=False)
    place = [] if folder == _SHARED else ["env", f"CIQ_GPU_STATE_DIR={folder}"]
    return shlex.join(["sudo", *place, sys.executable, "-m", "ciq_ray", "gpu", "release"])


def boot_id() -> str:
    """What is another after each start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; ``None`` if it lives no more."""
    found = stat_of(pid)
    return found.started if found is not None and found.alive else None


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so that it cannot be taken for a later one with the same number.

    Attributes:
        pid: Its number.
        started: When it began, in clock ticks since the machine did.
        boot: `boot_id` of that time.
        user: Whose it is.
        since: Since when it holds what it holds, as Unix time.
        command: How it was started, shortened.
    """

    pid: int
    started: int
    boot: str
    user: str
    since: float
    command: str

    @classmethod
    def this(cls) -> Owner:
        """This process, from now on."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a number without a name, in a container
            user = str(os.getuid())
        command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])
        return cls(os.getpid(), _started(os.getpid()) or 0, boot_id(), user, time.time(), command[:120])

    @classmethod
    def from_dict(cls, data: Any) -> Owner:
        """The inverse of `to_dict`.

        Raises:
            ValueError: `data` is not what this class writes.
        """
        number, text = (int,), (str,)
        kinds: dict[str, tuple[type, ...]] = {
            "pid": number,
            "started": number,
            "boot": text,
            "user": text,
            "since": (int, float),
            "command": text,
        }
        if not isinstance(data, dict) or set(data) != set(kinds):
            raise ValueError("not a record of a process")
        for name, kind in kinds.items():
            if not isinstance(data[name], kind) or isinstance(data[name], bool):
                raise ValueError(f"`{name}` is {data[name]!r}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.boot == boot_id() and _started(self.pid) == self.started

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} of {self.user} since {since} ({self.command})"


class HostLock:
    """One of a card's locks.

    Args:
        uuid: The card's.
        kind: ``timing`` or ``clocks``.
    """

    def __init__(self, uuid: str, kind: str) -> None:
        self._uuid = uuid
        self._kind = kind
        self._file = -1

    def acquire(self, wait_s: float | None) -> None:
        """Take it, and write down who did.

        Args:
            wait_s: How long to wait for another process; 0 for not at all, ``None`` for ever.

        Raises:
            ConfigurationError: Another process, or this one, holds it and went on holding it.
        """
        deadline = None if wait_s is None else time.monotonic() + wait_s
        file = self._open()
        tries = 0
        try:
            while not _try(file, fcntl.LOCK_EX):
                tries += 1
                late = deadline is not None and time.monotonic() >= deadline
                if late and tries >= _FEWEST_TRIES:
                    raise ConfigurationError(self._taken(file, wait_s or 0.0))
                time.sleep(_POLL_S)
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(Owner.this().to_dict()).encode(), 0)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def release(self) -> None:
        """Let go, also for processes that were forked meanwhile."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.ftruncate(file, 0)
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def holder(self) -> Owner | None:
        """Who holds it now, ``None`` for nobody, or for somebody who has not yet written it down."""
        return self._look()[1]

    @property
    def taken(self) -> bool:
        """Whether anybody holds it, be it in a container whose processes are not seen from here."""
        return self._look()[0]

    def _look(self) -> tuple[bool, Owner | None]:
        try:
            file = os.open(self._path(create=False), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False, None
        try:
            return (False, None) if _try(file, fcntl.LOCK_SH) else (True, _read(file))
        finally:
            os.close(file)

    def _path(self, *, create: bool = True) -> Path:
        return state_folder(create=create) / f"{self._uuid}.{self._kind}"

    def _open(self) -> int:
        path, flags = self._path(), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            try:
                # with O_CREAT Linux refuses files of others in a folder such as /tmp (fs.protected_regular)
                return os.open(path, flags)
            except FileNotFoundError:
                pass
            try:
                file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return os.open(path, flags)
            os.fchmod(file, 0o666)  # for other users, whatever the umask
            return file
        except OSError as error:
            raise ConfigurationError(
                f"{path}: {error.strerror}; set CIQ_GPU_STATE_DIR to a folder that can be written to"
            ) from error

    def _taken(self, file: int, waited_s: float) -> str:
        doing = "timing on it" if self._kind == "timing" else "holding its clocks"
        owner = _read(file)
        who = "another process" if owner is None else str(owner)
        if owner is not None and owner.pid == os.getpid():
            who = "this very process"
        elif owner is not None and not owner.alive:
            who = f"a process that was started by {owner}, which has ended,"
        waited = f" after waiting {waited_s:g} s" if waited_s else ""
        return f"GPU {self._uuid} is in use{waited}: {who} is {doing}; wait for it, or choose another GPU"


def _try(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> Owner | None:
    try:
        return Owner.from_dict(json.loads(os.pread(file, 4096, 0)))
    except ValueError:
        return None
