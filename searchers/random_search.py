"""Random configurations, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from searchers import effort
from searchers.base import SpaceSearcher
from searchers.checks import whole_option
from searchers.finite_search import FiniteSearch
from searchers.space import Space

__all__ = ["RandomSearch"]

_BLOCK = 64
"""Rows drawn at a time, since one costs almost as much as many."""


class RandomSearch(FiniteSearch):
    """Propose `count` random configurations without repeats.

    The list is drawn as it is asked for, so that a huge space costs nothing beforehand.

    Args:
        space: See `SpaceSearcher`.
        count: How many; a space with fewer ends earlier.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`; they count.

    Raises:
        OptionError: `count` is not a whole number of at least 1.
    """

    looks_ahead: ClassVar[bool] = True

    def __init__(
        self,
        space: Space | None = None,
        count: int = effort.RANDOM_COUNT,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        SpaceSearcher.__init__(
            self, space, metric=metric, mode=mode, seed=seed, initial_configs=initial_configs
        )
        self.count = whole_option("count", count)

    def _propose(self, n: int) -> None:
        self._admit_random(min(max(n, _BLOCK), self.count - len(self._trials)))

    def _finished(self) -> bool:
        return len(self._trials) >= self.count

    def _algorithm_state(self) -> dict[str, Any]:
        return {}

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        pass
