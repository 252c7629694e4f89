"""A given list of configurations, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from searchers.base import SpaceSearcher
from searchers.errors import OptionError
from searchers.params import Choice
from searchers.space import Space
from searchers.state import whole

__all__ = ["FiniteSearch"]


class FiniteSearch(SpaceSearcher):
    """Propose each of a list of configurations once, in the order given.

    Args:
        space: What they are members of; may be left out for a list of flat dicts with the same names.
        configs: The list. A configuration that is in it twice is proposed once.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`; nothing here is random.
        initial_configs: See `SpaceSearcher`.

    Attributes:
        count: How many are proposed, `initial_configs` included.

    Raises:
        OptionError: `configs` is empty or not a list.
        ConfigError: One of them is not a member of the space.
    """

    looks_ahead: ClassVar[bool] = True

    def __init__(
        self,
        space: Space | None = None,
        configs: Sequence[Any] = (),
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        if isinstance(configs, (str, Mapping)) or not isinstance(configs, Sequence) or not configs:
            raise OptionError(f"`configs` is {configs!r}; it must be a list of at least one configuration")
        super().__init__(
            _space_of(configs) if space is None else space,
            metric=metric,
            mode=mode,
            seed=seed,
            initial_configs=initial_configs,
        )
        self._configs = list(configs)
        space = self._known_space()
        self._rows = [space.encode(config) for config in self._configs]
        first = [space.encode(config, nearest=True) for config in initial_configs]
        self.count = len(set(space.keys(np.array([*first, *self._rows])).tolist()))
        self._next = 0

    def _propose(self, n: int) -> None:
        while n and self._next < len(self._rows):
            n -= len(self._admit(self._rows[self._next][None, :]))
            self._next += 1

    def _finished(self) -> bool:
        return self._next >= len(self._rows)

    def _algorithm_state(self) -> dict[str, Any]:
        return {"next": self._next}

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        self._next = whole("next", state["next"], len(self._rows))


def _space_of(configs: Sequence[Any]) -> Space:
    first = configs[0]
    if not all(isinstance(config, Mapping) and set(config) == set(first) for config in configs):
        raise OptionError("`configs` is not a list of dicts with the same names; give `space` as well")
    parameters = {}
    for name in first:
        seen: list[Any] = []
        for config in configs:
            if not any(type(value) is type(config[name]) and value == config[name] for value in seen):
                seen.append(config[name])
        parameters[name] = Choice(seen)
    return Space(parameters)
