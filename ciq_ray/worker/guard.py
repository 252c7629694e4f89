"""Finding and killing whole families of processes, also after their parent is gone.

A worker's descendants may leave its process group and its session, and when a parent dies its
children belong to nobody. So each worker process carries a mark, a variable in its environment,
which all its descendants inherit. `kill_families` finds them by group, session, ancestry and mark.
Without ``/proc`` (not on Linux) only process groups are known, and a descendant that made its own
group gets away.

`Guard` starts a small process that does the same when the driver dies without a chance to clean up.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable

from ciq_ray._processes import stat_of

__all__ = ["Guard", "ask_to_end", "boot_arguments", "kill_families", "mark_name"]

_KILL_ROUNDS = 40
_ROUND_S = 0.005
_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from {module} import main; main(*sys.argv[1:3])"


def mark_name(token: str) -> str:
    """The environment variable that marks the processes of one worker."""
    return f"CIQ_WORKER_{token}"


def boot_arguments(module: str, first: str, second: str) -> list[str]:
    """Interpreter arguments that run ``main(first, second)`` of a module, found where it is here."""
    # a driver may run in a folder other than the one its relative entries were meant for
    paths = [os.path.abspath(path) for path in sys.path if isinstance(path, str)]
    return ["-c", _BOOT.format(module=module), first, second, *paths]


def kill_families(leaders: Collection[int], marks: Collection[str]) -> None:
    """SIGKILL processes and all that descends from them; returns once they are dead or dying.

    Args:
        leaders: Process ids, each the leader of its group and session; not reaped yet, so that the
            numbers still belong to them.
        marks: ``NAME=`` or ``NAME=value`` of marks in the environment.
    """
    for leader in leaders:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    # a family that is forking while it is killed needs more than one look
    for _ in range(_KILL_ROUNDS):
        members = _members(frozenset(leaders), [_encoded(mark) for mark in marks])
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_ROUND_S)


def ask_to_end(leaders: Collection[int], grace_s: float) -> None:
    """SIGTERM to these processes themselves, and not to what they have started.

    Args:
        leaders: Process ids, not reaped yet.
        grace_s: Seconds that they have; 0: they are not asked.
    """
    if grace_s <= 0:
        return
    for leader in leaders:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(leader, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(_lives(leader) for leader in leaders):
        time.sleep(_ROUND_S)


def _lives(pid: int) -> bool:
    found = stat_of(pid)
    return found is not None and found.alive


def _encoded(mark: str) -> bytes:
    return mark.encode() if mark.endswith("=") else mark.encode() + b"\0"


def _members(leaders: frozenset[int], marks: list[bytes]) -> list[int]:
    """Live processes of these families."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    parents: dict[int, int] = {}
    family: set[int] = set()
    for pid in pids:
        try:
            # the name of the program, in parentheses, may hold anything, spaces and parentheses included
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            state, parent, group, session = fields[0], *map(int, fields[1:4])
        except (OSError, ValueError, IndexError):
            continue
        if state in (b"Z", b"X"):
            continue
        parents[pid] = parent
        if pid in leaders or group in leaders or session in leaders:
            family.add(pid)
    family |= {pid for pid in parents if pid not in family and _marked(pid, marks)}
    grew = True
    while grew:
        children = {pid for pid, parent in parents.items() if parent in family or parent in leaders} - family
        family |= children
        grew = bool(children)
    family.discard(os.getpid())
    return sorted(family)


def _marked(pid: int, marks: Iterable[bytes]) -> bool:
    try:
        environment = b"\0" + _read(f"/proc/{pid}/environ")
    except OSError:  # another user's, or gone
        return False
    return any(b"\0" + mark in environment for mark in marks)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


class Guard:
    """The driver's side of the guard process.

    Args:
        mark: ``NAME=``, the mark all processes to be guarded carry.
        grace_s: Seconds that the processes have to put things back before they are killed.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, mark: str, grace_s: float = 0.0) -> None:
        arguments = boot_arguments(__name__, str(os.getpid()), f"{grace_s:g}:{mark}")
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)  # a search never waits for its guard

    def add(self, pid: int) -> None:
        """Guard a process, the leader of its group."""
        self._tell(b"+%d\n" % pid)

    def remove(self, pid: int) -> None:
        """Forget a process; to be called before it is reaped."""
        self._tell(b"-%d\n" % pid)

    def close(self) -> None:
        """End the guard process; it kills nothing."""
        stream, self._process.stdin = self._process.stdin, None
        if stream is None:
            return
        with contextlib.suppress(OSError):
            os.write(stream.fileno(), b"q\n")
        with contextlib.suppress(OSError):
            stream.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: bytes) -> None:
        if self._process.stdin is not None:
            # without its guard a search still works; only a killed driver would leave processes
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), line)


def main(driver: str, mark: str) -> None:
    """What the guard process runs: wait for the driver's end, then kill all it has left.

    Args:
        driver: The driver's process id.
        mark: Seconds of grace, a colon, and ``NAME=`` of the mark.
    """
    grace_s, _, mark = mark.partition(":")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    leaders: set[int] = set()
    poller = select.poll()
    poller.register(0, select.POLLIN)
    # a forked copy of the driver may hold the pipe open, so its end is watched as well
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):
            poller.register(os.pidfd_open(int(driver)), select.POLLIN)
    text = b""
    while os.getppid() == int(driver):
        ready = {fd for fd, _ in poller.poll()}
        if 0 in ready:
            data = os.read(0, 65536)
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                if line == b"q":
                    return
                (leaders.add if line[:1] == b"+" else leaders.discard)(int(line[1:]))
            if data:
                continue
        break
    ask_to_end(leaders, float(grace_s))
    kill_families(leaders, [mark])
