"""How much room a configuration has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from searchers import Boolean, Choice, PowerOfTwo, Range, Space
from searchers.errors import SpaceError
from searchers.room import room
from searchers.testing import spaces


def counts(space: Space) -> dict[tuple[Any, ...], int]:
    assert space.rows is not None
    found = room(space).tolist()
    return {tuple(space.decode(row).values()): n for row, n in zip(space.rows, found, strict=True)}


def test_ends_of_ranges_and_constraints_take_neighbours_away() -> None:
    space = Space({"x": PowerOfTwo(1, 8), "y": PowerOfTwo(1, 8)}, constraints=["x * y <= 16"])
    assert counts(space) == {
        (1, 1): 2,
        (1, 2): 3,
        (1, 4): 3,
        (1, 8): 2,
        (2, 1): 3,
        (2, 2): 4,
        (2, 4): 4,
        (2, 8): 2,  # 4 times 8 is too much
        (4, 1): 3,
        (4, 2): 4,
        (4, 4): 2,
        (8, 1): 2,
        (8, 2): 2,
    }


def test_two_categories_are_neighbours_and_more_are_not() -> None:
    space = Space({"b": Boolean(), "two": Choice(["u", "v"]), "three": Choice(["u", "v", "w"])})
    assert set(counts(space).values()) == {2}
    space = Space({"b": Boolean(), "x": Range(1, 3)}, constraints=["x < 3 or not b"])
    assert counts(space) == {(True, 1): 2, (True, 2): 2, (False, 1): 2, (False, 2): 3, (False, 3): 1}


def test_what_is_absent_has_no_next_value() -> None:
    space = Space({"b": Boolean(), "x": Range(1, 3, when="b")})
    assert space.rows is not None
    found = [(space.decode(row), n) for row, n in zip(space.rows, room(space), strict=True)]
    # without `x` the only move is to the `b` that has one
    assert sorted((len(config), config.get("x"), n) for config, n in found) == [
        (1, None, 1),
        (2, 1, 2),
        (2, 2, 3),
        (2, 3, 2),
    ]


@pytest.mark.parametrize("name", ["ordered", "mixed", "nested"])
def test_it_is_what_asking_for_each_configuration_finds(name: str) -> None:
    space = spaces()[name]
    rows = space.rows
    assert rows is not None
    known = set(map(tuple, rows.tolist()))
    inactive = space.inactive(rows)

    def by_hand(row: list[int], absent: list[bool]) -> int:
        n = 0
        for j, leaf in enumerate(space.encoding.leaves):
            if absent[j] or (not leaf.param.ordered and leaf.param.n_levels > 2):
                continue
            for level in {row[j] - 1, row[j] + 1} & set(range(leaf.param.n_levels)):
                moved = np.array([[*row[:j], level, *row[j + 1 :]]], dtype=np.int32)
                n += tuple(space.canonical(moved)[0].tolist()) in known
        return n

    found = room(space)
    assert found.tolist() == [by_hand(*pair) for pair in zip(rows.tolist(), inactive.tolist(), strict=True)]
    assert len(set(found.tolist())) > 2


def test_a_space_that_is_too_large_is_refused() -> None:
    with pytest.raises(SpaceError, match="too large to be enumerated"):
        room(Space({f"x{i}": Range(1, 1000) for i in range(4)}))
