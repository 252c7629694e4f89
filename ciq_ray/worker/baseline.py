"""What a baseline must be, to divide scores by it."""

from __future__ import annotations

from ciq_ray.errors import BaselineError
from searchers.outcome import Outcome

__all__ = ["baseline_values"]


def baseline_values(where: str, outcome: Outcome) -> tuple[float, ...]:
    """The values of a baseline that was measured.

    Args:
        where: Name of what measured it.
        outcome: What came of it.

    Raises:
        BaselineError: It failed, or a value is zero.
    """
    if not outcome.ok:
        raise BaselineError(
            f"{where}: the baseline configuration failed ({outcome.status}): {outcome.message}"
        )
    if not all(outcome.values):
        raise BaselineError(
            f"{where}: the baseline configuration gives {outcome.values}, and scores cannot be divided by 0; "
            "search without `normalize`"
        )
    return outcome.values
