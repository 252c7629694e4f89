"""Where candidates run: local processes, an event loop, a Ray cluster, or the user's own `Worker`.

| class | candidates run in |
|---|---|
| `MultiProcessWorker` | long-lived processes, one candidate at a time in each |
| `IsoMultiProcessWorker` | a fresh process for each candidate |
| `AsyncWorker` | one process with an asyncio loop, several candidates at a time |
| `RayWorker` | long-lived actors on the nodes of a Ray cluster, one candidate at a time in each |

Each is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciq_ray.worker.local import AsyncWorker, IsoMultiProcessWorker, MultiProcessWorker
    from ciq_ray.worker.ray_worker import RayWorker

__all__ = ["AsyncWorker", "IsoMultiProcessWorker", "MultiProcessWorker", "RayWorker"]


def __getattr__(name: str) -> Any:
    if name == "RayWorker":
        from ciq_ray.worker.ray_worker import RayWorker

        return RayWorker
    if name in __all__:
        from ciq_ray.worker import local

        return getattr(local, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
