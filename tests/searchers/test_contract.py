"""Every searcher of ours passes the contract suite."""

from __future__ import annotations

from typing import Any

import numpy as np

from searchers import FiniteSearch, GeneticSearch, RandomSearch, Range, Space, SpaceSearcher
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
