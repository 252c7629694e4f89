"""Differential evolution on the levels of the integer matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from searchers import effort
from searchers.base import SpaceSearcher, Trial
from searchers.checks import compile_timeout_options, number_option, whole_option
from searchers.differential_operators import challengers
from searchers.encoding import Matrix
from searchers.errors import OptionError, StateError
from searchers.initial_population import InitialPopulation, InitialPopulationStrategy
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.state import flag, positions, whole

__all__ = ["DifferentialEvolutionSearch"]

_LEAST_POPULATION = 4
"""A target and three parents."""
_CHILDREN = 16
"""Children bred for one place, since some break a constraint or have been proposed before."""
_MUTATION_ROUNDS = 3
_START = "start"
"""Tag of the initial population; that of a challenger is the number of its target."""


class DifferentialEvolutionSearch(SpaceSearcher):
    """Differential evolution, DE/rand/1/bin of Storn and Price (1997), on levels.

    Each member of the population is a *target*. Its challenger takes from a mutant each parameter with
    the chance `crossover_rate`, and one in any case; the rest is the target's. The mutant is
    ``a + F * (b - c)`` of three other members in levels for ordered parameters (so in log2 for powers of
    two), and the gene of one of the three for categories, or where one of them lacks the parameter. A
    parameter and its knockout bit stay together. A challenger that is no worse than its target takes its
    place.

    Children that break a constraint or have been proposed before are drawn again; if none is left they
    are mutated until one is new, and a random row comes last. A failure is worse than any success.
    Members that failed are parents only where fewer than three others passed.

    Nobody waits for a generation, unless `immediate_update` is false: a target gets its next challenger
    as soon as its present one is back. Generation 0 is the initial population, generation g the g-th
    challengers of all targets; it is complete when all these are back, and that is when early stopping
    looks at it.

    Storn, R. and Price, K. "Differential Evolution - A Simple and Efficient Heuristic for Global
    Optimization over Continuous Spaces." Journal of Global Optimization 11 (1997): 341-359.

    Args:
        space: See `SpaceSearcher`.
        population_size: Members of the population, at least 4.
        max_generations: Challengers of each target.
        crossover_rate: The chance of each parameter to come from the mutant, from 0 to 1.
        immediate_update: Whether a challenger takes its target's place as soon as it is back (``True``,
            and ``None``), or all do at the end of a generation, which is waited for (``False``).
        min_improvement_delta: Relative improvement of the best, such as 0.001 for 0.1%, below which a
            generation counts as one without. ``None``: no early stopping.
        patience: How many generations without improvement in a row end the search. ``None``: no early
            stopping.
        initial_population_strategy: Where the initial population comes from. FROM_RANDOM: random
            configurations. FROM_DEFAULT: the default configuration, whose one score fills the population.
            FROM_BEST_AVAILABLE: the default and `initial_configs`, the remainder random. ``None``:
            FROM_RANDOM. In each `initial_configs` go first and count.
        compile_timeout_lower_bound: Seconds; the adaptive limit on compiling, kept by who evaluates, is
            never less.
        compile_timeout_quantile: The quantile of the initial population's compile times that becomes
            that limit, more than 0 and at most 1.
        metric: See `SpaceSearcher`; one objective only.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`.

    Raises:
        OptionError: An argument has a value it cannot have, or there are several objectives.
    """

    takes_several: ClassVar[bool] = False

    def __init__(
        self,
        space: Space | None = None,
        population_size: int = effort.DE_POPULATION_SIZE,
        max_generations: int = effort.DE_MAX_GENERATIONS,
        crossover_rate: float = effort.DE_CROSSOVER_RATE,
        immediate_update: bool | None = None,
        min_improvement_delta: float | None = None,
        patience: int | None = None,
        initial_population_strategy: InitialPopulationStrategy | str | None = None,
        compile_timeout_lower_bound: float = effort.COMPILE_TIMEOUT_LOWER_BOUND,
        compile_timeout_quantile: float = effort.COMPILE_TIMEOUT_QUANTILE,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        super().__init__(space, metric=metric, mode=mode, seed=seed, initial_configs=initial_configs)
        self.population_size = whole_option("population_size", population_size, _LEAST_POPULATION)
        self.max_generations = whole_option("max_generations", max_generations, 0)
        self.crossover_rate = number_option("crossover_rate", crossover_rate)
        if self.crossover_rate > 1:
            raise OptionError(f"`crossover_rate` is {crossover_rate!r}; a chance lies between 0 and 1")
        if immediate_update is not None and not isinstance(immediate_update, bool):
            raise OptionError(f"`immediate_update` is {immediate_update!r}; it must be True, False or None")
        self.immediate_update = immediate_update is not False
        self.min_improvement_delta = (
            None
            if min_improvement_delta is None
            else number_option("min_improvement_delta", min_improvement_delta)
        )
        self.patience = None if patience is None else whole_option("patience", patience)
        self._population = InitialPopulation.of(
            initial_population_strategy,
            self.population_size,
            space,
            n_given=len(self._initial),
            filled=True,
        )
        self.initial_population_strategy = self._population.strategy
        self.compile_timeout_lower_bound, self.compile_timeout_quantile = compile_timeout_options(
            compile_timeout_lower_bound, compile_timeout_quantile
        )
        self._all_started = False
        self._starting: set[int] = set()
        self._members: list[int] = []
        # of each target: challengers so far, and the one that has not been compared with it yet
        self._rounds: list[int] = []
        self._challengers: list[int | None] = []
        self._closed = 0
        self._reference: float | None = None
        self._stale = 0

    # -- proposing --------------------------------------------------------------------------------

    def _propose(self, n: int) -> None:
        in_stock = len(self._ready)
        if not self._all_started:
            self._start()
        n -= len(self._ready) - in_stock
        while n > 0 and not self._exhausted and not self._finished():
            targets = self._free_targets()[:n]
            if not targets:
                return
            families = [self._new_children(target) for target in targets]
            for target, row in zip(targets, self._select(families), strict=True):
                self._challenge(target, row)
            n -= len(targets)

    def _start(self) -> None:
        """Propose the initial population."""
        n_given = len(self._starts())
        rows, n_random = self._population.missing(self._known_space(), n_given)
        admitted = self._admit(rows)
        if n_random:  # the default may be one of the given
            admitted += self._admit_random(max(0, self.population_size - n_given - len(admitted)))
        for trial in admitted:
            self._adopt(trial)
        self._all_started = True
        self._settle()

    def _adopt(self, trial: Trial) -> None:
        trial.tag, trial.generation = _START, 0
        self._starting.add(trial.index)

    def _starts(self) -> list[Trial]:
        return [trial for trial in self._trials if trial.tag == _START]

    def _free_targets(self) -> list[int]:
        """Targets that are to get a challenger now, those with the fewest so far first."""
        enough = not self._starting or (self.immediate_update and len(self._members) >= _LEAST_POPULATION)
        if not enough:
            return []
        free = [i for i, challenger in enumerate(self._challengers) if challenger is None]
        least = min(self._rounds, default=0)
        if not self.immediate_update:
            # those that are compared already wait for the end of the generation
            free = [i for i in free if self._rounds[i] == least]
        free = [i for i in free if self._rounds[i] < self.max_generations]
        return sorted(free, key=lambda i: self._rounds[i])

    def _challenge(self, target: int, row: Matrix | None) -> None:
        self._rounds[target] += 1
        generation = self._rounds[target]
        admitted = [] if row is None else self._admit(row[None, :], generation=generation)
        if not admitted:
            admitted = self._admit_mutated(self._children(target), generation)
        for trial in admitted:
            trial.tag = target
            self._challengers[target] = trial.index

    def _new_children(self, target: int) -> Matrix:
        """Children for one place that are valid and new, best guesses first; shape (0 or more, columns)."""
        children = self._children(target)
        return children[list(self._fresh(children))]

    def _select(self, families: list[Matrix]) -> list[Matrix | None]:
        """One child of each family, ``None`` where there is none."""
        return [family[0] if len(family) else None for family in families]

    # -- the operators ----------------------------------------------------------------------------

    def _children(self, target: int) -> Matrix:
        """Challengers for a target, valid or not, (n, columns)."""
        space, rng = self._known_space(), self._rng
        if not any(self._succeeded(index) for index in self._members):
            return space.sample(_CHILDREN, rng)
        row = self._trials[self._members[target]].row
        return challengers(space, row, self._parents(target), self.crossover_rate, rng)

    def _parents(self, target: int) -> npt.NDArray[np.int32]:
        """Three members for each child, all different where there are enough, (3, n, columns)."""
        others = [i for i in range(len(self._members)) if i != target]
        passed = [i for i in others if self._succeeded(self._members[i])]
        pool = np.array(passed if len(passed) >= 3 else others or [target])
        if len(pool) >= 3:
            places = self._rng.random((_CHILDREN, len(pool))).argsort(axis=1)[:, :3].T
        else:
            places = self._rng.integers(len(pool), size=(3, _CHILDREN))
        return self._rows_of(self._members[i] for i in pool)[places]

    def _admit_mutated(self, children: Matrix, generation: int) -> list[Trial]:
        """Propose one of `children` once it is mutated enough to be new, else a random row."""
        from searchers.operators import mutated

        space = self._known_space()
        for strength in range(_MUTATION_ROUNDS):
            children = mutated(space, children, self._rng, extra=0.5 + strength)
            fresh = list(self._fresh(children))
            if fresh:
                return self._admit(children[fresh[:1]], generation=generation)
        return self._admit_random(1, generation=generation)

    # -- learning ---------------------------------------------------------------------------------

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        if previous is not None:
            return  # members are compared by their latest labels
        if isinstance(trial.tag, int):
            if self.immediate_update:
                self._compare(trial.tag)
        else:  # of the initial population, or evaluated elsewhere
            self._starting.discard(trial.index)
            self._join(trial.index)
        self._settle()

    def _join(self, index: int) -> None:
        """A further member; in a full population, it challenges the worst."""
        if len(self._members) < self.population_size:
            self._members.append(index)
            self._rounds.append(0)
            self._challengers.append(None)
            return
        worst = max(range(len(self._members)), key=lambda i: self._loss(self._members[i]))
        if self._loss(index) <= self._loss(self._members[worst]):
            self._members[worst] = index

    def _compare(self, target: int) -> None:
        """The challenger of a target is back."""
        challenger, self._challengers[target] = self._challengers[target], None
        if challenger is not None and self._loss(challenger) <= self._loss(self._members[target]):
            self._members[target] = challenger

    def _settle(self) -> None:
        """Take note of what is complete: the initial population, generations."""
        if not self._all_started or self._starting or not self._members:
            return
        known = len(self._members)
        for i in range(known, self.population_size):  # the one score of FROM_DEFAULT fills all places
            self._join(self._members[i % known])
        if not self.immediate_update:
            self._compare_all()
        while self._closed <= self._complete():
            self._close()

    def _compare_all(self) -> None:
        challengers = [challenger for challenger in self._challengers if challenger is not None]
        level = min(self._rounds) == max(self._rounds)
        if level and all(self._trials[index].outcome is not None for index in challengers):
            for target in range(len(self._members)):
                self._compare(target)

    def _complete(self) -> int:
        """The last generation of which everything is back."""
        return min(
            rounds - (challenger is not None)
            for rounds, challenger in zip(self._rounds, self._challengers, strict=True)
        )

    def _close(self) -> None:
        """The next generation is complete: has it brought anything?"""
        self._closed += 1
        best = self.best
        if best is None or self.min_improvement_delta is None:
            return
        loss, reference = self._losses(best[1])[0], self._reference
        if reference is None or reference - loss >= max(
            self.min_improvement_delta * abs(reference), math.ulp(reference)
        ):
            self._reference, self._stale = loss, 0
        else:
            self._stale += 1

    def generation_closed(self, number: int) -> bool:
        """Whether all challengers of a generation are back; 0 is the initial population."""
        return number < self._closed

    def _finished(self) -> bool:
        if self.patience is not None and self._stale >= self.patience:
            return True
        done = all(rounds >= self.max_generations for rounds in self._rounds)
        return self._all_started and not self._starting and bool(self._members) and done

    # -- state ------------------------------------------------------------------------------------

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """See `SpaceSearcher.set_search_properties`; the space must hold a population."""
        taken = super().set_search_properties(metric, mode, config, **spec)
        if self.space is not None and not self._trials:
            self._population.missing(self.space, len(self._initial))
        return taken

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            "all_started": self._all_started,
            "members": self._members,
            "rounds": self._rounds,
            "challengers": self._challengers,
            "closed": self._closed,
            "reference": self._reference,
            "stale": self._stale,
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        count = len(self._trials)
        self._all_started = flag("all_started", state["all_started"])
        self._members = positions("members", state["members"], count)
        if any(self._trials[index].outcome is None for index in self._members):
            raise StateError("`members` has one without an outcome")
        self._rounds = [whole("rounds", value, self.max_generations) for value in state["rounds"]]
        self._challengers = [
            None if index is None else whole("challengers", index, count - 1)
            for index in state["challengers"]
        ]
        if not len(self._members) == len(self._rounds) == len(self._challengers) <= self.population_size:
            raise StateError("`members`, `rounds` and `challengers` are not of one population")
        self._closed, self._stale = whole("closed", state["closed"]), whole("stale", state["stale"])
        reference = state["reference"]
        if reference is not None and not (isinstance(reference, float) and math.isfinite(reference)):
            raise StateError(f"`reference` is {reference!r}; it must be a finite number or null")
        self._reference = reference
        for trial in self._trials:
            if trial.tag is not None and trial.tag != _START:
                whole("tag", trial.tag, len(self._members) - 1)
        self._starting = {trial.index for trial in self._starts() if trial.outcome is None}
