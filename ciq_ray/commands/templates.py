"""Words of a command with placeholders for parameters, filled in without a shell.

Each word of a template becomes exactly one argument, byte for byte what the parameter's value is:

* ``{BLOCK}`` is the value of a parameter; ``{outer.inner}``, ``{outer["odd name"]}`` and ``{tiles[0]}``
  are nested ones. ``{config}`` is the whole configuration, ``{parts[1]}`` a part of a list of spaces,
  ``{config["odd name"]}`` a parameter whose name has blanks or brackets.
* A word whose placeholder has no value (the parameter is knocked out, or ``None``) is dropped.
* ``{*NAME}`` alone becomes as many words as the value has: the items of a list, the words of a text,
  split as a shell would, ``--name=value`` for each parameter of a dict. Inside a longer word, or in a
  variable, they are joined by blanks, quoted for a shell. Without a value it leaves nothing.
* ``{CONFIG_FILE}`` is the path of a file with the configuration: JSON, or the text of an options file.
* ``{{`` and ``}}`` are braces.

Numbers are written as Python does, booleans as ``true`` and ``false``, lists and dicts as JSON.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ciq_ray.errors import ConfigurationError

__all__ = ["CONFIG_FILE", "Placeholder", "Template", "flat", "text_of"]

CONFIG_FILE: Final = "CONFIG_FILE"
_WHOLE: Final = ("config", "parts")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIRST = re.compile(r"[^.\[\]{}*\s]+")
_STEP = re.compile(r"""\.([^.\[\]{}\s]+)|\[(\d+)\]|\["([^"]+)"\]|\['([^']+)'\]""")

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A placeholder.

    Attributes:
        text: What stands between the braces.
        keys: Names and positions that lead to the value.
        splat: Whether it stands for several words.
    """

    text: str
    keys: Keys
    splat: bool

    @classmethod
    def parse(cls, text: str) -> Placeholder:
        """A placeholder from what stands between the braces.

        Raises:
            ConfigurationError: It is no placeholder.
        """
        splat = text.startswith("*")
        name = text[1:] if splat else text
        first = _FIRST.match(name)
        keys: list[str | int] = [first[0]] if first else []
        position = first.end() if first else 0
        while first and position < len(name):
            step = _STEP.match(name, position)
            if step is None:
                keys = []
                break
            keys.append(int(step[2]) if step[2] else step[1] or step[3] or step[4])
            position = step.end()
        if not keys or (splat and keys == [CONFIG_FILE]):
            raise ConfigurationError(
                f"{{{text}}} is not a placeholder; those are of the forms {{NAME}}, {{outer.inner}}, "
                "{parts[0]} and {*NAME}. Write {{ and }} for braces that belong to the command"
            )
        return cls(text, tuple(keys), splat)

    def value(self, config: Any) -> Any:
        """What it stands for in a configuration, ``None`` for a parameter that is absent.

        Raises:
            ConfigurationError: It leads into something that has no parts.
        """
        keys = self.keys
        if keys[0] in _WHOLE and not (isinstance(config, Mapping) and keys[0] in config):
            keys = keys[1:]
        for key in keys:
            if config is None:
                return None
            if isinstance(config, Mapping):
                config = config.get(key)
            elif isinstance(config, Sequence) and not isinstance(config, str) and isinstance(key, int):
                config = config[key] if key < len(config) else None
            else:
                raise ConfigurationError(
                    f"{{{self.text}}} has no value in {config!r}; {{config}} is the whole configuration, and "
                    "{*config} its words"
                )
        return config

    def words(self, config: Any) -> list[str]:
        """The words that a splatted placeholder stands for."""
        value = self.value(config)
        if value is None:
            return []
        if isinstance(value, str):
            try:
                return shlex.split(value)
            except ValueError as error:
                raise ConfigurationError(f"{{{self.text}}} cannot be split: {error}: {value!r}") from error
        if isinstance(value, Mapping):
            return [f"--{name}={text_of(item)}" for name, item in flat(value)]
        if isinstance(value, (list, tuple)):
            return [text_of(item) for item in value if item is not None]
        return [text_of(value)]


class Template:
    """One word of a command.

    Args:
        word: Text with placeholders.

    Raises:
        ConfigurationError: It is no text, has a NUL, or a brace that is neither doubled nor part of a
            placeholder.
    """

    def __init__(self, word: str) -> None:
        if not isinstance(word, str) or "\0" in word:
            raise ConfigurationError(f"{word!r} cannot be a word of a command; it must be text without NUL")
        self.word = word
        self.parts: list[str | Placeholder] = []
        position = 0
        for token in _TOKEN.finditer(word):
            self._literal(word[position : token.start()])
            position = token.end()
            if token[0] in ("{{", "}}"):
                self._literal(token[0][0])
            elif token[1] is None:
                raise ConfigurationError(
                    f"the word {word!r} has a single {token[0]!r}; write {token[0] * 2} for a brace that "
                    "belongs to the command"
                )
            else:
                self.parts.append(Placeholder.parse(token[1]))
        self._literal(word[position:])

    def _literal(self, text: str) -> None:
        if text:
            self.parts.append(text)

    @property
    def placeholders(self) -> list[Placeholder]:
        """The placeholders in it."""
        return [part for part in self.parts if isinstance(part, Placeholder)]

    def expand(self, config: Any, config_file: str, *, joined: bool = False) -> list[str]:
        """The words it becomes.

        Args:
            config: The configuration.
            config_file: What ``{CONFIG_FILE}`` stands for.
            joined: Whether a placeholder with ``*`` that stands alone makes one word, too.

        Returns:
            No word if a placeholder has no value, else one; ``{*NAME}`` alone any number.

        Raises:
            ConfigurationError: A value cannot be part of an argument.
        """
        if not joined and len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            only = self.parts[0]
            if only.splat:
                return [_sound(word, only) for word in only.words(config)]
        made = []
        for part in self.parts:
            if isinstance(part, str):
                made.append(part)
            elif part.splat:
                made.append(_sound(shlex.join(part.words(config)), part))
            elif part.keys == (CONFIG_FILE,) and not (isinstance(config, Mapping) and CONFIG_FILE in config):
                made.append(config_file)
            else:
                value = part.value(config)
                if value is None:
                    return []
                made.append(_sound(text_of(value), part))
        return ["".join(made)]

    def check(self, tree: Any) -> None:
        """Refuse a placeholder for something that is not in a space.

        Args:
            tree: The space's tree, see `searchers.encoding.Encoding`.

        Raises:
            ConfigurationError: With the names that are there.
        """
        for placeholder in self.placeholders:
            _check(placeholder, tree)


def text_of(value: Any) -> str:
    """A parameter's value as an argument."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return str(value)


def _sound(text: str, placeholder: Placeholder) -> str:
    if "\0" in text:
        raise ConfigurationError(f"{{{placeholder.text}}} is {text!r}; no argument can hold a NUL character")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{{{placeholder.text}}} is {text!r}, which is no valid text") from error
    return text


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The parameters of a configuration that have a value, names of nested ones joined by dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def _check(placeholder: Placeholder, tree: Any) -> None:
    keys = placeholder.keys
    named = isinstance(tree, Mapping)
    if not (named and keys[0] in tree):
        if keys == (CONFIG_FILE,):
            return
        if keys[0] in _WHOLE:
            keys = keys[1:]
    for key in keys:
        found = isinstance(tree, Mapping) and key in tree
        found = found or (isinstance(tree, list) and isinstance(key, int) and key < len(tree))
        if not found:
            raise ConfigurationError(f"{{{placeholder.text}}} is not in the search space{_hint(key, tree)}")
        tree = tree[key]


def _hint(key: str | int, tree: Any) -> str:
    if isinstance(tree, list):
        return f"; it has {len(tree)} parts here: [0] to [{len(tree) - 1}]"
    if not isinstance(tree, Mapping):
        return ", where this parameter has no parts"
    near = difflib.get_close_matches(str(key), list(tree), 1)
    return f"; did you mean {{{near[0]}}}?" if near else f"; it has {', '.join(tree)}"
