r"""Spaces as JSON: the form of a ``ciq-space`` file, and a space's fingerprint.

::

    {"format": "ciq-space", "version": 1,
     "parameters": {"BLOCK": {"type": "power_of_two", "low": 16, "high": 256},
                    "inner": {"x": {"type": "range", "start": 1, "end": 9, "step": 2}},
                    "pair": [{"type": "boolean"}, {"type": "boolean"}]},
     "constraints": ["BLOCK * inner[\"x\"] <= 512"],
     "default": {"BLOCK": 64, "inner": {"x": 1}, "pair": [false, true]}}

A dict whose ``type`` is a string is a parameter; any other dict is a nested space. The fields of a
parameter are the arguments of its class. A space inside a space has ``"format": "ciq-space"`` too.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from searchers.encoding import path_name
from searchers.errors import SearcherError, SpaceError
from searchers.lists import ListOf, Permutation
from searchers.params import (
    Boolean,
    Choice,
    Literal,
    LogRange,
    Param,
    PowerOfTwo,
    Range,
)
from searchers.space import Space

__all__ = ["fingerprint", "param_from_dict", "space_from_dict", "space_to_dict"]

FORMAT = "ciq-space"
VERSION = 1
_KINDS: dict[str, type[Param]] = {
    kind.kind: kind for kind in (Boolean, Choice, Literal, LogRange, Permutation, PowerOfTwo, Range)
}


def param_from_dict(data: Mapping[str, Any], where: str = "the parameter") -> Param | ListOf:
    """A parameter from its plain data.

    Raises:
        SpaceError: The type is unknown, or an argument is missing, unknown or refused.
    """
    fields = dict(data)
    kind = fields.pop("type", None)
    try:
        if kind == ListOf.kind:
            inner = fields.pop("param", None)
            if not isinstance(inner, Mapping):
                raise SpaceError("`param` is missing; it describes one element")
            return ListOf(param_from_dict(inner, "`param`"), **_known(ListOf, fields))  # type: ignore[arg-type]
        if not isinstance(kind, str) or kind not in _KINDS:
            raise SpaceError(f"`type` is {kind!r}; it must be one of {', '.join([*_KINDS, ListOf.kind])}")
        return _KINDS[kind](**_known(_KINDS[kind], fields))
    except TypeError as error:
        raise SpaceError(f"{where}: {kind} {str(error).split('()')[-1].strip()}") from error
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from error


def _known(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    allowed = [name for name in inspect.signature(kind).parameters if name != "param"]
    unknown = [name for name in fields if name not in allowed]
    if unknown:
        raise SpaceError(f"`{unknown[0]}` is not a field of it; there are {', '.join(allowed)}")
    return fields


def space_from_dict(data: Any) -> Space:
    """A space from its plain data (see the module's description).

    Raises:
        SpaceError: It is not of that form; the message says where.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise SpaceError(f'not a search space: expected an object with "format": "{FORMAT}"')
    if data.get("version") != VERSION:
        raise SpaceError(f"`version` is {data.get('version')!r}; this release reads version {VERSION}")
    unknown = set(data) - {"format", "version", "parameters", "constraints", "default"}
    if unknown:
        raise SpaceError(f"`{min(unknown, key=str)}` is not a field of a search space")
    constraints = data.get("constraints", [])
    if not isinstance(constraints, list) or not all(isinstance(text, str) for text in constraints):
        raise SpaceError(f"`constraints` is {constraints!r}; in a file it must be a list of expressions")
    if "parameters" not in data:
        raise SpaceError("`parameters` is missing")
    try:
        return Space(_node(data["parameters"], ()), constraints, data.get("default"))
    except RecursionError as error:
        raise SpaceError("the search space is nested too deeply") from error


def _node(data: Any, path: tuple[str | int, ...]) -> Any:
    if isinstance(data, Mapping):
        if data.get("format") == FORMAT:
            return space_from_dict(data)
        if isinstance(data.get("type"), str):
            return param_from_dict(data, path_name(path) if path else "the parameter")
        return {name: _node(child, (*path, name)) for name, child in data.items()}
    if isinstance(data, list):
        return [_node(child, (*path, position)) for position, child in enumerate(data)]
    where = path_name(path) if path else "`parameters`"
    raise SpaceError(f"{where} is {data!r}; it must be a parameter, an object or a list")


def space_to_dict(space: Space) -> dict[str, Any]:
    """A space as plain data.

    Raises:
        SpaceError: It holds an object that JSON cannot hold.
    """
    if space.render is not None:
        raise SpaceError("`render` is code and cannot be written to a file")
    for source in space.constraint_sources:
        if not isinstance(source, str):
            raise SpaceError(
                f"the constraint {source!r} is code; write it as an expression to put it in a file"
            )
    data: dict[str, Any] = {"format": FORMAT, "version": VERSION, "parameters": _plain(space.parameters)}
    if space.constraint_sources:
        data["constraints"] = list(space.constraint_sources)
    if space.default is not None:
        data["default"] = space.default
    try:
        same = json.loads(json.dumps(data, allow_nan=False))
        if space_from_dict(same).encoding.tree != space.encoding.tree or same != data:
            raise SpaceError(
                "a value changes when it is written as JSON; use text, numbers, booleans or null"
            )
    except (TypeError, ValueError) as error:
        if isinstance(error, SearcherError):
            raise
        raise SpaceError(f"the space holds an object that JSON cannot hold: {error}") from error
    return data


def _plain(node: Any) -> Any:
    if isinstance(node, Space):
        return space_to_dict(node)
    if isinstance(node, (Param, ListOf)):
        return node.to_dict()
    if isinstance(node, Mapping):
        return {name: _plain(child) for name, child in node.items()}
    return [_plain(child) for child in node]


def fingerprint(space: Space) -> str:
    """16 hexadecimal digits that change when the space does.

    Code (a constraint that is a callable, a `render`) counts by its source text where Python can find
    it, else by its name; objects that JSON cannot hold count by type and `repr`, addresses left out.
    """
    content = {
        "parameters": _plain_for_hash(space.parameters),
        "constraints": [_stable(source) for source in space.constraint_sources],
        "render": None if space.render is None else _stable(space.render),
    }
    text = json.dumps(content, sort_keys=False, separators=(",", ":"), default=_stable)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain_for_hash(node: Any) -> Any:
    if isinstance(node, Space):
        return ["space", fingerprint(node)]
    if isinstance(node, (Param, ListOf)):
        return _with_tuples(node.to_dict())
    if isinstance(node, Mapping):
        return {name: _plain_for_hash(child) for name, child in node.items()}
    return [_plain_for_hash(child) for child in node]


def _with_tuples(value: Any) -> Any:
    """`value` with its tuples marked, which JSON writes like lists."""
    if isinstance(value, tuple):
        return {"tuple": [_with_tuples(item) for item in value]}
    if isinstance(value, list):
        return [_with_tuples(item) for item in value]
    if type(value) is dict:
        return {name: _with_tuples(item) for name, item in value.items()}
    return value


def _stable(value: Any) -> str:
    if isinstance(value, str):
        return value
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):
        return own
    if callable(value):
        target = getattr(value, "__wrapped__", value)
        try:
            return inspect.getsource(target if hasattr(target, "__code__") else type(target)).strip()
        except (OSError, TypeError):
            name = getattr(target, "__qualname__", type(target).__qualname__)
            return f"{getattr(target, '__module__', '')}.{name}"
    text = repr(value)
    return f"{type(value).__qualname__}:{text if ' at 0x' not in text else ''}"
