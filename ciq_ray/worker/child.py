"""What runs in a worker process: read a task, call the objective, write what came of it.

Imports as little as it can, so that a fresh process is there in tens of milliseconds. A frame is
four bytes of length and a pickle of a tuple. The driver sends ``(task_id, pickled_config,
compile_timeout, context)``, the process sends

* ``("ready",)`` once it has the function, or ``("broken", text)`` if it cannot load it;
* ``("started", task_id, monotonic_s)``, event loops only;
* ``("done", task_id, status, values, message, explained, details, run_s, context)``, where `explained`
  says that the message is the objective's own and needs no output added to it, `details` holds further
  fields of an `Outcome` that the objective returned and the ``attached`` bytes of a `Report`, whose
  `context` comes last.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import sys
import time

from ciq_ray.worker.limits import set_compile_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypedDict

    from ciq_ray._mlflow.objective import Evaluation

    Result: TypeAlias = tuple[str, tuple[float, ...], str, bool, dict[str, Any]]

    class Setup(TypedDict):
        """What a process needs to know, the same for all processes of a worker."""

        function: bytes
        num_objectives: int
        failures: tuple[str, ...]
        argv: list[str]
        mode: str
        timeout: float | None


__all__ = ["HEADER", "MAX_FRAME", "Channel", "describe_failure", "encode", "judge", "main", "shortened"]

HEADER = struct.Struct("!I")
MAX_FRAME = (1 << 32) - 1
_LINES = 20
_TEXT = 8192


def encode(message: bytes) -> bytes:
    """A pickled message as a frame."""
    return HEADER.pack(len(message)) + message


class Channel:
    """The process's end of its connection to the driver."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.owner = os.getpid()
        # not for programs the objective starts, nor for copies it forks: the driver waits for its end
        os.set_inheritable(fd, False)
        os.register_at_fork(after_in_child=self._drop)

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)
        self.fd = -1

    def send(self, *message: Any) -> None:
        """Write one message.

        Raises:
            OSError: The driver is gone.
        """
        data = memoryview(encode(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)))
        while data:
            data = data[os.write(self.fd, data) :]

    def receive(self) -> bytes | None:
        """Wait for a message, still pickled; ``None`` when the driver has closed the connection."""
        header = self._read(HEADER.size)
        return None if header is None else self._read(HEADER.unpack(header)[0])

    def _read(self, size: int) -> bytes | None:
        parts = []
        while size:
            part = os.read(self.fd, min(size, 1 << 20))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def leave_if_copy(self) -> None:
        """End a forked copy of this process that came back from the objective; it is no worker."""
        if os.getpid() != self.owner:
            os._exit(0)


def main(channel_fd: str, setup_fd: str) -> None:
    """Serve the driver until it closes the connection.

    Args:
        channel_fd: The connected socket.
        setup_fd: A file with the pickled `Setup`, shared with other processes.
    """
    channel = Channel(int(channel_fd))
    fd = int(setup_fd)
    setup: Setup = pickle.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    _prepare(setup)
    try:
        function = pickle.loads(setup["function"])
    except BaseException as error:
        channel.leave_if_copy()
        channel.send("broken", describe_failure(error))
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if setup["mode"] == "async":
            from ciq_ray.worker.child_async import serve_async

            serve_async(channel, function, setup)
        else:
            _serve(channel, function, setup)


def _prepare(setup: Setup) -> None:
    import faulthandler

    sys.argv[:] = setup["argv"]
    faulthandler.enable()  # a segmentation fault then leaves a Python traceback in the log


def _serve(channel: Channel, function: Callable[[Any], Any], setup: Setup) -> None:
    channel.send("ready")
    while (data := channel.receive()) is not None:
        task_id, config, compile_timeout, context = pickle.loads(data)
        del data
        set_compile_timeout(compile_timeout)
        evaluation = enter(context, alone=True)
        started = time.perf_counter()
        try:
            result = judge(function(pickle.loads(config)), setup["num_objectives"])
        except BaseException as error:
            channel.leave_if_copy()
            if getattr(error, "ends_process", False):  # who owns a device was asked to end
                raise
            result = failure(error, setup["failures"])
        channel.leave_if_copy()
        run_s = time.perf_counter() - started
        del config
        found = leave(evaluation, result)
        flush()
        channel.send("done", task_id, *result, run_s, found)
        if setup["mode"] == "once":
            return


def enter(context: dict[str, str] | None, *, alone: bool) -> Evaluation | None:
    """Begin an evaluation whose own logging has a place to go to, if it comes with one."""
    if context is None:
        return None
    from ciq_ray._mlflow.objective import Evaluation

    return Evaluation(context, alone=alone)


def leave(evaluation: Evaluation | None, result: Result) -> dict[str, str]:
    """End it; the context of the report."""
    return {} if evaluation is None else {"mlflow_run_id": evaluation.end(result[0] == "ok")}


def judge(value: Any, num_objectives: int) -> Result:
    """Status, values, message, whether the message says all, and details, for what the objective returned."""
    from ciq_ray.scores import is_outcome, read_outcome, read_scores

    attached = sys.modules.get("ciq_ray.worker.attached")  # who has made one has imported it
    if attached is not None and isinstance(value, attached.Attached):
        status, values, message, explained, details = judge(value.outcome, num_objectives)
        return status, values, message, explained, {**details, "attached": value.data}
    if is_outcome(value):
        status, values, message, details = read_outcome(value, num_objectives)
        return status, values, shortened(message), True, details
    status, values, message = read_scores(value, num_objectives)
    return status, values, shortened(message), True, {}


def failure(error: BaseException, failures: tuple[str, ...]) -> Result:
    """Status, no values, message and whether the message says all, for what the objective raised."""
    if isinstance(error, MemoryError):
        return "resource_exceeded", (), describe_failure(error), False, {}
    unknown = ""
    try:
        status = getattr(error, "status", None)
        if isinstance(status, str) and status in failures:
            return status, (), shortened(str(error)), True, {}
        from ciq_ray.errors import ObjectiveFailure

        if isinstance(error, ObjectiveFailure):  # others may have a `status` of another meaning
            unknown = f"`status` is {shortened(repr(status))}; it must be one of {', '.join(failures)}\n"
    except Exception:  # an exception whose attributes raise: described like any other
        pass
    return "run_error", (), unknown + describe_failure(error), False, {}


def describe_failure(error: BaseException) -> str:
    """``Type: text`` and the last lines of the traceback, without this module's own frames."""
    try:
        text = str(error)
    except Exception as inner:
        text = f"<its text cannot be had: {type(inner).__name__}>"
    first = f"{type(error).__name__}: {text}" if text else type(error).__name__
    try:
        import traceback

        trace = error.__traceback__ and error.__traceback__.tb_next
        lines = "".join(traceback.format_exception(type(error), error, trace, limit=-_LINES)).splitlines()
    except BaseException:  # out of memory, or an exception that cannot be shown
        return shortened(first)
    if trace is None and error.__cause__ is None and error.__context__ is None:
        return shortened(first)
    return shortened(first) + "\n" + shortened("\n".join(lines[-_LINES:]), keep_end=True)


def shortened(text: str, keep_end: bool = False) -> str:
    """Text of a size that can be sent and shown, and that any encoding takes."""
    if len(text) > _TEXT:
        text = "..." + text[-_TEXT:] if keep_end else text[:_TEXT] + "..."
    return text.encode("utf-8", "backslashreplace").decode()


def flush() -> None:
    """Write out what the objective printed, so that it is in the log before the result is known."""
    for stream in (sys.stdout, sys.stderr):
        # the objective may have replaced, closed or removed them
        with contextlib.suppress(Exception):
            stream.flush()
