"""What trackers are told, in the documented order, without holding up the search.

Evaluations come back in any order, and those of the next generation before the last of this one.
A tracker still sees ``generation_starts``, then each evaluation of that generation, then
``generation_ends``: what is early waits. One thread makes the calls; the events it has not got to are
references to results that the search keeps anyway.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ciq_ray._trackers.run_tracker import RunTracker
from ciq_ray.tracker import DisabledTracker, logging_exception

if TYPE_CHECKING:
    from ciq_ray.engine import Evaluation
    from ciq_ray.types import BaseTracker, Score

__all__ = ["TrackerFeed"]

logger = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long the end of a search waits for a tracker in which nothing moves."""
_FAREWELL_S = 1.0

_Event = tuple[str, tuple[Any, ...], dict[str, Any]]


class TrackerFeed:
    """Drives one tracker through the life cycle of a search.

    Args:
        tracker: What is told.
        closed: Whether a generation is complete.
        generation_changed: Called, in the search's own thread, with each generation that begins.

    Attributes:
        ended: Whether the tracker is cleaned up, or will be by the thread that makes the calls.
    """

    def __init__(
        self,
        tracker: BaseTracker,
        closed: Callable[[int], bool],
        generation_changed: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.ended = False
        self._tracker = tracker
        # waking a thread for nothing costs more than all else that is done with an evaluation here
        self._silent = type(tracker) is DisabledTracker
        self._all_known = isinstance(tracker, RunTracker)
        self._closed = closed
        self._generation_changed = generation_changed
        self._waiting: defaultdict[int, list[tuple[Score, dict[str, Any]]]] = defaultdict(list)
        self._current: int | None = None
        self._taken = 0
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ciq-tracker", daemon=True)

    def start(self, **details: Any) -> None:
        """The search begins."""
        self._thread.start()
        self._tell("search_starts", **details)

    def evaluated(
        self, score: Score, generation: int, evaluation: Evaluation | None = None, **details: Any
    ) -> None:
        """An evaluation of `generation` is back; the whole of it is for a `RunTracker`."""
        if self._all_known:
            details["evaluation"] = evaluation
        # a straggler of a generation that has ended (a late top-up) counts in the one that is open
        self._waiting[max(generation, self._current or 0)].append((score, details))
        self._release()

    def end(self, *, at_once: bool = False, **details: Any) -> None:
        """The search is over: whatever still waits is told, then the tracker is cleaned up.

        Returns when the tracker has seen everything, or takes nothing any more.

        Args:
            at_once: Hardly wait for the tracker.
            **details: For `search_ends`.
        """
        if not self._thread.is_alive():
            return
        for number in range(self._current or 0, max(self._waiting, default=-1) + 1):
            self._enter(number)
            self._flush(number)
        self._leave()
        self._tell("search_ends", **details)
        self._tell("cleanup")
        self.ended = True
        self._events.put(None)
        self._wait(at_once)

    def _wait(self, at_once: bool) -> None:
        patience_s = _FAREWELL_S if at_once else PATIENCE_S
        while True:
            taken = self._taken
            self._thread.join(patience_s)
            if not self._thread.is_alive():
                return
            if at_once or taken == self._taken:
                break
        logger.warning(
            "the tracker %s is left behind after %g s, with %d calls to go",
            type(self._tracker).__name__,
            patience_s,
            self._events.qsize(),
        )

    def _release(self) -> None:
        if self._current is None:
            self._enter(0)
        while self._current is not None:
            number = self._current
            self._flush(number)
            if not self._closed(number) or not any(later > number for later in self._waiting):
                return
            self._enter(number + 1)

    def _enter(self, number: int) -> None:
        if self._current == number:
            return
        self._leave()
        self._current = number
        self._generation_changed(number)
        self._tell("generation_starts", number)

    def _leave(self) -> None:
        if self._current is not None:
            number, self._current = self._current, None
            self._tell("generation_ends", number)

    def _flush(self, number: int) -> None:
        for score, details in self._waiting.pop(number, ()):
            self._tell("pre_objective", score, **details)
            self._tell("post_objective", score, **details)

    def _tell(self, event: str, *arguments: Any, **details: Any) -> None:
        if not self._silent:
            self._events.put((event, arguments, details))

    def _work(self) -> None:
        while (entry := self._events.get()) is not None:
            self._call(*entry)
            self._taken += 1

    def _call(self, event: str, arguments: tuple[Any, ...], details: dict[str, Any]) -> None:
        if event == "pre_objective":
            arguments = (arguments[0].params,)
        elif event == "post_objective":
            arguments = (arguments[0].to_json(),)
        logging_exception(getattr(self._tracker, event))(*arguments, **details)
