"""What all figures look like: colours that are told apart by everyone, plain axes, safe texts."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "BEST",
    "BLUE",
    "FAILURE_COLOURS",
    "GREY",
    "ORANGE",
    "figure_style",
    "is_wide",
    "plain",
    "score_title",
    "shades",
]

# Okabe and Ito, "Color universal design" (2008)
BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
BEST: Final = "#D55E00"
GREY: Final = "#8a8f98"
FAILURE_COLOURS: Final = ("#CC79A7", "#009E73", "#56B4E9", "#E69F00", "#D55E00", "#0072B2", "#8a8f98")

_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_GRID: Final = "rgba(128, 134, 144, 0.22)"
_WIDE: Final = 20.0


def shades(count: int) -> list[str]:
    """`count` colours from bad (grey) to good (blue), which work on a light and on a dark page."""
    grey, blue = (np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) for colour in (GREY, BLUE))
    parts = np.linspace(0, 1, max(count, 1))
    return [f"rgb({', '.join(str(round(c)) for c in grey + part * (blue - grey))})" for part in parts]


def plain(text: Any, most: int = 60) -> str:
    """A text that Plotly, which reads tags in all texts, shows as it is; cut if it is long."""
    shown = str(text)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return html.escape(shown, quote=False)


def score_title(name: str, mode: str) -> str:
    """The title of an axis of scores."""
    return f"{plain(name)} ({'less' if mode == 'min' else 'more'} is better)"


def is_wide(values: npt.NDArray[np.float64]) -> bool:
    """Whether numbers, NaN left out, want a logarithmic axis: positive, and of several magnitudes."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() > _WIDE * finite.min())


def figure_style(figure: go.Figure, *, height: int) -> go.Figure:
    """Give a figure the common look; it is transparent, for pages light and dark."""
    axis = {
        "gridcolor": _GRID,
        "zeroline": False,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    figure.update_layout(
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 13, "color": "#3d434c"},
        margin={"l": 64, "r": 16, "t": 40, "b": 52},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "xanchor": "left", "x": 0},
        hoverlabel={"font": {"family": _FONT, "size": 12}, "align": "left"},
        hovermode="closest",
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure
