"""Scores from what a command printed.

A score is described by a text:

* ``last``: the last number on the last line of its output. Given n times, the last n numbers on it;
* ``wall``: the seconds from its start to its end;
* anything else: a key of its JSON output, with dots for nested ones: ``time``, ``results.0.mean``. A
  leading dot makes a key of any name: ``.wall``.

``min:`` or ``max:`` before it says whether low or high values are better.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ciq_ray.commands.processes import OUTPUT_LIMIT, Finished
from ciq_ray.errors import ConfigurationError

__all__ = ["Score", "ScoreNotFoundError", "read_output"]

_LAST: Final = "last"
_WALL: Final = "wall"
_LINE_LIMIT: Final = 1 << 16
_SHOWN: Final = 80
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|(?<!\w)[-+]?(?:nan|inf(?:inity)?)(?!\w)", re.IGNORECASE
)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Mode = Literal["min", "max"]


class ScoreNotFoundError(Exception):
    """The output of a command has no such score; the message says what it has."""


@dataclass(frozen=True, slots=True)
class Score:
    """Where a score comes from.

    Attributes:
        name: For people: ``last``, ``wall`` or the key.
        mode: Whether low or high values are better.
        keys: The key in JSON output, empty for ``last`` and ``wall``.
    """

    name: str
    mode: Mode = "min"
    keys: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, mode: Mode = "min") -> Score:
        """A score from its description.

        Args:
            text: See the module.
            mode: For one that says neither ``min:`` nor ``max:``.

        Raises:
            ConfigurationError: It has no name.
        """
        if not isinstance(text, str):
            raise ConfigurationError(f"{text!r} does not describe a score; use 'last', 'wall' or a JSON key")
        name = text
        if text.startswith("min:"):
            mode, name = "min", text[4:]
        elif text.startswith("max:"):
            mode, name = "max", text[4:]
        if name in (_LAST, _WALL):
            return cls(name, mode)
        key = name[1:] if name.startswith(".") else name
        if not all(key.split(".")):
            raise ConfigurationError(
                f"{text!r} does not describe a score; use 'last', 'wall' or a key of JSON output such as "
                "'results.0.mean'"
            )
        return cls(name, mode, tuple(key.split(".")))

    @property
    def text(self) -> str:
        """The description again."""
        return f"{self.mode}:{self.name}"


def read_output(scores: Sequence[Score], finished: Finished) -> tuple[float, ...]:
    """The scores of a command that has succeeded.

    Args:
        scores: Where they come from.
        finished: The command.

    Returns:
        A finite number for each.

    Raises:
        ScoreNotFoundError: There is none, or it is no finite number.
    """
    wanted = sum(score.name == _LAST for score in scores)
    numbers = iter(_last_numbers(finished.stdout, wanted) if wanted else ())
    parsed = _json(finished) if any(score.keys for score in scores) else None
    values = []
    for score in scores:
        if score.keys:
            value = _at(parsed, score)
        else:
            value = finished.seconds if score.name == _WALL else next(numbers)
        if not math.isfinite(value):
            raise ScoreNotFoundError(f"the score {score.name!r} is {value}; expected a finite number")
        values.append(value)
    return tuple(values)


def _last_numbers(stdout: bytes, wanted: int) -> list[float]:
    line = _last_line(stdout)
    if not line:
        raise ScoreNotFoundError("it printed nothing; expected a line that ends in its score")
    found = [float(text) for text in _NUMBER.findall(line)]
    if len(found) < wanted:
        expected = "a number" if wanted == 1 else f"{wanted} numbers"
        raise ScoreNotFoundError(f"the last line it printed is {_short(line)}; expected {expected} on it")
    return found[-wanted:]


def _last_line(stdout: bytes) -> str:
    text = _COLOUR.sub("", stdout[-_LINE_LIMIT:].decode("utf-8", "replace"))
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _json(finished: Finished) -> Any:
    """The JSON it printed: all of its output, or the last line of it."""
    text = finished.stdout.decode("utf-8", "replace").strip()
    if not text:
        raise ScoreNotFoundError("it printed nothing; expected JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        last = text.splitlines()[-1].strip()
        try:
            return json.loads(last)
        except (ValueError, RecursionError):
            much = f" (more than {OUTPUT_LIMIT} bytes; their beginning is gone)" if finished.dropped else ""
            raise ScoreNotFoundError(
                f"neither its output{much} nor the last line of it is JSON ({error}): {_short(last)}"
            ) from error


def _at(value: Any, score: Score) -> float:
    for depth, key in enumerate(score.keys):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            where = ".".join(score.keys[:depth]) or "the JSON it printed"
            has = (
                f"has {_short(', '.join(map(str, value)))}"
                if isinstance(value, dict)
                else f"is {_kind(value)}"
            )
            raise ScoreNotFoundError(f"there is no {key!r}: {where} {has}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScoreNotFoundError(f"the score {score.name!r} is {_kind(value)}; expected a number")
    try:
        return float(value)
    except OverflowError:
        raise ScoreNotFoundError(f"the score {score.name!r} is an integer too large for a float") from None


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "a boolean", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
