"""Turning an objective and its configurations into bytes a fresh interpreter can read."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import inspect
import os
import pickle
import pickletools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import cloudpickle

from ciq_ray.errors import ConfigurationError

__all__ = ["Pickler", "check_objective", "is_asynchronous"]


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Whether `function` is an ``async def``, a partial of one, or an object whose call is one."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is looked at
    )


def check_objective(function: Any, *, asynchronous: bool) -> None:
    """Refuse an objective that the kind of worker cannot run.

    Raises:
        ConfigurationError: `function` is not callable, or asynchronous where it must not be, or the reverse.
    """
    if not callable(function):
        raise ConfigurationError(f"`objective_function` is {function!r}; it must be callable")
    if asynchronous and not is_asynchronous(function):
        raise ConfigurationError(
            f"`objective_function` is {_name(function)}, which is not asynchronous; define it with "
            "`async def`, or use WorkerTypes.NATIVE or ISOLATED"
        )
    if not asynchronous and is_asynchronous(function):
        raise ConfigurationError(
            f"`objective_function` is {_name(function)}, which is asynchronous; use WorkerTypes.ASYNC"
        )


class Pickler:
    """Pickles one objective, and then its configurations.

    Functions and classes of modules that a fresh interpreter with the same ``sys.path`` finds go by
    name; all others (those of ``__main__`` and of notebooks, lambdas, closures) go by value.

    Args:
        function: The objective.

    Raises:
        ConfigurationError: The objective, or something it refers to, cannot be pickled; the message
            names what.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._by_value: set[str] = set()
        try:
            self.function = self._dumps_completely(function)
        except Exception as error:
            with _registered(self._by_value):
                culprit = _culprit(function)
            raise ConfigurationError(
                f"`objective_function` ({_name(function)}) cannot be sent to a worker process: {culprit} "
                f"cannot be pickled ({_first_line(error)}); create it inside the function"
            ) from error
        self._markers = [name.encode() for name in ("__main__", *sorted(self._by_value))]

    def config(self, config: Any) -> bytes:
        """A configuration as bytes.

        Raises:
            ConfigurationError: It holds something that cannot be pickled.
        """
        try:
            data = pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
            # objects of such modules need the slower pickler; a false alarm costs only time
            if not any(marker in data for marker in self._markers):
                return data
        except Exception:  # lambdas and local classes: the other pickler takes them
            pass
        try:
            return self._dumps_completely(config)
        except Exception as error:
            raise ConfigurationError(
                f"the configuration {_short(config)} cannot be sent to a worker process: "
                f"{_first_line(error)}; use values that can be pickled"
            ) from error

    def _dumps_completely(self, value: Any) -> bytes:
        """Pickle, by value where the module cannot be found by a fresh interpreter."""
        while True:
            with _registered(self._by_value):
                data: bytes = cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            missing = {name for name in _module_names(data) if not _found_by_name(name)} - self._by_value
            if not missing:
                return data
            self._by_value |= missing


def _module_names(data: bytes) -> set[str]:
    """Names of loaded modules among the strings of a pickle; more than it refers to does no harm."""
    strings = {argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}
    return {name for name in strings if name in sys.modules and name not in ("__main__", "__mp_main__")}


@contextlib.contextmanager
def _registered(names: set[str]) -> Iterator[None]:
    """Have cloudpickle send these modules by value meanwhile."""
    already = set(cloudpickle.list_registry_pickle_by_value())
    modules = [sys.modules[name] for name in names - already if name in sys.modules]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


@functools.lru_cache(maxsize=4096)
def _found_by_name(name: str) -> bool:
    """Whether a fresh interpreter with our ``sys.path`` imports the module we have under this name."""
    module = sys.modules[name]
    path: Any = None
    spec: importlib.machinery.ModuleSpec | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:depth]), path)
        if spec is None:
            # parts that their package makes when it is imported, such as `os.path`
            return depth > 1 and not _has_own_file(module)
        path = spec.submodule_search_locations
    return spec is None or _same_file(spec, module)


def _find_spec(name: str, path: Any) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        with contextlib.suppress(Exception):
            spec = finder.find_spec(name, path)
            if spec is not None:
                return spec
    return None


def _has_own_file(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__file__", None), str)


def _same_file(spec: importlib.machinery.ModuleSpec, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not spec.has_location or not isinstance(spec.origin, str) or not isinstance(file, str):
        return not isinstance(file, str) or not spec.has_location
    return os.path.realpath(spec.origin) == os.path.realpath(file)


def _culprit(function: Callable[..., Any]) -> str:
    """The part of an objective that cannot be pickled, in words."""
    for what, value in _parts(function):
        try:
            cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception:
            return f"{what}, {_a(value)},"
    return _a(function)


def _parts(function: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(function, functools.partial):
        for i, value in enumerate(function.args):
            yield f"argument {i} of the partial", value
        for name, value in function.keywords.items():
            yield f"argument `{name}` of the partial", value
        yield from _parts(function.func)
        return
    owner = getattr(function, "__self__", None)
    if owner is None and not inspect.isfunction(function):
        owner = function
    for name, value in getattr(owner, "__dict__", {}).items() if owner is not None else ():
        yield f"its attribute `{name}`", value
    code_owner = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(code_owner):
        return
    with contextlib.suppress(ValueError, TypeError):
        variables = inspect.getclosurevars(code_owner)
        for name, value in variables.nonlocals.items():
            yield f"`{name}` of the enclosing function", value
        for name, value in variables.globals.items():
            yield f"the global `{name}`", value
    for value in code_owner.__defaults__ or ():
        yield "a default argument", value
    for name, value in (code_owner.__kwdefaults__ or {}).items():
        yield f"the default of `{name}`", value


def _a(value: Any) -> str:
    kind = type(value)
    return (
        f"a {kind.__qualname__}"
        if kind.__module__ == "builtins"
        else f"a {kind.__module__}.{kind.__qualname__}"
    )


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or _a(function))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
