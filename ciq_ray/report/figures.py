"""The three figures that a result can be asked for: convergence, Pareto front, importance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ciq_ray.errors import ResultError
from ciq_ray.parameter_values import text_of
from ciq_ray.report import importance
from ciq_ray.report.data import Evaluated, ReportData
from ciq_ray.report.importance import Importance
from ciq_ray.report.style import (
    BEST,
    BLUE,
    FAILURE_COLOURS,
    GREY,
    figure_style,
    is_wide,
    plain,
    score_title,
)
from searchers.outcome import FAILURES, OK, RETRIED

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["convergence_figure", "hover_text", "importance_bars", "importance_figure", "pareto_figure"]

Floats = npt.NDArray[np.float64]

_MOST_POINTS = 4000
"""Points of one panel; more are thinned out, since every one is an element of the page."""
_MOST_PANELS = 6
_LEAST_BARS, _MOST_BARS = 4, 20
LEAST_SHARE = 0.005
"""Who accounts for less gets no bar, unless there are hardly any."""
_HOVER_PARAMETERS = 14


def convergence_figure(data: ReportData) -> go.Figure:
    """Every evaluation and the best so far, one panel for each score; below, failures by kind.

    Raises:
        ResultError: Nothing was evaluated, or everything failed.
    """
    from plotly.subplots import make_subplots

    data.require_results()
    kinds = [kind for kind in (*FAILURES, *RETRIED) if kind in data.statuses]
    names = data.score_names[:_MOST_PANELS]
    panel, strip = (340 if len(names) == 1 else 220), 34 + 22 * len(kinds)
    heights = [panel] * len(names) + ([strip] if kinds else [])
    figure = make_subplots(
        rows=len(heights),
        cols=1,
        shared_xaxes=True,
        row_heights=heights,
        vertical_spacing=0.09 / len(heights),
    )
    scores, losses = data.scores, data.losses
    numbers = np.arange(1, len(data.rows) + 1)
    for j, name in enumerate(names):
        row = j + 1
        best, improved = _best_so_far(losses[:, j], scores[:, j])
        shown = _thinned(np.isfinite(scores[:, j]), improved)
        figure.add_scatter(
            x=numbers[shown],
            y=scores[shown, j],
            mode="markers",
            name="evaluation",
            marker={"color": BLUE, "size": 5, "opacity": 0.45},
            text=[hover_text(data, data.rows[i]) for i in shown],
            hoverinfo="text",
            showlegend=not j,
            row=row,
            col=1,
        )
        # steps need their corners only
        corners = np.union1d(np.flatnonzero(improved), np.flatnonzero(np.isfinite(best))[-1:])
        figure.add_scatter(
            x=numbers[corners],
            y=best[corners],
            mode="lines",
            line={"color": BEST, "width": 2.5, "shape": "hv"},
            name="best so far",
            hovertemplate="best after %{x}: %{y:.6g}<extra></extra>",
            showlegend=not j,
            row=row,
            col=1,
        )
        wide = is_wide(scores[:, j])
        figure.update_yaxes(
            title=score_title(name, data.modes[j]), type="log" if wide else "linear", row=row, col=1
        )
    for place, kind in enumerate(kinds):
        at = np.array([i for i, found in enumerate(data.rows) if found.status == kind])
        at = at[_thinned(np.ones(len(at), dtype=bool), None)]
        figure.add_scatter(
            x=numbers[at],
            y=[kind] * len(at),
            mode="markers",
            marker={"symbol": "x", "size": 6, "color": FAILURE_COLOURS[place % len(FAILURE_COLOURS)]},
            text=[hover_text(data, data.rows[i]) for i in at],
            hoverinfo="text",
            name=kind,
            showlegend=False,
            row=len(heights),
            col=1,
        )
    if kinds:
        figure.update_yaxes(
            type="category", range=[-0.7, len(kinds) - 0.3], title="", row=len(heights), col=1
        )
    figure.update_xaxes(title="evaluation", row=len(heights), col=1)
    return figure_style(figure, height=sum(heights) + 100)


def pareto_figure(data: ReportData) -> go.Figure:
    """Two scores against each other, with the front; of more scores, every two (six panels at most).

    Raises:
        ResultError: There is one score only; nothing was evaluated, or everything failed.
    """
    from plotly.subplots import make_subplots

    if data.num_scores < 2:
        raise ResultError(
            "a Pareto front takes at least two scores, and these results have one: use `plot_convergence`"
        )
    data.require_results()
    pairs = list(itertools.combinations(range(data.num_scores), 2))[:_MOST_PANELS]
    columns = 1 if len(pairs) == 1 else 2
    lines = math.ceil(len(pairs) / columns)
    figure = make_subplots(
        rows=lines, cols=columns, horizontal_spacing=0.12, vertical_spacing=0.28 / lines if lines > 1 else 0
    )
    scores, front = data.scores, data.front
    on_front = np.zeros(len(data.rows), dtype=bool)
    on_front[front] = True
    others = _thinned(data.passed & ~on_front, None)
    for place, (a, b) in enumerate(pairs):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        figure.add_scatter(
            x=scores[others, a],
            y=scores[others, b],
            mode="markers",
            name="beaten by another",
            marker={"color": GREY, "size": 5, "opacity": 0.5},
            text=[hover_text(data, data.rows[i]) for i in others],
            hoverinfo="text",
            showlegend=not place,
            **where,
        )
        ordered = front[np.argsort(scores[front, a], kind="stable")]
        figure.add_scatter(
            x=scores[ordered, a],
            y=scores[ordered, b],
            mode="lines+markers" if len(pairs) == 1 else "markers",
            # what is between two points of a front is not known to exist: steps, on the side that is attained
            line={
                "color": BEST,
                "width": 1.5,
                "shape": "hv" if data.modes[a] == "min" else "vh",
            },
            marker={"color": BEST, "size": 8, "symbol": "diamond"},
            name="Pareto front",
            text=[hover_text(data, data.rows[i]) for i in ordered],
            hoverinfo="text",
            showlegend=not place,
            **where,
        )
        for axis, j in ((figure.update_xaxes, a), (figure.update_yaxes, b)):
            wide = is_wide(scores[:, j])
            axis(
                title=score_title(data.score_names[j], data.modes[j]),
                type="log" if wide else "linear",
                **where,
            )
    return figure_style(figure, height=max(480, 360 * lines))


def importance_figure(data: ReportData) -> go.Figure:
    """Bars for what each parameter accounts for, for each score; see `ciq_ray.report.importance`.

    Raises:
        ResultError: There are no results, or they do not say which parameters matter.
    """
    data.require_results()
    parameters = data.parameters()
    if not parameters:
        raise ResultError(
            "the configurations are texts, and the search space that would tell their parameters apart is "
            "not known; make the figure where the run's folder is"
        )
    found = [importance.of_score(data, j, parameters) for j in range(data.num_scores)]
    if all(one.reason for one in found):
        raise ResultError(f"which parameters matter cannot be said: {found[0].reason}")
    return importance_bars(found)


def importance_bars(found: Sequence[Importance]) -> go.Figure:
    """Bars for importances, those with a reason left out; at least one must be without."""
    import plotly.graph_objects as go

    usable = [one for one in found if not one.reason]
    most: dict[str, float] = {}
    for one in usable:
        for name, share in zip(one.names, one.shares, strict=True):
            most[name] = max(most.get(name, 0.0), share)
    names = sorted(most, key=lambda name: -most[name])
    names = [name for place, name in enumerate(names) if place < _LEAST_BARS or most[name] >= LEAST_SHARE]
    names = names[:_MOST_BARS][::-1]
    figure = go.Figure()
    for number, one in enumerate(usable):
        by_name = {
            name: (share, error) for name, share, error in zip(one.names, one.shares, one.errors, strict=True)
        }
        figure.add_bar(
            y=[plain(name, 40) for name in names],
            x=[by_name.get(name, (0.0, 0.0))[0] for name in names],
            error_x={
                "type": "data",
                "array": [by_name.get(name, (0.0, 0.0))[1] for name in names],
                "color": GREY,
                "thickness": 1,
                "width": 3,
            },
            orientation="h",
            name=plain(one.of),
            marker={"color": BLUE if len(usable) == 1 else FAILURE_COLOURS[-2 - number % 6]},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    figure.update_xaxes(title="share of the variation", tickformat=".0%", rangemode="tozero")
    figure.update_layout(bargap=0.3, showlegend=len(usable) > 1)
    return figure_style(figure, height=110 + len(names) * (20 + 8 * len(usable)))


def hover_text(data: ReportData, row: Evaluated) -> str:
    """What is shown of one evaluation below the mouse."""
    scores = ", ".join(f"{name} {v:.6g}" for name, v in zip(data.score_names, row.values, strict=False))
    lines = [f"<b>{plain(row.id)}</b> {plain(scores or row.status, 120)}"]
    if isinstance(row.config, dict):
        items = [f"{name} = {text_of(value)}" for name, value in row.config.items()]
        lines += [plain(item) for item in items[:_HOVER_PARAMETERS]]
        if len(items) > _HOVER_PARAMETERS:
            lines.append(f"… and {len(items) - _HOVER_PARAMETERS} more")
    else:
        lines.append(plain(" ".join(text_of(row.config).split()), 80))
    if row.status != OK and row.message.strip():
        lines.append(f"<i>{plain(row.message.strip().splitlines()[0], 100)}</i>")
    return "<br>".join(lines)


def _best_so_far(losses: Floats, scores: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The score of the best up to each evaluation, NaN before the first; and where it changed."""
    filled = np.where(np.isfinite(losses), losses, np.inf)
    running = np.minimum.accumulate(filled)
    improved = np.isfinite(running) & (running < np.concatenate([[np.inf], running[:-1]]))
    latest = np.maximum.accumulate(np.where(improved, np.arange(len(losses)), -1))
    return np.where(latest >= 0, scores[latest], np.nan), improved


def _thinned(wanted: npt.NDArray[np.bool_], kept: npt.NDArray[Any] | None) -> npt.NDArray[np.int64]:
    """Positions of what is wanted, evenly thinned out if it is very much; what is to be `kept` stays."""
    places = np.flatnonzero(wanted)
    if len(places) <= _MOST_POINTS:
        return places
    some = places[np.linspace(0, len(places) - 1, _MOST_POINTS).astype(np.int64)]
    return some if kept is None else np.union1d(some, np.flatnonzero(kept & wanted))
