"""What an objective logs by itself, in the process that runs it.

``mlflow.log_metric`` and its like write to MLflow's active run, and start one if there is none. Here
the active run of each evaluation is its own, in each thread and coroutine: `RunStack` takes the place
of MLflow's list of active runs, as soon as MLflow is imported and not before, so that an objective that
does not use MLflow pays nothing. A run that is started gets its parent from `ciq_ray._mlflow.context`;
if the search has made one already (`live_runs`), that one is taken up instead. Its id goes back to the
search with the outcome.

Imports nothing but the standard library: worker processes load it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["KEY", "PARENT", "RUN_ID", "Evaluation", "current"]

PARENT: Final = "CIQ_MLFLOW_PARENT_RUN_ID"
KEY: Final = "CIQ_MLFLOW_KEY"
RUN_ID: Final = "MLFLOW_RUN_ID"
_URI: Final = "MLFLOW_TRACKING_URI"
_REPLACED: Final = (RUN_ID, "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
_FLUENT: Final = "mlflow.tracking.fluent"

_mine: ContextVar[Evaluation | None] = ContextVar("ciq_evaluation", default=None)
_only: Evaluation | None = None
"""The evaluation of a process that makes one at a time: threads that it starts know no context variable."""


def current() -> Evaluation | None:
    """The evaluation that this code runs for."""
    return _mine.get() or _only


class Evaluation:
    """One evaluation, from before the call of the objective to after it.

    Args:
        context: Environment variables of this evaluation, see `Task.context`.
        alone: Whether the process makes one evaluation at a time; all of `context` then goes into the
            environment, for programs that the objective starts.
    """

    def __init__(self, context: Mapping[str, str], *, alone: bool) -> None:
        global _only
        self.context = context
        self.run_id = context.get(RUN_ID, "")
        self.stacks: dict[int, list[Any]] = {}
        self._alone = alone
        for name in _REPLACED:
            os.environ.pop(name, None)
        own = () if alone else (KEY, RUN_ID)
        os.environ.update({name: value for name, value in context.items() if value and name not in own})
        self._token = _mine.set(self)
        if alone:
            _only = self
        _watch_for_mlflow()

    def end(self, ok: bool) -> str:
        """End the runs that are still active, and write out what MLflow writes in the background.

        Returns:
            The id of the run that this evaluation started or took up; empty if it did not.
        """
        global _only
        try:
            return self._end_runs(ok) if _FLUENT in sys.modules else self.run_id
        except Exception as error:  # the evaluation is over, and what it measured counts
            print(f"MLflow: {type(error).__name__}: {error}", file=sys.stderr)
            return self.run_id
        finally:
            with contextlib.suppress(ValueError):
                _mine.reset(self._token)
            if self._alone:
                _only = None
            os.environ.pop(RUN_ID, None)

    def _end_runs(self, ok: bool) -> str:
        import mlflow

        runs = [run for stack in self.stacks.values() for run in stack]
        self.run_id = self.run_id or (runs[0].info.run_id if runs else "")
        self.stacks = {threading.get_ident(): runs}
        while self.stacks[threading.get_ident()]:
            mlflow.end_run("FINISHED" if ok else "FAILED")
        if self.run_id:
            mlflow.flush_async_logging()
            mlflow.flush_trace_async_logging()
        elsewhere = mlflow.get_tracking_uri() != self.context.get(_URI)
        return "" if elsewhere else self.run_id


class RunStack:
    """Stands in for ``mlflow.tracking.fluent._active_run_stack``: a list for each evaluation and thread.

    Args:
        original: What it stands in for; it serves whatever is no part of an evaluation.
    """

    def __init__(self, original: Any) -> None:
        self._original = original

    def get(self) -> list[Any]:
        """The active runs, innermost last.

        When there are none MLflow looks for a run to take up in the environment, and finds there the run
        that the evaluation has already.
        """
        evaluation = current()
        if evaluation is None:
            found: list[Any] = self._original.get()
            return found
        stack = evaluation.stacks.setdefault(threading.get_ident(), [])
        if stack:
            evaluation.run_id = evaluation.run_id or stack[0].info.run_id
        elif evaluation.run_id:
            os.environ[RUN_ID] = evaluation.run_id
        else:
            os.environ.pop(RUN_ID, None)
        return stack

    def set(self, value: list[Any]) -> None:
        """Replace the active runs."""
        evaluation = current()
        if evaluation is None:
            self._original.set(value)
        else:
            evaluation.stacks[threading.get_ident()] = value

    def get_all_thread_values(self) -> dict[int, list[Any]]:
        """The active runs of all threads; a trace asks this for its run, so that there is one."""
        evaluation = current()
        if evaluation is None:
            values: dict[int, list[Any]] = self._original.get_all_thread_values()
            return values
        if not any(evaluation.stacks.values()):
            sys.modules[_FLUENT].start_run()
        return dict(evaluation.stacks)

    def reset(self) -> None:
        """Forget all active runs."""
        evaluation = current()
        if evaluation is None:
            self._original.reset()
        else:
            evaluation.stacks.clear()


class _Finder:
    """Finds MLflow's module of active runs once, to be changed right after it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _FLUENT:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute: Callable[[Any], None] = spec.loader.exec_module

            def execute_and_install(module: Any) -> None:
                execute(module)
                _install(module)

            spec.loader.exec_module = execute_and_install  # type: ignore[method-assign]
        return spec


def _watch_for_mlflow() -> None:
    fluent = sys.modules.get(_FLUENT)
    if fluent is not None:
        _install(fluent)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _install(fluent: Any) -> None:
    original = getattr(fluent, "_active_run_stack", None)
    if original is not None and not isinstance(original, RunStack):
        fluent._active_run_stack = RunStack(original)
