"""Requests that give up soon, and print nothing, for our own thread only.

By default a request to a server that is gone is repeated for minutes. MLflow reads how often from the
environment at each request, and the environment is the whole program's: so it is the variables' own
objects that are asked, and they answer our threads differently. What a user has set counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["own_requests"]

_OURS: Final[dict[str, Any]] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": 0,
    "MLFLOW_HTTP_REQUEST_TIMEOUT": 10,
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": 0,
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": 0.1,
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": True,
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": False,
}
_thread = threading.local()
_install = threading.Lock()


@contextmanager
def own_requests() -> Iterator[None]:
    """Within, this thread's requests to MLflow have our limits."""
    _change_variables()
    before = getattr(_thread, "ours", False)
    _thread.ours = True
    try:
        yield
    finally:
        _thread.ours = before


def _change_variables() -> None:
    from mlflow import environment_variables

    with _install:
        for name, value in _OURS.items():
            variable = getattr(environment_variables, name, None)
            if variable is not None and "get" not in vars(variable):
                variable.get = _answer(variable, value)


def _answer(variable: Any, ours: Any) -> Callable[[], Any]:
    usual: Callable[[], Any] = variable.get

    def get() -> Any:
        if getattr(_thread, "ours", False) and not variable.is_set():
            return ours
        return usual()

    return get
