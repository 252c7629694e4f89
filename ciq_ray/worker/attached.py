"""Bytes that an objective returns together with its outcome, such as a compiled kernel."""

from __future__ import annotations

from dataclasses import dataclass

from searchers.outcome import Outcome

__all__ = ["Attached"]


@dataclass(frozen=True, slots=True)
class Attached:
    """An outcome and what comes with it; the bytes arrive in `Report.attached`, and in no journal.

    Attributes:
        outcome: As an objective may return it by itself.
        data: At most some tens of megabytes.
    """

    outcome: Outcome
    data: bytes
