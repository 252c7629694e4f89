"""Manifests: reading, looking up, checking, writing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.compilers import CATALOGUE
from ciq_ray.search_spaces.manifest import Entry, Manifest, build, check, main

ENTRY = {
    "file": "a.json",
    "compiler": "toycc",
    "compiler_versions": ["1.9", "1.10"],
    "variant": "default",
    "sha256": "0" * 64,
    "size": 3,
}


def parse(*entries: dict[str, Any], **fields: Any) -> Manifest:
    data = {"format": "ciq-search-spaces", "version": 1, "release": "7", "files": list(entries), **fields}
    return Manifest.parse(json.dumps(data).encode(), "m.json")


def test_an_entry_is_found_by_compiler_version_and_variant() -> None:
    other = {**ENTRY, "file": "b.json", "variant": "full"}
    assert parse(ENTRY, other).find("toycc", "1.10", "full").file == "b.json"


def test_what_is_missing_is_named_with_what_there_is() -> None:
    manifest = parse(ENTRY, {**ENTRY, "file": "b.json", "variant": "full"})
    with pytest.raises(SearchSpaceError, match=r"m\.json: no compiler 'gcc'; there is toycc"):
        manifest.find("gcc", "1.9", "default")
    with pytest.raises(SearchSpaceError, match=r"no toycc version '2\.0'; there is 1\.9, 1\.10"):
        manifest.find("toycc", "2.0", "default")
    with pytest.raises(SearchSpaceError, match=r"no variant for toycc 1\.9 'fast'; there is default, full"):
        manifest.find("toycc", "1.9", "fast")
    with pytest.raises(SearchSpaceError, match="there is nothing"):
        parse().find("toycc", "1.9", "default")


def test_two_files_for_one_thing_are_refused() -> None:
    with pytest.raises(SearchSpaceError, match=r"a\.json, b\.json all claim toycc 1\.9 default"):
        parse(ENTRY, {**ENTRY, "file": "b.json"}).find("toycc", "1.9", "default")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"file": "../a.json"}, r"`files\[0\]\.file`: is '\.\./a\.json'; it must be the plain name"),
        ({"file": "/etc/passwd"}, "plain name"),
        ({"file": ".."}, "plain name"),
        ({"file": "a\nb"}, "plain name"),
        ({"sha256": "0" * 63}, "64 hexadecimal digits"),
        ({"sha256": "A" * 64}, "64 hexadecimal digits"),
        ({"size": -1}, "must lie between"),
        ({"size": 1 << 40}, "must lie between"),
        ({"size": 3.5}, "must be a whole number"),
        ({"sha265": "x"}, "unknown"),
    ],
)
def test_bad_entries_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SearchSpaceError, match=complaint):
        parse({**ENTRY, **change})


def test_another_programs_manifest_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="`format`: is None; it must be 'ciq-search-spaces'"):
        Manifest.parse(b'{"assets": []}', "manifest.json")
    with pytest.raises(SearchSpaceError, match="this release reads version 1"):
        parse(version=2)


def test_size_and_sha256_are_both_checked() -> None:
    entry = Entry("a", "c", ("1.0",), "v", hashlib.sha256(b"abc").hexdigest(), 3)
    check(entry, b"abc", "a")
    with pytest.raises(SearchSpaceError, match="4 bytes, but its manifest says 3"):
        check(entry, b"abcd", "a")
    with pytest.raises(SearchSpaceError, match="its sha256 is"):
        check(entry, b"abd", "a")


def test_the_catalogues_manifest_is_up_to_date(mirror: Path) -> None:
    shipped = (CATALOGUE / "manifest.json").read_bytes()
    (mirror / "manifest.json").unlink()
    assert build(mirror, json.loads(shipped)["release"]).read_bytes() == shipped


def test_the_command_writes_a_manifest(
    tiny: dict[str, Any], write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tiny)
    assert main([str(tmp_path), "2026.1"]) == 0
    manifest = Manifest.parse((tmp_path / "manifest.json").read_bytes(), "m")
    assert (manifest.release, manifest.entries[0].file) == ("2026.1", "space.json")
    assert capsys.readouterr().out.strip() == str(tmp_path / "manifest.json")


def test_the_command_refuses_what_it_cannot_list(
    tiny: dict[str, Any], write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no search-space file" in capsys.readouterr().err
    assert main([]) == 2
    write(tiny, "a.json")
    write(tiny, "b.json")
    assert main([str(tmp_path)]) == 1
    assert "all claim" in capsys.readouterr().err
    assert not (tmp_path / "manifest.json").exists()
