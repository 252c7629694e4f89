"""A tracker never stops a search."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["logging_exception"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def logging_exception(func: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """A decorator that catches any exceptions raised by the decorated method.

    They are logged with their traceback, through Python's `logging` under the name of the method's
    module, and the method returns ``None`` then. `KeyboardInterrupt` and `SystemExit` pass.
    """

    @functools.wraps(func)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return func(*args, **kwargs)
        except Exception:
            logging.getLogger(func.__module__).exception("%s failed; the search goes on", func.__qualname__)
            return None

    return guarded
