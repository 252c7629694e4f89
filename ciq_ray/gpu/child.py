"""A process that can be killed at any moment, forked from one that has imported all it needs.

Only the death of the process that has a CUDA context frees a device that hangs or whose context is lost,
and importing torch takes seconds. So the owner of a device imports, never touches CUDA, and forks a child
that does. When the child has to die, the next one is there after the milliseconds that a fork takes.

What a kernel can do wrong stays with the child: it leads a session of its own, is killed by the system when
the owner dies (``PR_SET_PDEATHSIG``), can neither fill a disk nor block by writing, and takes all its
descendants with it. Those that left its session come to the owner, which makes itself the reaper of orphans
(``PR_SET_CHILD_SUBREAPER``) while it has a child.

Forking copies the calling thread only. The owner should have no other, and the libraries it imports should
start none: set ``OMP_NUM_THREADS=1`` and ``OPENBLAS_NUM_THREADS=1`` before the import. The signal at the
owner's death is tied to the *thread* that forked, so that one has to live as long as the owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import pickle
import secrets
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ciq_ray.errors import WorkerError
from ciq_ray.gpu.child_log import PIPE_BYTES, ChildLog
from ciq_ray.gpu.forked import FAILED, READY, run_child
from ciq_ray.gpu.orphans import Orphans
from ciq_ray.worker.child import HEADER, encode
from ciq_ray.worker.guard import kill_families, mark_name
from ciq_ray.worker.process import ending

__all__ = ["ChildDied", "ChildFailed", "ChildTimeout", "ForkedChild"]

_CHUNK: Final = 1 << 18
_MAX_ANSWER: Final = 64 << 20
_SLICE_S: Final = 0.05
_CLOSED_S: Final = 0.5
_REAP_S: Final = 10.0


class ChildTimeout(WorkerError):
    """The child took too long and was killed.

    Attributes:
        tail: The last it wrote.
    """

    def __init__(self, seconds: float, tail: str) -> None:
        super().__init__(f"took longer than {seconds:g} s")
        self.tail = tail


class ChildDied(WorkerError):
    """The child is dead.

    Attributes:
        how: In words: ``was killed by SIGSEGV (Segmentation fault)``.
        tail: The last it wrote.
    """

    def __init__(self, how: str, tail: str) -> None:
        super().__init__(f"the process {how}")
        self.how = how
        self.tail = tail


class ChildFailed(WorkerError):
    """The child raised an exception, or its answer cannot be pickled; the text says which. It lives on."""


class ForkedChild:
    """One child; a process should have one at a time.

    Args:
        serve: Called once in the child; returns what answers requests there.
        log: File its output is appended to, of 8 MiB at most and 256 KiB for each call.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Attributes:
        pid: Its process id.

    Raises:
        OSError: It cannot be forked.
    """

    def __init__(
        self, serve: Callable[[], Callable[[Any], Any]], log: Path, *, grace_s: float = 0.25
    ) -> None:
        self._grace_s = grace_s
        self._log = ChildLog(log)
        self._mark = mark_name(secrets.token_hex(8))
        self._data = bytearray()
        self._calls = 0
        self._ready = False
        self._how: str | None = None
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        with contextlib.suppress(OSError):  # more than the system allows
            fcntl.fcntl(their_output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._orphans = Orphans()
        try:
            self.pid = _fork(
                lambda parent: run_child(serve, theirs.fileno(), their_output, parent, self._mark)
            )
        except OSError:
            ours.close()
            os.close(output)
            self._orphans.close()
            raise
        finally:
            theirs.close()
            os.close(their_output)
        ours.setblocking(False)
        os.set_blocking(output, False)
        self._socket, self._output = ours, output
        self._pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return self._how is None and not self._has_ended()

    def wait(self, timeout: float) -> None:
        """Wait until it is ready to answer.

        Raises:
            ChildTimeout: It was not within `timeout` seconds; it has been killed.
            ChildDied: It died instead.
            ChildFailed: `serve` raised an exception; the child has ended.
        """
        if self._ready:
            return
        kind, _, text = self._exchange(b"", timeout, 0)
        if kind != READY:
            self.close()
            raise ChildFailed(text)
        self._ready = True

    def call(self, request: Any, timeout: float) -> Any:
        """Send a request and wait for the answer.

        Args:
            request: Anything that can be pickled.
            timeout: Seconds, those that the child needs to become ready included.

        Raises:
            ChildTimeout: There was none within `timeout` seconds; the child has been killed, with all its
                descendants.
            ChildDied: It died; none of its descendants is left.
            ChildFailed: It raised an exception.
        """
        deadline = time.monotonic() + timeout
        self.wait(timeout)
        self._calls += 1
        data = encode(pickle.dumps((self._calls, request), pickle.HIGHEST_PROTOCOL))
        kind, _, answer = self._exchange(data, deadline - time.monotonic(), self._calls, limit=timeout)
        if kind == FAILED:
            raise ChildFailed(answer)
        return answer

    def close(self, dying_s: float = _REAP_S) -> None:
        """End it: it leaves by itself if it waits for a request, else it is killed. More calls do nothing.

        Args:
            dying_s: Seconds to wait for its death. A driver may keep a process from dying as long as a
                kernel of it runs.
        """
        if self._how is not None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._linger(self._grace_s)
        self._bury(dying_s)

    # --- talking ---

    def _exchange(
        self, data: bytes, timeout: float, number: int, *, limit: float | None = None
    ) -> tuple[str, int, Any]:
        """Send a frame and wait for the one that answers it, taking in what the child writes meanwhile."""
        if self._how is not None:
            raise ChildDied(self._how, self._log.tail)
        self._log.begin()
        deadline = time.monotonic() + timeout
        unsent = memoryview(data)
        while True:
            ready = self._poll(deadline - time.monotonic(), sending=bool(unsent))
            # an answer that came before the end counts, so the connection is read first
            closed = False
            if self._socket.fileno() in ready:
                closed = not self._receive()
                message = self._message()
                if message is not None:
                    return self._checked(message, number)
            if self._has_ended():
                if not closed and self._receive_all() and (message := self._message()) is not None:
                    return self._checked(message, number)
                raise ChildDied(self._bury(), self._log.tail)
            if closed or len(self._data) > _MAX_ANSWER:
                raise self._misbehaved()
            if unsent:
                with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    unsent = unsent[self._socket.send(unsent) :]
            if time.monotonic() >= deadline:
                self._kill()
                self._bury()
                raise ChildTimeout(timeout if limit is None else limit, self._log.tail)

    def _poll(self, seconds: float, *, sending: bool = False) -> set[int]:
        """Wait for something to happen; what the child has written is taken in. Descriptors to be read."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | (select.POLLOUT if sending else 0))
        poller.register(self._output, select.POLLIN)
        if self._pidfd is not None:
            poller.register(self._pidfd, select.POLLIN)
        else:
            seconds = min(seconds, _SLICE_S)
        found = poller.poll(max(0.0, seconds) * 1000)
        if any(fd == self._output for fd, _ in found) and not self._log.take(self._output):
            # whoever closed it says no more; the process itself may go on
            time.sleep(min(_SLICE_S, max(0.0, seconds)))
        return {fd for fd, event in found if event & ~select.POLLOUT}

    def _receive(self) -> bool:
        """Take in what has arrived; ``False`` at the end of the connection."""
        try:
            part = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._data += part
        return bool(part)

    def _receive_all(self) -> bool:
        size = -1
        while size < len(self._data) <= _MAX_ANSWER:
            size = len(self._data)
            self._receive()
        return size > 0

    def _message(self) -> Any:
        """The first whole frame, if it has come, else ``None``."""
        if len(self._data) < HEADER.size:
            return None
        end = HEADER.size + HEADER.unpack_from(self._data)[0]
        if end > _MAX_ANSWER:
            return ()
        if len(self._data) < end:
            return None
        frame = bytes(self._data[HEADER.size : end])
        del self._data[:end]
        try:
            return pickle.loads(frame)
        except Exception as error:
            return FAILED, self._calls, f"its answer cannot be read: {type(error).__name__}: {error}"

    def _checked(self, message: Any, number: int) -> tuple[str, int, Any]:
        if not (isinstance(message, tuple) and len(message) == 3 and message[1] == number):
            raise self._misbehaved()
        return message

    def _misbehaved(self) -> ChildDied:
        self._linger(_CLOSED_S)
        if not self._has_ended():
            self._kill()
            self._how = "lost its connection (the kernel closed it or wrote to it) and was killed"
        return ChildDied(self._bury(), self._log.tail)

    # --- its end ---

    def _has_ended(self) -> bool:
        """Whether it is dead; it is left to be reaped, so that its number stays taken."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True

    def _linger(self, seconds: float) -> None:
        """Wait for its end; what it writes is taken in."""
        deadline = time.monotonic() + seconds
        while not self._has_ended() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.002))
            self._log.take(self._output)

    def _kill(self) -> None:
        """SIGTERM to its group, then SIGKILL to all its descendants."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGTERM)
        self._linger(self._grace_s)

    def _bury(self, dying_s: float = _REAP_S) -> str:
        """Kill what is left, reap it and free what belongs to it; how it ended, in words."""
        kill_families([self.pid], [f"{self._mark}="])
        self._linger(dying_s)
        code = self._reap()
        self._orphans.kill()
        self._orphans.close()
        self._log.take(self._output)
        self._socket.close()
        for fd in (self._output, self._pidfd):
            if fd is not None:
                os.close(fd)
        if self._how is None:
            self._how = "does not end, not even by SIGKILL" if code is None else ending(code)
        return self._how

    def _reap(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` if it cannot be had."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status) if pid else None


def _fork(run: Callable[[int], Any]) -> int:
    """Fork; `run` gets our process id in the child and does not return there."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    parent = os.getpid()
    gc.freeze()  # a collection in the child would copy the pages of all that is alive here
    # no signal may reach the child before it has dropped our handlers
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            # from Python 3.12 on where there are other threads; see the module's docstring
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            run(parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        gc.unfreeze()
    return pid
