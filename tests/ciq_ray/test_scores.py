from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from ciq_ray.scores import INVALID_MESSAGE, read_scores


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        (3, 1, (3.0,)),
        (2.5, 1, (2.5,)),
        ([2], 1, (2.0,)),
        ((1, 2.5), 2, (1.0, 2.5)),
        ([1, 2, 3], 3, (1.0, 2.0, 3.0)),
        (np.float32(0.5), 1, (0.5,)),
        (np.int64(7), 1, (7.0,)),
        (np.array(4.0), 1, (4.0,)),
        (np.array([4.0]), 1, (4.0,)),
        (np.array([1, 2]), 2, (1.0, 2.0)),
        ((np.float64(1), np.int8(2)), 2, (1.0, 2.0)),
    ],
)
def test_numbers_are_read(value, count, expected):
    status, values, message = read_scores(value, count)
    assert (status, values, message) == ("ok", expected, "")
    assert all(type(number) is float for number in values)


@pytest.mark.parametrize(
    ("value", "count"), [("*", 1), ("*", 2), ((1.0, "*"), 2), (["*", "*"], 2), (["*"], 3)]
)
def test_invalid_score_anywhere(value, count):
    assert read_scores(value, count) == ("invalid_result", (), INVALID_MESSAGE)


@pytest.mark.parametrize(
    ("value", "count", "words"),
    [
        (math.nan, 1, "nan"),
        (math.inf, 1, "inf"),
        ((1.0, -math.inf), 2, "-inf as value 2 of 2"),
        (np.float64("nan"), 1, "nan"),
        (None, 1, "None; expected a number"),
        (True, 1, "a bool (True)"),
        (np.bool_(True), 1, "a bool"),
        ("fast", 1, "a str ('fast')"),
        (b"x", 1, "a bytes"),
        ({"time": 1.0}, 1, "a dict; expected a number"),
        (1.0, 2, "a float; expected 2 numbers (`num_objectives` is 2)"),
        ((1.0, 2.0), 1, "2 values; expected a number"),
        ((1.0, 2.0, 3.0), 2, "3 values; expected 2 numbers"),
        ((), 1, "0 values"),
        (([1.0], [2.0]), 2, "a list as value 1 of 2"),
        (np.zeros((2, 2)), 2, "shape (2, 2)"),
        (np.zeros(10), 2, "an array of 10 values"),
        (10**400, 1, "too large"),
        (1 + 2j, 1, "a complex"),
        (lambda: 1, 1, "a function"),
    ],
)
def test_everything_else_is_invalid_and_says_what_came(value, count, words):
    status, values, message = read_scores(value, count)
    assert (status, values) == ("invalid_result", ())
    assert words in message


def test_long_text_is_cut():
    assert len(read_scores("x" * 10_000_000)[2]) < 200


def test_hostile_objects_do_not_get_out():
    class Hostile:
        shape = (1,)

        def tolist(self):
            raise RuntimeError("no")

    status, _, message = read_scores(Hostile())
    assert status == "invalid_result"
    assert "RuntimeError: no" in message


def test_a_coroutine_is_closed_and_named():
    async def objective():
        return 1.0

    status, _, message = read_scores(objective())  # a warning that it was never awaited would fail this test
    assert status == "invalid_result"
    assert "ASYNC" in message


def test_it_imports_nothing():
    code = "import sys, ciq_ray; was = set(sys.modules); import ciq_ray.scores; print(set(sys.modules) - was)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "{'ciq_ray.scores'}\n"
