"""The worker of a Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray._types.worker import Params
from ciq_ray.errors import WorkerError
from ciq_ray.worker.local import PooledWorker
from ciq_ray.worker.payload import check_objective
from ciq_ray.worker.pool import positive_count, positive_seconds
from ciq_ray.worker.protocol import NO_BASELINE, TakesOptions
from ciq_ray.worker.ray_actor import Setup
from ciq_ray.worker.ray_cluster import RayCluster, connected
from ciq_ray.worker.ray_options import ActorOptions, read_options
from ciq_ray.worker.ray_payload import ClusterPickler
from ciq_ray.worker.ray_pool import RayPool

if TYPE_CHECKING:
    from ciq_ray._types.tracker import BaseTracker
    from ciq_ray.utils.validation import Score

__all__ = ["RayWorker"]


class RayWorker(PooledWorker, TakesOptions):
    """WorkerTypes.RAY: long-lived actors on the nodes of a Ray cluster, one candidate at a time in each.

    Uses the Ray that this process is connected to, else that of ``RAY_ADDRESS``, else starts a local
    one and stops it at the end. Every node needs ciq-ray, in the same version as the driver.

    The resources that one evaluation takes are Ray's options for an actor: `num_cpus` (1 by default),
    `num_gpus` (0; then no GPU is visible), `resources`, `memory`, `accelerator_type`, `label_selector`,
    `scheduling_strategy` and `runtime_env`. `max_resends` says how often a candidate is sent again when
    its actor or node dies (3).
    """

    def __init__(
        self,
        cache_folder: str | os.PathLike[str],
        normalize: bool = False,
        tracker: BaseTracker | None = None,
        respects_num_workers: bool = True,
        supports_timeout: bool = True,
    ) -> None:
        super().__init__(cache_folder, normalize, tracker, respects_num_workers, supports_timeout)
        self._options: ActorOptions | None = None
        self._connection = ExitStack()

    @staticmethod
    def hold(num_workers: int | None, options: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Stay connected to Ray over the life of several workers.

        Raises:
            ConfigurationError: An option cannot be used.
            WorkerError: Ray cannot be started or reached.
        """
        return connected(num_workers, read_options(options, warns=False))

    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the options of the class docstring, before `open`; there is a warning for others.

        Raises:
            ConfigurationError: One has a value that it cannot have.
        """
        self._options = read_options(options)

    @property
    def max_resends(self) -> int | None:
        """How often a candidate that was lost is sent again; ``None`` for the engine's own limit."""
        return None if self._options is None else self._options.max_resends

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
        """Get ready to evaluate `function`; see the protocol.

        Without `num_workers` there are as many actors as the cluster has place for.
        """
        if self._pool is not None:
            raise WorkerError("the worker is open already; `close` it first")
        if self._options is None:
            self.configure({})
        options = self._options or ActorOptions()
        check_objective(function, asynchronous=False)
        if num_workers is not None:
            positive_count("num_workers", num_workers)
        pickler = ClusterPickler(function)
        setup = Setup(
            function=pickler.function,
            num_objectives=positive_count("num_objectives", num_objectives),
            task_timeout=positive_seconds("task_timeout", task_timeout),
            baseline=None if baseline_config is NO_BASELINE else pickler.config(baseline_config),
            log_dir=None if log_dir is None else str(Path(log_dir).absolute()),
            folder=None if "working_dir" in options.options.get("runtime_env", {}) else os.getcwd(),
            argv=list(sys.argv),
            sees_gpus=options.options["num_gpus"] > 0,
        )
        with ExitStack() as stack:
            stack.enter_context(connected(num_workers, options))
            self._pool = RayPool(RayCluster(options, setup), pickler, num_workers)
            self._connection = stack.pop_all()

    def close(self) -> None:
        """End all actors, and the Ray that was started for them; see the protocol."""
        try:
            super().close()
        finally:
            self._connection.close()

    def run(
        self,
        *,
        function: Callable[..., Any],
        params_pool: Sequence[Params],
        params_ids: Sequence[int],
        num_function_returns: int = 1,
        num_workers: int | None = None,
        task_timeout: float | None = None,
        **kwargs: Any,
    ) -> list[Score]:
        """Execute the objective function across a pool of parameters.

        With `normalize`, scores are divided by `baseline_score` if that is set; else each actor
        measures a baseline with the empty configuration, ``{}`` or ``""``.

        Args:
            function: The objective; it takes one parameter set.
            params_pool: The parameter sets, each as the objective gets it.
            params_ids: One id for each parameter set; it comes back as `Score.param_id`.
            num_function_returns: How many scores the objective returns.
            num_workers: How many evaluations may run at a time; ``None``: all there is place for.
            task_timeout: Seconds one evaluation may take; then its score is a failed one.
            **kwargs: Ray's resource options, see the class; there is a warning for others.

        Returns:
            One `Score` for each parameter set, in their order. The `metadata` of a failed one says why.

        Raises:
            ConfigurationError: An argument cannot be used, or the objective cannot be sent to a process.
            WorkerError: Ray or its actors cannot be started, or cannot load the objective.
            BaselineError: The baseline failed.
        """
        self.configure(kwargs)
        return super().run(
            function=function,
            params_pool=params_pool,
            params_ids=params_ids,
            num_function_returns=num_function_returns,
            num_workers=num_workers,
            task_timeout=task_timeout,
        )
