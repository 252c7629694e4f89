"""What makes a point worth evaluating: expected improvement on a warped objective, and feasibility."""

from __future__ import annotations

import math

import numpy as np

from searchers.gaussian_process import Floats

__all__ = ["CAUTION", "DIGITS", "highest", "log_expected_improvement", "log_feasible", "warped"]

_WARP_SHIFT = 0.05
_LEAST_UNIT, _LEAST_SPREAD = 1e-100, 1e-9
"""Losses that differ by less are alike."""
_FAR = -30.0
"""From there on the expansion is as exact as the formula, and soon the only one that does not underflow."""
_LABEL_NOISE = 0.05
DIGITS = 9
"""Scores are rounded to so many digits and ties go to the first: machines differ in the last ones."""
CAUTION = 4.0
"""Power of the probability of success: the model of the objective, which has seen successes only, promises
most where it has to extrapolate into what fails."""


def warped(losses: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Losses on a scale on which a model sees differences near the best, with mean 0 and variance 1.

    The scale is the logarithm of how far a loss is above the best, counted in twentieths of how far the
    median is: so the difference between the best and 1% above it counts as much as that between twice and
    four times as bad. It does not depend on the unit of the losses nor on their sign.

    Args:
        losses: Less is better, shape (n,).
        noise: Variance of each loss, shape (n,).

    Returns:
        The warped losses, and the variance that `noise` is on their scale, at most 1.
    """
    best = losses.min()
    above = losses - best
    unit = max(float(np.median(above)) or float(above.max()) or 1.0, _LEAST_UNIT)
    shifted = above + _WARP_SHIFT * unit
    logs = np.log(shifted)
    spread = max(float(logs.std()), _LEAST_SPREAD)
    return (logs - logs.mean()) / spread, np.minimum(np.sqrt(noise) / (shifted * spread), 1.0) ** 2


def log_expected_improvement(means: Floats, deviations: Floats, best: float) -> Floats:
    """Logarithm of how much below `best` a normal variable is expected to be (0 where it is above).

    Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions" (1998); the
    logarithm after Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization"
    (2023): far from the best all improvements would be the same 0.
    """
    from scipy.special import ndtr

    z = (best - means) / deviations
    near = np.maximum(z, _FAR)
    density = np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi)
    value = np.log(density + near * ndtr(near))
    far = np.minimum(z, _FAR)  # the expansion of the same function for z towards minus infinity
    tail = -0.5 * far**2 - 0.5 * math.log(2 * math.pi) - 2.0 * np.log(-far) + np.log1p(-3.0 / far**2)
    return np.where(z > _FAR, value, tail) + np.log(deviations)


def log_feasible(means: Floats, deviations: Floats) -> Floats:
    """What failing takes from the logarithm of an acquisition, from a regression on labels 1 and -1.

    The logarithm of the probability of success (least-squares classification with a probit link: Rasmussen
    and Williams 2006, section 6.5), times 4.
    """
    from scipy.special import log_ndtr

    return np.asarray(CAUTION * log_ndtr(means / np.sqrt(deviations**2 + _LABEL_NOISE)))


def highest(scores: Floats) -> int:
    """Position of the largest score, the same on every machine."""
    return int(np.round(scores, DIGITS).argmax())
