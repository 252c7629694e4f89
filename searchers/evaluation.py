"""Expressions computed for many rows at once, with Python's semantics.

Columns are numpy arrays wherever the values are numbers; everything else (strings, ``None``, lists,
integers beyond 64 bits) goes element by element through the functions of `searchers.elementwise`.
A bound on the magnitude travels with each integer array, so that no result overflows unnoticed: where
it could pass 2**62 Python's own integers take over, and where a float would lose digits as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from searchers.columns import EXACT_FLOAT, Array, Column, binary, call, column_of, objects, plain, typed
from searchers.elementwise import BINARY, COMPARE, FUNCTIONS, contains, item
from searchers.errors import ConstraintError
from searchers.expressions import Const, Expr, Leaf, Op

__all__ = ["Failure", "Values", "attempt", "evaluate", "explain", "truth"]

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp] | None
Values = Callable[[int], Array] | Mapping[int, Array]
"""For the index of a parameter, its values in all rows."""

_SIMPLE_COMPARE: Final[Mapping[str, Callable[[Array, Array], Array]]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Failure(NamedTuple):
    """Rows for which an expression has no value.

    Attributes:
        rows: A mask over all rows.
        message: What happened in one of them.
    """

    rows: Mask
    message: str


def evaluate(
    expr: Expr,
    values: Values,
    n: int,
    *,
    text: str = "",
    names: Mapping[int, str] | Sequence[str] | None = None,
) -> Array:
    """The value of an expression in each row.

    Args:
        expr: The expression.
        values: The values of each parameter it reads, an array of length `n` each.
        n: Number of rows.
        text: The constraint as the user wrote it, for messages.
        names: The names of the parameters, for messages.

    Returns:
        An array of length `n`: booleans, 64-bit integers or floats, or Python objects.

    Raises:
        ConstraintError: The expression has no value in some row, for example because a knocked-out
            parameter is ``None`` there.
    """
    result, failure = attempt(expr, values, n)
    if failure is not None:
        raise explain(expr, values, failure, text, names)
    return result


def attempt(expr: Expr, values: Values, n: int) -> tuple[Array, Failure | None]:
    """As `evaluate`, but rows without a value are reported; what the array holds there means nothing."""
    run = _Run(values, n)
    if n == 0:
        return np.empty(0, dtype=bool), None
    column = run.value(expr, None)
    return np.array(np.broadcast_to(column.array, (n,))), run.failure


def truth(expr: Expr, values: Values, n: int) -> tuple[Mask, Failure | None]:
    """Whether the expression's value is true in each row, and the rows in which it has none."""
    run = _Run(values, n)
    if n == 0:
        return np.empty(0, dtype=bool), None
    return np.array(np.broadcast_to(run.truth(expr, None), (n,))), run.failure


def explain(
    expr: Expr,
    values: Values,
    failure: Failure,
    text: str,
    names: Mapping[int, str] | Sequence[str] | None = None,
) -> ConstraintError:
    """The error to raise for the first row of `failure`, with the parameters' values there."""
    row = int(np.argmax(failure.rows))
    read = values if callable(values) else values.__getitem__
    found = {leaf: read(leaf)[row : row + 1] for leaf in sorted(expr.leaves)}
    _, alone = attempt(expr, found, 1)
    message = (alone or failure).message
    shown = []
    absent = None
    for leaf, column in found.items():
        name = str(leaf) if names is None else names[leaf]
        value = column.tolist()[0]
        shown.append(f"{name} = {value!r}")
        if value is None:
            absent = absent or name
    hint = ""
    if absent is not None:
        hint = (
            f"; a knocked-out or inactive parameter is None in an expression: "
            f"write '{absent} is None or ...' for what should hold then"
        )
    where = f" where {', '.join(shown)}" if shown else ""
    return ConstraintError(f"constraint {text!r} cannot be evaluated{where}: {message}{hint}")


class _Run:
    """One evaluation over n rows; `rows` everywhere below are the row numbers still of interest."""

    def __init__(self, values: Values, n: int) -> None:
        self._read = values if callable(values) else values.__getitem__
        self._n = n
        self._cache: dict[int, Column] = {}
        self.failure: Failure | None = None

    # -- truth ------------------------------------------------------------------------------------

    def truth(self, expr: Expr, rows: Rows) -> Mask:
        if isinstance(expr, Op):
            if expr.name == "not":
                return ~self.truth(expr.args[0], rows)
            if expr.name in ("and", "or"):
                return self._junction(expr, rows)
            if expr.name == "if":
                return self._choose_truth(expr, rows)
        return self._is_true(self.value(expr, rows), rows)

    def _is_true(self, column: Column, rows: Rows) -> Mask:
        array = column.array
        if column.kind != "O":
            return array.astype(bool)
        found: Mask = self._map(bool, [array], rows).array.astype(bool)
        return found

    def _junction(self, expr: Op, rows: Rows) -> Mask:
        stop = expr.name == "or"
        count = self._count(rows)
        result: Mask = np.full(count, not stop)
        active: npt.NDArray[np.intp] | None = None
        for arg in expr.args:
            found = self.truth(arg, self._pick(rows, active))
            found = np.broadcast_to(found, (count if active is None else len(active),))
            decided = found == stop
            if active is None:
                result[decided] = stop
                active = np.flatnonzero(~decided)
            else:
                result[active[decided]] = stop
                active = active[~decided]
            if not len(active):
                break
            if len(active) == count:
                active = None
        return result

    def _choose_truth(self, expr: Op, rows: Rows) -> Mask:
        test = np.broadcast_to(self.truth(expr.args[0], rows), (self._count(rows),))
        result: Mask = np.zeros(len(test), dtype=bool)
        for branch, places in ((expr.args[1], np.flatnonzero(test)), (expr.args[2], np.flatnonzero(~test))):
            if len(places):
                result[places] = self.truth(branch, self._pick(rows, places))
        return result

    # -- values -----------------------------------------------------------------------------------

    def value(self, expr: Expr, rows: Rows) -> Column:
        match expr:
            case Leaf(index=index):
                return self._leaf(index, rows)
            case Const(value=value):
                return column_of([value])
            case Op(name="not"):
                return Column(self.truth(expr, rows), 1)
            case Op(name="and" | "or"):
                return self._operand(expr, rows)
            case Op(name="if", args=(test, *branches)):
                found = np.broadcast_to(self.truth(test, rows), (self._count(rows),))
                return self._merge(found, branches, rows)
            case Op(name="is" | "is not", args=(left, right)):
                return self._identity(expr.name, self.value(left, rows), right, rows)
            case Op(name="in" | "not in", args=(left, right)):
                return self._membership(expr.name, self.value(left, rows), right, rows)
            case Op(name="list" | "tuple", args=args):
                made = list if expr.name == "list" else tuple
                columns = [self.value(arg, rows).array for arg in args]
                return self._map(lambda *items: made(items), columns, rows)
            case Op(name="item", args=(container, index)):
                columns = [self.value(container, rows).array, self.value(index, rows).array]
                return self._map(item, columns, rows)
            case Op(name="neg" | "pos" | "invert" as name, args=(arg,)):
                return self._unary(name, self.value(arg, rows), rows)
            case Op(name=name, args=(left, right)) if name in COMPARE:
                return self._compare(name, self.value(left, rows), self.value(right, rows), rows)
            case Op(name=name, args=(left, right)) if name in BINARY:
                return self._binary(name, self.value(left, rows), self.value(right, rows), rows)
            case Op():
                return self._call(expr, rows)

    def _leaf(self, index: int, rows: Rows) -> Column:
        if index not in self._cache:
            self._cache[index] = typed(np.asarray(self._read(index)))
        column = self._cache[index]
        if rows is None:
            return column
        picked = column.array[rows]
        # where None is ruled out by an earlier condition, what is left is often all numbers
        return typed(picked) if column.kind == "O" else Column(picked, column.magnitude)

    def _operand(self, expr: Op, rows: Rows) -> Column:
        """``and`` and ``or`` as values: the operand that decides."""
        first, *rest = expr.args
        column = self.value(first, rows)
        test = np.broadcast_to(self._is_true(column, rows), (self._count(rows),))
        remaining = rest[0] if len(rest) == 1 else Op(expr.name, tuple(rest))
        return self._merge(test if expr.name == "and" else ~test, [remaining, column], rows)

    def _merge(self, test: Mask, branches: Sequence[Expr | Column], rows: Rows) -> Column:
        places = np.flatnonzero(test), np.flatnonzero(~test)
        found: list[tuple[npt.NDArray[np.intp], Column]] = []
        for branch, where in zip(branches, places, strict=True):
            if not len(where):
                continue
            if isinstance(branch, Column):
                array = branch.array if len(branch.array) == 1 else branch.array[where]
                found.append((where, Column(array, branch.magnitude)))
            else:
                found.append((where, self.value(branch, self._pick(rows, where))))
        if len(found) == 1:
            return found[0][1]
        kinds = {column.kind for _, column in found}
        dtype = found[0][1].array.dtype if len(kinds) == 1 else np.dtype(object)
        merged = np.empty(len(test), dtype=dtype)
        for where, column in found:
            values = column.array if column.array.dtype == dtype else objects(column.array.tolist())
            merged[where] = np.broadcast_to(values, (len(where),))
        return Column(merged, max(column.magnitude for _, column in found))

    def _identity(self, name: str, left: Column, right: Expr, rows: Rows) -> Column:
        wanted = right.value if isinstance(right, Const) else None
        if left.kind == "O":
            found = self._map(lambda value: value is wanted, [left.array], rows).array
        elif isinstance(wanted, bool) and left.kind == "b":
            found = left.array == wanted
        else:
            found = np.zeros(len(left.array), dtype=bool)
        return Column(found if name == "is" else ~found, 1)

    def _membership(self, name: str, left: Column, right: Expr, rows: Rows) -> Column:
        found: Mask
        if isinstance(right, Op) and right.name in ("list", "tuple"):
            found = self._among(left, right.args, rows)
        else:
            container = self.value(right, rows).array
            found = self._map(contains, [left.array, container], rows).array.astype(bool)
        return Column(found if name == "in" else ~found, 1)

    def _among(self, left: Column, items: Sequence[Expr], rows: Rows) -> Mask:
        found: Mask = np.zeros(1, dtype=bool)
        numbers = [arg.value for arg in items if isinstance(arg, Const) and type(arg.value) is int]
        quick = len(numbers) == len(items) > 4 and max(map(abs, numbers)) < EXACT_FLOAT
        if quick and left.kind in "bi":
            return np.isin(left.array, np.array(numbers))
        for arg in items:
            found = found | self._compare("==", left, self.value(arg, rows), rows).array
        return found

    def _unary(self, name: str, arg: Column, rows: Rows) -> Column:
        if arg.kind == "O" or (name == "invert" and arg.kind == "f"):
            return self._map(FUNCTIONS[name], [arg.array], rows)
        array = arg.array.astype(np.int64) if arg.kind == "b" else arg.array
        if name == "neg":
            return Column(-array, arg.magnitude)
        return Column(array if name == "pos" else ~array, arg.magnitude + 1)

    def _compare(self, name: str, left: Column, right: Column, rows: Rows) -> Column:
        if not plain(left, right):
            mapped = self._map(COMPARE[name], [left.array, right.array], rows)
            return Column(self._is_true(mapped, rows), 1)
        return Column(_SIMPLE_COMPARE[name](left.array, right.array), 1)

    def _binary(self, name: str, left: Column, right: Column, rows: Rows) -> Column:
        if plain(left, right):
            divisor = right.array
            if name in ("/", "//", "%"):
                zero = divisor == 0
                if zero.any():
                    self._fail(zero, rows, "ZeroDivisionError: division by zero")
                    right = Column(np.where(zero, np.ones(1, dtype=divisor.dtype), divisor), right.magnitude)
            found = binary(name, left, right)
            if found is not None:
                return found
        return self._map(BINARY[name], [left.array, right.array], rows)

    def _call(self, expr: Op, rows: Rows) -> Column:
        name, args = expr.name, expr.args
        if name in ("min", "max", "sum", "len") and len(args) == 1:
            (only,) = args
            if not (isinstance(only, Op) and only.name in ("list", "tuple")):
                return self._map(FUNCTIONS[name], [self.value(only, rows).array], rows)
            if name == "len":
                for arg in only.args:
                    self.value(arg, rows)  # one without a value leaves the list without a length
                return column_of([len(only.args)])
            args = only.args
            if name == "sum":
                total = column_of([0])
                for arg in args:
                    total = self._binary("+", total, self.value(arg, rows), rows)
                return total
        columns = [self.value(arg, rows) for arg in args]
        return call(name, columns) or self._mapped_call(name, columns, rows)

    def _mapped_call(self, name: str, columns: Sequence[Column], rows: Rows) -> Column:
        function = FUNCTIONS[name]
        if name in ("min", "max"):
            return self._map(lambda *items: function(items), [column.array for column in columns], rows)
        if len(columns) == 1 and columns[0].kind != "O" and len(columns[0].array) > 64:
            distinct, places = np.unique(columns[0].array, return_inverse=True)
            if len(distinct) * 4 < len(places):
                results, failed, _ = _apply(function, [distinct])
                if not failed:
                    few = column_of(results)
                    return Column(few.array[places], few.magnitude)
        return self._map(function, [column.array for column in columns], rows)

    # -- plumbing ---------------------------------------------------------------------------------

    def _count(self, rows: Rows) -> int:
        return self._n if rows is None else len(rows)

    @staticmethod
    def _pick(rows: Rows, places: npt.NDArray[np.intp] | None) -> Rows:
        if places is None:
            return rows
        return places if rows is None else rows[places]

    def _map(self, function: Callable[..., Any], arrays: Sequence[Array], rows: Rows) -> Column:
        """`function` of each element; an exception marks the row as failed."""
        results, failed, message = _apply(function, arrays)
        if failed:
            bad = np.zeros(len(results), dtype=bool)
            bad[failed] = True
            self._fail(bad, rows, message)
            # of the others' kind, so that the column stays as simple as it can be
            filler = next((result for place, result in enumerate(results) if not bad[place]), 1)
            for place in failed:
                results[place] = filler
        return column_of(results)

    def _fail(self, places: Mask, rows: Rows, message: str) -> None:
        marked = np.zeros(self._n, dtype=bool) if self.failure is None else self.failure.rows
        if len(places) == 1:
            marked[slice(None) if rows is None else rows] |= places[0]
        elif rows is None:
            marked |= places
        else:
            marked[rows[places]] = True
        self.failure = Failure(marked, message if self.failure is None else self.failure.message)


def _apply(function: Callable[..., Any], arrays: Sequence[Array]) -> tuple[list[Any], list[int], str]:
    """The results, the places where there is none, and the first exception as text."""
    length = max((len(array) for array in arrays), default=1)
    lists = [array.tolist() * (length if len(array) == 1 else 1) for array in arrays]
    results: list[Any] = []
    failed: list[int] = []
    message = ""
    for place, items in enumerate(zip(*lists, strict=True) if lists else [()]):
        try:
            results.append(function(*items))
        except Exception as error:
            # operators of the user's own objects may raise anything at all
            results.append(None)
            failed.append(place)
            message = message or f"{type(error).__name__}: {error}"
    return results, failed, message
