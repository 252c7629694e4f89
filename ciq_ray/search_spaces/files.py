"""Search spaces from files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.options import FORMAT, CompilerSpace, option_line
from ciq_ray.search_spaces.strict_json import parse_json
from searchers.errors import ConfigError, SearcherError
from searchers.params import Choice
from searchers.space import Space

__all__ = ["MAX_FILE_BYTES", "apply_controls_space", "load_space", "read_space_file"]

MAX_FILE_BYTES = 16 << 20
"""Larger files are not search spaces."""


def load_space(
    path: str | os.PathLike[str], *, version: str | None = None, architecture: str | None = None
) -> Space:
    """The search space in a file.

    Two forms are read: ``ciq-compiler-space`` (``docs/compiler-spaces.md``), whose configurations are
    the text of an options file, and ``ciq-space`` (`searchers.files`), whose configurations are dicts.

    Args:
        path: The file.
        version: Compiler version to select options for; ``None`` keeps those that every version has
            for which the file holds.
        architecture: Architecture to select options for, for example ``sm_90``; ``None`` keeps those
            that hold everywhere.

    Raises:
        SearchSpaceError: The file cannot be read, is an opaque binary, or is not a space of either
            form; or it is a ``ciq-space`` and a version or an architecture was given.
    """
    file = Path(path)
    data = parse_json(read_space_file(file), str(file))
    form = data.get("format") if isinstance(data, dict) else None
    if form == FORMAT:
        space = CompilerSpace.from_json(data, str(file)).select(version, architecture)
        try:
            return space.to_space()
        except SearchSpaceError as error:
            raise SearchSpaceError(f"{file}: {error}") from error
    if form != "ciq-space":
        raise SearchSpaceError(
            f'{file}: not a search space: `format` is {form!r}; it must be "{FORMAT}" or "ciq-space"'
        )
    if version is not None or architecture is not None:
        raise SearchSpaceError(f"{file}: `version` and `architecture` select from compiler spaces only")
    try:
        return Space.from_dict(data)
    except SearcherError as error:
        raise SearchSpaceError(f"{file}: {error}") from error


def read_space_file(file: Path) -> bytes:
    """The bytes of a search-space file that may be text.

    Raises:
        SearchSpaceError: It cannot be read, is too large, or is an opaque binary.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SearchSpaceError(f"{file}: cannot be read: {error.strerror or error}") from error
    if _is_binary(data):
        raise SearchSpaceError(
            f"{file}: this is an opaque binary, not a search space in text: vendor files of this kind are "
            "undocumented, so there is nothing in it that a search could choose from. For documented "
            'options use a provider such as PtxasSearchSpace("13.3"). To tune over ready-made control '
            "files, use ciq_ray.search_spaces.files.apply_controls_space([path, ...]): it makes the file "
            "a choice that is passed to --apply-controls"
        )
    if len(data) > MAX_FILE_BYTES:
        raise SearchSpaceError(f"{file}: larger than {MAX_FILE_BYTES} bytes, which no search space is")
    return data


def _is_binary(data: bytes) -> bool:
    if b"\0" in data:
        return True
    try:
        data[: MAX_FILE_BYTES - 4].decode("utf-8")
    except UnicodeDecodeError as error:
        # a JSON file with one bad byte deserves to hear where it is
        return error.start < len(data) - 4 and not data.lstrip().startswith((b"{", b"["))
    return False


class _ControlsText:
    """The options file that applies one control file."""

    def __call__(self, config: dict[str, Any]) -> str:
        path = config.get("apply_controls")
        return "" if path is None else option_line("--apply-controls", path) + "\n"

    def parse(self, text: Any) -> dict[str, Any]:
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} is not the text of an options file")
        line = text.strip()
        if not line:
            return {}
        flag, _, value = line.partition("=")
        if flag != "--apply-controls":
            raise ConfigError(f"{line!r} does not set --apply-controls, the one option of this space")
        return {"apply_controls": value.removeprefix('"').removesuffix('"')}


def apply_controls_space(paths: Iterable[str | os.PathLike[str]]) -> Space:
    """A search over ready-made compiler control files, which ptxas and nvcc take from 13.3 on.

    A configuration is the text of an options file, as for every compiler space: one line that passes
    one of the files to ``--apply-controls``. The empty text, no control file, is in it too.

    Args:
        paths: The control files. They must exist, and are passed as absolute paths.

    Raises:
        SearchSpaceError: There is none, one is not a file or comes twice, or its path cannot stand in
            an options file.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise SearchSpaceError(f"`paths` is {paths!r}; it must be a list of paths")
    files = [Path(path).absolute() for path in paths]
    if not files:
        raise SearchSpaceError("`paths` is empty; name at least one control file")
    for file in files:
        if not file.is_file():
            raise SearchSpaceError(f"`paths` has {file}, which is not a file")
        option_line("--apply-controls", file)
    share_without = 1 / (len(files) + 1)
    try:
        choice = Choice([str(file) for file in files], knockout_prob=share_without)
    except SearcherError as error:
        raise SearchSpaceError(f"`paths`: {error}") from error
    return Space({"apply_controls": choice}, default={}, render=_ControlsText())
