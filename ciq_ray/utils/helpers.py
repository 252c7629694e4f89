"""Small helpers for scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ciq_ray._files import write_atomic
from ciq_ray.errors import ConfigurationError

__all__ = ["save_compiler_config"]


def save_compiler_config(path: str | os.PathLike[str], config: str | dict[str, Any] | list[Any]) -> Path:
    """Write a candidate of a compiler's search space to a file, as a whole or not at all.

    The file of a text candidate is what the compiler reads: ``ptxas --options-file FILE``.

    Args:
        path: The file; missing folders on the way are made.
        config: The candidate: text is written as it is, a dict or a list of parts as JSON.

    The two may also come in the other order. Where both are text, the documented order holds unless
    the first cannot be a file's name, because it is empty, has several lines, or starts with ``-``
    as an option does, and the second can.

    Returns:
        The file's path.

    Raises:
        ConfigurationError: Neither is a path, `config` has no JSON form, or the file cannot be
            written.
    """
    file, candidate = _in_order(path, config)
    if isinstance(candidate, str):
        text = candidate
    else:
        try:
            text = json.dumps(candidate, indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"`config` cannot be written as JSON: {error}") from error
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(file, [text.encode()])
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"`path` is {str(file)!r}, which cannot be written: {error}") from error


def _in_order(path: Any, config: Any) -> tuple[Path, str | dict[str, Any] | list[Any]]:
    orders = [(path, config), (config, path)]
    for file, candidate in orders:
        if isinstance(file, os.PathLike) and _is_candidate(candidate):
            return Path(file), candidate
    for file, candidate in orders:
        if isinstance(file, str) and _could_be_path(file) and _is_candidate(candidate):
            return Path(file), candidate
    raise ConfigurationError(
        f"`path` is {path!r} and `config` is {config!r}; one must be the path of a file, the other a "
        "candidate: text, a dict, or a list of these"
    )


def _is_candidate(value: Any) -> TypeGuard[str | dict[str, Any] | list[Any]]:
    return isinstance(value, (str, Mapping, list))


def _could_be_path(text: str) -> bool:
    return bool(text) and not text.startswith("-") and not set("\r\n\0") & set(text)
