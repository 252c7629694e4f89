"""Names and values that MLflow takes, checked with MLflow's own rules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciq_ray._mlflow.names import finite, flattened, legal_name, legal_names, shortened


def accepted(name: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    try:
        _validate_metric_name(name)
        _validate_param_name(name)
    except MlflowException:
        return False
    return 0 < len(name) <= 250


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_name_becomes_legal(name: str) -> None:
    assert accepted(legal_name(name))


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("score", "score"),
        ("--maxrregcount", "--maxrregcount"),
        ("tile[0]", "tile_0_"),
        ("a=b,c@d%(e)", "a_b_c_d__e_"),
        ("time/ms", "time/ms"),
        ("../up", "_up"),
        ("a//b", "a__b"),
        ("/root", "_root"),
        ("", "_"),
    ],
)
def test_names(name: str, legal: str) -> None:
    assert legal_name(name) == legal
    assert accepted(legal)


@settings(deadline=None)
@given(st.lists(st.text(alphabet="a[]=", min_size=1, max_size=3), unique=True))
def test_names_that_become_equal_are_numbered(names: list[str]) -> None:
    legal = legal_names(names)
    assert len(set(legal.values())) == len(names) == len(legal)
    assert all(map(accepted, legal.values()))


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    legal = legal_names(["a" * 300, "a" * 301])
    assert len(set(legal.values())) == 2
    assert all(map(accepted, legal.values()))


@pytest.mark.parametrize(
    ("config", "params"),
    [
        ({"x": 1, "f": True, "s": "text"}, {"x": "1", "f": "true", "s": "text"}),
        ({"outer": {"inner": {"x": 1}}}, {"outer.inner.x": "1"}),
        ("-O3 -fast", {"params": "-O3 -fast"}),
        ([{"x": 1}, "-O3"], {"part0.x": "1", "part1": "-O3"}),
        ({"order": [2, 1]}, {"order": "[2, 1]"}),
        ({"x": 1, "x[": 2, "x]": 3}, {"x": "1", "x_": "2", "x__2": "3"}),
        ({}, {"params": "{}"}),
    ],
)
def test_configurations(config: object, params: dict[str, str]) -> None:
    assert flattened(config) == params


def test_long_texts_say_that_they_are_cut() -> None:
    value = flattened("x" * 7000)["params"]
    assert len(value) == 6000
    assert value.endswith("x...")
    assert shortened("a\0b\ud800") == "a\\0b\\ud800"


def test_metrics_are_finite_numbers() -> None:
    values = {
        "a": 1,
        "b": math.inf,
        "c": math.nan,
        "d": None,
        "e": "text",
        "f": True,
        "g": 10**500,
        "h[]": 2.5,
    }
    assert finite(values) == ({"a": 1.0, "h__": 2.5}, {"b": "inf", "c": "nan"})
