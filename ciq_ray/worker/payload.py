"""Turning an objective and its configurations into bytes a fresh interpreter can read."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import inspect
import io
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

_MAIN = frozenset({"__main__", "__mp_main__"})


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
        self._foreign: dict[str, bool] = {}
        try:
            self.function = self._dumps_completely(function)
        except Exception as error:
            with _registered(self._by_value):
                culprit = _culprit(function)
            raise ConfigurationError(
                f"`objective_function` ({_name(function)}) cannot be sent to a worker process: {culprit} "
                f"cannot be pickled ({_first_line(error)}); create it inside the function"
            ) from error

    def config(self, config: Any) -> bytes:
        """A configuration as bytes.

        Raises:
            ConfigurationError: It holds something that cannot be pickled.
        """
        try:
            data = pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
            # plain data refers to nothing by name; a false alarm costs only time
            if pickle.STACK_GLOBAL not in data or not self._refers_to_foreign(data):
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
                data = _dumps(value)
            foreign = {name for name in _strings(data) if self._is_foreign(name)}
            if foreign <= self._by_value:
                return data
            self._by_value |= foreign

    def _refers_to_foreign(self, data: bytes) -> bool:
        return any(name in _MAIN or self._is_foreign(name) for name in _strings(data))

    def _is_foreign(self, name: str) -> bool:
        """Whether this names a module of ours that a fresh interpreter does not find."""
        if name in _MAIN or name not in sys.modules:
            return False
        if name not in self._foreign:
            self._foreign[name] = not _found_by_name(name)
        return self._foreign[name]


def _strings(data: bytes) -> set[str]:
    """The strings of a pickle, the names of all modules it refers to among them."""
    return {argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _CachePickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _CachePickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no type information
    """Sends functions under ``functools.cache`` as cloudpickle sends plain ones; it has no way of its own."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, functools._lru_cache_wrapper) and _goes_by_value(obj):
            parameters = obj.cache_parameters()
            return _cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])
        return super().reducer_override(obj)


def _goes_by_value(function: Any) -> bool:
    module = getattr(function, "__module__", None) or "__main__"
    return module in {*_MAIN, *cloudpickle.list_registry_pickle_by_value()} or "<" in getattr(
        function, "__qualname__", "<"
    )


def _cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Callable[..., Any]:
    return functools.lru_cache(maxsize=maxsize, typed=typed)(function)


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


def _found_by_name(name: str) -> bool:
    """Whether a fresh interpreter with our ``sys.path`` imports the module we have under this name."""
    module = sys.modules[name]
    path: Any = None
    spec: importlib.machinery.ModuleSpec | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        if depth > 1 and path is None:
            return True  # made by a module that is found, when that is imported, like `os.path`
        spec = _find_spec(".".join(parts[:depth]), path)
        if spec is None:
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
            _dumps(value)
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
