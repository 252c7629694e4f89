from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from searchers import OptionError, Outcome
from searchers.outcome import FAILURES, RETRIED, STATUSES


def test_statuses_are_these() -> None:
    assert STATUSES == (
        "ok",
        "compile_error",
        "compile_timeout",
        "resource_exceeded",
        "run_error",
        "run_timeout",
        "wrong",
        "invalid_result",
        "throttled",
        "lost",
    )
    assert set(FAILURES) | set(RETRIED) | {"ok"} == set(STATUSES)


@pytest.mark.parametrize("values", [(float("nan"),), (float("inf"), 1.0), ()])
def test_success_without_finite_values_is_an_invalid_result(values: tuple[float, ...]) -> None:
    outcome = Outcome("ok", values)
    assert (outcome.status, outcome.values, outcome.ok) == ("invalid_result", (), False)
    assert outcome.message


def test_failures_have_no_values() -> None:
    assert Outcome("run_error", (1.0,)).values == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Outcome("fine", (1.0,)),
        lambda: Outcome("ok", "abc"),
        lambda: Outcome("ok", (None,)),
        lambda: Outcome("ok", (10**400,)),
    ],
)
def test_nonsense_is_refused(make: object) -> None:
    with pytest.raises(OptionError):
        make()  # type: ignore[operator]


def test_round_trip_through_json_is_exact() -> None:
    outcome = Outcome(
        "ok",
        (0.1, 1e-300),
        spread=(0.01, 1e-301),
        samples=7,
        compile_s=0.5,
        run_s=1.25,
        message="m",
        metrics={"registers": 32},
    )
    assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    assert Outcome.from_dict({"status": "wrong"}) == Outcome("wrong")
    assert Outcome("wrong").to_dict() == {"status": "wrong"}
    with pytest.raises(OptionError, match="not an outcome"):
        Outcome.from_dict({"values": [1.0]})
    with pytest.raises(OptionError, match="not an outcome"):
        Outcome.from_dict({"status": "ok", "values": [1.0], "colour": 3})


@pytest.mark.parametrize("value", [np.int64(3), np.float32(3), np.float64(3), 3, Fraction(3)])
def test_one_number_of_any_kind_is_a_value(value: object) -> None:
    outcome = Outcome("ok", value)  # type: ignore[arg-type]
    assert outcome.values == (3.0,)
    assert type(outcome.values[0]) is float


@pytest.mark.parametrize("value", [True, np.bool_(True), "3", None, 3j])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match="must be a tuple of numbers"):
        Outcome("ok", value)  # type: ignore[arg-type]
