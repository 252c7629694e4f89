"""The points a model chooses from."""

from __future__ import annotations

import numpy as np

from searchers import Boolean, Choice, Permutation, Range, Space
from searchers.features import Features
from searchers.points import Points, sampled


def huge() -> Space:
    return Space(
        {
            **{f"x{i}": Range(0, 999) for i in range(8)},
            "mode": Choice(["a", "b", "c"]),
            "depth": Range(1, 50, when="mode == 'a'"),
            "flag": Boolean(knockout_prob=0.5),
            "order": Permutation(8),
        },
        constraints=["x0 + x1 >= 400", "x2 <= x3", lambda c: c["mode"] != "b" or c["x4"] % 2 == 0],
    )


def test_places_of_keys() -> None:
    space = Space({"x": Range(0, 9), "y": Range(0, 4)})
    rows = space.rows
    assert rows is not None
    shuffled = np.random.default_rng(0).permutation(rows)[:30]
    points = Points(space, shuffled, Features(space))
    wanted = shuffled[[7, 3, 29]]
    unknown = np.array([row for row in rows.tolist() if row not in shuffled.tolist()], dtype=np.int32)
    keys = space.keys(np.concatenate([unknown[:5], wanted, unknown[5:]]))
    assert points.places(keys).tolist() == [7, 3, 29]
    assert points.places(keys[:0]).tolist() == []
    assert points.grid.features.shape == (30, 2)


def test_sample_is_valid_new_and_has_the_others() -> None:
    space, rng = huge(), np.random.default_rng(2)
    best, others = space.sample(16, rng), space.sample(7, rng)
    points = sampled(space, Features(space), best, list(others), rng)
    keys = space.keys(points.rows)
    assert space.valid(points.rows).all()
    assert len(set(keys.tolist())) == len(keys) == len(points.grid)
    assert sorted(points.places(space.keys(others)).tolist()) == list(range(7))
    assert 300 < len(points.rows) < 1500


def test_sample_looks_around_the_best() -> None:
    space, rng = huge(), np.random.default_rng(2)
    best = space.sample(1, rng)
    rows = sampled(space, Features(space), best, [], rng).rows
    near = (rows != best).sum(1) <= 2
    assert near.sum() > 100
    assert (~near).sum() > 300


def test_sample_is_drawn_from_the_generator() -> None:
    space = huge()
    best = space.sample(4, np.random.default_rng(0))
    first, same, other = (
        sampled(space, Features(space), best, [], np.random.default_rng(seed)).rows.tolist()
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other
