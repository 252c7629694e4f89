"""The genetic engine of CompileIQ's document, on the integer matrix."""

from __future__ import annotations

import logging
import math
from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from searchers import effort
from searchers.base import SpaceSearcher, Trial
from searchers.checks import number_option, share_option, whole_option
from searchers.encoding import Matrix
from searchers.errors import OptionError
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.state import positions, rows_of, whole

__all__ = ["GeneticSearch"]

logger = logging.getLogger(__name__)

_MATING_ROUNDS = 4
_IMMIGRANTS = 0.25
"""Share of random candidates after a block that changed nothing at the top (Grefenstette, "Genetic
algorithms for changing environments", 1992); twice that after two."""
_LEAST_BRED = 8
"""New children kept when candidates are asked for one by one; more would come from parents of yesterday."""
_LEAST_CHILDREN, _MOST_CHILDREN = 32, 256
"""Children bred for them: many children cost little more than one child, and where constraints leave little,
or the population has nearly converged, few children are valid and new."""


class _Block:
    """One generation: how much of it was asked for, is back, and passed."""

    __slots__ = ("asked", "back", "passed", "quota", "top_ups")

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.asked = self.back = self.passed = self.top_ups = 0


class GeneticSearch(SpaceSearcher):
    """A genetic algorithm for one objective or many.

    A generation is a block of `pool_size` candidates in ask order. When a block is complete, the
    survivors so far and its successes are ranked: the best `cull_size` are the parents from then on,
    the best ``pool_size - cull_size`` survive to be ranked again. One objective ranks by value, two by
    NSGA-II, three and more, or two with weights, by NSGA-III. Children come from binary tournaments,
    crossover and, with the chance `mutate_rate`, mutation; a child that was proposed before is mutated
    until it is new, and random rows fill what is then missing. After a block none of whose members is
    among the best quarter of the parents, a part of the next one is random too.

    Unless `generational` is set, nobody waits for a block to be complete: children are bred from the
    parents and all successes that are back. Only, breeding begins with a whole random population, as in
    any steady-state algorithm (Whitley, "The GENITOR Algorithm and Selection Pressure", 1989): candidates
    are random until `pool_size` outcomes are known, of evaluations made elsewhere as well. A block of
    which fewer than 20% passed is topped up, at most ten times, then the search goes on with a warning.
    Failed candidates are never parents.

    Args:
        space: See `SpaceSearcher`.
        generations: How many blocks there will be; ``None`` for no end.
        pool_size: Candidates of a block, more than 5; ``None``: 16 for each objective and 16 more.
        cull_size: Parents, an even number more than 1 and less than `pool_size`; ``None``: half the
            pool, rounded down to an even number.
        mutate_rate: The chance that a *candidate* (not a gene) is perturbed, between 0 and 1.
        objective_weights: How much each objective counts; shapes NSGA-III's reference directions.
        init_with_true_random_threshold: Share of the first block that takes its values from
            `seed_low` to `seed_high`, the rest from the whole range; ``None``: all from the whole range.
        enable_large_fail_pool: Top up by a whole pool, else by the number of successes missing.
        generational: Propose nothing from a block before all earlier ones are complete. Then the
            proposals do not depend on the order in which outcomes come back.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`; they belong to the first block.

    Raises:
        OptionError: An argument has a value it cannot have.
    """

    looks_ahead: ClassVar[bool] = True

    def __init__(
        self,
        space: Space | None = None,
        generations: int | None = effort.GENERATIONS,
        pool_size: int | None = None,
        cull_size: int | None = None,
        mutate_rate: float = effort.MUTATE_RATE,
        objective_weights: Sequence[float] | None = None,
        init_with_true_random_threshold: float | None = effort.SEED_SHARE,
        enable_large_fail_pool: bool = True,
        generational: bool = False,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        super().__init__(space, metric=metric, mode=mode, seed=seed, initial_configs=initial_configs)
        self.generations = _whole("generations", generations, 1)
        self._given_pool = _whole("pool_size", pool_size, 6)
        self._given_cull = _whole("cull_size", cull_size, 2)
        if self._given_cull is not None and self._given_cull % 2:
            raise OptionError(f"`cull_size` is {cull_size!r}; it must be even")
        self.mutate_rate = share_option("mutate_rate", mutate_rate)
        share = init_with_true_random_threshold
        if share is not None and number_option("init_with_true_random_threshold", share) > 1:
            raise OptionError(
                f"`init_with_true_random_threshold` is {share!r}; it must be None or lie between 0 and 1"
            )
        self.objective_weights = None if objective_weights is None else _weights(objective_weights)
        self.init_with_true_random_threshold = share
        self.enable_large_fail_pool = bool(enable_large_fail_pool)
        self.generational = bool(generational)
        self._blocks: list[_Block] = []
        self._closed = 0  # blocks are closed in order
        self._survivors: list[int] = []
        self._parents: list[int] = []
        self._new: list[int] = []
        self._mating: list[int] | None = None
        self._stale = 0
        self._stalled = 0
        self._n_children = _LEAST_CHILDREN
        self._offspring: deque[tuple[Matrix, int]] = deque()
        if metric is not None or mode is not None:
            self._check_sizes()

    @property
    def pool_size(self) -> int:
        """Candidates of a block."""
        return self._given_pool or effort.pool_size(self.n_objectives)

    @property
    def cull_size(self) -> int:
        """Parents of a block."""
        return self._given_cull or effort.cull_size(self.pool_size)

    # -- proposing --------------------------------------------------------------------------------

    def _propose(self, n: int) -> None:
        while n > 0 and not self._exhausted:
            number = self._open_block()
            if number is None:
                return
            block = self._blocks[number]
            # a whole block at once when generational, so that its rows do not depend on how it is asked for
            wanted = block.quota - block.asked
            wanted = wanted if self.generational else min(n, wanted)
            admitted = self._breed(wanted, number)
            if not admitted:
                return
            block.asked += admitted
            n -= admitted

    def _open_block(self) -> int | None:
        """The first block that lacks candidates, a new one if need be; ``None`` to wait or at the end."""
        for number in range(self._closed, len(self._blocks)):
            if self._blocks[number].asked < self._blocks[number].quota:
                return number
            if self.generational:
                return None
        if self.generations is not None and len(self._blocks) >= self.generations:
            return None
        if not self._blocks:
            self._check_sizes()
        self._blocks.append(_Block(self.pool_size))
        return len(self._blocks) - 1

    def _adopt(self, trial: Trial) -> None:
        number = self._open_block()
        if number is not None:
            trial.generation = number
            self._blocks[number].asked += 1

    def _breed(self, n: int, generation: int) -> int:
        """Propose `n` children, or random rows while too little is known; returns how many."""
        # bred from the first few successes alone, all that follow would resemble these
        known = len(self._trials) - len(self._ready) - len(self._pending)
        mating = self._mating_pool() if known >= self.pool_size else []
        if len(mating) < 2:
            return self._admit_first(n, generation)
        admitted = self._admit_offspring(n, generation)
        if admitted < n and not self._exhausted:
            self._fill_offspring(n - admitted, mating)
            admitted += self._admit_offspring(n - admitted, generation)
        if admitted < n and not self._exhausted:
            admitted += len(self._admit_random(n - admitted, generation=generation))
        return admitted

    def _admit_first(self, n: int, generation: int) -> int:
        """Propose `n` random rows; unless generational, such as do not depend on how many are asked for."""
        share, admitted = self.init_with_true_random_threshold, 0
        while admitted < n and not self._exhausted:
            at_once = n if self.generational else 1
            admitted += len(self._admit_random(at_once, generation=generation, seed_share=share))
        return admitted

    def _fill_offspring(self, n: int, mating: list[int]) -> None:
        """Breed at least `n` new children, fewer if even strong mutation finds no more."""
        wanted = max(n, _LEAST_BRED)
        found: dict[int, Matrix] = {}
        for strength in range(_MATING_ROUNDS):
            children = self._children(max(wanted - len(found), self._n_children), mating, strength)
            for i, key in self._fresh(children).items():
                found.setdefault(key, children[i])
            if not strength and len(found) > 2 * wanted:
                self._n_children = max(self._n_children // 2, _LEAST_CHILDREN)
            if len(found) >= wanted:
                break
            self._n_children = min(2 * self._n_children, _MOST_CHILDREN)
        bred = [(row, key) for key, row in found.items()][:wanted]
        if self._stalled:
            immigrants = int(self._rng.binomial(len(bred), _IMMIGRANTS * min(self._stalled, 2)))
            rows = self._known_space().sample(immigrants, self._rng)
            del bred[len(bred) - immigrants :]
            bred += [(rows[i], key) for i, key in self._fresh(rows).items()]
        self._offspring.extend(bred)

    def _admit_offspring(self, n: int, generation: int) -> int:
        admitted = 0
        while admitted < n and self._offspring:
            row, key = self._offspring.popleft()
            if key not in self._by_key:
                self._append(row, key, generation)
                admitted += 1
        return admitted

    def _children(self, n: int, mating: list[int], strength: int) -> Matrix:
        """At least `n` rows bred from `mating` (best first); with a `strength`, all are mutated."""
        from searchers.operators import LevelCrossover, LevelProblem, mutated

        space = self._known_space()
        problem = LevelProblem(space.encoding, self.n_objectives)
        couples = (n + 1) // 2
        # binary tournament: the pool is in order of fitness, so the smaller position wins
        places = self._rng.integers(len(mating), size=(2, 2, couples)).min(axis=0)
        clash = places[0] == places[1]
        places[1, clash] = (places[1, clash] + 1) % len(mating)
        rows = self._rows_of(mating)
        crossed = LevelCrossover()._do(problem, rows[places], random_state=self._rng)
        children: Matrix = crossed.reshape(-1, rows.shape[1])
        chosen = np.ones(len(children), dtype=bool)
        if not strength:
            chosen = self._rng.random(len(children)) < self.mutate_rate
        if chosen.any():
            children[chosen] = mutated(space, children[chosen], self._rng, extra=0.5 + strength)
        return children

    def _mating_pool(self) -> list[int]:
        """The fittest `cull_size` of parents, survivors and all successes of open blocks, best first."""
        if self._mating is None or self._stale >= max(1, self.pool_size // 8):
            self._mating = self._fittest([*self._parents, *self._survivors, *self._new], self.cull_size)
            self._stale = 0
        return self._mating

    def _fittest(self, indices: list[int], n: int) -> list[int]:
        from searchers.survival import reference_directions, select

        passed = [(i, o) for i in set(indices) if (o := self._trials[i].outcome) is not None and o.ok]
        if self.n_objectives == 1:
            return [i for _, i in sorted((self._losses(outcome), i) for i, outcome in passed)[:n]]
        passed.sort()  # the order in which outcomes came back must not decide ties
        indices = [i for i, _ in passed]
        if len(indices) < 2:
            return indices
        losses = np.array([self._losses(outcome) for _, outcome in passed])
        directions = None
        if self.n_objectives > 2 or (self.n_objectives == 2 and self.objective_weights):
            directions = reference_directions(self.n_objectives, self.pool_size, self.objective_weights)
        return [indices[i] for i in select(losses, n, self._rng, directions)]

    # -- learning ---------------------------------------------------------------------------------

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        passed = trial.outcome is not None and trial.outcome.ok
        block = None if trial.generation is None else self._blocks[trial.generation]
        if previous is None:
            if block is not None:
                block.back += 1
                block.passed += passed
        elif block is not None:
            block.passed += passed - previous.ok
        if passed and (previous is None or trial.index not in self._new):
            self._new.append(trial.index)
        if previous is not None:
            self._mating = None
        elif self.n_objectives > 1:
            self._stale += 1
        elif passed and self._mating is not None:
            insort(self._mating, trial.index, key=lambda i: (self._losses(self._trials[i].outcome), i))
            del self._mating[self.cull_size :]
        if block is not None and previous is None:
            self._settle()

    def _settle(self) -> None:
        """Close the blocks that are complete, in order, or top them up."""
        for number in range(self._closed, len(self._blocks)):
            block = self._blocks[number]
            if block.back < block.quota:
                return
            needed = math.ceil(effort.FAIL_SHARE * self.pool_size)
            if block.passed < needed and not self._exhausted:
                if block.top_ups < effort.MAX_TOP_UPS:
                    block.top_ups += 1
                    block.quota += self.pool_size if self.enable_large_fail_pool else needed - block.passed
                    return
                logger.warning(
                    "generation %d: %d of %d candidates passed, after %d top-ups; going on",
                    number,
                    block.passed,
                    block.quota,
                    block.top_ups,
                )
            self._close(number)

    def _close(self, number: int) -> None:
        self._closed = number + 1
        own = [i for i in self._new if (self._trials[i].generation or 0) <= number]
        self._new = [i for i in self._new if (self._trials[i].generation or 0) > number]
        pool = [*self._survivors, *own]
        self._parents = self._fittest(pool, self.cull_size)
        self._survivors = self._fittest(pool, self.pool_size - self.cull_size)
        leaders = self._fittest(self._parents, max(1, self.cull_size // 4))
        self._stalled = 0 if any(self._trials[i].generation == number for i in leaders) else self._stalled + 1
        self._mating = None
        if self.generational:
            self._offspring.clear()

    def generation_closed(self, number: int) -> bool:
        """Whether all of a generation, top-ups included, is back."""
        return number < self._closed

    def _finished(self) -> bool:
        return (
            self.generations is not None
            and len(self._blocks) >= self.generations
            and self._closed == len(self._blocks)
        )

    # -- state ------------------------------------------------------------------------------------

    def _check_sizes(self) -> None:
        if self.cull_size >= self.pool_size:
            raise OptionError(
                f"`cull_size` is {self.cull_size}; it must be less than `pool_size`, {self.pool_size}"
            )
        if self.objective_weights is not None and len(self.objective_weights) != self.n_objectives:
            raise OptionError(
                f"`objective_weights` has {len(self.objective_weights)} values for "
                f"{self.n_objectives} objectives"
            )

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            "blocks": [[getattr(block, name) for name in _Block.__slots__] for block in self._blocks],
            "closed": self._closed,
            "survivors": self._survivors,
            "parents": self._parents,
            "new": self._new,
            "mating": self._mating,
            "stale": self._stale,
            "stalled": self._stalled,
            "n_children": self._n_children,
            "offspring": [row.tolist() for row, _ in self._offspring],
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        self._blocks = []
        for values in state["blocks"]:
            block = _Block(0)
            for name, value in zip(_Block.__slots__, values, strict=True):
                setattr(block, name, whole(name, value))
            self._blocks.append(block)
        generations = [trial.generation for trial in self._trials if trial.generation is not None]
        positions("generation", generations, len(self._blocks))
        self._closed = whole("closed", state["closed"], len(self._blocks))
        count = len(self._trials)
        self._survivors = positions("survivors", state["survivors"], count)
        self._parents = positions("parents", state["parents"], count)
        self._new = positions("new", state["new"], count)
        self._mating = None if state["mating"] is None else positions("mating", state["mating"], count)
        for index in self._mating or ():
            self._losses(self._trials[index].outcome)
        self._stale, self._stalled = whole("stale", state["stale"]), whole("stalled", state["stalled"])
        self._n_children = whole("n_children", state["n_children"], _MOST_CHILDREN)
        rows = rows_of("offspring", state["offspring"], self._known_space())
        keys = self._known_space().keys(rows).tolist() if len(rows) else []
        self._offspring = deque(zip(rows, keys, strict=True))


def _whole(name: str, value: int | None, least: int) -> int | None:
    return None if value is None else whole_option(name, value, least)


def _weights(weights: Sequence[float]) -> list[float]:
    found = [number_option("objective_weights", weight) for weight in weights]
    if not found or min(found) <= 0:
        raise OptionError(f"`objective_weights` is {weights!r}; it must be a list of numbers above 0")
    return found
