"""The documented functions of a search space."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

from ciq_ray.search_spaces import base
from searchers.errors import SpaceError
from searchers.params import Choice, Literal, LogRange, Param, Range


def values(param: Param) -> list[Any]:
    return [param.value(level) for level in range(param.n_levels)]


def test_the_documented_signatures() -> None:
    def signature(function: Any) -> list[tuple[str, Any]]:
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, None if p.default is p.empty else repr(p.default)) for p in parameters]

    assert signature(base.range) == [
        ("start", None),
        ("end", None),
        ("step", "1"),
        ("knockout_prob", "None"),
        ("seed_low", "None"),
        ("seed_high", "None"),
    ]
    assert signature(base.choice) == [("choice_list", None), ("knockout_prob", "None")]
    assert signature(base.literal) == [("const_value", None), ("knockout_prob", "None")]
    assert signature(base.log_sampling) == [
        ("start", None),
        ("end", None),
        ("total", "10"),
        ("knockout_prob", "None"),
    ]
    assert (base.RangeParamConfig, base.ChoiceParamConfig, base.LiteralParamConfig) == (
        Range,
        Choice,
        Literal,
    )


def test_range() -> None:
    assert values(base.range(0, 9, 2)) == [0, 2, 4, 6, 8]
    assert values(base.range(1, 4)) == [1, 2, 3, 4]
    assert all(type(value) is int for value in values(base.range(1, 4)))
    seeded = base.range(0, 100, 10, 0.5, 20, 40)
    assert [seeded.value(level) for level in seeded.seed_levels()] == [20, 40]
    assert seeded.knockout_prob == 0.5


def test_choice() -> None:
    assert sorted(values(base.choice([3, 1, 2]))) == [1, 2, 3]
    assert values(base.choice(["a", True, 1.5], 0.1)) == ["a", True, 1.5]
    from_array = values(base.choice(np.array([1, 2])))
    assert from_array == [1, 2]
    assert all(type(value) is int for value in from_array)


def test_literal() -> None:
    flag = base.literal("--fast", 0.25)
    assert (values(flag), flag.knockout_prob) == (["--fast"], 0.25)


def test_log_sampling() -> None:
    param = base.log_sampling(1e-4, 1.0, 5)
    assert isinstance(param, LogRange)
    assert isinstance(param, base.ChoiceParamConfig)
    assert np.allclose(np.log10(values(param)), [-4, -3, -2, -1, 0])
    assert base.log_sampling(1, 2).n_levels == 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: base.range(5, 1), "`start` is 5 and `end` is 1"),
        (lambda: base.range(0, 9, 0), "`step` is 0"),
        (lambda: base.range(0, 9, -1), "`step` is -1"),
        (lambda: base.range(0, math.inf), "`end`"),
        (lambda: base.range(0, 9, seed_low=20), "`seed_low` is 20"),
        (lambda: base.range(0, 9, knockout_prob=2), "`knockout_prob` is 2"),
        (lambda: base.choice([]), "`choice_list` is empty"),
        (lambda: base.choice("abc"), "`choice_list` is 'abc'"),
        (lambda: base.choice([1, 1]), "`choice_list` holds 1 twice"),
        (lambda: base.literal(math.nan), "`const_value` holds nan"),
        (lambda: base.literal(1, knockout_prob=-1), "`knockout_prob` is -1"),
        (lambda: base.log_sampling(0, 1), "`start` is 0"),
        (lambda: base.log_sampling(1, 2, total=0), "`total` is 0"),
    ],
)
def test_bad_arguments_are_named_as_they_are_called_here(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()
