"""Every searcher of ours passes the contract suite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from searchers import (
    AutoSearch,
    BayesianSearch,
    DESurrogateHybrid,
    DifferentialEvolutionSearch,
    FiniteSearch,
    GeneticSearch,
    LFBOPatternSearch,
    LFBOTreeSearch,
    Outcome,
    PatternSearch,
    RandomSearch,
    Range,
    Space,
    SpaceSearcher,
)
from searchers.encoding import Matrix
from searchers.testing import SearcherContract


class TestGenetic(SearcherContract):
    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return GeneticSearch(space, **options)


class TestSmallGenetic(SearcherContract):
    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return GeneticSearch(space, pool_size=6, cull_size=2, mutate_rate=0.9, **options)


class TestGenerational(SearcherContract):
    fills_batches = False

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return GeneticSearch(space, pool_size=30, generational=True, **options)


class TestRandom(SearcherContract):
    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return RandomSearch(space, **options)


class TestPattern(SearcherContract):
    fills_batches = False
    multi_objective = False

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return PatternSearch(space, initial_population=20, copies=3, **options)


class TestLFBOPattern(SearcherContract):
    fills_batches = False
    multi_objective = False
    budget = 40

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        searcher = LFBOPatternSearch(space, initial_population=15, copies=3, num_neighbors=100, **options)
        searcher.n_trees = 10  # a generation in a tenth of the time
        return searcher


class TestLFBOTree(SearcherContract):
    fills_batches = False
    multi_objective = False
    budget = 40

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        searcher = LFBOTreeSearch(space, initial_population=15, copies=3, num_neighbors=100, **options)
        searcher.n_trees = 10
        return searcher


class TestDifferentialEvolution(SearcherContract):
    fills_batches = False
    multi_objective = False

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return DifferentialEvolutionSearch(space, **options)


class TestGenerationalDifferentialEvolution(SearcherContract):
    fills_batches = False
    multi_objective = False

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return DifferentialEvolutionSearch(space, 5, 400, 0.5, False, **options)


class TestDESurrogate(SearcherContract):
    fills_batches = False
    multi_objective = False
    budget = 100

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return DESurrogateHybrid(
            space, 20, surrogate_threshold=30, n_estimators=5, refit_frequency=3, patience=None, **options
        )


class TestBayesian(SearcherContract):
    budget = 60

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return BayesianSearch(space, **options)


class TestAuto(SearcherContract):
    budget = 60

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return AutoSearch(space, **options)


class _Cheap(AutoSearch):
    """Every evaluation has taken a millisecond, so that children take over from the model."""

    def tell(self, candidate_id: str, outcome: Outcome) -> None:
        super().tell(candidate_id, replace(outcome, run_s=0.001))


class TestCheapAuto(SearcherContract):
    """Where evaluations cost less than a model."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("searchers.auto._MODEL_FIRST", 10)

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return _Cheap(space, **options)


class TestLateAuto(SearcherContract):
    """Past the evaluations in which the model makes every proposal."""

    budget = 60

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("searchers.auto._MODEL_BUDGET", 15)

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        return AutoSearch(space, **options)


class TestFinite(SearcherContract):
    """Over a list of members of whatever space it is given."""

    fills_batches = False

    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        if space is None:
            # a FiniteSearch knows its space from its list: Ray Tune has nothing to give it
            return RandomSearch(space, **options)
        rows = space.rows if space.size and space.size < 60 else space.sample(300, np.random.default_rng(0))
        return FiniteSearch(space, [_raw(space, row) for row in rows], **options)

    def test_seed_matters(self) -> None:
        space = Space({"x": Range(0, 9)})
        configs = [{"x": x} for x in (3, 9, 1, 3, 0)]
        for seed in (1, 2):
            searcher = FiniteSearch(space, configs, seed=seed)
            assert [c.config["x"] for c in searcher.ask(9)] == [3, 9, 1, 0]
            assert searcher.finished


def _raw(space: Space, row: Matrix) -> Any:
    return space.encoding.decode(row.tolist(), space.inactive(row[None])[0].tolist(), raw=True)
