"""Whether a command and a space fit."""

from __future__ import annotations

import pytest

from ciq_ray.commands import CommandObjective
from ciq_ray.commands.checks import check_programs, check_space
from ciq_ray.errors import ConfigurationError
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from ciq_ray.spaces import resolve
from searchers import Choice, ListOf, Literal, Range, Space

SPACE = Space({"A": Range(1, 4), "flag": Literal("-x", knockout_prob=0.5), "n": {"b": Range(1, 3)}})


def check(command, space=SPACE, **options):
    return check_space(CommandObjective(command, **options), space)


@pytest.mark.parametrize(
    "command",
    [
        "x {A} {flag} {n.b}",
        "x {A} {flag} {n}",
        "x {*config}",
        "x {CONFIG_FILE}",
        "x {A}{n.b} --flags={flag}",
        "x {A} 'a {*flag}' {n.b}",
    ],
)
def test_commands_that_fit(command):
    assert check(command) == []


def test_a_parameter_may_be_in_the_build_or_the_environment():
    assert check("x {A}", build="make {flag}", copy=False, env={"B": "{n.b}"}) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("x {A} {flag}", r'the parameter n\["b"\] is in no word'),
        ("x {B} {*config}", r"\{B\} is not in the search space"),
        ("x {A} {n.b} 'a {flag}'", r"would be dropped; write \{\*flag\}"),
    ],
)
def test_commands_that_do_not(command, message):
    with pytest.raises(ConfigurationError, match=message):
        check(command)


def test_an_option_that_would_lose_its_value():
    assert check("x {A} {n.b} --flag {flag}") == [
        "{flag} can be absent, and --flag stays then; if they belong together, write --flag={flag} in one "
        "word"
    ]


def test_spaces_of_texts_and_of_parts():
    ptxas = resolve(PtxasSearchSpace()).space
    assert check("x {*config}", ptxas) == []
    assert check("x {CONFIG_FILE}", ptxas) == []
    with pytest.raises(ConfigurationError, match="opt_level"):
        check("x {opt_level}", ptxas)
    parts = resolve([{"BLOCK": Range(1, 4)}, PtxasSearchSpace()]).space
    assert check("x {parts[0].BLOCK} {*parts[1]}", parts) == []
    with pytest.raises(ConfigurationError, match="is in no word"):
        check("x {parts[0].BLOCK}", parts)


def test_lists():
    space = Space({"tiles": ListOf(Choice([1, 2]), 2)})
    assert check("x {tiles[0]} {tiles[1]}", space) == []
    assert check("x {*tiles}", space) == []
    with pytest.raises(ConfigurationError, match=r"tiles\[1\] is in no word"):
        check("x {tiles[0]}", space)


def test_programs(tmp_path):
    (tmp_path / "bench").write_text("")

    def programs(command, **options):
        check_programs(CommandObjective(command, directory=tmp_path, **options))

    with pytest.raises(ConfigurationError, match=r"chmod \+x ./bench"):
        programs("./bench")
    (tmp_path / "bench").chmod(0o755)
    programs("./bench")
    programs("sh x")
    programs("{program}")
    with pytest.raises(ConfigurationError, match=r"'bench' on PATH.* ./bench"):
        programs("bench")
    with pytest.raises(ConfigurationError, match=r"'\./other' is not in"):
        programs("./other")
    programs("./other", build="sh x")  # it may be what is built
    with pytest.raises(ConfigurationError, match="no-such-make"):
        programs("./other", build="no-such-make")
