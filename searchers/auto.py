"""What people get when they do not choose."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from searchers import effort
from searchers.bayesian import BayesianSearch
from searchers.encoding import Matrix
from searchers.offspring import offspring
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.state import positions, rows_of
from searchers.survival import select
from searchers.trial import Trial

__all__ = ["AutoSearch"]

_CHEAP_S = 0.02
"""An evaluation that takes less costs less than a proposal of the model ..."""
_RECENT = 32
"""... in the median of the last successes that say what they took."""
_MODEL_FIRST = 200
"""Proposals of the model whatever evaluations cost: together they cost some seconds."""
_MODEL_BUDGET = 1000
_MODEL_EVERY = 8
_SURVIVORS = 64
_CHILDREN = 64


class AutoSearch(BayesianSearch):
    """The default: a model while it pays, evolution when it does not.

    What it does when:

    * At first `initial_population` random configurations, after `initial_configs`.
    * Then Bayesian optimisation (`BayesianSearch`): the fewest evaluations to a good configuration, on small
      spaces (all configurations are scored) as on huge ones, with one objective or several, with failures,
      with noise. It notices when its model has nothing more to offer, and then most proposals are neighbours
      and children of the best or come from models of parts of the space, so that it does not stop where a
      smooth model is blind.
    * After 1,000 evaluations, when a model of the best 500 changes little with one more, seven of eight
      proposals are children of the 64 best (by value, or by NSGA-II's ranks and crowding with several
      objectives), bred as `GeneticSearch` does; every eighth is the model's.
    * When evaluations take less than 20 ms (the median of the last 32 that report `run_s`), all are after the
      first 200: a child costs a tenth of a millisecond, a proposal of the model some milliseconds.

    Args:
        space: See `SpaceSearcher`.
        initial_population: See `BayesianSearch`.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`.

    Raises:
        OptionError: An argument has a value it cannot have.
    """

    def __init__(
        self,
        space: Space | None = None,
        initial_population: int = effort.MODEL_INITIAL_POPULATION,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        super().__init__(
            space, initial_population, metric=metric, mode=mode, seed=seed, initial_configs=initial_configs
        )
        self._survivors: list[int] = []
        self._unranked: list[int] = []
        self._offspring: deque[Matrix] = deque()

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        super()._observe(trial, previous)
        was_ok = previous is not None and previous.ok
        if trial.outcome is not None and trial.outcome.ok and not was_ok:
            self._unranked.append(trial.index)

    def _propose_by_model(self, n: int) -> int:
        late = len(self._observed) >= _MODEL_BUDGET
        if (late and len(self._trials) % _MODEL_EVERY) or self._cheap():
            return self._breed(n)
        return super()._propose_by_model(1 if late else n)

    def _cheap(self) -> bool:
        if len(self._observed) < _MODEL_FIRST:
            return False
        took = []
        for index in reversed(self._observed):
            outcome = self._outcome(index)
            if outcome.ok and outcome.run_s is not None:
                took.append(outcome.run_s + (outcome.compile_s or 0.0))
            if len(took) == _RECENT:
                break
        return bool(took) and statistics.median(took) < _CHEAP_S

    def _breed(self, n: int) -> int:
        """Admit one child of the survivors that is new."""
        while self._offspring:
            if self._admit(self._offspring.popleft()[None, :]):
                return 1
        candidates = [i for i in dict.fromkeys([*self._survivors, *self._unranked]) if self._outcome(i).ok]
        if not candidates:  # all have been measured again, and failed
            return len(self._admit_random(n))
        losses = np.array([self._losses(self._outcome(index)) for index in candidates])
        n_parents = min(_SURVIVORS, max(2, len(self._observed) // 4))
        self._survivors = [candidates[i] for i in select(losses, n_parents, self._rng).tolist()]
        self._unranked.clear()
        children = offspring(self._known_space(), self._rows_of(self._survivors), _CHILDREN, self._rng)
        self._offspring.extend(children[i] for i in self._fresh(children))
        if self._offspring:
            return self._breed(n)
        return len(self._admit_random(n))

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            **super()._algorithm_state(),
            "survivors": self._survivors,
            "unranked": self._unranked,
            "offspring": [row.tolist() for row in self._offspring],
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        super()._load_algorithm_state(state)
        count = len(self._trials)
        self._survivors = positions("survivors", state["survivors"], count)
        self._unranked = positions("unranked", state["unranked"], count)
        self._offspring = deque(rows_of("offspring", state["offspring"], self._known_space()))
