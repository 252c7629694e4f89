"""What a search takes from the cache of best configurations, and what it leaves there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray._types.enums import WorkerTypes
from ciq_ray.cache import LocalAutotuneCache, StrictLocalAutotuneCache, hardware
from ciq_ray.errors import CiqError, JournalError
from searchers.initial_population import InitialPopulationStrategy

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.engine import Evaluation
    from searchers.base import SpaceSearcher

__all__ = ["WarmStart", "cache_from_record", "cache_record"]

logger = logging.getLogger(__name__)

_OF_NODES: Final = ("num_gpus", "accelerator_type", "label_selector", "resources")
"""Options of a RAY worker that decide what hardware its actors are on."""
_CLASSES = {kind.__name__: kind for kind in (LocalAutotuneCache, StrictLocalAutotuneCache)}


class WarmStart:
    """The cache of one search; an observer of its evaluations.

    Trouble with the cache never ends a search: it is a warning in the log.

    Args:
        search: The search.
        options: The options its searcher gets.
        worker_options: The options its worker gets; those that say which nodes of a cluster are asked for are
            a part of the hardware.
    """

    def __init__(
        self, search: Search, options: dict[str, Any], worker_options: Mapping[str, Any] | None = None
    ) -> None:
        self._search = search
        self._options = options
        self._worker_options = worker_options or {}
        self._latest: dict[str, Evaluation] = {}

    @cached_property
    def _cache(self) -> LocalAutotuneCache | None:
        return _cache_of(self._search, self._options, self._nodes())

    def _nodes(self) -> str:
        """What is asked of the nodes of a cluster, nothing of which this machine may have."""
        if self._search.worker_type is not WorkerTypes.RAY:
            return ""
        asked = {name: self._worker_options.get(name) for name in _OF_NODES}
        return ", ".join(f"{name}={value!r}" for name, value in asked.items() if value)

    def rows(self) -> list[list[int]]:
        """Rows to begin with, at most 20, the most promising first; none at all with effort none."""
        if self._cache is None or self._options.get("effort") == "none":
            return []
        try:
            return [list(saved.flat_config) for saved in self._cache.best_available()]
        except OSError as error:
            logger.warning("the cache cannot be read: %s", error)
            return []

    def evaluated(self, evaluation: Evaluation) -> None:
        """Remember what came of a candidate; a re-measurement replaces what was known."""
        if self._cache is not None:
            self._latest[evaluation.candidate.id] = evaluation

    def tick(self) -> None:
        """Nothing happened for a moment."""

    def save(self, searcher: SpaceSearcher) -> None:
        """Leave the best for later searches."""
        if self._cache is None or not self._latest:
            return
        passed = [evaluation for evaluation in self._latest.values() if evaluation.told.ok]
        failed = [evaluation for evaluation in self._latest.values() if not evaluation.told.ok]
        if searcher.n_objectives > 1:  # the cache cannot tell which are best
            knee = [] if searcher.best is None else [searcher.best[0].id]
            ids = [*knee, *(candidate.id for candidate, _ in searcher.front)]
            others = [evaluation.candidate.id for evaluation in passed]
            wanted = dict.fromkeys([*ids, *others])
            passed = [self._latest[name] for name in wanted if name in self._latest]
        try:
            self._cache.put_rows(
                [(evaluation.candidate.row, evaluation.told.values) for evaluation in passed],
                [evaluation.candidate.row for evaluation in failed],
            )
        except CiqError as error:
            logger.warning("the best configurations are not in the cache: %s", error)


def _cache_of(search: Search, options: dict[str, Any], nodes: str) -> LocalAutotuneCache | None:
    wanted = search.cache
    if wanted is None:
        strategy = options.get("initial_population_strategy")
        wanted = strategy == InitialPopulationStrategy.FROM_BEST_AVAILABLE
    if wanted is False:
        return None
    key: dict[str, Any] = {"hardware": f"{hardware()}; {nodes}"} if nodes else {}
    if isinstance(wanted, type):
        kind: type[LocalAutotuneCache] = wanted
        return kind(search, **key)
    return LocalAutotuneCache(search, path=wanted if isinstance(wanted, Path) else None, **key)


def cache_record(cache: Any) -> Any:
    """What the journal keeps of `Search.cache`: it, a path, or the name of its class."""
    if isinstance(cache, Path):
        return {"path": str(cache.absolute())}
    return {"class": cache.__name__} if isinstance(cache, type) else cache


def cache_from_record(record: Any) -> Any:
    """The inverse of `cache_record`.

    Raises:
        JournalError: The run had a class of its own.
    """
    if not isinstance(record, dict):
        return record
    if "path" in record:
        return Path(record["path"])
    if record["class"] not in _CLASSES:
        raise JournalError(f"the run used a cache of yours, {record['class']}; give its class as `cache`")
    return _CLASSES[record["class"]]
