from __future__ import annotations

import numpy as np

from searchers import Boolean, Choice, ListOf, Literal, PowerOfTwo, Range, Space
from searchers.moves import Moves
from searchers.testing import spaces


def test_single_moves_are_the_neighbours_of_the_space() -> None:
    rng = np.random.default_rng(0)
    for space in spaces().values():
        for row in space.sample(5, rng):
            for radius in (1, 2):
                rows = Moves(space, row, radius).single()
                keys = set(space.keys(rows[space.valid(rows)]).tolist()) - set(space.keys(row[None]).tolist())
                assert keys == set(space.keys(space.neighbours(row, radius)).tolist())


def test_radius_counts_powers_of_two_in_their_logarithm() -> None:
    space = Space({"b": PowerOfTwo(1, 256), "c": Choice(["x", "y", "z"])})
    rows = Moves(space, space.encode({"b": 16, "c": "x"}), 2).of
    assert [space.decode(row)["b"] for row in rows[0]] == [4, 8, 32, 64]
    assert [space.decode(row)["c"] for row in rows[1]] == ["y", "z"]


def test_a_shared_knockout_bit_moves_once() -> None:
    space = Space({"pair": ListOf(Boolean(), 2, knockout_prob=0.5), "flag": Literal("-x", knockout_prob=0.5)})
    there = Moves(space, space.encode({"pair": [False, False], "flag": "-x"}))
    assert [space.decode(row) for row in there.single()] == [
        {"pair": [True, False], "flag": "-x"},
        {"flag": "-x"},
        {"pair": [False, True], "flag": "-x"},
        {"pair": [False, False]},
    ]
    gone = Moves(space, space.encode({}))
    assert {"pair": [True, False]} in [space.decode(row) for row in gone.of[0]]


def test_moves_of_different_parameters_combine() -> None:
    space = Space({"x": Range(0, 9), "y": Range(0, 9), "z": Range(0, 9, knockout_prob=0.5)})
    moves = Moves(space, space.encode({"x": 5, "y": 5}))
    rng = np.random.default_rng(1)
    for _ in range(20):
        config = space.decode(moves.random([0, 2], rng))
        assert abs(config["x"] - 5) == 1
        assert config["y"] == 5
        assert "z" in config


def test_important_parameters_move_in_pairs() -> None:
    space = Space({"x": Range(0, 9, important=True), "y": Range(0, 9), "z": Range(0, 9, important=True)})
    moves = Moves(space, space.encode({"x": 5, "y": 5, "z": 0}))
    assert moves.important == [0, 2]
    assert [tuple(space.decode(row).values()) for row in moves.important_pairs()] == [(4, 5, 1), (6, 5, 1)]
