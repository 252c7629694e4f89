"""Searches over recorded landscapes: how good a searcher is, without the hardware.

``docs/replay.md`` describes the scores, the restarts, the noise and the virtual time.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ciq_ray._files import write_atomic
from ciq_ray._replay.plan import Plan, at_least_one
from ciq_ray._replay.recorded import Protocol, Recorded
from ciq_ray._replay.restarts import Restarts
from ciq_ray._replay.run import Run, search
from ciq_ray._replay.virtual import Usage
from ciq_ray.errors import ConfigurationError
from ciq_ray.landscape import Landscape, aggregate

__all__ = ["Plan", "Protocol", "Replay", "Replayer", "Run", "Usage", "VirtualTime", "replay"]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

BUDGETS: Final = (50, 100, 200, 400)
"""Scores are shown at these, and at the end."""
_NOISE: Final = 1
"""Tells the draws of a seed from the random numbers of its searcher."""


class Replayer:
    """Runs searches over a landscape, one seed at a time.

    Args:
        landscape: What was recorded.
        plan: How it is searched; a budget of more than all rows is cut to that, with a word in the log.

    Attributes:
        landscape: As given.
        plan: As given, or with the budget cut.

    Raises:
        OptionError: There is no such searcher, effort or option.
    """

    def __init__(self, landscape: Landscape, plan: Plan) -> None:
        if plan.budget > len(landscape):
            logger.warning(
                "`budget` is %d; %s has %d configurations, and that is what is used",
                plan.budget,
                landscape.name,
                len(landscape),
            )
            plan = replace(plan, budget=len(landscape))
        self.landscape, self.plan = landscape, plan
        self._make(0)

    def run(self, seed: int, tick: Callable[[], None] | None = None, *, until_s: float = math.inf) -> Run:
        """Search with one seed; equal seeds give equal runs.

        Args:
            seed: Of the searcher, and of the noise.
            tick: Called after each evaluation.
            until_s: Stop at this virtual second.
        """
        noise = np.random.default_rng([seed, _NOISE]) if self.plan.noise else None
        recorded = Recorded(self.landscape, noise, self.plan.protocol)
        searcher = Restarts(self._make, seed, restart=self.plan.restart)
        return search(seed, searcher, recorded, self.plan, tick, until_s)

    def summary(self, runs: Sequence[Run]) -> Replay:
        """The runs as a whole; in virtual time, with as many random searches that took as long."""
        elapsed = [run.usage.elapsed_s for run in runs if run.usage is not None]
        random = [self.random(run.seed, max(elapsed)) for run in runs] if elapsed else []
        return Replay(self.landscape, self.plan, tuple(runs), tuple(random))

    def random(self, seed: int, until_s: float) -> Run:
        """Random search without replacement on the same machine, to a virtual second."""
        plan = replace(
            self.plan,
            searcher="random",
            budget=len(self.landscape),
            batch=1,
            effort=None,
            options={},
            restart=False,
        )
        return Replayer(self.landscape, plan).run(seed, until_s=until_s)

    def _make(self, seed: int) -> Any:
        import searchers
        from searchers.effort import options_for

        options = dict(self.plan.options)
        if self.plan.searcher == "random":  # all there are, none twice, if nothing is said of it
            options = {"count": len(self.landscape), **options_for("random", self.plan.effort), **options}
        return searchers.create(
            self.plan.searcher,
            self.landscape.space,
            metric="time_ms",
            mode="min",
            seed=seed,
            effort=self.plan.effort,
            **options,
        )


@dataclass(frozen=True, slots=True)
class VirtualTime:
    """Medians over the runs of a search in virtual time.

    Attributes:
        elapsed_s: Virtual seconds a search took.
        workers_busy: Share of that time in which a compile worker compiled.
        devices_busy: Share of it in which a device ran something.
        best_ms: The time of the best at the end; without a success, the worst there is.
        random_ms: That of random search on the same machine at the same moment.
        as_good_s: When the searcher was as good as that, ``None`` if it never was.
    """

    elapsed_s: float
    workers_busy: float
    devices_busy: float
    best_ms: float
    random_ms: float
    as_good_s: float | None


@dataclass(frozen=True)
class Replay:
    """Searches of one landscape by one searcher.

    Attributes:
        landscape: What was searched.
        plan: How; its budget is at most the number of rows.
        runs: One search for each seed.
        random: Random searches on the same machine in the same virtual time; empty without `workers`.
    """

    landscape: Landscape
    plan: Plan
    runs: tuple[Run, ...]
    random: tuple[Run, ...] = ()

    @property
    def curves(self) -> Floats:
        """The best time after each evaluation in milliseconds, NaN before any; shape (runs, budget)."""
        return np.array([run.curve(self.plan.budget) for run in self.runs])

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets that scores are shown at."""
        return tuple(sorted({*(b for b in BUDGETS if b < self.plan.budget), self.plan.budget}))

    def scores(self) -> dict[int, tuple[float, float]]:
        """Mean score over the seeds and its standard error (NaN for one seed), by budget."""
        scores = self.landscape.scores(self.curves)
        return {budget: mean_and_error(scores[:, budget - 1]) for budget in self.budgets}

    def aggregate(self) -> tuple[float, float]:
        """Mean over the seeds of the score averaged over the budgets from 10 on, and its standard error."""
        return mean_and_error(aggregate(self.landscape.scores(self.curves)))

    def cpu_s(self) -> tuple[float, float]:
        """Median and greatest processor seconds for a suggestion, each the median over the seeds.

        So the first use of a library, which imports it, does not count as the greatest.
        """
        medians = [statistics.median(run.cpu_s) for run in self.runs if run.cpu_s]
        greatest = [max(run.cpu_s) for run in self.runs if run.cpu_s]
        return statistics.median(medians or [0.0]), statistics.median(greatest or [0.0])

    def virtual_time(self) -> VirtualTime:
        """What came of the virtual time.

        Raises:
            ConfigurationError: There was none.
        """
        usages = [run.usage for run in self.runs if run.usage is not None]
        if not usages:
            raise ConfigurationError("`workers` was None, so that there is no virtual time; give a number")
        worst = self.landscape.worst
        end = statistics.median(usage.elapsed_s for usage in usages)
        random_ms = statistics.median(float(np.nan_to_num(run.at(end), nan=worst)) for run in self.random)
        moments = sorted(
            next(
                (at for at, (_, time) in zip(run.moments, run.steps, strict=True) if time <= random_ms),
                math.inf,
            )
            for run in self.runs
        )
        as_good = statistics.median_low(moments)
        return VirtualTime(
            elapsed_s=end,
            workers_busy=statistics.median(usage.workers_busy for usage in usages),
            devices_busy=statistics.median(usage.devices_busy for usage in usages),
            best_ms=statistics.median(float(np.nan_to_num(run.at(math.inf), nan=worst)) for run in self.runs),
            random_ms=random_ms,
            as_good_s=None if math.isinf(as_good) else as_good,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a number that is not known is ``None``."""
        return {
            "landscape": self.landscape.name,
            "rows": len(self.landscape),
            "optimum_ms": self.landscape.optimum,
            "plan": self.plan.to_dict(),
            "scores": {str(budget): _plain(pair) for budget, pair in self.scores().items()},
            "aggregate": _plain(self.aggregate()),
            "runs": [run.to_dict() for run in self.runs],
            "random": [run.to_dict() for run in self.random],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON.

        Raises:
            OSError: The file cannot be written; an existing one is as it was.
        """
        return write_atomic(path, [json.dumps(self.to_dict()).encode(), b"\n"])


def replay(
    landscape: Landscape | str | os.PathLike[str],
    searcher: str = "auto",
    budget: int = 200,
    seeds: int | Sequence[int] = 20,
    batch: int = 1,
    noise: bool = False,
    workers: int | None = None,
    devices: int = 1,
    effort: str | None = None,
    options: Mapping[str, Any] | None = None,
    restart: bool = True,
) -> Replay:
    """Search a recorded landscape, once for each seed.

    Args:
        landscape: What was recorded, or the path of its file.
        searcher: See `Plan`, as all that is not here.
        budget: Evaluations of each search.
        seeds: The seeds, or how many of 0, 1, 2, ...
        batch: Candidates asked for at once.
        noise: Whether measurements are drawn from the recorded spread.
        workers: Compile workers of a search in virtual time.
        devices: Devices of a search in virtual time.
        effort: The searcher's effort.
        options: The searcher's own options.
        restart: Whether a fresh searcher follows one that has finished.

    Raises:
        ConfigurationError: An argument has a value it cannot have, or the file is no landscape.
        OptionError: There is no such searcher, effort or option.
    """
    plan = Plan(
        searcher=searcher,
        budget=budget,
        batch=batch,
        noise=noise,
        workers=workers,
        devices=devices,
        effort=effort,
        options=options or {},
        restart=restart,
    )
    if not isinstance(landscape, (Landscape, str, os.PathLike)):
        raise ConfigurationError(
            f"`landscape` is {landscape!r}; it must be a Landscape, or a path of its file"
        )
    known = landscape if isinstance(landscape, Landscape) else Landscape.load(landscape)
    replayer = Replayer(known, plan)
    return replayer.summary([replayer.run(seed) for seed in seeds_of(seeds)])


def seeds_of(seeds: int | Sequence[int]) -> Sequence[int]:
    """The seeds that a number of them stands for.

    Raises:
        ConfigurationError: It is no whole number of at least 1 and no list of at least one.
    """
    if isinstance(seeds, Integral):
        return range(at_least_one("seeds", seeds))
    if isinstance(seeds, str) or not isinstance(seeds, Sequence):
        raise ConfigurationError(f"`seeds` is {seeds!r}; it must be a list, or how many there are to be")
    if not seeds:
        raise ConfigurationError("`seeds` is empty; give at least one, or how many there are to be")
    for seed in seeds:
        if not isinstance(seed, Integral) or isinstance(seed, bool) or int(seed) < 0:
            raise ConfigurationError(f"`seeds` holds {seed!r}; a seed is a whole number of at least 0")
    return [int(seed) for seed in seeds]


def mean_and_error(values: Sequence[float] | Floats) -> tuple[float, float]:
    """The mean and its standard error; that of a single value is not known, NaN."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def _plain(pair: tuple[float, float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in pair]
