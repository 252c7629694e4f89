from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers.errors import ConstraintError
from searchers.evaluation import attempt, evaluate, truth
from searchers.expressions import parse

NAMES = ("a", "b", "c", "s")
TREE = {name: place for place, name in enumerate(NAMES)}
FUNCTIONS = {
    "abs": abs,
    "ceil": math.ceil,
    "float": float,
    "floor": math.floor,
    "gcd": math.gcd,
    "int": int,
    "len": len,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
    "sum": sum,
}


def column(values: list[Any]) -> np.ndarray[Any, Any]:
    kinds = set(map(type, values))
    if kinds in ({int}, {float}, {bool}) and (kinds != {int} or max(map(abs, values)) < 2**63):
        return np.array(values)
    return np.fromiter(values, dtype=object, count=len(values))


def both(text: str, rows: list[tuple[Any, ...]]) -> tuple[list[Any], list[Any]]:
    """What we compute for each row and what Python does; the exception's type where it raises."""
    columns = {place: column([row[place] for row in rows]) for place in range(len(rows[0]))}
    found, failure = attempt(parse(text, TREE), columns, len(rows))
    ours = ["error" if failure and failure.rows[i] else value for i, value in enumerate(found.tolist())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        code = compile(text, "<constraint>", "eval")
    pythons = []
    for row in rows:
        try:
            value = eval(code, dict(FUNCTIONS), dict(zip(NAMES, row, strict=False)))
            pythons.append("error" if isinstance(value, complex) else value)
        except (TypeError, ValueError, ArithmeticError, LookupError):
            pythons.append("error")
    return ours, pythons


def same(ours: Any, pythons: Any) -> bool:
    if isinstance(ours, float) and isinstance(pythons, float) and math.isnan(pythons):
        return math.isnan(ours)
    return bool(ours == pythons)


numbers = st.one_of(
    st.integers(-6, 40),
    st.sampled_from([0, 1, 2**31, 2**53 + 1, 2**62, 2**63, -(2**63), 10**30]),
    st.sampled_from([0.0, 0.5, -1.5, 2.0, 1e300, 1e-300, float(2**53), 0.1]),
    st.booleans(),
    st.none(),
)
uniform = st.sampled_from([st.integers(-6, 40), st.sampled_from([0.0, 0.5, -1.5, 3.0]), numbers])
rows = uniform.flatmap(
    lambda cell: st.lists(st.tuples(cell, cell, cell, st.sampled_from(["x", "y"])), min_size=1, max_size=5)
)
atoms = st.one_of(
    st.sampled_from(["a", "b", "c"]), st.integers(0, 9).map(str), st.sampled_from(["0.5", "None"])
)


def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(
        ["+", "-", "*", "/", "//", "%", "&", "|", "^", "<", "<=", ">", ">=", "==", "!=", "and", "or"]
    )
    return st.one_of(
        st.builds("({} {} {})".format, inner, binary, inner),
        st.builds("({} ** {})".format, inner, st.sampled_from(["2", "3"])),
        st.builds("(abs({}) ** (a % 7))".format, inner),
        st.builds(
            "({} {} {})".format, inner, st.sampled_from(["<<", ">>"]), st.sampled_from(["2", "(b % 9)", "70"])
        ),
        st.builds("({}{})".format, st.sampled_from(["-", "+", "~", "not "]), inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max", "gcd"]), inner, inner),
        st.builds("{}([{}, {}])".format, st.sampled_from(["min", "max", "sum", "len"]), inner, inner),
        st.builds(
            "{}({})".format,
            st.sampled_from(["abs", "int", "float", "round", "ceil", "floor", "log2", "sqrt"]),
            inner,
        ),
        st.builds("({} {} ({}, {}, 1))".format, inner, st.sampled_from(["in", "not in"]), inner, inner),
        st.builds("({} {})".format, inner, st.sampled_from(["is None", "is not None", "is True"])),
        st.builds("({} if s == 'x' else {})".format, inner, inner),
        st.builds("({} < {} <= {})".format, inner, inner, inner),
    )


expressions = st.recursive(atoms, extend, max_leaves=8)


class TestAgainstPython:
    @settings(max_examples=300, deadline=None)
    @given(expressions, rows)
    def test_values_are_pythons_own(self, text: str, rows: list[tuple[Any, ...]]) -> None:
        ours, pythons = both(text, rows)
        assert all(map(same, ours, pythons)), (text, rows, ours, pythons)

    @settings(max_examples=150, deadline=None)
    @given(expressions, rows)
    def test_truth_is_the_truth_of_the_value(self, text: str, rows: list[tuple[Any, ...]]) -> None:
        columns = {place: column([row[place] for row in rows]) for place in range(4)}
        values, failure = attempt(parse(text, TREE), columns, len(rows))
        held, failed = truth(parse(text, TREE), columns, len(rows))
        assert (failure is None) == (failed is None)
        if failure is None:
            assert held.tolist() == [bool(value) for value in values.tolist()]

    @pytest.mark.parametrize(
        "text",
        [
            "a * b * c",
            "a ** b",
            "a << b",
            "a + 9007199254740993 == 9007199254740992.0 + b",
            "sum([a, b, c]) * a * b * c * a * b * c",
            "-a",
            "abs(a) + 1",
            "a // b",
            "a % b",
            "~a",
        ],
    )
    def test_integers_do_not_overflow(self, text: str) -> None:
        extremes = [0, 1, -1, 3, 2**31, 2**62, -(2**62), 2**63 - 1, -(2**63)]
        rows = [(x, y, z, "x") for x in extremes for y in (1, 3, 60) for z in (2**40, -7)]
        ours, pythons = both(text, rows)
        assert ours == pythons

    def test_short_circuit_protects_rows(self) -> None:
        rows = [(None, 2, 0, "x"), (3, 2, 0, "x"), (3, 0, 1, "y")]
        for text in ("a is None or a * 2 <= 6", "c != 0 and b // c == 0", "a if c == 0 else b // c"):
            ours, pythons = both(text, rows)
            assert ours == pythons
            assert "error" not in ours

    def test_and_returns_operands(self) -> None:
        ours, pythons = both("(a or b) + (a and b)", [(0, 5, 0, ""), (2, 7, 0, ""), (0.0, 1, 0, "")])
        assert ours == pythons

    def test_lists_and_strings(self) -> None:
        rows = [([1, 2], 2, 0, "f16"), ([2, 1], 3, 1, "bf16")]
        for text in (
            "a[0] == 1",
            "b in a",
            "a == [2, 1]",
            "sum(a) == 3 and len(a) == 2 and max(a) == 2",
            "s[0] == 'f'",
            "'16' in s",
            "len(s) > 3",
            "(b, s) in ((2, 'f16'), (3, 'x'))",
            "s < 'c'",
            "a[b] == 1",
        ):
            ours, pythons = both(text, rows)
            assert ours == pythons, text


class TestFailures:
    def columns(self, *values: Any) -> dict[int, Any]:
        return {place: column(list(items)) for place, items in enumerate(values)}

    def test_message_names_text_values_and_the_way_out(self) -> None:
        with pytest.raises(ConstraintError) as caught:
            evaluate(
                parse("a * 2 <= b", TREE),
                self.columns([1, None], [1, 7]),
                2,
                text="a * 2 <= b",
                names=NAMES,
            )
        message = str(caught.value)
        for part in ("'a * 2 <= b'", "a = None", "b = 7", "'a is None or ...'"):
            assert part in message

    def test_only_failing_rows_are_marked(self) -> None:
        found, failure = attempt(parse("a // b", TREE), self.columns([8, 8, 9], [2, 0, 3]), 3)
        assert failure is not None
        assert failure.rows.tolist() == [False, True, False]
        assert [found[0], found[2]] == [4, 3]

    @pytest.mark.parametrize(
        "text",
        [
            "'ab' * 1000000000",
            "[1] * 1000000000",
            "'%1000000000d' % a",
            "10 ** 10 ** 10",
            "a ** 1000000000",
            "2 << 1000000000",
            "1 << 4097",
            "round(a, 1000000000)",
            "'a' + 'b'",
            "(2 ** 4000) * (2 ** 4000)",
            "((2 ** 2000) ** 2) ** 2",
            "(-8) ** 0.5 == a",
            "len(a)",
            "a[0]",
            "1 in a",
            "sqrt(-a)",
            "log2(0 * a)",
            "int('x')",
            "int(1e999)",
        ],
    )
    def test_bombs_and_nonsense_are_errors(self, text: str) -> None:
        with pytest.raises(ConstraintError):
            evaluate(parse(text, TREE), self.columns([3, 4]), 2, text=text, names=NAMES)

    def test_objects_that_raise_are_errors(self) -> None:
        class Bad:
            def __eq__(self, other: object) -> bool:
                raise RuntimeError("no comparison")

            __hash__ = None  # type: ignore[assignment]

        with pytest.raises(ConstraintError, match="no comparison"):
            evaluate(parse("a == 3", TREE), {0: np.array([Bad()], dtype=object)}, 1, names=NAMES)

    def test_no_rows_give_no_values(self) -> None:
        assert len(evaluate(parse("1 // 0", TREE), {}, 0)) == 0
