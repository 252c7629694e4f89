"""From what a user gives as a search space to the space itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciq_ray.errors import ConfigurationError
from searchers.errors import SpaceError
from searchers.space import Space

__all__ = ["Resolved", "SpaceSource", "describe", "from_description", "resolve"]

SpaceSource = Any
"""A dict of parameters, a `Space`, a path, a provider, or a list of these."""

Metadata = dict[str, str | int | None]


@dataclass(frozen=True)
class Resolved:
    """A search space and how it came about.

    Attributes:
        space: The whole.
        metadata: A record for each provider, ``None`` if there was none.
        parts: For each part how to have it again, for the journal.
    """

    space: Space
    metadata: list[Metadata] | None = None
    parts: list[dict[str, Any]] | None = field(default=None)


def resolve(source: SpaceSource, constraints: Sequence[Any] = ()) -> Resolved:
    """The space that `source` stands for.

    Raises:
        ConfigurationError: It is nothing of that kind.
        SearchSpaceError: A file or provider cannot be used.
        searchers.SpaceError: The parameters or constraints cannot be used.
    """
    if isinstance(source, (str, bytes)) and not source:
        raise ConfigurationError(f"`search_space` is {source!r}; it must not be empty")
    if isinstance(constraints, (str, bytes)) or callable(constraints):
        constraints = [constraints]
    listed = isinstance(source, (list, tuple))
    parts = [_part(part) for part in (source if listed else [source])]
    metadata = [record for _, record, _ in parts if record is not None] or None
    described = [description for _, _, description in parts]
    if not listed:
        space = parts[0][0]
        if constraints:
            space = Space(
                space.parameters,
                [*space.constraint_sources, *constraints],
                space.default,
                render=space.render,
            )
        return Resolved(space, metadata, described)
    spaces = [space for space, _, _ in parts]
    default = None
    if all(space.default is not None for space in spaces):
        default = [space.default for space in spaces]
    return Resolved(Space(spaces, constraints, default), metadata, described)


def _part(source: Any) -> tuple[Space, Metadata | None, dict[str, Any]]:
    if isinstance(source, Space):
        return source, None, _described(source)
    if isinstance(source, Mapping):
        space = Space(source)
        return space, None, _described(space)
    if isinstance(source, (str, os.PathLike)):
        from ciq_ray.search_spaces.files import load_space

        path = Path(source)
        return load_space(path), None, {"file": str(path.absolute())}
    if callable(getattr(source, "retrieve", None)):
        from ciq_ray.search_spaces.compilers import CompilerSearchSpaceBase, load_provider

        space, record = load_provider(source)
        if record.get("path") is None:
            return space, record, _described(space)
        version = source.version if isinstance(source, CompilerSearchSpaceBase) else None
        return space, record, {"file": str(Path(str(record["path"])).absolute()), "version": version}
    raise ConfigurationError(
        f"`search_space` is {source!r}; it must be a dict of parameters, a Space, a path to a search-space "
        "file, a provider, or a list of these"
    )


def _described(space: Space) -> dict[str, Any]:
    try:
        return {"space": space.to_dict()}
    except SpaceError as error:
        return {"unknown": str(error)}


def describe(resolved_parts: list[dict[str, Any]] | None, listed: bool) -> dict[str, Any]:
    """What the journal keeps of a search space."""
    return {"list": listed, "parts": resolved_parts}


def from_description(data: Mapping[str, Any]) -> SpaceSource:
    """The inverse of `describe`: something that `resolve` takes.

    Raises:
        SpaceError: A part is code, or an object, that a journal cannot hold.
    """
    from ciq_ray.search_spaces.files import load_space

    parts: list[Any] = []
    for part in data["parts"]:
        if "space" in part:
            parts.append(Space.from_dict(part["space"]))
        elif "file" in part:
            version = part.get("version")
            parts.append(load_space(part["file"], version=version) if version else load_space(part["file"]))
        else:
            raise SpaceError(f"the journal does not hold the search space: {part.get('unknown')}")
    return parts if data["list"] else parts[0]
