"""An experiment of Ray Tune with defaults for many short trials."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from threadpoolctl import threadpool_limits

from ciq_ray.errors import ConfigurationError
from ciq_ray.spaces import SpaceSource, resolve
from ciq_ray.tune.batching import BatchSearcher
from ciq_ray.tune.mlflow_callback import MLflowCallback
from ciq_ray.tune.objective import row_of, trainable
from ciq_ray.worker.ray_cluster import ray_session
from searchers.base import SpaceSearcher
from searchers.registry import create
from searchers.space import Space
from searchers.tune_domains import from_param_space
from searchers.tune_journal import read_results

__all__ = ["JOURNAL", "run", "run_config", "tune_config"]

JOURNAL: Final = "ciq_results.jsonl"
"""The searcher's journal, in the experiment's folder."""

_SENT_AGAIN: Final = 3
_NO_LOGGERS: Final = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"
_NEW_OUTPUT: Final = "RAY_AIR_NEW_OUTPUT"
"""With 0 Ray Tune prints as it did before; the new way has a banner that ``verbose=0`` leaves."""


def run(
    objective: Callable[[Any], Any],
    space: SpaceSource,
    *,
    num_samples: int,
    searcher: str | SpaceSearcher = "auto",
    metric: str | Sequence[str] = "score",
    mode: str | Sequence[str] = "min",
    seed: int | None = None,
    task_timeout: float | None = None,
    in_process: bool = False,
    repeats: int = 1,
    resources: Mapping[str, float] | None = None,
    label_selector: Mapping[str, str] | None = None,
    max_concurrent_trials: int | None = None,
    batch: int | None = None,
    scheduler: TrialScheduler | None = None,
    time_budget_s: float | None = None,
    storage_path: str | os.PathLike[str] | None = None,
    name: str | None = None,
    callbacks: Sequence[tune.Callback] = (),
    verbose: int = 0,
) -> tune.ResultGrid:
    """Run a whole experiment of Ray Tune.

    With a `storage_path` on this machine each result is written to a journal in the experiment's folder as
    it comes. After an interruption, ``kill -9`` included, the same call with the same `name` goes on:
    nothing that is in the journal is evaluated again, and all of it counts as part of `num_samples`. An
    `MLflowCallback` goes on in the experiment's run, too.

    Uses the Ray that this process is connected to, else that of ``RAY_ADDRESS``, else starts a local one.

    Args:
        objective: See `ciq_ray.tune.trainable`.
        space: What `ciq_ray.Search` takes, or a dict with Ray Tune's domains.
        num_samples: How many configurations to evaluate, -1 for all that the searcher has.
        searcher: A name of `searchers.registry.NAMES`, or a searcher that has a metric and a space.
        metric: See `ciq_ray.tune.trainable`; of no use with a searcher that has its own, like `mode`.
        mode: ``"min"`` or ``"max"``, or one for each metric.
        seed: Of the searcher.
        task_timeout: See `ciq_ray.tune.trainable`, like the next four.
        in_process: Call the objective in the trial's actor.
        repeats: How often to evaluate a configuration.
        resources: What a trial takes.
        label_selector: Where trials may run.
        max_concurrent_trials: How many run at a time; by default as many as the cluster has room for at the
            beginning.
        batch: How many configurations go into a trial; by default 1 with a scheduler, which compares
            trials, else what `BatchSearcher` computes.
        scheduler: One of Ray Tune's.
        time_budget_s: Seconds after which the experiment ends.
        storage_path: Where the experiment's folder is made; ``~/ray_results`` by default.
        name: The folder's name; by default made of the objective's name and the time.
        callbacks: Ray Tune's, such as `ciq_ray.tune.MLflowCallback`. They are told of trials: with
            ``batch=1`` that is of each configuration. `MLflowCallback` has a run for each in any case.
        verbose: As Ray Tune has it; with 0 it prints nothing.

    Returns:
        Ray Tune's results; `to_search_result` makes a `SearchResult` of them, with a row for each
        configuration also where several were in one trial.

    Raises:
        ConfigurationError: An argument cannot be used, or ``RAY_ADDRESS`` is that of a Ray Client.
        WorkerError: Ray cannot be started or reached.
    """
    if (
        isinstance(num_samples, bool)
        or not isinstance(num_samples, int)
        or num_samples < -1
        or not num_samples
    ):
        raise ConfigurationError(f"`num_samples` is {num_samples!r}; it must be above 0, or -1 for no limit")
    inner = _searcher(searcher, space, metric, mode, seed)
    known: Space = inner.space  # type: ignore[assignment]
    kind = trainable(
        objective,
        metric=inner.metric,
        mode=inner.mode,
        task_timeout=task_timeout,
        in_process=in_process,
        repeats=repeats,
        resources=resources,
        label_selector=label_selector,
        unwrap=not isinstance(known.parameters, Mapping) or known.render is not None,
    )
    name = name or f"{kind.__name__}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    folder = os.fspath(storage_path) if storage_path is not None else str(Path.home() / "ray_results")
    if "://" not in folder:
        folder = str(Path(folder).absolute())
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        _go_on(inner, Path(folder) / name, callbacks)
    with ray_session(), _quiet(verbose), threadpool_limits(1):  # the cores belong to the trials
        at_once = max_concurrent_trials or _room(kind)
        search = BatchSearcher(
            inner,
            evaluations=None if num_samples < 0 else num_samples,
            batch=1 if scheduler is not None and batch is None else batch,
            at_once=at_once,
        )
        tuner = tune.Tuner(
            kind,
            tune_config=tune_config(
                search, max_concurrent_trials=at_once, scheduler=scheduler, time_budget_s=time_budget_s
            ),
            run_config=run_config(name, folder, callbacks=callbacks, verbose=verbose),
        )
        return tuner.fit()


def tune_config(
    searcher: Searcher,
    *,
    max_concurrent_trials: int,
    num_samples: int = -1,
    metric: str | None = None,
    mode: str | None = None,
    scheduler: TrialScheduler | None = None,
    time_budget_s: float | None = None,
) -> tune.TuneConfig:
    """A ``TuneConfig`` for many short trials: actors are kept, and names are short.

    Args:
        searcher: One of ours, or a `BatchSearcher`.
        max_concurrent_trials: How many run at a time.
        num_samples: How many trials; by default until the searcher has no more.
        metric: By default the searcher's, if it has one.
        mode: By default the searcher's.
        scheduler: One of Ray Tune's.
        time_budget_s: Seconds after which the experiment ends.
    """
    if metric is None and isinstance(searcher.metric, str):  # a list is for the searcher alone
        metric, mode = searcher.metric, searcher.mode
    return tune.TuneConfig(
        search_alg=searcher,
        metric=metric,
        mode=mode,
        scheduler=scheduler,
        num_samples=num_samples,
        time_budget_s=time_budget_s,
        max_concurrent_trials=max_concurrent_trials,
        reuse_actors=True,
        trial_name_creator=_trial_name,
        trial_dirname_creator=_trial_name,
    )


def run_config(
    name: str | None = None,
    storage_path: str | os.PathLike[str] | None = None,
    *,
    callbacks: Sequence[tune.Callback] = (),
    verbose: int = 0,
) -> tune.RunConfig:
    """A ``RunConfig`` for many short trials: no files for each, no checkpoints, lost trials run again.

    The objective's failures are results, so that a trial of `ciq_ray.tune.trainable` only fails with its
    actor or node: it is run again up to three times.

    Sets ``TUNE_DISABLE_AUTO_CALLBACK_LOGGERS`` in this process's environment, unless it is set already,
    since Ray Tune has no other switch.

    Args:
        name: The folder of the experiment.
        storage_path: Where it is made.
        callbacks: Ray Tune's.
        verbose: As Ray Tune has it; 0 for the least it prints, and with ``RAY_AIR_NEW_OUTPUT=0`` in the
            environment nothing.
    """
    os.environ.setdefault(_NO_LOGGERS, "1")
    return tune.RunConfig(
        name=name,
        storage_path=None if storage_path is None else os.fspath(storage_path),
        callbacks=list(callbacks),
        verbose=verbose,
        failure_config=tune.FailureConfig(max_failures=_SENT_AGAIN, fail_fast=False),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )


def _searcher(
    searcher: str | SpaceSearcher,
    space: SpaceSource,
    metric: str | Sequence[str],
    mode: str | Sequence[str],
    seed: int | None,
) -> SpaceSearcher:
    resolved = Space(from_param_space(space)) if isinstance(space, Mapping) else resolve(space).space
    if not isinstance(searcher, SpaceSearcher):
        if not isinstance(searcher, str):
            raise ConfigurationError(f"`searcher` is {searcher!r}; give a name or one of ours")
        return create(searcher, resolved, metric=metric, mode=mode, seed=seed)
    if searcher.metric is None or searcher.space is None:
        raise ConfigurationError("`searcher` has no metric or no space; give it both, or give its name")
    if searcher.space.fingerprint != resolved.fingerprint:
        raise ConfigurationError("`space` is another one than the searcher's; give the same")
    return searcher


def _go_on(searcher: SpaceSearcher, folder: Path, callbacks: Sequence[tune.Callback]) -> None:
    """Have the searcher and MLflow go on where an earlier call in this folder was, if any."""
    journal = folder / JOURNAL
    searcher.keep_journal(journal)
    names = [searcher.metric] if isinstance(searcher.metric, str) else list(searcher.metric or ())
    for callback in callbacks:
        if isinstance(callback, MLflowCallback):
            results = read_results(journal) if journal.exists() else []
            callback.keep_link(
                folder, [(trial, config, row_of(outcome, names)) for trial, config, outcome in results]
            )


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


def _room(kind: type[tune.Trainable]) -> int:
    """How many trials the cluster has room for now, at least one."""
    total = ray.cluster_resources()
    (bundle,) = kind.default_resource_request({}).bundles
    fits = [int(total.get(name, 0) / needed) for name, needed in bundle.items() if needed]
    return max(1, min(fits, default=os.cpu_count() or 1))


@contextlib.contextmanager
def _quiet(verbose: int) -> Iterator[None]:
    """Without loggers and, if so wished, a banner; without a complaint about each trial that has no file."""

    def wanted(record: logging.LogRecord) -> bool:
        return "Failed to fetch metrics" not in record.getMessage()

    analysis = logging.getLogger("ray.tune.analysis.experiment_analysis")
    analysis.addFilter(wanted)
    meanwhile = {_NO_LOGGERS: "1"} if verbose else {_NO_LOGGERS: "1", _NEW_OUTPUT: "0"}
    added = {name: value for name, value in meanwhile.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        analysis.removeFilter(wanted)
        for name in added:
            os.environ.pop(name, None)
