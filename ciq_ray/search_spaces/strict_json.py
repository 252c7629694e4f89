"""Reading JSON without guessing: what a file says twice, misspells or leaves out is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from ciq_ray.errors import SearchSpaceError

__all__ = ["Fields", "parse_json"]

_REQUIRED: Final = object()
_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


def parse_json(data: bytes, source: str) -> Any:
    """The value that `data` holds.

    Args:
        data: JSON in UTF-8.
        source: What to call it in messages, usually its path.

    Raises:
        SearchSpaceError: It is not UTF-8 or not JSON, an object has a key twice, or a number is not
            finite; the message has the line and column, or the key.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise SearchSpaceError(f"{source}: {name} is not a JSON number; write a finite one")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise SearchSpaceError(f"{source}: an object has the key {key!r} twice; keep one of them")
            found[key] = value
        return found

    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise SearchSpaceError(f"{source}: byte {error.start} is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise SearchSpaceError(
            f"{source}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except RecursionError as error:
        raise SearchSpaceError(f"{source}: nested too deeply") from error
    except SearchSpaceError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise SearchSpaceError(f"{source}: {error}") from error


class Fields:
    """One JSON object, read field by field; `done` refuses what nobody asked for.

    Args:
        data: The object.
        source: The file it came from.
        path: Where in the file, for example ``options[3]``; empty at the top.

    Raises:
        SearchSpaceError: `data` is not an object.
    """

    def __init__(self, data: Any, source: str, path: str = "") -> None:
        self._source, self._path = source, path
        self._asked: list[str] = []
        if not isinstance(data, Mapping):
            self.fail(None, f"{_shown(data)} stands where an object is expected")
        self._data = data

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def path(self, name: str | None) -> str:
        """Where field `name` is, for messages."""
        return ".".join(part for part in (self._path, name) if part)

    def fail(self, name: str | None, problem: str) -> NoReturn:
        """Raise the error for a field, or for the object itself."""
        where = self.path(name)
        raise SearchSpaceError(f"{self._source}: {f'`{where}`: ' if where else ''}{problem}")

    def _take(self, name: str, kind: type, default: Any) -> Any:
        self._asked.append(name)
        if name not in self._data:
            if default is _REQUIRED:
                self.fail(name, "missing")
            return default
        value = self._data[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(name, f"is {_shown(value)}; it must be {_NAMES[kind]}")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> Any:
        """A string that is not empty."""
        value = self._take(name, str, default)
        if value == "":
            self.fail(name, "is empty")
        return value

    def integer(self, name: str) -> int:
        """A whole number."""
        return int(self._take(name, int, _REQUIRED))

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        return bool(self._take(name, bool, default))

    def value(self, name: str, default: Any = None) -> Any:
        """Anything; the caller checks it."""
        self._asked.append(name)
        return self._data.get(name, default)

    def object(self, name: str) -> Mapping[str, Any]:
        """An object, as it is."""
        return dict(self._take(name, dict, _REQUIRED))

    def items(self, name: str) -> Sequence[Any]:
        """A list, as it is."""
        return list(self._take(name, list, _REQUIRED))

    def texts(self, name: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """A list of different strings."""
        values = self._take(name, list, default)
        for position, value in enumerate(values):
            if not isinstance(value, str) or not value:
                self.fail(f"{name}[{position}]", f"is {_shown(value)}; it must be text")
        if len(set(values)) != len(values):
            self.fail(name, "has an entry twice")
        return tuple(values)

    def done(self) -> None:
        """Refuse the fields that were not asked for."""
        for name in self._data:
            if name not in self._asked:
                self.fail(str(name), f"unknown; there are {', '.join(self._asked)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."
