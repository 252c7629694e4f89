"""Runs whose process was killed: whose they are, and whether it is really gone."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Final

__all__ = ["HOST", "PROCESS", "is_gone", "process_tags"]

HOST: Final = "ciq.host"
PROCESS: Final = "ciq.process"


def process_tags() -> dict[str, str]:
    """Tags that say which process writes a run, for whoever looks for runs without one."""
    return {HOST: platform.node(), PROCESS: f"{os.getpid()} {_started(os.getpid())} {_world()}"}


def is_gone(tags: dict[str, str]) -> bool:
    """Whether the process that wrote a run with these tags has ended; false if that cannot be known here."""
    words = tags.get(PROCESS, "").split()
    if tags.get(HOST) != platform.node() or len(words) != 3 or words[2] != _world():
        return False
    pid, started, _ = words
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return _started(int(pid)) != started  # another process has its number


def _started(pid: int) -> str:
    """When a process began, in ticks since the system did; ``-`` where that is not to be had."""
    with contextlib.suppress(OSError, IndexError):
        # the name of the program, in brackets, may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return "-"


def _world() -> str:
    """The boot and the container in which process numbers mean what they do here."""
    boot = space = "-"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"{boot}:{space}"
