"""What Linux says of a process."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ProcessStat", "stat_of"]


class ProcessStat(NamedTuple):
    """Parts of ``/proc/PID/stat``, see proc(5).

    Attributes:
        state: ``Z`` and ``X`` for one that is dead.
        parent: Process id of its parent.
        started: When it began, in clock ticks since the machine did.
    """

    state: str
    parent: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it is more than a number that its parent has yet to take note of."""
        return self.state not in "ZX"


def stat_of(pid: int) -> ProcessStat | None:
    """What there is to know of a process; ``None`` if it is gone, or on a system without ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the program's name, in parentheses, may hold anything
            fields = file.read().rpartition(b")")[2].split()
        return ProcessStat(fields[0].decode(), int(fields[1]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None
