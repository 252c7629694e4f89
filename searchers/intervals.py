"""What an expression can still become when only some of its parameters are known.

Interval arithmetic over many partial rows at once. It is conservative: a row of which some completion
satisfies the constraint is never called hopeless. Completions for which the expression has no value
(a division by zero, ``None * 2``) do not count as satisfying it.

Rounding: a float operation is monotone, so that bounds computed in floats bound what floats give. For
integers bounds are exact up to 2**53 and widened beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from searchers.evaluation import attempt
from searchers.expressions import Const, Expr, Leaf, Op

__all__ = ["Range", "decide"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_EXACT: Final = 2.0**53
_YES: Final[Mask] = np.ones(1, dtype=bool)
_NO: Final[Mask] = np.zeros(1, dtype=bool)
_INF: Final = np.full(1, np.inf)
_FLIPPED: Final[Mapping[str, str]] = {">": "<", ">=": "<="}


class Range(NamedTuple):
    """Where the values of a parameter lie that is not known yet.

    Attributes:
        low: Smallest numeric value; a number, or one for each row.
        high: Greatest numeric value, likewise.
        numeric: Whether all its values are numbers.
    """

    low: float | Floats
    high: float | Floats
    numeric: bool = True


class _Reach(NamedTuple):
    """What values are possible: of length 1 where all rows agree.

    `yes` and `no` say whether a true and a false value are possible. Numbers lie in `low`..`high`
    (infinite: nothing known); `numeric` is whether every value is a number.
    """

    low: Floats
    high: Floats
    yes: Mask
    no: Mask
    numeric: bool


_ANYTHING: Final = _Reach(-_INF, _INF, _YES, _YES, False)


def decide(
    expr: Expr,
    known: Mapping[int, Array],
    ranges: Mapping[int, Range],
    n: int,
) -> tuple[Mask, Mask]:
    """Whether an expression can still be true, and whether it can still be false.

    Args:
        expr: The expression.
        known: The values of the parameters that are assigned, arrays of length `n`.
        ranges: Where those lie that are not. A parameter in neither can be anything.
        n: Number of partial rows.

    Returns:
        Two masks of length `n`: can be true, can be false.
    """
    if n == 0:
        return np.empty(0, dtype=bool), np.empty(0, dtype=bool)
    with np.errstate(all="ignore"):
        reach = _Analysis(known, ranges, n).reach(expr)
    return np.array(np.broadcast_to(reach.yes, (n,))), np.array(np.broadcast_to(reach.no, (n,)))


class _Analysis:
    def __init__(self, known: Mapping[int, Array], ranges: Mapping[int, Range], n: int) -> None:
        self._known, self._ranges, self._n = known, ranges, n
        self._assigned = frozenset(known)

    def reach(self, expr: Expr) -> _Reach:
        if expr.leaves <= self._assigned:
            return self._exact(expr)
        if isinstance(expr, Leaf):
            return self._leaf(expr.index)
        assert isinstance(expr, Op)  # constants have no leaves
        name, args = expr.name, expr.args
        if name == "not":
            inner = self.reach(args[0])
            return _boolean(inner.no, inner.yes)
        if name in ("and", "or"):
            return self._junction(name, args)
        if name == "if":
            return self._choice(*(self.reach(arg) for arg in args))
        if name in ("in", "not in"):
            return self._membership(name, *args)
        if name in ("is", "is not"):
            return self._identity(name, *args)
        if name in ("min", "max", "sum") and len(args) == 1:
            (only,) = args
            if not (isinstance(only, Op) and only.name in ("list", "tuple")):
                return _ANYTHING
            args = only.args
            if name == "sum":
                return self._total(args)
        if name in ("list", "tuple", "item", "len", "float") or (name == "round" and len(args) == 2):
            return _ANYTHING
        parts = [self.reach(arg) for arg in args]
        if name in _COMPARISONS:
            return _compare(name, *parts)
        if name in ("min", "max"):
            return _extreme(name, parts)
        if name == "int" and not parts[0].numeric:
            return _ANYTHING  # a string can be turned into any number
        function = _ARITHMETIC.get(name)
        return _ANYTHING if function is None else _number(*function(*parts))

    def _exact(self, expr: Expr) -> _Reach:
        if not expr.leaves:
            array, failure = attempt(expr, {}, 1)
        else:
            array, failure = attempt(expr, self._known, self._n)
        if array.dtype == object:
            values = array.tolist()
            numeric = all(isinstance(value, int | float) for value in values)
            numbers = np.array([_as_float(value) for value in values])
            yes = np.array([_as_bool(value) for value in values])
            no = np.array([not _as_bool(value) for value in values])
        else:
            numeric, numbers = True, array.astype(np.float64)
            yes = array.astype(bool)
            no = ~yes
        if failure is not None:
            numbers = np.where(failure.rows, np.nan, numbers)
            yes, no = yes | failure.rows, no | failure.rows
        low, high = _widened(numbers, numbers)
        return _Reach(low, high, yes, no, numeric)

    def _leaf(self, index: int) -> _Reach:
        found = self._ranges.get(index)
        if found is None:
            return _ANYTHING
        low = np.atleast_1d(np.asarray(found.low, dtype=np.float64))
        high = np.atleast_1d(np.asarray(found.high, dtype=np.float64))
        if found.numeric:
            return _number(low, high)
        low, high = _widened(low, high)
        return _Reach(low, high, _YES, _YES, False)

    def _junction(self, name: str, args: Sequence[Expr]) -> _Reach:
        parts = [self.reach(arg) for arg in args]
        low, high = parts[0].low, parts[0].high
        yes, no = parts[0].yes, parts[0].no
        for part in parts[1:]:
            low, high = np.minimum(low, part.low), np.maximum(high, part.high)
            if name == "and":
                yes, no = yes & part.yes, no | part.no
            else:
                yes, no = yes | part.yes, no & part.no
        return _Reach(low, high, yes, no, all(part.numeric for part in parts))

    @staticmethod
    def _choice(test: _Reach, first: _Reach, second: _Reach) -> _Reach:
        low = np.where(
            test.yes & test.no, np.minimum(first.low, second.low), np.where(test.yes, first.low, second.low)
        )
        high = np.where(
            test.yes & test.no,
            np.maximum(first.high, second.high),
            np.where(test.yes, first.high, second.high),
        )
        yes = (test.yes & first.yes) | (test.no & second.yes)
        no = (test.yes & first.no) | (test.no & second.no)
        return _Reach(low, high, yes, no, first.numeric and second.numeric)

    def _membership(self, name: str, value: Expr, container: Expr) -> _Reach:
        if not (isinstance(container, Op) and container.name in ("list", "tuple")):
            return _boolean(_YES, _YES)
        left = self.reach(value)
        yes, no = _NO, _YES
        for arg in container.args:
            equal = _compare("==", left, self.reach(arg))
            yes, no = yes | equal.yes, no & equal.no
        return _boolean(yes, no) if name == "in" else _boolean(no, yes)

    def _identity(self, name: str, value: Expr, wanted: Expr) -> _Reach:
        if isinstance(wanted, Const) and wanted.value is None and self.reach(value).numeric:
            return _boolean(_NO, _YES) if name == "is" else _boolean(_YES, _NO)
        return _boolean(_YES, _YES)

    def _total(self, args: Sequence[Expr]) -> _Reach:
        total = _number(np.zeros(1), np.zeros(1))
        for arg in args:
            total = _number(*_add(total, self.reach(arg)))
        return total


def _as_float(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else float("nan")
    except OverflowError:
        return float("nan")


def _as_bool(value: Any) -> bool:
    try:
        return bool(value)
    except Exception:
        return True  # evaluation proper reports it


def _widened(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Bounds that hold for what floats cannot represent; infinite on both sides if one is not finite."""
    lost = ~(np.isfinite(low) & np.isfinite(high))
    if lost.any():
        low, high = np.where(lost, -np.inf, low), np.where(lost, np.inf, high)
    large = (np.abs(low) >= _EXACT) | (np.abs(high) >= _EXACT)
    if large.any():
        low = np.where(large, np.nextafter(low, -np.inf), low)
        high = np.where(large, np.nextafter(high, np.inf), high)
    return low, high


def _number(low: Floats, high: Floats) -> _Reach:
    low, high = _widened(low, high)
    return _Reach(low, high, (low != 0) | (high != 0), (low <= 0) & (high >= 0), True)


def _boolean(yes: Mask, no: Mask) -> _Reach:
    return _Reach((~no).astype(np.float64), yes.astype(np.float64), yes, no, True)


_COMPARISONS: Final = frozenset(("==", "!=", "<", "<=", ">", ">="))


def _compare(name: str, left: _Reach, right: _Reach) -> _Reach:
    if name in _FLIPPED:
        return _compare(_FLIPPED[name], right, left)
    if name == "!=":
        equal = _compare("==", left, right)
        return _boolean(equal.no, equal.yes)
    if name == "==":
        if not (left.numeric and right.numeric):
            return _boolean(_YES, _YES)
        yes = (left.low <= right.high) & (right.low <= left.high)
        no = ~((left.low == left.high) & (right.low == right.high) & (left.low == right.low))
        return _boolean(yes, no)
    if not (left.numeric or right.numeric):
        return _boolean(_YES, _YES)  # both could be strings
    # only a number is ordered with a number: for anything else there is no value
    if name == "<":
        return _boolean(left.low < right.high, ~(left.high < right.low))
    return _boolean(left.low <= right.high, ~(left.high <= right.low))


def _extreme(name: str, parts: Sequence[_Reach]) -> _Reach:
    function = np.minimum if name == "min" else np.maximum
    low, high = parts[0].low, parts[0].high
    for part in parts[1:]:
        low, high = function(low, part.low), function(high, part.high)
    if any(part.numeric for part in parts):
        return _number(low, high)
    return _Reach(low, high, _YES, _YES, False)


Bounds = tuple[Floats, Floats]


def _add(left: _Reach, right: _Reach) -> Bounds:
    return left.low + right.low, left.high + right.high


def _subtract(left: _Reach, right: _Reach) -> Bounds:
    return left.low - right.high, left.high - right.low


def _corners(function: Callable[[Floats, Floats], Any], left: _Reach, right: _Reach) -> Bounds:
    found = [function(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
    low, high = found[0], found[0]
    for corner in found[1:]:
        # a NaN in any corner stays
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return low, high


def _multiply(left: _Reach, right: _Reach) -> Bounds:
    if (left.low >= 0).all() and (right.low >= 0).all():
        return left.low * right.low, left.high * right.high
    return _corners(np.multiply, left, right)


def _quotient(function: Callable[[Floats, Floats], Any]) -> Callable[[_Reach, _Reach], Bounds]:
    def apply(left: _Reach, right: _Reach) -> Bounds:
        low, high = _corners(function, left, right)
        through_zero = (right.low <= 0) & (right.high >= 0)
        return np.where(through_zero, -np.inf, low), np.where(through_zero, np.inf, high)

    return apply


def _modulo(left: _Reach, right: _Reach) -> Bounds:
    # the result has the divisor's sign and is no greater; a non-negative dividend is not exceeded either
    low, high = np.minimum(right.low, 0.0), np.maximum(right.high, 0.0)
    plain = (left.low >= 0) & (right.low >= 0)
    high = np.where(plain, np.minimum(high, left.high), high)
    same = plain & (left.high < right.low)
    return np.where(same, left.low, low), high


def _power(left: _Reach, right: _Reach) -> Bounds:
    low, high = _corners(np.power, left, right)
    usable = (left.low > 0) | ((left.low >= 0) & (right.low >= 0))
    # not correctly rounded everywhere, so a little more than the last bit
    low, high = low - np.abs(low) * 1e-12, high + np.abs(high) * 1e-12
    return np.where(usable, low, -np.inf), np.where(usable, high, np.inf)


def _shift_left(left: _Reach, right: _Reach) -> Bounds:
    usable = right.high < 1000
    low, high = _corners(lambda value, count: value * np.exp2(np.maximum(count, 0.0)), left, right)
    return np.where(usable, low, -np.inf), np.where(usable, high, np.inf)


def _shift_right(left: _Reach, right: _Reach) -> Bounds:
    usable = right.high < 1000
    low, high = _corners(lambda value, count: np.floor(value * np.exp2(-np.maximum(count, 0.0))), left, right)
    return np.where(usable, low, -np.inf), np.where(usable, high, np.inf)


def _bits(name: str) -> Callable[[_Reach, _Reach], Bounds]:
    def apply(left: _Reach, right: _Reach) -> Bounds:
        usable = (left.low >= 0) & (right.low >= 0)
        if name == "&":
            low, high = np.zeros(1), np.minimum(left.high, right.high)
        else:
            top = np.maximum(left.high, right.high)
            high = np.exp2(np.floor(np.log2(np.maximum(top, 1.0))) + 1)
            low = np.maximum(left.low, right.low) if name == "|" else np.zeros(1)
        return np.where(usable, low, -np.inf), np.where(usable, high, np.inf)

    return apply


def _absolute(arg: _Reach) -> Bounds:
    least, most = np.minimum(np.abs(arg.low), np.abs(arg.high)), np.maximum(np.abs(arg.low), np.abs(arg.high))
    return np.where((arg.low <= 0) & (arg.high >= 0), 0.0, least), most


def _monotone(function: Callable[[Floats], Any], slack: float = 0.0) -> Callable[[_Reach], Bounds]:
    def apply(arg: _Reach) -> Bounds:
        low, high = function(arg.low), function(arg.high)
        return low - np.abs(low) * slack - slack, high + np.abs(high) * slack + slack

    return apply


def _common_divisor(*args: _Reach) -> Bounds:
    most = np.zeros(1)
    for arg in args:
        most = np.maximum(most, np.maximum(np.abs(arg.low), np.abs(arg.high)))
    return np.zeros(1), most


_ARITHMETIC: Final[Mapping[str, Callable[..., Bounds]]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _quotient(np.divide),
    "//": _quotient(np.floor_divide),
    "%": _modulo,
    "**": _power,
    "<<": _shift_left,
    ">>": _shift_right,
    "&": _bits("&"),
    "|": _bits("|"),
    "^": _bits("^"),
    "abs": _absolute,
    "ceil": _monotone(np.ceil),
    "floor": _monotone(np.floor),
    "gcd": _common_divisor,
    "int": _monotone(np.trunc),
    "invert": lambda arg: (-arg.high - 1, -arg.low - 1),
    "log2": _monotone(np.log2, 1e-12),
    "neg": lambda arg: (-arg.high, -arg.low),
    "pos": lambda arg: (arg.low, arg.high),
    "round": _monotone(np.rint),
    "sqrt": _monotone(np.sqrt),
}
"""Bounds of a result from those of its operands. Rows without a value do not count, so that an operand
that may be ``None`` or a string is as good as the numbers among its values."""
