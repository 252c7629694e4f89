"""Names and values that MLflow takes.

MLflow refuses a whole batch for one bad name, and shortens or alters some values without a word.
"""

from __future__ import annotations

import contextlib
import json
import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["finite", "flattened", "legal_name", "legal_names", "shortened"]

NAME_LENGTH: Final = 250
PARAM_LENGTH: Final = 6000
TAG_LENGTH: Final = 8000
_ILLEGAL: Final = re.compile(r"[^\w\-./: ]")
_DEPTH: Final = 4


def legal_name(name: str) -> str:
    """A name of a parameter or a metric that MLflow takes: one that is also a path below a folder."""
    text = _ILLEGAL.sub("_", name).strip() or "_"
    if posixpath.normpath(text) != text or text.startswith(("/", "..")) or text == ".":
        text = text.replace("/", "_").lstrip(".") or "_"
    return text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + "_"


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """A legal name for each; names that have become equal are numbered.

    Returns:
        The legal name of each name, in their order.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        legal, number = legal_name(name), 2
        base = legal
        while legal in taken:
            end = f"_{number}"
            legal, number = base[: NAME_LENGTH - len(end)] + end, number + 1
        taken.add(legal)
        found[name] = legal
    return found


def flattened(config: Any) -> dict[str, str]:
    """A configuration as parameters: ``outer.inner`` for what is nested, ``params`` for a text."""
    flat: dict[str, Any] = {}
    _flatten("", config, flat, 0)
    names = legal_names(flat)
    return {names[name]: shortened(_text(value), PARAM_LENGTH) for name, value in flat.items()}


def _flatten(prefix: str, value: Any, flat: dict[str, Any], depth: int) -> None:
    if isinstance(value, Mapping) and value and depth < _DEPTH:
        for name, inner in value.items():
            _flatten(f"{prefix}.{name}" if prefix else str(name), inner, flat, depth + 1)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value) and depth < _DEPTH:
        for number, inner in enumerate(value):
            _flatten(f"{prefix}.{number}" if prefix else f"part{number}", inner, flat, depth + 1)
    else:
        flat[prefix or "params"] = value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=repr, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def shortened(text: str, length: int = TAG_LENGTH) -> str:
    """A text that fits, and that says so when its end is missing; MLflow counts characters."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= length else text[: length - 3] + "..."


def finite(values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics that MLflow keeps as they are, under legal names, and the numbers that it would not.

    Returns:
        The finite ones, and the others as text; what is no number is in neither.
    """
    numbers = {}
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                numbers[name] = float(value)
    names = legal_names(numbers)
    kept = {names[name]: value for name, value in numbers.items() if math.isfinite(value)}
    return kept, {names[name]: repr(value) for name, value in numbers.items() if not math.isfinite(value)}
