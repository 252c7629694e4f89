"""Ray-native tuning of GPU kernels, compilers and any measurable program.

Names are loaded when they are first used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ciq_ray._version import __version__

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.errors import CiqError, ObjectiveFailure
    from ciq_ray.results import SearchResult
    from ciq_ray.types import INVALID_SCORE, SearchConfiguration, WorkerTypes

__all__ = [
    "INVALID_SCORE",
    "CiqError",
    "ObjectiveFailure",
    "Search",
    "SearchConfiguration",
    "SearchResult",
    "WorkerTypes",
    "__version__",
]

_MODULE_OF = {
    "INVALID_SCORE": "types",
    "CiqError": "errors",
    "ObjectiveFailure": "errors",
    "Search": "ciq",
    "SearchConfiguration": "types",
    "SearchResult": "results",
    "WorkerTypes": "types",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ciq_ray' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ciq_ray.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
