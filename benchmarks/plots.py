"""One picture of the results there are: ``python -m benchmarks --plot``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._report import RESULTS, medians

__all__ = ["draw"]

_OURS, _PEER = "#2a7f62", "#b8b8b8"


def draw() -> Path:
    """Draw throughput, cost of proposals and long searches side by side.

    Returns:
        The file.

    Raises:
        FileNotFoundError: One of the three has not been run yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    raw = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["raw"]
        for name in ("throughput", "genetic_cost", "scale")
    }
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    _throughput(axes[0], raw["throughput"])
    _cost(axes[1], raw["genetic_cost"])
    _scale(axes[2], raw["scale"])
    path = RESULTS / "overview.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _throughput(axes: Any, raw: Mapping[str, Any]) -> None:
    labels, rates, colours = [], [], []
    for objective, rounds in raw.items():
        for side, rate in medians(rounds).items():
            labels.append(f"{side} ({objective})")
            rates.append(rate)
            colours.append(_OURS if side.startswith("NATIVE") else _PEER)
    axes.barh(labels, rates, color=colours)
    axes.invert_yaxis()
    axes.set_title("evaluations/s, objective of 1 ms, 2 processes")


def _cost(axes: Any, raw: Mapping[str, Any]) -> None:
    sizes = [size for size, rounds in raw.items() if len(rounds[0]) > 1]
    for shift, (side, colour) in enumerate(zip(raw[sizes[0]][0], (_OURS, _PEER), strict=True)):
        costs = [medians(raw[size])[side] for size in sizes]
        places = [i + (shift - 0.5) * 0.38 for i in range(len(sizes))]
        axes.bar(places, costs, width=0.36, color=colour, label=side)
    axes.set_xticks(range(len(sizes)), [size.replace("x", " x ") for size in sizes])
    axes.set_xlabel("pool x parameters")
    axes.set_title("processor ms for each proposal and its tell")
    axes.legend(frameon=False)


def _scale(axes: Any, raw: Mapping[str, Any]) -> None:
    for name, found in raw.items():
        axes.plot(range(1, 11), found["tenths"], marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("tenth of 100,000 evaluations")
    axes.set_title("evaluations/s")
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
