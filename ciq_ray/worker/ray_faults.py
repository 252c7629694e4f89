"""Actors that cannot evaluate, or not even start: whose fault that is, and when it ends a search."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["START_ATTEMPTS", "Faults", "is_its_own"]

START_ATTEMPTS: Final = 3
"""This many actors that fail before there is any result: no actor will ever do better."""
_IN_A_ROW: Final = 10
"""The same for later, when it has been shown that evaluations are possible."""


class Faults:
    """Actors that live and cannot evaluate: a node lacks a module or has a full disk, say.

    Actors of one node that were started before the first of them failed have failed for the same reason,
    and count as one.
    """

    def __init__(self) -> None:
        self._evaluated = False
        self._in_a_row = 0
        self._judged: dict[str, int] = {}
        self._returned: Counter[str] = Counter()

    def evaluated(self) -> None:
        """An evaluation has ended."""
        self._evaluated = True
        self._in_a_row = 0

    def is_new(self, node: str) -> bool:
        """Whether this node has had no fault yet."""
        return node not in self._judged

    def count(self, node: str, actor: int, started: int, task: str | None) -> bool:
        """An actor has failed; whether that is the end of the search.

        Args:
            node: Where it was.
            actor: How many actors had been started before it.
            started: How many have been started by now.
            task: What it was at, if anything.
        """
        if actor >= self._judged.get(node, 0):
            self._judged[node] = started
            self._in_a_row += 1
        if task is not None:
            self._returned[task] += 1
        most = _IN_A_ROW if self._evaluated else START_ATTEMPTS
        # other tasks may go well all the time while one goes from actor to actor
        return self._in_a_row >= most or (task is not None and self._returned[task] >= _IN_A_ROW)


def is_its_own(error: BaseException) -> bool:
    """Whether an actor has failed to start for a reason that will still be there the next time."""
    from ray.exceptions import ActorUnschedulableError, RayActorError, RuntimeEnvSetupError

    if isinstance(error, (ActorUnschedulableError, RuntimeEnvSetupError)):
        return True
    return isinstance(error, RayActorError) and bool(error.actor_init_failed)
