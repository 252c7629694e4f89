"""What a peer has spent, and what it has to show for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ciq_ray.landscape import Key, Landscape

__all__ = ["MOST_REPEATS", "Meter", "Spent"]

MOST_REPEATS: Final = 1000
"""Proposals in a row that need no evaluation, after which a random new configuration is evaluated."""


class Spent(Exception):
    """The budget is spent."""


@dataclass
class Meter:
    """Evaluates configurations of a landscape, and counts.

    An evaluation of a configuration of the file, failed or not, costs one. One that was evaluated before is
    answered from memory at no cost.

    Attributes:
        landscape: What was recorded.
        budget: How many evaluations there may be.
        evaluations: How many there were.
        steps: The number of each evaluation that found something better, and its time in milliseconds.
    """

    landscape: Landscape
    budget: int
    evaluations: int = 0
    steps: list[tuple[int, float]] = field(default_factory=list)
    _seen: set[Key] = field(default_factory=set)

    @property
    def left(self) -> int:
        """How many new configurations can still be evaluated."""
        return min(self.budget, len(self.landscape)) - self.evaluations

    @property
    def spent(self) -> bool:
        """Whether nothing new can be evaluated."""
        return self.left <= 0

    def known(self, key: Key) -> bool:
        """Whether the answer costs nothing."""
        return key in self._seen

    def valid(self, key: Key) -> bool:
        """Whether the configuration satisfies the static constraints."""
        return self.landscape.find(key) is not None

    def time(self, key: Key) -> float | None:
        """The time of a configuration in milliseconds, ``None`` if it failed.

        Raises:
            Spent: It is new, and the budget is spent.
        """
        row = self.landscape.find(key)
        if row is None:
            raise ValueError(f"{key!r} breaks a static constraint")
        time = float(self.landscape.times[row])
        if key not in self._seen:
            if self.spent:
                raise Spent
            self._seen.add(key)
            self.evaluations += 1
            if time < (self.steps[-1][1] if self.steps else np.inf):
                self.steps.append((self.evaluations, time))
        return None if np.isnan(time) else time

    def unseen(self, rng: np.random.Generator) -> Key:
        """A random configuration that was not evaluated yet.

        Raises:
            Spent: There is none, or the budget is spent.
        """
        left = [] if self.spent else [key for key in self.landscape.keys if key not in self._seen]
        if not left:
            raise Spent
        return left[int(rng.integers(len(left)))]


def choices(landscape: Landscape) -> dict[str, list[Any]]:
    """The values of each parameter, numbers in order."""
    return {leaf.name: list(leaf.param.choices) for leaf in landscape.space.encoding.leaves}  # type: ignore[attr-defined]
