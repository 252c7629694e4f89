"""How an option is written in an options file, and read back.

Compilers split such files in two ways:

* ``nvidia``: one option on each line; a value that needs it stands in double quotes (``ptxas
  --options-file``, ``nvcc --options-file``).
* ``gnu``: words separated by white space, in which a backslash makes the next character an ordinary one
  (``gcc @FILE``, ``clang @FILE``; GCC's manual, "@file").

Texts that we write have one option on each line in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from ciq_ray.errors import SearchSpaceError
from searchers.errors import ConfigError

__all__ = ["GNU", "NVIDIA", "QUOTINGS", "option_line", "split_lines"]

NVIDIA: Final = "nvidia"
GNU: Final = "gnu"
QUOTINGS: Final = (NVIDIA, GNU)

_PLAIN = re.compile(r"[A-Za-z0-9_.,:+/@%=-]+")
_SPACE: Final = " \t\n\v\f\r"
_SPECIAL = re.compile(r"""[ \t\n\v\f\r'"\\]""")


def option_line(flag: str, value: Any, *, quoting: str = NVIDIA, joined: bool = False) -> str:
    """One line of an options file: ``flag=value``, the value quoted where it needs to be.

    Args:
        flag: The option's text, without the value.
        value: Text, a whole number or a boolean.
        quoting: One of `QUOTINGS`.
        joined: Whether the value follows the flag without ``=``, as in ``-O2``.

    Raises:
        SearchSpaceError: No options file can hold the value: a control character, with ``nvidia`` also
            a quote, a backslash or nothing.
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    start = flag if joined else f"{flag}="
    if _PLAIN.fullmatch(text):
        return start + text
    possible = text.isprintable() and (quoting == GNU or (text and '"' not in text and "\\" not in text))
    if not possible:
        raise SearchSpaceError(f"{text!r} cannot be a value of {flag} in an options file; rename it")
    return start + _escaped(text) if quoting == GNU else f'{start}"{text}"'


def split_lines(text: str, quoting: str, pairs: Iterable[str] = ()) -> list[str]:
    """The options in the text of an options file, each as `option_line` writes it.

    Args:
        text: The text. With ``gnu`` it may have several options on a line, and any kind of quotes.
        quoting: One of `QUOTINGS`.
        pairs: With ``gnu``, words that make one option with the next word, such as ``-mllvm``.

    Raises:
        ConfigError: A quote is not closed, or the text ends in a backslash.
    """
    if quoting == NVIDIA:
        return [line.strip() for line in text.splitlines()]
    first = frozenset(pairs)
    lines: list[str] = []
    for word in map(_escaped, _words(text)):
        if lines and lines[-1] in first:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)


def _words(text: str) -> list[str]:
    """Split as libiberty's ``buildargv`` does, which GCC and LLVM follow."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, None)
            if following is None:
                raise ConfigError(f"{text!r} ends in a backslash")
            word = word or []
            word.append(following)
        elif quote:
            word = word or []
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "'\"":
            quote, word = character, word or []
        elif character in _SPACE:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word or []
            word.append(character)
    if quote:
        raise ConfigError(f"{text!r} has a quote, {quote}, that is not closed")
    if word is not None:
        words.append("".join(word))
    return words
