"""Several configurations in one trial of Ray Tune, while evaluations are short."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any, Final

from ray.tune.search import Searcher

from ciq_ray.errors import ConfigurationError
from ciq_ray.tune.objective import BATCH, ROWS
from searchers.base import SpaceSearcher

__all__ = ["BatchSearcher"]

TRIAL_S: Final = 0.4
"""What a trial of several configurations should take: ten times what it costs Ray Tune (30 to 40 ms)."""
MOST: Final = 64
"""Configurations in one trial at most: a searcher learns nothing before all of them are back."""
_RECENT: Final = 32
_SMALLEST_PART: Final = 8


class BatchSearcher(Searcher):  # type: ignore[misc]  # Ray publishes no types
    """A searcher of ours that puts several configurations into one trial.

    How many is computed from the median time of the last evaluations, so that a trial takes about 0.4
    seconds, and is 64 at most; evaluations that take longer than that come alone, as without this class.
    The first ones do, too, since nothing is known of their time. Trials of several come as
    ``config["ciq_batch"]``, a list, which the class from `ciq_ray.tune.trainable` understands; each
    candidate's outcome is told to the searcher, and kept in its journal, as if it had been a trial.

    It may be given a budget, since Ray Tune's ``num_samples`` counts trials.

    Args:
        searcher: One of ours.
        evaluations: How many candidates in all, those included that the searcher's journal knows; ``None``
            for no limit.
        batch: How many go into a trial; ``None`` to compute it.
        at_once: How many trials run at a time: the last candidates are shared among so many.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
    """

    def __init__(
        self,
        searcher: SpaceSearcher,
        *,
        evaluations: int | None = None,
        batch: int | None = None,
        at_once: int = 1,
    ) -> None:
        if not isinstance(searcher, SpaceSearcher):
            raise ConfigurationError(f"`searcher` is {searcher!r}; give one from `searchers.create`")
        for name, value in {"evaluations": evaluations, "batch": batch, "at_once": at_once}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"`{name}` is {value!r}; it must be an integer above 0")
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher  # Ray Tune looks for this name when it saves and restores
        self.evaluations = evaluations
        self.batch = batch
        self.at_once = at_once
        # what it was told of beforehand is no part of the budget
        self._known_before = searcher.n_begun + len(searcher._evaluated)
        self._batches: dict[str, int] = {}
        self._times: deque[float] = deque(maxlen=_RECENT)
        self._suspects = 0

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Hand on what Ray Tune says; see `SpaceSearcher`."""
        taken = self.searcher.set_search_properties(metric, mode, config, **spec)
        self._metric, self._mode = self.searcher.metric, self.searcher.mode
        return taken

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """One configuration, or several under ``"ciq_batch"``; else what the searcher says."""
        self.searcher.learn_journal()
        wanted = self._wanted()
        if wanted < 1:  # one that runs may be lost, and tried again
            return None if self.searcher.has_running_trials else str(self.FINISHED)
        self._suspects = max(0, self._suspects - 1)
        if wanted == 1:
            return self.searcher.suggest(trial_id)
        configs: list[dict[str, Any]] = []
        while len(configs) < wanted:
            config = self.searcher.suggest(f"{trial_id}.{len(configs)}")
            if not isinstance(config, dict):
                if not configs:
                    return config
                break
            configs.append(config)
        self._batches[trial_id] = len(configs)
        return {BATCH: configs}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the searcher of each candidate of the trial.

        If a whole batch fails together, its actor has died, and one candidate may be to blame: each is
        tried again, in a trial of its own.
        """
        count = self._batches.pop(trial_id, None)
        if count is None:
            self._note(result)
            self.searcher.on_trial_complete(trial_id, result, error)
            return
        rows = (result or {}).get(ROWS)
        if error or not isinstance(rows, list) or len(rows) != count:
            rows = [{"ciq_status": "lost", "ciq_message": "the trial failed"}] * count
            self._suspects += count
        with self.searcher.writing_together():
            for position, row in enumerate(rows):
                self._note(row)
                self.searcher.on_trial_complete(f"{trial_id}.{position}", row)

    def save(self, checkpoint_path: str) -> None:
        """Save the searcher's state; Ray Tune saves `get_state` besides."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the searcher's state."""
        self.searcher.restore(checkpoint_path)

    def get_state(self) -> dict[str, Any]:
        """What this class itself remembers."""
        return {
            "known_before": self._known_before,
            "batches": dict(self._batches),
            "times": list(self._times),
            "suspects": self._suspects,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        self._known_before = state["known_before"]
        self._batches = dict(state["batches"])
        self._times = deque(state["times"], maxlen=_RECENT)
        self._suspects = state["suspects"]

    def _wanted(self) -> int:
        """How many candidates the next trial should have; 0 when the budget is spent."""
        left = math.inf
        if self.evaluations is not None:
            left = self.evaluations - (self.searcher.n_begun - self._known_before)
        if left < 1:
            return 0
        size = self.batch
        if self._suspects:
            size = 1
        elif size is None:
            typical = statistics.median(self._times) if self._times else math.inf
            size = max(1, min(MOST, int(TRIAL_S / max(typical, 1e-9))))
        if left == math.inf:
            return size
        # shared among those that run at a time, but not down to trials that cost more than they do
        return min(size, int(left), max(math.ceil(left / self.at_once), size // _SMALLEST_PART))

    def _note(self, result: dict[str, Any] | None) -> None:
        seconds = (result or {}).get("ciq_run_s")
        if isinstance(seconds, (int, float)):
            self._times.append(float(seconds))
