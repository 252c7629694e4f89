"""Measuring incumbents again, so that a lucky value does not stay the best.

With noise, the lowest of many single measurements is lucky rather than good. Every few generations the
leaders are measured once more, and what all measurements of a candidate say together replaces its
label. An objective that returns the same values again and again has no noise: it is then left alone.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
_QUIET = 2 * LEADERS
"""So many re-measurements that gave the very same value, and none that did not: there is no noise."""

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
        self._doubted: set[str] = set()
        self._same = 0
        self._noisy = False
        self.count = 0

    def due(self) -> list[str]:
        """Ids to be measured again now: of the best, those measured least."""
        quiet = not self._noisy and self._same >= _QUIET
        if not self._every or quiet or self._waiting_for_noise or self._since < self._every:
            return []
        front = self._front() if len(self._modes) > 1 else (name for _, name in self._leaders)
        ids = [
            name
            for name in front
            if name not in self._busy and 0 < len(self._samples.get(name, ())) < MOST_SAMPLES
        ]
        return sorted(ids, key=lambda name: len(self._samples[name]))[:LEADERS]

    def sent(self, ids: Iterable[str]) -> None:
        """These are being measured again."""
        self._since = 0
        self._busy.update(ids)

    def take(self, evaluation: Evaluation) -> Evaluation:
        """Note an evaluation; one of a candidate measured before comes back with the pooled outcome.

        A first failure of a candidate that has succeeded before is doubted: its label stays, and it is
        measured once more.
        """
        if not self._every:
            return evaluation
        name, outcome = evaluation.candidate.id, evaluation.outcome
        again = name in self._busy
        self._busy.discard(name)
        self._since += not again
        self.count += again
        self._leaders = [leader for leader in self._leaders if leader[1] != name]
        samples = self._samples.setdefault(name, [])
        if outcome.ok:
            if outcome.spread is not None:
                self._waiting_for_noise = False
            same = outcome.spread is None and all(values == outcome.values for values, _ in samples)
            self._same += again and same
            self._noisy |= not same
            samples.append((outcome.values, evaluation.normalized))
        elif not samples or name in self._doubted:
            del self._samples[name]
            return replace(evaluation, again=again)
        else:
            self._doubted.add(name)
        if again:
            evaluation = _pooled(evaluation, samples)
        self._remember(name, evaluation.told.values)
        return evaluation

    def _remember(self, name: str, values: Values) -> None:
        if len(self._modes) > 1:
            return
        loss = values[0] if self._modes[0] == "min" else -values[0]
        bisect.insort(self._leaders, (loss, name))
        for _, dropped in self._leaders[_REMEMBERED:]:
            if dropped not in self._busy:
                self._samples.pop(dropped, None)
        del self._leaders[_REMEMBERED:]


def _pooled(evaluation: Evaluation, samples: list[tuple[Values, Values | None]]) -> Evaluation:
    """The evaluation with what all measurements say together; a failure is not among them."""
    raw = np.array([values for values, _ in samples])
    fields: dict[str, Any] = evaluation.outcome.to_dict() if evaluation.outcome.ok else {"status": "ok"}
    fields["values"] = tuple(np.median(raw, axis=0).tolist())
    fields["samples"] = len(samples) * (evaluation.outcome.samples or 1)
    if len(samples) > 1:
        fields["spread"] = tuple(raw.std(axis=0, ddof=1).tolist())
    normalized = None
    if all(norm is not None for _, norm in samples):
        normalized = tuple(np.median([norm for _, norm in samples], axis=0).tolist())
    return replace(evaluation, outcome=Outcome.from_dict(fields), normalized=normalized, again=True)
