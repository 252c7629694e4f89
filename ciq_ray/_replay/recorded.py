"""An objective that looks up what was measured long ago."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ciq_ray.landscape import Landscape
from searchers.outcome import Outcome

__all__ = ["Protocol", "Recorded"]

_AT_COMPILATION: Final = ("compile_error", "compile_timeout")
"""These configurations never came to a device."""
_LEAST_SHARE: Final = 0.1
"""No draw is below this share of the recorded time, however wide the spread: times are positive."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How long one evaluation occupies a device.

    Attributes:
        launches: How often a kernel is launched to measure it.
        least_s: Seconds it takes at least, for loading and checking; a failure on the device takes this.
    """

    launches: int = 100
    least_s: float = 0.05

    def run_s(self, time_ms: float) -> float:
        """Seconds on the device; `time_ms` is NaN for a failure."""
        return float(np.nanmax([self.least_s, self.launches * time_ms / 1000]))


class Recorded:
    """What a searcher is told of the configurations of a landscape.

    Without noise an evaluation gives the recorded time, always the same, and no spread. With noise it is a
    draw from the normal distribution with the recorded time and deviation. A configuration that is measured
    again gets the mean of all its draws, and their number.

    Args:
        landscape: What was recorded.
        noise: Where draws come from; ``None`` for no noise.
        protocol: How long an evaluation takes.
    """

    def __init__(self, landscape: Landscape, noise: np.random.Generator | None, protocol: Protocol) -> None:
        self._landscape, self._noise, self._protocol = landscape, noise, protocol
        self._draws: dict[int, list[float]] = {}

    def time(self, config: Mapping[str, Any]) -> float:
        """The recorded time in milliseconds, NaN for a failure."""
        return float(self._landscape.times[self._landscape.row(config)])

    def cost(self, config: Mapping[str, Any]) -> tuple[float, float]:
        """Seconds of compiling, and seconds on a device: 0 for what cannot be compiled."""
        row = self._landscape.row(config)
        compile_s, time = float(self._landscape.compile_s[row]), float(self._landscape.times[row])
        lost = self._landscape.statuses[row] in _AT_COMPILATION
        return compile_s, 0.0 if lost else self._protocol.run_s(time)

    def outcome(self, config: Mapping[str, Any]) -> Outcome:
        """One evaluation."""
        row = self._landscape.row(config)
        status, time = self._landscape.statuses[row], float(self._landscape.times[row])
        compile_s, run_s = self.cost(config)
        if status != "ok" or self._noise is None:
            return Outcome(status, (time,), compile_s=compile_s, run_s=run_s or None)
        deviation = float(self._landscape.deviations[row])
        draws = self._draws.setdefault(row, [])
        draws.append(max(_LEAST_SHARE * time, self._noise.normal(time, deviation)))
        return Outcome(
            "ok",
            (float(np.mean(draws)),),
            spread=(deviation,),
            samples=len(draws),
            compile_s=compile_s,
            run_s=run_s,
        )
