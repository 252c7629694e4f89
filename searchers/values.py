"""Small facts about users' values: which are numbers, which are the same, how they become an array."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers.errors import SpaceError

__all__ = ["as_array", "checked_number", "first_repeated", "is_count", "is_number", "same"]


def is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold; a bool is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the floats is a category, not a number to reckon with
        return False


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1, also one of numpy's; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def checked_number(name: str, value: Any) -> Any:
    """`value` as a number of Python's own.

    Raises:
        SpaceError: It is no finite number.
    """
    if isinstance(value, np.generic):
        value = value.item()
    try:
        if is_number(value):
            float(value)
            return value
    except OverflowError:
        pass
    raise SpaceError(f"`{name}` is {value!r}; it must be a finite number")


def same(left: Any, right: Any) -> bool:
    """Whether two values are one or equal, however their own comparison behaves."""
    try:
        return left is right or bool(left == right)
    except Exception:  # a user's own comparison may raise anything, e.g. for arrays
        return False


def first_repeated(values: list[Any]) -> int | None:
    """Position of the first value that an earlier one of the same type equals."""
    try:
        seen: set[tuple[type, Any]] = set()
        for position, value in enumerate(values):
            if (type(value), value) in seen:
                return position
            seen.add((type(value), value))
        return None
    except TypeError:  # unhashable values: compare pairwise
        for position, value in enumerate(values):
            if any(type(value) is type(other) and same(value, other) for other in values[:position]):
                return position
        return None


def as_array(values: list[Any]) -> npt.NDArray[Any]:
    """An array of numbers if all are of one such type, else of objects."""
    if all(type(value) is bool for value in values):
        return np.array(values, dtype=bool)
    if all(type(value) is int and abs(value) < 2**62 for value in values):
        return np.array(values, dtype=np.int64)
    if all(type(value) is float for value in values):
        return np.array(values, dtype=np.float64)
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array
