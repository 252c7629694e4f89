"""The table of all evaluations, as data that the page's script sorts and filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from ciq_ray.kernels.figures import COLUMNS, present
from ciq_ray.kernels.figures import number as number_of
from ciq_ray.parameter_values import Parameter, text_of
from ciq_ray.report.data import ReportData
from ciq_ray.report.html import data_script

__all__ = ["table_html"]

_MOST_COLUMNS: Final = 40
_MOST_TEXT: Final = 3000
_MOST_MESSAGE: Final = 2000


def table_html(data: ReportData, parameters: Sequence[Parameter]) -> str:
    """The table's place and its data.

    Args:
        data: The evaluations.
        parameters: Their parameters; the first ones get columns, all are in the details of a row.
    """
    return _SKELETON + data_script("table-data", _content(data, parameters))


def _content(data: ReportData, parameters: Sequence[Parameter]) -> dict[str, Any]:
    columns: list[dict[str, Any]] = []
    cells: list[list[Any]] = []

    def add(name: str, values: list[Any], **flags: Any) -> None:
        columns.append({"name": name, **flags})
        cells.append(values)

    rows = data.rows
    add("id", [int(row.id) if row.id.isdecimal() else row.id for row in rows], number=True, kind="id")
    if any(row.generation is not None for row in rows):
        add("generation", [row.generation for row in rows], number=True)
    add("status", [row.status for row in rows], kind="status")
    for j, name in enumerate(data.score_names):
        add(name, [row.values[j] if row.values else None for row in rows], number=True, best=data.modes[j])
    if data.normalized:
        for j, name in enumerate(data.score_names):
            values = [row.ranked[j] if row.ranked else None for row in rows]
            add(f"{name} / baseline", values, number=True, best=data.modes[j])
    if any(row.run_s is not None for row in rows):
        add("seconds", [_finite(row.run_s) for row in rows], number=True)
    for name in present(row.metrics for row in rows):
        add(COLUMNS[name][0], [number_of(row.metrics, name) for row in rows], number=True)
    if len({row.device for row in rows}) > 1:
        add("where", [row.device for row in rows])
    for place, parameter in enumerate(parameters):
        hidden = place >= _MOST_COLUMNS
        numbers = parameter.categories is None
        values = [_cell(value, numbers) for value in parameter.values]
        add(parameter.name, values, number=numbers, parameter=True, hidden=hidden)
    if any(not isinstance(row.config, dict) for row in rows):
        texts = [_cut(text_of(row.config), _MOST_TEXT) for row in rows]
        add("configuration", texts, kind="text", hidden=bool(parameters))
    if any(row.message for row in rows):
        add("message", [_cut(row.message.strip(), _MOST_MESSAGE) for row in rows], kind="message")
    return {
        "columns": columns,
        "cells": cells,
        "metrics": [_metrics(row.metrics) for row in rows],
        "run": None if data.view is None else str(data.view.folder),
    }


def _cell(value: Any, number: bool) -> Any:
    if value is None or (number and _finite(value) is not None and abs(value) < 2**53):
        return value
    return text_of(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _metrics(metrics: Any) -> str:
    return ", ".join(f"{name} {_cut(text_of(value), 80)}" for name, value in metrics.items())


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


_SKELETON = """
<div class="controls">
<input id="filter" type="search" placeholder="Filter: words that a row must have" aria-label="Filter rows">
<select id="status" aria-label="Status"><option value="">any status</option></select>
<span id="count" aria-live="polite"></span>
</div>
<div class="scroll tall"><table id="evaluations" class="data">
<thead><tr></tr></thead><tbody></tbody></table></div>
<button id="more" type="button">Show more</button>
"""
