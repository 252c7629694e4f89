"""Mutation and crossover of differential evolution, on the integer matrix."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from searchers.encoding import Matrix
from searchers.space import Space

__all__ = ["challengers"]

_LEAST_WEIGHT: Final = 0.5
_MOST_WEIGHT: Final = 1.0
"""The differential weight F is drawn anew for each child ("dither"; Price, Storn and Lampinen, "Differential
Evolution", 2005, section 2.5.2): a fixed one reaches few levels where a parameter has few."""


def challengers(
    space: Space,
    target: npt.NDArray[np.int32],
    parents: npt.NDArray[np.int32],
    crossover_rate: float,
    rng: np.random.Generator,
) -> Matrix:
    """Children of one target by DE/rand/1/bin; some may break a constraint, or be the target itself.

    A parameter and its knockout bit cross over as one, and so does a whole list that shares one bit.

    Args:
        space: The space.
        target: Its row, shape (columns,).
        parents: Rows of three others for each child, shape (3, children, columns).
        crossover_rate: The chance of each parameter to come from the mutant; one does in any case.
        rng: Where randomness comes from.

    Returns:
        Rows, shape (children, columns).
    """
    encoding = space.encoding
    units = _units(space)
    n_children, n_units = parents.shape[1], int(units.max()) + 1
    whose = rng.integers(3, size=(n_children, n_units))[:, units]
    inherited = np.choose(whose, parents)
    mutant = np.where(_differs(space, parents), _differences(space, parents, rng), inherited)
    crossed = rng.random((n_children, n_units)) < crossover_rate
    movable = np.unique(units[encoding.n_levels > 1])
    if len(movable):
        crossed[np.arange(n_children), rng.choice(movable, size=n_children)] = True
    return np.where(crossed[:, units], mutant, target).astype(np.int32)


def _differences(
    space: Space, parents: npt.NDArray[np.int32], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """``a + F * (b - c)`` in levels, reflected at the ends."""
    a, b, c = parents
    drawn = a + rng.uniform(_LEAST_WEIGHT, _MOST_WEIGHT, size=(len(a), 1)) * (b - c)
    drawn = np.floor(drawn + rng.random(drawn.shape))  # up or down by chance: small steps are not lost
    top = space.encoding.n_levels - 1
    reflected = np.where(drawn < 0, -drawn, np.where(drawn > top, 2 * top - drawn, drawn))
    return np.asarray(reflected.clip(0, top))


def _differs(space: Space, parents: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Where a difference means something: ordered parameters that all three have."""
    encoding = space.encoding
    absent = np.zeros(parents.shape[1:], dtype=bool)
    for rows in parents:
        absent[:, : encoding.n_parameters] |= encoding.knocked_out(rows)
    return np.asarray(encoding.ordered & ~absent)


def _units(space: Space) -> npt.NDArray[np.int64]:
    """What crosses over as one, by column: a parameter and its bit, a whole list if it has one bit."""
    units = np.arange(space.encoding.n_columns)
    for column, leaf in enumerate(space.encoding.leaves):
        if leaf.bit is not None:
            units[column] = leaf.bit
    return np.unique(units, return_inverse=True)[1].reshape(-1)
