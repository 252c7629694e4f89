"""Is one of two things really better? Intervals for ratios, and the verdict drawn from them.

Times are compared as logarithms, so that a difference is a ratio. Measurements come in *blocks*
(processes): within a block both sides are measured, and the block contributes one number, the
difference of the medians of the logarithms. What varies from process to process, alignment or clocks,
then counts once for each process and not once for each sample; a slow outlier moves no median.

The interval over blocks is that of Hodges and Lehmann ("Estimates of location based on rank tests",
1963): the median of all pairwise means, with limits from Wilcoxon's signed-rank distribution. It needs
no normality and loses 5% of efficiency where there is normality. Two columns of different lengths are
compared in the same way with the distribution of Mann and Whitney.

A difference counts only if the whole interval lies beyond a margin: 1%, or what a comparison of the
baseline with itself (A/A) could not tell apart, whichever is larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ciq_ray.errors import StatisticsError

__all__ = [
    "Interval",
    "Verdict",
    "block_differences",
    "centre",
    "compare_blocks",
    "compare_samples",
    "signed_rank_interval",
]

CONFIDENCE = 0.95
MARGIN = 0.01
"""Smaller gains are not worth a change, and not within what one machine can show."""
MIN_BLOCKS = 6
"""With fewer, the signed-rank distribution has no 95% interval."""

Array = npt.NDArray[np.float64]
Kind = Literal["win", "loss", "no significant difference"]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its limits, all in logarithms of a ratio.

    Attributes:
        estimate: The Hodges-Lehmann estimate.
        low: Lower limit.
        high: Upper limit.
        n: Blocks or pairs behind it.
    """

    estimate: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half of what lies between the limits."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison of a candidate with a baseline says.

    Attributes:
        kind: ``"win"``, ``"loss"`` or ``"no significant difference"``, for the candidate.
        ratio: Candidate's score divided by the baseline's.
        low: Lower limit of that ratio.
        high: Upper limit of that ratio.
        margin: What the interval had to clear, as a fraction: 0.01 is 1%.
        confidence: Of the interval.
        blocks: How many independent blocks (processes) it rests on.
        mode: ``"min"`` if lower scores are better, else ``"max"``.
        candidate: Name of the candidate.
        baseline: Name of the baseline.
        samples: How many there are on each side, if they were not paired; `blocks` is then the smaller.
    """

    kind: Kind
    ratio: float
    low: float
    high: float
    margin: float
    confidence: float
    blocks: int
    mode: str = "min"
    candidate: str = "candidate"
    baseline: str = "baseline"
    samples: tuple[int, int] | None = None

    @property
    def words(self) -> str:
        """The verdict as a sentence or two."""
        change = (self.ratio - 1) * 100
        if self.mode == "min":
            how = f"{abs(change):.1f}% {'less' if change < 0 else 'more'}"
        else:
            how = f"{abs(change):.1f}% {'more' if change > 0 else 'less'}"
        basis = f"{self.blocks} blocks"
        if self.samples is not None:
            basis = f"{self.samples[0]} and {self.samples[1]} samples"
        numbers = (
            f"ratio {self.ratio:.4f}, {self.confidence:.0%} interval {self.low:.4f} to {self.high:.4f} over "
            f"{basis}, margin {self.margin:.1%}"
        )
        if self.kind == "no significant difference":
            return (
                f"No significant difference between {self.candidate} and {self.baseline}; "
                f"keep {self.baseline} ({numbers})."
            )
        verb = "beats" if self.kind == "win" else "is worse than"
        return f"{self.candidate} {verb} {self.baseline}: {how} ({numbers})."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the words included."""
        return {**asdict(self), "words": self.words}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Verdict:
        """The inverse of `to_dict`."""
        fields = {name: value for name, value in data.items() if name != "words"}
        if fields.get("samples") is not None:
            fields["samples"] = tuple(fields["samples"])
        return cls(**fields)


def compare_blocks(
    candidate: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    again: Sequence[Sequence[float]] | None = None,
    *,
    mode: str = "min",
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
    names: tuple[str, str] = ("candidate", "baseline"),
) -> Verdict:
    """Compare two sides that were measured side by side in each of several blocks.

    Args:
        candidate: For each block its samples, in any number of at least one.
        baseline: As many blocks.
        again: The baseline a second time, for what A/A cannot tell apart.
        mode: ``"min"`` if lower scores are better, else ``"max"``.
        margin: What counts as a difference, as a fraction.
        confidence: Of the interval.
        names: Of the two sides.

    Raises:
        StatisticsError: Too few blocks, blocks that do not match, or scores that have no ratio.
    """
    both = baseline if again is None else [[*a, *b] for a, b in zip(baseline, again, strict=True)]
    interval = signed_rank_interval(block_differences(candidate, both), confidence)
    if again is not None:
        margin = max(margin, signed_rank_interval(block_differences(again, baseline), confidence).half_width)
    return _verdict(interval, mode, margin, confidence, names)


def compare_samples(
    candidate: Sequence[float],
    baseline: Sequence[float],
    *,
    mode: str = "min",
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
    names: tuple[str, str] = ("candidate", "baseline"),
) -> Verdict:
    """Compare two columns of numbers.

    Columns of one length are taken as pairs, row by row, as from runs in alternation; others as two
    independent samples.

    Raises:
        StatisticsError: Too few numbers, or numbers that have no ratio.
    """
    mine, other = _logs(candidate), _logs(baseline)
    if len(mine) == len(other):
        return _verdict(signed_rank_interval(mine - other, confidence), mode, margin, confidence, names)
    verdict = _verdict(_rank_sum_interval(mine, other, confidence), mode, margin, confidence, names)
    return replace(verdict, samples=(len(mine), len(other)))


def block_differences(candidate: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> Array:
    """For each block the difference of the medians of the logarithms, shape (blocks,).

    Raises:
        StatisticsError: The blocks do not match, or scores have no ratio.
    """
    if len(candidate) != len(baseline):
        raise StatisticsError(f"{len(candidate)} blocks cannot be paired with {len(baseline)}")
    return np.array(
        [
            np.median(_logs(mine)) - np.median(_logs(other))
            for mine, other in zip(candidate, baseline, strict=True)
        ]
    )


def centre(differences: Array) -> float:
    """Hodges and Lehmann's estimate: the median of all pairwise means."""
    first, second = np.triu_indices(len(differences))
    return float(np.median((differences[first] + differences[second]) / 2))


def signed_rank_interval(differences: Array, confidence: float = CONFIDENCE) -> Interval:
    """Hodges and Lehmann's estimate of the centre of `differences`, with its signed-rank interval.

    Args:
        differences: One number for each block, shape (blocks,).
        confidence: Of the interval, which has at least this.

    Raises:
        StatisticsError: There are too few blocks for an interval of that confidence.
    """
    n = len(differences)
    first, second = np.triu_indices(n)
    means = np.sort((differences[first] + differences[second]) / 2)
    position = _signed_rank_quantile(n, (1 - confidence) / 2)
    if position < 1:
        raise StatisticsError(
            f"{n} blocks are too few for a {confidence:.0%} interval; measure at least {MIN_BLOCKS}"
        )
    return Interval(float(np.median(means)), float(means[position - 1]), float(means[-position]), n)


def _signed_rank_quantile(n: int, tail: float) -> int:
    """The largest c with P(V <= c - 1) <= `tail` for Wilcoxon's signed-rank statistic V; 0 if none."""
    if n > 60:
        mean, deviation = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return max(0, math.floor(mean - NormalDist().inv_cdf(1 - tail) * deviation - 0.5) + 1)
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
    below = np.cumsum(ways) / 2.0**n
    return int(np.searchsorted(below, tail, side="right"))


def _rank_sum_interval(mine: Array, other: Array, confidence: float) -> Interval:
    m, n = len(mine), len(other)
    if min(m, n) < 4:
        raise StatisticsError(f"{m} and {n} numbers are too few; give at least 4 on each side")
    differences = np.sort((mine[:, None] - other[None, :]).ravel())
    deviation = math.sqrt(m * n * (m + n + 1) / 12)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    position = math.floor(m * n / 2 - z * deviation)
    if position < 1:
        raise StatisticsError(f"{m} and {n} numbers are too few for a {confidence:.0%} interval")
    return Interval(
        float(np.median(differences)),
        float(differences[position - 1]),
        float(differences[-position]),
        min(m, n),
    )


def _verdict(
    interval: Interval, mode: str, margin: float, confidence: float, names: tuple[str, str]
) -> Verdict:
    beyond = math.log1p(margin)
    below, above = interval.high < -beyond, interval.low > beyond
    better, worse = (below, above) if mode == "min" else (above, below)
    kind: Kind = "win" if better else "loss" if worse else "no significant difference"
    return Verdict(
        kind,
        math.exp(interval.estimate),
        math.exp(interval.low),
        math.exp(interval.high),
        margin,
        confidence,
        interval.n,
        mode,
        *names,
    )


def _logs(values: Sequence[float]) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"not a list of numbers: {_shown(values)}") from error
    if array.ndim != 1 or not len(array):
        raise StatisticsError("a block, or a column, has no samples")
    if not np.isfinite(array).all() or (array <= 0).any():
        bad = array[~np.isfinite(array) | (array <= 0)][0]
        raise StatisticsError(f"a score is {bad}; ratios need finite scores above 0")
    return np.log(array)


def _shown(values: object) -> str:
    text = repr(values)
    return text if len(text) <= 80 else f"{text[:80]}..."
