from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ciq_ray.errors import StatisticsError
from ciq_ray.statistics import (
    Verdict,
    block_differences,
    compare_blocks,
    compare_samples,
    signed_rank_interval,
)


@pytest.mark.parametrize("n", [6, 9, 15, 40, 80])
def test_interval_agrees_with_wilcoxons_test(n: int) -> None:
    """A shift lies inside the interval exactly when the signed-rank test does not reject it."""
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    interval = signed_rank_interval(differences)
    method = "exact" if n <= 50 else "approx"
    for shift in np.linspace(-1.5, 2.0, 60):
        p = stats.wilcoxon(differences - shift, method=method).pvalue
        if abs(p - 0.05) > 0.004:
            assert (interval.low <= shift <= interval.high) == (p > 0.05)


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        interval = signed_rank_interval(rng.standard_t(3, 20))
        hits += interval.low <= 0 <= interval.high
    assert 935 <= hits <= 975


def test_few_blocks_have_no_interval() -> None:
    with pytest.raises(StatisticsError, match="at least 6"):
        signed_rank_interval(np.zeros(5))
    assert signed_rank_interval(np.arange(6.0)).n == 6


def test_a_block_counts_once_and_by_its_median() -> None:
    candidate = [[1.0, 1.0, 50.0], [2.0, 2.0, 2.0]]
    baseline = [[2.0, 2.0, 2.0], [2.0, 2.0, 0.001]]
    np.testing.assert_allclose(block_differences(candidate, baseline), [math.log(0.5), 0.0])


def test_verdicts() -> None:
    rng = np.random.default_rng(1)

    def side(scale: float) -> list[list[float]]:
        return (scale * np.exp(rng.normal(0, 0.005, (20, 3)))).tolist()

    win = compare_blocks(side(0.95), side(1.0), side(1.0), names=("new", "old"))
    assert win.kind == "win"
    assert win.low < 0.95 < win.high
    assert "new beats old" in win.words
    assert "% less" in win.words
    loss = compare_blocks(side(1.05), side(1.0))
    assert loss.kind == "loss"
    assert "is worse than" in loss.words
    same = compare_blocks(side(1.0), side(1.0), names=("new", "old"))
    assert same.kind == "no significant difference"
    assert "keep old" in same.words
    assert Verdict.from_dict(win.to_dict()) == win


def test_higher_is_better_for_max() -> None:
    rng = np.random.default_rng(1)
    fast = (1.1 * np.exp(rng.normal(0, 0.005, (10, 3)))).tolist()
    slow = np.exp(rng.normal(0, 0.005, (10, 3))).tolist()
    assert compare_blocks(fast, slow, mode="max").kind == "win"
    assert compare_blocks(fast, slow, mode="min").kind == "loss"
    assert "% more" in compare_blocks(fast, slow, mode="max").words


def test_a_difference_within_what_aa_cannot_tell_is_none() -> None:
    """3% better, but the baseline differs from itself by as much."""
    rng = np.random.default_rng(3)
    blocks = [np.exp(rng.normal(shift, 0.08, (20, 1))).tolist() for shift in (-0.03, 0.0, 0.0)]
    verdict = compare_blocks(*blocks)
    assert verdict.kind == "no significant difference"
    assert verdict.margin > 0.02


def test_no_noise_at_all() -> None:
    same = compare_blocks([[2.0]] * 6, [[2.0]] * 6)
    assert (same.kind, same.ratio, same.low, same.high) == ("no significant difference", 1.0, 1.0, 1.0)
    assert compare_blocks([[1.0]] * 6, [[2.0]] * 6).kind == "win"


def test_two_columns() -> None:
    rng = np.random.default_rng(5)
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, 40)))
    fast, slow = drift * 0.97 * np.exp(rng.normal(0, 0.01, 40)), drift * np.exp(rng.normal(0, 0.01, 40))
    assert compare_samples(fast.tolist(), slow.tolist()).kind == "win"
    unpaired = compare_samples(
        np.exp(rng.normal(-0.1, 0.02, 30)).tolist(), np.exp(rng.normal(0, 0.02, 25)).tolist()
    )
    assert unpaired.kind == "win"
    assert 0.88 < unpaired.low < math.exp(-0.1) < unpaired.high < 0.93


@pytest.mark.parametrize(
    ("candidate", "baseline", "message"),
    [
        ([[1.0]] * 6, [[1.0]] * 7, "paired"),
        ([[0.0]] * 6, [[1.0]] * 6, "above 0"),
        ([[float("nan")]] * 6, [[1.0]] * 6, "above 0"),
        ([[]] * 6, [[1.0]] * 6, "no samples"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    candidate: list[list[float]], baseline: list[list[float]], message: str
) -> None:
    with pytest.raises(StatisticsError, match=message):
        compare_blocks(candidate, baseline)
    with pytest.raises(StatisticsError):
        compare_samples([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("column", [["a"] * 8, [None] * 8, [[1.0], [1.0, 2.0]] * 4, [1.0, "x"] * 4])
@pytest.mark.parametrize("other", [[1.0] * 8, [1.0] * 9])
def test_columns_that_are_no_numbers_are_refused(column: list[Any], other: list[float]) -> None:
    for pair in ((column, other), (other, column)):
        with pytest.raises(StatisticsError, match=r"not a list of numbers|above 0"):
            compare_samples(*pair)


def test_columns_of_different_lengths_are_named_as_samples() -> None:
    verdict = compare_samples([1.0 + i / 1000 for i in range(9)], [2.0 + i / 1000 for i in range(12)])
    assert verdict.blocks == 9
    assert "over 9 and 12 samples" in verdict.words
    assert Verdict.from_dict(verdict.to_dict()) == verdict
