"""Models of parts of a space, for when the model of the whole has nothing more to offer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers.acquisition import DIGITS, highest, log_expected_improvement
from searchers.gaussian_process import Floats, Hyperparameters, Posterior, fit
from searchers.kernel import Grid
from searchers.points import Points
from searchers.state import whole

__all__ = ["MOST_FEATURES", "DividedModel", "Evidence"]

States = npt.NDArray[np.int64]

MOST_FEATURES = 32
"""With more, the fits would cost more than most evaluations."""
_LEAST_OBSERVATIONS = 10
"""No part with fewer has a model ..."""
_FIT_ON = 250
"""... and no fit looks at more, the latest."""
_PARTS = 8
"""How many parts, drawn at random, are looked at for a proposal."""
_GROWTH = 1.15
"""A part's model is fitted anew when it has so many times the observations."""
_LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a proposal is based on.

    Attributes:
        states: Of each success, the level of each parameter, or how many it has where it is absent, shape
            (n, n_parameters).
        features: Of each, shape (n, n_features).
        targets: Of each, less is better, shape (n,).
        noise: Known variance of each target, shape (n,).
        incumbent: What has to be improved upon, on the scale of the targets.
        pending: States of what is being evaluated, shape (k, n_parameters).
        pending_features: Of each, shape (k, n_features).
    """

    states: States
    features: Floats
    targets: Floats
    noise: Floats
    incumbent: float
    pending: States
    pending_features: Floats


class DividedModel:
    """A Gaussian process for each level of each parameter, fitted to what was observed there alone.

    The model of a whole space has one length scale for each parameter: what it learns at one level it
    believes of the next. A limit on registers that costs nothing with small tiles and everything with large
    ones is beyond it, and it is sure of what is wrong. After Gramacy and Lee, "Bayesian treed Gaussian
    process models with an application to computer modeling" (2008), who look for the best tree of cuts; here
    there is one cut, and of all the parts that a cut can make some are asked for each proposal.
    """

    def __init__(self) -> None:
        self._fits: dict[tuple[int, int], tuple[Hyperparameters, int]] = {}

    def best(
        self,
        evidence: Evidence,
        start: Hyperparameters,
        points: Points,
        free: npt.NDArray[np.bool_],
        bonus: Floats,
        rng: np.random.Generator,
    ) -> int | None:
        """The point whose expected improvement is the largest in the eyes of the model of one of its parts.

        Args:
            evidence: What has been observed.
            start: Where the first fit of a part starts.
            points: What may be proposed.
            free: Which of them are unknown, shape (N,).
            bonus: What is added to the logarithm of the expected improvement of each, shape (N,).
            rng: Draws the parts.

        Returns:
            Its position, ``None`` if no part has observations enough and a point left.
        """
        found: list[tuple[float, int]] = []
        parts = _parts(evidence.states)
        for index in rng.permutation(len(parts))[:_PARTS].tolist():
            parameter, level = parts[index]
            left = np.flatnonzero(free & (points.states[:, parameter] == level))
            if len(left):
                scores = self._scores(parts[index], evidence, start, points.grid.part(left)) + bonus[left]
                top = highest(scores)
                found.append((round(float(scores[top]), DIGITS), -int(left[top])))  # the first of equal ones
        return -max(found)[1] if found else None

    def _scores(
        self, part: tuple[int, int], evidence: Evidence, start: Hyperparameters, grid: Grid
    ) -> Floats:
        """Logarithm of the expected improvement of each point of a part."""
        parameter, level = part
        members = np.flatnonzero(evidence.states[:, parameter] == level)
        n, members = len(members), members[-_FIT_ON:]
        features, targets = evidence.features[members], evidence.targets[members]
        mean, spread = float(targets.mean()), max(float(targets.std()), _LEAST_SPREAD)
        scaled = (targets - mean) / spread
        noise = np.minimum(evidence.noise[members] / spread**2, 1.0)
        known = self._fits.get(part)
        if known is None or n > _GROWTH * known[1]:
            begin = start if known is None else known[0]
            known = self._fits[part] = (fit(features, scaled, begin, noise), n)
        posterior = Posterior(grid, known[0])
        posterior.add(features, noise)
        waiting = evidence.pending[:, parameter] == level
        if waiting.any():
            posterior.add(evidence.pending_features[waiting], np.zeros(int(waiting.sum())))
        goal = (evidence.incumbent - mean) / spread
        return log_expected_improvement(*posterior.predict(scaled), goal) + math.log(spread)

    def forget(self) -> None:
        """Fit anew at the next occasion: an observation is not what it was."""
        self._fits.clear()

    def state(self) -> list[dict[str, Any]]:
        """JSON data."""
        return [{"part": list(part), "n": n, **fitted.state()} for part, (fitted, n) in self._fits.items()]

    def load(self, state: list[dict[str, Any]], n_features: int) -> None:
        """The inverse of `state`.

        Raises:
            StateError: `state` is damaged.
        """
        self._fits.clear()
        for record in state:
            parameter, level = (whole("part", number) for number in record["part"])
            self._fits[parameter, level] = (Hyperparameters.load(record, n_features), whole("n", record["n"]))


def _parts(states: States) -> list[tuple[int, int]]:
    """Parameter and level of all parts with observations enough, but not with all of them."""
    parts = []
    for parameter in range(states.shape[1]):
        levels, counts = np.unique(states[:, parameter], return_counts=True)
        enough = (counts >= _LEAST_OBSERVATIONS) & (counts < len(states))
        parts += [(parameter, level) for level in levels[enough].tolist()]
    return parts
