"""What all benchmarks share: rounds, medians, tables, and result files that say what they ran on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "ROOT", "Claim", "Result", "medians", "rotated", "table"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

_PACKAGES = ("numpy", "pandas", "pydantic", "pymoo", "ray")


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that a reader may hold us to.

    Attributes:
        text: What it is, in words.
        value: As measured.
        limit: What it has to keep to.
        at_least: Whether `limit` is a lower bound; else it is an upper one.
    """

    text: str
    value: float
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether the measurement keeps to the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.text}: {self.value:.3g} (claimed {sign} {self.limit:g}): {verdict}"


@dataclass(slots=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: The benchmark's.
        header: Names of the table's columns.
        rows: The table.
        claims: What was claimed and whether it holds.
        raw: Everything measured, for the result file; JSON data.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    claims: Sequence[Claim] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    def save(self, load_before: tuple[float, ...]) -> Path:
        """Write ``results/NAME.json``.

        Args:
            load_before: `os.getloadavg` when the benchmark began.
        """
        path = RESULTS / f"{self.name}.json"
        path.parent.mkdir(exist_ok=True)
        data = {
            "benchmark": self.name,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "load_before": [round(load, 2) for load in load_before],
            "load_after": [round(load, 2) for load in os.getloadavg()],
            "table": [list(self.header), *map(list, self.rows)],
            "claims": [
                {"claim": c.text, "value": c.value, "limit": c.limit, "at_least": c.at_least}
                for c in self.claims
            ],
            "raw": self.raw,
        }
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        return path


def machine() -> dict[str, Any]:
    """What a measurement depends on; nothing that says whose machine it is."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over rounds of each thing measured in every round."""
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The order of the sides in a round: each is first in turn, so that none always comes after another."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
