"""What a searcher remembers of a configuration it has proposed."""

from __future__ import annotations

from typing import Any

from searchers.encoding import Matrix
from searchers.outcome import Outcome

__all__ = ["Trial"]


class Trial:
    """One proposed configuration and what is known of it.

    Attributes:
        index: Position in ask order; the candidate's id is its text.
        row: Its row of the space's matrix.
        generation: The block it belongs to, if the algorithm has blocks.
        tag: What the algorithm wants to remember with it; JSON data.
        outcome: Its latest label, ``None`` while it is pending.
    """

    __slots__ = ("generation", "index", "outcome", "row", "tag")

    def __init__(self, index: int, row: Matrix, generation: int | None, tag: Any) -> None:
        self.index = index
        self.row = row
        self.generation = generation
        self.tag = tag
        self.outcome: Outcome | None = None
