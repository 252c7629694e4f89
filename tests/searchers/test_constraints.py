from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from searchers.constraints import Constraint, truth_table
from searchers.errors import ConstraintError


class Numbers:
    """A numeric parameter."""

    def __init__(self, name: str, values: list[Any]) -> None:
        self.name, self.n_states, self.array = name, len(values), np.array(values)

    def values(self, states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.array[states]

    def bounds(self) -> tuple[float, float]:
        return self.array.min(), self.array.max()


class Optional(Numbers):
    """The same, and it may be absent."""

    def __init__(self, name: str, values: list[Any]) -> None:
        super().__init__(name, values)
        self.array = np.fromiter([*values, None], dtype=object, count=len(values) + 1)
        self.n_states += 1

    def bounds(self) -> Any:
        return None


DOMAINS = [Numbers("a", list(range(50))), Numbers("b", list(range(1, 41))), Optional("c", list(range(30)))]
TREE = {"a": 0, "b": 1, "c": 2}


def rows(n: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(3)
    return generator.integers(0, [domain.n_states for domain in DOMAINS], size=(n, 3)).astype(np.int32)


def config_of(row: np.ndarray[Any, Any]) -> dict[str, Any]:
    config = {
        domain.name: domain.array[state].tolist() for domain, state in zip(DOMAINS[:2], row, strict=False)
    }
    c = DOMAINS[2].array[row[2]]
    return config if c is None else {**config, "c": c}


@pytest.mark.parametrize("n", [1, 10, 3000, 90_000])
def test_every_way_of_computing_gives_the_same(n: int) -> None:
    states = rows(n)
    a, b = states[:, 0], states[:, 1] + 1
    absent = states[:, 2] == 30
    expected = absent | (a * b > states[:, 2] * 20)
    constraint = Constraint.build("c is None or a * b > c * 20", TREE, DOMAINS)
    assert constraint.leaves == {0, 1, 2}
    for _ in range(2):
        assert np.array_equal(constraint.holds(states, config_of), expected)


def test_a_row_without_a_value_is_an_error_however_it_is_computed() -> None:
    for n in (40, 3000, 90_000):
        states = rows(n)
        states[7, 2] = 30
        with pytest.raises(ConstraintError, match=r"c = None.*'c is None or ...'"):
            Constraint.build("a * b > c * 20", TREE, DOMAINS).holds(states, config_of)


def test_rows_that_have_a_value_are_not_disturbed_by_others() -> None:
    constraint = Constraint.build("c > 3", TREE, DOMAINS)
    states = np.array([[0, 0, 2], [0, 0, 9]])
    assert constraint.holds(states, config_of).tolist() == [False, True]


def test_a_function_is_called_where_its_trace_has_no_value() -> None:
    rare = Numbers("rare", list(range(100_000)))

    def function(c: Any) -> Any:
        return c["rare"] == 77_777 or 1 / (c["rare"] - 77_777) < 0.5

    constraint = Constraint.build(function, {"rare": 0}, [rare])
    assert constraint.expr is not None
    states = np.array([[77_777], [77_778], [5]])
    assert constraint.holds(states, lambda row: {"rare": int(row[0])}).tolist() == [True, False, True]


def test_a_function_that_raises_is_named_with_its_configuration() -> None:
    def picky(c: Any) -> bool:
        return bool(int(c["c"]) > 3)

    constraint = Constraint.build(picky, TREE, DOMAINS)
    with pytest.raises(ConstraintError) as caught:
        constraint.holds(np.array([[1, 2, 30]]), config_of)
    for part in ("picky", "KeyError", "'a': 1, 'b': 3"):
        assert part in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_lambdas_are_shown_by_their_source() -> None:
    pair = [lambda c: c["a"] > 3, lambda c: c["b"] > 3]
    texts = [Constraint.build(function, TREE, DOMAINS).text for function in pair]
    assert texts == ['lambda c: c["a"] > 3', 'lambda c: c["b"] > 3']
    made = eval("lambda c: c['a'] > 3")
    assert Constraint.build(made, TREE, DOMAINS).text == "<lambda>"


@pytest.mark.parametrize("source", [3, None, True, ["a > 3"], {"a": 3}, b"a > 3"])
def test_what_is_neither_text_nor_callable_is_refused(source: Any) -> None:
    with pytest.raises(ConstraintError, match="must be an expression"):
        Constraint.build(source, TREE, DOMAINS)


def no_arguments() -> bool:
    return True


def two_arguments(a: Any, b: Any) -> bool:
    return True


async def coroutine(c: Any) -> bool:
    return False


def generator(c: Any) -> Any:
    yield False


@pytest.mark.parametrize("source", [no_arguments, two_arguments, coroutine, generator])
def test_callables_that_cannot_be_constraints_are_refused(source: Any) -> None:
    with pytest.raises(ConstraintError, match=source.__name__):
        Constraint.build(source, TREE, DOMAINS)


def test_a_constraint_survives_pickling() -> None:
    constraint = Constraint.build("a + b < 20", TREE, DOMAINS)
    states = rows(50)
    before = constraint.holds(states, config_of)
    again = pickle.loads(pickle.dumps(constraint))
    assert again.text == "a + b < 20"
    assert np.array_equal(again.holds(states, config_of), before)


def test_a_table_lists_all_combinations_in_order() -> None:
    expr = Constraint.build("a // (b - 1) >= 4", TREE, DOMAINS).expr
    assert expr is not None
    held, failure = truth_table(expr, (1, 0), DOMAINS)
    held = held.reshape(40, 50)
    assert failure is not None
    assert failure.rows.reshape(40, 50)[0].all()
    assert not failure.rows.reshape(40, 50)[1:].any()
    assert held[1].tolist() == [a >= 4 for a in range(50)]


def test_no_rows_give_an_empty_mask() -> None:
    assert Constraint.build("a > 1", TREE, DOMAINS).holds(rows(0), config_of).shape == (0,)
