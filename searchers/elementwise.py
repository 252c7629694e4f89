"""The operators and functions of constraint expressions on single Python values.

They are Python's own, less what could take unbounded time or memory: arithmetic is for numbers only
(no repetition, concatenation or formatting of strings and lists), and integers are limited to
`MAX_BITS` bits.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["BINARY", "COMPARE", "FUNCTIONS", "MAX_BITS", "contains", "item"]

MAX_BITS: Final = 4096
"""Largest integer an expression may compute, in bits."""
_MAX_DIGITS: Final = 100


def _number(value: Any, what: str) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"{what} needs numbers, not {value!r}")
    return value


def _limited(value: Any) -> Any:
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError(f"an integer of more than {MAX_BITS} bits")
    return value


def _arithmetic(symbol: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(left: Any, right: Any) -> Any:
        return _limited(function(_number(left, symbol), _number(right, symbol)))

    return apply


def _power(base: Any, exponent: Any) -> Any:
    if (
        isinstance(base, int)
        and isinstance(exponent, int)
        and abs(base).bit_length() * exponent > 2 * MAX_BITS
    ):
        raise OverflowError(f"an integer of more than {MAX_BITS} bits")
    return base**exponent


def _shift(value: Any, count: Any) -> Any:
    if isinstance(count, int) and count > MAX_BITS:
        raise OverflowError(f"a shift by more than {MAX_BITS} bits")
    return value << count


BINARY: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": _arithmetic("+", operator.add),
    "-": _arithmetic("-", operator.sub),
    "*": _arithmetic("*", operator.mul),
    "/": _arithmetic("/", operator.truediv),
    "//": _arithmetic("//", operator.floordiv),
    "%": _arithmetic("%", operator.mod),
    "**": _arithmetic("**", _power),
    "&": _arithmetic("&", operator.and_),
    "|": _arithmetic("|", operator.or_),
    "^": _arithmetic("^", operator.xor),
    "<<": _arithmetic("<<", _shift),
    ">>": _arithmetic(">>", operator.rshift),
}
"""Binary operators by their symbol."""

COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""Comparisons by their symbol."""


def contains(value: Any, container: Any) -> bool:
    """``value in container``, for strings, lists and tuples."""
    if not isinstance(container, str | list | tuple):
        raise TypeError(f"'in' needs a list, a tuple or a string, not {container!r}")
    return value in container


def item(container: Any, index: Any) -> Any:
    """``container[index]``, for strings, lists and tuples."""
    if not isinstance(container, str | list | tuple):
        raise TypeError(f"only lists, tuples and strings have items, not {container!r}")
    return container[index]


def _sized(value: Any) -> int:
    if not isinstance(value, str | list | tuple):
        raise TypeError(f"len() needs a list, a tuple or a string, not {value!r}")
    return len(value)


def _sequence(values: Any, name: str) -> Any:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name}() needs several numbers or a list, not {values!r}")
    return values


def _sum(values: Any) -> Any:
    total: Any = 0
    for value in _sequence(values, "sum"):
        total = BINARY["+"](total, value)
    return total


def _integer(value: Any) -> int:
    return int(value) if isinstance(value, str) else int(_number(value, "int()"))


def _real(value: Any) -> float:
    return float(value) if isinstance(value, str) else float(_number(value, "float()"))


def _round(value: Any, digits: Any = None) -> Any:
    if digits is not None and (not isinstance(digits, int) or abs(digits) > _MAX_DIGITS):
        raise ValueError(f"round() takes a number of digits up to {_MAX_DIGITS}, not {digits!r}")
    return round(_number(value, "round()"), digits)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": lambda value: abs(_number(value, "abs()")),
    "ceil": lambda value: math.ceil(_number(value, "ceil()")),
    "float": _real,
    "floor": lambda value: math.floor(_number(value, "floor()")),
    "gcd": math.gcd,
    "int": _integer,
    "invert": lambda value: ~_number(value, "~"),
    "len": _sized,
    "log2": lambda value: math.log2(_number(value, "log2()")),
    "max": lambda values: max(_sequence(values, "max")),
    "min": lambda values: min(_sequence(values, "min")),
    "neg": lambda value: -_number(value, "-"),
    "pos": lambda value: +_number(value, "+"),
    "round": _round,
    "sqrt": lambda value: math.sqrt(_number(value, "sqrt()")),
    "sum": _sum,
}
"""Functions and unary operators by name; min, max and sum take one sequence."""
