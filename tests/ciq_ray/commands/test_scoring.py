"""Scores from output."""

from __future__ import annotations

import json

import pytest

from ciq_ray.commands.processes import Finished
from ciq_ray.commands.scoring import Score, ScoreNotFoundError, read_output
from ciq_ray.errors import ConfigurationError


def read(output, *scores, seconds=2.5, dropped=0):
    data = output if isinstance(output, bytes) else output.encode()
    finished = Finished(0, False, seconds, data, b"99\n", dropped)
    return read_output([Score.parse(text) for text in scores or ("last",)], finished)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("3", 3.0),
        ("noise 7\ntime: 0.125 s\n\n  \n", 0.125),
        ("12.5ms", 12.5),
        ("1.5e-3 seconds", 0.0015),
        ("-4", -4.0),
        ("+.5", 0.5),
        ("x86_64 build v2 took 8", 8.0),
        ("gcc-12", 12.0),
        ("a=1,b=2", 2.0),
        ("\x1b[32m0.75\x1b[0m s", 0.75),
        ("10%\r50%\r100% in 4.5 s", 4.5),
        ("1\n2", 2.0),
        ("µ 3.25", 3.25),
    ],
)
def test_the_last_number_on_the_last_line(output, value):
    assert read(output) == (value,)


def test_several_numbers_on_the_last_line():
    assert read("run 1: 5 6 7", "last", "last") == (6.0, 7.0)


def test_wall_and_last_and_keys_together():
    assert read('{"a": 4, "b": {"c": [1, 2.5]}}', "b.c.1", "wall", "max:a") == (2.5, 2.5, 4.0)


def test_json_may_span_lines_or_be_the_last_one():
    assert read(json.dumps({"time": 3}, indent=2), "time") == (3.0,)
    assert read('starting...\n{"time": 3}\n', "time") == (3.0,)


def test_a_leading_dot_makes_a_key_of_any_name():
    assert read('{"wall": 9, "last": 8}', ".wall", ".last") == (9.0, 8.0)
    assert Score.parse(".wall").text == "min:.wall"
    assert Score.parse("max:wall") == Score("wall", "max")
    assert Score.parse("x", "max").mode == "max"
    assert Score.parse("min:x", "max").mode == "min"


@pytest.mark.parametrize(
    ("output", "scores", "message"),
    [
        ("", ("last",), "printed nothing"),
        ("\n \n", ("last",), "printed nothing"),
        ("no number here", ("last",), "'no number here'; expected a number"),
        ("1 only", ("last", "last"), "expected 2 numbers"),
        ("time nan", ("last",), "nan; expected a finite"),
        ("time inf", ("last",), "inf; expected a finite"),
        ("-Infinity", ("last",), "-inf; expected a finite"),
        (b"\xff\xfe\x00 garbage", ("last",), "expected a number"),
        ("", ("time",), "printed nothing; expected JSON"),
        ("{torn", ("time",), "is JSON"),
        ('{"a": 1}', ("time",), "there is no 'time': the JSON it printed has 'a'"),
        ('{"a": {"b": 1}}', ("a.c",), "there is no 'c': a has 'b'"),
        ('{"a": [1]}', ("a.1",), "there is no '1': a is a list"),
        ("3", ("time",), "the JSON it printed is a number"),
        ('{"time": "3"}', ("time",), "is a text; expected a number"),
        ('{"time": true}', ("time",), "is a boolean"),
        ('{"time": null}', ("time",), "is null"),
        ('{"time": NaN}', ("time",), "finite"),
        ('{"time": ' + "1" * 400 + "}", ("time",), "too large"),
        ("[" * 100_000, ("time",), "is JSON"),
    ],
)
def test_output_without_such_a_score(output, scores, message):
    with pytest.raises(ScoreNotFoundError, match=message):
        read(output, *scores)


def test_a_dropped_beginning_is_named():
    with pytest.raises(ScoreNotFoundError, match="their beginning is gone"):
        read("rest}", "time", dropped=5)


@pytest.mark.parametrize("text", ["", "max:", "a..b", ".", "a.", 3])
def test_bad_descriptions_are_refused(text):
    with pytest.raises(ConfigurationError, match="does not describe a score"):
        Score.parse(text)
