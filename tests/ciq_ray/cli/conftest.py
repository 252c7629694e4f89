from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ciq_ray.cli import app

SPACE = {
    "format": "ciq-space",
    "version": 1,
    "parameters": {"x": {"type": "range", "start": 0, "end": 30}},
    "default": {"x": 20},
}

Ciq = Callable[..., Result]


@pytest.fixture
def ciq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ciq:
    """Runs the command in the test's folder, in this process; its runs are in ``runs`` there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: Any, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="ciq")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def space(tmp_path: Path) -> Callable[..., str]:
    """Writes a space file and returns its name."""

    def write(parameters: dict[str, Any] | None = None, default: Any = None, name: str = "space.json") -> str:
        data: dict[str, Any] = dict(SPACE)
        if parameters is not None:
            data = {**SPACE, "parameters": parameters}
            del data["default"]
        if default is not None:
            data["default"] = default
        (tmp_path / name).write_text(json.dumps(data))
        return name

    return write
