"""The documented base class of workers."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from ciq_ray._types.enums import INVALID_SCORE, Scores, ScoreValue
from ciq_ray.errors import ConfigurationError, ScoreError

if TYPE_CHECKING:
    from ciq_ray._types.tracker import BaseTracker
    from ciq_ray.utils.validation import Score

__all__ = ["Params", "Worker"]

Params: TypeAlias = dict[str, Any] | str | list[dict[str, Any] | str]
"""What an objective is called with: a dict, a compiler's text, or a list of such parts."""


class Worker(ABC):
    """Minimal specification for a worker.

    A subclass implements `run` and `create`; it can then be given to a search as its `worker_type`.

    Args:
        cache_folder: Where the worker may keep files while the search runs.
        normalize: Whether scores are divided by a baseline that the worker measures.
        tracker: What is told about each evaluation; ``None`` for nothing.
        respects_num_workers: Whether `run` makes use of its `num_workers`.
        supports_timeout: Whether `run` takes a `task_timeout`, in seconds, and enforces it.

    Raises:
        ConfigurationError: `cache_folder` is not a path.
    """

    def __init__(
        self,
        cache_folder: str | os.PathLike[str],
        normalize: bool = False,
        tracker: BaseTracker | None = None,
        respects_num_workers: bool = False,
        supports_timeout: bool = False,
    ) -> None:
        if not isinstance(cache_folder, (str, os.PathLike)):
            raise ConfigurationError(f"`cache_folder` is {cache_folder!r}; it must be a str or a path")
        self._cache_folder = cache_folder
        self._normalize = bool(normalize)
        self._tracker = tracker
        self._respects_num_workers = bool(respects_num_workers)
        self._supports_timeout = bool(supports_timeout)
        self._baseline_score: Scores | None = None
        self._current_generation = 0

    @property
    def normalize(self) -> bool:
        """Whether normalization should be applied."""
        return self._normalize

    @property
    def baseline_score(self) -> Scores | None:
        """The baseline score used for normalization; ``None`` until there is one."""
        return self._baseline_score

    @baseline_score.setter
    def baseline_score(self, value: Scores | None) -> None:
        self._baseline_score = value

    @property
    def cache_dir(self) -> str | os.PathLike[str]:
        """The cache directory for this worker."""
        return self._cache_folder

    @property
    def current_generation(self) -> int:
        """The current generation number, starting at 0."""
        return self._current_generation

    @current_generation.setter
    def current_generation(self, value: int) -> None:
        self._current_generation = value

    @property
    def tracker(self) -> BaseTracker:
        """The tracker instance; one that does nothing if none was given."""
        if self._tracker is None:
            from ciq_ray.tracker import DisabledTracker

            self._tracker = DisabledTracker()
        return self._tracker

    @property
    def respects_num_workers(self) -> bool:
        """Whether this worker respects the `num_workers` parameter on its `run` method."""
        return self._respects_num_workers

    @property
    def supports_timeout(self) -> bool:
        """Whether this worker supports the `task_timeout` parameter on its `run` method."""
        return self._supports_timeout

    @abstractmethod
    def run(
        self,
        *,
        function: Callable[..., Any],
        params_pool: Sequence[Params],
        params_ids: Sequence[int],
        num_function_returns: int = 1,
        num_workers: int = 1,
        **kwargs: Any,
    ) -> list[Score]:
        """Execute the objective function across a pool of parameters.

        Args:
            function: The objective; it takes one parameter set.
            params_pool: The parameter sets, each as the objective gets it.
            params_ids: One id for each parameter set; it comes back as `Score.param_id`.
            num_function_returns: How many scores the objective returns.
            num_workers: How many evaluations may run at a time.
            **kwargs: Whatever else the worker understands, `task_timeout` for one.

        Returns:
            One `Score` for each parameter set.
        """

    @classmethod
    @abstractmethod
    def create(
        cls, cache_folder: str | os.PathLike[str], normalize: bool, tracker: BaseTracker | None
    ) -> Worker:
        """Construct a worker instance with the given configuration."""

    @overload
    @staticmethod
    def normalize_scores(current_score: ScoreValue, baseline_score: ScoreValue) -> ScoreValue: ...

    @overload
    @staticmethod
    def normalize_scores(
        current_score: list[ScoreValue] | tuple[ScoreValue, ...],
        baseline_score: list[ScoreValue] | tuple[ScoreValue, ...],
    ) -> list[ScoreValue] | tuple[ScoreValue, ...]: ...

    @overload
    @staticmethod
    def normalize_scores(current_score: Scores, baseline_score: Scores) -> Scores: ...

    @staticmethod
    def normalize_scores(current_score: Scores, baseline_score: Scores) -> Scores:
        """Divide scores by the baseline's, as there may be run-to-run variations.

        Args:
            current_score: The current score(s) to be normalized.
            baseline_score: The baseline score(s) used for normalization, as many as current ones.

        Returns:
            ``current / baseline`` for each score, a list for a list and a tuple for a tuple. An
            invalid score, or a ratio that is not finite, gives `INVALID_SCORE`.

        Raises:
            ScoreError: The baseline is zero, invalid or not a number, a current score is not a
                score, or there are not as many of one as of the other.
        """
        if isinstance(current_score, (list, tuple)) != isinstance(baseline_score, (list, tuple)):
            raise ScoreError(
                f"`current_score` is {current_score!r} and `baseline_score` is {baseline_score!r}; "
                "both must be one score, or both a list of as many"
            )
        if not isinstance(current_score, (list, tuple)) or not isinstance(baseline_score, (list, tuple)):
            return _ratio(current_score, baseline_score)
        if len(current_score) != len(baseline_score):
            raise ScoreError(
                f"`current_score` has {len(current_score)} scores and `baseline_score` has "
                f"{len(baseline_score)}; they must have as many"
            )
        ratios = [_ratio(score, base) for score, base in zip(current_score, baseline_score, strict=True)]
        return ratios if isinstance(current_score, list) else tuple(ratios)

    @staticmethod
    def invalidate_score(num_objectives: int) -> Scores:
        """Return an invalid score for the given number of objectives.

        Returns:
            `INVALID_SCORE` for one objective, a tuple of as many of them for several.

        Raises:
            ConfigurationError: `num_objectives` is not a positive integer.
        """
        if not isinstance(num_objectives, int) or isinstance(num_objectives, bool) or num_objectives < 1:
            raise ConfigurationError(f"`num_objectives` is {num_objectives!r}; it must be an integer above 0")
        if num_objectives == 1:
            return INVALID_SCORE
        return tuple(INVALID_SCORE for _ in range(num_objectives))


def _ratio(score: Any, baseline: Any) -> ScoreValue:
    if not _is_number(baseline) or not baseline or not _finite(baseline):
        raise ScoreError(
            f"`baseline_score` is {baseline!r}; scores can only be divided by a finite number other than 0: "
            "check what the baseline configuration measures, or search without `normalize`"
        )
    if score == INVALID_SCORE:
        return INVALID_SCORE
    if not _is_number(score):
        raise ScoreError(f'`current_score` is {score!r}; it must be a number, or "*" for an invalid score')
    try:
        ratio = float(score / baseline)
    except OverflowError:
        return INVALID_SCORE
    return ratio if math.isfinite(ratio) else INVALID_SCORE


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
