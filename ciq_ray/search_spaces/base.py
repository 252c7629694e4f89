"""The documented functions that make a search space's parameters.

Each returns a parameter of `searchers.params`; the kinds that only those have (powers of two,
booleans, permutations, lists) can be mixed with them in one space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy.typing as npt

from searchers.errors import SpaceError
from searchers.params import Choice, Literal, LogRange, Range

__all__ = [
    "ChoiceParamConfig",
    "LiteralParamConfig",
    "RangeParamConfig",
    "choice",
    "literal",
    "log_sampling",
    "range",
]

RangeParamConfig: TypeAlias = Range
ChoiceParamConfig: TypeAlias = Choice
LiteralParamConfig: TypeAlias = Literal

_Made = TypeVar("_Made")


def range(
    start: int | float,
    end: int | float,
    step: int | float = 1,
    knockout_prob: float | None = None,
    seed_low: int | float | None = None,
    seed_high: int | float | None = None,
) -> RangeParamConfig:
    """Search space that follows a range-like format.

    ``range(0, 9, 2)`` is one of 0, 2, 4, 6, 8: values are ``start + i * step``, and `end` is
    inclusive where a step lands on it. Integers stay integers.

    Args:
        start: Similar to a loop, start of the range.
        end: Similar to a loop, end of the range.
        step: Similar to a loop, how to slide the range window; above 0.
        knockout_prob: The likelihood, from 0 to 1, of the value being dropped and not forwarded to
            the objective function.
        seed_low: With `seed_high`, a subset of the range: instead of the full range, the search
            initializes with values inside this smaller one. This can speed up a search with too many
            failures in a specific range. The share of candidates initialized this way is
            `SearchConfiguration.init_with_true_random_threshold`.
        seed_high: The upper end of that subset, inclusive.

    Raises:
        searchers.errors.SpaceError: A value is not a finite number, `start` exceeds `end`, the step
            does nothing, the seed range lies outside, or a probability does not lie in 0 to 1.
    """
    return Range(start, end, step, knockout_prob=knockout_prob, seed_low=seed_low, seed_high=seed_high)


def choice(
    choice_list: Sequence[Any] | npt.NDArray[Any], knockout_prob: float | None = None
) -> ChoiceParamConfig:
    """Search space that will sample from a list.

    ``choice([1, 2, 3])`` picks only one out of 1, 2 or 3 at a time.

    Args:
        choice_list: The values to sample from, all different: numbers, booleans, strings, or any
            other objects; an array gives plain Python values.
        knockout_prob: The likelihood, from 0 to 1, of the value being dropped and not forwarded to
            the objective function.

    Raises:
        searchers.errors.SpaceError: It is no list, empty, or holds a value twice.
    """
    return _renamed("choices", "choice_list", lambda: Choice(choice_list, knockout_prob=knockout_prob))


def literal(const_value: str | int | float, knockout_prob: float | None = None) -> LiteralParamConfig:
    """A constant value with an optional knockout probability.

    Helpful for constant parameters that need to take advantage of knockout, like on and off flags of
    compilers. ``{"x": literal(5)}`` sets ``config["x"]`` to 5.

    Args:
        const_value: A constant value that is forwarded to the objective function.
        knockout_prob: The likelihood, from 0 to 1, of the value being dropped and not forwarded to
            the objective function.

    Raises:
        searchers.errors.SpaceError: The value is not finite, or a probability not from 0 to 1.
    """
    return _renamed("choices", "const_value", lambda: Literal(const_value, knockout_prob=knockout_prob))


def log_sampling(
    start: float, end: float, total: int = 10, knockout_prob: float | None = None
) -> ChoiceParamConfig:
    """Search space similar to `range` that follows a logarithmic distribution.

    Args:
        start: Similar to a loop, start of the range; above 0.
        end: Similar to a loop, end of the range, inclusive.
        total: How many values, evenly spaced in their logarithm, both ends included.
        knockout_prob: The likelihood, from 0 to 1, of the value being dropped and not forwarded to
            the objective function.

    Raises:
        searchers.errors.SpaceError: A limit is not a finite number above 0, `start` exceeds `end`,
            or `total` is not a positive integer.
    """
    return LogRange(start, end, total, knockout_prob=knockout_prob)


def _renamed(theirs: str, ours: str, make: Callable[[], _Made]) -> _Made:
    """Errors name the argument as it is called here."""
    try:
        return make()
    except SpaceError as error:
        raise type(error)(str(error).replace(f"`{theirs}`", f"`{ours}`")) from None
