"""The order of ask, disk, dispatch and tell; budgets, resends and replay, with a worker made of a list."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.engine import MAX_RESENDS, Budget, Engine, Evaluation
from ciq_ray.errors import BaselineError, JournalError, WorkerError
from ciq_ray.journal import FILE_NAME, Journal, read_records
from ciq_ray.worker.protocol import Report, StreamingWorker, Task
from searchers import GeneticSearch, Outcome, RandomSearch, Range, Space
from searchers.base import SpaceSearcher

SPACE = Space({"x": Range(0, 999), "y": Range(0, 9)})


@pytest.fixture
def safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Returns the journal's records that are known to be on the disk: those an `fsync` has covered."""
    covered = [0]
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        fsync(descriptor)
        covered[0] = max(covered[0], size)

    monkeypatch.setattr("ciq_ray.journal.os.fsync", noting)

    def records() -> list[dict[str, Any]]:
        data = (tmp_path / FILE_NAME).read_bytes()[: covered[0]]
        whole, _, _ = data.rpartition(b"\n")  # the file's size may have been taken in the middle of a write
        return [json.loads(line) for line in whole.splitlines()]

    return records


class ListWorker:
    """Evaluates in this process, the newest task first; what happens to it is up to `answer`."""

    def __init__(self, folder: Path, slots: int, answer: Callable[[Task], Report]) -> None:
        self.folder = folder
        self.slots = slots
        self.answer = answer
        self.tasks: list[Task] = []
        self.submitted: list[str] = []
        self.before_submit: Callable[[Task], None] = lambda task: None

    def open(self, function: Any, **options: Any) -> None:
        pass

    @property
    def free(self) -> int:
        return self.slots - len(self.tasks)

    def submit(self, task: Task) -> None:
        assert self.free > 0
        self.before_submit(task)
        self.submitted.append(task.id)
        self.tasks.append(task)

    def poll(self, timeout: float) -> list[Report]:
        return [self.answer(self.tasks.pop())] if self.tasks else []

    def cancel(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []

    def evaluated(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    def tick(self) -> None:
        pass


def value(task: Task) -> Report:
    return Report(task.id, Outcome("ok", (float(task.config["x"]),)), worker="list")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Makes an engine; `reopen=True` goes on with the journal there is."""
    journals: list[Journal] = []

    def make_engine(
        searcher: SpaceSearcher | None = None,
        answer: Callable[[Task], Report] = value,
        *,
        slots: int = 2,
        reopen: bool = False,
        **options: Any,
    ) -> Engine:
        for journal in journals:
            journal.close()
        journal = Journal.reopen(tmp_path) if reopen else Journal.create(tmp_path, {})
        journals.append(journal)
        searcher = genetic() if searcher is None else searcher
        options = {"budget": Budget(), "observer": Told(), "pool_size": 10, **options}
        return Engine(searcher, ListWorker(tmp_path, slots, answer), journal, **options)

    yield make_engine
    for journal in journals:
        journal.close()


def genetic(**options: Any) -> GeneticSearch:
    return GeneticSearch(
        SPACE, **{"generations": 4, "pool_size": 10, "seed": 3, "metric": "score", **options}
    )


def outcomes(folder: Path) -> list[str]:
    return [record["id"] for record in read_records(folder) if record["t"] == "outcome"]


def test_worker_of_these_tests_follows_the_protocol(tmp_path):
    assert isinstance(ListWorker(tmp_path, 1, value), StreamingWorker)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_every_candidate_is_evaluated_once(make, tmp_path, slots):
    engine = make(slots=slots)
    assert engine.run() == "finished"
    assert sorted(map(int, outcomes(tmp_path))) == list(range(40))
    assert engine.searcher.n_pending == 0
    assert len(engine.observer.evaluations) == 40


@pytest.mark.parametrize("slots", [1, 3])
def test_nothing_runs_whose_ask_is_not_safe_on_the_disk(make, safe, slots):
    engine = make(slots=slots)

    def check(task: Task) -> None:
        # what the proposal was derived from came before it in the file, so it is safe too
        asked = [c for record in safe() if record["t"] == "ask" for c in record["candidates"]]
        assert (task.id, task.config) in [(c["id"], c["config"]) for c in asked]

    engine.worker.before_submit = check
    engine.run()
    assert len(engine.worker.submitted) == 40


def test_outcomes_are_written_before_the_searcher_learns_of_them(make, tmp_path):
    class Checking(GeneticSearch):
        def tell(self, candidate_id: str, outcome: Outcome) -> None:
            assert candidate_id in outcomes(tmp_path)
            super().tell(candidate_id, outcome)

    engine = make(Checking(SPACE, generations=2, pool_size=10, seed=1))
    engine.run()
    assert engine.searcher.n_pending == 0


def test_no_worker_waits_for_the_searcher(make):
    """A slot that comes free is filled from stock before the searcher is told."""
    idle: list[int] = []

    class Noting(GeneticSearch):
        def tell(self, candidate_id: str, outcome: Outcome) -> None:
            idle.append(engine.worker.free)
            super().tell(candidate_id, outcome)

    engine = make(Noting(SPACE, generations=4, pool_size=10, seed=1), slots=2)
    engine.run()
    assert set(idle[:-4]) == {0}


def test_searcher_that_does_not_look_ahead_is_asked_for_no_more_than_fits(make):
    class Careful(GeneticSearch):
        looks_ahead = False

    engine = make(Careful(SPACE, generations=2, pool_size=10, seed=1), slots=3)
    in_stock = []
    engine.worker.before_submit = lambda task: in_stock.append(
        engine.searcher.n_proposed - len(engine.worker.submitted)
    )
    engine.run()
    assert max(in_stock) <= 3


@pytest.mark.parametrize("limit", [1, 7, 23])
def test_max_evaluations_is_exact(make, tmp_path, limit):
    engine = make(slots=4, budget=Budget(max_evaluations=limit))
    assert engine.run() == "max_evaluations"
    assert len(outcomes(tmp_path)) == limit


def test_target_ends_the_search_and_what_is_in_flight_is_awaited(make, tmp_path):
    def answer(task: Task) -> Report:
        return Report(task.id, Outcome("ok", (0.0 if task.id == "5" else 9.0,)))

    engine = make(slots=3, answer=answer, budget=Budget(target=(0.5,)))
    assert engine.run() == "target"
    assert set(outcomes(tmp_path)) == set(engine.worker.submitted)
    assert "5" in outcomes(tmp_path)
    assert len(outcomes(tmp_path)) < 15


@pytest.mark.parametrize(
    ("modes", "values", "reached"),
    [
        (("min",), (1.0,), True),
        (("min",), (1.01,), False),
        (("max",), (0.99,), False),
        (("max",), (1.0,), True),
        (("min", "max"), (0.0, 2.0), True),
        (("min", "max"), (0.0, 0.0), False),
    ],
)
def test_target_counts_in_the_direction_of_each_objective(modes, values, reached):
    assert Budget(target=(1.0,) * len(modes), modes=modes).reached(values) is reached
    assert not Budget(modes=modes).reached(values)


def test_time_budget(make, monkeypatch, tmp_path):
    ticks = itertools.count()
    monkeypatch.setattr("ciq_ray.engine.time.monotonic", lambda: float(next(ticks)))
    assert make(budget=Budget(time_budget_s=10)).run() == "time_budget"
    assert 0 < len(outcomes(tmp_path)) < 15


def test_stop_request(make, tmp_path):
    engine = make(slots=3)
    engine._stop_requested = lambda: len(outcomes(tmp_path)) >= 5
    assert engine.run() == "stopped"
    assert set(outcomes(tmp_path)) == set(engine.worker.submitted), "what was in flight is awaited"
    assert 5 <= len(outcomes(tmp_path)) <= 8


def test_check_ends_the_search_with_its_error(make, tmp_path):
    def check() -> None:
        if len(outcomes(tmp_path)) == 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(check=check).run()


def test_searcher_that_gets_stuck_is_an_error(make):
    class Stuck(RandomSearch):
        def _propose(self, n: int) -> None:
            if len(self._trials) < 4:
                self._admit_random(1)

    with pytest.raises(WorkerError, match="proposes nothing although it waits for nothing"):
        make(Stuck(SPACE, count=10, seed=1)).run()


def test_what_is_lost_is_sent_again_and_never_told(make, tmp_path):
    tries: dict[str, int] = {}

    def answer(task: Task) -> Report:
        tries[task.id] = tries.get(task.id, 0) + 1
        if task.id in ("3", "4") and tries[task.id] <= MAX_RESENDS:
            status = "lost" if task.id == "3" else "throttled"
            return Report(task.id, Outcome(status, message="the node died"))
        return value(task)

    told = Told()
    make(answer=answer, observer=told).run()
    again = [r["id"] for r in read_records(tmp_path) if r["t"] == "again"]
    assert sorted(again) == ["3"] * MAX_RESENDS + ["4"] * MAX_RESENDS
    assert all(evaluation.outcome.ok for evaluation in told.evaluations)
    assert sorted(map(int, outcomes(tmp_path))) == list(range(40))


def test_what_is_always_lost_is_the_suspect_in_the_end(make, tmp_path):
    def answer(task: Task) -> Report:
        return Report(task.id, Outcome("lost", message="gone")) if task.id == "2" else value(task)

    told = Told()
    engine = make(answer=answer, observer=told)
    assert engine.run() == "finished"
    [failed] = [e for e in told.evaluations if not e.outcome.ok]
    assert failed.candidate.id == "2"
    assert failed.outcome.status == "run_error"
    assert failed.outcome.message == "lost 4 times, the last time: gone"
    assert engine.worker.submitted.count("2") == 1 + MAX_RESENDS


def test_normalised_values_are_told_and_raw_ones_kept(make, tmp_path):
    def answer(task: Task) -> Report:
        return Report(task.id, Outcome("ok", (30.0,), spread=(1.0,)), baseline=(10.0,))

    told = Told()
    engine = make(answer=answer, observer=told, budget=Budget(max_evaluations=3))
    engine.run()
    assert [(e.outcome.values, e.normalized, e.told.values) for e in told.evaluations] == [
        ((30.0,), (3.0,), (3.0,))
    ] * 3
    assert told.evaluations[0].told.spread is None
    _, best = engine.searcher.best
    assert best.values == (3.0,)
    record = next(record for record in read_records(tmp_path) if record["t"] == "outcome")
    assert (record["outcome"]["values"], record["baseline"], record["normalized"]) == ([30.0], [10.0], [3.0])


def test_worker_that_normalises_itself_is_believed(make):
    told = Told()

    def answer(task: Task) -> Report:
        return Report(task.id, Outcome("ok", (30.0,)), baseline=(10.0,), normalized=(7.0,))

    make(answer=answer, observer=told, budget=Budget(max_evaluations=1)).run()
    assert told.evaluations[0].told.values == (7.0,)


def test_failure_has_no_normalised_values(make):
    told = Told()

    def answer(task: Task) -> Report:
        return Report(task.id, Outcome("wrong"), baseline=(10.0,))

    make(answer=answer, observer=told, budget=Budget(max_evaluations=1)).run()
    assert told.evaluations[0].normalized is None
    assert told.evaluations[0].told.status == "wrong"


def test_baseline_of_zero_is_an_error(make):
    def answer(task: Task) -> Report:
        return Report(task.id, Outcome("ok", (30.0,)), baseline=(0.0,))

    with pytest.raises(BaselineError, match="cannot be divided by zero"):
        make(answer=answer).run()


# -- replay ---------------------------------------------------------------------------------------


def cut(folder: Path, records: int) -> None:
    """Leave the header and so many records, as a kill would."""
    lines = (folder / FILE_NAME).read_bytes().splitlines(keepends=True)
    (folder / FILE_NAME).write_bytes(b"".join(lines[: records + 1]))


@pytest.mark.parametrize("generational", [False, True])
def test_replay_of_any_beginning_leads_to_the_same_search(make, tmp_path, generational):
    """Cut the journal after each of its records, as if the driver had been killed right there."""
    first = make(genetic(generational=generational, generations=2), slots=1)
    first.run()
    whole = (tmp_path / FILE_NAME).read_bytes()
    proposed = [trial.row.tolist() for trial in first.searcher._trials]
    for length in range(len(whole.splitlines())):
        (tmp_path / FILE_NAME).write_bytes(whole)
        cut(tmp_path, length)
        known = outcomes(tmp_path)
        engine = make(genetic(generational=generational, generations=2), slots=1, reopen=True)
        assert engine.replay(read_records(tmp_path)) == len(known)
        assert engine.run() == "finished"
        assert not set(known) & set(engine.worker.submitted)
        assert sorted(map(int, outcomes(tmp_path))) == list(range(20))
        assert [trial.row.tolist() for trial in engine.searcher._trials] == proposed


def test_replay_restores_the_state_of_the_searcher(make, tmp_path):
    first = make(budget=Budget(max_evaluations=25), slots=3)
    first.run()
    second = make(slots=3, reopen=True)
    assert second.replay(read_records(tmp_path)) == 25
    assert second.searcher.get_state() == first.searcher.get_state()
    assert all(evaluation.replayed for evaluation in second.observer.evaluations)
    assert [e.outcome for e in second.observer.evaluations] == [e.outcome for e in first.observer.evaluations]


def test_what_was_in_flight_is_run_before_anything_new(make, tmp_path):
    make(slots=2).run()
    cut(tmp_path, 1)  # the first ask, of four candidates
    engine = make(slots=2, reopen=True)
    engine.replay(read_records(tmp_path))
    engine.run()
    assert engine.worker.submitted[:4] == ["0", "1", "2", "3"]


def test_replay_counts_against_the_budget(make, tmp_path):
    make(budget=Budget(max_evaluations=12)).run()
    engine = make(reopen=True, budget=Budget(max_evaluations=15))
    engine.replay(read_records(tmp_path))
    assert engine.run() == "max_evaluations"
    assert len(engine.worker.submitted) == 3


def test_replay_of_a_reached_target_has_nothing_left_to_do(make, tmp_path):
    make(budget=Budget(target=(1e9,))).run()
    engine = make(reopen=True, budget=Budget(target=(1e9,)))
    engine.replay(read_records(tmp_path))
    assert engine.run() == "target"
    assert engine.worker.submitted == []


@pytest.mark.parametrize("change", [{"seed": 4}, {"pool_size": 12}, {"mutate_rate": 0.9}])
def test_replay_into_another_searcher_is_refused(make, tmp_path, change):
    make().run()
    engine = make(genetic(**change), reopen=True)
    with pytest.raises(JournalError, match=r"does not propose what .* says it did"):
        engine.replay(read_records(tmp_path))


@pytest.mark.parametrize(
    "record",
    [
        {"t": "outcome", "id": "99", "outcome": {"status": "ok", "values": [1]}},
        {"t": "outcome", "id": "0"},
        {"t": "outcome", "id": "0", "outcome": 5},
        {"t": "outcome", "id": "0", "outcome": {"status": "excellent"}},
        {"t": "outcome", "id": "0", "outcome": {"status": "ok", "values": [1, 2, 3]}},
        {"t": "outcome", "id": "0", "outcome": {"status": "ok", "values": [1]}, "normalized": 3},
        {"t": "outcome", "id": ["0"], "outcome": {"status": "ok", "values": [1]}},
        {"t": "ask"},
        {"t": "ask", "n": "x", "candidates": []},
        {"t": "ask", "n": -1, "candidates": []},
        {"t": "ask", "n": 1, "candidates": 3},
        {"t": "ask", "n": 1, "candidates": [{}]},
    ],
)
def test_record_that_does_not_fit_is_refused(make, tmp_path, record):
    make(budget=Budget(max_evaluations=1)).run()
    cut(tmp_path, 1)
    engine = make(reopen=True)
    with pytest.raises(JournalError, match="has a record that does not fit"):
        engine.replay([*read_records(tmp_path), record])


def test_unknown_kinds_of_record_are_passed_over(make, tmp_path):
    make(budget=Budget(max_evaluations=3)).run()
    engine = make(reopen=True)
    assert engine.replay([{"t": "comment"}, *read_records(tmp_path), {"text": "no kind"}]) == 3


def test_orderly_end_and_resumption_are_noted(make, tmp_path):
    engine = make(budget=Budget(max_evaluations=1))
    engine.resumed()
    engine.end(engine.run())
    kinds = [record["t"] for record in read_records(tmp_path)]
    assert kinds == ["resumed", "ask", "outcome", "end"]
    assert list(read_records(tmp_path))[-1]["reason"] == "max_evaluations"
