"""What the tests of compiler spaces share."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.search_spaces.compilers import CATALOGUE


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A compiler space with one option of each kind, to be changed and written by a test."""
    return {
        "format": "ciq-compiler-space",
        "version": 1,
        "compiler": "toycc",
        "compiler_versions": ["1.0", "1.1", "2.0"],
        "variant": "default",
        "doc": "Options of a compiler that does not exist.",
        "options": [
            {
                "name": "level",
                "flag": "--level",
                "values": {"type": "range", "start": 0, "end": 3, "step": 1},
                "default": 2,
                "doc": "How hard to try.",
            },
            {
                "name": "limit",
                "flag": "--limit",
                "values": {"type": "power_of_two", "low": 8, "high": 64},
                "knockout_prob": 0.5,
                "with": ["--override"],
                "doc": "An upper limit.",
            },
            {
                "name": "spread",
                "flag": "--spread",
                "values": {"type": "choice", "choices": ["near", "far"]},
                "knockout_prob": 0.5,
                "when": "limit is None",
                "with": ["--override"],
                "doc": "Where to put things.",
            },
            {"name": "quiet", "flag": "-q", "values": {"type": "switch"}, "doc": "Say nothing."},
            {
                "name": "fuse",
                "flag": "--fuse",
                "values": {"type": "boolean"},
                "default": True,
                "changes_results": True,
                "doc": "Round once.",
            },
        ],
        "constraints": ["not quiet or level > 0"],
    }


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """A function that writes a value as JSON and returns the path."""

    def write_json(value: Any, name: str = "space.json") -> Path:
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write_json


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A copy of the catalogue in a folder of the test's own."""
    folder = tmp_path / "mirror"
    shutil.copytree(CATALOGUE, folder)
    return folder


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CIQ_SEARCH_SPACES_DIR", raising=False)
    monkeypatch.delenv("CIQ_SEARCH_SPACES_REPO", raising=False)
    monkeypatch.setenv("CIQ_CACHE_DIR", str(tmp_path / "cache"))
