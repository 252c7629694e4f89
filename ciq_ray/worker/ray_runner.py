"""An actor as its pool sees it: what it has in hand, and how much it should have."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from ciq_ray.worker.protocol import Task
from ciq_ray.worker.ray_cluster import Actor, Done

__all__ = ["CHUNK_S", "Pace", "Runner", "end_of"]

CHUNK_S: Final = 0.02
"""Seconds of work that make a call worth its cost, one or two milliseconds."""
NOTHING_AHEAD_S: Final = 1.0
"""From this time on nothing waits behind a task: a call costs nothing in comparison."""
_MOST: Final = 100
_WEIGHT: Final = 0.2


@dataclass(slots=True)
class Pace:
    """How long tasks take, as a running mean.

    Attributes:
        each_s: Seconds for one; 0 until there is one.
    """

    each_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Learn from one more task."""
        self.each_s = self.each_s + _WEIGHT * (seconds - self.each_s) if self.each_s else seconds

    def depth(self, others: Pace) -> int:
        """How many tasks an actor of this pace should have.

        One until it is known how long they take; then `CHUNK_S` of work in hand and as much again
        waiting behind it, two at least; of tasks of `NOTHING_AHEAD_S` and more only the one in hand.

        Args:
            others: The pace of all actors, for one that has done nothing yet.
        """
        each_s = self.each_s or others.each_s
        if not each_s or each_s >= NOTHING_AHEAD_S:
            return 1
        return min(max(2, math.ceil(2 * CHUNK_S / each_s)), _MOST)


@dataclass(slots=True, eq=False)
class Runner:
    """An actor as its pool sees it.

    Attributes:
        name: For logs and results.
        number: How many actors were started before it.
        actor: The actor.
        avoids: Ids of nodes that it was not to be placed on.
        place: Where it is, once it has said so.
        ready: Whether it has.
        tasks: What it has and has not reported, in the order it was sent; by the number on the wire.
        unsent: Those of them that have yet to leave.
        calling: Whether an `exchange` is out.
        stealing: Whether it has been asked to give tasks back, and has not answered.
        pace: Of its tasks.
        room: How many more it may have.
        heard_at: When it last said something, or got something to do.
    """

    name: str
    number: int
    actor: Actor
    avoids: frozenset[str]
    place: Mapping[str, str] = field(default_factory=dict)
    ready: bool = False
    tasks: dict[str, Task] = field(default_factory=dict)
    unsent: list[Task] = field(default_factory=list)
    calling: bool = False
    stealing: bool = False
    pace: Pace = field(default_factory=Pace)
    room: int = 0
    heard_at: float = 0.0

    @property
    def load_s(self) -> float:
        """Seconds until it is done with what it has, as far as known."""
        return len(self.tasks) * self.pace.each_s


def end_of(call: Callable[[Done], object]) -> Future[Any]:
    """A future that ends with a call of an actor, however that ends."""
    future: Future[Any] = Future()

    def done(answered: Future[Any]) -> None:
        with contextlib.suppress(Exception):
            future.set_result(None)

    call(done)
    return future
