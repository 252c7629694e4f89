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

from ciq_ray.tracker import logging_exception

if TYPE_CHECKING:
    from ciq_ray.types import BaseTracker, Score

__all__ = ["TrackerFeed"]

logger = logging.getLogger(__name__)


class TrackerFeed:
    """Drives one tracker through the life cycle of a search.

    Args:
        tracker: What is told.
        closed: Whether a generation is complete.
        generation_changed: Called, in the search's own thread, with each generation that begins.
    """

    def __init__(
        self,
        tracker: BaseTracker,
        closed: Callable[[int], bool],
        generation_changed: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._tracker = tracker
        self._closed = closed
        self._generation_changed = generation_changed
        self._waiting: defaultdict[int, list[tuple[Score, dict[str, Any]]]] = defaultdict(list)
        self._current: int | None = None
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ciq-tracker", daemon=True)

    def start(self, **details: Any) -> None:
        """The search begins."""
        self._thread.start()
        self._events.put(lambda: self._tracker.search_starts(**details))

    def evaluated(self, score: Score, generation: int, **details: Any) -> None:
        """An evaluation of `generation` is back."""
        # a straggler of a generation that has ended (a late top-up) counts in the one that is open
        self._waiting[max(generation, self._current or 0)].append((score, details))
        self._release()

    def end(self, **details: Any) -> None:
        """The search is over: whatever still waits is told, then the tracker is cleaned up.

        Returns when the tracker has seen everything.
        """
        if not self._thread.is_alive():
            return
        for number in sorted(self._waiting):
            self._enter(number)
            self._flush(number)
        self._leave()
        self._events.put(lambda: self._tracker.search_ends(**details))
        self._events.put(lambda: self._tracker.cleanup())
        self._events.put(None)
        self._thread.join()

    def _release(self) -> None:
        if self._current is None:
            self._enter(min(self._waiting))
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
        self._events.put(lambda: self._tracker.generation_starts(number))

    def _leave(self) -> None:
        if self._current is not None:
            number, self._current = self._current, None
            self._events.put(lambda: self._tracker.generation_ends(number))

    def _flush(self, number: int) -> None:
        for score, details in self._waiting.pop(number, ()):
            self._events.put(lambda score=score, details=details: self._evaluation(score, details))  # type: ignore[misc]

    def _evaluation(self, score: Score, details: dict[str, Any]) -> None:
        self._tracker.pre_objective(score.params, **details)
        self._tracker.post_objective(score.to_json(), **details)

    def _work(self) -> None:
        call = logging_exception(_call)
        while (event := self._events.get()) is not None:
            call(event)


def _call(event: Callable[[], None]) -> None:
    event()
