"""What `ciq tune` reads: spaces, configurations, time spans."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from searchers.space import Space

__all__ = ["read_baseline", "read_initial", "read_seconds", "read_space", "read_variables"]

_PROVIDERS = ("ptxas", "nvcc", "gcc", "clang")
_SECONDS = re.compile(r"(\d+\.?\d*|\.\d+)\s*(s|m|min|h)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def read_space(text: str) -> Any:
    """What a ``SPACE`` argument stands for: a file, or a compiler's space.

    Compilers are written ``ptxas``, ``ptxas:13.3``, ``nvcc:13.3/full``, ``gcc``, ``gcc:gcc-12``,
    ``clang:/usr/bin/clang/full``: a version, or for those that are installed a program, and a variant.

    Raises:
        ConfigurationError: It is neither.
    """
    if Path(text).is_file():
        return Path(text)
    name, _, rest = text.partition(":")
    name, _, variant = name.partition("/")
    if name not in _PROVIDERS:
        raise ConfigurationError(
            f"`SPACE` is {text!r}, which is neither a file nor a compiler ({', '.join(_PROVIDERS)}); "
            "docs/search-spaces.md describes the files"
        )
    if rest and not variant:
        head, _, tail = rest.rpartition("/")
        if name in ("ptxas", "nvcc"):
            rest, _, variant = rest.partition("/")
        elif tail in ("default", "full"):
            rest, variant = head, tail
    options = {"variant": variant} if variant else {}
    if name in ("ptxas", "nvcc"):
        from ciq_ray.search_spaces.compilers import NvccSearchSpace, PtxasSearchSpace

        if rest:
            options["version"] = rest
        return (PtxasSearchSpace if name == "ptxas" else NvccSearchSpace)(**options)
    from ciq_ray.search_spaces.gcc import ClangSearchSpace, GccSearchSpace

    if rest:
        options["executable"] = rest
    return (GccSearchSpace if name == "gcc" else ClangSearchSpace)(**options)


def read_baseline(text: str, space: Space) -> Any:
    """A configuration: a file that holds one, JSON, or for a compiler's space the options themselves.

    Raises:
        ConfigurationError: It is none of these.
        searchers.ConfigError: It is no member of the space.
    """
    is_text = () in space.encoding.renders
    try:
        is_file = Path(text).is_file()
    except OSError:  # a text too long for a name
        is_file = False
    content, where = (_read(Path(text)), text) if is_file else (text, "--baseline")
    config: Any = content
    if not is_text or content.lstrip().startswith(("{", '"')):
        config = _json(content, where)
    space.encode(config)
    return config


def read_initial(path: Path, space: Space) -> list[Any]:
    """The configurations in a file: a JSON list of them, or one.

    Raises:
        ConfigurationError: The file cannot be read, or is no JSON.
        searchers.ConfigError: One is no member of the space.
    """
    data = _json(_read(path), str(path))
    listed = isinstance(space.encoding.tree, list)
    one = not isinstance(data, list) or (listed and not (data and isinstance(data[0], list)))
    configs = [data] if one else data
    for config in configs:
        space.encode(config)
    return configs


def read_seconds(name: str, text: str | None) -> float | None:
    """A time span such as ``90``, ``1.5s``, ``10m`` or ``2h``, in seconds.

    Raises:
        ConfigurationError: It is none, or zero.
    """
    if text is None:
        return None
    found = _SECONDS.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise ConfigurationError(f"{name} is {text!r}; give a time above 0 such as 90, 1.5s, 10m or 2h")
    return seconds


def read_variables(texts: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a dict.

    Raises:
        ConfigurationError: One has no ``=``.
    """
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise ConfigurationError(f"--env is {name!r}; it must be of the form NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{where} is neither a file nor a configuration in JSON: {error}: {text[:80]!r}"
        ) from error
