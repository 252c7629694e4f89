"""One worker process: its start, its connection, its log, its end."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from ciq_ray.errors import WorkerError
from ciq_ray.worker.child import HEADER, encode
from ciq_ray.worker.guard import ask_to_end, boot_arguments, kill_families

__all__ = ["HAS_PIDFD", "KEPT", "WorkerProcess", "ending", "kill"]

HAS_PIDFD: Final = hasattr(os, "pidfd_open")
"""Whether the end of a process can be waited for like data on a socket."""

_SEND_LIMIT_S = 30.0
_MAX_ANSWER = 1 << 26
"""Bytes; a compiled kernel with all that its compiler wrote stays far below, any text far above."""
_CHUNK = 1 << 16
_LOG_LIMIT = 8 << 20
_TAIL = 2048
KEPT: Final = 1 << 15
"""Bytes of output of which `last_lines` are taken."""
_MODULES: Final = re.compile(r"^(?:Extension modules: )?[\w.]+(?:, [\w.]+)+ \(total: \d+\)$", re.MULTILINE)

# a process id is ours to signal until the process is reaped: the two must not overlap
_reaping = threading.Lock()


class WorkerProcess:
    """A fresh interpreter that runs `ciq_ray.worker.child`, in a session of its own.

    Args:
        name: For people.
        log: File its standard output and error are appended to.
        setup_fd: File with the pickled `ciq_ray.worker.child.Setup`.
        mark: ``(name, value)`` of the environment variable that marks it and its descendants.

    Attributes:
        ready: Whether it has loaded the objective.
        leaving: Whether it is expected to end by itself.
        gone: Whether it has been reaped.

    Raises:
        WorkerError: It cannot be started.
    """

    def __init__(self, name: str, log: Path, setup_fd: int, mark: tuple[str, str]) -> None:
        self.name = name
        self.mark = "=".join(mark)
        self.ready = False
        self.leaving = False
        self.gone = False
        self._log = log
        self._data = bytearray()
        ours, theirs = socket.socketpair()
        try:
            fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                flags = ["-O"] * sys.flags.optimize + [f"-W{option}" for option in sys.warnoptions]
                boot = boot_arguments("ciq_ray.worker.child", str(theirs.fileno()), str(setup_fd))
                self._popen = subprocess.Popen(
                    [sys.executable, *flags, *boot],
                    stdin=subprocess.DEVNULL,
                    stdout=fd,
                    stderr=fd,
                    pass_fds=(theirs.fileno(), setup_fd),
                    env={**os.environ, mark[0]: mark[1]},
                    start_new_session=True,
                )
            finally:
                os.close(fd)
        except OSError as error:
            ours.close()
            raise WorkerError(f"cannot start a worker process: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self.socket = ours
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid) if HAS_PIDFD else None

    def send(
        self,
        task_id: str,
        config: bytes,
        compile_timeout: float | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Send a task to a process that waits for one.

        Args:
            task_id: What its answer will carry.
            config: The pickled configuration.
            compile_timeout: See `Task`.
            context: See `Task`.

        Raises:
            OSError: The process is gone, or does not read.
        """
        message = (task_id, config, compile_timeout, dict(context) if context else None)
        data = memoryview(encode(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)))
        deadline = time.monotonic() + _SEND_LIMIT_S
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                poller = select.poll()
                poller.register(self.socket, select.POLLOUT)
                if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError("the process does not read") from None

    def receive(self, *, to_the_end: bool = False) -> tuple[list[tuple[Any, ...]], bool]:
        """What has arrived, without waiting.

        Args:
            to_the_end: Read until there is nothing more, not just one chunk.

        Returns:
            The messages, and whether the connection is at its end or unusable.
        """
        closed = False
        while not closed:
            try:
                part = self.socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                part = b""
            self._data += part
            closed = not part
            if len(part) < _CHUNK and not to_the_end:
                break
        messages: list[tuple[Any, ...]] = []
        while len(self._data) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._data)[0]
            if end > _MAX_ANSWER:
                return messages, True  # the objective wrote to the connection
            if len(self._data) < end:
                break
            try:
                message = pickle.loads(bytes(self._data[HEADER.size : end]))
            except Exception:
                return messages, True
            messages.append(message)
            del self._data[:end]
        return messages, closed

    def terminate(self) -> None:
        """SIGTERM to its process group; one that is to leave by itself is not asked politely."""
        with _reaping, contextlib.suppress(ProcessLookupError, PermissionError):
            if not self.gone:
                os.killpg(self.pid, signal.SIGKILL if self.leaving else signal.SIGTERM)

    def has_ended(self) -> bool:
        """Whether it is dead, reaped or not."""
        with _reaping:
            return self.gone or self._waited(os.WNOHANG)

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, `seconds` at most; whether it came."""
        deadline = time.monotonic() + seconds
        while not self.has_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def reap(self) -> str:
        """Wait for the end of a process that is dead or has been killed, and free what belongs to it.

        Returns:
            How it ended, in words.
        """
        self._waited(0)
        with _reaping:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            code = self._popen.wait()
            self.gone = True
        self.socket.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
        return ending(code)

    def _waited(self, flags: int) -> bool:
        """Whether it has ended; it is left to be reaped, so that its number stays taken."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            if not flags:
                self._popen.wait()
            return self._popen.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flags) is not None
        except ChildProcessError:  # where SIGCHLD is ignored, the system reaps by itself
            return True

    def log_size(self) -> int:
        """Size of its log in bytes."""
        try:
            return os.stat(self._log).st_size
        except OSError:
            return 0

    def trim_log(self) -> int:
        """Empty the log if it has grown large; the size that it has then."""
        size = self.log_size()
        if size > _LOG_LIMIT:
            with contextlib.suppress(OSError):
                os.truncate(self._log, 0)
                return 0
        return size

    def log_tail(self, start: int = 0) -> str:
        """The last lines of what was written to the log from the offset `start` on."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                first = max(start if start <= size else 0, size - KEPT)
                file.seek(first)
                data = file.read(KEPT)
        except OSError:
            return ""
        return last_lines(data)


def last_lines(data: bytes) -> str:
    """The end of what a process has written, for a message.

    After the traceback of a segmentation fault comes a line with the names of all extension modules, which
    would take its place: it is left out.

    Args:
        data: What was written last; `KEPT` bytes are enough.
    """
    return _MODULES.sub("", data.decode("utf-8", "replace")).strip()[-_TAIL:].lstrip()


def kill(processes: Collection[WorkerProcess], grace_s: float = 0.0) -> None:
    """SIGKILL processes with all that descends from them. Those that are gone already are left alone.

    Args:
        processes: Which.
        grace_s: Seconds that they have to end by themselves first, after a SIGTERM; 0: none.
    """
    with _reaping:
        there = [process for process in processes if not process.gone]
        if there:
            ask_to_end([process.pid for process in there], grace_s)
            kill_families([process.pid for process in there], [process.mark for process in there])


def ending(code: int) -> str:
    """How a process ended, in words.

    Args:
        code: Its exit code, negative for a signal.
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"was killed by signal {-code}"
    words = signal.strsignal(-code)
    hint = "; the system may be out of memory" if -code == signal.SIGKILL else ""
    return f"was killed by {name} ({words}){hint}"
