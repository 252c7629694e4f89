"""The event loop of an asynchronous worker process: several evaluations at a time."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ciq_ray.worker.child import HEADER, Channel, enter, failure, flush, judge, leave
from ciq_ray.worker.limits import set_compile_timeout

if TYPE_CHECKING:
    from ciq_ray.worker.child import Result, Setup

__all__ = ["serve_async"]


def serve_async(channel: Channel, function: Callable[[Any], Any], setup: Setup) -> None:
    """Run each task that arrives as a coroutine, until the driver closes the connection.

    Args:
        channel: The connection to the driver.
        function: The asynchronous objective.
        setup: What the process was told at its start; ``timeout`` is kept by the loop itself.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = _Server(loop, channel, function, setup)
    loop.add_reader(channel.fd, server.read)
    channel.send("ready")
    while not server.ended:
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            # raised in a task the objective started itself; the loop can go on
            channel.leave_if_copy()
    # what still runs was not waited for by the driver, and must not keep this process
    os._exit(0)


class _Server:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        function: Callable[[Any], Any],
        setup: Setup,
    ) -> None:
        self.ended = False
        self._loop = loop
        self._channel = channel
        self._function = function
        self._setup = setup
        self._data = bytearray()
        self._running: set[asyncio.Task[None]] = set()

    def read(self) -> None:
        """Take in what has arrived and start the tasks that are complete."""
        self._channel.leave_if_copy()
        data = os.read(self._channel.fd, 1 << 20)
        if not data:
            self.ended = True
            self._loop.stop()
            return
        self._data += data
        while len(self._data) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._data)[0]
            if len(self._data) < end:
                return
            task_id, config, compile_timeout, context = pickle.loads(bytes(self._data[HEADER.size : end]))
            del self._data[:end]
            # the loop itself keeps only weak references to its tasks
            task = self._loop.create_task(self._evaluate(task_id, config, compile_timeout, context))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _evaluate(
        self, task_id: str, config: bytes, compile_timeout: float | None, context: dict[str, str] | None
    ) -> None:
        set_compile_timeout(compile_timeout)  # in the context of this task alone
        evaluation = enter(context, alone=False)
        self._channel.send("started", task_id, time.monotonic())
        started = time.perf_counter()
        limit = self._setup["timeout"]
        result: Result
        try:
            async with asyncio.timeout(limit) as timer:
                result = judge(await self._function(pickle.loads(config)), self._setup["num_objectives"])
        except BaseException as error:
            self._channel.leave_if_copy()
            result = failure(error, self._setup["failures"])
        if timer.expired():  # also when the objective caught its cancellation and returned
            result = "run_timeout", (), f"the evaluation took longer than {limit:g} s", False, {}
        self._channel.leave_if_copy()
        run_s = time.perf_counter() - started
        found = leave(evaluation, result)
        flush()
        self._channel.send("done", task_id, *result, run_s, found)
