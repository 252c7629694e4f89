"""Options files for GCC and clang: what is written is what the compiler gets, byte for byte."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciq_ray.compilers import run_tool
from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.options import CompilerSpace
from ciq_ray.search_spaces.quoting import GNU, NVIDIA, option_line, split_lines
from ciq_ray.utils.helpers import save_compiler_config
from searchers.errors import ConfigError

AWKWARD = [
    "/plain/path",
    "/two words",
    "/a 'single' b",
    '/a "double" b',
    "/back\\slash\\ ",
    "/$HOME;`id`&|<>*?#!~",
    "/grüße €",
    "/@file",
    "/'",
    '/"\\',
]


def printable(text: str) -> bool:
    return text.isprintable()


@given(st.lists(st.text().filter(printable), max_size=5))
def test_gnu_lines_are_read_back_as_they_were_written(values: list[str]) -> None:
    lines = [option_line(f"-f{number}", value, quoting=GNU) for number, value in enumerate(values)]
    assert all("\n" not in line for line in lines)
    assert split_lines("".join(f"{line}\n" for line in lines), GNU) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        (" \n\t ", []),
        ("-O3 -funroll-loops", ["-O3", "-funroll-loops"]),
        ("-O3\r\n\t-g", ["-O3", "-g"]),
        ("'-O3' \"-g\"", ["-O3", "-g"]),
        ("-DX='a b'c", ["-DX=a\\ bc"]),
        ('-DX="a\\"b"', ['-DX=a\\"b']),
        ("-DX=''", ["-DX="]),
        ("-mllvm -x=1 -mllvm  -y", ["-mllvm -x=1", "-mllvm -y"]),
    ],
)
def test_gnu_texts_of_other_forms_are_read_too(text: str, lines: list[str]) -> None:
    assert split_lines(text, GNU, ["-mllvm"]) == lines


@pytest.mark.parametrize(("text", "problem"), [("-DX='a", "not closed"), ("-O3\\", "ends in a backslash")])
def test_broken_gnu_texts_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        split_lines(text, GNU)


def test_values_that_no_file_can_hold_are_refused() -> None:
    for value in ("a\nb", "a\tb", "\0"):
        with pytest.raises(SearchSpaceError, match="cannot be a value of -f"):
            option_line("-f", value, quoting=GNU)
    assert option_line("-f", "", quoting=GNU) == "-f="
    assert option_line("-O", 2, quoting=GNU, joined=True) == "-O2"
    with pytest.raises(SearchSpaceError, match="cannot be a value of -f"):
        option_line("-f", 'a"b', quoting=NVIDIA)


@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize(
    ("compiler", "flag", "question"),
    [("gcc", "--sysroot", "-print-sysroot"), ("clang", "-resource-dir", "-print-resource-dir")],
)
def test_the_compiler_gets_the_exact_value(
    compiler: str, flag: str, question: str, value: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}: apt install {compiler}")
    line = option_line(flag, value, quoting=GNU)
    options = save_compiler_config(tmp_path / "options", f"{line}\n{question}\n")
    assert run_tool([compiler, f"@{options}"], timeout=20).stdout == f"{value}\n"


@pytest.fixture
def gnu(tiny: dict[str, Any]) -> dict[str, Any]:
    """A space of a compiler that reads response files."""
    pick = {"type": "choice", "choices": ["1", "2"]}
    on_off = {"values": {"type": "boolean"}, "knockout_prob": 0.5, "doc": "On or off."}
    tiny["quoting"] = "gnu"
    tiny["constraints"] = []
    tiny["options"] = [
        {
            "name": "level",
            "flag": "-O",
            "joined": True,
            "values": pick,
            "knockout_prob": 0.0,
            "doc": "Level.",
        },
        {"name": "web", "flag": "-fweb", "off": "-fno-web", **on_off},
        {"name": "sink", "flag": "-mllvm -sink", "off": "-mllvm -sink=false", **on_off},
        {
            "name": "root",
            "flag": "--root",
            "values": {"type": "choice", "choices": ["a b", "c"]},
            "knockout_prob": 0.5,
            "with": ["-fexact"],
            "doc": "Where.",
        },
    ]
    return tiny


def test_a_configuration_becomes_a_response_file_and_back(gnu: dict[str, Any]) -> None:
    space = CompilerSpace.from_json(gnu, "f").to_space()
    config = {"level": "2", "web": False, "sink": True, "root": "a b"}
    text = "-O2\n-fno-web\n-mllvm -sink\n-fexact\n--root=a\\ b\n"
    assert space.render is not None
    assert space.render(config) == text
    assert space.decode(space.encode(text)) == text
    assert space.decode(space.encode("-mllvm '-sink' --root='a b' -fexact -O2 -fno-web")) == text
    assert space.decode(space.encode("")) == ""
    assert space.decode(space.encode("-mllvm -sink=false")) == "-mllvm -sink=false\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-O3", "option 1: '-O3' is not an option, or a value"),
        ("-O1 -fweb -fno-web", "option 3: '-fno-web' comes after '-fweb'"),
        ("--root=c", "-fexact must be there"),
    ],
)
def test_texts_outside_the_space_are_refused(gnu: dict[str, Any], text: str, problem: str) -> None:
    space = CompilerSpace.from_json(gnu, "f").to_space()
    with pytest.raises(ConfigError, match=problem):
        space.encode(text)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"quoting": "shell"}, "`quoting`: is 'shell'; it must be one of nvidia, gnu"),
        ({"quoting": 3}, "`quoting`"),
    ],
)
def test_an_unknown_quoting_is_refused(gnu: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SearchSpaceError, match=problem):
        CompilerSpace.from_json({**gnu, **change}, "f")


@pytest.mark.parametrize(
    ("option", "change", "problem"),
    [
        (1, {"off": "no web"}, "`options.1..off`: has 'no web', which does not look like an option"),
        (0, {"off": "-O0"}, "is how a boolean says no"),
        (1, {"joined": "yes"}, "`options.1..joined`"),
        (2, {"flag": "-mllvm -a -b"}, "does not look like an option"),
        (1, {"off": "-fweb"}, "look the same"),
    ],
)
def test_bad_fields_are_refused(
    gnu: dict[str, Any], option: int, change: dict[str, Any], problem: str
) -> None:
    gnu["options"][option].update(change)
    with pytest.raises(SearchSpaceError, match=problem):
        CompilerSpace.from_json(gnu, "f")


def test_two_words_are_for_response_files_only(gnu: dict[str, Any]) -> None:
    del gnu["quoting"]
    with pytest.raises(SearchSpaceError, match=r"`options.2..flag`: has '-mllvm -sink'"):
        CompilerSpace.from_json(gnu, "f")
