"""Rows as numbers for a model."""

from __future__ import annotations

import numpy as np

from searchers import Boolean, Choice, Literal, LogRange, Permutation, PowerOfTwo, Range, Space
from searchers.features import Features
from searchers.testing import spaces


def test_kinds_of_parameters() -> None:
    space = Space(
        {
            "x": Range(0, 4),
            "p": PowerOfTwo(1, 16),
            "l": LogRange(1.0, 1e4, 5),
            "b": Boolean(),
            "c": Choice(["u", "v", "w"]),
            "one": Range(3, 3),
        }
    )
    features = Features(space)
    assert features.owner.tolist() == [0, 1, 2, 3, 4, 4, 4, 5]
    config = {"x": 1, "p": 4, "l": 1e4, "b": True, "c": "v", "one": 3}
    (row,) = features(space.encode(config)[None, :])
    assert row.tolist() == [0.25, 0.5, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0]


def test_what_is_absent() -> None:
    space = Space({"f": Literal("-f", knockout_prob=0.5), "c": Choice(["u", "v", "w"], knockout_prob=0.5)})
    features = Features(space)
    assert features.owner.tolist() == [0, 0, 1, 1, 1, 1]
    there, gone = features(np.array([[0, 2, 0, 0], [0, 2, 1, 1]], dtype=np.int32))
    assert there.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert gone.tolist() == [0.5, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_how_often_two_divides_a_value_is_a_column() -> None:
    space = Space({"threads": Range(16, 256, step=16, knockout_prob=0.5), "powers": PowerOfTwo(1, 1024)})
    plain, features = Features(space), Features(space, divisibility=True)
    assert plain.owner.tolist() == [0, 0, 1]
    assert features.owner.tolist() == [0, 0, 0, 1]
    rows = np.zeros((6, 3), dtype=np.int32)
    rows[:, 0] = [0, 1, 2, 3, 7, 15]  # 16, 32, 48, 64, 128, 256
    assert features(rows)[:, 1].tolist() == [0.0, 0.25, 0.0, 0.5, 0.75, 1.0]
    assert (features(rows)[:, [0, 2, 3]] == plain(rows)).all()
    rows[:, -1] = 1
    assert features(rows)[:, :3].tolist() == [[0.5, 0.5, 1.0]] * 6


def test_how_much_room_there_is_is_a_column() -> None:
    space = Space({"x": Range(0, 3), "y": Range(0, 3)}, constraints=["x + y < 6"])
    features = Features(space, edges=True)
    assert features.owner.tolist() == [0, 1, -1]
    configs = [{"x": 0, "y": 0}, {"x": 0, "y": 1}, {"x": 1, "y": 1}, {"x": 2, "y": 3}]
    rows = np.array([space.encode(config) for config in configs])
    assert features(rows)[:, -1].tolist() == [0.0, 0.5, 1.0, 0.0]
    assert (features(rows)[:, :-1] == Features(space)(rows)).all()
    for alike in ({"a": Boolean(), "b": Boolean()}, {"a": Range(1, 60), "b": Range(1, 60)}):
        assert Features(Space(alike), edges=True).n_features == 2


def test_a_long_permutation_has_a_column_for_each_item() -> None:
    space = Space({"order": Permutation(["a", "b", 1, True, 2.0]), "short": Permutation(3)})
    features = Features(space)
    assert features.owner.tolist() == [0] * 5 + [1] * 6
    (row,) = features(space.encode({"order": [1, "b", "a", 2.0, True], "short": [0, 1, 2]})[None, :])
    assert row[:5].tolist() == [0.5, 0.25, 0.0, 1.0, 0.75]
    assert row[5:].tolist() == [1.0] + [0.0] * 5
    assert Features(Space({"order": Permutation(12)})).n_features == 12


def test_configurations_and_features_belong_to_each_other() -> None:
    """Rows of one configuration have the same features, those of different ones differ."""
    rng = np.random.default_rng(1)
    for space in spaces().values():
        features = Features(space, divisibility=True, edges=space.size is not None)
        rows = space.sample(300, rng)
        other = rows.copy()
        hidden = space.inactive(rows)
        levels = space.encoding.n_levels[: space.encoding.n_parameters]
        other[:, : len(levels)][hidden] = np.broadcast_to(levels - 1, hidden.shape)[hidden]
        assert (features(rows) == features(other)).all()
        assert len(np.unique(features(rows), axis=0)) == len(set(space.keys(rows).tolist()))
        assert features(rows).min() >= 0.0
        assert features(rows).max() <= 1.0
        assert features(rows[:0]).shape == (0, features.n_features)
