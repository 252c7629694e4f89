"""Figures that only a report has: parallel coordinates, times by device, intervals of the final race."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ciq_ray.parameter_values import Parameter, text_of
from ciq_ray.report.data import ReportData
from ciq_ray.report.figures import hover_text
from ciq_ray.report.style import BEST, BLUE, GREY, figure_style, plain, shades

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["MOST_AXES", "device_figure", "parallel_figure", "race_figure"]

Floats = npt.NDArray[np.float64]

MOST_AXES: Final = 11
_MOST_LINES = 400
_SHADES = 7
_MOST_TICKS = 9
_ABSENT: Final = -0.1
_MOST_DEVICES = 40
_MOST_TIMES = 2000


def parallel_figure(data: ReportData, parameters: Sequence[Parameter]) -> go.Figure | None:
    """A line for each evaluation across one axis for each parameter, the last axis its (first) score.

    Lines are ordinary ones and not Plotly's own parallel coordinates, which need WebGL: that is missing on
    many a remote desktop. The best quarter is drawn, and others evenly over the ranks.

    Args:
        data: The evaluations.
        parameters: The axes; those that do not vary are left out.

    Returns:
        ``None`` if there is nothing to compare.
    """
    import plotly.graph_objects as go

    axes = [parameter for parameter in parameters if parameter.varies][:MOST_AXES]
    losses = data.losses.mean(axis=1) if data.num_scores > 1 else data.losses[:, 0]
    order = np.flatnonzero(data.passed)
    order = order[np.argsort(-losses[order], kind="stable")]  # the best last, on top
    if len(order) < 2 or not axes:
        return None
    if len(order) > _MOST_LINES:
        best = len(order) - _MOST_LINES // 2
        worse = np.linspace(0, best - 1, _MOST_LINES - _MOST_LINES // 2).astype(np.int64)
        order = np.concatenate([order[worse], order[best:]])
    scores = data.scores[:, 0]
    heights = np.column_stack([*(_on_axis(axis) for axis in axes), _scaled(scores, scores[order])])
    figure = go.Figure()
    places = np.arange(len(axes) + 1, dtype=np.float64)
    groups = np.array_split(order[:-1], min(_SHADES, len(order) - 1))
    for number, (group, colour) in enumerate(zip(groups, shades(len(groups)), strict=True), 1):
        gap = np.full((len(group), 1), np.nan)
        figure.add_scatter(
            x=np.tile([*places, np.nan], len(group)),
            y=np.column_stack([heights[group], gap]).ravel(),
            mode="lines",
            line={"color": colour, "width": 1},
            opacity=0.2 + 0.5 * number / len(groups),
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=places,
        y=heights[order[-1]],
        mode="lines+markers",
        line={"color": BEST, "width": 3},
        name="the best" if data.num_scores == 1 else "the best mean of all scores",
        text=[hover_text(data, data.rows[order[-1]])] * len(places),
        hoverinfo="text",
    )
    titles = [*(plain(axis.name, 22) for axis in axes), plain(data.score_names[0], 22)]
    for place, axis in enumerate(axes):
        _ticks(figure, place, _axis_ticks(axis))
    low, high = float(np.nanmin(scores[order])), float(np.nanmax(scores[order]))
    _ticks(figure, len(axes), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")])
    figure.update_xaxes(
        tickvals=list(places),
        ticktext=titles,
        showgrid=False,
        range=[-0.3, len(axes) + 0.55],
        fixedrange=True,
    )
    figure.update_yaxes(visible=False, range=[-0.16, 1.08], fixedrange=True)
    figure_style(figure, height=460)
    figure.update_xaxes(ticks="", showline=False)
    return figure


def device_figure(data: ReportData) -> go.Figure | None:
    """How long evaluations took, a box for each device; ``None`` if no times or devices are known."""
    import plotly.graph_objects as go

    times: dict[str, list[float]] = {}
    for row in data.rows:
        if row.run_s is not None and row.device:
            times.setdefault(row.device, []).append(row.run_s)
    if not times:
        return None
    figure = go.Figure()
    for device in sorted(times)[:_MOST_DEVICES][::-1]:
        seconds = np.array(times[device])
        some = np.linspace(0, len(seconds) - 1, min(len(seconds), _MOST_TIMES)).astype(np.int64)
        figure.add_box(
            x=seconds[some],
            name=plain(device, 40),
            orientation="h",
            marker={"color": BLUE, "size": 3},
            line={"width": 1.5},
            showlegend=False,
        )
    low = min(min(found) for found in times.values())
    high = max(max(found) for found in times.values())
    log = low > 0 and high > 20 * low
    figure.update_xaxes(title="seconds for one evaluation", type="log" if log else "linear")
    figure.update_yaxes(type="category")
    return figure_style(figure, height=110 + 34 * min(len(times), _MOST_DEVICES))


def race_figure(verdict: Mapping[str, Any]) -> go.Figure:
    """The intervals of a final race: the winner, and the baseline against itself, with the margin."""
    import plotly.graph_objects as go

    judged, control = verdict["verdict"], verdict["control"]
    figure = go.Figure()
    sides = (("the baseline once more", control, GREY), (f"candidate {verdict['winner']}", judged, BEST))
    for name, found, colour in sides:
        figure.add_scatter(
            x=[found["ratio"]],
            y=[plain(name)],
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": "diamond"},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [found["high"] - found["ratio"]],
                "arrayminus": [found["ratio"] - found["low"]],
                "thickness": 2.5,
                "width": 8,
                "color": colour,
            },
            hovertemplate=f"%{{x:.4f}} ({found['low']:.4f} to {found['high']:.4f})<extra></extra>",
            showlegend=False,
        )
    margin = float(judged["margin"])
    figure.add_vrect(x0=1 / (1 + margin), x1=1 + margin, fillcolor=GREY, opacity=0.18, line_width=0)
    figure.add_vline(x=1, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="multiple of the baseline's score")
    figure.update_yaxes(type="category", range=[-0.6, 1.6])
    return figure_style(figure, height=200)


def _on_axis(parameter: Parameter) -> Floats:
    """Heights between 0 and 1, those without a value below."""
    scale = parameter.scale
    return np.where(np.isnan(scale), _ABSENT, _scaled(scale, scale))


def _scaled(values: Floats, shown: Floats) -> Floats:
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    return np.asarray((values - low) / (high - low) if high > low else np.full(len(values), 0.5))


def _axis_ticks(parameter: Parameter) -> list[tuple[float, str]]:
    heights = _on_axis(parameter)
    found: dict[float, str] = {}
    for height, value in zip(heights.tolist(), parameter.values, strict=True):
        found.setdefault(height, _short(value))
    ticks = sorted(found.items())
    if len(ticks) > _MOST_TICKS:
        absent = [tick for tick in ticks if tick[0] < 0]
        present = [tick for tick in ticks if tick[0] >= 0]
        chosen = np.unique(np.linspace(0, len(present) - 1, 5).round().astype(int))
        ticks = [*absent, *(present[place] for place in chosen)]
    return ticks


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    return f"{value:.3g}" if isinstance(value, float) else text_of(value)


def _ticks(figure: go.Figure, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    """An axis at `place` with texts beside it."""
    figure.add_shape(
        type="line", x0=place, x1=place, y0=0, y1=1, line={"color": GREY, "width": 1}, layer="below"
    )
    for height, text in ticks:
        figure.add_annotation(
            x=place,
            y=height,
            text=plain(text, 14),
            showarrow=False,
            xanchor="left",
            xshift=5,
            font={"size": 11},
        )
