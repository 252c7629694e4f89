"""The thread that writes, and what it does while the server is away.

Handing a record over takes microseconds and never fails. The thread writes records in their order. When
MLflow cannot be reached, or when so many wait that memory would not stay small, they go into a file
instead, the spool. From then on MLflow is asked now and then, ever more seldom, whether it is back; then the
spool is written first, and life goes on. A record that MLflow fails over while it answers otherwise goes to
the end of the spool. What is still in the spool at the end stays there, for ``ciq mlflow-replay``. Only what
MLflow refuses is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from ciq_ray._mlflow.spool import Spool
from ciq_ray._mlflow.store import Away, Record, Refused, Store

__all__ = ["Writer", "never"]

logger = logging.getLogger(__name__)

QUEUE_SIZE: Final = 10_000
"""Records in memory, of about 2 kB each; more go into the spool."""
_PROBE_S: Final = 1.0
_LONGEST_PROBE_S: Final = 15.0
_LAST_PROBES_S: Final = 3.0
_FAREWELL_S: Final = 10.0
_TRIES: Final = 3
"""So often a record may find MLflow away although it answers in between; then others have their turn."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Writer:
    """Writes records in a thread of its own.

    Args:
        store: Where to.
        spool: Where they go while MLflow is away.
        away: Whether it is known to be away.
        before: Called by the thread before anything else; it may raise `Away`, and is called again then.
        after: Called by the thread when all but the last records are written.
        size: How many records may wait in memory.

    Attributes:
        written: Records that MLflow has.
        refused: Records that it does not take.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        away: bool = False,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
        size: int = QUEUE_SIZE,
    ) -> None:
        self.written = self.refused = 0
        self._store = store
        self._spool = spool
        self._before: Callable[[], object] | None = before
        self._after = after
        self._size = size
        self._queue: deque[Record] = deque()
        self._current: Record | None = None
        self._last: Sequence[Record] = ()
        self._closing = self._hurry = self._later = self._finished = False
        self._away = away
        self._pause_s = _PROBE_S
        self._next_probe = time.monotonic() + (_PROBE_S if away else 0)
        self._tries: Counter[str] = Counter()
        self._said: set[str] = set()
        self._said_away = away
        self._last_chance: float | None = None
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="ciq-mlflow", daemon=True)
        self._thread.start()

    @property
    def away(self) -> bool:
        """Whether MLflow cannot be reached at the moment."""
        return self._away

    @property
    def waiting(self) -> int:
        """Records that MLflow does not have yet."""
        return len(self._queue) + (self._current is not None) + self._spool.waiting

    def put(self, record: Record) -> None:
        """Hand a record over."""
        with self._condition:
            if len(self._queue) < self._size and not self._hurry and not self._later:
                self._queue.append(record)
                self._condition.notify()
                return
        self._to_spool(record)

    def settle(self, say: Callable[[int], None], stop_requested: Callable[[], bool] = never) -> None:
        """Return when everything is in MLflow, or in the spool because MLflow is away.

        Args:
            say: Called now and then with the number of records that wait.
            stop_requested: Whether to leave what waits, and all that follows, to the spool.
        """
        while self._thread.is_alive() and not self._away and not self._later and self.waiting:
            if stop_requested():
                with self._condition:
                    self._later = True
                    self._condition.notify()
            say(self.waiting)
            time.sleep(0.05)

    def close(
        self,
        last: Sequence[Record],
        *,
        at_once: bool = False,
        say: Callable[[int], None],
        stop_requested: Callable[[], bool] = never,
    ) -> int:
        """Write everything, then `last`, and end the thread.

        Args:
            last: Records after which nothing comes: how the search ended.
            at_once: Leave what waits to the spool, and only try to write `last`.
            say: Called now and then with the number of records that wait.
            stop_requested: Whether to go on as with `at_once`.

        Returns:
            How many records are left in the spool.

        Raises:
            KeyboardInterrupt: The user does not want to wait; the rest is in the spool.
        """
        with self._condition:
            self._last, self._closing, self._hurry = last, True, at_once or self._later
            self._condition.notify()
        until = time.monotonic() + _FAREWELL_S
        try:
            while self._thread.is_alive() and (not self._hurry or time.monotonic() < until):
                self._thread.join(0.05)
                say(self.waiting)
                if not self._hurry and stop_requested():
                    until, self._hurry = time.monotonic() + _FAREWELL_S, True
        except BaseException:
            with self._condition:
                self._hurry = True
            self._thread.join(_FAREWELL_S)
            raise
        finally:
            if not self._finished:  # it waits for an answer
                self._empty_queue()
                current = self._current
                self._to_spool(*([] if current is None else [current]), *last)
        return self._spool.waiting

    # --- the thread ---

    def _work(self) -> None:
        try:
            while self._step():
                pass
            self._finish()
        except Exception:
            logger.exception("what is recorded in MLflow waits in %s; the search goes on", self._spool.path)
            self._later = True

    def _step(self) -> bool:
        """Do the next thing; whether there may be more."""
        if self._hurry:
            return False
        if self._later:
            self._empty_queue()
            with self._condition:
                if not self._closing:
                    self._condition.wait()
            return True
        if self._away:
            return self._wait_for_server()
        if self._before is not None:
            self._begin()
            return True
        record = self._take()
        if record is not None:
            self._write(record)
            self._current = None
            return True
        if self._spool.waiting:
            self._replay_one()
            return True
        with self._condition:
            if self._queue:
                return True
            if self._closing:
                return False
            self._condition.wait()
        return True

    def _begin(self) -> None:
        if self._before is not None and self._guarded(self._before):
            self._before = None

    def _take(self) -> Record | None:
        with self._condition:
            self._current = self._queue.popleft() if self._queue else None
            return self._current

    def _write(self, record: Record) -> None:
        if not self._tell(record):
            self._to_spool(record)

    def _tell(self, record: Record) -> bool:
        """Write a record; false if it is to be written later."""

        def write() -> None:
            self._store.write(record)
            self.written += 1
            self._last_chance = None

        return self._guarded(write)

    def _replay_one(self) -> None:
        record, end = self._spool.next()
        if record is None:
            self._spool.waiting = 0
            return
        key = record["key"]
        if self._tell(record):
            self._tries.pop(key, None)
            self._spool.done(end)
            return
        self._tries[key] += 1
        # without the search's own run there is no place for the others
        if self._tries[key] > _TRIES and self._spool.waiting > 1 and self._store.parent_id:
            with contextlib.suppress(OSError):  # then it stays where it is
                self._spool.append(record)
                self._spool.done(end)

    def _guarded(self, request: Callable[[], object]) -> bool:
        """Make a request, and note what comes of it; false if it is to be repeated."""
        try:
            request()
        except Away as error:
            self._trip(error)
            return False
        except Refused as error:
            self._refuse(error)
        return True

    def _refuse(self, error: Exception) -> None:
        self.refused += 1
        text = str(error)
        if text not in self._said and len(self._said) < 5:
            self._said.add(text)
            logger.warning("MLflow does not take a record: %s; the search goes on", text)

    def _trip(self, error: Away) -> None:
        if not self._said_away:
            self._said_away = True
            logger.warning(
                "MLflow at %s cannot be reached or fails (%s); the search goes on, its records wait in %s",
                self._store.uri,
                error,
                self._spool.path,
            )
        self._away = True
        self._next_probe = time.monotonic() + self._pause_s

    def _answers(self) -> bool:
        try:
            self._store.probe()
        except (Away, Refused):
            return False
        return True

    def _wait_for_server(self) -> bool:
        self._empty_queue()
        with self._condition:
            while not self._queue and not self._closing:
                rest = self._next_probe - time.monotonic()
                if rest <= 0:
                    break
                self._condition.wait(rest)
            closing = self._closing
        self._empty_queue()
        if closing:
            return self._last_probes()
        if time.monotonic() >= self._next_probe and not self._is_back():
            self._pause_s = min(2 * self._pause_s, _LONGEST_PROBE_S)
            self._next_probe = time.monotonic() + self._pause_s
        return True

    def _last_probes(self) -> bool:
        """Try on for a while, counted from the last record that MLflow took; whether to go on."""
        while not self._hurry:
            if self._is_back():
                return True
            if self._last_chance is None:
                self._last_chance = time.monotonic() + _LAST_PROBES_S
            if time.monotonic() >= self._last_chance:
                return False
            time.sleep(0.2)
        return False

    def _is_back(self) -> bool:
        """Whether MLflow answers, and takes what is in the spool."""
        if not self._answers():
            return False
        self._away = False
        self._begin()
        # in their order: the search's own run may be in it
        while self._spool.waiting and not self._away and not self._hurry and not self._later:
            self._replay_one()
        if self._away:
            return False
        if not self._spool.waiting:
            self._pause_s, self._said_away = _PROBE_S, False
            logger.warning("MLflow is back, and has what was recorded meanwhile")
        return True

    def _finish(self) -> None:
        self._empty_queue()
        if self._away and not self._hurry and self._store.parent_id:
            # it may fail over some records only, and the search's own run is to have its end
            self._away = not self._answers()
        if not self._away:
            self._guarded(self._after)
        for record in self._last:
            if self._away:
                self._to_spool(record)
            else:
                self._write(record)
        self._finished = True

    def _empty_queue(self) -> None:
        with self._condition:
            records, self._queue = list(self._queue), deque()
        self._to_spool(*records)

    def _to_spool(self, *records: Record) -> None:
        if not records:
            return
        try:
            self._spool.append(*records)
        except OSError as error:
            self.refused += len(records)
            logger.warning(
                "%s cannot be written (%s): MLflow will lack %d records",
                self._spool.path,
                error,
                len(records),
            )
