"""Who may be a parent: a ranking of losses, best first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["reference_directions", "select"]

Losses = npt.NDArray[np.float64]


def select(
    losses: Losses, n: int, rng: np.random.Generator, directions: Losses | None = None
) -> npt.NDArray[np.int64]:
    """Indices of the `n` fittest rows of `losses`, best first.

    One objective: by value. Two: NSGA-II's rank and crowding (Deb et al. 2002). With reference
    directions: NSGA-III's niching (Deb and Jain 2014).

    Args:
        losses: (n, objectives), less is better, all finite.
        n: How many to keep; all if there are fewer.
        rng: Breaks ties.
        directions: NSGA-III's reference directions, (n_directions, objectives).
    """
    n = min(n, len(losses))
    if losses.shape[1] == 1:
        return np.argsort(losses[:, 0], kind="stable")[:n]
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem

    if directions is None:
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

        survival = RankAndCrowding()
    else:
        from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival

        survival = ReferenceDirectionSurvival(directions)
    population = Population.new("F", losses, "index", np.arange(len(losses)))
    with warnings.catch_warnings():  # pymoo switches warnings off for the whole process otherwise
        survivors = survival.do(
            Problem(n_var=1, n_obj=losses.shape[1]), population, n_survive=n, random_state=rng
        )
    rank = survivors.get("rank").astype(float)
    crowding = np.zeros(len(survivors))
    if directions is None:
        crowding = np.nan_to_num(survivors.get("crowding").astype(float), posinf=1e300)
    return np.asarray(survivors.get("index"), dtype=np.int64)[np.lexsort((-crowding, rank))]


def reference_directions(n_objectives: int, limit: int, weights: Sequence[float] | None = None) -> Losses:
    """Das and Dennis' directions, as many as fit into `limit`, bent towards weighted objectives.

    A direction's components are divided by ``w / mean(w)`` and normalised again, so that niches
    crowd where a heavily weighted objective is small; the unit vectors stay.

    Returns:
        (n_directions, n_objectives), each row sums to 1.
    """
    from pymoo.util.ref_dirs import get_reference_directions

    partitions = 1
    while _count(n_objectives, partitions + 1) <= limit:
        partitions += 1
    directions = get_reference_directions("das-dennis", n_objectives, n_partitions=partitions)
    if weights is not None:
        scaled = directions / (np.asarray(weights, dtype=float) / np.mean(weights))
        directions = scaled / scaled.sum(axis=1, keepdims=True)
    return np.asarray(directions, dtype=np.float64)


def _count(n_objectives: int, partitions: int) -> int:
    from math import comb

    return comb(n_objectives + partitions - 1, partitions)
