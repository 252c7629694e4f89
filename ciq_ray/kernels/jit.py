"""Sending ``@triton.jit`` functions to other processes.

Triton's functions hold locks and read their own source, so that no pickler takes them. Those of modules
that another interpreter finds go by name; those of ``__main__``, of notebooks and of modules that it would
not find go by value, with the functions and constants they refer to and with the text of their file, which
need not be there then.
"""

from __future__ import annotations

import copyreg
import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from typing import Any, Final

import cloudpickle

__all__ = ["enable_pickling"]

_MAIN: Final = frozenset({"__main__", "__mp_main__"})
_OPTIONS: Final = ("version", "do_not_specialize", "do_not_specialize_on_alignment", "debug", "noinline")


def enable_pickling() -> None:
    """Teach `pickle` and `cloudpickle` what to do with functions of Triton."""
    from triton.runtime import jit

    for kind in (jit.JITFunction, jit.ConstexprFunction):
        copyreg.pickle(kind, _reduce)


def _reduce(function: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    module, name = function.fn.__module__, function.fn.__qualname__
    by_value = {*_MAIN, *cloudpickle.list_registry_pickle_by_value()}
    if module not in by_value and _find(module, name) is function:
        return _by_name, (module, name)
    file = function.fn.__code__.co_filename
    lines = linecache.getlines(file, function.fn.__globals__)
    options = {option: getattr(function, option) for option in _OPTIONS if hasattr(function, option)}
    for option, attribute in (("repr", "_repr"), ("launch_metadata", "launch_metadata")):
        if getattr(function, attribute, None) is not None:
            options[option] = getattr(function, attribute)
    return _rebuild, (type(function), function.fn, options, file, lines)


def _by_name(module: str, name: str) -> Any:
    enable_pickling()  # this process may send it on
    return _find(module, name)


def _find(module: str, name: str) -> Any:
    """The function that a module has under a name, also when ``@triton.autotune`` and the like wrap it."""
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    while found is not None and not inspect.isfunction(getattr(found, "fn", None)):
        found = getattr(found, "fn", None)
    return found


def _rebuild(kind: Any, function: Any, options: dict[str, Any], file: str, lines: list[str]) -> Any:
    enable_pickling()
    # an entry without a time is not compared with the file, which may be another one by now
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    return kind(function, **options)
