"""The part of the report on a kernel: the best against default and library, what it needs, the clocks."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ciq_ray.kernels.figures import COLUMNS, number, present, text
from ciq_ray.report.data import Evaluated, ReportData
from ciq_ray.report.html import Section, element
from ciq_ray.statistics import Verdict

__all__ = ["baseline_row", "kernel_section"]

_REGISTERS_OF_SM: Final = 65536
"""32-bit registers of a multiprocessor, since compute capability 5.0: CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability"."""
_REGISTER_UNIT: Final = 8
"""A thread's registers are handed out in units of as many: the same table, 256 for a warp."""
_BLOCKS_OF_SM: Final = 32
"""Most blocks of a multiprocessor, of those that have the most."""
_NUMBER: Final = "number"


def kernel_section(data: ReportData) -> Section | None:
    """Throughput, resources and clocks of a search of a kernel; ``None`` for any other."""
    if data.view is None or data.view.objective.get("kind") != "kernel" or not data.passed.any():
        return None
    best = _chosen(data)
    rows = [("best", best)]
    default = baseline_row(data)
    if default is not None and default.id != best.id:
        rows.append(("default", default))
    parts = [_compared(rows, data.score_names[0]), _library(data), _shapes(rows), _devices(data)]
    return Section("kernel", "Kernel", *(part for part in parts if part))


def baseline_row(data: ReportData) -> Evaluated | None:
    """The evaluation of what is in use today: the first initial configuration, else the space's default."""
    view = data.view
    if view is None:
        return None
    rows = view.header.get("initial_rows")
    wanted: Sequence[int] | None = rows[0] if rows else None
    if wanted is None and data.space is not None and data.space.default_row is not None:
        wanted = [int(level) for level in data.space.default_row]
    found = (
        row for row in data.rows if wanted is not None and list(view.entries[row.id].row) == list(wanted)
    )
    return next(found, None)


def _chosen(data: ReportData) -> Evaluated:
    if data.verdict is not None:
        for row in data.rows:
            if row.id == str(data.verdict["winner"]) and row.values:
                return row
    return data.rows[int(data.front[0])]


def _compared(rows: Sequence[tuple[str, Evaluated]], score: str) -> str:
    names = present(row.metrics for _, row in rows)
    head = ["", "candidate", _score_title(rows, score), *(COLUMNS[name][0] for name in names)]
    with_blocks = any(_blocks(row.metrics) is not None for _, row in rows)
    if with_blocks:
        head += ["threads", "blocks/SM by registers"]
    lines = []
    for name, row in rows:
        cells = [name, row.id, *([f"{row.values[0]:.6g}"] if row.values else [row.status])]
        cells += [text(row.metrics, column) for column in names]
        if with_blocks:
            blocks = _blocks(row.metrics)
            threads = number(row.metrics, "threads")
            cells += ["" if value is None else f"{value:.0f}" for value in (threads, blocks)]
        lines.append(cells)
    return _table(head, lines)


def _score_title(rows: Sequence[tuple[str, Evaluated]], score: str) -> str:
    """What the score is; a kernel that times itself alone knows that."""
    shapes = max(len(_timings(row.metrics)) for _, row in rows)
    return {0: score, 1: "ms"}.get(shapes, "mean ratio to the default")


def _blocks(metrics: Mapping[str, Any]) -> int | None:
    registers, threads = number(metrics, "registers"), number(metrics, "threads")
    if not registers or not threads or not (metrics.get("gpu") or {}).get("uuid"):
        return None
    each = -(-int(registers) // _REGISTER_UNIT) * _REGISTER_UNIT
    return min(_REGISTERS_OF_SM // (each * int(threads)), _BLOCKS_OF_SM)


def _library(data: ReportData) -> str:
    judged = (data.verdict or {}).get("library")
    if not judged:
        return ""
    try:
        return element("p", f"Against the library: {Verdict.from_dict(judged).words}")
    except (TypeError, ValueError, KeyError):
        return ""


def _shapes(rows: Sequence[tuple[str, Evaluated]]) -> str:
    timings = [(name, _timings(row.metrics)) for name, row in rows]
    shapes = list(timings[0][1])
    if len(shapes) < 2:
        return ""
    head = ["shape", *(f"{name}, ms" for name, _ in timings), *(["default / best"] if len(rows) > 1 else [])]
    lines = []
    for shape in shapes:
        times = [found.get(shape, {}).get("median_ms") for _, found in timings]
        cells = [shape, *("" if ms is None else f"{ms:.4g}" for ms in times)]
        if len(times) > 1:
            best, default = times[0], times[1]
            cells.append(f"{default / best:.3f}" if best and default else "")
        lines.append(cells)
    hint = "Several configurations, each for the shapes it is good at: ciq dispatch RUN --entries 3"
    note = element("p", hint, class_="note")
    return element("h3", "By shape") + _table(head, lines) + note


def _devices(data: ReportData) -> str:
    """Clocks, power, temperature and event reasons, by device."""
    found: defaultdict[str, list[Evaluated]] = defaultdict(list)
    for row in data.rows:
        gpu = row.metrics.get("gpu")
        if isinstance(gpu, Mapping) and gpu.get("uuid"):
            found[str(gpu["uuid"])].append(row)
    if not found:
        return ""
    head = ["device", "driver", "clocks", "SM MHz", "W", "°C", "event reasons", "samples dropped"]
    lines = []
    for uuid, rows in sorted(found.items()):
        gpu = rows[-1].metrics["gpu"]
        states = list(dict.fromkeys(str(row.metrics["gpu"].get("clock_state", "")) for row in rows))
        timings = [timing for row in rows for timing in _timings(row.metrics).values()]
        dropped = sum(int(timing.get("dropped") or 0) for timing in timings)
        cells = [f"{gpu.get('name', '')} {uuid}", str(gpu.get("driver", "")), ", ".join(states)]
        cells += [_range(rows, name) for name in ("sm_mhz", "power_w", "temp_c")]
        lines.append([*cells, _reasons(timings), str(dropped)])
    return element("h3", "Clocks while it was timed, medians and ranges") + _table(head, lines)


def _range(rows: Sequence[Evaluated], name: str) -> str:
    values = [value for row in rows if (value := number(row.metrics, name)) is not None]
    if not values:
        return ""
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def _reasons(timings: Sequence[Mapping[str, Any]]) -> str:
    from ciq_ray.gpu.evidence import reason_names

    seen = 0
    for timing in timings:
        evidence = timing.get("evidence")
        if isinstance(evidence, Mapping) and isinstance(evidence.get("reasons"), int):
            seen |= evidence["reasons"]
    return reason_names(seen) or "none"


def _timings(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    timing = metrics.get("timing")
    if not isinstance(timing, Mapping):
        return {}
    return {str(shape): one for shape, one in timing.items() if isinstance(one, Mapping)}


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    titles = "".join(element("th", name, class_=_NUMBER if place else "") for place, name in enumerate(head))
    rows = [
        "".join(element("td", cell, class_=_NUMBER if place else "") for place, cell in enumerate(line))
        for line in lines
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table class="data"><thead><tr>{titles}</tr></thead>{body}</table></div>'
