"""What a tracker may know of a run beyond the documented life cycle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray._types.tracker import BaseTracker

if TYPE_CHECKING:
    from ciq_ray.results import SearchResult

__all__ = ["RunTracker"]


class RunTracker(BaseTracker):
    """A tracker that is told of the run as a whole, and gives each evaluation a context.

    The events of `BaseTracker` come as for any other tracker; `post_objective` also gets the whole
    `ciq_ray.engine.Evaluation` as ``evaluation``. The hooks below are called by the thread that drives the
    search, around those events::

        setup
        run_opened                  # before worker processes start
            (events, task_context)
        run_closed                  # after everything, the final race included
    """

    @abstractmethod
    def run_opened(self, folder: Path, header: Mapping[str, Any]) -> None:
        """The run has a folder and a journal.

        Args:
            folder: The run's folder.
            header: The first record of its journal.
        """

    @abstractmethod
    def task_context(self, task_id: str, measurement: int) -> Mapping[str, str]:
        """Environment variables for one evaluation, which is about to be sent.

        Args:
            task_id: The candidate's id.
            measurement: How often it was measured before.
        """

    @abstractmethod
    def settle(self, stop_requested: Callable[[], bool]) -> None:
        """Return when nothing is going on in the background: something is to be timed.

        Args:
            stop_requested: Whether the user does not want to wait; what is left is then done later.
        """

    @abstractmethod
    def run_closed(
        self,
        result: SearchResult | None,
        error: BaseException | None,
        stop_requested: Callable[[], bool],
    ) -> None:
        """Nothing more will come of this run.

        Args:
            result: What was found, with the verdict of the final race; ``None`` if it never began.
            error: What ended it, if anything did.
            stop_requested: Whether the user does not want to wait.
        """
