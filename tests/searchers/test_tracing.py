from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from searchers.constraints import Constraint


class Values:
    """A parameter with a list of values; the last state is "absent" where that is ``None``."""

    def __init__(self, name: str, values: list[Any]) -> None:
        self.name = name
        self.n_states = len(values)
        self.items = values
        self.numbers = all(isinstance(value, int | float) for value in values)
        self.array = (
            np.array(values) if self.numbers else np.fromiter(values, dtype=object, count=len(values))
        )

    def values(self, states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.array[states]

    def bounds(self) -> tuple[float, float] | None:
        return (min(self.items), max(self.items)) if self.numbers else None


DOMAINS = [
    Values("m", [16, 32, 64, 128]),
    Values("n", [16, 32, 64]),
    Values("stages", [1, 2, 3, 4]),
    Values("order", ["row", "col"]),
    Values("fast", [False, True]),
    Values("maybe", [1, 2, None]),
    Values("inner", [1, 2, 3]),
    Values("b0", [1, 2, 4]),
    Values("b1", [1, 2, 4]),
    Values("scale", [0.5, 1.0, 2.0]),
]
TREE = {
    **{name: place for place, name in enumerate(("m", "n", "stages", "order", "fast", "maybe"))},
    "outer": {"inner": 6},
    "blocks": [7, 8],
    "scale": 9,
}


def config_of(row: np.ndarray[Any, Any]) -> dict[str, Any]:
    value = [domain.items[state] for domain, state in zip(DOMAINS, row.tolist(), strict=True)]
    config = {name: value[place] for name, place in TREE.items() if isinstance(place, int)}
    config |= {"outer": {"inner": value[6]}, "blocks": [value[7], value[8]]}
    if config["maybe"] is None:
        del config["maybe"]
    return config


def random_rows(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).integers(
        0, [domain.n_states for domain in DOMAINS], size=(n, len(DOMAINS))
    )


def in_steps(c: dict[str, Any]) -> bool:
    total = 0
    for block in c["blocks"]:
        total += block
    if total > 5:
        return False
    return bool(c["outer"]["inner"] >= total // 2)


TRACEABLE: list[Callable[[Any], Any]] = [
    lambda c: c["m"] * c["n"] * c["stages"] <= 4096,
    lambda c: c["order"] == "row" or c["stages"] > 1,
    lambda c: 16 < c["m"] <= 64 and not c["fast"],
    lambda c: c["m"] in (16, 64) and c["n"] not in [16],
    lambda c: min(c["m"], c["n"]) > 16 * max(1, c["stages"] - 2),
    lambda c: c["m"] % c["n"] == 0 if c["fast"] else c["m"] // c["n"] < 2,
    lambda c: sum(c["blocks"]) == 5 or math.prod(c["blocks"]) == 4,
    lambda c: all(block > 1 for block in c["blocks"]) and len(c["blocks"]) == 2,
    lambda c: c.get("m") >> c["stages"] == 8 and c.get("nothing", 5) == 5,
    lambda c: c["outer"]["inner"] | 1 == 3,
    lambda c: abs(c["m"] - c["n"]) ** 2 < 300 and round(c["scale"]) < 2 and math.floor(c["scale"]) == 0,
    lambda c: divmod(c["m"], 48)[1] == 16,
    lambda c: np.int64(3) * c["stages"] < np.float64(7.5),
    lambda c: c["m"],
    lambda c: c["stages"] - 1,
    lambda c: "m" in c and "zzz" not in c,
    lambda c: True,
    in_steps,
]
OPAQUE: list[Callable[[Any], Any]] = [
    lambda c: c.get("maybe") is None or c["maybe"] > 1,
    lambda c: "maybe" not in c or c["m"] > 16,
    lambda c: len(c) > 8,
    lambda c: len({**c}) > 8,
    lambda c: sorted(c)[0] == "blocks",
    lambda c: int(c["m"]) > 16,
    lambda c: math.log2(c["m"]) > 4,
    lambda c: f"{c['m']}" == "16",
    lambda c: str(c["order"]) == "row",
    lambda c: c["order"].startswith("r"),
    lambda c: c["m"] in {16, 32},
    lambda c: {16: True}.get(c["m"], False),
    lambda c: isinstance(c["m"], int),
    lambda c: c["fast"] is True,
    lambda c: c["m"].bit_length() > 5,
    lambda c: [0, 1, 2, 3, 4][c["stages"]] > 2,
    lambda c: any(c["stages"] == step for step in range(2)) or hash(c["order"]) == hash("row"),
    lambda c: c == {"m": 16},
    lambda c: hasattr(c["m"], "imag"),
]


@pytest.mark.parametrize("function", TRACEABLE)
def test_traced_functions_say_what_the_function_says(function: Callable[[Any], Any]) -> None:
    constraint = Constraint.build(function, TREE, DOMAINS)
    assert constraint.expr is not None
    rows = random_rows(300)
    expected = [bool(function(config_of(row))) for row in rows]

    def never(row: Any) -> Any:
        raise AssertionError("a traced function needs no configuration")

    assert constraint.holds(rows, never).tolist() == expected


@pytest.mark.parametrize("function", OPAQUE)
def test_what_cannot_be_followed_is_opaque_and_still_right(function: Callable[[Any], Any]) -> None:
    constraint = Constraint.build(function, TREE, DOMAINS)
    assert constraint.expr is None
    assert constraint.leaves is None
    rows = random_rows(60)
    expected = [bool(function(config_of(row))) for row in rows]
    assert constraint.holds(rows, config_of).tolist() == expected


def test_too_many_paths_make_a_function_opaque() -> None:
    def many(c: Any) -> bool:
        return sum(1 for bit in range(8) if (c["m"] * 3 + c["n"]) >> bit & 1) % 2 == 0

    assert Constraint.build(many, TREE, DOMAINS).expr is None


def test_a_loop_that_never_ends_on_symbols_is_left() -> None:
    def loop(c: Any) -> bool:
        x = c["m"]
        while x > 1:
            x = x - 1
        return bool(x == 1)

    assert Constraint.build(loop, TREE, DOMAINS).expr is None


def test_expressions_that_explode_are_left() -> None:
    def explode(c: Any) -> bool:
        x = c["m"]
        for _ in range(60):
            x = x + x
        return bool(x > 5)

    assert Constraint.build(explode, TREE, DOMAINS).expr is None


def test_a_function_that_swallows_exceptions_is_not_believed() -> None:
    def swallow(c: Any) -> bool:
        try:
            return int(c["m"]) > 0
        except BaseException:
            return False

    assert Constraint.build(swallow, TREE, DOMAINS).expr is None


def test_decisions_become_plain_connectives() -> None:
    function: Callable[[Any], Any] = lambda c: c["m"] > 16 and (c["n"] > 16 or c["stages"] > 1)  # noqa: E731
    text = "m > 16 and (n > 16 or stages > 1)"
    assert Constraint.build(function, TREE, DOMAINS).expr == Constraint.build(text, TREE, DOMAINS).expr


def test_callables_of_every_kind_are_accepted() -> None:
    class Limit:
        def __init__(self, limit: int) -> None:
            self.limit = limit

        def __call__(self, c: Any) -> Any:
            return c["m"] <= self.limit

        def method(self, c: Any) -> Any:
            return c["m"] <= self.limit

    def limited(limit: int, c: Any) -> Any:
        return c["m"] <= limit

    rows = random_rows(20)
    for source in (Limit(32), Limit(32).method, functools.partial(limited, 32)):
        constraint = Constraint.build(source, TREE, DOMAINS)
        assert constraint.expr is not None
        assert constraint.holds(rows, config_of).tolist() == (rows[:, 0] <= 1).tolist()
