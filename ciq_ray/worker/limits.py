"""Limits that come with a task, for objectives that compile before they run.

An objective of several stages asks for the limit of its compile step::

    from ciq_ray.worker.limits import compile_timeout

    subprocess.run(["make"], timeout=compile_timeout())

What takes longer ends as ``compile_timeout`` (`ciq_ray.errors.ObjectiveFailure`). `CommandObjective` does so
for its build.
"""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["compile_timeout", "set_compile_timeout"]

_compile_timeout: ContextVar[float | None] = ContextVar("compile_timeout", default=None)


def compile_timeout() -> float | None:
    """Seconds that compiling the present candidate may take, ``None`` if nobody has set a limit."""
    return _compile_timeout.get()


def set_compile_timeout(seconds: float | None) -> None:
    """Set the limit for this thread, or for this task of an event loop."""
    _compile_timeout.set(seconds)
