"""`Search`: one search from its description to its result."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from ciq_ray._model import Model
from ciq_ray._types.search_configuration import SearchConfiguration
from ciq_ray._types.tracker_configs import DefaultTrackerConfig, TrackerConfig
from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.protocol import Kernel
from ciq_ray.race import Plan
from ciq_ray.spaces import SpaceSource, resolve
from ciq_ray.types import BaseTracker, Worker, WorkerTypes
from searchers.registry import NAMES, refusal
from searchers.space import Space

if TYPE_CHECKING:
    from typing import Self

    from ciq_ray.results import SearchResult

__all__ = ["Search"]

logger = logging.getLogger(__name__)

Params = dict[str, Any] | str | list[dict[str, Any] | str]


def _configuration(value: Any) -> SearchConfiguration:
    return SearchConfiguration.load(value)


def _worker_type(value: Any) -> Any:
    if isinstance(value, type):
        if not issubclass(value, Worker):
            raise ValueError(f"it must be a subclass of Worker, or one of {', '.join(WorkerTypes)}")
        return value
    try:
        return WorkerTypes(value)
    except ValueError:
        raise ValueError(f"it must be one of {', '.join(WorkerTypes)}, or a subclass of Worker") from None


def _cache(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    from ciq_ray.cache import LocalAutotuneCache

    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    if isinstance(value, type) and issubclass(value, LocalAutotuneCache):
        return value
    raise ValueError("it must be None, True, False, a folder, or a subclass of LocalAutotuneCache")


class Search(Model):
    """Your main class to start a search.

    Instantiate it with your objective function, search space and search configuration, then call
    `start` to run the search and retrieve the results.

    Attributes:
        objective_function: A function that takes one configuration and returns a score, or as many as
            `num_objectives` says. It runs in other processes, with a copy of what it refers to;
            imports are best made inside. It may raise `ciq_ray.errors.ObjectiveFailure` to say how a
            candidate failed, or return ``"*"`` for an invalid score.
        search_space: What to search: a dict of parameters, a `searchers.Space`, a path to a
            search-space file, a provider, or a list of such parts. A kernel (`ciq_ray.kernels`) has its own.
        search_config: A `SearchConfiguration`, a dict of its fields, or a path to a ``.config`` file.
        worker_type: Where candidates run: one of `WorkerTypes`, or a `Worker` subclass of yours.
        tracker_config: What is recorded where; or a `BaseTracker` of yours.
        debug: Keep the workers' logs when the search ends.
        cache_folder: Base folder for files that are needed during the run only; they are removed at the
            end unless ``CIQ_KEEP_CACHE=1``. Default: ``~/.cache/ciq_ray``.
        dump_results: Where the results are written as CSV after every batch of `pool_size` evaluations.
        disable_progress_bar: Show no progress.
        exit_on_failure: End with a `RuntimeError` if all candidates of the first generation fail.
        run_id: Number of the run, and name of its folder in ``CIQ_RUNS_DIR``; the next free one if not
            given.
        current_generation: Current generation of the search, from 0.
        searcher: What to try next: a name, a `SpaceSearcher` class, or an instance.
        searcher_options: Options of a searcher given by name or class, and its `effort`; see
            `searchers.create`.
        seed: Of everything random; drawn and recorded if not given.
        constraints: Further constraints on the space; see `searchers.Space`.
        initial_configs: What is evaluated first, for example the configuration in use today. ``None``:
            the space's default, if it has one.
        max_evaluations: How many candidates are evaluated at most.
        time_budget_s: Seconds after which nothing new is evaluated.
        target: A score, or one for each objective; a candidate that reaches it ends the search.
        final_race: Whether to measure the best again when the search is over, side by side with the
            baseline, for a verdict (`SearchResult.verdict`). It calls the objective hundreds of times,
            one call at a time; a `ciq_ray.race.Plan` says how often. The baseline is the first of
            `initial_configs`, else the space's default, else the empty configuration. For a kernel there is
            one unless this is ``False``.
        cache: Whether to begin with the best that earlier searches found on this machine, and to leave
            what this one finds for later ones: ``True``, a folder, or a `LocalAutotuneCache` class such as
            `ciq_ray.cache.StrictLocalAutotuneCache`. Up to 20 configurations are evaluated right after
            `initial_configs`: those of searches for the same (hardware, `specialization_key`, space,
            objective), then those of its neighbours, nearest first by the log distance of the numbers in
            `specialization_key`. ``None``: if the searcher's `initial_population_strategy` is
            FROM_BEST_AVAILABLE, else not. A searcher given as an instance gets nothing from it.
        specialization_key: What the search is for besides its space, such as the shapes and types of the
            kernel's arguments: text, a number, or lists and dicts of them.
        remeasure_every: Generations between re-measurements of the three best, whose labels are then
            replaced by the median of their measurements; 0: never. ``None``: 2, if there is to be a
            final race or the objective reports a spread, else never.

    Raises:
        ConfigurationError: A field has a value it cannot have.
        searchers.SpaceError: The search space cannot be used.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    objective_function: Callable[..., Any]
    search_space: SpaceSource = Field(frozen=True)  # resolved once
    search_config: Annotated[SearchConfiguration, BeforeValidator(_configuration)]
    worker_type: Annotated[Any, BeforeValidator(_worker_type)] = WorkerTypes.NATIVE
    tracker_config: TrackerConfig | BaseTracker = Field(default_factory=DefaultTrackerConfig)
    debug: bool = False
    cache_folder: Path | None = None
    dump_results: Path | None = None
    disable_progress_bar: bool = False
    exit_on_failure: bool = True
    run_id: Annotated[int, Field(ge=0)] | None = None
    current_generation: int = 0
    searcher: Any = "genetic"
    searcher_options: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0)] | None = None
    constraints: Sequence[Any] = Field((), frozen=True)
    initial_configs: Sequence[Any] | None = None
    max_evaluations: Annotated[int, Field(ge=1)] | None = None
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    target: float | Sequence[float] | None = None
    final_race: bool | Plan = False
    cache: Annotated[Any, BeforeValidator(_cache)] = None
    specialization_key: Any = None
    remeasure_every: Annotated[int, Field(ge=0)] | None = None

    _space: Space = PrivateAttr()
    _metadata: list[dict[str, str | int | None]] | None = PrivateAttr(default=None)
    _space_parts: list[dict[str, Any]] | None = PrivateAttr(default=None)
    _resume_folder: Path | None = PrivateAttr(default=None)
    _assigned_run_id: int | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _of_kernel(cls, data: Any) -> Any:
        """What a kernel says of itself, where nothing else is said."""
        kernel = data.get("objective_function") if isinstance(data, dict) else None
        if not isinstance(kernel, Kernel):
            return data
        configs = data.get("initial_configs") or list(kernel.initial_configs) or None
        has_baseline = configs is not None or kernel.space.default is not None
        if not has_baseline and kernel.num_objectives == 1 and data.get("final_race") is None:
            logger.warning(
                "%s has nothing to be compared with, so there is no final race: give its space a `default`, "
                "or `initial_configs`; final_race=False says that none is wanted",
                type(kernel).__name__,
            )
        own = {
            "search_space": kernel.space,
            "initial_configs": configs,
            "final_race": has_baseline and kernel.num_objectives == 1,
        }
        return {**data, **{name: value for name, value in own.items() if data.get(name) is None}}

    @field_validator("searcher", mode="before")
    @classmethod
    def _known_searcher(cls, value: Any) -> Any:
        if isinstance(value, str):
            refused = refusal(value)
            if refused is not None:
                raise ValueError(refused)
        elif not hasattr(value, "ask") or not hasattr(value, "tell"):
            raise ValueError(f"it must be one of {', '.join(NAMES)}, a SpaceSearcher class or an instance")
        return value

    @field_validator("specialization_key")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        from ciq_ray.cache import specialization_text

        specialization_text(value)  # refuses what JSON cannot hold
        return value

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        if self.target is not None:
            goals = self.targets or ()
            if len(goals) != self.search_config.num_objectives or not all(map(math.isfinite, goals)):
                raise ValueError(
                    f"`target` is {self.target!r}; give one finite score for each of "
                    f"{self.search_config.num_objectives} objectives"
                )
        return self

    @model_validator(mode="after")
    def _race_has_one_winner(self) -> Self:
        if self.final_race and self.search_config.num_objectives > 1:
            raise ValueError("`final_race` needs one objective: with several there is no single winner")
        return self

    @model_validator(mode="after")
    def _fits_the_kernel(self) -> Self:
        kernel = self.objective_function
        if isinstance(kernel, Kernel):
            for name in ("num_objectives", "problem_type"):
                wanted, given = getattr(kernel, name), getattr(self.search_config, name)
                if given != wanted:
                    raise ValueError(
                        f"`search_config` has `{name}` {str(given)!r}, and {type(kernel).__name__} has "
                        f"{wanted!r}; give SearchConfiguration({name}={wanted!r})"
                    )
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Resolve the search space, so that a bad one is refused before anything is spent."""
        super().model_post_init(context)
        resolved = resolve(self.search_space, self.constraints)
        self._space, self._metadata, self._space_parts = resolved.space, resolved.metadata, resolved.parts
        for config in self.initial_configs or ():
            self._space.encode(config, nearest=True)

    @property
    def space(self) -> Space:
        """The search space as the searchers see it."""
        return self._space

    @property
    def targets(self) -> tuple[float, ...] | None:
        """`target` as one number for each objective."""
        if self.target is None:
            return None
        return (self.target,) if isinstance(self.target, (int, float)) else tuple(self.target)

    @property
    def search_space_resolution_metadata(self) -> list[dict[str, str | int | None]] | None:
        """One metadata record per resolved provider, or ``None`` if no provider was used."""
        return self._metadata

    def sample(self, num_samples: int = 1) -> list[Params]:
        """Sample from the search space instead of searching it.

        Args:
            num_samples: How many samples to draw; the same one may come twice.

        Returns:
            Parameter sets in the form in which the objective function gets them.

        Raises:
            ConfigurationError: `num_samples` is not a whole number of at least 0.
        """
        import numpy as np

        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 0:
            raise ConfigurationError(
                f"`num_samples` is {num_samples!r}; it must be a whole number, at least 0"
            )
        share = self.search_config.init_with_true_random_threshold
        rows = self._space.sample(num_samples, np.random.default_rng(self.seed), seed_share=share)
        return [self._space.decode(row) for row in rows]

    def start(
        self,
        num_workers: int | None = None,
        task_timeout: int | float | None = None,
        **additional_worker_kwargs: Any,
    ) -> SearchResult:
        """Run the search.

        Prints the run's folder, whose journal outlives whatever happens to this process:
        `Search.resume` and ``ciq resume`` go on from there. Ctrl-C ends the search in good order, with
        a result; a second one at once.

        Args:
            num_workers: How many evaluations may run at a time; as many as there are processors if
                ``None``. Ignored by workers whose `respects_num_workers` is false.
            task_timeout: Seconds that one evaluation may take; then it is stopped, with all processes
                it has started, and counts as a failure.
            **additional_worker_kwargs: For the worker's `run`; a worker that has no use for one says so
                in a warning.

        Returns:
            The results, those of an earlier process included when the search is resumed.

        Raises:
            ConfigurationError: An argument has a value it cannot have.
            SearchFailedError: All candidates of the first generation failed (`exit_on_failure`).
            WorkerError: The worker cannot go on.
            JournalError: The journal cannot be written.
        """
        from ciq_ray.session import Session

        if num_workers is not None and (
            not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 1
        ):
            raise ConfigurationError(
                f"`num_workers` is {num_workers!r}; it must be a whole number, at least 1"
            )
        number = isinstance(task_timeout, (int, float)) and not isinstance(task_timeout, bool)
        if task_timeout is not None and not (number and 0 < task_timeout < math.inf):
            raise ConfigurationError(
                f"`task_timeout` is {task_timeout!r}; it must be a number of seconds above 0"
            )
        return Session(self, num_workers, task_timeout, additional_worker_kwargs, self._resume_folder).run()

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        objective_function: Callable[..., Any] | None = None,
        *,
        force: bool = False,
        **fields: Any,
    ) -> Self:
        """A search that goes on where an earlier one ended, orderly or not.

        `start` then replays the journal, so that nothing in it is evaluated again, and continues with
        the number of workers and the timeout of before unless others are given.

        Args:
            path: The run's folder, or its journal.
            objective_function: The objective; by default it is imported from the script that began
                the run, which must not have changed since.
            force: Import a script that has changed.
            **fields: Fields of `Search` that replace those of the run, such as `max_evaluations`; needed
                for what the journal cannot hold, such as constraints or searchers of your own.

        Raises:
            JournalError: There is no such journal, or it does not say enough; the message says what to
                give.
        """
        from ciq_ray.resuming import fields_of

        folder, restored = fields_of(Path(path), objective_function, fields, force=force)
        search = cls(**restored)
        search._resume_folder = folder
        return search
