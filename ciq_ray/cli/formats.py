"""A configuration as flags or as variables for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ciq_ray.commands.templates import flat, text_of
from ciq_ray.errors import ConfigurationError

__all__ = ["as_environment", "as_flags", "as_macros", "environment_words"]

_ODD = re.compile(r"[^A-Za-z0-9_]")


def as_flags(config: Any) -> str:
    """``--NAME VALUE`` words quoted for a shell; the text of an options file stays as it is.

    Names of nested parameters are joined by dots. Absent parameters are left out.
    """
    if isinstance(config, str):
        return config
    if isinstance(config, list):
        return " ".join(part for item in config if (part := as_flags(item).replace("\n", " ").strip()))
    return " ".join(shlex.join([f"--{name}", text_of(value)]) for name, value in flat(config))


def as_environment(config: Any) -> str:
    """``NAME=VALUE`` lines that a shell reads; the text of an options file is ``CONFIG``.

    What a shell does not allow in names is an underscore; parts of a list begin with ``PART0_``.

    Raises:
        ConfigurationError: Two names become the same one.
    """
    if isinstance(config, str):
        return f"CONFIG={shlex.quote(config)}"
    pairs: list[tuple[str, Any]] = []
    if isinstance(config, list):
        for position, part in enumerate(config):
            inner = flat(part) if isinstance(part, Mapping) else iter([("", part)])
            pairs += [(f"PART{position}.{name}".rstrip("."), value) for name, value in inner]
    else:
        pairs = list(flat(config))
    lines: dict[str, str] = {}
    for name, value in pairs:
        plain = _ODD.sub("_", name)
        plain = f"_{plain}" if plain[:1].isdigit() else plain
        if plain in lines:
            raise ConfigurationError(f"two parameters are called {plain} in a shell; use --format json")
        lines[plain] = f"{plain}={shlex.quote(text_of(value))}"
    return "\n".join(lines.values())


def as_macros(config: Any) -> str:
    """``-DNAME=VALUE`` words for a C compiler, quoted for a shell."""
    return shlex.join(
        f"-D{name}={int(value) if isinstance(value, bool) else text_of(value)}"
        for name, value in flat(config)
    )


def environment_words(variables: Mapping[str, str | None]) -> list[str]:
    """The beginning of a command line that sets variables, and unsets those that are ``None``."""
    if not variables:
        return []
    unset = [word for name, value in variables.items() if value is None for word in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in variables.items() if value is not None)]
