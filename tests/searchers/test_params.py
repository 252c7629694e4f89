from __future__ import annotations

import json
import math
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from searchers.encoding import Encoding
from searchers.errors import ConfigError, SpaceError
from searchers.files import param_from_dict
from searchers.lists import ListOf, Permutation
from searchers.params import (
    Boolean,
    Choice,
    Literal,
    LogRange,
    Param,
    PowerOfTwo,
    Range,
)


def values(param: Param) -> list[Any]:
    return [param.value(level) for level in range(param.n_levels)]


def test_range_includes_its_end_and_counts_from_its_start() -> None:
    assert values(Range(0, 9, 2)) == [0, 2, 4, 6, 8]
    assert values(Range(0, 8, 2)) == [0, 2, 4, 6, 8]
    assert values(Range(-3, -1)) == [-3, -2, -1]
    assert values(Range(5, 5)) == [5]


def test_range_of_integers_stays_integer_and_float_reaches_its_end() -> None:
    assert all(type(value) is int for value in values(Range(1, 9, 4)))
    tenths = values(Range(0.0, 0.3, 0.1))
    assert tenths == [0.0 + i * 0.1 for i in range(4)]
    assert all(type(value) is float for value in tenths)
    assert values(Range(10**18, 10**18 + 4, 2)) == [10**18, 10**18 + 2, 10**18 + 4]
    assert values(Range(10**30, 10**30 + 2)) == [10**30, 10**30 + 1, 10**30 + 2]


def test_power_of_two() -> None:
    assert values(PowerOfTwo(16, 128)) == [16, 32, 64, 128]
    assert PowerOfTwo(16, 128).level(64) == 2
    with pytest.raises(ConfigError, match="48"):
        PowerOfTwo(16, 128).level(48)


def test_log_range_hits_both_ends_and_is_even_in_the_logarithm() -> None:
    found = values(LogRange(1e-5, 1e-1, 5))
    assert (found[0], found[-1]) == (1e-5, 1e-1)
    np.testing.assert_allclose(np.diff(np.log10(found)), 1.0)
    assert values(LogRange(2, 2, 10)) == [2.0]
    assert LogRange(1e-5, 1e-1, 5).level(1e-3) == 2


def test_choice_of_numbers_is_ordered_and_of_others_is_not() -> None:
    assert Choice([64, 16, 128]).ordered
    assert values(Choice([64, 16, 128])) == [16, 64, 128]
    assert not Choice(["b", "a"]).ordered
    assert values(Choice(["b", "a"])) == ["b", "a"]
    assert not Choice([1, "a", None]).ordered
    assert not Choice([True, False]).ordered
    assert values(Choice(["low", "high"], ordered=True)) == ["low", "high"]
    assert Choice(["low", "high"], ordered=True).ordered


def test_choice_gives_back_the_very_objects() -> None:
    mine = [object(), {"a": 1}, [1, 2]]
    assert all(given is found for given, found in zip(mine, values(Choice(mine)), strict=True))
    assert Choice(mine).level({"a": 1}) == 1


def test_numpy_arrays_become_plain_values() -> None:
    assert [type(value) for value in values(Choice(np.array([1, 2])))] == [int, int]
    assert [type(value) for value in values(Choice(np.array(["a", "b"])))] == [str, str]


def test_whole_numbers_of_numpy_become_plain_ones() -> None:
    number: Any = np.int64
    for given, plain in (
        (PowerOfTwo(number(2), number(8)), PowerOfTwo(2, 8)),
        (LogRange(1, 8, number(4)), LogRange(1, 8, 4)),
        (Permutation(number(3)), Permutation(3)),
        (ListOf(Range(0, 9), number(3)), ListOf(Range(0, 9), 3)),
    ):
        assert json.dumps(given.to_dict()) == json.dumps(plain.to_dict())
    assert [type(value) for value in values(PowerOfTwo(number(2), number(8)))] == [int] * 3


@pytest.mark.parametrize("count", [True, np.True_, 1.0, np.float64(1), "1", None, 0, np.int64(0)])
def test_what_is_no_count_is_refused(count: Any) -> None:
    for make in (lambda: PowerOfTwo(count, 8), lambda: PowerOfTwo(1, count), lambda: LogRange(1, 1, count)):
        with pytest.raises(SpaceError, match="at least 1"):
            make()
    for make in (lambda: ListOf(Range(0, 9), count), lambda: Permutation(count)):
        with pytest.raises(SpaceError, match=r"`length`|`items`"):
            make()


@pytest.mark.parametrize("kind", [pd.Series, pd.Index])
def test_columns_of_pandas_are_lists_of_values(kind: Any) -> None:
    assert [(type(value), value) for value in values(Choice(kind([4, 2])))] == [(int, 2), (int, 4)]
    assert values(Choice(kind(["b", "a"]))) == ["b", "a"]


@pytest.mark.parametrize("given", [np.array(3), np.ones((2, 2)), pd.DataFrame({"x": [1]}), np.int64(3)])
def test_what_has_not_one_dimension_is_no_list_of_values(given: Any) -> None:
    with pytest.raises(SpaceError, match="it must be a list of values"):
        Choice(given)


def test_equal_values_of_different_types_are_different_choices() -> None:
    choice = Choice([1, True, 1.0, "1"])
    assert [choice.level(value) for value in (1, True, 1.0, "1")] == [0, 1, 2, 3]
    assert Choice([1, 2]).level(2.0) == 1
    with pytest.raises(ConfigError):
        Choice([1, 2]).level(True)


def test_literal_and_boolean() -> None:
    assert values(Literal("-x")) == ["-x"]
    assert values(Boolean()) == [False, True]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_permutation_is_every_order_once(n: int) -> None:
    found = values(Permutation(n))
    assert found == [list(order) for order in permutations(range(n))]
    assert [Permutation(n).level(order) for order in found] == list(range(math.factorial(n)))


def test_permutation_neighbours_are_adjacent_swaps() -> None:
    param = Permutation(["i", "j", "k"])
    start = param.level(["i", "j", "k"])
    assert [param.value(level) for level in param.neighbours(start)] == [["i", "k", "j"], ["j", "i", "k"]]
    assert len(param.neighbours(start, radius=2)) == 4


def test_neighbours_of_ordered_and_categorical() -> None:
    assert Range(0, 9).neighbours(0, 2) == [1, 2]
    assert Range(0, 9).neighbours(5) == [4, 6]
    assert Choice(["a", "b", "c"]).neighbours(1) == [0, 2]


@pytest.mark.parametrize(
    "param",
    [
        Range(-4, 9, 3),
        Range(0.5, 2.0, 0.25),
        PowerOfTwo(1, 1024),
        Choice([3, 1, 2]),
        Choice(["a", 1, None]),
        Boolean(),
        LogRange(1, 1000, 7),
        Permutation(4),
        Literal(4),
        Range(10**30, 10**30 + 5),
    ],
)
def test_level_and_array_agree_with_value(param: Param) -> None:
    levels = np.arange(param.n_levels)
    array = param.values(levels).tolist()
    for level in range(param.n_levels):
        assert param.level(param.value(level)) == level
        assert array[level] == param.value(level)
    bounds = param.bounds()
    if bounds is not None:
        assert bounds == (min(array), max(array))


def test_seed_range_becomes_levels() -> None:
    assert Range(0, 100, 10, seed_low=15, seed_high=50).seed_levels() == (2, 5)
    assert Range(0, 100, 10, seed_low=30).seed_levels() == (3, 10)
    assert Range(0, 100, 10).seed_levels() == (0, 10)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Range(3, 1), "start"),
        (lambda: Range(0, 9, 0), "step"),
        (lambda: Range(0, 9, -1), "step"),
        (lambda: Range(0, 9, 10), "step"),
        (lambda: Range(1e18, 1e18 + 1024, 1e-3), "step"),
        (lambda: Range(0, 1e300, 1), "step"),
        (lambda: Range(float("nan"), 1), "start"),
        (lambda: Range(0, float("inf")), "end"),
        (lambda: Range("0", 1), "start"),
        (lambda: Range(True, 3), "start"),
        (lambda: Range(0, 9, seed_low=-1), "seed_low"),
        (lambda: Range(0, 9, seed_low=5, seed_high=4), "seed_low"),
        (lambda: Range(0, 90, 10, seed_low=11, seed_high=19), "seed_low"),
        (lambda: Range(0, 9, knockout_prob=1.5), "knockout_prob"),
        (lambda: Range(0, 9, knockout_prob=-0.1), "knockout_prob"),
        (lambda: Range(0, 9, knockout_prob="often"), "knockout_prob"),
        (lambda: Range(0, 9, when=3), "when"),
        (lambda: Choice([]), "choices"),
        (lambda: Choice("abc"), "choices"),
        (lambda: Choice({"a": 1}), "choices"),
        (lambda: Choice([1, 1]), "choices"),
        (lambda: Choice([[1], [1]]), "choices"),
        (lambda: Choice([1.0, float("nan")]), "choices"),
        (lambda: PowerOfTwo(3, 8), "low"),
        (lambda: PowerOfTwo(8, 2), "low"),
        (lambda: PowerOfTwo(0, 8), "low"),
        (lambda: PowerOfTwo(2, 12), "high"),
        (lambda: LogRange(0, 1), "start"),
        (lambda: LogRange(2, 1), "start"),
        (lambda: LogRange(1, 2, 0), "total"),
        (lambda: LogRange(1, 2, 1), "total"),
        (lambda: Permutation(0), "items"),
        (lambda: Permutation([1, 1]), "items"),
        (lambda: Permutation(list(range(30))), "items"),
        (lambda: ListOf(3, 2), "param"),
        (lambda: ListOf(Boolean(), 0), "length"),
        (lambda: ListOf(Boolean(knockout_prob=0.5), 2), "knockout_prob"),
        (lambda: ListOf(Boolean(), 2, knockout_prob=3), "knockout_prob"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, named: str) -> None:
    with pytest.raises(SpaceError, match=f"`{named}`"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda **mark: Range(0, 9, **mark),
        lambda **mark: PowerOfTwo(16, 128, **mark),
        lambda **mark: Choice([1, 2], **mark),
        lambda **mark: LogRange(1, 10, 3, **mark),
        lambda **mark: Literal("-x", **mark),
        lambda **mark: Boolean(**mark),
        lambda **mark: Permutation(3, **mark),
        lambda **mark: ListOf(Range(0, 9), 2, **mark),
    ],
)
def test_every_kind_can_be_marked_important(make: Any) -> None:
    plain, marked = make(), make(important=True)
    assert "important" not in json.dumps(plain.to_dict())
    again = param_from_dict(json.loads(json.dumps(marked.to_dict())))
    assert again.to_dict() == marked.to_dict() != plain.to_dict()
    assert all(leaf.param.important for leaf in Encoding({"p": again}).leaves)
    assert not any(leaf.param.important for leaf in Encoding({"p": plain}).leaves)
    with pytest.raises(SpaceError, match="`important` is 'yes'"):
        make(important="yes")


def test_a_list_does_not_mark_the_parameter_it_is_made_of() -> None:
    element = Range(0, 9)
    assert ListOf(element, 2, important=True).param.important
    assert not element.important
