"""The kinds of parameter, each a finite, numbered list of values called levels.

Every parameter is one column of a space's integer matrix. Values come back as the objects the user
gave, or as plain Python numbers; never through numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers.errors import SpaceError
from searchers.param import Levels, Param
from searchers.values import as_array, checked_number, first_repeated, is_count, is_number, same

__all__ = [
    "Boolean",
    "Choice",
    "Literal",
    "LogRange",
    "Param",
    "PowerOfTwo",
    "Range",
]

MAX_LEVELS = 2**31 - 1
"""Levels are 32-bit integers."""
_TABLE_LIMIT = 1 << 16

Number = int | float


class Range(Param):
    """``start, start + step, ...`` up to and including `end`.

    Args:
        start: First value.
        end: Upper limit, inclusive if a step lands on it.
        step: Distance of neighbouring values, more than 0.
        seed_low: Initial candidates prefer values from here ...
        seed_high: ... to here; without them, from the whole range.
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.

    Raises:
        SpaceError: A limit is not a finite number, `start` exceeds `end`, the step does nothing, or
            the seed range lies outside or holds no value.
    """

    kind = "range"

    def __init__(
        self,
        start: Number,
        end: Number,
        step: Number = 1,
        *,
        seed_low: Number | None = None,
        seed_high: Number | None = None,
        knockout_prob: float | None = None,
        when: str | None = None,
        important: bool = False,
    ) -> None:
        super().__init__(knockout_prob=knockout_prob, when=when, important=important)
        self.start, self.end = checked_number("start", start), checked_number("end", end)
        self.step = checked_number("step", step)
        if self.start > self.end:
            raise SpaceError(f"`start` is {start!r} and `end` is {end!r}; start must not exceed end")
        if self.step <= 0:
            raise SpaceError(f"`step` is {step!r}; it must be more than 0")
        span = self.end - self.start
        if span and (self.step > span or self.start + self.step == self.start):
            raise SpaceError(f"`step` is {step!r}, which does nothing between {start!r} and {end!r}")
        # the slack lets 0.1 steps reach their end although 3 * 0.1 > 0.3 in binary
        steps = span // self.step if self._integral else math.floor(span / self.step * (1 + 1e-12) + 1e-9)
        if steps >= MAX_LEVELS:
            raise SpaceError(f"`step` is {step!r}, which makes {steps + 1} values; {MAX_LEVELS} is the most")
        self.n_levels = int(steps) + 1
        self.seed_low = None if seed_low is None else checked_number("seed_low", seed_low)
        self.seed_high = None if seed_high is None else checked_number("seed_high", seed_high)
        self._seeds = self._seed_range()

    @property
    def _integral(self) -> bool:
        return all(isinstance(number, int) for number in (self.start, self.end, self.step))

    def _seed_range(self) -> tuple[int, int]:
        low = self.start if self.seed_low is None else self.seed_low
        high = self.end if self.seed_high is None else self.seed_high
        if not self.start <= low <= high <= self.end:
            raise SpaceError(
                f"`seed_low` is {self.seed_low!r} and `seed_high` is {self.seed_high!r}; they must be in "
                f"order and lie between start {self.start!r} and end {self.end!r}"
            )
        first = math.ceil((low - self.start) / self.step - 1e-9)
        last = min(math.floor((high - self.start) / self.step + 1e-9), self.n_levels - 1)
        if first > last:
            raise SpaceError(
                f"no value lies between `seed_low` {low!r} and `seed_high` {high!r}: values are "
                f"{self.start!r} plus multiples of {self.step!r}"
            )
        return first, last

    def value(self, level: int) -> Number:
        """`start + level * step`."""
        number: Number = self.start + level * self.step
        return number

    def level(self, value: Any) -> int:
        """The level whose value this is, to within rounding of a float."""
        if not is_number(value):
            raise self._refuse(value)
        level: int = round((value - self.start) / self.step)
        if 0 <= level < self.n_levels:
            found = self.value(level)
            if found == value or math.isclose(found, value, rel_tol=1e-9, abs_tol=abs(self.step) * 1e-6):
                return level
        raise self._refuse(value)

    def values(self, levels: Levels) -> npt.NDArray[Any]:
        """As `Param.values`, by arithmetic."""
        if self._integral and max(abs(self.start), abs(self.value(self.n_levels - 1))) >= 2**62:
            return super().values(levels)
        return np.asarray(self.start + levels.astype(np.int64) * self.step)

    def bounds(self) -> tuple[float, float]:
        """`start` and the last value."""
        return self.start, self.value(self.n_levels - 1)

    def seed_levels(self) -> tuple[int, int]:
        """The levels from `seed_low` to `seed_high`."""
        return self._seeds

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"start": self.start, "end": self.end, "step": self.step}
        if self.seed_low is not None:
            fields["seed_low"] = self.seed_low
        if self.seed_high is not None:
            fields["seed_high"] = self.seed_high
        return fields


class PowerOfTwo(Param):
    """``low, 2 * low, ... high``.

    Args:
        low: First value, a power of two of at least 1.
        high: Last value, a power of two.
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.

    Raises:
        SpaceError: A limit is not a power of two, or `low` exceeds `high`.
    """

    kind = "power_of_two"

    def __init__(
        self,
        low: int,
        high: int,
        *,
        knockout_prob: float | None = None,
        when: str | None = None,
        important: bool = False,
    ) -> None:
        super().__init__(knockout_prob=knockout_prob, when=when, important=important)
        for name, limit in (("low", low), ("high", high)):
            if not is_count(limit) or limit & (limit - 1):
                raise SpaceError(f"`{name}` is {limit!r}; it must be a power of two, at least 1")
        low, high = int(low), int(high)
        if low > high:
            raise SpaceError(f"`low` is {low} and `high` is {high}; low must not exceed high")
        if high >= 2**62:
            raise SpaceError(f"`high` is {high}; 2**61 is the most")
        self.low, self.high = low, high
        self.n_levels = high.bit_length() - low.bit_length() + 1

    def value(self, level: int) -> int:
        """`low * 2**level`."""
        return self.low << level

    def level(self, value: Any) -> int:
        """The exponent above `low`."""
        if is_number(value) and value == int(value) and self.low <= value <= self.high:
            level = int(value).bit_length() - self.low.bit_length()
            if self.value(level) == value:
                return level
        raise self._refuse(value)

    def values(self, levels: Levels) -> npt.NDArray[Any]:
        """As `Param.values`, by shifting."""
        return np.left_shift(np.int64(self.low), levels.astype(np.int64))

    def bounds(self) -> tuple[float, float]:
        """`low` and `high`."""
        return self.low, self.high

    def _fields(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}


class Choice(Param):
    """One of a list.

    Numbers are sorted and count as ordered; anything else, and a mixture, is categorical.

    Args:
        choices: The values, at least one, all different; a one-dimensional array, pandas series or index
            gives plain Python values.
        ordered: Overrides what is said above: ``True`` keeps the given order as a scale.
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.

    Raises:
        SpaceError: No values, a value twice, or something that is not a list of values.
    """

    kind = "choice"

    def __init__(
        self,
        choices: Sequence[Any] | npt.NDArray[Any],
        *,
        ordered: bool | None = None,
        knockout_prob: float | None = None,
        when: str | None = None,
        important: bool = False,
    ) -> None:
        super().__init__(knockout_prob=knockout_prob, when=when, important=important)
        if getattr(choices, "ndim", None) == 1 and hasattr(choices, "tolist"):
            choices = choices.tolist()
        if isinstance(choices, (str, bytes, dict)) or not isinstance(choices, Sequence):
            raise SpaceError(f"`choices` is {choices!r}; it must be a list of values")
        if not choices:
            raise SpaceError("`choices` is empty; a choice needs at least one value")
        values = list(choices)
        for value in values:
            if isinstance(value, float) and not math.isfinite(value):
                raise SpaceError(f"`choices` holds {value!r}; use a finite number or a string")
        twice = first_repeated(values)
        if twice is not None:
            raise SpaceError(f"`choices` holds {values[twice]!r} twice; each value may appear once")
        numeric = all(is_number(value) for value in values)
        self._declared_order = ordered
        self.ordered = numeric if ordered is None else bool(ordered)
        self.choices: list[Any] = sorted(values) if numeric and ordered is None else values
        self.n_levels = len(self.choices)
        self._array = as_array(self.choices)

    def value(self, level: int) -> Any:
        """The object that was given."""
        return self.choices[level]

    def level(self, value: Any) -> int:
        """Position of the value; a number also matches an equal number of another type."""
        for position, choice in enumerate(self.choices):
            if type(choice) is type(value) and same(choice, value):
                return position
        for position, choice in enumerate(self.choices):
            if isinstance(choice, bool) == isinstance(value, bool) and same(choice, value):
                return position
        raise self._refuse(value)

    def values(self, levels: Levels) -> npt.NDArray[Any]:
        """As `Param.values`, by look-up."""
        return self._array[levels]

    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest, when all are numbers."""
        if not all(is_number(choice) for choice in self.choices):
            return None
        return min(self.choices), max(self.choices)

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"choices": self.choices}
        if self._declared_order is not None:
            fields["ordered"] = self._declared_order
        return fields


class LogRange(Choice):
    """`total` numbers from `start` to `end`, evenly spaced in their logarithm.

    Args:
        start: First value, more than 0.
        end: Last value.
        total: How many, both ends included.
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.

    Raises:
        SpaceError: A limit is not a positive finite number, `start` exceeds `end`, or `total` is
            not a count that can tell them apart.
    """

    kind = "log_range"

    def __init__(
        self,
        start: float,
        end: float,
        total: int = 10,
        *,
        knockout_prob: float | None = None,
        when: str | None = None,
        important: bool = False,
    ) -> None:
        low, high = checked_number("start", start), checked_number("end", end)
        if low <= 0:
            raise SpaceError(f"`start` is {start!r}; a logarithmic range starts above 0")
        if low > high:
            raise SpaceError(f"`start` is {start!r} and `end` is {end!r}; start must not exceed end")
        if not is_count(total):
            raise SpaceError(f"`total` is {total!r}; it must be a whole number, at least 1")
        total = int(total)
        if total > _TABLE_LIMIT:
            raise SpaceError(f"`total` is {total}; {_TABLE_LIMIT} is the most")
        if total == 1 and low != high:
            raise SpaceError(f"`total` is 1, which cannot hold both {start!r} and {end!r}; use 2 or more")
        if math.isfinite(high / low):
            ratio = math.log(high / low)
            inner = [low * math.exp(ratio * i / (total - 1)) for i in range(1, total - 1)]
        else:
            ratio = math.log(high) - math.log(low)
            inner = [math.exp(math.log(low) + ratio * i / (total - 1)) for i in range(1, total - 1)]
        values = [float(low), *inner, float(high)] if total > 1 else [float(low)]
        super().__init__(sorted(set(values)), knockout_prob=knockout_prob, when=when, important=important)
        self.start, self.end, self.total = low, high, total

    def level(self, value: Any) -> int:
        """The level whose value this is, to within rounding."""
        level = self.nearest(value)
        if not math.isclose(self.choices[level], value, rel_tol=1e-9):
            raise self._refuse(value)
        return level

    def nearest(self, value: Any) -> int:
        """The level nearest in the logarithm, if `value` lies in the range at all.

        A default of 0.001 is meant seriously even if 32 values from 1e-5 to 0.1 step over it.
        """
        inside = is_number(value) and self.start * (1 - 1e-9) <= value <= self.end * (1 + 1e-9)
        if not inside:
            raise self._refuse(value)
        return int(np.abs(np.log(self._array) - math.log(value)).argmin())

    def _fields(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "total": self.total}


class Literal(Choice):
    """A constant, useful for a flag that is there or not (`knockout_prob`).

    Args:
        value: What the objective gets.
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.
    """

    kind = "literal"

    def __init__(
        self,
        value: Any,
        *,
        knockout_prob: float | None = None,
        when: str | None = None,
        important: bool = False,
    ) -> None:
        super().__init__([value], knockout_prob=knockout_prob, when=when, important=important)

    def _fields(self) -> dict[str, Any]:
        return {"value": self.choices[0]}


class Boolean(Choice):
    """``False`` or ``True``.

    Args:
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.
    """

    kind = "boolean"

    def __init__(
        self, *, knockout_prob: float | None = None, when: str | None = None, important: bool = False
    ) -> None:
        super().__init__([False, True], knockout_prob=knockout_prob, when=when, important=important)

    def _fields(self) -> dict[str, Any]:
        return {}
