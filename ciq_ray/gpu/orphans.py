"""What Linux offers to lose no process: a signal at the parent's death, and orphans that come to us.

Elsewhere (macOS) nothing of this exists; the functions then do nothing, and a descendant of a child that
leaves its process group gets away.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from typing import Final

from ciq_ray._processes import stat_of
from ciq_ray.worker.guard import kill_families

__all__ = ["Orphans", "die_with_parent"]

_LINUX: Final = sys.platform == "linux"
# <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_LIMIT_S: Final = 0.3
_ROUND_S: Final = 0.005


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that forked it ends; leaves at once if it has already.

    Args:
        parent: Process id of who forked it.
    """
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Orphans:
    """While it is open, orphaned descendants of this process become its children instead of init's.

    That is a property of the whole process: what else it starts must either stay in its session or have
    been there before.
    """

    def __init__(self) -> None:
        self._before = frozenset(_children()) if _LINUX else frozenset()
        self._was = _subreaper()
        _set_subreaper(1)

    def kill(self) -> None:
        """SIGKILL the orphans that have come to us, with all that descends from them, and reap them."""
        if not _LINUX:
            return
        deadline = time.monotonic() + _LIMIT_S
        while orphans := self._orphans():
            kill_families(orphans, [])
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() >= deadline:  # one that does not die, which `kill_families` has waited for
                return
            time.sleep(_ROUND_S)

    def close(self) -> None:
        """Orphans go where they went before."""
        _set_subreaper(self._was)

    def _orphans(self) -> list[int]:
        ours = os.getsid(0)
        found = []
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                if pid not in self._before and os.getsid(pid) != ours:
                    found.append(pid)
        return found


def _subreaper() -> int:
    if not _LINUX:
        return 0
    value = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return value.value


def _set_subreaper(value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0)


def _children() -> list[int]:
    """Direct children of this process, dead ones that are not reaped included."""
    ours = os.getpid()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (found := stat_of(pid)) is not None and found.parent == ours]
