"""Helpers for scripts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.utils.helpers import save_compiler_config

TEXT = "-O3\n--fmad=false\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("best.opt", TEXT),
        (TEXT, "best.opt"),
        (Path("best.opt"), TEXT),
        (TEXT, Path("best.opt")),
        ("best.opt", ""),
        ("", "best.opt"),
        ("best.opt", "-O3"),
        ("-O3", "best.opt"),
        ("best.opt", "O3"),
    ],
)
def test_both_orders(arguments: Any) -> None:
    path = save_compiler_config(*arguments)
    assert path == Path("best.opt")
    assert path.read_text() in arguments
    assert os.listdir() == ["best.opt"]


@pytest.mark.parametrize("config", [{"a": [1, 2.5], "b": None}, ["-O3", {"x": 1}], {}])
def test_a_dict_or_parts_are_json(config: Any) -> None:
    for arguments in (("c.json", config), (config, "c.json"), (config, Path("c.json"))):
        path = save_compiler_config(*arguments)
        assert json.loads(path.read_text()) == config
        path.unlink()


def test_keywords_and_folders_and_replacing() -> None:
    for text in (TEXT, "-O1\n"):
        path = save_compiler_config(path="a/b/best.opt", config=text)
        assert path.read_text() == text
    assert os.listdir("a/b") == ["best.opt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", ""), "one must be the path"),
        ((TEXT, "-O3"), "one must be the path"),
        (({}, {}), "one must be the path"),
        (("x", 3), "one must be the path"),
        ((Path("x"), Path("y")), "one must be the path"),
        (("x", {"a": object()}), "`config` cannot be written as JSON"),
        (("x", {"a": float("nan")}), "`config` cannot be written as JSON"),
        (("/proc/none/x", TEXT), "`path` is '/proc/none/x'"),
        ((Path("."), TEXT), "`path` is '.'"),
        (("x" * 300, TEXT), "cannot be written"),
    ],
)
def test_what_cannot_be_saved(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        save_compiler_config(*arguments)
    assert os.listdir() == []
