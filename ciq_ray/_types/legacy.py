r"""The legacy text of a configuration: one ``(name value)`` a line.

Grammar::

    text    = { entry }
    entry   = "(" name value ")"
    name    = letter or "_", then letters, digits and "_"; the field's own name
    value   = number | "true" | "false" | "none" | string | "(" { value } ")"
    number  = [ "+" | "-" ] digits [ "." digits ] [ ( "e" | "E" ) [ "+" | "-" ] digits ]
    string  = a JSON string, in double quotes, with JSON's escapes

Blanks and line ends separate; ``;`` starts a comment that ends with its line, except in a string.
A number without point and exponent is an integer. A name may appear once. For example::

    ; two objectives, the first one twice as important
    (generations 20)
    (num_objectives 2)
    (objective_weights (2.0 1.0))
    (problem_type "min")
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ciq_ray.errors import ConfigurationError

__all__ = ["dumps", "loads"]

_MAX_DEPTH: Final = 32
_MAX_DIGITS: Final = 400
_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r\n]+|;[^\n]*)
      | (?P<open>\()
      | (?P<close>\))
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<word>[^\s();"]+)
    """,
    re.VERBOSE,
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?P<real>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "none": None}


def dumps(fields: Mapping[str, Any]) -> str:
    """Write fields as legacy text, one a line.

    Args:
        fields: Names, and values that are numbers, booleans, strings, ``None`` or lists of them.

    Raises:
        ConfigurationError: A name or a value has no legacy form.
    """
    for name in fields:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} cannot be a name in legacy text; use letters, digits and `_`")
    return "".join(f"({name} {_write(name, value)})\n" for name, value in fields.items())


def _write(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(str(value))
    if isinstance(value, (list, tuple)):
        return f"({' '.join(_write(name, item) for item in value)})"
    raise ConfigurationError(f"`{name}` is {value!r}, which has no form in legacy text")


def loads(text: str) -> dict[str, Any]:
    """Read legacy text.

    Raises:
        ConfigurationError: The text is malformed; the message says in which line and column,
            both counted from 1.
    """
    reader = _Reader(text)
    fields: dict[str, Any] = {}
    while (token := reader.take()) is not None:
        if token.kind != "open":
            raise reader.error(token, f"found {token.text!r} where an entry `(name value)` should start")
        name = reader.take()
        if name is None:
            raise reader.error(token, "this `(` is never closed")
        if name.kind != "word" or not _NAME.fullmatch(name.text):
            raise reader.error(name, f"found {name.text!r} where a name should be, as in `(generations 10)`")
        if name.text in fields:
            raise reader.error(name, f"`{name.text}` appears for the second time")
        first = reader.take()
        if first is None:
            raise reader.error(token, "this `(` is never closed")
        if first.kind == "close":
            raise reader.error(first, f"`{name.text}` has no value")
        fields[name.text] = reader.value(first, 1)
        end = reader.take()
        if end is None:
            raise reader.error(token, "this `(` is never closed")
        if end.kind != "close":
            raise reader.error(end, f"`{name.text}` has more than one value; put a list in parentheses")
    return fields


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan()

    def _scan(self) -> Iterator[_Token]:
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None or match.lastgroup is None:
                here = _Token("", self._text[position], position)
                if here.text == '"':
                    raise self.error(here, "this string does not end on its line")
                raise self.error(here, f"{here.text!r} has no meaning here")
            if match.lastgroup != "blank":
                yield _Token(match.lastgroup, match.group(), position)
            position = match.end()

    def take(self) -> _Token | None:
        return next(self._tokens, None)

    def value(self, token: _Token, depth: int) -> Any:
        if token.kind == "open":
            if depth > _MAX_DEPTH:
                raise self.error(token, f"lists are nested more than {_MAX_DEPTH} deep")
            items: list[Any] = []
            while True:
                item = self.take()
                if item is None:
                    raise self.error(token, "this `(` is never closed")
                if item.kind == "close":
                    return items
                items.append(self.value(item, depth + 1))
        if token.kind == "string":
            try:
                return json.loads(token.text)
            except ValueError as error:
                raise self.error(token, f"{token.text} has an escape that JSON does not know") from error
        return self._word(token)

    def _word(self, token: _Token) -> bool | int | float | None:
        if token.text in _WORDS:
            return _WORDS[token.text]
        number = _NUMBER.fullmatch(token.text)
        if number is None:
            raise self.error(
                token, f"{token.text!r} is no value: use a number, true, false, none, or quotes for a string"
            )
        if not number["real"] and len(token.text) <= _MAX_DIGITS:
            return int(token.text)
        value = float(token.text)
        if not math.isfinite(value) or not number["real"]:
            raise self.error(token, f"{token.text[:40]} is too large a number")
        return value

    def error(self, token: _Token, message: str) -> ConfigurationError:
        line = self._text.count("\n", 0, token.position) + 1
        column = token.position - (self._text.rfind("\n", 0, token.position) + 1) + 1
        return ConfigurationError(f"line {line}, column {column}: {message}")
