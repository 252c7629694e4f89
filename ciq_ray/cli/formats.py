"""A configuration as flags or as variables for a shell, or as source to paste."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from ciq_ray.commands.templates import flat, text_of
from ciq_ray.errors import ConfigurationError

__all__ = ["as_environment", "as_flags", "as_macros", "as_triton", "environment_words"]

_TRITON_OPTIONS: Final = ("num_warps", "num_stages", "num_ctas", "maxnreg")
"""What `triton.Config` takes besides meta-parameters; as `ciq_ray.kernels.triton` splits them."""
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


def as_triton(config: Any) -> str:
    """A `triton.Config` for the list of ``@triton.autotune``.

    Raises:
        ConfigurationError: It is no configuration of a Triton kernel.
    """
    flat_one = isinstance(config, Mapping) and not any(
        isinstance(v, (Mapping, list)) for v in config.values()
    )
    if not flat_one:
        raise ConfigurationError(
            "only flat configurations can be a triton.Config, and this is none; use --format json or flags"
        )
    constants = {name: value for name, value in config.items() if name not in _TRITON_OPTIONS}
    # absent and None leave the choice to Triton
    options = [f"{name}={config[name]!r}" for name in _TRITON_OPTIONS if config.get(name) is not None]
    return f"triton.Config({', '.join([repr(constants), *options])})"


def environment_words(variables: Mapping[str, str | None]) -> list[str]:
    """The beginning of a command line that sets variables, and unsets those that are ``None``."""
    if not variables:
        return []
    unset = [word for name, value in variables.items() if value is None for word in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in variables.items() if value is not None)]
