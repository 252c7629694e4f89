"""How often a race errs, and what it saves: simulated races, and replayed searches with recorded noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import landscape
from benchmarks._report import RESULTS, Claim, Result
from ciq_ray.race import BASELINE, Entrant, Plan, Race, RaceResult
from searchers import GeneticSearch, Outcome

__all__ = ["run"]

RACES = 1000
FINALISTS = 8
SEARCHES = 50
BUDGET = 200
_TAIL, _TAIL_SHARE = 1.5, 0.05


@dataclass(frozen=True)
class Noise:
    """Multiplicative noise: of a window, of a process, and of one window in twenty."""

    within: float
    between: float
    tails: bool = False


class Simulated:
    """A `ciq_ray.race.Measure` over made-up times.

    A process has an effect of its own on each entrant, as alignment or page colouring has.
    """

    def __init__(self, times: dict[str, float], noise: dict[str, Noise], rng: np.random.Generator) -> None:
        self._times, self._noise, self._rng = times, noise, rng

    def __call__(self, order: Sequence[Entrant]) -> Iterator[tuple[Entrant, Outcome]]:
        """One block."""
        process: dict[str, float] = {}
        for entrant in order:
            name = BASELINE if entrant.id.startswith(BASELINE) else entrant.id
            noise = self._noise[name]
            if entrant.id not in process:
                process[entrant.id] = self._rng.normal(0.0, noise.between)
            value = self._times[name] * np.exp(process[entrant.id] + self._rng.normal(0.0, noise.within))
            if noise.tails and self._rng.random() < _TAIL_SHARE:
                value *= _TAIL
            yield entrant, Outcome("ok", (float(value),))


def race(times: dict[str, float], noise: dict[str, Noise], seed: int) -> RaceResult:
    """One race of everybody in `times` against the baseline."""
    rng = np.random.default_rng(seed)
    finalists = [Entrant(name, {"name": name}) for name in times if name != BASELINE]
    return Race(
        finalists,
        Entrant(BASELINE, {}),
        Simulated(times, noise, rng),
        plan=Plan(finalists=len(finalists), seed=seed),
    ).run()


def simulate(gains: Sequence[float], noise: Noise, races: int) -> Counter[str]:
    """Verdicts of `races` races; a win counts as ``"right"`` if the best finalist was picked."""
    verdicts: Counter[str] = Counter()
    times = {BASELINE: 1.0, **{f"f{i}": 1.0 - gain for i, gain in enumerate(gains)}}
    for seed in range(races):
        result = race(times, dict.fromkeys(times, noise), seed)
        verdicts[result.verdict.kind] += 1
        verdicts["right"] += result.verdict.kind == "win" and result.winner.id == f"f{int(np.argmax(gains))}"
    return verdicts


def replay(races: int) -> tuple[list[float], list[float]]:
    """How far each search's lowest measurement, and its raced winner, are from the best finalist."""
    lucky, raced = [], []
    places = landscape.names()
    for number in range(races):
        land = landscape.load(places[number % len(places)])
        rng = np.random.default_rng([11, number])
        searcher = GeneticSearch(land.space, metric="ms", mode="min", seed=number)
        measured: dict[str, tuple[float, str]] = {}
        for _ in range(BUDGET):
            candidate = searcher.ask(1)[0]
            row = land.row(candidate.config)
            time = land.times[row]
            if np.isnan(time):
                searcher.tell(candidate.id, Outcome("run_error"))
                continue
            value = max(1e-9, rng.normal(time, land.deviations[row]))
            measured[candidate.id] = (value, candidate.id)
            searcher.tell(candidate.id, Outcome("ok", (value,)))
        finalists = [name for _, name in sorted(measured.values())[:FINALISTS]]
        rows = {name: land.row(searcher.candidate(name).config) for name in finalists}
        true = {name: float(land.times[row]) for name, row in rows.items()}
        best = min(true.values())
        lucky.append(true[finalists[0]] / best - 1)
        noise = {name: Noise(land.deviations[row] / true[name], 0.003) for name, row in rows.items()} | {
            BASELINE: Noise(0.01, 0.003)
        }
        result = race({BASELINE: 1.05 * best, **true}, noise, number)
        raced.append(true[result.winner.id] / best - 1)
    return lucky, raced


def run(quick: bool = False) -> Result:
    """All scenarios."""
    races = 100 if quick else RACES
    calm, shaky = Noise(0.01, 0.003), Noise(0.01, 0.02)
    equal = [0.0] * FINALISTS
    scenarios = {
        "A/A, 0.3% between processes": (equal, calm),
        "A/A, 2% between processes": (equal, shaky),
        "one is 2% better": ([0.02, *equal[1:]], calm),
        "all are 1% worse": ([-0.01] * FINALISTS, calm),
    }
    rows, raw = [], {}
    found: dict[tuple[str, bool], Counter[str]] = {}
    for name, (gains, noise) in scenarios.items():
        for tails in (False, True):
            verdicts = simulate(gains, Noise(noise.within, noise.between, tails), races)
            found[name, tails] = verdicts
            label = f"{name}{', heavy tails' if tails else ''}"
            raw[label] = dict(verdicts)
            rows.append(
                [
                    label,
                    *(
                        f"{verdicts[kind] / races:.1%}"
                        for kind in ("win", "no significant difference", "loss")
                    ),
                ]
            )
    lucky, raced = replay(10 if quick else SEARCHES)
    raw["replay"] = {"lowest measurement": lucky, "raced winner": raced}
    off = [float(np.mean(np.array(values) > 0.01)) for values in (lucky, raced)]
    rows.append(
        [f"replayed searches ({len(lucky)}): lowest measurement off by more than 1%", f"{off[0]:.0%}", "", ""]
    )
    rows.append(
        [f"replayed searches ({len(raced)}): raced winner off by more than 1%", f"{off[1]:.0%}", "", ""]
    )
    claims = []
    for tails in (False, True):
        more = " (heavy tails)" if tails else ""
        for name, limit in (("A/A, 0.3% between processes", 0.05), ("A/A, 2% between processes", 0.05),
                            ("all are 1% worse", 0.01)):  # fmt: skip
            claims.append(
                Claim(f"wins, {name}{more}", found[name, tails]["win"] / races, limit, at_least=False)
            )
        share = found["one is 2% better", tails]["right"] / races
        claims.append(Claim(f"a true 2% found{more}", share, 0.9, at_least=True))
    if not quick:
        _plot(raw, races)
    return Result("race", ["scenario", "win", "no difference", "loss"], rows, claims, raw)


def _plot(raw: dict[str, dict[str, object]], races: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    labels = [label for label in raw if label != "replay"]
    start = np.zeros(len(labels))
    for kind, colour in (("win", "#2a7f62"), ("no significant difference", "#c9c9c9"), ("loss", "#b5443c")):
        share = np.array([raw[label].get(kind, 0) / races * 100 for label in labels])  # type: ignore[operator]
        left.barh(labels, share, left=start, color=colour, label=kind)
        start += share
    left.invert_yaxis()
    left.set_xlabel(f"verdicts, % of {races} races")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)
    for name, colour in (("lowest measurement", "#b5443c"), ("raced winner", "#2a7f62")):
        values = np.sort(np.array(raw["replay"][name]) * 100)
        right.step(
            values, np.arange(1, len(values) + 1) / len(values) * 100, where="post", label=name, color=colour
        )
    right.axvline(1.0, color="#888888", linewidth=0.8, linestyle=":")
    right.set_xlabel("slower than the best finalist, %")
    right.set_ylabel("replayed searches, %")
    right.set_ylim(0, 101)
    right.legend(frameon=False, loc="lower right")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "race.png", dpi=110)
    plt.close(figure)
