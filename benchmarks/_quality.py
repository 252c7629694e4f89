"""What the quality benchmark has found: its files, its tables, its claims and its picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks._report import RESULTS, Claim
from ciq_ray._files import write_atomic
from ciq_ray.landscape import Landscape, aggregate
from ciq_ray.replay import mean_and_error

__all__ = ["BUDGETS", "Found", "Record", "claims", "draw", "load", "rows"]

Floats = npt.NDArray[np.float64]

FOLDER: Final = RESULTS / "quality"
BUDGETS: Final = (50, 100, 200, 400)
AGGREGATE: Final = 200
"""The aggregate score is the mean over the budgets from 10 to this."""
_AUTO: Final = {50: 0.75, 100: 0.87, 200: 0.95, 400: 0.98}
_COLOURS: Final = (
    "#2a7f62",
    "#b5443c",
    "#3b6ea8",
    "#c98b2b",
    "#7b5aa6",
    "#5f5f5f",
    "#2f9fb5",
    "#a0507d",
    "#8a9a2b",
)


@dataclass(frozen=True)
class Record:
    """The file of one searcher on one landscape.

    Attributes:
        searcher: Its name in the table.
        landscape: The landscape's.
        batch: How many it asks for at once.
    """

    searcher: str
    landscape: str
    batch: int

    @property
    def path(self) -> Path:
        """Where the file is."""
        return FOLDER / f"{self.searcher}.{self.landscape}.batch{self.batch}.json"

    def read(self) -> dict[int, dict[str, Any]]:
        """What is known, by seed; empty if there is no file."""
        if not self.path.exists():
            return {}
        data = json.loads(self.path.read_text(encoding="utf-8"))
        return {int(seed): run for seed, run in data["seeds"].items()}

    def add(self, seed: int, run: Mapping[str, Any]) -> None:
        """Put one more seed into the file, which is the old or the new one at any moment."""
        known = {**self.read(), seed: run}
        data = {
            "searcher": self.searcher,
            "landscape": self.landscape,
            "batch": self.batch,
            "seeds": {str(number): known[number] for number in sorted(known)},
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        # one seed a line: small, and a difference shows what changed
        text = json.dumps(data).replace('}, "', '},\n"').replace('"seeds": {', '"seeds": {\n')
        write_atomic(self.path, [text.encode(), b"\n"])


@dataclass(frozen=True)
class Found:
    """One searcher on all landscapes.

    Attributes:
        scores: By landscape: the score after each evaluation, shape (seeds, evaluations).
        cpu_s: Processor seconds for a suggestion, the mean of each run.
        slowest_s: The dearest suggestion of each run, where that is known.
    """

    scores: Mapping[str, Floats]
    cpu_s: Sequence[float]
    slowest_s: Sequence[float]

    def at(self, budget: int) -> tuple[float, float]:
        """Mean score over landscapes and seeds after `budget` evaluations, and its standard error."""
        return self._mean({name: scores[:, budget - 1] for name, scores in self.scores.items()})

    def aggregate(self) -> tuple[float, float]:
        """The same of the score averaged over budgets."""
        return self._mean({name: aggregate(scores[:, :AGGREGATE]) for name, scores in self.scores.items()})

    def curve(self) -> tuple[Floats, Floats]:
        """Mean score and standard error after each evaluation."""
        pairs = [self.at(budget) for budget in range(1, BUDGETS[-1] + 1)]
        return np.array([mean for mean, _ in pairs]), np.array([error for _, error in pairs])

    @staticmethod
    def _mean(values: Mapping[str, Floats]) -> tuple[float, float]:
        """Over landscapes and seeds; the landscapes are fixed, so that only the seeds make the error."""
        pairs = [mean_and_error(found) for found in values.values()]
        errors = math.sqrt(sum(error**2 for _, error in pairs)) / len(pairs)
        return float(np.mean([mean for mean, _ in pairs])), errors


def load(landscapes: Mapping[str, Landscape], searchers: Sequence[str], batch: int) -> dict[str, Found]:
    """What the files say; searchers without any file are left out."""
    found = {}
    for searcher in searchers:
        scores, cpu_s, slowest_s = {}, [], []
        for name, landscape in landscapes.items():
            runs = Record(searcher, name, batch).read().values()
            if not runs:
                continue
            curves = np.full((len(runs), BUDGETS[-1]), math.nan)
            for curve, run in zip(curves, runs, strict=True):
                for evaluation, time in run["steps"]:
                    curve[evaluation - 1 :] = time
                cpu_s.append(run["cpu_s"] / max(1, run["evaluations"]))
                if "slowest_s" in run:
                    slowest_s.append(run["slowest_s"])
            scores[name] = landscape.scores(curves)
        if scores:
            found[searcher] = Found(scores, cpu_s, slowest_s)
    return found


def rows(found: Mapping[str, Found], batch: int, landscapes: int) -> list[list[str]]:
    """The lines of the table, the best aggregate first."""
    lines = []
    for searcher, what in sorted(found.items(), key=lambda item: -item[1].aggregate()[0]):
        seeds = min(len(scores) for scores in what.scores.values())
        note = "" if len(what.scores) == landscapes else f", {len(what.scores)} of {landscapes} landscapes"
        lines.append(
            [
                searcher,
                str(batch),
                f"{seeds}{note}",
                *(_shown(what.at(budget)) for budget in BUDGETS),
                _shown(what.aggregate()),
                f"{1000 * float(np.median(what.cpu_s)):.3g}",
            ]
        )
    return lines


def by_landscape(found: Mapping[str, Found], names: Sequence[str], budget: int) -> list[list[str]]:
    """The score at one budget on each landscape."""
    lines = []
    for searcher, what in sorted(found.items(), key=lambda item: -item[1].at(budget)[0]):
        cells = [
            f"{what.scores[name][:, budget - 1].mean():.2f}" if name in what.scores else "-" for name in names
        ]
        lines.append([searcher, *cells])
    return lines


def claims(one: Mapping[str, Found], many: Mapping[str, Found], peers: Sequence[str]) -> list[Claim]:
    """What is claimed of those that were measured on the same landscapes.

    Args:
        one: Batch 1.
        many: Batch 16.
        peers: Which of them are not ours.
    """
    made = []
    auto = one.get("auto")
    if auto is not None:
        made += [
            Claim(f"auto at {budget}", auto.at(budget)[0], least, at_least=True)
            for budget, least in _AUTO.items()
        ]
        made.append(Claim(f"auto, aggregate to {AGGREGATE}", auto.aggregate()[0], 0.80, at_least=True))
        if "auto" in many:
            lost = auto.aggregate()[0] - many["auto"].aggregate()[0]
            made.append(Claim("auto, aggregate lost with batch 16", lost, 0.05, at_least=False))
        behind = []
        for name, scores in auto.scores.items():
            rivals = [one[peer].scores[name] for peer in peers if peer in one and name in one[peer].scores]
            best = max((float(rival[:, AGGREGATE - 1].mean()) for rival in rivals), default=-math.inf)
            behind.append(best - float(scores[:, AGGREGATE - 1].mean()))
        made.append(
            Claim(
                f"auto, most behind the best peer of a landscape at {AGGREGATE}",
                max(behind),
                0.1,
                at_least=False,
            )
        )
        cost = 1000 * float(np.median(auto.cpu_s))
        made.append(Claim("auto, processor ms a suggestion", cost, 50, at_least=False))
    if "lfbo_tree_quick" in one:
        value = one["lfbo_tree_quick"].aggregate()[0]
        made.append(Claim("lfbo_tree_quick, aggregate, against Helion's", value, 0.36, at_least=True))
    if "genetic" in one and "kernel_tuner_ga" in one:
        ahead = one["genetic"].aggregate()[0] - one["kernel_tuner_ga"].aggregate()[0]
        made.append(Claim("genetic, aggregate ahead of Kernel Tuner's", ahead, 0.0, at_least=True))
    return made


def draw(found: Mapping[int, Mapping[str, Found]], peers: Sequence[str]) -> Path:
    """Draw the score against the evaluations, a panel for each batch; peers are dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(found), figsize=(7 * len(found), 4.6), layout="constrained", sharey=True, squeeze=False
    )
    names = list(dict.fromkeys(name for searchers in found.values() for name in searchers))
    colours = {
        name: _COLOURS[number % len(_COLOURS)]
        for side in ([n for n in names if n not in peers], [n for n in names if n in peers])
        for number, name in enumerate(side)
    }
    lines: dict[str, Any] = {}
    for axes, (batch, searchers) in zip(panels[0], found.items(), strict=True):
        for searcher, what in reversed([*searchers.items()]):  # the first lies on top
            mean, error = what.curve()
            places = np.arange(1, len(mean) + 1)
            style, colour = "--" if searcher in peers else "-", colours[searcher]
            (lines[searcher],) = axes.plot(places, mean, style, color=colour, linewidth=1.4)
            axes.fill_between(places, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlim(10, BUDGETS[-1])
        axes.set_ylim(-0.5, 1.02)
        axes.axhline(0, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"evaluations, {batch} at once")
    panels[0][0].set_ylabel("score: 0 random search, 1 the optimum")
    figure.legend([lines[name] for name in names], names, frameon=False, loc="outside right center")
    path = RESULTS / "quality.png"
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _shown(pair: tuple[float, float]) -> str:
    mean, error = pair
    return f"{mean:.2f}" if math.isnan(error) else f"{mean:.2f} ± {error:.2f}"
