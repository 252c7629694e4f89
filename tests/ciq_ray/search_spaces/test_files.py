"""Loading search spaces from files."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces import files
from ciq_ray.search_spaces.compilers import CATALOGUE
from ciq_ray.search_spaces.files import apply_controls_space, load_space
from searchers.errors import ConfigError


def test_a_compiler_space_gives_texts(tiny: dict[str, Any], write: Any) -> None:
    space = load_space(write(tiny))
    assert space.default_row is not None
    assert space.decode(space.default_row) == ""


def test_version_and_architecture_select(tiny: dict[str, Any], write: Any) -> None:
    tiny["constraints"] = []
    tiny["options"][0]["until"] = "1.0"
    tiny["options"][3]["architectures"] = ["a1"]
    path = write(tiny)
    whole = load_space(path, version="1.0", architecture="a1")
    assert [whole.encoding.n_parameters, load_space(path).encoding.n_parameters] == [5, 3]


def test_a_general_space_gives_dicts(write: Any) -> None:
    path = write(
        {
            "format": "ciq-space",
            "version": 1,
            "parameters": {"x": {"type": "range", "start": 1, "end": 3}},
            "constraints": ["x != 2"],
        }
    )
    assert load_space(path).size == 2
    with pytest.raises(SearchSpaceError, match="`version` and `architecture` select from compiler spaces"):
        load_space(path, version="13.3")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'{"format": "ciq-compiler-space",\n  "version": }', "line 2, column 14: not JSON"),
        (b"ptxas -O3", "line 1, column 1: not JSON"),
        (b"[]", "`format` is None"),
        (b'{"format": "zip"}', "`format` is 'zip'"),
        (b'{"format": ["ciq-space"]}', r"`format` is \['ciq-space'\]"),
        (b'{"version": 1, "version": 2}', "the key 'version' twice"),
        (b'{"format": "ciq-space", "version": NaN}', "NaN is not a JSON number"),
        (b'{"format": "ciq-compiler-space", "version": 1' + b"0" * 5000 + b"}", "digits"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"format": "ciq-\xff"}', "byte 16 is not UTF-8"),
        (b'{"format": "ciq-space", "version": 1, "parameters": {}}', "no parameters"),
    ],
)
def test_bad_files_say_what_and_where(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "space.json"
    path.write_bytes(content)
    with pytest.raises(SearchSpaceError, match=complaint) as caught:
        load_space(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x01\x01\0\0\0", os.urandom(4096), b"\x93\xc8\xfe\xff" * 9])
def test_an_opaque_binary_is_recognised_and_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ptxas.bin"
    path.write_bytes(content)
    with pytest.raises(SearchSpaceError, match=r"opaque binary.*PtxasSearchSpace.*apply_controls_space"):
        load_space(path)


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SearchSpaceError, match="cannot be read: No such file"):
        load_space(tmp_path / "none.json")
    with pytest.raises(SearchSpaceError, match="cannot be read: Is a directory"):
        load_space(tmp_path)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)
    (tmp_path / "big.json").write_text(" " * 101)
    with pytest.raises(SearchSpaceError, match="larger than 100 bytes"):
        load_space(tmp_path / "big.json")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 300), st.floats(allow_nan=False), st.text(max_size=6)
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_space_loads_or_is_refused_by_us(tmp_path: Path, data: st.DataObject) -> None:
    content: Any = json.loads((CATALOGUE / "ptxas-13-registers.json").read_text())
    node = content
    for _ in range(data.draw(st.integers(1, 5))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], (dict, list)) and data.draw(st.booleans()):
            node = node[key]
            continue
        if data.draw(st.booleans()):
            del node[key]
        else:
            node[key] = data.draw(VALUES)
        break
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    with contextlib.suppress(SearchSpaceError):
        load_space(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_refused_by_us(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    with pytest.raises(SearchSpaceError, match="any"):
        load_space(path)


def test_control_files_are_a_choice_of_one_or_none(tmp_path: Path) -> None:
    paths = [tmp_path / "a.bin", tmp_path / "b c.bin"]
    for path in paths:
        path.write_bytes(b"\0")
    space = apply_controls_space(paths)
    assert space.size == 3
    assert space.rows is not None
    texts = {space.decode(row) for row in space.rows}
    assert texts == {"", f"--apply-controls={paths[0]}\n", f'--apply-controls="{paths[1]}"\n'}
    assert {space.decode(space.encode(text)) for text in texts} == texts
    assert space.default_row is not None
    assert space.decode(space.default_row) == ""
    with pytest.raises(ConfigError, match="does not set --apply-controls"):
        space.encode("--opt-level=1\n")


def test_control_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0")
    (tmp_path / 'q".bin').write_bytes(b"\0")
    monkeypatch.chdir(tmp_path)
    assert apply_controls_space(["a.bin"]).size == 2
    with pytest.raises(SearchSpaceError, match="is empty"):
        apply_controls_space([])
    with pytest.raises(SearchSpaceError, match="must be a list"):
        apply_controls_space("a.bin")
    with pytest.raises(SearchSpaceError, match=r"none\.bin, which is not a file"):
        apply_controls_space(["none.bin"])
    with pytest.raises(SearchSpaceError, match="twice"):
        apply_controls_space(["a.bin", tmp_path / "a.bin"])
    with pytest.raises(SearchSpaceError, match="cannot be a value of --apply-controls"):
        apply_controls_space(['q".bin'])
