"""How often two divides a value, and random rows in which each degree of that is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from searchers import Boolean, Choice, PowerOfTwo, Range, Space
from searchers.divisibility import Spread, degrees
from searchers.param import Param


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (Range(16, 128, step=16), [4, 5, 4, 6, 4, 5, 4, 7]),
        (Choice([1, 2, 3, 4, 6, 8, 12, 2**70]), [0, 1, 0, 2, 1, 3, 2, 70]),
        (Range(1, 7), None),
        (PowerOfTwo(1, 1024), None),
        (Range(1, 31, step=2), None),
        (Range(0, 9), None),
        (Range(-4, 9), None),
        (Range(1.0, 9.0), None),
        (Choice([str(number) for number in range(9)]), None),
        (Range(1, 4096), [(number & -number).bit_length() - 1 for number in range(1, 4097)]),
        (Range(1, 4097), None),
        (Boolean(), None),
    ],
    ids=repr,
)
def test_degrees(param: Param, expected: list[int] | None) -> None:
    found = degrees(param)
    assert (None if found is None else found.tolist()) == expected


def spread(space: Space, n: int = 2000, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = Spread(space)(space.sample(n, rng), rng)
    assert space.valid(rows).all()
    return [space.decode(row) for row in rows]


def shares(numbers: list[int]) -> list[float]:
    """Of the powers of two that divide multiples of 16 up to 256."""
    return [
        float(np.mean([number & -number == power for number in numbers])) for power in (16, 32, 64, 128, 256)
    ]


def test_all_degrees_are_there_alike() -> None:
    space = Space(
        {"threads": Range(16, 256, step=16), "more": Range(16, 256, step=16), "other": Range(0, 99)}
    )
    configs = spread(space)
    np.testing.assert_allclose(shares([config["threads"] for config in configs]), 0.2, atol=0.04)
    np.testing.assert_allclose(shares([config["more"] for config in configs]), 0.2, atol=0.04)
    assert {config["threads"] for config in configs} == set(range(16, 257, 16))
    assert len({config["other"] for config in configs}) == 100


def test_what_has_nothing_to_do_with_it_stays_as_it_was() -> None:
    """Nor are parameters there less often, or seed ranges left."""
    space = Space(
        {
            "algorithm": Choice(["a", "b"]),
            "absent": Range(16, 256, step=16, knockout_prob=0.5),
            "seeded": Range(16, 256, step=16, seed_low=48, seed_high=80),
            **{f"t{i}": Range(1, 64, when="algorithm == 'b'") for i in range(8)},
        }
    )
    rng = np.random.default_rng(0)
    rows = space.sample(500, rng, seed_share=1.0)
    found = Spread(space)(rows, rng)
    names = [leaf.name for leaf in space.encoding.leaves]
    kept = [names.index("algorithm"), names.index("seeded"), *range(len(names), rows.shape[1])]
    assert (found[:, kept] == rows[:, kept]).all()
    assert (space.inactive(found) == space.inactive(rows)).all()


def test_constraints_hold_and_the_rest_is_as_it_was() -> None:
    space = Space(
        {"threads": Range(16, 256, step=16), "tile": Range(1, 16)},
        constraints=["threads * tile <= 512", lambda config: config["threads"] != 128],
    )
    found = shares([config["threads"] for config in spread(space)])
    assert found[3] == 0.0
    assert found[0] < 0.5, "half of the values are odd multiples of 16"
    rng = np.random.default_rng(0)
    stubborn = Space({"threads": Range(16, 256, step=16)}, constraints=[lambda c: c["threads"] == 48])
    assert Spread(stubborn)(np.full((3, 1), 2, dtype=np.int32), rng).tolist() == [[2]] * 3


def test_nothing_is_drawn_without_such_parameters() -> None:
    space = Space({"powers": PowerOfTwo(1, 1024), "few": Range(1, 4)})
    rng = np.random.default_rng(0)
    rows = space.sample(5, np.random.default_rng(1))
    before = rng.bit_generator.state
    assert Spread(space)(rows, rng) is rows
    assert rng.bit_generator.state == before
    assert Spread(Space({"threads": Range(16, 256, step=16)}))(rows[:0, :1], rng).shape == (0, 1)
