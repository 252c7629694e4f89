"""Parameters as columns, from a space and from configurations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ciq_ray.parameter_values import from_configs, from_rows, text_of
from searchers import Boolean, Choice, ListOf, Literal, LogRange, Permutation, PowerOfTwo, Range, Space

SPACE = Space(
    {
        "block": PowerOfTwo(16, 64),
        "n": Range(1, 9),
        "lr": LogRange(1e-3, 1e-1, total=3),
        "name": Choice(["b", "a"]),
        "flag": Literal("-x", knockout_prob=0.5),
        "on": Boolean(),
        "order": Permutation(3),
        "tiles": ListOf(Choice([1, 2]), length=2),
        "outer": {"inner": Range(0, 1, step=0.5)},
    }
)


def columns(configs):
    rows = np.array([SPACE.encode(config) for config in configs])
    return {p.name: p for p in from_rows(SPACE, rows)}, {p.name: p for p in from_configs(configs)}


CONFIGS = [
    {"block": 16, "n": 3, "lr": 1e-3, "name": "a", "on": True, "order": [0, 1, 2]}
    | {"tiles": [1, 2], "outer": {"inner": 0.5}},
    {"block": 64, "n": 9, "lr": 1e-1, "name": "b", "flag": "-x", "on": False, "order": [2, 1, 0]}
    | {"tiles": [2, 2], "outer": {"inner": 0.0}},
]


def test_of_a_space():
    found, _ = columns(CONFIGS)
    assert found["block"].log
    assert found["block"].positions.tolist() == [16, 64]
    assert not found["n"].log
    assert found["lr"].log
    assert found["name"].categories == ["b", "a"]  # the order of the space
    assert found["name"].positions.tolist() == [1, 0]
    assert found["flag"].values == [None, "-x"]
    assert math.isnan(found["flag"].positions[0])
    assert found["flag"].varies
    assert found["on"].categories == ["false", "true"]
    assert found["order"].values == [[0, 1, 2], [2, 1, 0]]
    assert found["tiles[0]"].values == [1, 2]
    assert not found["tiles[1]"].varies
    assert found['outer["inner"]'].values == [0.5, 0.0]


def test_of_configurations_alone():
    _, found = columns(CONFIGS)
    assert found["block"].positions.tolist() == [16, 64]
    assert found["flag"].values == [None, "-x"]
    assert found["on"].categories == ["false", "true"]
    assert found["name"].categories == ["a", "b"]
    assert found["order"].categories == ["[0, 1, 2]", "[2, 1, 0]"]
    assert found['outer["inner"]'].values == [0.5, 0.0]


def test_powers_are_recognised():
    values = [16, 32, 64, 128]
    assert from_configs([{"x": value} for value in values])[0].log
    assert not from_configs([{"x": value} for value in (1, 2, 3, 4, 5)])[0].log
    assert not from_configs([{"x": value} for value in (0, 10, 1000)])[0].log


def test_lists_of_parts_and_texts():
    found = from_configs([[{"x": 1}, "-O2"], [{"x": 2}, "-O3"]])
    assert [p.name for p in found] == ['parts[0]["x"]']
    assert from_configs(["-O2", "-O3"]) == []


def test_odd_values_are_categories():
    found = from_configs([{"x": value} for value in (1, "a", True, None, [1], 10**400)])[0]
    assert found.categories is not None
    assert found.values[3] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (0.1 + 0.2, "0.3"), (True, "true"), ([1, "é"], '[1, "é"]'), (None, "null")],
)
def test_texts(value, text):
    assert text_of(value) == text
