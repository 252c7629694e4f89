"""All combinations of a few linked parameters that satisfy their constraints.

Parameters are assigned one after the other, for many partial rows at once, and rows without hope are
dropped at each step. Three kinds of checks tell hope from none:

* a constraint with few combinations is tabulated; what any completion of a partial row allows is then a
  look-up, and exact;
* a larger one whose parameters are all assigned is computed;
* a larger one that is incomplete is bounded by interval arithmetic (`searchers.intervals`). For it a
  parameter with many values is first assigned a block of neighbouring values, then the value.

Rows wait in a buffer before each step. The deepest step with a full chunk goes first, so that memory
stays bounded, and none works on a handful of rows while more could come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from searchers.columns import Domain
from searchers.constraints import Constraint, truth_table
from searchers.evaluation import truth
from searchers.expressions import Expr, conjuncts
from searchers.intervals import Range, decide

__all__ = ["Budget", "OutOfBudget", "Solution", "solve"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_TABLE: Final = 1 << 20
_ALL_TABLES: Final = 1 << 23
_LISTED: Final = 1 << 16
_CELLS: Final = 1 << 21
_CHUNK: Final = 1 << 17
_SAMPLES: Final = 1024
_BLOCK: Final = 32
_FAN: Final = 4096
_BOUND_COST: Final = 5
_OBJECT_COST: Final = 8


class OutOfBudget(Exception):
    """The work allowed is used up."""


class Budget:
    """How much may still be computed, in element operations, so that it is the same on every machine."""

    def __init__(self, work: int) -> None:
        self.left = work

    def spend(self, amount: int) -> None:
        """Take `amount`.

        Raises:
            OutOfBudget: There is not that much left.
        """
        self.left -= amount
        if self.left < 0:
            raise OutOfBudget


@dataclass(frozen=True)
class Solution:
    """What `solve` found.

    Attributes:
        rows: States, a column for each of `leaves`; not in order.
        leaves: The parameters.
        complete: Whether these are all; if not, there are more than the limit.
        culprit: Where nothing satisfies all constraints: the one on which the last rows died.
        unsure: Constraints that had no value for some rows; they must be checked again.
    """

    rows: Array
    leaves: tuple[int, ...]
    complete: bool
    culprit: Constraint | None
    unsure: tuple[Constraint, ...]


def solve(
    leaves: Sequence[int],
    constraints: Sequence[Constraint],
    domains: Sequence[Domain],
    *,
    limit: int,
    budget: Budget,
) -> Solution:
    """The combinations of states of `leaves` that satisfy all `constraints`.

    Args:
        leaves: Positions in `domains`.
        constraints: Each has an expression over some of `leaves`.
        domains: All parameters.
        limit: Stop once there are more rows than this.
        budget: Where work is taken from.

    Returns:
        The rows. One in which a constraint has no value is kept if nothing else excludes it.

    Raises:
        OutOfBudget: `budget` is used up.
    """
    return _Solver(leaves, constraints, domains, budget).run(limit)


@dataclass
class _Check:
    """A conjunct of a constraint, and how it is checked."""

    expr: Expr
    constraint: Constraint
    leaves: tuple[int, ...] = ()
    table: Mask | None = None
    pass_rate: float = 1.0
    tables: list[Mask] = field(default_factory=list)
    """By number of assigned parameters: which combinations of them some completion allows."""


class _Column:
    """The states of a parameter that are still in question, by increasing value where they are numbers."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.n = domain.n_states
        self.states: npt.NDArray[np.int64] | None = None
        self._values = domain.values(np.arange(self.n)) if self.n <= _LISTED else None
        self.numeric = domain.bounds() is not None
        if self._values is not None and self.numeric:
            self.states = np.argsort(self._values, kind="stable")

    def keep(self, allowed: Mask) -> None:
        """Drop the states that are not allowed."""
        states = np.arange(self.domain.n_states) if self.states is None else self.states
        self.states = states[allowed[states]]
        self.n = len(self.states)

    def at(self, positions: Array) -> Array:
        return positions if self.states is None else self.states[positions]

    def values(self, states: Array) -> Array:
        if self._values is not None:
            return self._values[states]
        return self.domain.values(states.astype(np.int64))

    def range(self) -> Range | None:
        if not self.n:
            return None
        if self.numeric:
            ends = self.values(self.at(np.array([0, self.n - 1])))
            return Range(float(ends[0]), float(ends[1]))
        if self._values is None:
            return None
        values = self.values(self.at(np.arange(self.n))).tolist()
        numbers = [value for value in values if isinstance(value, int | float)]
        plain = all(value is None or isinstance(value, int | float | str) for value in values)
        if not plain or not numbers or max(map(abs, numbers)) >= 2**1000:
            return None
        return Range(float(min(numbers)), float(max(numbers)), numeric=False)


@dataclass(frozen=True)
class _Step:
    """One refinement of one parameter: from a block of `previous` states to blocks of `width`."""

    depth: int
    previous: int
    width: int

    @property
    def fan(self) -> int:
        return -(-self.previous // self.width)


@dataclass
class _Frame:
    """Partial rows; `start` is the block of the next parameter each of them is at, if there are blocks."""

    rows: Array
    start: Array | None


class _Solver:
    def __init__(
        self,
        leaves: Sequence[int],
        constraints: Sequence[Constraint],
        domains: Sequence[Domain],
        budget: Budget,
    ) -> None:
        self._domains = domains
        self._budget = budget
        self._columns = {leaf: _Column(domains[leaf]) for leaf in leaves}
        self._unsure: dict[int, Constraint] = {}
        self._culprit: tuple[int, Constraint] | None = None
        self._checks = [
            _Check(part, constraint, tuple(sorted(part.leaves)))
            for constraint in constraints
            if constraint.expr is not None
            for part in conjuncts(constraint.expr)
        ]
        self._tabulate()
        self._filter_states()
        self._estimate()
        self._order = self._ordered(leaves)
        self._place = {leaf: depth for depth, leaf in enumerate(self._order)}
        self._arrange_tables()
        self._ranges = {
            leaf: found for leaf, column in self._columns.items() if (found := column.range()) is not None
        }
        self._steps = [step for depth in range(len(self._order)) for step in self._steps_of(depth)]

    # -- preparation ------------------------------------------------------------------------------

    def _tabulate(self) -> None:
        left = _ALL_TABLES
        sizes = [math.prod(self._domains[leaf].n_states for leaf in check.leaves) for check in self._checks]
        for size, check in sorted(zip(sizes, self._checks, strict=True), key=lambda pair: pair[0]):
            if size > min(_TABLE, left):
                break
            left -= size
            self._budget.spend(size * check.expr.size)
            held, failure = truth_table(check.expr, check.leaves, self._domains)
            if failure is not None:
                held |= failure.rows
                self._note_unsure(check)
            check.table = held.reshape([self._domains[leaf].n_states for leaf in check.leaves])

    def _filter_states(self) -> None:
        for check in self._checks:
            if check.table is None:
                continue
            if not check.table.any():
                self._culprit = self._culprit or (0, check.constraint)
            for axis, leaf in enumerate(check.leaves):
                others = tuple(other for other in range(check.table.ndim) if other != axis)
                allowed = np.asarray(check.table.any(axis=others))
                if not allowed.all():
                    self._columns[leaf].keep(allowed)
                    if not self._columns[leaf].n:
                        self._culprit = self._culprit or (0, check.constraint)

    def _estimate(self) -> None:
        """How selective each check is, which decides the order."""
        rng = np.random.default_rng(0)
        for check in self._checks:
            if check.table is not None:
                check.pass_rate = float(check.table.mean()) if check.table.size else 1.0
                continue
            drawn = {}
            for leaf in check.leaves:
                column = self._columns[leaf]
                positions = rng.integers(max(column.n, 1), size=_SAMPLES)
                drawn[leaf] = column.values(column.at(positions)) if column.n else np.empty(0)
            if all(len(values) for values in drawn.values()):
                held, failure = truth(check.expr, drawn, _SAMPLES)
                check.pass_rate = float((held if failure is None else held | failure.rows).mean())

    def _ordered(self, leaves: Sequence[int]) -> tuple[int, ...]:
        """Parameters in an order in which selective constraints are complete early."""
        order: list[int] = []
        degree = {leaf: sum(leaf in check.leaves for check in self._checks) for leaf in leaves}
        waiting = list(self._checks)

        def growth(check: _Check) -> float:
            open_leaves = [leaf for leaf in check.leaves if leaf not in order]
            rows = sum(math.log(max(self._columns[leaf].n, 1)) for leaf in open_leaves)
            return rows + math.log(max(check.pass_rate, 1 / _SAMPLES))

        while waiting:
            best = min(waiting, key=growth)
            fresh = [leaf for leaf in best.leaves if leaf not in order]
            order += sorted(fresh, key=lambda leaf: (-degree[leaf], self._columns[leaf].n, leaf))
            waiting = [check for check in waiting if not set(check.leaves) <= set(order)]
        return (*order, *(leaf for leaf in leaves if leaf not in order))

    def _arrange_tables(self) -> None:
        for check in self._checks:
            arranged = tuple(sorted(check.leaves, key=self._place.__getitem__))
            if check.table is not None:
                table = check.table.transpose([check.leaves.index(leaf) for leaf in arranged])
                check.tables = [
                    table.any(axis=tuple(range(assigned, table.ndim))).ravel()
                    for assigned in range(table.ndim + 1)
                ]
                check.table = None
            check.leaves = arranged

    def _steps_of(self, depth: int) -> list[_Step]:
        leaf = self._order[depth]
        n = max(self._columns[leaf].n, 1)
        bounded = self._columns[leaf].numeric and any(
            leaf in check.leaves and not check.tables for check in self._checks
        )
        fan = _BLOCK if bounded else _FAN
        widths = [1]
        while widths[-1] * (2 * fan if bounded else fan) < n:
            widths.append(widths[-1] * fan)
        return [
            _Step(depth, previous, width)
            for previous, width in zip([n, *widths[:0:-1]], widths[::-1], strict=True)
        ]

    # -- the search -------------------------------------------------------------------------------

    def run(self, limit: int) -> Solution:
        found: list[Array] = []
        count = 0
        waiting: list[list[_Frame]] = [[] for _ in self._steps]
        if self._steps and self._culprit is None:
            waiting[0].append(_Frame(np.empty((1, 0), dtype=np.int32), None))
        chunk = max(1024, min(_CHUNK, _CELLS // max(len(self._order), 1)))
        while count <= limit:
            place = self._next(waiting, chunk)
            if place is None:
                break
            step = self._steps[place]
            frame = self._take(waiting[place], max(1, chunk // step.fan))
            result = self._expand(step, frame)
            if not len(result.rows):
                continue
            if place + 1 < len(self._steps):
                waiting[place + 1].append(result)
            else:
                found.append(result.rows)
                count += len(result.rows)
        rows = np.concatenate(found) if found else np.empty((0, len(self._order)), dtype=np.int32)
        culprit = self._culprit[1] if self._culprit is not None and not count else None
        return Solution(rows, self._order, count <= limit, culprit, tuple(self._unsure.values()))

    def _next(self, waiting: Sequence[Sequence[_Frame]], chunk: int) -> int | None:
        shallowest = None
        for place in reversed(range(len(waiting))):
            if waiting[place]:
                shallowest = place
                if sum(len(frame.rows) for frame in waiting[place]) * self._steps[place].fan >= chunk:
                    return place
        return shallowest

    @staticmethod
    def _take(frames: list[_Frame], n: int) -> _Frame:
        """Up to `n` of the waiting rows."""
        frame = frames.pop()
        if len(frame.rows) < n and frames:
            frames.append(frame)
            blocked = frame.start is not None
            rows = np.concatenate([each.rows for each in frames])
            start = (
                np.concatenate([each.start for each in frames if each.start is not None]) if blocked else None
            )
            frame = _Frame(rows, start)
            frames.clear()
        if len(frame.rows) > n:
            rest = None if frame.start is None else frame.start[n:]
            frames.append(_Frame(frame.rows[n:], rest))
            frame = _Frame(frame.rows[:n], None if frame.start is None else frame.start[:n])
        return frame

    def _expand(self, step: _Step, frame: _Frame) -> _Frame:
        leaf = self._order[step.depth]
        column = self._columns[leaf]
        offsets = np.arange(step.fan) * step.width
        positions = offsets[None, :] if frame.start is None else frame.start[:, None] + offsets
        positions = np.broadcast_to(positions, (len(frame.rows), step.fan))
        inside = positions < column.n
        checks = [check for check in self._checks if leaf in check.leaves]
        if step.width > 1:
            parents, kids = np.nonzero(inside)
            return self._narrow(step, _Frame(frame.rows[parents], positions[parents, kids]), checks)
        states = column.at(np.minimum(positions, column.n - 1))
        for check in checks:
            if check.tables:
                inside = inside & self._look_up(step, check, frame.rows, states)
                if not inside.any():
                    self._died(step, check)
                    break
        parents, kids = np.nonzero(inside)
        rows = np.empty((len(parents), step.depth + 1), dtype=np.int32)
        rows[:, :-1] = frame.rows[parents]
        rows[:, -1] = states[parents, kids]
        for check in checks:
            if not check.tables and len(rows):
                rows = rows[self._compute(step, check, rows)]
                if not len(rows):
                    self._died(step, check)
        return _Frame(rows, None)

    def _look_up(self, step: _Step, check: _Check, rows: Array, states: Array) -> Mask:
        """Which of the next parameter's states some completion of each row allows, by table."""
        assigned = [leaf for leaf in check.leaves if self._place[leaf] < step.depth]
        table = check.tables[len(assigned) + 1]
        self._budget.spend(2 * states.size)
        base = np.zeros(len(rows), dtype=np.int64)
        for leaf in assigned:
            base *= self._domains[leaf].n_states
            base += rows[:, self._place[leaf]]
        base *= self._domains[self._order[step.depth]].n_states
        return table[base[:, None] + states]

    def _compute(self, step: _Step, check: _Check, rows: Array) -> Mask:
        """Which rows satisfy a complete check, or still can satisfy an incomplete one."""
        known = {
            leaf: self._columns[leaf].values(rows[:, self._place[leaf]])
            for leaf in check.leaves
            if self._place[leaf] <= step.depth
        }
        if len(known) < len(check.leaves):
            self._spend(check, len(rows), _BOUND_COST)
            return decide(check.expr, known, self._ranges, len(rows))[0]
        self._spend(check, len(rows), 1)
        held, failure = truth(check.expr, known, len(rows))
        if failure is not None:
            self._note_unsure(check)
            held = held | failure.rows
        return held

    def _narrow(self, step: _Step, frame: _Frame, checks: Sequence[_Check]) -> _Frame:
        """Drop blocks in which no value gives hope."""
        leaf = self._order[step.depth]
        column = self._columns[leaf]
        for check in checks:
            if check.tables or not column.numeric or not len(frame.rows):
                continue
            assert frame.start is not None
            last = np.minimum(frame.start + step.width, column.n) - 1
            low, high = (column.values(column.at(ends)).astype(np.float64) for ends in (frame.start, last))
            known = {
                other: self._columns[other].values(frame.rows[:, self._place[other]])
                for other in check.leaves
                if self._place[other] < step.depth
            }
            self._spend(check, len(frame.rows), _BOUND_COST)
            hope, _ = decide(check.expr, known, {**self._ranges, leaf: Range(low, high)}, len(frame.rows))
            frame = _Frame(frame.rows[hope], frame.start[hope])
            if not len(frame.rows):
                self._died(step, check)
        return frame

    # -- book-keeping -----------------------------------------------------------------------------

    def _spend(self, check: _Check, rows: int, factor: int) -> None:
        if not all(self._columns[leaf].numeric for leaf in check.leaves):
            factor = _OBJECT_COST
        self._budget.spend(rows * check.expr.size * factor)

    def _died(self, step: _Step, check: _Check) -> None:
        if self._culprit is None or step.depth >= self._culprit[0]:
            self._culprit = (step.depth, check.constraint)

    def _note_unsure(self, check: _Check) -> None:
        self._unsure[id(check.constraint)] = check.constraint
