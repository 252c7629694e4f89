"""What was set on a card and what was there before, in a file that is written before anything is set.

It is how the next start finds out what a process that was killed has left behind: clocks stay locked when
the process that locked them dies, until the machine or the driver is started again.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from ciq_ray._files import write_atomic
from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.locks import HostLock, Owner, boot_id, release_command, state_folder

__all__ = ["Fallback", "Ledger", "Setting", "ledgers", "read_ledger"]

Setting = Literal["core", "memory", "power"]
"""What can be set: core clock, memory clock, power limit."""
Fallback = Literal["none", "plain", "sudo"]
"""What follows where NVML lacks the permission: nothing, ``nvidia-smi``, or that with ``sudo -n``."""

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Ledger:
    """One card's.

    Attributes:
        uuid: The card's.
        owner: Who set it.
        changes: What is set, or about to be.
        power_mw: The power limit before, in milliwatts; ``None`` if it was not to be changed. Locked
            clocks have no entry: NVML does not tell what was locked before, so that they are reset.
        state: The clocks for people, such as ``locked 1410 MHz``.
        fallback: What it takes to undo it.
        left: Whether the owner has tried to undo it, in vain.
        trusted: Whether its file is this user's or root's. What another user wrote says that something was
            set, but not to what it is put back: that may take root's rights.
    """

    uuid: str
    owner: Owner
    changes: tuple[Setting, ...]
    power_mw: int | None = None
    state: str = ""
    fallback: Fallback = "none"
    left: bool = False
    trusted: bool = True

    @property
    def stale(self) -> bool:
        """Whether nobody will undo it: its process is gone, or could not. For who has the clocks' lock."""
        return self.left or not self.owner.alive

    @property
    def left_behind(self) -> bool:
        """The same, for who has not: a process that is not seen from here may hold the lock."""
        return self.stale and not HostLock(self.uuid, "clocks").taken

    @property
    def rebooted(self) -> bool:
        """Whether the machine was started since, which has undone it."""
        return self.owner.boot != boot_id()

    def write(self) -> None:
        """Put it on the disk; on return it is there even if the power fails. For who has the clocks' lock."""
        data = {
            "version": _VERSION,
            "uuid": self.uuid,
            "owner": self.owner.to_dict(),
            "changes": list(self.changes),
            "power_mw": self.power_mw,
            "state": self.state,
            "fallback": self.fallback,
            "left": self.left,
        }
        path = _path(self.uuid)
        for torn in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):
                torn.unlink()
        write_atomic(path, [json.dumps(data, indent=1).encode() + b"\n"])
        path.chmod(0o644)  # for other users to see, whatever the umask

    def without(self, setting: Setting) -> Ledger:
        """The same, less what was refused."""
        return replace(self, changes=tuple(name for name in self.changes if name != setting))

    def remove(self) -> None:
        """All is undone.

        Raises:
            ConfigurationError: The file is another user's, who alone, besides root, can remove it.
        """
        path = _path(self.uuid)
        try:
            path.unlink(missing_ok=True)
        except PermissionError as error:
            raise ConfigurationError(
                f"{path}, of what {self.owner} set on GPU {self.uuid}, cannot be removed ({error.strerror}); "
                f"do it with: {release_command()}"
            ) from error


def _path(uuid: str, *, create: bool = True) -> Path:
    return state_folder(create=create) / f"{uuid}.ledger.json"


def read_ledger(uuid: str) -> Ledger | None:
    """The ledger of a card, ``None`` if there is none; a file that is not a ledger counts for nothing."""
    return _load(_path(uuid, create=False))


def ledgers() -> list[Ledger]:
    """Those of all cards, also of cards that are not there any more."""
    found = [_load(path) for path in sorted(state_folder(create=False).glob("*.ledger.json"))]
    return [ledger for ledger in found if ledger is not None]


def _load(path: Path) -> Ledger | None:
    with contextlib.suppress(OSError, ValueError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            trusted = os.fstat(file).st_uid in (0, os.geteuid())
            return replace(_parsed(json.loads(stream.read(1 << 16)), path), trusted=trusted)
    return None


def _parsed(data: Any, path: Path) -> Ledger:
    try:
        power, changes, fallback = data["power_mw"], data["changes"], data["fallback"]
        if data["version"] != _VERSION or path.name != f"{data['uuid']}.ledger.json":
            raise ValueError("another version, or another card")
        if fallback not in get_args(Fallback) or not set(changes) <= set(get_args(Setting)):
            raise ValueError("unknown words")
        if power is not None and (not isinstance(power, int) or isinstance(power, bool)):
            raise ValueError("`power_mw` is no number")
        return Ledger(
            uuid=data["uuid"],
            owner=Owner.from_dict(data["owner"]),
            changes=tuple(cast(Setting, name) for name in changes),
            power_mw=power,
            state=str(data["state"]),
            fallback=fallback,
            left=data["left"] is True,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a ledger: {error}") from error
