"""A searcher that never ends: when it has finished, a fresh one goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from searchers.base import SpaceSearcher
from searchers.outcome import Candidate, Outcome

__all__ = ["Proposal", "Restarts"]

_SEED_STEP: Final = 1_000_003
"""Between the seeds of a searcher and of the one after it, so that they are nobody else's seed."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate and the searcher that wants to know what comes of it."""

    searcher: SpaceSearcher
    candidate: Candidate


class Restarts:
    """Searchers made from one recipe, one after the other.

    A searcher that has finished, or proposes nothing although it waits for nothing, is followed by a fresh
    one with the next seed. It knows nothing of what the earlier ones found and may propose it again, which
    is evaluated again. The best of all of them counts.

    Args:
        make: The recipe: a searcher from a seed.
        seed: Of the first one.
        restart: Whether there may be a second.

    Attributes:
        count: How often there was a fresh one after the first.
        costs: Processor seconds of each proposal: its share of the `ask` it came from and of the tells
            before.
    """

    def __init__(self, make: Callable[[int], SpaceSearcher], seed: int, *, restart: bool) -> None:
        self._make, self._seed, self._restart = make, seed, restart
        self._searchers: list[SpaceSearcher] = []
        self._spent = 0.0
        self._over = False
        self.count = 0
        self.costs: list[float] = []

    def ask(self, n: int) -> list[Proposal]:
        """Up to `n` proposals; none while the searcher waits, or when it is over."""
        if n < 1:
            return []
        begun = time.process_time()
        searcher = self._searchers[-1] if self._searchers else self._next()
        candidates = [] if self._over else searcher.ask(n)
        if not candidates and not self._over and (searcher.finished or not searcher.n_pending):
            if self._restart:
                searcher = self._next()
                candidates = searcher.ask(n)
            self._over = not candidates
        self._spent += time.process_time() - begun
        if candidates:
            self.costs += [self._spent / len(candidates)] * len(candidates)
            self._spent = 0.0
        return [Proposal(searcher, candidate) for candidate in candidates]

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Pass on what came of a proposal."""
        begun = time.process_time()
        proposal.searcher.tell(proposal.candidate.id, outcome)
        self._spent += time.process_time() - begun

    @property
    def best(self) -> Any | None:
        """The configuration with the lowest value told, ``None`` before the first success."""
        found = [best for searcher in self._searchers if (best := searcher.best) is not None]
        if not found:
            return None
        return min(found, key=lambda pair: pair[1].values[0])[0].config

    def _next(self) -> SpaceSearcher:
        self.count = len(self._searchers)
        self._searchers.append(self._make(self._seed + self.count * _SEED_STEP))
        return self._searchers[-1]
