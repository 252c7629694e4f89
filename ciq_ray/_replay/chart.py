"""The best so far of replays, as a picture."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ciq_ray._files import write_atomic
from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.replay import Replay

__all__ = ["FORMATS", "draw"]

FORMATS: Final = (".png", ".svg", ".pdf")
_COLOURS: Final = ("#2a7f62", "#3b6ea8", "#b5443c", "#c98b2b", "#7b5aa6", "#2f9fb5", "#a0507d", "#5f5f5f")
_RANDOM: Final = "#888888"
_MOMENTS: Final = 400


def draw(replays: Sequence[Replay], path: str | os.PathLike[str]) -> Path:
    """Draw the median over the seeds, a band between the quartiles, and random search.

    Against evaluations, random search is its exact expectation; against virtual seconds, the median of the
    searches on the same machine.

    Args:
        replays: Of one landscape, with or without virtual time.
        path: Where to; the suffix is one of `FORMATS`.

    Raises:
        ConfigurationError: The suffix is another.
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in FORMATS:
        raise ConfigurationError(f"{str(path)!r} must end in one of {', '.join(FORMATS)}")
    landscape = replays[0].landscape
    virtual = bool(replays[0].random)
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, replay in enumerate(replays):
        colour = _COLOURS[number % len(_COLOURS)]
        places: npt.NDArray[Any] = np.arange(1, replay.plan.budget + 1)
        curves = replay.curves
        if virtual:
            places = np.linspace(0, _end(replay), _MOMENTS)
            curves = np.array([run.at(places) for run in replay.runs])
        low, middle, high = _quartiles(curves)
        axes.plot(places, middle, color=colour, label=replay.plan.searcher, drawstyle="steps-post")
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0, step="post")
    longest = max(replays, key=_end if virtual else lambda replay: replay.plan.budget)
    if virtual:
        places = np.linspace(0, _end(longest), _MOMENTS)
        expected = _quartiles(np.array([run.at(places) for run in longest.random]))[1]
    else:
        places = np.arange(1, longest.plan.budget + 1)
        expected = landscape.expected_best(longest.plan.budget)
    axes.plot(places, expected, color=_RANDOM, linestyle="--", label="random search")
    axes.axhline(landscape.optimum, color=_RANDOM, linestyle=":", linewidth=0.8, label="optimum")
    axes.set_yscale("log")
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(lambda value, _: f"{value:.3g}")
    axes.set_xlabel("virtual seconds" if virtual else "evaluations")
    axes.set_ylabel("best so far, ms")
    axes.set_title(landscape.name)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=110)
    return write_atomic(path, [buffer.getvalue()])


def _end(replay: Replay) -> float:
    return max(run.usage.elapsed_s for run in replay.runs if run.usage is not None)


def _quartiles(curves: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The quartiles over the runs; a run without a success so far counts as the slowest."""
    ordered = np.sort(np.where(np.isnan(curves), np.inf, curves), axis=0)
    places = np.rint(np.array([0.25, 0.5, 0.75]) * (len(curves) - 1)).astype(int)
    found = ordered[places]
    return np.where(np.isinf(found), np.nan, found)
