"""The documented base class of trackers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ciq_ray._types.enums import TrackerTypes

if TYPE_CHECKING:
    from ciq_ray._types.tracker_configs import TrackerConfig
    from ciq_ray._types.worker import Params

__all__ = ["BaseTracker"]


class BaseTracker(ABC):
    """Base class for experiment trackers.

    Trackers receive lifecycle callbacks during a search, allowing implementations to log
    parameters, scores, and metadata to any backend (files, MLflow, etc.).

    Lifecycle, in call order::

        setup
        search_starts
            generation_starts                     # for each generation
                pre_objective, post_objective     # for each evaluation
            generation_ends
        search_ends
        cleanup

    Args:
        tracker_config: What to track and where to. A defensive copy is kept; streams and callables
            in it are shared, since a copy of them would record elsewhere.

    Attributes:
        tracker_config: The tracker's own copy of its configuration.
        tracker_type: Which kind of tracker the configuration asks for.
        kwargs: What `setup` was called with last.
        search_title: A title for people, if the search has one.
    """

    tracker_config: TrackerConfig
    tracker_type: TrackerTypes
    kwargs: dict[str, Any]
    search_title: str | None = None

    def __init__(self, tracker_config: TrackerConfig) -> None:
        self.tracker_config = tracker_config.model_copy(
            update={name: _defensive_copy(value) for name, value in tracker_config}
        )
        self.tracker_type = TrackerTypes(tracker_config.type)
        self.kwargs = {}
        self.setup()

    def setup(self, **kwargs: Any) -> None:
        """Initialize tracker resources (logging sinks, connections, etc.).

        Called once during ``__init__`` and again inside worker subprocesses that need to
        re-establish tracker state.
        """
        self.kwargs = kwargs

    def cleanup(self, **kwargs: Any) -> None:  # noqa: B027 - not every tracker holds resources
        """Release tracker resources. Called once after the search completes."""

    @abstractmethod
    def search_starts(self, **kwargs: Any) -> None:
        """Called when the search begins, before any generations run."""

    @abstractmethod
    def search_ends(self, **kwargs: Any) -> None:
        """Called when the search finishes, after all generations complete."""

    @abstractmethod
    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        """Called at the start of each generation."""

    @abstractmethod
    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        """Called at the end of each generation."""

    @abstractmethod
    def pre_objective(self, config: Params, **kwargs: Any) -> None:
        """Called before each objective function evaluation.

        Args:
            config: The parameters being evaluated.
            **kwargs: Worker-specific metadata (e.g., `task_id`, `node_id`).
        """

    @abstractmethod
    def post_objective(self, scores: str, **kwargs: Any) -> None:
        """Called after each objective function evaluation.

        Args:
            scores: JSON-serialized `Score` from the evaluation.
            **kwargs: Worker-specific metadata (e.g., `task_id`).
        """


def _defensive_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defensive_copy(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_defensive_copy(item) for item in value)
    # a copied StringIO, or the copied owner of a bound method, would swallow what is logged to it
    if callable(value) or hasattr(value, "write"):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:
        return value
