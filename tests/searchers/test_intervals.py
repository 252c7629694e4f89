from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers.evaluation import attempt
from searchers.expressions import parse
from searchers.intervals import Range, decide

NAMES = ("a", "b", "c")
TREE = {name: place for place, name in enumerate(NAMES)}

values = st.one_of(
    st.integers(-5, 9),
    st.sampled_from([0.5, -2.5, 0.1, 3.0]),
    st.sampled_from([2**53 + 1, -(2**60), 10**18]),
)
domains = st.tuples(*[st.lists(values, min_size=1, max_size=4) for _ in NAMES], st.booleans())
atoms = st.one_of(st.sampled_from(NAMES), st.integers(-2, 9).map(str), st.sampled_from(["0.3", "2.5"]))


def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = [
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "&",
        "|",
        "^",
        "<<",
        ">>",
        "**",
        "<",
        "<=",
        ">",
        ">=",
        "==",
        "!=",
        "and",
        "or",
    ]
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(binary), inner),
        st.builds("({}{})".format, st.sampled_from(["-", "~", "not "]), inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max", "gcd"]), inner, inner),
        st.builds("sum([{}, {}, a])".format, inner, inner),
        st.builds(
            "{}({})".format, st.sampled_from(["abs", "int", "round", "ceil", "floor", "log2", "sqrt"]), inner
        ),
        st.builds("({} {} ({}, {}))".format, inner, st.sampled_from(["in", "not in"]), inner, inner),
        st.builds("({} is None)".format, inner),
    )


expressions = st.recursive(atoms, extend, max_leaves=7)


def span(items: list[Any]) -> Range:
    numbers = [item for item in items if item is not None]
    return Range(float(min(numbers)), float(max(numbers)), numeric=None not in items)


@settings(max_examples=300, deadline=None)
@given(expressions, domains, st.sets(st.integers(0, 2)))
def test_no_completion_contradicts_the_verdict(text: str, drawn: Any, assigned: set[int]) -> None:
    *columns, absent = drawn
    if absent:
        columns[1] = [*columns[1], None]
    expr = parse(text, TREE)
    rows = list(itertools.product(*columns))
    cells = {i: np.fromiter((row[i] for row in rows), dtype=object, count=len(rows)) for i in range(3)}
    found, failure = attempt(expr, cells, len(rows))
    known = {i: cells[i] for i in assigned}
    ranges = {i: span(columns[i]) for i in range(3)}
    can_hold, can_fail = decide(expr, known, ranges, len(rows))
    for i, value in enumerate(found.tolist()):
        if failure is None or not failure.rows[i]:
            assert (can_hold if value else can_fail)[i], (text, rows[i], assigned, value)


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("a + b <= 5", {0: [1, 4, 5]}, [True, True, False]),
        ("a * b == 12", {0: [1, 4, 13]}, [False, True, False]),
        ("a * b >= 40", {0: [3, 5]}, [False, True]),
        ("a % b == 3", {0: [2, 3]}, [False, True]),
        ("b // 4 == a", {0: [2, 3]}, [True, False]),
        ("a == 'x' or b > 10", {0: ["x", "y"]}, [True, False]),
        ("not (a == 'x' or b < 9)", {0: ["x", "y"]}, [False, True]),
        ("b in (a, a + 20)", {0: [3, 11]}, [True, False]),
        ("(b if a == 1 else b + 10) > 10", {0: [1, 2]}, [False, True]),
        ("max(a, b) < 5", {0: [4, 5]}, [True, False]),
        ("min(a, b) > 5", {0: [6, 5]}, [True, False]),
        ("abs(a - b) > 9", {0: [0, 5]}, [True, False]),
        ("b is None", {0: [0]}, [False]),
        ("sum([a, b, b]) > 25", {0: [5, 6]}, [False, True]),
    ],
)
def test_hopeless_rows_are_recognised(text: str, known: dict[int, list[Any]], expected: list[bool]) -> None:
    columns = {i: np.array(items, dtype=object) for i, items in known.items()}
    can_hold, _ = decide(parse(text, TREE), columns, {1: Range(1.0, 10.0)}, len(expected))
    assert can_hold.tolist() == expected


def test_numbers_among_other_values_still_bound_arithmetic() -> None:
    ranges = {1: Range(1.0, 10.0, numeric=False)}
    known = {0: np.array([5, 10])}
    can_hold, _ = decide(parse("a + b <= 10", TREE), known, ranges, 2)
    assert can_hold.tolist() == [True, False]
    can_hold, _ = decide(parse("b is None or a + b <= 10", TREE), known, ranges, 2)
    assert can_hold.all()
