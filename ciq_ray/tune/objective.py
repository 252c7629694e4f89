"""An objective as a class trainable of Ray Tune.

A trial's result has the objective's values under the names of the metrics, and the fields of its
`searchers.Outcome` under names that begin with ``ciq_``. A failure is such a result too, with NaN for each
metric: a trial that raises costs Ray Tune its process, and the next one waits seconds for another.
"""

from __future__ import annotations

import math
import os
import pickle
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import ray
from ray import tune

from ciq_ray.errors import ConfigurationError
from ciq_ray.worker.child import failure, judge
from ciq_ray.worker.payload import check_objective
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.ray_payload import ClusterPickler, Packed
from ciq_ray.worker.slots import NativePool
from searchers.errors import OptionError
from searchers.metrics import check_metrics
from searchers.outcome import FAILURES, OK, Outcome

__all__ = ["BATCH", "ROWS", "batch_of", "row_of", "trainable"]

BATCH: Final = "ciq_batch"
"""Key of a trial's configuration: the list of the configurations it is to evaluate."""
ROWS: Final = "ciq_rows"
"""Key of its result then: the list of what came of them, a result each."""

_POLL_S: Final = 1.0


@dataclass(frozen=True)
class _Recipe:
    """What `trainable` was given, checked."""

    function: bytes
    metrics: tuple[str, ...]
    modes: tuple[str, ...]
    task_timeout: float | None
    in_process: bool
    repeats: int
    unwrap: bool
    resources: tune.PlacementGroupFactory


def trainable(
    objective: Callable[[Any], Any],
    *,
    metric: str | Sequence[str] = "score",
    mode: str | Sequence[str] = "min",
    task_timeout: float | None = None,
    in_process: bool = False,
    repeats: int = 1,
    resources: Mapping[str, float] | None = None,
    label_selector: Mapping[str, str] | None = None,
    unwrap: bool = False,
) -> type[tune.Trainable]:
    """An objective as a class for ``ray.tune.Tuner``, ``tune.run`` and `Tuner.restore`.

    The objective is what `ciq_ray.Search` takes: a function of a configuration that returns a number (or
    several, or a `searchers.Outcome`) and may raise anything. It runs in a process of its own inside the
    trial's actor, so that one that hangs, crashes or leaks does not cost Ray Tune the actor. That process
    lives on for the next trial if the experiment has ``reuse_actors=True``. Modules beside the script go
    with it to other nodes, as they do with `ciq_ray.Search`.

    Args:
        objective: The objective.
        metric: The name of its value in a trial's result, or one for each value.
        mode: ``"min"`` or ``"max"``, or one for each: which of several candidates in a trial is its best.
        task_timeout: Seconds that one evaluation may take; then its process group is killed, and the
            result is a ``run_timeout``.
        in_process: Call it in the actor itself: no process of its own, no limit, no protection.
        repeats: How often to evaluate a configuration. Each is a step of the trial, whose metrics are the
            medians so far, so that a scheduler can end the trial before the last.
        resources: What a trial takes, in Ray's names: ``{"cpu": 1, "gpu": 0.5}``; by default one CPU. A
            trial without a GPU sees none.
        label_selector: Labels of the nodes that trials may run on, as of Ray's actors:
            ``{"pool": "gpu"}``.
        unwrap: Hand over ``config["config"]``, in which a searcher passes what is not a dict.

    Returns:
        A class with the objective's name.

    Raises:
        ConfigurationError: An argument cannot be used, or the objective cannot be pickled.
    """
    check_objective(objective, asynchronous=False)
    try:
        names, modes = check_metrics(metric, mode)
    except OptionError as error:
        raise ConfigurationError(str(error)) from error
    if names is None:
        raise ConfigurationError(f"`metric` is {metric!r}; it must be a name or a list of names")
    if in_process and task_timeout is not None:
        raise ConfigurationError(
            f"`task_timeout` is {task_timeout!r} and `in_process` is True; only a process of its own can be "
            "ended, so leave one of the two out"
        )
    if task_timeout is not None and not 0 < task_timeout < math.inf:
        raise ConfigurationError(f"`task_timeout` is {task_timeout!r}; it must be seconds above 0, or None")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ConfigurationError(f"`repeats` is {repeats!r}; it must be an integer above 0")
    recipe = _Recipe(
        ClusterPickler(objective).function,
        tuple(names),
        tuple(modes),
        task_timeout,
        in_process,
        repeats,
        unwrap,
        _group(resources, label_selector),
    )
    # a class made here is pickled with what it holds, once for the experiment
    name = getattr(objective, "__name__", type(objective).__name__)
    return type(name, (_ObjectiveTrainable,), {"recipe": recipe, "__doc__": objective.__doc__})


def _group(
    resources: Mapping[str, float] | None, label_selector: Mapping[str, str] | None
) -> tune.PlacementGroupFactory:
    bundle = {"cpu": 1} if resources is None else dict(resources)
    names = {"cpu": "CPU", "gpu": "GPU"}
    for name, value in bundle.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(name, str) or not is_number or not 0 <= value < math.inf:
            raise ConfigurationError(
                f"`resources` has {name!r}: {value!r}; give a number of at least 0 for each name, such as "
                '{"cpu": 1, "gpu": 0.5}'
            )
    selector = dict(label_selector or {})
    if not all(isinstance(text, str) for item in selector.items() for text in item):
        raise ConfigurationError(f"`label_selector` is {label_selector!r}; give texts for texts")
    return tune.PlacementGroupFactory(
        [{names.get(name, name): value for name, value in bundle.items()}],
        **({"bundle_label_selector": [selector]} if selector else {}),
    )


class _ObjectiveTrainable(tune.Trainable):  # type: ignore[misc]  # Ray publishes no types
    """What `trainable` derives from; `recipe` is the subclass's."""

    recipe: ClassVar[_Recipe]

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What a trial takes; Ray Tune asks."""
        return cls.recipe.resources

    def setup(self, config: dict[str, Any]) -> None:
        """Start the process; Ray Tune calls it once for each actor."""
        _hide_unassigned_gpus()
        self._pool: NativePool | None = None
        if self.recipe.in_process:
            self._function: Callable[[Any], Any] = pickle.loads(self.recipe.function)
        else:
            self._pool = NativePool(
                Packed(self.recipe.function),
                num_workers=1,
                task_timeout=self.recipe.task_timeout,
                num_objectives=len(self.recipe.metrics),
                # in the actor's folder, since Ray Tune kills actors, which then tidy up nothing
                log_dir=Path(self.logdir) / "output",
            )
        self._calls = 0
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another trial in this actor."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate the trial's configuration once, or each of its batch as often as it takes."""
        if self._batch is not None:
            rows = [row_of(self._repeated(config), self.recipe.metrics) for config in self._batch]
            return {**self._best(rows), ROWS: rows, "done": True}
        self._outcomes.append(self._evaluate(self._own))
        outcome = _median(self._outcomes)
        done = not outcome.ok or len(self._outcomes) >= self.recipe.repeats
        return {**row_of(outcome, self.recipe.metrics), "done": done}

    def cleanup(self) -> None:
        """End the process; Ray Tune calls it at the end of the actor."""
        if self._pool is not None:
            self._pool.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial that is interrupted is evaluated anew."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, too."""

    # -- one trial ----------------------------------------------------------------------------------

    def _begin(self, config: dict[str, Any]) -> None:
        self._batch = batch_of(config)
        self._own = config
        self._outcomes: list[Outcome] = []

    def _evaluate(self, config: dict[str, Any]) -> Outcome:
        argument = config["config"] if self.recipe.unwrap else config
        if self._pool is None:
            return self._called(argument)
        self._calls += 1
        self._pool.submit(Task(str(self._calls), argument))
        while True:
            for report in self._pool.poll(_POLL_S):
                return report.outcome

    def _called(self, argument: Any) -> Outcome:
        started = time.perf_counter()
        try:
            result = judge(self._function(argument), len(self.recipe.metrics))
        except (Exception, SystemExit) as error:
            result = failure(error, FAILURES)
        status, values, message, _, details = result
        run_s = time.perf_counter() - started
        return Outcome(status, values, message=message, **{"run_s": run_s, **details})

    def _repeated(self, config: dict[str, Any]) -> Outcome:
        outcomes: list[Outcome] = []
        while len(outcomes) < self.recipe.repeats and all(outcome.ok for outcome in outcomes):
            outcomes.append(self._evaluate(config))
        return _median(outcomes)

    # -- results ------------------------------------------------------------------------------------

    def _best(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The best value of each metric among the rows of a batch; what went wrong, if all did."""
        passed = [row for row in rows if row["ciq_status"] == OK]
        if not passed:
            return {**{name: math.nan for name in self.recipe.metrics}, **_said(rows[0])}
        best = {
            name: (min if mode == "min" else max)(row[name] for row in passed)
            for name, mode in zip(self.recipe.metrics, self.recipe.modes, strict=True)
        }
        return {**best, **_said(passed[0])}


def row_of(outcome: Outcome, metrics: Sequence[str]) -> dict[str, Any]:
    """An outcome as Ray Tune's result, which must have each metric."""
    values = outcome.values if outcome.ok else (math.nan,) * len(metrics)
    row: dict[str, Any] = dict(zip(metrics, values, strict=True))
    row |= {f"ciq_{name}": value for name, value in outcome.to_dict().items() if name != "values"}
    row.setdefault("ciq_message", "")
    if "ciq_spread" in row and len(values) == 1:
        (row["ciq_spread"],) = row["ciq_spread"]
    return row


def _said(row: dict[str, Any]) -> dict[str, Any]:
    return {"ciq_status": row["ciq_status"], "ciq_message": row["ciq_message"]}


def _median(outcomes: list[Outcome]) -> Outcome:
    """The last outcome, with the medians of all if it is a success among several."""
    last = outcomes[-1]
    if len(outcomes) == 1 or not last.ok:
        return last
    columns = list(zip(*(outcome.values for outcome in outcomes), strict=True))
    return replace(
        last,
        values=tuple(map(statistics.median, columns)),
        spread=tuple(map(statistics.stdev, columns)),
        samples=len(outcomes),
    )


def batch_of(config: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The configurations of a trial of several, with the constants of ``param_space``; else ``None``."""
    if BATCH not in config:
        return None
    constants = {name: value for name, value in config.items() if name != BATCH}
    return [_merged(constants, part) for part in config[BATCH]]


def _merged(constants: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The constants of ``param_space`` under a configuration, in depth."""
    merged = dict(constants)
    for name, value in config.items():
        under = constants.get(name)
        nested = isinstance(value, dict) and isinstance(under, dict)
        merged[name] = _merged(under, value) if nested else value  # type: ignore[arg-type]
    return merged


def _hide_unassigned_gpus() -> None:
    """Have the objective see no GPU if Ray gave the trial none; Ray itself shows all of them then."""
    if ray.is_initialized() and not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
