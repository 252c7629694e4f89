"""Where candidates run: local processes, an event loop, or the user's own `Worker`.

| class | candidates run in |
|---|---|
| `MultiProcessWorker` | long-lived processes, one candidate at a time in each |
| `IsoMultiProcessWorker` | a fresh process for each candidate |
| `AsyncWorker` | one process with an asyncio loop, several candidates at a time |

Each is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciq_ray.worker.local import AsyncWorker, IsoMultiProcessWorker, MultiProcessWorker

__all__ = ["AsyncWorker", "IsoMultiProcessWorker", "MultiProcessWorker"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from ciq_ray.worker import local

        return getattr(local, name)
    if name == "RayWorker":
        from ciq_ray.errors import UnsupportedError

        raise UnsupportedError(
            "`RayWorker` is not in this version; use WorkerTypes.NATIVE, ISOLATED or ASYNC on one machine"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
