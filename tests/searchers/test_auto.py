"""What `auto` adds to `bayesian`: evolution when a model does not pay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from searchers import AutoSearch, BayesianSearch, Boolean, Choice, Outcome, Range, Space
from searchers import auto as module
from searchers.encoding import Matrix
from searchers.offspring import offspring
from searchers.outcome import Candidate
from searchers.testing import SPACES, loss


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What evaluations cost counts after ten of them, not 200."""
    monkeypatch.setattr(module, "_MODEL_FIRST", 10)


class Counted(AutoSearch):
    """Notes who made each proposal."""

    def __init__(self, space: Space, **options: object) -> None:
        super().__init__(space, **options)  # type: ignore[arg-type]
        self.bred: set[int] = set()

    def _breed(self, n: int) -> int:
        before = self.n_proposed
        made = super()._breed(n)
        self.bred |= set(range(before, self.n_proposed))
        return made


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
    ("space", "of_the_model"),
    [
        pytest.param(plane, lambda index: True, id="small"),
        pytest.param(SPACES["huge"], lambda index: index < 32 or index % 2 == 0, id="20 parameters"),
        pytest.param(lambda: flags(47), lambda index: index < 32 or index % 2 == 0, id="47 parameters"),
        pytest.param(lambda: flags(48), lambda index: index < 10 or index % 3 == 0, id="48 parameters"),
        pytest.param(lambda: flags(120), lambda index: index < 10 or index % 7 == 0, id="120 parameters"),
    ],
)
def test_in_a_large_space_they_take_turns(
    space: Callable[[], Space], of_the_model: Callable[[int], bool], batch: int
) -> None:
    """The first ten are random, and nobody's turn; so are the rest of a first batch."""
    searcher = Counted(space(), seed=3)
    drive(searcher, 80, batch)
    first = max(10, batch)
    assert searcher.bred == {index for index in range(first, 80) if not of_the_model(index)}


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
    rows = np.array([[5, 5, 5], [5, 5, 6], [5, 5, 7], [5, 6, 7], [1, 2, 3]])
    assert module._apart(rows, 2).tolist() == [[5, 5, 5], [5, 6, 7]]
    assert module._apart(rows, 4).tolist() == [[5, 5, 5], [5, 6, 7], [1, 2, 3], [5, 5, 6]]
    wide = np.zeros((3, 80), dtype=int)
    wide[1, :9], wide[2, :10] = 1, 1
    assert module._apart(wide, 2).tolist() == wide[[0, 2]].tolist()


@pytest.mark.parametrize(("run_s", "compile_s", "bred"), [(0.001, None, 30), (0.001, 1.0, 0), (0.5, None, 0)])
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
