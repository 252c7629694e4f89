"""Pattern search: steps of one parameter from the best configurations found."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from searchers import effort
from searchers.base import SpaceSearcher, Trial
from searchers.checks import compile_timeout_options, number_option, whole_option
from searchers.encoding import Matrix
from searchers.errors import OptionError
from searchers.initial_population import InitialPopulation, InitialPopulationStrategy
from searchers.moves import Moves
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.state import flag, positions, whole

__all__ = ["PatternSearch"]


class _Copy:
    """One of the searches side by side.

    Attributes:
        base: The trial it searches around: the best it has seen.
        generation: How many generations it has proposed.
        misses: Generations without improvement since the last one with.
        alive: Whether it goes on.
        members: The trials of its current generation.
        waiting: Those of them that are not back.
    """

    __slots__ = ("alive", "base", "generation", "members", "misses", "waiting")

    def __init__(self, base: int) -> None:
        self.base = base
        self.generation = self.misses = 0
        self.alive = True
        self.members: list[int] = []
        self.waiting: set[int] = set()


class PatternSearch(SpaceSearcher):
    """Search that explores single-parameter perturbations around the current best.

    When the initial population is back, the best `copies` of all that is known start a search each. A
    generation of a copy is every neighbour of its base that is new: one parameter moved by one level, to
    another category, knocked out or brought back; and two parameters at a time where both are marked
    important. The best of them becomes the base of the next generation. The copies never wait for one
    another, only each for its own generation. A copy ends when a generation brought no improvement worth
    the name, when nothing around it is new, or after `max_generations`.

    Where nothing of the initial population passed, a random one follows, at most ten times.

    References: Hooke and Jeeves, "'Direct search' solution of numerical and statistical problems" (Journal
    of the ACM 8, 1961); the population, the copies and their stopping rule are Helion's.

    Args:
        space: See `SpaceSearcher`.
        initial_population: How many configurations are tried first; without effect FROM_DEFAULT.
        copies: How many of the best are searched around.
        max_generations: The most generations of a copy.
        min_improvement_delta: A generation has improved on its base if it is better by more than this
            share: ``abs(best / base - 1) >= min_improvement_delta``.
        initial_population_strategy: An `InitialPopulationStrategy` or its text; ``None``: FROM_RANDOM.
        compile_timeout_lower_bound: Seconds that a compilation may take in any case. Whoever runs the
            search reads this and the next; the searcher keeps no time.
        compile_timeout_quantile: Which quantile of the initial population's compile times is the limit
            for later ones, above that.
        metric: See `SpaceSearcher`; one name.
        mode: See `SpaceSearcher`; one direction.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`; they belong to the initial population.

    Attributes:
        num_neighbors_cap: The most neighbours a generation looks at, drawn at random; -1 for all. It is
            checked by `ask`.

    Raises:
        OptionError: An argument has a value it cannot have, or there are several objectives.
    """

    takes_several: ClassVar[bool] = False
    num_neighbors_cap: int = -1
    patience: int = 0
    """Generations without improvement, one after the other, that a copy survives."""

    def __init__(
        self,
        space: Space | None = None,
        initial_population: int = effort.INITIAL_POPULATION,
        copies: int = effort.COPIES,
        max_generations: int = effort.MAX_GENERATIONS,
        min_improvement_delta: float = effort.MIN_IMPROVEMENT_DELTA,
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
        self.initial_population = whole_option("initial_population", initial_population)
        self.copies = whole_option("copies", copies)
        self.max_generations = whole_option("max_generations", max_generations)
        self.min_improvement_delta = number_option("min_improvement_delta", min_improvement_delta)
        self.compile_timeout_lower_bound, self.compile_timeout_quantile = compile_timeout_options(
            compile_timeout_lower_bound, compile_timeout_quantile
        )
        self._population = InitialPopulation.of(
            initial_population_strategy, self.initial_population, space, n_given=len(initial_configs)
        )
        self.initial_population_strategy = self._population.strategy
        self._n_given = 0
        self._populations = 0
        self._started = False
        self._copies: list[_Copy] = []

    # -- what a derived search does otherwise -----------------------------------------------------

    def _next_generation(self, base: Matrix) -> Matrix:
        """New valid rows around a base, shape (n, columns), none when there is nothing new."""
        moves = Moves(self._known_space(), base)
        return self._new_of(np.concatenate([moves.single(), moves.important_pairs()]))

    def _new_of(self, rows: Matrix) -> Matrix:
        """Those of some rows that are valid and were not proposed before, `num_neighbors_cap` of them."""
        rows = rows[list(self._fresh(rows))]
        if self.num_neighbors_cap != -1 and self.num_neighbors_cap < len(rows):
            return rows[np.sort(self._rng.choice(len(rows), self.num_neighbors_cap, replace=False))]
        return rows

    # -- proposing --------------------------------------------------------------------------------

    def _propose(self, n: int) -> None:
        self._check_cap()
        if not self._started:
            self._populate()
            if self._ready or self._pending:
                return
            self._start()
        wanted = len(self._ready) + n
        # one that is behind goes first; none is asked for more before it is needed: it would know less
        for number in sorted(range(len(self._copies)), key=lambda i: self._copies[i].generation):
            if len(self._ready) >= wanted:
                return
            if self._idle(self._copies[number]):
                self._advance(number)

    def _adopt(self, trial: Trial) -> None:
        self._n_given += 1

    def _populate(self) -> None:
        """Propose the initial population, and random ones while nothing has passed."""
        if not self._populations:
            from_random = self._population.strategy is InitialPopulationStrategy.FROM_RANDOM
            # what was evaluated elsewhere is something to start from, but no member of a random population
            n_given = self._n_given if from_random else len(self._trials)
            rows, n_random = self._population.missing(self._known_space(), n_given)
            self._admit(rows)
        elif self._pending or self._best is not None or self._populations > effort.MAX_TOP_UPS:
            return
        else:
            n_random = self.initial_population
        self._populations += 1
        if n_random and not self._exhausted:
            self._admit_random(n_random)

    def _start(self) -> None:
        passed = [trial for trial in self._trials if trial.outcome is not None and trial.outcome.ok]
        passed.sort(key=lambda trial: (self._losses(trial.outcome), trial.index))
        self._copies = [_Copy(trial.index) for trial in passed[: self.copies]]
        self._started = True

    def _idle(self, copy: _Copy) -> bool:
        return copy.alive and not copy.waiting

    def _advance(self, number: int) -> None:
        """Propose the next generation of a copy, or end it."""
        copy = self._copies[number]
        rows = self._next_generation(self._trials[copy.base].row)
        admitted = self._admit(rows, tags=[number] * len(rows))
        copy.members = [trial.index for trial in admitted]
        copy.waiting = set(copy.members)
        copy.generation += 1
        copy.alive = bool(copy.members)

    # -- learning ---------------------------------------------------------------------------------

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        if trial.tag is None or previous is not None:
            return
        copy = self._copies[trial.tag]
        copy.waiting.discard(trial.index)
        if not copy.waiting:
            self._settle(copy)

    def _settle(self, copy: _Copy) -> None:
        """A generation is back: move the base, or count it as one without improvement."""
        best = min(copy.members, key=lambda index: (self._loss(index), index))
        before, after = self._loss(copy.base), self._loss(best)
        if after < before:
            copy.base = best
        # the same as the documented ratio, and defined at 0 too
        improved = after < before and not before - after < self.min_improvement_delta * abs(before)
        copy.misses = 0 if improved else copy.misses + 1
        copy.alive = copy.misses <= self.patience and copy.generation < self.max_generations
        copy.members = []

    def _finished(self) -> bool:
        return self._started and not any(copy.alive for copy in self._copies)

    def _check_cap(self) -> None:
        cap: Any = self.num_neighbors_cap
        if not isinstance(cap, Integral) or isinstance(cap, bool) or (cap != -1 and cap < 1):
            raise OptionError(
                f"`num_neighbors_cap` is {cap!r}; it must be a whole number of at least 1, or -1 for all"
            )

    # -- state ------------------------------------------------------------------------------------

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            "given": self._n_given,
            "populations": self._populations,
            "started": self._started,
            "copies": [
                [copy.base, copy.generation, copy.misses, copy.alive, copy.members] for copy in self._copies
            ],
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        count = len(self._trials)
        self._n_given = whole("given", state["given"], count)
        self._populations = whole("populations", state["populations"])
        self._started = flag("started", state["started"])
        self._copies = []
        for base, generation, misses, alive, members in state["copies"]:
            copy = _Copy(whole("base", base, count - 1))
            copy.generation = whole("generation", generation, self.max_generations)
            copy.misses = whole("misses", misses)
            copy.alive = flag("alive", alive)
            copy.members = positions("members", members, count, once=True)
            copy.waiting = {index for index in copy.members if self._trials[index].outcome is None}
            self._copies.append(copy)
        for trial in self._trials:
            if trial.tag is not None:
                whole("tag", trial.tag, len(self._copies) - 1)
