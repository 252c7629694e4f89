"""Placeholders: what a word becomes, and what is refused."""

from __future__ import annotations

import pytest

from ciq_ray.commands.templates import Template, flat, text_of
from ciq_ray.errors import ConfigurationError

CONFIG = {
    "BLOCK": 64,
    "lr": 1e-05,
    "fast": True,
    "none": None,
    "flag": "-x",
    "empty": "",
    "words": "-O2 '-D A=b c' \"\"",
    "tiles": [64, 32],
    "outer": {"inner": 3, "odd name": "o", "deep": {"x": "y"}},
    "order": ["k", "m n"],
    "dotted.name": 1,
}


def expand(word, config=CONFIG, **options):
    return Template(word).expand(config, "/tmp/file", **options)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain", ["plain"]),
        ("", [""]),
        ("{BLOCK}", ["64"]),
        ("--block={BLOCK}", ["--block=64"]),
        ("{BLOCK}x{BLOCK}", ["64x64"]),
        ("{lr}", ["1e-05"]),
        ("{fast}", ["true"]),
        ("{empty}", [""]),
        ("{tiles[0]},{tiles[1]}", ["64,32"]),
        ("{tiles}", ["[64,32]"]),
        ("{outer.inner}", ["3"]),
        ('{outer["odd name"]}', ["o"]),
        ("{outer['odd name']}", ["o"]),
        ("{outer.deep.x}", ["y"]),
        ("{config.outer.deep.x}", ["y"]),
        ("{{BLOCK}}", ["{BLOCK}"]),
        ('{{"a": {BLOCK}}}', ['{"a": 64}']),
        ("{words}", ["-O2 '-D A=b c' \"\""]),
        ("{CONFIG_FILE}", ["/tmp/file"]),
        ("--config={CONFIG_FILE}", ["--config=/tmp/file"]),
        # no value: the word is dropped
        ("{none}", []),
        ("{missing}", []),
        ("--x={missing}", []),
        ("{BLOCK}{missing}", []),
        ("{outer.missing}", []),
        ("{tiles[7]}", []),
        # several words
        ("{*words}", ["-O2", "-D A=b c", ""]),
        ("{*order}", ["k", "m n"]),
        ("{*missing}", []),
        ("{*empty}", []),
        ("{*BLOCK}", ["64"]),
        ("{*outer}", ["--inner=3", "--odd name=o", "--deep.x=y"]),
        ("CFLAGS={*words}", ["CFLAGS=-O2 '-D A=b c' ''"]),
        ("CFLAGS={*missing}", ["CFLAGS="]),
        ("a {*missing} b", ["a  b"]),
    ],
)
def test_what_a_word_becomes(word, expected):
    assert expand(word) == expected


def test_words_of_a_variable_are_joined():
    assert expand("{*order}", joined=True) == ["k 'm n'"]
    assert expand("{missing}", joined=True) == []


def test_a_configuration_that_is_a_text():
    text = "-O3\n-funroll-loops\n--param=x=3\n-DA=b\\ c\n"
    assert expand("{*config}", text) == ["-O3", "-funroll-loops", "--param=x=3", "-DA=b c"]
    assert expand("{config}", text) == [text]
    assert expand("CFLAGS={*config}", text) == ["CFLAGS=-O3 -funroll-loops --param=x=3 '-DA=b c'"]
    assert expand("{*config}", '--maxrregcount="a b"\n') == ["--maxrregcount=a b"]
    with pytest.raises(ConfigurationError, match=r"\{level\} has no value .* whole configuration"):
        expand("{level}", text)


def test_a_configuration_that_is_a_list_of_parts():
    config = [{"BLOCK": 8}, "-O2\n-g\n"]
    assert expand("{parts[0].BLOCK}", config) == ["8"]
    assert expand('{parts[0]["BLOCK"]}', config) == ["8"]
    assert expand("{*parts[1]}", config) == ["-O2", "-g"]


def test_parameters_with_special_names_come_first():
    config = {"config": 1, "parts": 2, "CONFIG_FILE": 3}
    assert [expand(f"{{{name}}}", config) for name in config] == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{", r"single '\{'; write \{\{"),
        ("a}b", r"single '\}'; write \}\}"),
        ("{a}}", r"single '\}'"),
        ("{}", "is not a placeholder"),
        ("{print $1}", "is not a placeholder"),
        ("{a..b}", "is not a placeholder"),
        ("{a[x]}", "is not a placeholder"),
        ("{a[0}", "is not a placeholder"),
        ("{*}", "is not a placeholder"),
        ("{*CONFIG_FILE}", "is not a placeholder"),
        ("a\0b", "without NUL"),
        (7, "must be text"),
    ],
)
def test_bad_words_are_refused(word, message):
    with pytest.raises(ConfigurationError, match=message):
        Template(word)


@pytest.mark.parametrize(
    ("word", "config", "message"),
    [
        ("{a}", {"a": "x\0y"}, "NUL"),
        ("{*a}", {"a": ["x\0y"]}, "NUL"),
        ("{a}", {"a": "\ud800"}, "no valid text"),
        ("{*a}", {"a": "'open"}, "cannot be split"),
        ("{a.b}", {"a": 3}, "has no value"),
    ],
)
def test_values_that_no_argument_can_hold(word, config, message):
    with pytest.raises(ConfigurationError, match=message):
        expand(word, config)


TREE = {"BLOCK": 0, "outer": {"inner": 1}, "tiles": [2, 3]}


@pytest.mark.parametrize(
    "word", ["{BLOCK}", "{outer.inner}", "{outer}", "{tiles[1]}", "{config}", "{CONFIG_FILE}", "x"]
)
def test_names_of_the_space_are_accepted(word):
    Template(word).check(TREE)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{BLOK}", r"did you mean \{BLOCK\}"),
        ("{zzz}", "it has BLOCK, outer, tiles"),
        ("{outer.x}", "it has inner"),
        ("{tiles[2]}", r"\[0\] to \[1\]"),
        ("{BLOCK.x}", "has no parts"),
    ],
)
def test_names_that_are_not_in_the_space(word, message):
    with pytest.raises(ConfigurationError, match=message):
        Template(word).check(TREE)


def test_texts_of_values():
    assert text_of({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'
    assert [text_of(value) for value in (True, False, 1, 0.1, "é")] == ["true", "false", "1", "0.1", "é"]


def test_flat_leaves_out_what_is_absent():
    assert dict(flat({"a": {"b": 1, "c": None}, "d": 2})) == {"a.b": 1, "d": 2}
