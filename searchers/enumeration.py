"""All valid rows of a space, when there are not too many.

Constraints link parameters into groups. Each group is solved on its own (`searchers.solver`), and the
results are crossed, so that a constraint is never computed again for parameters it does not read.
Functions that could not be traced filter what is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from searchers.columns import Domain
from searchers.constraints import ConfigOf, Constraint
from searchers.errors import ConstraintError
from searchers.evaluation import truth
from searchers.solver import Budget, OutOfBudget, Solution, solve

__all__ = ["Combinations", "combinations", "count_states", "enumerate_states"]

Array = npt.NDArray[Any]

LIMIT: Final = 1_048_576
"""Most rows that are enumerated."""
WORK: Final = 1_500_000_000
"""Element operations after which enumeration gives up, a few seconds' worth."""
_CALL_COST: Final = 2500
"""What one call of a user's function counts."""
_CHUNK: Final = 1 << 16
_SHOWN: Final = 6


@dataclass(frozen=True)
class _Group:
    """Parameters that constraints link, and the rows of states they may have together."""

    leaves: tuple[int, ...]
    rows: Array | None
    """A column for each of `leaves`; ``None`` for a single parameter without constraints."""
    count: int

    def column(self, place: int, picked: Array) -> Array:
        return picked if self.rows is None else self.rows[picked, place]


@dataclass(frozen=True)
class _Solved:
    groups: list[_Group]
    count: int
    filters: list[Constraint]
    """Constraints that must be called for each row."""


def enumerate_states(
    domains: Sequence[Domain],
    constraints: Sequence[Constraint],
    config_of: ConfigOf,
    *,
    limit: int = LIMIT,
    work: int = WORK,
) -> npt.NDArray[np.int32] | None:
    """The states of all configurations that satisfy all constraints.

    A constraint, or a part of its outermost ``and``, may be without a value where another one says no.

    Args:
        domains: The parameters.
        constraints: What has to hold, see `Constraint.build`.
        config_of: Makes the configuration of a row of states, for functions that have to be called.
        limit: The most rows wanted.
        work: The most element operations to spend; the result does not depend on the machine's speed.

    Returns:
        A row for each configuration and a column for each parameter, in lexicographic order; ``None``
        if there are more than `limit`, or `work` did not suffice to tell.

    Raises:
        ConstraintError: Nothing satisfies the constraints, or one of them has no value for a
            configuration that the others allow.
    """
    budget = Budget(work)
    try:
        solved = _solve(domains, constraints, limit, budget)
        if solved is None or (not solved.filters and solved.count > limit):
            return None
        picked = np.arange(solved.count)
        if solved.filters:
            budget.spend(_CALL_COST * solved.count * len(solved.filters))
            picked = _filter(solved, len(domains), config_of, limit)
    except OutOfBudget:
        return None
    return None if len(picked) > limit else _in_order(solved, domains, picked)


class Combinations:
    """The states of a space too large to enumerate, as far as constraints link small groups of them.

    Constraints that are functions which have to be called are not heeded.
    """

    def __init__(self, solved: _Solved, width: int) -> None:
        self._solved = solved
        self._width = width

    def draw(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
        """`n` random rows of states, each as likely as any other, shape (n, parameters)."""
        states = np.empty((n, self._width), dtype=np.int32)
        for group in self._solved.groups:
            picked = rng.integers(group.count, size=n)
            for place, leaf in enumerate(group.leaves):
                states[:, leaf] = group.column(place, picked)
        return states


def combinations(
    domains: Sequence[Domain], constraints: Sequence[Constraint], *, limit: int = LIMIT, work: int = WORK
) -> Combinations | None:
    """The combinations that constraints allow, or ``None`` if a group of linked parameters is too large.

    Raises:
        ConstraintError: As `enumerate_states`.
    """
    traced = [constraint for constraint in constraints if constraint.leaves is not None]
    try:
        solved = _solve(domains, traced, limit, Budget(work), crossed=False)
    except OutOfBudget:
        return None
    return None if solved is None else Combinations(solved, len(domains))


def count_states(
    domains: Sequence[Domain],
    constraints: Sequence[Constraint],
    config_of: ConfigOf,
    *,
    limit: int = LIMIT,
    work: int = WORK,
) -> int | None:
    """The number of configurations that satisfy all constraints.

    It can be had for spaces far too large to enumerate, if no group of linked parameters is. Arguments
    and exceptions are those of `enumerate_states`; `limit` is for each group.
    """
    budget = Budget(work)
    try:
        solved = _solve(domains, constraints, limit, budget, crossed=False)
        if solved is None:
            return None
        if not solved.filters:
            return solved.count
        budget.spend(_CALL_COST * solved.count * len(solved.filters))
    except OutOfBudget:
        return None
    return len(_filter(solved, len(domains), config_of, solved.count))


def _solve(
    domains: Sequence[Domain],
    constraints: Sequence[Constraint],
    limit: int,
    budget: Budget,
    *,
    crossed: bool = True,
) -> _Solved | None:
    """Each group's rows, or ``None`` if there are too many of them."""
    filters = [constraint for constraint in constraints if constraint.leaves is None]
    traced = [constraint for constraint in constraints if constraint.leaves is not None]
    _refuse_false(traced)
    linked = _linked(traced)
    free = sorted(set(range(len(domains))).difference(*(leaves for leaves, _ in linked)))
    groups = [_Group((leaf,), None, domains[leaf].n_states) for leaf in free]
    count = math.prod(group.count for group in groups)
    # how many rows may go through the user's functions
    most = budget.left // (_CALL_COST * len(filters)) if filters else limit
    too_many = (crossed or bool(filters)) and count > most
    for leaves, among in linked:
        # a space that is too large for enumeration is still refused if nothing satisfies it
        found = solve(leaves, among, domains, limit=0 if too_many else most, budget=budget)
        if not len(found.rows):
            raise _nothing_satisfies(found.culprit, among, domains, budget)
        filters += _check_unsure(found, domains)
        if not found.complete:
            too_many = True
            continue
        groups.append(_Group(found.leaves, found.rows, len(found.rows)))
        count *= len(found.rows)
        too_many = too_many or ((crossed or bool(filters)) and count > most)
    return None if too_many else _Solved(groups, count, filters)


def _refuse_false(constraints: Iterable[Constraint]) -> None:
    """Constraints that read no parameter are decided here."""
    for constraint in constraints:
        if constraint.expr is not None and not constraint.leaves:
            held, failure = truth(constraint.expr, {}, 1)
            if failure is not None:
                raise constraint.failed(failure, _no_values)
            if not held[0]:
                raise ConstraintError(f"constraint {constraint.text!r} is false whatever the parameters are")


def _no_values(leaf: int) -> Array:
    raise KeyError(leaf)


def _linked(constraints: Sequence[Constraint]) -> list[tuple[list[int], list[Constraint]]]:
    """Groups of parameters that constraints connect, directly or through others."""
    parent: dict[int, int] = {}

    def root(leaf: int) -> int:
        while parent.setdefault(leaf, leaf) != leaf:
            parent[leaf] = leaf = parent[parent[leaf]]
        return leaf

    for constraint in constraints:
        leaves = sorted(constraint.leaves or ())
        for leaf in leaves:
            parent[root(leaf)] = root(leaves[0])
    groups: dict[int, tuple[list[int], list[Constraint]]] = {}
    for leaf in sorted(parent):
        groups.setdefault(root(leaf), ([], []))[0].append(leaf)
    for constraint in constraints:
        if constraint.leaves:
            groups[root(min(constraint.leaves))][1].append(constraint)
    return list(groups.values())


def _check_unsure(found: Solution, domains: Sequence[Domain]) -> list[Constraint]:
    """Raise where a constraint has no value for a row that is left; functions are left to be called."""
    to_call = []
    for constraint in found.unsure:
        if constraint.function is not None:
            to_call.append(constraint)
            continue
        assert constraint.expr is not None

        def values(leaf: int) -> Array:
            return domains[leaf].values(found.rows[:, found.leaves.index(leaf)].astype(np.int64))

        _, failure = truth(constraint.expr, values, len(found.rows))
        if failure is not None:
            raise constraint.failed(failure, values)
    return to_call


def _nothing_satisfies(
    culprit: Constraint | None, constraints: Sequence[Constraint], domains: Sequence[Domain], budget: Budget
) -> ConstraintError:
    for constraint in constraints:
        try:
            leaves = sorted(constraint.leaves or ())
            alone = solve(leaves, [constraint], domains, limit=0, budget=Budget(budget.left // 4))
        except OutOfBudget:
            continue
        if not len(alone.rows):
            return ConstraintError(f"no configuration satisfies constraint {constraint.text!r}")
    ordered = sorted(constraints, key=lambda constraint: constraint is culprit)
    shown = "; ".join(constraint.text for constraint in ordered[-_SHOWN:])
    last = "" if culprit is None else f"; the last candidates failed {culprit.text!r}"
    return ConstraintError(
        f"no configuration satisfies all constraints, although each can hold: they cannot hold together: "
        f"{shown}{last}"
    )


def _filter(solved: _Solved, width: int, config_of: ConfigOf, limit: int) -> npt.NDArray[np.int64]:
    """The combinations that the functions allow; more than `limit` if there are too many."""
    kept: list[npt.NDArray[np.int64]] = []
    count = 0
    last = solved.filters[0]
    for start in range(0, solved.count, _CHUNK):
        picked = np.arange(start, min(start + _CHUNK, solved.count))
        states = np.empty((len(picked), width), dtype=np.int32)
        for leaf, column in _columns(solved, picked):
            states[:, leaf] = column
        for constraint in solved.filters:
            held = constraint.holds(states, config_of)
            picked, states = picked[held], states[held]
            if not len(picked):
                last = constraint
                break
        kept.append(picked)
        count += len(picked)
        if count > limit:
            break
    if not count:
        raise ConstraintError(
            f"none of the {solved.count} configurations that satisfy the other constraints satisfies "
            f"{last.text!r}"
        )
    return np.concatenate(kept)


def _columns(solved: _Solved, picked: Array) -> Iterable[tuple[int, Array]]:
    """Each parameter's states in the combinations with these numbers."""
    stride = 1
    for group in solved.groups:
        places = picked // stride % group.count
        stride *= group.count
        for place, leaf in enumerate(group.leaves):
            yield leaf, group.column(place, places)


def _in_order(
    solved: _Solved, domains: Sequence[Domain], picked: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """The rows with these numbers, sorted; filled in column by column, since this is the memory's peak."""
    words: list[npt.NDArray[np.int64]] = []
    where = {}
    for number, group in enumerate(solved.groups):
        where.update({leaf: (number, place) for place, leaf in enumerate(group.leaves)})
    strides = np.cumprod([1, *(group.count for group in solved.groups)])

    def column(leaf: int, numbers: Array) -> Array:
        number, place = where[leaf]
        group = solved.groups[number]
        return group.column(place, numbers // strides[number] % group.count)

    room = 0
    for leaf, domain in enumerate(domains):
        if room < domain.n_states:
            words.append(np.zeros(len(picked), dtype=np.int64))
            room = 2**62
        words[-1] *= domain.n_states
        words[-1] += column(leaf, picked)
        room //= domain.n_states
    ordered = picked[np.lexsort(words[::-1])] if words else picked
    states = np.empty((len(picked), len(domains)), dtype=np.int32)
    for leaf in range(len(domains)):
        states[:, leaf] = column(leaf, ordered)
    return states
