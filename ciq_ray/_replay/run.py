"""One search of a landscape."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ciq_ray._replay.plan import Plan
from ciq_ray._replay.recorded import Recorded
from ciq_ray._replay.restarts import Proposal, Restarts
from ciq_ray._replay.virtual import Machine, Usage

__all__ = ["Run", "search"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One search of a landscape.

    Attributes:
        seed: Of the searcher.
        evaluations: How many there were; fewer than the budget only if the searcher had finished.
        failures: How many of them failed.
        restarts: How many fresh searchers there were after the first.
        steps: Where the configuration changed that the searcher says is best: the number of the
            evaluation, from 1, and the recorded time of the new one in milliseconds.
        cpu_s: Processor seconds for each suggestion, in the order they were made.
        usage: Of a search in virtual time.
        moments: The virtual second of each step.
    """

    seed: int
    evaluations: int
    failures: int
    restarts: int
    steps: tuple[tuple[int, float], ...]
    cpu_s: tuple[float, ...] = field(repr=False)
    usage: Usage | None = None
    moments: tuple[float, ...] = ()

    def curve(self, budget: int) -> Floats:
        """The time in milliseconds of the best after 1, 2, ... `budget` evaluations; NaN before any."""
        curve = np.full(budget, math.nan)
        for evaluation, time in self.steps:
            curve[evaluation - 1 :] = time
        return curve

    def at(self, seconds: npt.ArrayLike) -> Floats:
        """The time in milliseconds of the best at each of some virtual moments; NaN before any."""
        places = np.searchsorted(self.moments, seconds, side="right")
        return np.array([math.nan, *(time for _, time in self.steps)])[places]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = {
            "seed": self.seed,
            "evaluations": self.evaluations,
            "failures": self.failures,
            "restarts": self.restarts,
            "steps": [list(step) for step in self.steps],
            "cpu_s": {
                "total": sum(self.cpu_s),
                "median": statistics.median(self.cpu_s or [0.0]),
                "max": max(self.cpu_s, default=0.0),
            },
        }
        if self.usage is not None:
            data["virtual"] = {
                "elapsed_s": self.usage.elapsed_s,
                "workers_busy": self.usage.workers_busy,
                "devices_busy": self.usage.devices_busy,
                "moments": list(self.moments),
            }
        return data


def search(
    seed: int,
    searcher: Restarts,
    recorded: Recorded,
    plan: Plan,
    tick: Callable[[], None] | None = None,
    until_s: float = math.inf,
) -> Run:
    """Search until the budget is spent or the searcher is over.

    Args:
        seed: Of the searcher.
        searcher: Who proposes.
        recorded: What it is told.
        plan: The budget, the batch and the machine.
        tick: Called after each evaluation.
        until_s: Stop at this virtual second.
    """
    running = _Search(searcher, recorded, plan, tick)
    usage = None
    if plan.workers is None:
        running.in_batches()
    else:
        usage = running.in_virtual_time(plan.workers, until_s)
    return Run(
        seed,
        running.evaluations,
        running.failures,
        searcher.count,
        tuple(running.steps),
        tuple(searcher.costs),
        usage,
        tuple(running.moments) if usage is not None else (),
    )


class _Search:
    """One search while it runs."""

    def __init__(
        self, searcher: Restarts, recorded: Recorded, plan: Plan, tick: Callable[[], None] | None
    ) -> None:
        self._searcher, self._recorded, self._plan = searcher, recorded, plan
        self._tick = tick
        self._asked = self.evaluations = self.failures = 0
        self._best: Any = None
        self.steps: list[tuple[int, float]] = []
        self.moments: list[float] = []

    def in_batches(self) -> None:
        while proposals := self._ask():
            for proposal in proposals:
                self._tell(proposal)

    def in_virtual_time(self, workers: int, until_s: float) -> Usage:
        machine = Machine(workers, self._plan.devices, self._ask, self._cost, self._tell)
        return machine.run(until_s)

    def _ask(self) -> Sequence[Proposal]:
        proposals = self._searcher.ask(min(self._plan.batch, self._plan.budget - self._asked))
        self._asked += len(proposals)
        return proposals

    def _cost(self, proposal: Proposal) -> tuple[float, float]:
        return self._recorded.cost(proposal.candidate.config)

    def _tell(self, proposal: Proposal, moment: float = 0.0) -> None:
        outcome = self._recorded.outcome(proposal.candidate.config)
        self._searcher.tell(proposal, outcome)
        self.evaluations += 1
        self.failures += not outcome.ok
        best = self._searcher.best
        if best is not None and best != self._best:
            self._best = best
            self.steps.append((self.evaluations, self._recorded.time(best)))
            self.moments.append(moment)
        if self._tick is not None:
            self._tick()
