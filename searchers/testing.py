"""The contract that every searcher passes, ours and yours.

Subclass `SearcherContract` in a test module, say how a searcher is made, and run pytest::

    class TestMine(SearcherContract):
        def make(self, space, **options):
            return MySearch(space, **options)

Attributes of the class switch off what an algorithm cannot promise.
"""

from __future__ import annotations

import json
import pickle
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from searchers.base import SpaceSearcher
from searchers.errors import OptionError, StateError
from searchers.lists import Permutation
from searchers.outcome import FAILURES, Candidate, Outcome
from searchers.params import Boolean, Choice, Literal, LogRange, PowerOfTwo, Range
from searchers.space import Space
from searchers.tune_testing import TunePromises

__all__ = ["SearcherContract", "loss", "sequence", "spaces"]

SPACES: dict[str, Callable[[], Space]] = {
    "ordered": lambda: Space({"x": Range(0, 9), "y": Range(0.0, 2.0, 0.25), "z": PowerOfTwo(1, 64)}),
    "mixed": lambda: Space(
        {
            "BLOCK_M": PowerOfTwo(16, 256),
            "stages": Range(1, 4),
            "order": Choice(["row", "col", None]),
            "fast_math": Boolean(),
            "flag": Literal("-x", knockout_prob=0.5),
            "lr": LogRange(1e-5, 1e-1, 9),
        },
        constraints=["BLOCK_M * stages <= 512", lambda c: c["order"] == "row" or c["stages"] > 1],
        default={"BLOCK_M": 64, "stages": 2, "order": "row", "fast_math": False, "lr": 1e-5},
    ),
    "nested": lambda: Space(
        {
            "algorithm": Choice(["a", "b"]),
            "tile": Range(1, 8, when="algorithm == 'a'"),
            "inner": {"loop": Permutation(3), "unroll": Range(1, 4, knockout_prob=0.3)},
            "pair": [Boolean(), PowerOfTwo(1, 8)],
        }
    ),
    "huge": lambda: Space({f"p{i}": Range(0, 99) for i in range(20)}),
}


def spaces() -> dict[str, Space]:
    """The spaces the contract is checked on, by name."""
    return {name: make() for name, make in SPACES.items()}


def loss(row: tuple[int, ...]) -> float:
    """A smooth objective of a row's levels with one minimum, the same everywhere."""
    return float(sum((level - 3 - i % 3) ** 2 * (1 + i % 4) for i, level in enumerate(row)))


def sequence(searcher: SpaceSearcher, n: int, batch: int = 8, fail_every: int = 7) -> list[tuple[int, ...]]:
    """Drive a searcher for `n` candidates and return the rows it proposed, in order."""
    rows: list[tuple[int, ...]] = []
    while len(rows) < n and not searcher.finished:
        candidates = searcher.ask(min(batch, n - len(rows)))
        if not candidates:
            break
        for candidate in candidates:
            rows.append(candidate.row)
            searcher.tell(candidate.id, label(candidate, searcher, fail_every))
    return rows


def label(candidate: Candidate, searcher: SpaceSearcher, fail_every: int = 7) -> Outcome:
    """An outcome for a candidate: `loss`, or for every seventh candidate a failure."""
    if fail_every and int(candidate.id) % fail_every == fail_every - 1:
        return Outcome(FAILURES[int(candidate.id) % len(FAILURES)])
    value = loss(candidate.row)
    return Outcome("ok", tuple(value + i * len(candidate.row) for i in range(searcher.n_objectives)))


class SearcherContract(TunePromises):
    """What a searcher promises; each test is one sentence of it.

    Attributes:
        fills_batches: ``ask(n)`` returns `n` candidates as long as the space has them.
        multi_objective: It takes lists of metrics.
        budget: How many candidates the tests may ask for at least.
    """

    fills_batches: ClassVar[bool] = True
    multi_objective: ClassVar[bool] = True
    budget: ClassVar[int] = 200

    @abstractmethod
    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        """A new searcher; `options` are ``metric``, ``mode``, ``seed`` and ``initial_configs``."""

    @pytest.fixture(params=sorted(SPACES))
    def space(self, request: pytest.FixtureRequest) -> Space:
        """Each of the spaces in turn."""
        return SPACES[request.param]()

    def test_candidates_are_valid_and_new(self, space: Space) -> None:
        """No constraint is broken and nothing is proposed twice."""
        searcher = self.make(space, seed=1)
        seen: set[int] = set()
        for _ in range(self.budget // 10):
            for candidate in searcher.ask(10):
                row = space.encode(candidate.config)  # raises if it is no member or breaks a constraint
                key = int(space.keys(row[None, :])[0])
                assert key not in seen, candidate.config
                seen.add(key)
                searcher.tell(candidate.id, label(candidate, searcher))

    def test_batches_are_filled(self, space: Space) -> None:
        """Without any outcome, as many candidates come as were asked for."""
        candidates = self.make(space, seed=1).ask(self.budget)
        assert len({c.id for c in candidates}) == len(candidates)
        if self.fills_batches:
            assert len(candidates) == min(self.budget, space.size or self.budget)

    def test_configs_are_fresh_objects(self, space: Space) -> None:
        """Changing one candidate's configuration changes nothing else."""
        searcher = self.make(space, seed=1)
        first = searcher.ask(1)[0]
        before = json.dumps(first.config, default=repr)
        first.config.clear()
        searcher.tell(first.id, Outcome("ok", (1.0,)))
        best = searcher.best
        assert best is not None
        assert json.dumps(best[0].config, default=repr) == before

    def test_same_seed_same_proposals(self, space: Space) -> None:
        """Seed, space and outcomes decide everything."""
        first = sequence(self.make(space, seed=5), self.budget)
        assert first == sequence(self.make(space, seed=5), self.budget)

    def test_seed_matters(self) -> None:
        """The generator is used: another seed proposes something else."""
        space = SPACES["huge"]()
        assert sequence(self.make(space, seed=1), 20) != sequence(self.make(space, seed=2), 20)

    def in_the_middle(self, space: Space, seed: int) -> tuple[SpaceSearcher, list[Candidate]]:
        """A searcher at work: some outcomes are outstanding, one label was replaced, one is wanted again."""
        searcher = self.make(space, seed=seed)
        done = sequence(searcher, self.budget // 3)
        outstanding = searcher.ask(5)
        for candidate in outstanding[3:]:
            searcher.tell(candidate.id, label(candidate, searcher))
        searcher.tell("1", Outcome("ok", tuple(2.0 * (i + 1) for i in range(searcher.n_objectives))))
        searcher.remeasure(str(len(done) - 1))
        return searcher, outstanding[:3]

    def goes_on(self, searcher: SpaceSearcher, outstanding: list[Candidate]) -> list[Any]:
        """What it proposes from then on: outcomes come late, out of order, and one much later."""
        proposed: list[Any] = [candidate.id for candidate in searcher.ask(2)]
        for candidate in reversed(outstanding[1:]):
            searcher.tell(candidate.id, label(candidate, searcher))
        proposed += sequence(searcher, self.budget // 3)
        for candidate in outstanding[:1]:
            searcher.tell(candidate.id, Outcome("ok", (-1.0,) * searcher.n_objectives))
        return [*proposed, *sequence(searcher, self.budget // 3), searcher.best, searcher.finished]

    def test_restored_in_the_middle(self, space: Space, tmp_path: Path) -> None:
        """Saved and restored at any moment, it goes on exactly as if nothing had happened."""
        whole, outstanding = self.in_the_middle(space, seed=3)
        whole.save(str(tmp_path / "state"))
        restored = self.make(space, seed=99)
        restored.restore(str(tmp_path / "state"))
        assert restored.n_pending == whole.n_pending
        assert self.goes_on(restored, outstanding) == self.goes_on(whole, outstanding)
        assert json.dumps(restored.get_state()) == json.dumps(whole.get_state())

    def test_state_of_another_space_is_refused(self, tmp_path: Path) -> None:
        """State is not loaded into a searcher it does not fit."""
        self.make(SPACES["ordered"](), seed=1).save(str(tmp_path / "state"))
        with pytest.raises(StateError, match="space"):
            self.make(SPACES["huge"](), seed=1).restore(str(tmp_path / "state"))

    def test_torn_state_is_refused(self, tmp_path: Path) -> None:
        """A damaged file is an error of ours."""
        searcher = self.make(SPACES["ordered"](), seed=1)
        (tmp_path / "state").write_text('{"version": 1, "sear')
        with pytest.raises(StateError, match="state"):
            searcher.restore(str(tmp_path / "state"))

    def test_survives_pickling(self, space: Space) -> None:
        """Ray Tune pickles a searcher when the Tuner is built; constraints may be lambdas."""
        import cloudpickle

        searcher, outstanding = self.in_the_middle(space, seed=3)
        copy: SpaceSearcher = pickle.loads(cloudpickle.dumps(searcher))
        assert copy.space is not None
        assert copy.space.fingerprint == space.fingerprint
        assert self.goes_on(copy, outstanding) == self.goes_on(searcher, outstanding)

    def test_every_failure_is_survived(self, space: Space) -> None:
        """With nothing but failures there is no incumbent, and proposals go on."""
        searcher = self.make(space, seed=1)
        for i in range(self.budget // 10):
            candidates = searcher.ask(10)
            for candidate in candidates:
                searcher.tell(candidate.id, Outcome(FAILURES[i % len(FAILURES)], message="x"))
        assert searcher.best is None
        assert searcher.front == []

    def test_nan_is_a_failure(self, space: Space) -> None:
        """NaN and infinity never become the incumbent."""
        searcher = self.make(space, seed=1)
        first, second, third = searcher.ask(3)
        searcher.tell(first.id, Outcome("ok", (float("nan"),)))
        searcher.tell(second.id, Outcome("ok", (float("-inf"),)))
        assert searcher.best is None
        searcher.tell(third.id, Outcome("ok", (5.0,)))
        assert searcher.best is not None
        assert searcher.best[0].id == third.id

    def test_unknown_and_late_tells(self, space: Space) -> None:
        """Unknown ids are ignored; outcomes may come in any order and much later."""
        searcher = self.make(space, seed=1)
        for unknown in ("nobody", "-1", "999999", "", "1" * 40, "²"):
            searcher.tell(unknown, Outcome("ok", (0.0,)))
        early = searcher.ask(5)
        for candidate in searcher.ask(20):
            searcher.tell(candidate.id, label(candidate, searcher))
        for candidate in reversed(early):
            searcher.tell(candidate.id, Outcome("ok", (-1.0 - int(candidate.id),)))
        assert searcher.best is not None
        assert searcher.best[0].id == early[-1].id
        assert searcher.ask(1) or searcher.finished

    def test_relabelling(self, space: Space) -> None:
        """A second label replaces the first; an identical one changes nothing."""
        searcher = self.make(space, seed=1)
        lucky, solid = searcher.ask(2)
        searcher.tell(lucky.id, Outcome("ok", (1.0,)))
        searcher.tell(solid.id, Outcome("ok", (2.0,)))
        state = json.dumps(searcher.get_state())
        searcher.tell(lucky.id, Outcome("ok", (1.0,)))
        assert json.dumps(searcher.get_state()) == state
        searcher.tell(lucky.id, Outcome("ok", (3.0,)))
        assert searcher.best is not None
        assert searcher.best[0].id == solid.id

    def test_remeasurement_keeps_the_id(self, space: Space) -> None:
        """A re-measurement comes next, under the id it had, and is not a new proposal."""
        searcher = self.make(space, seed=1)
        first = searcher.ask(1)[0]
        searcher.tell(first.id, Outcome("ok", (1.0,)))
        searcher.remeasure(first.id)
        assert not searcher.finished
        again = searcher.ask(1)[0]
        assert (again.id, again.config) == (first.id, first.config)
        with pytest.raises(OptionError, match="candidate_id"):
            searcher.remeasure("12345678")

    def test_remeasurements_come_first_and_replace(self, space: Space) -> None:
        """They precede what is new, in order, and a failure takes the place of a success."""
        searcher = self.make(space, seed=1)
        first, second = searcher.ask(2)
        searcher.tell(first.id, Outcome("ok", (1.0,)))
        searcher.tell(second.id, Outcome("ok", (2.0,)))
        proposed = searcher.n_proposed
        searcher.remeasure(second.id)
        searcher.remeasure(first.id)
        assert [candidate.id for candidate in searcher.ask(2)] == [second.id, first.id]
        assert searcher.n_proposed == proposed
        searcher.tell(first.id, Outcome("wrong"))
        assert searcher.best is not None
        assert searcher.best[0].id == second.id
        assert all(candidate.id not in (first.id, second.id) for candidate in searcher.ask(3))

    def test_waiting_ends_with_the_outcomes(self, space: Space) -> None:
        """Asked until nothing more comes, it goes on once all that is outstanding has been told."""
        searcher = self.make(space, seed=1)
        while searcher.n_proposed < self.budget and not searcher.finished:
            outstanding: list[Candidate] = []
            while len(outstanding) < 64 and (some := searcher.ask(7)):
                outstanding += some
            assert outstanding or searcher.finished, "it waits, and nothing is outstanding"
            for candidate in reversed(outstanding):
                searcher.tell(candidate.id, label(candidate, searcher))
            assert searcher.n_pending == 0

    def test_lost_and_throttled_are_no_labels(self, space: Space) -> None:
        """What was nobody's fault leaves a candidate pending."""
        searcher = self.make(space, seed=1)
        candidate = searcher.ask(1)[0]
        searcher.tell(candidate.id, Outcome("lost"))
        searcher.tell(candidate.id, Outcome("throttled"))
        assert searcher.n_pending == 1
        searcher.tell(candidate.id, Outcome("ok", (1.0,)))
        assert searcher.n_pending == 0
        assert searcher.best is not None

    def test_initial_configs_come_first(self) -> None:
        """They are proposed before anything else, in their order, and only once."""
        space = SPACES["ordered"]()
        wanted = [{"x": 3, "y": 0.5, "z": 4}, {"x": 9, "y": 2.0, "z": 64}]
        searcher = self.make(space, seed=1, initial_configs=[*wanted, wanted[0]])
        candidates = searcher.ask(20)
        assert [c.config for c in candidates[:2]] == wanted
        assert [c.config for c in candidates].count(wanted[0]) == 1

    def test_maximisation_mirrors_minimisation(self) -> None:
        """Maximising f proposes exactly what minimising -f does."""
        space = SPACES["huge"]()
        low, high = self.make(space, seed=1), self.make(space, metric="m", mode="max", seed=1)
        for _ in range(10):
            for one, other in zip(low.ask(5), high.ask(5), strict=True):
                assert one.row == other.row
                low.tell(one.id, Outcome("ok", (loss(one.row),)))
                high.tell(other.id, Outcome("ok", (-loss(one.row),)))
        assert low.best is not None
        assert high.best is not None
        assert low.best[0].id == high.best[0].id

    def test_several_objectives(self, space: Space) -> None:
        """Lists of metrics and modes are taken, and there is a front."""
        if not self.multi_objective:
            pytest.skip("one objective only")
        searcher = self.make(space, metric=["a", "b"], mode=["min", "max"], seed=1)
        for _ in range(self.budget // 10):
            for candidate in searcher.ask(10):
                values = (loss(candidate.row), float(sum(candidate.row)))
                searcher.tell(candidate.id, Outcome("ok", values))
        front = [outcome.values for _, outcome in searcher.front]
        assert front
        for a, b in front:
            assert not any(c <= a and d >= b and (c, d) != (a, b) for c, d in front), (
                "one member dominates another"
            )
        assert searcher.best is not None

    def test_wrong_number_of_values(self, space: Space) -> None:
        """Two values for one metric are refused with a word on what to do."""
        searcher = self.make(space, metric="a", mode="min", seed=1)
        candidate = searcher.ask(1)[0]
        with pytest.raises(OptionError, match="metric"):
            searcher.tell(candidate.id, Outcome("ok", (1.0, 2.0)))

    def test_several_values_without_a_metric(self, space: Space) -> None:
        """They make several objectives, or are refused before anything is lost by it."""
        searcher = self.make(space, seed=1)
        candidate = searcher.ask(1)[0]
        outcome = Outcome("ok", (1.0, 2.0))
        if not self.multi_objective:
            with pytest.raises(OptionError, match="one objective"):
                searcher.tell(candidate.id, outcome)
            outcome = Outcome("ok", (1.0,))
        searcher.tell(candidate.id, outcome)
        assert searcher.best is not None

    def test_small_space_is_exhausted(self) -> None:
        """Every configuration once, then it is finished; nothing hangs."""
        space = Space({"x": Range(0, 3), "y": Boolean(), "f": Literal("-f", knockout_prob=0.5)})
        searcher = self.make(space, seed=1)
        rows = sequence(searcher, 1000, batch=3)
        assert len(rows) == len(set(rows))
        if self.fills_batches:
            assert len(rows) == space.size == 16
        assert searcher.finished
        assert searcher.ask(5) == []
        searcher.tell("0", Outcome("ok", (-1.0,)))  # late, or measured again
        searcher.tell("999", Outcome("ok", (-2.0,)))
        assert searcher.best is not None
        assert searcher.best[0].id == "0"
        assert searcher.finished
        searcher.remeasure("0")
        assert not searcher.finished
        assert [candidate.id for candidate in searcher.ask(5)] == ["0"]
        assert searcher.finished

    @pytest.mark.parametrize(
        "options",
        [
            {"mode": "minimum"},
            {"metric": "a", "mode": ["min"]},
            {"metric": ["a", "b"], "mode": ["min"]},
            {"metric": ["a", "a"], "mode": ["min", "min"]},
            {"metric": 3},
            {"seed": -1},
            {"seed": "7"},
            {"initial_configs": "x"},
            {"initial_configs": None},
            {"initial_configs": {"x": 1}},
        ],
    )
    def test_bad_options_are_refused(self, options: dict[str, Any]) -> None:
        """A bad argument is named, before anything else happens."""
        with pytest.raises(OptionError, match=next(iter(options)) if len(options) == 1 else "m"):
            self.make(SPACES["ordered"](), **options)
