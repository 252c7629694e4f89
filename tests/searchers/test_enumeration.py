from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import solver
from searchers.constraints import Constraint
from searchers.enumeration import count_states, enumerate_states
from searchers.errors import ConstraintError


class Values:
    """A parameter with listed values."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name, self.n_states, self.items = name, len(values), list(values)
        self.numeric = all(isinstance(value, int | float) for value in values)
        self.array = (
            np.array(values) if self.numeric else np.fromiter(values, dtype=object, count=len(values))
        )

    def values(self, states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.array[states]

    def bounds(self) -> tuple[float, float] | None:
        return (min(self.items), max(self.items)) if self.numeric else None


class Fine:
    """A range with so many values that no list of them is made."""

    def __init__(self, name: str, n_states: int) -> None:
        self.name, self.n_states = name, n_states

    def values(self, states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert len(states) <= 1 << 18
        return states * 2

    def bounds(self) -> tuple[float, float]:
        return 0, 2 * (self.n_states - 1)


Domains = list[Values] | list[Fine]


def digits(names: str, low: int = 0, high: int = 9) -> list[Values]:
    return [Values(name, range(low, high + 1)) for name in names]


def enumerated(domains: Any, sources: Sequence[Any], **options: Any) -> Any:
    tree = {domain.name: place for place, domain in enumerate(domains)}
    built = [Constraint.build(source, tree, domains) for source in sources]

    def config_of(row: np.ndarray[Any, Any]) -> dict[str, Any]:
        values = [
            domain.values(row[i : i + 1].astype(np.int64)).tolist()[0] for i, domain in enumerate(domains)
        ]
        return {
            domain.name: value for domain, value in zip(domains, values, strict=True) if value is not None
        }

    return enumerate_states(domains, built, config_of, **options)


def in_order(states: np.ndarray[Any, Any]) -> bool:
    steps = np.diff(states.astype(np.int64), axis=0)
    first = (steps != 0).argmax(axis=1)
    return bool((steps[np.arange(len(steps)), first] > 0).all())


KINDS = {
    "a": [1, 2, 3, 4, 5],
    "b": [0, 2, 4],
    "c": [0.5, 1.0, 3.5],
    "d": ["x", "y", "z"],
    "e": [1, 2, None],
    "f": [7, 3, 5, 1],
}
CONSTRAINTS = [
    "a + b <= 5",
    "a % 2 == 0 or b > 0",
    "a * c >= 2",
    "d == 'x' or a > 2",
    "d != 'y' and d in ('x', 'z')",
    "e is None or e * a < 6",
    "e is not None",
    "f > a",
    "f == a or f == b + 1",
    "a + b + c + f < 12",
    "b == 0 or a % b == 0",
    "(a if d == 'x' else f) <= 4",
    "max(a, b, f) - min(a, b, f) == 3",
    "1 < 2",
    "a < 4 and b != 0 and 10 // b > 2",
]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(CONSTRAINTS), max_size=4),
    st.permutations(list(KINDS)),
    st.booleans(),
    st.booleans(),
)
def test_the_result_is_the_filtered_product(
    texts: list[str], names: list[str], opaque: bool, tabulated: bool
) -> None:
    domains = [Values(name, KINDS[name]) for name in names]
    sources: list[Any] = list(texts)
    if opaque:
        sources.append(lambda c: len(str(c["a"])) + c["f"] > 2)
    expected, error = [], False
    for states in itertools.product(*(range(domain.n_states) for domain in domains)):
        config = {domain.name: domain.items[state] for domain, state in zip(domains, states, strict=True)}
        said = []
        for text in texts:
            try:
                said.append(bool(eval(text, {"max": max, "min": min}, config)))
            except (TypeError, ZeroDivisionError):
                said.append(None)
        if opaque:
            said.append(config["f"] > 1)
        if all(answer is not False for answer in said):
            expected.append(states)
            error = error or None in said
    with pytest.MonkeyPatch.context() as patch:
        if not tabulated:
            # as for constraints too large for tables: bounds, and blocks of values
            patch.setattr(solver, "_TABLE", 0)
            patch.setattr(solver, "_BLOCK", 2)
            patch.setattr(solver, "_FAN", 2)
        if error or not expected:
            with pytest.raises(ConstraintError):
                enumerated(domains, sources)
        else:
            assert enumerated(domains, sources).tolist() == [list(states) for states in expected]


POWERS = {
    "BLOCK_M": (4, 8),
    "BLOCK_N": (4, 8),
    "BLOCK_K": (4, 8),
    "warps": (0, 4),
    "split_k": (0, 4),
    "vec": (0, 4),
}
TRITON = [
    *(Values(name, [2**power for power in range(low, high + 1)]) for name, (low, high) in POWERS.items()),
    Values("stages", range(1, 9)),
    Values("group", range(1, 17)),
    Values("waves", range(9)),
    Values("order", ["row", "col", "z"]),
    Values("dtype", ["f16", "bf16", "f32"]),
]
TRITON_CONSTRAINTS = [
    "(BLOCK_M + BLOCK_N) * BLOCK_K * stages * 2 <= 49152",
    "BLOCK_M * BLOCK_N * stages <= 8192",
    "BLOCK_M * BLOCK_N // (warps * 32) >= 64",
    "split_k == 1 or BLOCK_M * BLOCK_N <= 1024",
    "group * BLOCK_M <= 64",
    "order == 'row' or vec <= 2",
    "waves * split_k <= 8",
]
LETTERS = "abcdefghi"
SHAPES: dict[str, tuple[Any, list[Any], int]] = {
    "kernel": (TRITON, TRITON_CONSTRAINTS, 48_843),
    "one sum over all": (digits(LETTERS), ["+".join(LETTERS) + " <= 12"], 293_435),
    "one sum over all, exact": (digits(LETTERS), ["+".join(LETTERS) + " == 12"], 125_565),
    "a traced function": (
        digits(LETTERS),
        [lambda c: sum(c[name] for name in LETTERS) <= 12 and c["a"] >= c["b"]],
        185_765,
    ),
    "divisors": (
        digits("abcdef", 1, 32),
        ["a % b == 0", "b % c == 0", "c % d == 0", "d % e == 0", "e % f == 0"],
        1_928,
    ),
    "a product": (digits("abc", 1, 1000), ["a * b == c"], 7_069),
    "a sum": (digits("abc", 1, 1000), ["a + b == c"], 499_500),
    "strings": (
        [Values(name, [f"w{word}" for word in range(20)]) for name in "abcdefg"],
        ["a == b", "b != c or c == 'w3'", "c in ('w1', 'w2')", "d == 'w5' or e == 'w7' and f == g"],
        318_440,
    ),
    "knocked out": (
        [Values(name, [*range(1, 10), None]) for name in LETTERS],
        [" + ".join(f"(0 if {name} is None else {name})" for name in LETTERS) + " <= 9"],
        48_620,
    ),
    "fine ranges": ([Fine("x", 10**9), Fine("y", 10**9), *digits("k", 1, 3)], ["x + y == 1000 * k"], 3_003),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_million_raw_rows_take_seconds(shape: str) -> None:
    domains, sources, expected = SHAPES[shape]
    started = time.perf_counter()
    states = enumerated(domains, sources)
    assert time.perf_counter() - started < 30
    assert states.dtype == np.int32
    assert len(states) == expected
    assert in_order(states)


def test_memory_stays_bounded() -> None:
    tracemalloc.start()
    enumerated(digits(LETTERS), ["+".join(LETTERS) + " <= 12"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250e6


def test_unlinked_parameters_do_not_repeat_the_work() -> None:
    """The same constraint costs the same, however many parameters it does not read."""
    linked = digits("abcd", 0, 40)
    free = [Values(f"free{place}", range(10)) for place in range(4)]
    enough = []
    for work in [2**power for power in range(8, 26)]:
        alone = enumerated(linked, ["a + b + c + d == 3"], work=work)
        among = enumerated([*free[:2], *linked, *free[2:]], ["a + b + c + d == 3"], work=work)
        assert (alone is None) == (among is None)
        enough.append(alone is not None)
    assert enough == sorted(enough)
    assert not enough[0]
    assert (len(alone), len(among)) == (20, 20 * 10**4)
    assert in_order(among)


@pytest.mark.parametrize(
    ("sources", "limit"),
    [([], 999), (["a + b >= 0"], 999), (["a < 9"], 899), ([lambda c: hash(c["a"]) < 9], 899)],
)
def test_more_rows_than_the_limit_give_none(sources: list[Any], limit: int) -> None:
    domains = digits("abc")
    assert enumerated(domains, sources, limit=limit) is None
    assert len(enumerated(domains, sources, limit=limit + 1)) == limit + 1


def test_work_is_bounded_where_nothing_can_be_pruned() -> None:
    weights = "+".join(f"{name}*{7 * place + 3}" for place, name in enumerate(LETTERS))
    started = time.perf_counter()
    assert enumerated(digits(LETTERS), [f"({weights}) % 997 == 5"]) is None
    assert time.perf_counter() - started < 60


def test_a_function_is_not_called_for_millions_of_rows() -> None:
    calls = []

    def slow(c: Any) -> bool:
        calls.append(1)
        return int(c["a"]) > 3

    assert enumerated(digits("abcdefg"), [slow]) is None
    assert len(calls) < 1000


class TestNothingSatisfies:
    def test_one_impossible_constraint_is_named(self) -> None:
        with pytest.raises(ConstraintError, match="no configuration satisfies constraint 'a > 10'"):
            enumerated(digits(LETTERS), ["+".join(LETTERS) + " <= 12", "a > 10", "b > 1"])

    def test_an_impossible_constraint_is_found_in_a_space_too_large_to_enumerate(self) -> None:
        with pytest.raises(ConstraintError, match="'a > 10'"):
            enumerated(digits("abcdefghijkl"), ["a > 10"])

    def test_constraints_that_exclude_each_other_are_listed(self) -> None:
        with pytest.raises(ConstraintError, match=r"cannot hold together: .*a \* b > 9.*the last candidates"):
            enumerated(digits("abc"), ["a + b < 4", "a * b > 9", "c > 1"])

    def test_large_constraints_that_exclude_each_other_are_listed(self) -> None:
        product = "*".join(LETTERS) + " > 100"
        with pytest.raises(ConstraintError, match=r"the last candidates failed 'a\*b"):
            enumerated(digits(LETTERS), ["+".join(LETTERS) + " <= 12", product])

    def test_a_function_is_named(self) -> None:
        def hopeless(c: Any) -> bool:
            return hash(c["a"]) < 0

        with pytest.raises(ConstraintError, match="satisfies 'hopeless'"):
            enumerated(digits("ab"), ["a > b", hopeless])

    def test_a_constant_is_named(self) -> None:
        for text in ("1 > 2", "a < 3 and False"):
            with pytest.raises(ConstraintError) as caught:
                enumerated(digits("a"), [text])
            assert repr(text) in str(caught.value)


class TestWithoutValue:
    def test_a_row_that_only_lacks_a_value_is_an_error(self) -> None:
        domains = [Values("a", [1, 2, None]), *digits("b")]
        with pytest.raises(ConstraintError, match=r"a = None.*'a is None or ...'"):
            enumerated(domains, ["a * b < 3"])

    def test_another_constraint_may_exclude_it_in_either_order(self) -> None:
        domains = [Values("a", [1, 2, None]), *digits("b")]
        for sources in (["a is not None", "a * b < 3"], ["a * b < 3", "a is not None"]):
            assert len(enumerated(domains, sources)) == 5

    def test_the_same_holds_without_tables(self) -> None:
        domains = digits("abcdefgh")
        large = "+".join("abcdefgh") + " + 12 // a <= 14"
        with pytest.raises(ConstraintError, match="division by zero"):
            enumerated(domains, [large])
        states = enumerated(domains, [large, "a > 0"])
        assert states[:, 0].min() == 1


def test_no_constraints_give_the_product() -> None:
    states = enumerated([*digits("ab", 0, 2), Values("s", ["x", None])], [])
    assert states.tolist() == [list(row) for row in itertools.product(range(3), range(3), range(2))]


def test_counting_needs_no_rows() -> None:
    domains = [*digits("ab"), Fine("x", 10**9), *digits("cd")]
    tree = {domain.name: place for place, domain in enumerate(domains)}
    built = [Constraint.build(text, tree, domains) for text in ("a + b == 3", "c < d")]
    assert count_states(domains, built, lambda row: None) == 4 * 10**9 * 45
    built.append(Constraint.build(lambda c: hash(c["a"]) < 9, tree, domains))
    assert count_states(domains, built, lambda row: None) is None
