"""Small changes of a configuration, one parameter at a time."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from searchers.encoding import Matrix
from searchers.lists import Permutation
from searchers.space import Space

__all__ = ["Moves"]

_MOST_VALUES = 1024
"""A parameter that comes back after a knockout tries no more values than this."""
_MOST_SWAPS = 3
"""A permutation moves no further: within 16 swaps of an order of ten items there are most of the others."""


class Moves:
    """What can become of each parameter of one row, whether or not constraints allow it by itself.

    Args:
        space: The space.
        row: The row to move from, shape (columns,).
        radius: How many levels a parameter moves at most; a category moves to any other. Powers of two
            and logarithmic ranges have their logarithms as levels; a permutation by three swaps at most.

    Attributes:
        row: As given.
        of: For each parameter the rows that it alone makes different, shape (moves, columns). A parameter
            that can be knocked out may go, and one that is knocked out may come back with any value; one
            whose condition is off has no moves.
        movable: The parameters that have moves.
        important: Those of them that are marked.
    """

    def __init__(self, space: Space, row: Matrix, radius: int = 1) -> None:
        self.row = np.asarray(row, dtype=np.int32)
        absent = space.inactive(self.row[None, :])[0]
        leaves = space.encoding.leaves
        self.of: list[Matrix] = []
        leaves_of_bits: set[int] = set()
        for j, leaf in enumerate(leaves):
            if not absent[j]:
                far = min(radius, _MOST_SWAPS) if isinstance(leaf.param, Permutation) else radius
                levels = leaf.param.neighbours(int(self.row[j]), far)
            elif leaf.bit is not None and self.row[leaf.bit]:
                levels = list(range(min(leaf.param.n_levels, _MOST_VALUES)))
            else:
                levels = []
            rows = np.repeat(self.row[None, :], len(levels), axis=0)
            rows[:, j] = levels
            if leaf.bit is not None:
                rows[:, leaf.bit] = 0
                if not absent[j] and leaf.bit not in leaves_of_bits:  # the elements of a list share one
                    leaves_of_bits.add(leaf.bit)
                    rows = np.concatenate([rows, self.row[None, :]])
                    rows[-1, leaf.bit] = 1
            self.of.append(rows)
        self.movable = [j for j, rows in enumerate(self.of) if len(rows)]
        self.important = [j for j in self.movable if leaves[j].param.important]

    def single(self) -> Matrix:
        """Every row that is one move away, shape (n, columns)."""
        return np.concatenate([self.row[None, :][:0], *self.of])

    def important_pairs(self) -> Matrix:
        """Every row that is one move of each of two important parameters away, shape (n, columns)."""
        found = [self.row[None, :][:0]]
        for first, second in combinations(self.important, 2):
            found += [self.combined(self.of[second], move) for move in self.of[first]]
        return np.concatenate(found)

    def combined(self, rows: Matrix, move: Matrix) -> Matrix:
        """`rows` with the change that `move`, one or several rows of `of`, makes to the original row.

        The shapes broadcast: several rows with one change, or one row with several.
        """
        return np.where(move != self.row, move, rows)

    def random(self, parameters: list[int], rng: np.random.Generator) -> Matrix:
        """The row in which each of some parameters has made one of its moves."""
        row = self.row
        for j in parameters:
            row = self.combined(row, self.of[j][rng.integers(len(self.of[j]))])
        return row
