"""Measuring incumbents again, so that a lucky value does not stay the best.

With noise, the lowest of many single measurements is lucky rather than good. Every few generations the
leaders are measured once more, and what all measurements of a candidate say together replaces its
label. An objective that returns the same value again has no noise: it is left alone from then on.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.engine import Evaluation

__all__ = ["Remeasurer"]

LEADERS = 3
"""How many are measured again at a time."""
MOST_SAMPLES = 6
"""Nobody is measured more often than this."""
_REMEMBERED = 16

Values = tuple[float, ...]


class Remeasurer:
    """Decides who is measured again, and pools the measurements of each candidate.

    Args:
        every: Evaluations between re-measurements; 0 for none at all.
        modes: ``"min"`` or ``"max"`` for each objective.
        only_if_noisy: Wait until an outcome carries a spread, which says that there is noise.
        front: The ids of the Pareto front, for searches with several objectives.

    Attributes:
        count: Measurements that were made for this, those of an earlier process included.
    """

    def __init__(
        self,
        every: int,
        modes: tuple[str, ...],
        *,
        only_if_noisy: bool = False,
        front: Callable[[], Iterable[str]] = lambda: (),
    ) -> None:
        self._every = every
        self._modes = modes
        self._waiting_for_noise = only_if_noisy
        self._front = front
        self._since = 0
        self._samples: dict[str, list[tuple[Values, Values | None]]] = {}
        self._leaders: list[tuple[float, str]] = []
        self._busy: set[str] = set()
        self.count = 0

    def due(self) -> list[str]:
        """Ids to be measured again now."""
        if not self._every or self._waiting_for_noise or self._since < self._every:
            return []
        front = self._front() if len(self._modes) > 1 else (name for _, name in self._leaders)
        ids = [
            name
            for name in front
            if name not in self._busy and 0 < len(self._samples.get(name, ())) < MOST_SAMPLES
        ]
        return sorted(ids, key=lambda name: len(self._samples[name]))[:LEADERS] if len(ids) > LEADERS else ids

    def sent(self, ids: Iterable[str]) -> None:
        """These are being measured again."""
        self._since = 0
        self._busy.update(ids)

    def take(self, evaluation: Evaluation) -> Evaluation:
        """Note an evaluation; one of a candidate measured before comes back with the pooled outcome."""
        if not self._every:
            return evaluation
        name, outcome = evaluation.candidate.id, evaluation.outcome
        again = name in self._busy
        self._busy.discard(name)
        self._since += not again
        self.count += again
        self._leaders = [leader for leader in self._leaders if leader[1] != name]
        if not outcome.ok:
            self._samples.pop(name, None)
            return replace(evaluation, again=again)
        if outcome.spread is not None:
            self._waiting_for_noise = False
        samples = self._samples.setdefault(name, [])
        samples.append((outcome.values, evaluation.normalized))
        if again:
            if outcome.spread is None and all(values == outcome.values for values, _ in samples):
                self._every = 0  # no noise
            evaluation = _pooled(evaluation, samples)
        self._remember(name, evaluation.told.values)
        return evaluation

    def _remember(self, name: str, values: Values) -> None:
        if len(self._modes) > 1:
            return
        loss = values[0] if self._modes[0] == "min" else -values[0]
        bisect.insort(self._leaders, (loss, name))
        for _, dropped in self._leaders[_REMEMBERED:]:
            self._samples.pop(dropped, None)
        del self._leaders[_REMEMBERED:]


def _pooled(evaluation: Evaluation, samples: list[tuple[Values, Values | None]]) -> Evaluation:
    raw = np.array([values for values, _ in samples])
    fields = evaluation.outcome.to_dict()
    fields.update(
        values=tuple(np.median(raw, axis=0).tolist()),
        spread=tuple(raw.std(axis=0, ddof=1).tolist()),
        samples=len(samples) * (evaluation.outcome.samples or 1),
    )
    normalized = None
    if evaluation.normalized is not None:
        normalized = tuple(np.median([norm for _, norm in samples], axis=0).tolist())
    return replace(evaluation, outcome=Outcome.from_dict(fields), normalized=normalized, again=True)
