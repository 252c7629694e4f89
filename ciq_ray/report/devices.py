"""The part of the report on where evaluations ran, how long they took, and what else was measured."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from ciq_ray.report.about import duration
from ciq_ray.report.data import Evaluated, ReportData
from ciq_ray.report.html import Section, element, figure_element
from ciq_ray.report.panels import device_figure

__all__ = ["device_section"]

_MOST_METRICS: Final = 12
_MOST_DEVICES: Final = 40


def device_section(data: ReportData) -> Section | None:
    """Times and metrics for each device; ``None`` if nothing of the kind is known."""
    rows = [row for row in data.rows if row.run_s is not None or _numeric(row)]
    if not rows:
        return None
    devices: defaultdict[str, list[Evaluated]] = defaultdict(list)
    for row in rows:
        devices[row.device or "not known"].append(row)
    parts = [_times(devices)]
    figure = device_figure(data)
    if figure is not None:
        parts.append(figure_element("device-figure", figure, "Seconds for an evaluation", least_width=320))
    names = _metric_names(rows)
    if names:
        parts += [element("h3", "Measured besides, medians"), _metrics(devices, names)]
    return Section("devices", "Devices and times", *parts)


def _times(devices: dict[str, list[Evaluated]]) -> str:
    head = ["evaluations", "failed", "median time", "longest", "in all", "of it building"]
    lines = []
    for device in sorted(devices)[:_MOST_DEVICES]:
        rows = devices[device]
        seconds = [row.run_s for row in rows if row.run_s is not None]
        built = sum(row.compile_s or 0.0 for row in rows)
        cells = [
            str(len(rows)),
            str(sum(not row.values for row in rows)),
            duration(statistics.median(seconds)) if seconds else "",
            duration(max(seconds)) if seconds else "",
            duration(sum(seconds)) if seconds else "",
            duration(built) if built else "",
        ]
        lines.append((device, cells))
    return _table(["device", *head], lines)


def _metrics(devices: dict[str, list[Evaluated]], names: Sequence[str]) -> str:
    lines = []
    for device in sorted(devices)[:_MOST_DEVICES]:
        numbers = [_numeric(row) for row in devices[device]]
        cells = []
        for name in names:
            found = [row[name] for row in numbers if name in row]
            spread = f" ({min(found):.6g} to {max(found):.6g})" if found and min(found) < max(found) else ""
            cells.append(f"{statistics.median(found):.6g}{spread}" if found else "")
        lines.append((device, cells))
    return _table(["device", *names], lines)


def _metric_names(rows: Sequence[Evaluated]) -> list[str]:
    counts: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        for name in _numeric(row):
            counts[name] += 1
    return sorted(counts, key=lambda name: -counts[name])[:_MOST_METRICS]


def _numeric(row: Evaluated) -> dict[str, float]:
    return {name: float(value) for name, value in row.metrics.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _table(head: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    titles = element("th", head[0]) + "".join(element("th", name, class_="number") for name in head[1:])
    body = "".join(
        f"<tr>{element('td', name)}{''.join(element('td', cell, class_='number') for cell in cells)}</tr>"
        for name, cells in lines
    )
    return f'<div class="scroll"><table class="data"><thead><tr>{titles}</tr></thead>{body}</table></div>'
