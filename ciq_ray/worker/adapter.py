"""A user's own `Worker` subclass behind the streaming protocol, a pool at a time."""

from __future__ import annotations

import inspect
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray._types.worker import Worker
from ciq_ray.errors import ConfigurationError, WorkerError
from ciq_ray.scores import INVALID_MESSAGE, read_scores
from ciq_ray.worker.baseline import baseline_values
from ciq_ray.worker.protocol import NO_BASELINE, Report, Task
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.utils.validation import Score

__all__ = ["WorkerAdapter", "warn_unused"]

_CLOSE_LIMIT_S = 1.0
_BASELINE_ID = 0


def warn_unused(worker: str, options: Mapping[str, Any]) -> None:
    """Warn of keyword arguments that a worker does not use."""
    if options:
        names = ", ".join(f"`{name}`" for name in options)
        warnings.warn(f"{worker} does not use {names}", UserWarning, stacklevel=3)


class _Batch:
    """One call of `Worker.run`, in a thread of its own so that `poll` stays live."""

    def __init__(self, tasks: list[Task], call: Callable[[], Any], done: threading.Condition) -> None:
        self.tasks = tasks
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self._call = call
        self._done = done
        self.started_at = time.monotonic()
        self.thread = threading.Thread(target=self._run, name="ciq-worker-run", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error
        with self._done:
            self.ended = True
            self._done.notify_all()


class WorkerAdapter:
    """Drives a documented `Worker` with the streaming protocol.

    Tasks are collected until `poll` is called; then all of them, if they are of one generation, go to
    ``worker.run`` in one call. Its scores come back by their `param_id`. A call cannot be interrupted:
    after `cancel` its result is dropped, and the next call begins when it has returned.

    With a baseline, ``worker.run`` is called with the baseline configuration alone before the first
    call and before the first of each new generation, and `Worker.baseline_score` is set to what
    comes back. `Score.norm_score` is used if the worker sets it; scores with `is_baseline` are skipped.

    Args:
        worker: The user's worker.
        pool_size: How many tasks one call gets at most.
        options: Keyword arguments for ``run``. There is a warning for those it does not accept.
    """

    def __init__(self, worker: Worker, *, pool_size: int, options: Mapping[str, Any] | None = None) -> None:
        if not isinstance(worker, Worker):
            raise ConfigurationError(f"`worker` is {worker!r}; it must be a Worker")
        if not isinstance(pool_size, int) or isinstance(pool_size, bool) or pool_size < 1:
            raise ConfigurationError(f"`pool_size` is {pool_size!r}; it must be an integer above 0")
        self._worker = worker
        self._name = type(worker).__name__
        self._pool_size = pool_size
        self._options = self._accepted(dict(options or {}))
        self._is_open = False

    def open(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int | None = None,
        task_timeout: float | None = None,
        num_objectives: int = 1,
        baseline_config: Any = NO_BASELINE,
        log_dir: Path | None = None,
    ) -> None:
        """Get ready to evaluate `function`; see the protocol. The output of the worker is its own affair."""
        if not callable(function):
            raise ConfigurationError(f"`objective_function` is {function!r}; it must be callable")
        if self._is_open:
            raise WorkerError("the worker is open already; `close` it first")
        self._call: dict[str, Any] = {"function": function, "num_function_returns": num_objectives}
        if num_workers is not None:
            self._call["num_workers"] = num_workers
        elif self._worker.respects_num_workers:
            from ciq_ray.worker.pool import available_cpus

            self._call["num_workers"] = available_cpus()
        if task_timeout is not None:
            if self._worker.supports_timeout:
                self._call["task_timeout"] = task_timeout
            else:
                warnings.warn(f"{self._name} does not support `task_timeout`", UserWarning, stacklevel=2)
        self._num_objectives = num_objectives
        self._baseline_config = baseline_config
        self._baseline: tuple[float, ...] | None = None
        self._baseline_generation = 0
        self._waiting: list[Task] = []
        self._batch: _Batch | None = None
        self._measuring = False
        self._dropped: set[_Batch] = set()
        self._next_id = 0
        self._done = threading.Condition()
        self._error: WorkerError | None = None
        self._is_open = True

    @property
    def free(self) -> int:
        """How many more tasks the next call takes."""
        if not self._is_open:
            return 0
        running = len(self._batch.tasks) if self._batch is not None else 0
        return max(0, self._pool_size - len(self._waiting) - running)

    def submit(self, task: Task) -> None:
        """Collect a task; see the protocol."""
        self._check()
        if self.free < 1:
            raise WorkerError(f"task {task.id!r}: nothing is free; check `free` before `submit`")
        self._waiting.append(Task(task.id, deepcopy(task.config), task.generation))

    def poll(self, timeout: float) -> list[Report]:
        """Start what is waiting, and wait for reports; see the protocol."""
        self._check()
        deadline = time.monotonic() + timeout
        try:
            while True:
                self._start_next()
                reports = self._take_ended(max(0.0, deadline - time.monotonic()))
                if reports or time.monotonic() >= deadline:
                    self._start_next()
                    return reports
        except WorkerError as error:
            self._error = error
            raise

    def cancel(self) -> list[str]:
        """Drop what is waiting and what is running; see the protocol.

        A call of ``run`` goes on until it returns, and its result is dropped.
        """
        if not self._is_open:
            return []
        dropped, self._waiting = self._waiting, []
        batch, self._batch = self._batch, None
        if batch is not None:
            dropped = [*batch.tasks, *dropped]
            self._dropped.add(batch)
        self._measuring = False
        return [task.id for task in dropped]

    def close(self) -> None:
        """Drop everything, and wait a moment for the worker; see the protocol."""
        if not self._is_open:
            return
        self.cancel()
        self._is_open = False
        deadline = time.monotonic() + _CLOSE_LIMIT_S
        for batch in self._dropped:
            batch.thread.join(max(0.0, deadline - time.monotonic()))
        if any(batch.thread.is_alive() for batch in self._dropped):
            warnings.warn(f"{self._name}.run has not returned; it is left behind", UserWarning, stacklevel=2)

    # --- calls of `run` ---

    def _start_next(self) -> None:
        self._dropped = {batch for batch in self._dropped if not batch.ended}
        if self._batch is not None or self._dropped or not self._waiting:
            return
        generation = self._waiting[0].generation
        self._worker.current_generation = generation
        due = self._baseline is None or self._baseline_generation < generation
        self._measuring = self._baseline_config is not NO_BASELINE and due
        if self._measuring:
            self._baseline_generation = generation
            self._start([], [deepcopy(self._baseline_config)], [_BASELINE_ID])
            return
        tasks = [task for task in self._waiting if task.generation == generation]
        self._waiting = [task for task in self._waiting if task.generation != generation]
        first = self._next_id + 1
        self._next_id += len(tasks)
        self._start(tasks, [task.config for task in tasks], list(range(first, self._next_id + 1)))

    def _start(self, tasks: list[Task], params: list[Any], ids: list[int]) -> None:
        call = {**self._options, **self._call, "params_pool": params, "params_ids": ids}
        self._ids = ids
        self._batch = _Batch(tasks, lambda: self._worker.run(**call), self._done)

    def _take_ended(self, timeout: float) -> list[Report]:
        def ended() -> bool:
            current = self._batch is not None and self._batch.ended
            return current or (self._batch is None and any(batch.ended for batch in self._dropped))

        with self._done:
            self._done.wait_for(ended, timeout)
        batch = self._batch
        if batch is None or not batch.ended:
            return []
        self._batch = None
        if batch.error is not None:
            raise WorkerError(
                f"{self._name}.run raised {type(batch.error).__name__}: {batch.error}"
            ) from batch.error
        scores = self._sorted(batch.result)
        if self._measuring:
            self._measuring = False
            self._set_baseline(scores[_BASELINE_ID])
            return []
        return [
            self._report(task, scores[param_id])
            for task, param_id in zip(batch.tasks, self._ids, strict=True)
        ]

    def _sorted(self, result: Any) -> dict[int, list[Score]]:
        """The scores of each id that was asked for: one, if all is well."""
        from ciq_ray.utils.validation import Score

        if not isinstance(result, (list, tuple)):
            raise WorkerError(f"{self._name}.run returned {_a(result)}; it must return a list of Score")
        scores: dict[int, list[Score]] = {param_id: [] for param_id in self._ids}
        for score in result:
            if not isinstance(score, Score):
                raise WorkerError(
                    f"{self._name}.run returned {_a(score)} in its list, which must hold Score objects"
                )
            if score.is_baseline and not self._measuring:
                continue
            if score.param_id not in scores:
                raise WorkerError(
                    f"{self._name}.run returned a score for `param_id` {score.param_id!r}, "
                    "which it was not given"
                )
            scores[score.param_id].append(score)
        return scores

    # --- what came back ---

    def _outcome(self, scores: list[Score]) -> Outcome:
        if len(scores) != 1:
            what = f"{len(scores)} scores" if scores else "no score"
            return Outcome("run_error", message=f"{self._name}.run returned {what} for this candidate")
        score = scores[0]
        if score.failed:
            return Outcome("invalid_result", message=score.metadata or INVALID_MESSAGE)
        status, values, message = read_scores(score.score, self._num_objectives)
        return Outcome(status, values, message=message)

    def _report(self, task: Task, scores: list[Score]) -> Report:
        outcome = self._outcome(scores)
        normalized = None
        if outcome.ok and scores[0].norm_score is not None:
            status, values, _ = read_scores(scores[0].norm_score, self._num_objectives)
            normalized = values if status == "ok" else None
        baseline = self._baseline
        if self._worker.normalize and self._worker.baseline_score is not None:
            status, values, _ = read_scores(self._worker.baseline_score, self._num_objectives)
            baseline = values if status == "ok" else baseline
        return Report(
            task.id,
            outcome,
            baseline,
            self._name,
            normalized=normalized,
            metadata=scores[0].metadata if outcome.ok else "",
        )

    def _set_baseline(self, scores: list[Score]) -> None:
        values = baseline_values(self._name, self._outcome(scores))
        self._baseline = values
        self._worker.baseline_score = values[0] if self._num_objectives == 1 else values

    def _accepted(self, options: dict[str, Any]) -> dict[str, Any]:
        parameters = inspect.signature(self._worker.run).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return options
        known = {parameter.name for parameter in parameters}
        warn_unused(self._name, {name: value for name, value in options.items() if name not in known})
        return {name: value for name, value in options.items() if name in known}

    def _check(self) -> None:
        if not self._is_open:
            raise WorkerError("the worker is not open; call `open` first")
        if self._error is not None:
            raise self._error


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
