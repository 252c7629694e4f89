"""Pictures of a search, and a report that holds them all in one HTML file.

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import plotly.graph_objects as go

    from ciq_ray.results import SearchResult

__all__ = ["plot_convergence", "plot_importance", "plot_pareto", "report_of_result"]


def plot_convergence(result: SearchResult) -> go.Figure:
    """See `SearchResult.plot_convergence`."""
    from ciq_ray.report.data import ReportData
    from ciq_ray.report.figures import convergence_figure

    return convergence_figure(ReportData.of_result(result))


def plot_pareto(result: SearchResult) -> go.Figure:
    """See `SearchResult.plot_pareto`."""
    from ciq_ray.report.data import ReportData
    from ciq_ray.report.figures import pareto_figure

    return pareto_figure(ReportData.of_result(result))


def plot_importance(result: SearchResult) -> go.Figure:
    """See `SearchResult.plot_importance`."""
    from ciq_ray.report.data import ReportData
    from ciq_ray.report.figures import importance_figure

    return importance_figure(ReportData.of_result(result))


def report_of_result(result: SearchResult, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """See `SearchResult.report`."""
    from ciq_ray.report.data import ReportData
    from ciq_ray.report.html import check_target, write_report

    target = check_target(path, force=force)
    return write_report(ReportData.of_result(result), target)
