"""The loop of a search: ask, dispatch, tell; every ask and outcome on disk before it is acted on.

The order of things is what makes a search survive `kill -9`:

1. An outcome is written to the journal the moment it is read from the worker.
2. Then the worker gets a candidate from stock, one whose ask is on disk already.
3. Then the searcher is told, asked for more, and those asks are written.
4. One fsync, made by another thread, covers all of it; only after that do those candidates join the stock.

So a worker hardly ever waits for the disk, no candidate runs whose ask or whose reasons could be lost, and
at most the evaluations in flight are run again. A stock is kept only for searchers whose proposals are
cheap (`SpaceSearcher.looks_ahead`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ciq_ray._version import __version__
from ciq_ray.errors import BaselineError, JournalError, WorkerError
from ciq_ray.journal import Journal
from ciq_ray.remeasure import Remeasurer
from ciq_ray.worker.protocol import Report, StreamingWorker, Task
from searchers.errors import OptionError
from searchers.outcome import RETRIED, Candidate, Outcome

if TYPE_CHECKING:
    from ciq_ray.compile_timeout import CompileTimeout
    from searchers.base import SpaceSearcher

__all__ = ["Budget", "Engine", "Evaluation", "Observer", "Observers", "generation_of", "recorded_evaluation"]

logger = logging.getLogger(__name__)

MAX_RESENDS = 3
"""How often a lost or throttled candidate is sent again, unless the worker says otherwise."""
_POLL_S = 0.2
_LEAST_STOCK = 2
_MOST_STOCK = 4
"""Candidates for each slot; so many are kept when evaluations are faster than the disk."""


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop; whichever comes first.

    Attributes:
        max_evaluations: How many candidates are evaluated at most.
        time_budget_s: Seconds after which nothing new is sent.
        target: Values, one for each objective, that one candidate has to reach.
        modes: ``"min"`` or ``"max"`` for each objective.
    """

    max_evaluations: int | None = None
    time_budget_s: float | None = None
    target: tuple[float, ...] | None = None
    modes: tuple[str, ...] = ("min",)

    def reached(self, values: Sequence[float]) -> bool:
        """Whether `values` are at least as good as the target, in every objective."""
        if self.target is None:
            return False
        return all(
            value <= goal if mode == "min" else value >= goal
            for value, goal, mode in zip(values, self.target, self.modes, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A candidate and what came of it.

    Attributes:
        candidate: As proposed.
        generation: The block it counts in.
        outcome: Raw values.
        normalized: The values the searcher was told when the search is normalised.
        worker: Where it ran.
        metadata: What the worker had to say about it.
        place: Where it ran, see `Report`.
        replayed: Whether it comes from the journal of an earlier process.
        again: Whether the candidate was measured before; the outcome then pools all measurements.
        at: When it was back, in seconds since 1970; 0 if unknown.
        context: What the process had to say about the task's context, see `Report`.
    """

    candidate: Candidate
    generation: int
    outcome: Outcome
    normalized: tuple[float, ...] | None = None
    worker: str = ""
    metadata: str = ""
    place: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False
    again: bool = False
    at: float = 0.0
    context: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> Outcome:
        """What the searcher learns."""
        if self.normalized is None or not self.outcome.ok:
            return self.outcome
        fields = self.outcome.to_dict()
        fields.pop("spread", None)  # it is in raw units
        return Outcome.from_dict({**fields, "values": self.normalized})


class Observer(Protocol):
    """What is kept informed: results, progress, trackers."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """The searcher has just been told of an evaluation."""

    def tick(self) -> None:
        """Nothing happened for a moment."""


class Observers:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def evaluated(self, evaluation: Evaluation) -> None:
        """Tell all of them, in their order."""
        for observer in self._observers:
            observer.evaluated(evaluation)

    def tick(self) -> None:
        """Tell all of them that nothing happened."""
        for observer in self._observers:
            observer.tick()


class Engine:
    """One search from its first ask to its last tell.

    Args:
        searcher: What to try next.
        worker: Where candidates run; open.
        journal: Where asks and outcomes go.
        budget: When to stop.
        observer: What is told of each evaluation.
        pool_size: Candidates of a generation, for searchers that have none of their own.
        look_ahead: Whether to keep a stock of candidates, if the searcher allows it; pointless for a
            worker that takes a pool at a time.
        compile_timeout: Learns how long a candidate may compile, which then goes with each task;
            ``None``: there is no such limit.
        remeasurer: Who is measured again; nobody if ``None``.
        stop_requested: Returns true when nothing new is to be sent.
        max_resends: How often a lost or throttled candidate is sent again before it is the suspect itself.
        prepare: Called once when the first candidates are out, to do what takes time and is not needed yet.
        task_context: Gives the context of a task just before it is sent, see `Task`; ``None``: there is none.
        check: Called after each tell; it may raise to end the search.
    """

    def __init__(
        self,
        searcher: SpaceSearcher,
        worker: StreamingWorker,
        journal: Journal,
        *,
        budget: Budget,
        observer: Observer,
        pool_size: int,
        look_ahead: bool = True,
        compile_timeout: CompileTimeout | None = None,
        remeasurer: Remeasurer | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
        max_resends: int | None = None,
        prepare: Callable[[], object] = lambda: None,
        task_context: Callable[[Candidate], Mapping[str, str]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.searcher = searcher
        self.worker = worker
        self.journal = journal
        self.budget = budget
        self.observer = observer
        self.pool_size = pool_size
        self._look_ahead = look_ahead
        self._compile_timeout = compile_timeout
        self._remeasurer = remeasurer or Remeasurer(0, budget.modes)
        self._stop_requested = stop_requested
        self._max_resends = MAX_RESENDS if max_resends is None else max_resends
        self._prepare = prepare
        self._task_context = task_context
        self._check = check
        self._stock: deque[Candidate] = deque()
        # with the size of the journal that holds their asks
        self._unsynced: deque[tuple[int, Candidate]] = deque()
        self._stock_per_slot = 1
        self._in_flight: dict[str, Candidate] = {}
        self._resends: dict[str, int] = {}
        self._told = 0
        self._target_reached = False
        self._may_ask = True

    # -- resuming ---------------------------------------------------------------------------------

    def replay(self, records: Iterable[dict[str, Any]]) -> int:
        """Bring the searcher to where the journal ends; what was in flight goes to the stock.

        Returns:
            How many outcomes there were.

        Raises:
            JournalError: The searcher proposes something else than the journal says it did.
        """
        pending: dict[str, Candidate] = {}
        outcomes = 0
        for record in records:
            kind = record.get("t")
            try:
                if kind == "ask":
                    self._replay_ask(record, pending)
                elif kind == "remeasure":
                    self._remeasure(record["ids"])
                elif kind == "outcome":
                    candidate = pending.pop(record["id"])
                    evaluation = recorded_evaluation(record, candidate, self.generation_of(candidate))
                    self._tell(evaluation)
                    outcomes += 1
            except (AttributeError, KeyError, TypeError, OptionError) as error:
                raise JournalError(
                    f"{str(self.journal.path)!r} has a record that does not fit: {record}"
                ) from error
        self._stock.extend(pending.values())
        return outcomes

    def _replay_ask(self, record: dict[str, Any], pending: dict[str, Candidate]) -> None:
        candidates = self.searcher.ask(record["n"])
        proposed = [(c.id, list(c.row)) for c in candidates]
        recorded = [(c["id"], c["row"]) for c in record["candidates"]]
        if proposed != recorded:
            raise JournalError(
                f"the searcher does not propose what {str(self.journal.path)!r} says it did "
                f"({proposed[:1]} instead of {recorded[:1]}); the space, the searcher's options or the "
                "version of ciq-ray have changed since. Start a new search with the old results as "
                "`initial_configs`, or go back to the old version"
            )
        pending.update((c.id, c) for c in candidates)

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> str:
        """Search until the budget or the searcher is done.

        Returns:
            Why it ended: ``"finished"``, ``"max_evaluations"``, ``"time_budget"``, ``"target"`` or
            ``"stopped"``.

        Raises:
            WorkerError: The worker cannot go on.
            JournalError: The journal cannot be written.
        """
        started = time.monotonic()
        prepared = False
        while True:
            reason = self._reason_to_stop(started)
            if reason is None:
                self._ask()
            else:
                self._stock.clear()
                self._unsynced.clear()
            self._sync()
            self._dispatch()
            if not self._in_flight and not self._stock:
                if reason is not None:
                    return reason
                if self.searcher.finished:
                    return "finished"
                if not self._may_ask:
                    raise WorkerError("the searcher proposes nothing although it waits for nothing")
                continue
            if not prepared:
                prepared = True
                self._prepare()
            reports = self.worker.poll(_POLL_S)
            if not reports:
                self.observer.tick()
            self._collect(reports)

    def _reason_to_stop(self, started: float) -> str | None:
        if self._stop_requested():
            return "stopped"
        if self._target_reached:
            return "target"
        if self.budget.time_budget_s is not None and time.monotonic() - started >= self.budget.time_budget_s:
            return "time_budget"
        limit = self.budget.max_evaluations
        if limit is not None and self._told + len(self._in_flight) >= limit:
            return "max_evaluations"
        return None

    def _ask(self) -> None:
        """Fill the stock, unless the searcher said it waits and nothing was told since."""
        slots = len(self._in_flight) + self.worker.free
        ahead = 0
        if self._look_ahead and self.searcher.looks_ahead:
            ahead = max(_LEAST_STOCK, self._stock_per_slot * slots)
        n = slots + ahead - len(self._in_flight) - len(self._stock) - len(self._unsynced)
        if self.budget.max_evaluations is not None:
            known = self._told + len(self._in_flight) + len(self._stock) + len(self._unsynced)
            n = min(n, self.budget.max_evaluations - known)
        if n <= 0 or not self._may_ask:
            return
        again = self._remeasurer.due()
        if again:
            self.journal.write([{"t": "remeasure", "ids": again}])
            self._remeasure(again)
        candidates = self.searcher.ask(n)
        self._may_ask = bool(candidates)
        if not candidates and self.searcher.finished:
            return
        self.journal.write([_ask_record(n, candidates)])
        self._unsynced.extend((self.journal.size, candidate) for candidate in candidates)

    def _remeasure(self, ids: list[str]) -> None:
        for name in ids:
            self.searcher.remeasure(name)
        self._remeasurer.sent(ids)

    def _sync(self) -> None:
        """Get what is written to the disk, and wait for that only while there is nothing to send."""
        if self._unsynced and len(self._stock) < max(1, self.worker.free):
            self.journal.sync()
        else:
            self.journal.sync_soon()
        while self._unsynced and self._unsynced[0][0] <= self.journal.safe:
            self._stock.append(self._unsynced.popleft()[1])

    def _dispatch(self) -> None:
        limit = self.budget.max_evaluations
        while self._stock and self.worker.free > 0:
            if limit is not None and self._told + len(self._in_flight) >= limit:
                return
            candidate = self._stock.popleft()
            self._in_flight[candidate.id] = candidate
            limit_s = None if self._compile_timeout is None else self._compile_timeout.limit
            context = {} if self._task_context is None else self._task_context(candidate)
            generation = self.generation_of(candidate)
            self.worker.submit(Task(candidate.id, candidate.config, generation, limit_s, context))

    def _collect(self, reports: list[Report]) -> None:
        evaluations = []
        records = []
        for report in reports:
            candidate = self._in_flight.pop(report.task_id)
            outcome = report.outcome
            if outcome.status in RETRIED:
                resends = self._resends[candidate.id] = self._resends.get(candidate.id, 0) + 1
                if resends <= self._max_resends:
                    records.append(
                        {"t": "again", "id": candidate.id, "reason": outcome.message, "at": time.time()}
                    )
                    self._stock.appendleft(candidate)
                    continue
                outcome = Outcome(
                    "run_error", message=f"{outcome.status} {resends} times, the last time: {outcome.message}"
                )
            normalized = _normalized(outcome, report)
            evaluation = Evaluation(
                candidate,
                self.generation_of(candidate),
                outcome,
                normalized,
                report.worker,
                report.metadata,
                report.place,
                at=time.time(),
                context=report.context,
            )
            evaluations.append(evaluation)
            records.append(_outcome_record(evaluation, report))
        self.journal.write(records)
        self._dispatch()
        # with a single slot the proposals must not depend on how fast anything is
        if self._unsynced and self.worker.free and len(self._in_flight) + self.worker.free > 1:
            self._stock_per_slot = min(2 * self._stock_per_slot, _MOST_STOCK)
        for evaluation in evaluations:
            self._tell(evaluation)

    def _tell(self, evaluation: Evaluation) -> None:
        if self._compile_timeout is not None:
            self._compile_timeout.observe(evaluation.outcome)
        evaluation = self._remeasurer.take(evaluation)
        told = evaluation.told
        self._told += 1
        self.searcher.tell(evaluation.candidate.id, told)
        self._may_ask = True
        if told.ok and self.budget.reached(told.values):
            self._target_reached = True
        self.observer.evaluated(evaluation)
        self._check()

    def generation_of(self, candidate: Candidate) -> int:
        """The block a candidate counts in, from 0."""
        return generation_of(candidate, self.pool_size)

    def end(self, reason: str) -> None:
        """Note in the journal that the search ended in an orderly way."""
        self.journal.write([{"t": "end", "reason": reason, "at": time.time()}])
        self.journal.sync()

    def resumed(self) -> None:
        """Note in the journal that this process goes on from here."""
        self.journal.write([{"t": "resumed", "at": time.time(), "version": __version__}])


def generation_of(candidate: Candidate, pool_size: int) -> int:
    """The block a candidate counts in, from 0, also for searchers that have none of their own."""
    return int(candidate.id) // pool_size if candidate.generation is None else candidate.generation


def recorded_evaluation(record: dict[str, Any], candidate: Candidate, generation: int) -> Evaluation:
    """The evaluation that an ``outcome`` record of a journal tells of."""
    normalized = record.get("normalized")
    return Evaluation(
        candidate,
        generation,
        Outcome.from_dict(record["outcome"]),
        None if normalized is None else tuple(normalized),
        record.get("worker", ""),
        record.get("metadata", ""),
        record.get("place", {}),
        replayed=True,
        at=record.get("at") or 0.0,
    )


def _ask_record(n: int, candidates: list[Candidate]) -> dict[str, Any]:
    return {
        "t": "ask",
        "n": n,
        "candidates": [
            {"id": c.id, "row": list(c.row), "generation": c.generation, "config": c.config}
            for c in candidates
        ],
    }


def _outcome_record(evaluation: Evaluation, report: Report) -> dict[str, Any]:
    record: dict[str, Any] = {
        "t": "outcome",
        "id": evaluation.candidate.id,
        "outcome": evaluation.outcome.to_dict(),
        "worker": report.worker,
        "at": evaluation.at,
    }
    if report.baseline is not None:
        record["baseline"] = list(report.baseline)
    if evaluation.place:
        record["place"] = dict(evaluation.place)
    if evaluation.metadata:
        record["metadata"] = evaluation.metadata
    if evaluation.normalized is not None:
        record["normalized"] = list(evaluation.normalized)
    return record


def _normalized(outcome: Outcome, report: Report) -> tuple[float, ...] | None:
    if report.normalized is not None:
        return report.normalized
    if report.baseline is None or not outcome.ok:
        return None
    if any(value == 0 for value in report.baseline):
        raise BaselineError(f"the baseline scored {report.baseline}; scores cannot be divided by zero")
    return tuple(value / base for value, base in zip(outcome.values, report.baseline, strict=True))
