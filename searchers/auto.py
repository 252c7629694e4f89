"""What people get when they do not choose."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers import effort
from searchers.bayesian import BayesianSearch
from searchers.encoding import Matrix
from searchers.offspring import offspring
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.state import positions, rows_of, whole
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
_LATE_EVERY = 8
_POOL = 32
"""No turns before so many successes: all that are bred from fewer would resemble these."""
_MODEL_PARAMETERS = 16
"""Of so many parameters in a large space, one proposal in as many is the model's, and at most every other."""
_SURVIVORS = 64
_LEAST_PARENTS = 8
_OBSERVATIONS_EACH = 64
"""For so many observations there is one parent. Few find what is good soon, many go on finding."""
_LEAST_DIFFERENCES, _PARAMETERS_EACH = 2, 8
"""Parents differ in two parameters and in one of eight: otherwise they are often one, in variants alike."""
_CHILDREN = 8
"""Bred at a time, so that parents are not those of long ago. If none is new, it is the model's turn; ..."""
_MOST_CHILDREN = 256
"""... where evaluations are cheap, more are bred, up to so many."""
_PATIENCE = 96
"""A search of a large space stalls where the last half since it began, so many at least, ..."""
_ROUNDS = 6
"""... and so many times as many as are under way, ..."""
_PROGRESS = 0.1
"""... have come no more than this share of the way from the median to the best."""


class AutoSearch(BayesianSearch):
    """The default: a model while it pays, evolution when it does not.

    What it does when:

    * At first `initial_population` random configurations, after `initial_configs`.
    * Then Bayesian optimisation (`BayesianSearch`): the fewest evaluations to a good configuration, with one
      objective or several, with failures, with noise. It notices when its model has nothing more to offer,
      and then most proposals are neighbours and children of the best or come from models of parts of the
      space, so that it does not stop where a smooth model is blind.
    * In a space of more than 32,768 configurations, with one objective, the model takes turns with evolution
      once there are 32 successes: every other proposal is a child of the best, bred as `GeneticSearch` does.
      With more than 47 parameters the model has fewer turns, one for every 16 parameters (one of six with 96
      to 111), and before the 32nd outcome the others are random. A model sees only some thousand
      configurations around the best; what it misses there, a population finds.
    * In such a space, with one objective, the search begins anew where it stalls: where the last 96 outcomes,
      or the last half since the beginning if that is more, have come a tenth of the way from the median of
      those since then to the best, or less (of their logarithms where all losses are positive). Of what was
      there before the model's first proposal, such as evaluated points, ten count; and there have to be six
      times as many as are under way. Then there are `initial_population` random configurations again, and
      model and evolution look at these and at what follows alone. When that stalls too, or 96 of it fail and
      nothing else comes, they look at everything, and then they begin anew again; after 1,000 evaluations, or
      where these are cheap, they look at everything for good. What fails is always learnt from all outcomes.
    * After 1,000 evaluations, when a model of the best 500 changes little with one more, seven of eight
      proposals are children (of the best by value, or by NSGA-II's ranks and crowding with several
      objectives); every eighth is the model's, fewer with more than 143 parameters in a large space.
    * When evaluations take less than 20 ms (the median of the last 32 that report `run_s`), all are after the
      first 200: a child costs a tenth of a millisecond, a proposal of the model some milliseconds.

    There are 8 parents at first, and one for every 64 observations later, up to 64: if there are so many, the
    best that differ from each other in an eighth of the parameters, and in two at least.

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
        self._begun: int | None = None
        self._survivors: list[int] = []
        self._unranked: list[int] = []
        self._offspring: deque[Matrix] = deque()

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        super()._observe(trial, previous)
        was_ok = previous is not None and previous.ok
        if trial.index >= self._start and trial.outcome is not None and trial.outcome.ok and not was_ok:
            self._unranked.append(trial.index)

    def _begin(self, start: int) -> None:
        super()._begin(start)
        self._begun = None if start else len(self._observed)
        self._survivors, self._unranked = [], self._successes()
        self._offspring.clear()

    @property
    def _takes_turns(self) -> bool:
        """Whether model and evolution take turns, and the search begins anew where it stalls."""
        return not self._scores_all and self.n_objectives == 1

    def _propose(self, n: int) -> None:
        if self._takes_turns:
            if len(self._observed) >= _MODEL_BUDGET or self._cheap():
                if self._start:
                    self._begin(0)
            elif self._stalls(n):
                self._begin(0 if self._start else len(self._trials))
        super()._propose(n)

    def _stalls(self, n: int) -> bool:
        """Whether the last half of what came since it began has brought little, when `n` are asked for."""
        learnt = self._learnt()
        if self._begun is None:  # nothing but random ones and what was given
            return self._start > 0 and len(learnt) >= _PATIENCE and not self._losses_of(learnt)
        since = len(learnt) - self._begun
        latest = max(_PATIENCE, _ROUNDS * (n + self.n_pending), since // 2)
        if since < latest:
            return False
        before, after = self._losses_of(learnt[:-latest]), self._losses_of(learnt[-latest:])
        if not before:
            return False
        losses = before + after
        earlier, best, median = min(before), min(losses), statistics.median(losses)
        if best > 0:  # times and sizes, of which the bad ones can be a thousand times as large
            earlier, best, median = math.log(earlier), math.log(best), math.log(median)
        return earlier - best <= _PROGRESS * (median - best)

    def _losses_of(self, trials: list[int]) -> list[float]:
        """Of the successes among them."""
        return [self._losses(self._outcome(index))[0] for index in trials if self._succeeded(index)]

    def _propose_by_model(self, n: int) -> int:
        if self._begun is None:
            self._begun = max(0, len(self._learnt()) - effort.MODEL_INITIAL_POPULATION)
        every = self._model_every()
        if len(self._trials) % every or self._cheap():
            return self._breed()
        return super()._propose_by_model(1 if every > 1 else n)

    def _model_every(self) -> int:
        """One of how many proposals is the model's, where evaluations are not cheap."""
        every = _LATE_EVERY if len(self._observed) >= _MODEL_BUDGET else 1
        if not self._takes_turns:
            return every
        turns = self._known_space().encoding.n_parameters // _MODEL_PARAMETERS
        successes = len(self._survivors) + len(self._unranked)  # all of them, as long as they are few
        if successes < _POOL and (turns <= 2 or len(self._learnt()) >= _POOL):
            return every
        return max(every, turns, 2)

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

    def _breed(self) -> int:
        """Admit a child of the survivors that is new, and a random row while little is known.

        Where no child is new it is the model's turn, or that of chance where evaluations are cheap.
        """
        if len(self._learnt()) < _POOL:
            return len(self._admit_random(1))
        while self._offspring or self._fill_offspring():
            if self._admit(self._offspring.popleft()[None, :]):
                return 1
        return len(self._admit_random(1)) if self._cheap() else super()._propose_by_model(1)

    def _fill_offspring(self) -> bool:
        """Breed some that are new; returns whether there are any. With tight constraints few are valid."""
        candidates = [i for i in dict.fromkeys([*self._survivors, *self._unranked]) if self._outcome(i).ok]
        self._survivors, self._unranked = [], []
        if not candidates:  # all have been measured again, and failed
            return False
        losses = np.array([self._losses(self._outcome(index)) for index in candidates])
        self._survivors = [candidates[i] for i in select(losses, _SURVIVORS, self._rng).tolist()]
        parents, n_children = self._parents(), _CHILDREN
        most = _MOST_CHILDREN if self._cheap() else _CHILDREN
        while not self._offspring and n_children <= most:
            children = offspring(self._known_space(), parents, n_children, self._rng)
            self._offspring.extend(children[i] for i in self._fresh(children))
            n_children *= 2
        return bool(self._offspring)

    def _parents(self) -> Matrix:
        """The best survivors that are not variants of one, filled up with the best of the others."""
        space, rows = self._known_space(), self._rows_of(self._survivors)
        n_parents = max(_LEAST_PARENTS, len(self._observed) // _OBSERVATIONS_EACH)
        chosen = _apart(space.encoding.states(rows, space.inactive(rows)), n_parents)
        return np.asarray(rows[chosen])

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            **super()._algorithm_state(),
            "begun": self._begun,
            "survivors": self._survivors,
            "unranked": self._unranked,
            "offspring": [row.tolist() for row in self._offspring],
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        super()._load_algorithm_state(state)
        count = len(self._trials)
        self._begun = None if state["begun"] is None else whole("begun", state["begun"], len(self._learnt()))
        self._survivors = positions("survivors", state["survivors"], count)
        self._unranked = positions("unranked", state["unranked"], count)
        self._offspring = deque(rows_of("offspring", state["offspring"], self._known_space()))


def _apart(states: npt.NDArray[np.int64], n: int) -> list[int]:
    """The first `n` rows of (rows, parameters) that are not alike, filled up with the first of the others."""
    least = max(_LEAST_DIFFERENCES, states.shape[1] // _PARAMETERS_EACH)
    chosen: list[int] = []
    others: list[int] = []
    for place, row in enumerate(states):
        if len(chosen) == n:
            break
        alike = ((states[chosen] != row).sum(axis=1) < least).any()
        (others if alike else chosen).append(place)
    return [*chosen, *others][:n]
