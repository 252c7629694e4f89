"""Columns of values, and what numpy computes on them exactly as Python would.

`binary` and `call` return ``None`` where numpy would not be exact: the caller then goes element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "EXACT_FLOAT",
    "Array",
    "Column",
    "Domain",
    "binary",
    "call",
    "column_of",
    "objects",
    "plain",
    "typed",
]

Array = npt.NDArray[Any]

EXACT_FLOAT: Final = 2**53
"""Integers up to this size are floats without loss."""
_INT_LIMIT: Final = 2**62


class Domain(Protocol):
    """One parameter as constraints see it: numbered states, each with a value.

    A numeric domain of more than 65,536 states must not decrease from state to state.
    """

    @property
    def name(self) -> str:
        """As shown in messages, for example ``outer["inner"]``."""

    @property
    def n_states(self) -> int:
        """How many states there are, the one for "absent" (the last, if there is one) included."""

    def values(self, states: npt.NDArray[np.int64], /) -> npt.NDArray[Any]:
        """The values of these states: numbers where all of the domain's are, else objects."""

    def bounds(self) -> tuple[float, float] | None:
        """Smallest and greatest value, ``None`` if not all are numbers."""


class Column(NamedTuple):
    """Values of some rows, or one value that stands for all, and a bound on integers' magnitude."""

    array: Array
    magnitude: int

    @property
    def kind(self) -> str:
        """``"b"``, ``"i"``, ``"f"``, or ``"O"`` for anything else."""
        return self.array.dtype.kind


def plain(left: Column, right: Column) -> bool:
    """Whether numpy computes the pair as Python does."""
    kinds = left.kind + right.kind
    if "O" in kinds:
        return False
    return "f" not in kinds or max(left.magnitude, right.magnitude) <= EXACT_FLOAT


def binary(name: str, left: Column, right: Column) -> Column | None:
    """Arithmetic on a pair that is `plain`; divisors must not be zero, see `Column` for the types."""
    return (_integers if left.kind in "bi" and right.kind in "bi" else _floats)(name, left, right)


def _integers(name: str, left: Column, right: Column) -> Column | None:
    """Arithmetic on integers, or ``None`` if it must be done in Python's own."""
    a = left.array.astype(np.int64, copy=False)
    b = right.array.astype(np.int64, copy=False)
    m, k = left.magnitude, right.magnitude
    match name:
        case "+" | "-":
            if m + k <= _INT_LIMIT:
                return Column(a + b if name == "+" else a - b, m + k)
        case "*":
            if m * k <= _INT_LIMIT:
                return Column(a * b, m * k)
        case "/":
            if max(m, k) <= EXACT_FLOAT:
                return Column(a / b, 0)
        case "//":
            return Column(a // b, m + 1)
        case "%":
            return Column(a % b, k)
        case "&" | "|" | "^":
            function = {"&": np.bitwise_and, "|": np.bitwise_or, "^": np.bitwise_xor}[name]
            if left.kind == right.kind == "b":
                return Column(function(left.array, right.array), 1)
            return Column(function(a, b), 1 << max(m.bit_length(), k.bit_length()))
        case "<<" | "**" | ">>" if b.size and int(b.min()) >= 0:
            top = int(b.max())
            if name == ">>":
                return Column(a >> np.minimum(b, 63), m)
            if top <= 62 and name == "<<" and m << top <= _INT_LIMIT:
                return Column(a << b, m << top)
            if top <= 62 and name == "**" and max(m, 1) ** top <= _INT_LIMIT:
                return Column(a**b, max(m, 1) ** top)
    return None


def _floats(name: str, left: Column, right: Column) -> Column | None:
    functions: dict[str, Callable[[Array, Array], Array]] = {
        "+": np.add,
        "-": np.subtract,
        "*": np.multiply,
        "/": np.divide,
        "//": np.floor_divide,
        "%": np.mod,
    }
    if name not in functions:
        return None
    with np.errstate(all="ignore"):
        return Column(functions[name](left.array.astype(np.float64), right.array.astype(np.float64)), 0)


def call(name: str, columns: Sequence[Column]) -> Column | None:
    """A call on numbers by numpy, or ``None`` where Python's own function must do it."""
    kinds = {column.kind for column in columns}
    magnitude = max((column.magnitude for column in columns), default=0)
    arrays = [column.array.astype(np.int64) if column.kind == "b" else column.array for column in columns]
    integral = kinds <= {"b", "i"}
    if "O" in kinds or not (integral or kinds == {"f"}):
        return None
    if not integral and any(not np.isfinite(array).all() for array in arrays):
        return None
    if name in ("min", "max"):
        if kinds == {"b"}:
            return None
        function = np.minimum if name == "min" else np.maximum
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return Column(result, magnitude)
    if name == "gcd" and integral:
        return Column(np.gcd.reduce(np.broadcast_arrays(np.int64(0), *arrays), axis=0), magnitude)
    if len(arrays) != 1:
        return None
    (array,) = arrays
    if name == "abs":
        return Column(np.abs(array), magnitude)
    if name == "float":
        return Column(array.astype(np.float64), 0)
    if name == "sqrt" and (array >= 0).all() and magnitude <= EXACT_FLOAT:
        return Column(np.sqrt(array.astype(np.float64)), 0)
    rounding = {"int": np.trunc, "floor": np.floor, "ceil": np.ceil, "round": np.rint}.get(name)
    if rounding is None:
        return None
    if integral:
        return Column(array, magnitude)
    rounded = rounding(array)
    top = int(np.abs(rounded).max(initial=0.0))
    return Column(rounded.astype(np.int64), top) if top <= _INT_LIMIT else None


def objects(values: Sequence[Any]) -> Array:
    """An object array of exactly these elements, lists among them included."""
    return np.fromiter(values, dtype=object, count=len(values))


def column_of(values: list[Any]) -> Column:
    """A column of the simplest type that holds Python values as they are."""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return Column(np.array(values), 1)
    if kinds == {float}:
        return Column(np.array(values), 0)
    if kinds == {int}:
        magnitude = max(max(values), -min(values))
        if magnitude <= _INT_LIMIT:
            return Column(np.array(values, dtype=np.int64), magnitude)
    return Column(objects(values), 0)


def typed(array: Array) -> Column:
    """A user's column, with numpy's own scalars and types made plain."""
    if array.dtype.kind in "iu" and array.size:
        magnitude = max(int(array.max()), -int(array.min()))
        if magnitude <= _INT_LIMIT:
            return Column(array.astype(np.int64, copy=False), magnitude)
    elif array.dtype.kind == "b":
        return Column(array, 1)
    elif array.dtype.kind == "f":
        return Column(array.astype(np.float64, copy=False), 0)
    return column_of([value.item() if isinstance(value, np.generic) else value for value in array.tolist()])
