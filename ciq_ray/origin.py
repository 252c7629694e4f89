"""Where an objective comes from, so that a run can be resumed without unpickling anything."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.errors import ConfigurationError, JournalError

if TYPE_CHECKING:
    from ciq_ray.kernels.protocol import Kernel

__all__ = ["describe", "importing", "load"]

SCRIPT_MODULE = "__ciq_script__"

importing: ContextVar[str | None] = ContextVar("importing", default=None)
"""The script that is being imported to get at its objective; a search must not start in there."""


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """Module, qualified name, script and source hash of an objective, or its command, as JSON data.

    A kernel is an object, and has no name of its own: that of the variable of a module that holds it is
    taken, and a kernel in no such variable cannot be had again.
    """
    from ciq_ray.commands import CommandObjective
    from ciq_ray.kernels.protocol import Kernel

    if isinstance(function, CommandObjective):
        return {"kind": "command", "command": function.to_dict(), "files": function.files()}
    if isinstance(function, Kernel):
        return _described_kernel(function)
    target = function.func if isinstance(function, functools.partial) else function
    name = getattr(target, "__qualname__", type(target).__qualname__)
    module = getattr(target, "__module__", None) or type(target).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    script = os.path.abspath(file) if file else None
    return {
        "module": module,
        "qualname": name,
        "importable": _at(sys.modules.get(module), name) == function,
        "script": script,
        "source_sha256": _hash(script),
    }


def _described_kernel(kernel: Kernel) -> dict[str, Any]:
    module, name = _variable_of(kernel)
    file = getattr(sys.modules.get(module), "__file__", None) if module else None
    script = os.path.abspath(file) if file else None
    return {
        "kind": "kernel",
        "class": type(kernel).__name__,
        "shapes": list(kernel.shapes),
        "dtype": kernel.dtype,
        "module": module or type(kernel).__module__,
        "qualname": name or type(kernel).__qualname__,
        "importable": bool(name),
        "script": script,
        "source_sha256": _hash(script),
        "kernel_sha256": _source_hash(kernel),
    }


def _variable_of(wanted: object) -> tuple[str, str]:
    """The module and the name of a module's variable that holds an object; empty if there is none.

    A module that can be imported is better than the script that was started, which may only have imported
    the object from there.
    """
    found = [
        (module, name)
        for module, loaded in list(sys.modules.items())
        for name, value in list(getattr(loaded, "__dict__", {}).items())
        if value is wanted
    ]
    return min(
        found, key=lambda pair: (pair[0] in ("__main__", "__mp_main__"), found.index(pair)), default=("", "")
    )


def _source_hash(kernel: Kernel) -> str | None:
    """Of the kernel's source, if that is a text of its own, which may come from another file."""
    source = getattr(kernel, "source", None)
    if isinstance(source, str):
        source = source.encode("utf-8", "surrogatepass")
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else None


def _at(module: Any, name: str) -> Any:
    """What a qualified name leads to in a module, ``None`` if nowhere."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def load(origin: dict[str, Any], *, force: bool = False) -> Callable[..., Any]:
    """The objective that `describe` described: a command, or a function, by importing its script.

    Args:
        origin: The description.
        force: Take it even though the source has changed.

    Raises:
        JournalError: It cannot be had that way, or its source has changed.
    """
    if origin.get("kind") == "command":
        return _command(origin, force=force)
    name, script = origin.get("qualname"), origin.get("script")
    own = "call `Search.resume(path, objective_function=...)` from a script of yours"
    if not origin.get("importable") or not isinstance(name, str):
        if origin.get("kind") == "kernel":
            raise JournalError(
                f"the kernel is in no variable at module level (`kernel = {name}(...)`), by which it could "
                f"be found again; {own}"
            )
        raise JournalError(f"the objective {name!r} is not a plain function of a module; {own}")
    if not isinstance(script, str) or not Path(script).is_file():
        raise JournalError(f"the objective's script {script!r} is not there any more; {own}")
    if _hash(script) != origin.get("source_sha256") and not force:
        raise JournalError(
            f"{script!r} has changed since the run began; the results would mix two objectives. "
            "Use --force if the change does not matter"
        )
    value: Any = _import(script, str(origin.get("module")))
    for part in name.split("."):
        if not hasattr(value, part):
            raise JournalError(
                f"{script!r} has no {name!r} at module level (is it defined under "
                f"`if __name__ == '__main__'`?); {own}"
            )
        value = getattr(value, part)
    if origin.get("kind") == "kernel":
        _check_kernel(value, origin, own, force=force)
    elif not callable(value):
        raise JournalError(f"{name!r} of {script!r} is not a function any more; {own}")
    function: Callable[..., Any] = value
    return function


def _check_kernel(value: Any, origin: dict[str, Any], own: str, *, force: bool) -> None:
    from ciq_ray.kernels.protocol import Kernel

    if not isinstance(value, Kernel):
        raise JournalError(f"{origin['qualname']!r} of {origin['script']!r} is not a kernel any more; {own}")
    if _source_hash(value) != origin.get("kernel_sha256") and not force:
        raise JournalError(
            f"the source of the kernel {origin['qualname']!r} has changed since the run began; the results "
            "would mix two kernels. Use --force if the change does not matter"
        )


def _command(origin: dict[str, Any], *, force: bool) -> Callable[..., Any]:
    from ciq_ray.commands import CommandObjective

    try:
        objective = CommandObjective.from_dict(origin["command"])
        recorded = dict(origin["files"])
    except (ConfigurationError, KeyError, TypeError, ValueError) as error:
        raise JournalError(f"the command of the run cannot be used: {error}") from error
    found = objective.files()
    changed = sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))
    if changed and not force:
        raise JournalError(
            f"{changed[0]!r} has changed since the run began; the results would mix two programs. "
            "Use --force if the change does not matter"
        )
    return objective


def _import(script: str, module: str) -> Any:
    loaded = sys.modules.get(module)
    if module != "__main__" and loaded is not None and getattr(loaded, "__file__", None) == script:
        return loaded
    token = importing.set(script)
    try:
        if module not in ("__main__", SCRIPT_MODULE):
            try:
                found = importlib.import_module(module)
            except ImportError:
                found = None
            if found is not None and os.path.abspath(getattr(found, "__file__", "") or "") == script:
                return found
        spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, script)
        if spec is None or spec.loader is None:
            raise JournalError(f"{script!r} is not a Python script")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[SCRIPT_MODULE] = loaded
        folder = str(Path(script).parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # as Python does for a script that is run
        try:
            spec.loader.exec_module(loaded)
        except JournalError:
            raise
        except (Exception, SystemExit) as error:
            raise JournalError(f"importing {script!r} failed: {type(error).__name__}: {error}") from error
        return loaded
    finally:
        importing.reset(token)


def _hash(script: str | None) -> str | None:
    try:
        return None if script is None else hashlib.sha256(Path(script).read_bytes()).hexdigest()
    except OSError:
        return None
