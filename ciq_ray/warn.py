"""Warnings that point to the line of the user's that they are about."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]

_PASSED_OVER = ("ciq_ray", "contextlib")


def warn_caller(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn, at the line that called this package, however far down this is called.

    Args:
        text: What to say.
        category: Of the warning.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package(frame.f_globals) in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)


def _package(variables: dict[str, object]) -> str:
    return str(variables.get("__name__", "")).partition(".")[0]
