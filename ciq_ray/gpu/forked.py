"""The child's side of `ciq_ray.gpu.child`: let go of what is the owner's, then answer requests.

Frames are four bytes of length and a pickle. The child sends ``(READY, 0, None)`` or ``(FAILED, 0, text)``
once, then for each ``(number, request)`` either ``(OK, number, answer)`` or ``(FAILED, number, text)``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import resource
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from ciq_ray.gpu.orphans import die_with_parent
from ciq_ray.worker.child import Channel, describe_failure, flush

__all__ = ["FAILED", "OK", "READY", "run_child"]

READY: Final = "ready"
OK: Final = "ok"
FAILED: Final = "failed"


def run_child(
    serve: Callable[[], Callable[[Any], Any]], connection: int, output: int, parent: int, mark: str
) -> NoReturn:
    """Run in the child right after the fork; never returns, and runs nothing at exit that is the owner's.

    Args:
        serve: Called once; returns what answers requests.
        connection: Socket to the owner.
        output: Where standard output and error go.
        parent: Process id of the owner.
        mark: Name of the environment variable that marks it and programs started by it.
    """
    code = 1
    try:
        die_with_parent(parent)
        os.setsid()
        _default_signals()
        _own_streams(output)
        _let_go({connection})
        os.environ[mark] = "1"
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        channel = Channel(connection)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _serve(channel, serve)
        code = 0
    finally:
        os._exit(code)


def _serve(channel: Channel, serve: Callable[[], Callable[[Any], Any]]) -> None:
    try:
        answer_to = serve()
    except BaseException as error:
        channel.leave_if_copy()
        flush()
        channel.send(FAILED, 0, describe_failure(error))
        return
    channel.leave_if_copy()
    channel.send(READY, 0, None)
    while (data := channel.receive()) is not None:
        number = -1
        try:
            number, request = pickle.loads(data)
            answer = answer_to(request)
            channel.leave_if_copy()
            pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        except BaseException as error:
            channel.leave_if_copy()
            flush()
            channel.send(FAILED, number, describe_failure(error))
            continue
        flush()
        channel.send(OK, number, answer)


def _default_signals() -> None:
    """The owner's handlers undo its clocks, which is not for the child to do."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
    # all were blocked for the fork
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _own_streams(output: int) -> None:
    """No input, and output for the owner to read; what the owner had not written yet is not ours."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    faulthandler.enable(2)


def _let_go(keep: set[int]) -> None:
    """Put /dev/null in the place of the owner's files, pipes and sockets, such as the lock of the device.

    They are not closed: objects that belong to the owner still have their numbers, and would close
    whatever gets them next. Devices stay, for a driver that may have opened them.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        fd = int(name)
        if fd <= 2 or fd == null or fd in keep:
            continue
        with contextlib.suppress(OSError):
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                os.dup2(null, fd, inheritable=False)
    os.close(null)
