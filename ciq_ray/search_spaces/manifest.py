"""``manifest.json``: which search-space files there are, and what each must contain byte for byte.

``python -m ciq_ray.search_spaces.manifest FOLDER`` writes it for a folder of compiler spaces, which
`CIQ_SEARCH_SPACES_DIR` can then point to, or which can be published as a release.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ciq_ray._files import write_atomic
from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.strict_json import Fields, parse_json

__all__ = ["FILE_NAME", "Entry", "Manifest", "build", "check"]

FILE_NAME: Final = "manifest.json"
FORMAT: Final = "ciq-search-spaces"
VERSION: Final = 1
MAX_BYTES: Final = 16 << 20

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a manifest.

    Attributes:
        file: Its name; it lies beside the manifest.
        compiler: For example ``ptxas``.
        versions: Compiler versions it holds for.
        variant: For example ``default``.
        sha256: Of its bytes, in hexadecimal.
        size: In bytes.
    """

    file: str
    compiler: str
    versions: tuple[str, ...]
    variant: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder or a release of search spaces holds.

    Attributes:
        release: The tag of this collection.
        entries: Its files.
        source: Where it came from, for messages.
    """

    release: str
    entries: tuple[Entry, ...]
    source: str

    @classmethod
    def parse(cls, data: bytes, source: str) -> Manifest:
        """The manifest in `data`.

        Raises:
            SearchSpaceError: It is not JSON of the documented form.
        """
        fields = Fields(parse_json(data, source), source)
        form = fields.text("format", None)
        if form != FORMAT:
            fields.fail("format", f"is {form!r}; it must be {FORMAT!r} (docs/compiler-spaces.md)")
        if (version := fields.integer("version")) != VERSION:
            fields.fail("version", f"is {version}; this release reads version {VERSION}")
        release = fields.text("release")
        entries = tuple(
            _entry(Fields(item, source, f"files[{position}]"))
            for position, item in enumerate(fields.items("files"))
        )
        fields.done()
        return cls(release, entries, source)

    def find(self, compiler: str, version: str, variant: str) -> Entry:
        """The file for a compiler version and a variant.

        Raises:
            SearchSpaceError: There is none, or more than one; the message lists what there is.
        """
        of_compiler = [entry for entry in self.entries if entry.compiler == compiler]
        if not of_compiler:
            raise self._missing("compiler", compiler, {entry.compiler for entry in self.entries})
        of_version = [entry for entry in of_compiler if version in entry.versions]
        if not of_version:
            known = {text for entry in of_compiler for text in entry.versions}
            raise self._missing(f"{compiler} version", version, known)
        found = [entry for entry in of_version if entry.variant == variant]
        if not found:
            known = {entry.variant for entry in of_version}
            raise self._missing(f"variant for {compiler} {version}", variant, known)
        if len(found) > 1:
            names = ", ".join(entry.file for entry in found)
            raise SearchSpaceError(
                f"{self.source}: {names} all claim {compiler} {version} {variant}; keep one of them"
            )
        return found[0]

    def _missing(self, what: str, wanted: str, known: set[str]) -> SearchSpaceError:
        there = ", ".join(sorted(known, key=_natural)) or "nothing"
        return SearchSpaceError(f"{self.source}: no {what} {wanted!r}; there is {there}")


def check(entry: Entry, data: bytes, source: str) -> None:
    """Compare a file's bytes with its entry.

    Raises:
        SearchSpaceError: Size or sha256 differ.
    """
    if len(data) != entry.size:
        raise SearchSpaceError(
            f"{source}: {len(data)} bytes, but its manifest says {entry.size}; get the file again, or write "
            "a new manifest if you changed it"
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise SearchSpaceError(
            f"{source}: its sha256 is {digest}, but its manifest says {entry.sha256}; get the file again, "
            "or write a new manifest if you changed it"
        )


def build(folder: Path, release: str) -> Path:
    """Write the manifest of every compiler space (``*.json``) in a folder.

    Args:
        folder: Where the files are.
        release: The tag to give this collection.

    Returns:
        The path of the manifest.

    Raises:
        SearchSpaceError: A file cannot be read or is not a compiler space, or two claim the same
            compiler version and variant.
    """
    # not above: it loads the searchers, which looking up a file does not need
    from ciq_ray.search_spaces.files import read_space_file
    from ciq_ray.search_spaces.options import CompilerSpace

    files: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        if path.name == FILE_NAME:
            continue
        data = read_space_file(path)
        space = CompilerSpace.from_json(parse_json(data, str(path)), str(path))
        space.to_space()
        files.append(
            {
                "file": path.name,
                "compiler": space.compiler,
                "compiler_versions": list(space.versions),
                "variant": space.variant,
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
            }
        )
    if not files:
        raise SearchSpaceError(f"{folder}: no search-space file (*.json) to list")
    record = {"format": FORMAT, "version": VERSION, "release": release, "files": files}
    text = json.dumps(record, indent=2) + "\n"
    target = folder / FILE_NAME
    manifest = Manifest.parse(text.encode(), str(target))
    for entry in manifest.entries:
        for version in entry.versions:
            manifest.find(entry.compiler, version, entry.variant)
    return write_atomic(target, [text.encode()])


def _entry(fields: Fields) -> Entry:
    name = fields.text("file")
    if not _PLAIN_NAME.fullmatch(name):
        fields.fail("file", f"is {name!r}; it must be the plain name of a file beside the manifest")
    sha256, size = fields.text("sha256"), fields.integer("size")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        fields.fail("sha256", f"is {sha256!r}; it must be 64 hexadecimal digits in lower case")
    if not 0 <= size <= MAX_BYTES:
        fields.fail("size", f"is {size}; it must lie between 0 and {MAX_BYTES} bytes")
    entry = Entry(
        file=name,
        compiler=fields.text("compiler"),
        versions=fields.texts("compiler_versions"),
        variant=fields.text("variant"),
        sha256=sha256,
        size=size,
    )
    fields.done()
    return entry


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sorts 13.10 after 13.9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


def main(arguments: Sequence[str]) -> int:
    """``python -m ciq_ray.search_spaces.manifest FOLDER [RELEASE]``."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        print("usage: python -m ciq_ray.search_spaces.manifest FOLDER [RELEASE]", file=sys.stderr)
        return 2
    try:
        print(build(Path(arguments[0]), arguments[1] if len(arguments) == 2 else "1"))
    except SearchSpaceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
