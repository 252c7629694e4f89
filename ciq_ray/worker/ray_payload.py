"""Objectives as bytes that the other nodes of a cluster can read, which lack the driver's own modules."""

from __future__ import annotations

import functools
import os
import pickle
import site
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

from ciq_ray.errors import ConfigurationError
from ciq_ray.worker.payload import Pickler

__all__ = ["ClusterPickler", "Packed"]

_EVERYWHERE = frozenset({"ciq_ray", "searchers"})
"""Packages that every node has, however they are installed."""


class ClusterPickler(Pickler):
    """Like `Pickler`, but modules of the driver's own, beside its script for example, go by value as well.

    A module is the driver's own if it is neither installed nor one of Python's. Where by value is
    impossible they go by name after all, for nodes that share a disk with the driver.

    Args:
        function: The objective.

    Raises:
        ConfigurationError: See `Pickler`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._own_by_value = True
        try:
            super().__init__(function)
        except ConfigurationError:
            self._own_by_value = False
            super().__init__(function)

    def _is_foreign(self, name: str) -> bool:
        return super()._is_foreign(name) or (self._own_by_value and _is_own(name))


class Packed:
    """Something pickled that is to be unpickled only in the process that uses it.

    Pickled again, it is unpickled as what it holds: an actor hands it on without a look inside.

    Args:
        data: The pickle.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (self.data,)

    def __call__(self, config: Any) -> Any:
        """Call the function inside."""
        return pickle.loads(self.data)(config)


@functools.cache
def _is_own(name: str) -> bool:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return False
    if name.partition(".")[0] in _EVERYWHERE | sys.stdlib_module_names:
        return False
    path = os.path.realpath(file)
    return not any(path.startswith(folder) for folder in _installed())


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
