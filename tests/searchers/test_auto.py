"""What `auto` adds to `bayesian`: evolution when a model does not pay."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from searchers import AutoSearch, BayesianSearch, Boolean, Choice, Outcome, Range, Space
from searchers import auto as module
from searchers.encoding import Matrix
from searchers.offspring import offspring
from searchers.outcome import Candidate
from searchers.testing import SPACES, loss
from searchers.trial import Trial


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What evaluations cost counts after ten of them, not 200."""
    monkeypatch.setattr(module, "_MODEL_FIRST", 10)


class Counted(AutoSearch):
    """Notes which proposals are the model's and which are random; the others are children."""

    def __init__(self, space: Space, **options: object) -> None:
        super().__init__(space, **options)  # type: ignore[arg-type]
        self.modelled: set[int] = set()
        self.random: set[int] = set()

    def _choose(self, outlook: Any) -> Matrix | None:
        self.modelled.add(self.n_proposed)
        return super()._choose(outlook)

    def _admit_random(self, n: int, **options: Any) -> list[Trial]:
        before = self.n_proposed
        made = super()._admit_random(n, **options)
        self.random |= set(range(before, self.n_proposed))
        return made

    @property
    def bred(self) -> set[int]:
        return set(range(self.n_proposed)) - self.modelled - self.random


def plane() -> Space:
    """Small enough for all configurations to be scored."""
    return Space({"x": Range(0, 99), "y": Range(0, 99)})


def flags(n: int) -> Space:
    return Space({f"f{i}": Boolean() for i in range(n)})


def told(candidate: Candidate, run_s: float | None = None, compile_s: float | None = None) -> Outcome:
    return Outcome("ok", (loss(candidate.row),), run_s=run_s, compile_s=compile_s)


def drive(searcher: AutoSearch, n: int, batch: int = 1, run_s: float | None = None) -> None:
    for _ in range(n // batch):
        for candidate in searcher.ask(batch):
            searcher.tell(candidate.id, told(candidate, run_s))


def test_it_is_the_model_at_first() -> None:
    space = SPACES["ordered"]()
    auto, model = AutoSearch(space, seed=3), BayesianSearch(space, seed=3)
    for _ in range(40):
        (one,), (other,) = auto.ask(1), model.ask(1)
        assert one.row == other.row
        auto.tell(one.id, told(one))
        model.tell(other.id, told(other))


@pytest.mark.parametrize("batch", [1, 8, 16])
def test_late_one_of_eight_is_the_models(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(module, "_MODEL_BUDGET", 32)
    searcher = Counted(SPACES["huge"](), seed=3)
    drive(searcher, 32 + 80, batch)
    assert not [index for index in searcher.bred if index < 32]
    assert len(searcher.bred) == 70


@pytest.mark.parametrize("batch", [1, 8, 16])
@pytest.mark.parametrize(
    ("space", "first", "every"),
    [
        pytest.param(plane, 10, 1, id="small"),
        pytest.param(SPACES["huge"], 10, 2, id="20 parameters"),
        pytest.param(lambda: flags(47), 10, 2, id="47 parameters"),
        pytest.param(lambda: flags(48), 32, 3, id="48 parameters"),
        pytest.param(lambda: flags(120), 32, 7, id="120 parameters"),
    ],
)
def test_in_a_large_space_they_take_turns(
    space: Callable[[], Space], first: int, every: int, batch: int
) -> None:
    """Random ones are only among the first: ten, or with many parameters 32, besides the model's turns."""
    searcher = Counted(space(), seed=3)
    drive(searcher, 80, batch)
    begin = max(10, batch)
    turns = {index for index in range(80) if index % every == 0 or (first < 32 and index < 32)}
    assert searcher.modelled == turns - set(range(begin))
    assert searcher.random == set(range(begin)) | (set(range(first)) - turns)
    assert len(searcher.bred) == 80 - len(searcher.modelled | searcher.random)


def tight() -> Space:
    """One configuration in a hundred is valid."""
    constraint = " + ".join(f"{i + 3} * x{i}" for i in range(12))
    return Space({f"x{i}": Range(0, 99) for i in range(12)}, constraints=[f"({constraint}) % 101 == 0"])


@pytest.mark.parametrize("batch", [1, 16])
def test_where_hardly_a_child_is_valid_nothing_is_left_to_chance(batch: int) -> None:
    searcher = Counted(tight(), seed=3)
    drive(searcher, 96, batch)
    assert searcher.random == set(range(max(10, batch)))
    assert {index for index in range(32, 96) if index % 2 == 0} <= searcher.modelled
    assert searcher.bred


def test_few_successes_are_left_to_the_model() -> None:
    searcher = Counted(SPACES["huge"](), seed=3)
    for index in range(64):
        (candidate,) = searcher.ask(1)
        searcher.tell(candidate.id, told(candidate) if index % 3 == 0 else Outcome("run_error"))
    assert not searcher.bred
    drive(searcher, 60)
    assert searcher.bred


@pytest.mark.parametrize("kept", [20, 40])
@pytest.mark.parametrize(
    "space", [SPACES["huge"], lambda: flags(120)], ids=["20 parameters", "120 parameters"]
)
def test_restored_it_goes_on(space: Callable[[], Space], kept: int) -> None:
    searcher = AutoSearch(space(), seed=3)
    drive(searcher, kept)
    pending = searcher.ask(5)
    restored = AutoSearch(space(), seed=4)
    restored.set_state(json.loads(json.dumps(searcher.get_state())))
    for one in (searcher, restored):
        for candidate in pending:
            one.tell(candidate.id, told(candidate))
    for _ in range(24):
        (candidate,), (same,) = searcher.ask(1), restored.ask(1)
        assert same == candidate
        searcher.tell(candidate.id, told(candidate))
        restored.tell(candidate.id, told(candidate))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search stalls after 16 outcomes, not 96."""
    monkeypatch.setattr(module, "_PATIENCE", 16)


def answer(searcher: AutoSearch, n: int, outcome: Callable[[Candidate, int], Outcome]) -> list[int]:
    """The starts at which the trials were proposed."""
    starts = []
    for _ in range(n):
        (candidate,) = searcher.ask(1)
        starts.append(searcher._start)
        searcher.tell(candidate.id, outcome(candidate, searcher.n_proposed - 1))
    return starts


def never_better(_: Candidate, index: int) -> Outcome:
    return Outcome("ok", (float(index % 2),), run_s=1.0)


def always_better(_: Candidate, index: int) -> Outcome:
    return Outcome("ok", (-float(index),), run_s=1.0)


@pytest.mark.usefixtures("impatient")
def test_where_it_stalls_it_begins_anew() -> None:
    """Sixteen after the best it will find; then it looks at everything for so many, and begins anew."""
    searcher = Counted(SPACES["huge"](), seed=3)
    starts = answer(searcher, 80, never_better)
    assert starts == [0] * 17 + [17] * 18 + [0] * 16 + [51] * 18 + [0] * 11
    assert searcher.random == {*range(10), *range(17, 27), *range(51, 61)}


@pytest.mark.usefixtures("impatient")
def test_it_begins_with_as_many_random_ones_as_at_first() -> None:
    """With many parameters all but the model's turns are, until 32 are known."""
    searcher = Counted(flags(120), seed=3)
    assert answer(searcher, 35, never_better) == [0] * 17 + [17] * 18
    assert searcher.random == {*range(35)} - {14, 28}
    assert searcher.modelled == {14, 28}


@pytest.mark.usefixtures("impatient")
def test_what_has_come_far_may_take_as_long_again() -> None:
    """The last half has to bring something, not the last 16."""
    starts = answer(
        AutoSearch(SPACES["huge"](), seed=3),
        130,
        lambda _, index: Outcome("ok", (-float(index) if index < 60 else 0.0,), run_s=1.0),
    )
    assert 105 < starts.count(0) < 120


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("best_first", [True, False])
def test_what_was_given_is_not_thrown_away(best_first: bool) -> None:
    """Of the points of an earlier search ten count: it has not stalled before it has begun."""
    space = SPACES["huge"]()
    searcher = AutoSearch(space, metric="v", mode="min", seed=3)
    rows = space.sample(60, np.random.default_rng(1))
    for row in sorted(rows, key=lambda row: loss(tuple(row.tolist())), reverse=not best_first):
        searcher.add_evaluated_point(space.decode(row), loss(tuple(row.tolist())))
    answer(searcher, 5, never_better)
    assert searcher._start == 0
    assert len(searcher._successes()) == 65


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("in_flight", [1, 12])
def test_with_many_in_flight_it_waits_for_six_rounds(in_flight: int) -> None:
    """And a beginning has as many outcomes of its own, whatever comes late."""
    searcher = AutoSearch(SPACES["huge"](), seed=3)
    pending = deque(searcher.ask(in_flight))
    own: dict[int, int] = {}
    while searcher.n_proposed < 350:
        candidate = pending.popleft()
        start = searcher._start
        searcher.tell(candidate.id, never_better(candidate, searcher.n_proposed - in_flight))
        own[start] = own.get(start, 0) + (start <= searcher.n_proposed - in_flight)
        pending.extend(searcher.ask(1))
    begun = [count for start, count in own.items() if start][:-1]
    assert begun
    assert min(begun) >= max(16, 6 * in_flight)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("sign", "stalls"), [(1.0, False), (-1.0, True)])
def test_more_may_be_better(sign: float, stalls: bool) -> None:
    searcher = AutoSearch(SPACES["huge"](), metric="v", mode="max", seed=3)
    starts = answer(searcher, 40, lambda _, index: Outcome("ok", (sign * index,), run_s=1.0))
    assert (set(starts) != {0}) == stalls


@pytest.mark.usefixtures("impatient")
def test_what_fails_is_not_forgotten() -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=3)

    def outcome(candidate: Candidate, index: int) -> Outcome:
        return Outcome("run_error") if index % 5 == 4 else never_better(candidate, index)

    while not searcher._start:
        known = searcher._feasibility
        answer(searcher, 1, outcome)
    assert known is not None
    assert searcher._feasibility is known
    assert searcher._turn == 0


def test_no_child_of_before_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 40)
    searcher = Counted(SPACES["huge"](), seed=3)
    answer(searcher, 41, never_better)
    assert searcher.bred
    assert searcher._offspring
    searcher.ask(1)
    assert searcher._start == 41
    assert not searcher._offspring


@pytest.mark.usefixtures("impatient")
def test_a_start_learns_from_nothing_before_it() -> None:
    """Nor from what was pending then. What failed, and what did not, is known."""
    searcher = Counted(SPACES["huge"](), seed=3)
    (late,) = searcher.ask(1)
    answer(searcher, 18, never_better)
    (candidate,) = searcher.ask(1)
    assert searcher._start == 19
    for one in (late, candidate):
        searcher.tell(one.id, told(one))
    assert searcher._successes() == searcher._unranked == [19]
    assert len(searcher._observed) == 20


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("space", "options", "outcome"),
    [
        pytest.param(SPACES["huge"], {}, always_better, id="it goes on"),
        pytest.param(
            SPACES["huge"], {}, lambda _, i: Outcome("ok", (1e6 - i,), run_s=1.0), id="it goes on far from 0"
        ),
        pytest.param(
            SPACES["huge"],
            {},
            lambda _, i: Outcome("ok", (1e6 if i % 2 else 100 * 0.8**i,), run_s=1.0),
            id="it goes on, and the bad ones are much worse",
        ),
        pytest.param(SPACES["huge"], {}, lambda *_: Outcome("run_error"), id="nothing has succeeded"),
        pytest.param(plane, {}, never_better, id="small"),
        pytest.param(
            SPACES["huge"],
            {"metric": ["a", "b"], "mode": ["min", "min"]},
            lambda *_: Outcome("ok", (1.0, 1.0), run_s=1.0),
            id="two objectives",
        ),
    ],
)
def test_otherwise_it_does_not(
    space: Callable[[], Space], options: dict[str, Any], outcome: Callable[[Candidate, int], Outcome]
) -> None:
    assert set(answer(AutoSearch(space(), seed=3, **options), 60, outcome)) == {0}


@pytest.mark.usefixtures("impatient")
def test_small_progress_is_none() -> None:
    """A hundredth of the way from the median to the best in 16 outcomes, and a tenth and more."""

    def creeping(step: float) -> Callable[[Candidate, int], Outcome]:
        return lambda _, index: Outcome("ok", (-step * index if index % 2 else 100.0,), run_s=1.0)

    assert set(answer(AutoSearch(SPACES["huge"](), seed=3), 40, creeping(0.05))) != {0}
    assert set(answer(AutoSearch(SPACES["huge"](), seed=3), 40, creeping(5.0))) == {0}


@pytest.mark.usefixtures("impatient")
def test_of_times_it_is_the_ratio_that_counts() -> None:
    """The median is a thousand times the best, of which a tenth is a factor of two."""

    def faster(factor: float) -> Callable[[Candidate, int], Outcome]:
        return lambda _, index: Outcome("ok", (factor ** (index // 16) if index % 2 else 1e3,), run_s=1.0)

    assert set(answer(AutoSearch(SPACES["huge"](), seed=3), 48, faster(0.6))) != {0}
    assert set(answer(AutoSearch(SPACES["huge"](), seed=3), 48, faster(0.3))) == {0}


@pytest.mark.usefixtures("impatient")
def test_a_start_that_fails_is_given_up() -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=3)
    answer(searcher, 17, never_better)
    starts = answer(searcher, 30, lambda *_: Outcome("compile_error"))
    assert starts == [17] * 16 + [0] * 14


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("late", ["many", "cheap"])
def test_late_it_looks_at_everything(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=3)
    answer(searcher, 20, never_better)
    assert searcher._start == 17
    if late == "many":
        monkeypatch.setattr(module, "_MODEL_BUDGET", 20)
    else:
        monkeypatch.setattr(searcher, "_cheap", lambda: True)
    assert answer(searcher, 60, never_better) == [0] * 60
    assert len(searcher._survivors) + len(searcher._unranked) >= 64


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kept", [16, 20, 40, 52])
def test_restored_it_begins_anew_as_it_would_have(kept: int) -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=3)
    answer(searcher, kept, never_better)
    restored = AutoSearch(SPACES["huge"](), seed=4)
    restored.set_state(json.loads(json.dumps(searcher.get_state())))
    for index in range(kept, kept + 20):
        (candidate,), (same,) = searcher.ask(1), restored.ask(1)
        assert same == candidate
        assert restored._start == searcher._start
        for one in (searcher, restored):
            one.tell(candidate.id, never_better(candidate, index))


def test_several_objectives_are_left_to_the_model() -> None:
    searcher = Counted(SPACES["huge"](), metric=["a", "b"], mode=["min", "min"], seed=3)
    for _ in range(40):
        (candidate,) = searcher.ask(1)
        searcher.tell(candidate.id, Outcome("ok", (loss(candidate.row), float(candidate.row[0])), run_s=1.0))
    assert not searcher.bred


@pytest.fixture
def parents(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parents each generation of children has."""
    counts: list[int] = []

    def noted(space: Space, rows: Matrix, n: int, rng: np.random.Generator) -> Matrix:
        counts.append(len(rows))
        return offspring(space, rows, n, rng)

    monkeypatch.setattr(module, "offspring", noted)
    return counts


def test_nothing_is_bred_from_a_few(parents: list[int]) -> None:
    """With many parameters others take turns with the model at first: random ones until 32 are known."""
    searcher = AutoSearch(flags(120), seed=3)
    drive(searcher, 32)
    assert not parents
    drive(searcher, 16)
    assert set(parents) == {8}


def test_the_more_is_known_the_more_parents(parents: list[int]) -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=3)
    for known, count in [(100, 8), (640, 10), (4160, 64)]:
        drive(searcher, known - searcher.n_proposed, run_s=0.001)
        searcher._offspring.clear()
        (candidate,) = searcher.ask(1)
        searcher.tell(candidate.id, told(candidate, 0.001))
        assert parents[-1] == count


def test_parents_are_not_variants_of_one() -> None:
    states = np.array([[5, 5, 5], [5, 5, 6], [5, 5, 7], [5, 6, 7], [1, 2, 3]])
    assert module._apart(states, 2) == [0, 3]
    assert module._apart(states, 4) == [0, 3, 4, 1]
    wide = np.zeros((3, 80), dtype=int)
    wide[1, :9], wide[2, :10] = 1, 1
    assert module._apart(wide, 2) == [0, 2]


def test_what_is_absent_makes_no_variants() -> None:
    """Parents differ in what they are, not in the levels of parameters that they do not have."""
    kinds = "abcd"
    ranges = {f"{kind}{i}": Range(0, 99, when=f"kind == '{kind}'") for kind in kinds for i in range(2)}
    space = Space({"kind": Choice(list(kinds)), "always": Range(0, 99)} | ranges)
    searcher = AutoSearch(space, seed=3)
    drive(searcher, 300, run_s=0.001)
    rows = searcher._parents()
    states = space.encoding.states(rows, space.inactive(rows))
    assert len(rows) == 8
    assert min((states[i] != states[j]).sum() for i in range(8) for j in range(i)) >= 2


@pytest.mark.parametrize(("run_s", "compile_s", "bred"), [(0.001, None, 8), (0.001, 1.0, 0), (0.5, None, 0)])
def test_cheap_evaluations(run_s: float, compile_s: float | None, bred: int) -> None:
    """They are not worth a model; compiling is part of what an evaluation takes."""
    searcher = Counted(plane(), seed=3)
    for _ in range(40):
        for candidate in searcher.ask(1):
            searcher.tell(candidate.id, told(candidate, run_s, compile_s))
    assert len(searcher.bred) == bred


def test_it_notices_that_they_have_become_dear() -> None:
    searcher = Counted(plane(), seed=3)
    drive(searcher, 60, run_s=0.001)
    drive(searcher, 40, run_s=1.0)
    assert searcher.bred
    assert max(searcher.bred) < 60 + 20


@pytest.mark.parametrize("seed", range(3))
def test_children_improve(seed: int) -> None:
    """Evolution alone, on a space in which random search has no chance."""
    searcher = Counted(SPACES["huge"](), seed=seed)
    drive(searcher, 100, run_s=0.001)
    assert searcher.best is not None
    early = searcher.best[1].values[0]
    drive(searcher, 3000, run_s=0.001)
    assert len(searcher.bred) > 3000
    assert searcher.best[1].values[0] < 0.1 * early


def test_two_objectives_of_cheap_evaluations() -> None:
    searcher = AutoSearch(
        Space({"x": Range(0, 999), "y": Range(0, 99)}), metric=["a", "b"], mode=["min", "min"], seed=1
    )
    for _ in range(600):
        for candidate in searcher.ask(1):
            x, y = candidate.row
            searcher.tell(candidate.id, Outcome("ok", (x + 10.0 * y, 999.0 - x + 10 * y), run_s=0.001))
    front = [outcome.values for _, outcome in searcher.front]
    assert len(front) >= 20
    assert sum(a + b == 999.0 for a, b in front) >= 20


def test_the_survivors_are_the_best() -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=1)
    drive(searcher, 400, run_s=0.001)
    known = sorted(loss(candidate) for candidate in (tuple(t.row.tolist()) for t in searcher._trials))
    survivors = [loss(tuple(searcher._trials[i].row.tolist())) for i in searcher._survivors]
    assert len(survivors) == 64
    assert survivors == sorted(survivors)
    assert survivors[0] <= known[5]


def test_a_second_label_makes_a_parent_or_unmakes_it() -> None:
    searcher = AutoSearch(SPACES["huge"](), seed=1)
    first = searcher.ask(40)
    for candidate in first:
        searcher.tell(candidate.id, Outcome("run_error", run_s=0.001))
    for candidate in first:
        searcher.tell(candidate.id, told(candidate, 0.001))
    searcher.ask(5)
    best = sorted(range(40), key=lambda index: loss(first[index].row))
    assert searcher._survivors == best
    for index in best[:2]:
        searcher.tell(first[index].id, Outcome("run_error"))
    assert len(searcher.ask(100)) == 100
    assert searcher._survivors == best[2:]


def test_the_first_two_hundred_are_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """However cheap: together they cost a second, and the model finds more."""
    monkeypatch.undo()
    searcher = Counted(plane(), seed=3)
    drive(searcher, 220, run_s=0.001)
    assert searcher.bred == set(range(200, 220))


def test_a_space_in_which_children_run_out() -> None:
    space = Space({"x": Range(0, 19), "c": Choice(["a", "b", "c"])})
    searcher = AutoSearch(space, seed=1)
    drive(searcher, 80, run_s=0.001)
    assert searcher.n_proposed == 60
    assert searcher.finished
