"""The built-in workers of one machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray._types.worker import Params, Worker
from ciq_ray.errors import ConfigurationError, WorkerError
from ciq_ray.worker.adapter import warn_unused
from ciq_ray.worker.pool import Pool, available_cpus
from ciq_ray.worker.protocol import NO_BASELINE, Report, Task

if TYPE_CHECKING:
    from ciq_ray._types.tracker import BaseTracker
    from ciq_ray.utils.validation import Score
    from ciq_ray.worker.ray_pool import RayPool

__all__ = ["AsyncWorker", "IsoMultiProcessWorker", "MultiProcessWorker", "PooledWorker"]

_POLL_S = 1.0


class PooledWorker(Worker):
    """A documented worker that also streams; see `ciq_ray.worker.protocol.StreamingWorker`."""

    def __init__(
        self,
        cache_folder: str | os.PathLike[str],
        normalize: bool = False,
        tracker: BaseTracker | None = None,
        respects_num_workers: bool = True,
        supports_timeout: bool = True,
    ) -> None:
        super().__init__(cache_folder, normalize, tracker, respects_num_workers, supports_timeout)
        self._pool: Pool | RayPool | None = None

    @classmethod
    def create(
        cls,
        cache_folder: str | os.PathLike[str],
        normalize: bool = False,
        tracker: BaseTracker | None = None,
    ) -> PooledWorker:
        """Construct a worker instance with the given configuration."""
        return cls(cache_folder, normalize, tracker)

    @classmethod
    def _pool_class(cls) -> type[Pool]:
        raise NotImplementedError

    @classmethod
    def _default_workers(cls) -> int:
        return available_cpus()

    # --- streaming ---

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
        """Get ready to evaluate `function`; see the protocol."""
        if self._pool is not None:
            raise WorkerError("the worker is open already; `close` it first")
        self._pool = self._pool_class()(
            function,
            num_workers=self._default_workers() if num_workers is None else num_workers,
            task_timeout=task_timeout,
            num_objectives=num_objectives,
            baseline_config=baseline_config,
            log_dir=log_dir,
        )

    @property
    def free(self) -> int:
        """How many tasks can be submitted now; none while the worker is not open."""
        return 0 if self._pool is None else self._pool.free

    def submit(self, task: Task) -> None:
        """Send a task on its way; see the protocol."""
        self._open_pool().submit(task)

    def poll(self, timeout: float) -> list[Report]:
        """Wait for reports; see the protocol."""
        return self._open_pool().poll(timeout)

    def cancel(self) -> list[str]:
        """Stop everything in flight; see the protocol."""
        return [] if self._pool is None else self._pool.cancel()

    def close(self) -> None:
        """End all processes; see the protocol."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _open_pool(self) -> Pool | RayPool:
        if self._pool is None:
            raise WorkerError("the worker is not open; call `open` first")
        return self._pool

    # --- the documented way ---

    def run(
        self,
        *,
        function: Callable[..., Any],
        params_pool: Sequence[Params],
        params_ids: Sequence[int],
        num_function_returns: int = 1,
        num_workers: int | None = 1,
        task_timeout: float | None = None,
        **kwargs: Any,
    ) -> list[Score]:
        """Execute the objective function across a pool of parameters.

        With `normalize`, scores are divided by `baseline_score` if that is set; else each process
        measures a baseline with the empty configuration, ``{}`` or ``""``.

        Args:
            function: The objective; it takes one parameter set.
            params_pool: The parameter sets, each as the objective gets it.
            params_ids: One id for each parameter set; it comes back as `Score.param_id`.
            num_function_returns: How many scores the objective returns.
            num_workers: How many evaluations may run at a time; ``None`` for the worker's default.
            task_timeout: Seconds one evaluation may take; then its score is a failed one.
            **kwargs: Nothing else is used; there is a warning for what is given.

        Returns:
            One `Score` for each parameter set, in their order. The `metadata` of a failed one says why.

        Raises:
            ConfigurationError: An argument cannot be used, or the objective cannot be sent to a process.
            WorkerError: Processes cannot be started, or cannot load the objective.
            BaselineError: The baseline failed.
        """
        warn_unused(type(self).__name__, kwargs)
        if len(params_pool) != len(params_ids):
            raise ConfigurationError(
                f"`params_ids` has {len(params_ids)} ids for {len(params_pool)} parameter sets; give as many"
            )
        baseline: Any = NO_BASELINE
        if self.normalize and self.baseline_score is None and params_pool:
            baseline = "" if isinstance(params_pool[0], str) else {}
        self.open(
            function,
            num_workers=num_workers,
            task_timeout=task_timeout,
            num_objectives=num_function_returns,
            baseline_config=baseline,
        )
        try:
            return self._run_all(params_pool, params_ids, num_function_returns)
        finally:
            self.close()

    def _run_all(
        self, params_pool: Sequence[Params], params_ids: Sequence[int], num_objectives: int
    ) -> list[Score]:
        scores: dict[int, Score] = {}
        submitted = 0
        while len(scores) < len(params_pool):
            while submitted < len(params_pool) and self.free:
                if self._tracker is not None:
                    self._tracker.pre_objective(params_pool[submitted], task_id=params_ids[submitted])
                self.submit(Task(str(submitted), params_pool[submitted], self.current_generation))
                submitted += 1
            for report in self.poll(_POLL_S):
                index = int(report.task_id)
                score = self._score(report, params_pool[index], params_ids[index], num_objectives)
                scores[index] = score
                if self._tracker is not None:
                    where = {f"{name}_id": value for name, value in report.place.items()}
                    self._tracker.post_objective(score.to_json(), task_id=params_ids[index], **where)
        return [scores[index] for index in range(len(params_pool))]

    def _score(self, report: Report, params: Params, param_id: int, num_objectives: int) -> Score:
        from ciq_ray.utils.validation import Score

        outcome = report.outcome
        values: Any = outcome.values if outcome.ok else self.invalidate_score(num_objectives)
        if outcome.ok and num_objectives == 1:
            values = outcome.values[0]
        normalized: Any = None
        if self.normalize:
            baseline: Any = self.baseline_score
            if baseline is None and report.baseline is not None:
                baseline = report.baseline[0] if num_objectives == 1 else report.baseline
            normalized = values if baseline is None else self.normalize_scores(values, baseline)
        return Score(
            score=values,
            norm_score=normalized,
            params=params,
            metadata="" if outcome.ok else f"{outcome.status}: {outcome.message}",
            param_id=param_id,
            num_objectives=num_objectives,
        )


class MultiProcessWorker(PooledWorker):
    """WorkerTypes.NATIVE: long-lived processes, each of which runs one candidate at a time.

    A process that dies, or is ended at its limit, fails its candidate and is replaced.
    """

    @classmethod
    def _pool_class(cls) -> type[Pool]:
        from ciq_ray.worker.slots import NativePool

        return NativePool


class IsoMultiProcessWorker(PooledWorker):
    """WorkerTypes.ISOLATED: a fresh process for each evaluation.

    For objectives that leak memory or leave something behind that would affect other evaluations.
    The next process starts while the present one works.
    """

    @classmethod
    def _pool_class(cls) -> type[Pool]:
        from ciq_ray.worker.slots import IsolatedPool

        return IsolatedPool


class AsyncWorker(PooledWorker):
    """WorkerTypes.ASYNC: one process whose event loop runs up to `num_workers` coroutines, by default 8.

    The objective must be asynchronous, and must not block the loop.
    """

    @classmethod
    def _pool_class(cls) -> type[Pool]:
        from ciq_ray.worker.async_pool import AsyncPool

        return AsyncPool

    @classmethod
    def _default_workers(cls) -> int:
        return 8
