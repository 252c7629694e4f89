"""How good `auto` is where a space is too large to look at every configuration.

Searches of made-up objectives and of pairs of recorded landscapes (`benchmarks.functions`), from 8 to 200
parameters. The score is like that of a replay: 0 is random search with the same budget, 1 the best that
anybody found in any run. So it tells the searchers of one problem apart, and says little of how hard the
problem is. All have the same seeds, and a searcher that has finished is followed by one with another seed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

import searchers
from benchmarks._report import Claim, Result
from benchmarks.functions import PAIRS, PROBLEMS
from ciq_ray._replay.restarts import Restarts
from ciq_ray.gpu.orphans import die_with_parent

__all__ = ["run"]

BUDGETS: Final = (50, 100, 200, 400)
SEEDS, QUICK_SEEDS = 8, 1
JOBS = 2
RANDOM: Final = "random"
SIDES: Final[dict[str, str | None]] = {
    "auto": None,
    "bayesian": None,
    "genetic": None,
    "lfbo_pattern": "quick",
    "lfbo_tree": "quick",
    "pattern": "quick",
    RANDOM: None,
}
"""Searchers and their efforts."""
MANY = 48
"""Parameters from which on the model has fewer turns."""
CLAIM_BEHIND, CLAIM_BEHIND_MEAN = 0.15, 0.03


@dataclass(frozen=True)
class Task:
    """One search."""

    problem: str
    side: str
    seed: int
    budget: int


def run(quick: bool) -> Result:
    """Search each problem with everybody."""
    budgets = BUDGETS[:1] if quick else BUDGETS
    seeds = QUICK_SEEDS if quick else SEEDS
    tasks = [
        Task(problem, side, seed, budgets[-1])
        for seed in range(seeds)
        for problem in PROBLEMS
        for side in SIDES
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(JOBS, context, die_with_parent, (os.getpid(),)) as pool:
        found = {}
        for number, (task, searched) in enumerate(zip(tasks, pool.map(search, tasks), strict=True), 1):
            found[task] = searched
            if number % (len(tasks) // seeds) == 0:
                print(f"{number} of {len(tasks)} searches", file=sys.stderr, flush=True)
    scores = {problem: _scores(problem, found, seeds, budgets) for problem in PROBLEMS}
    rows = [
        [problem, side, *(f"{score:.2f}" for score in of[side]), _milliseconds(found, problem, side)]
        for problem, of in scores.items()
        for side in SIDES
        if side != RANDOM
    ]
    rows += [
        [f"mean of {len(chosen)}, {text}", side, *(f"{s:.2f}" for s in _mean(scores, chosen, side)), ""]
        for text, chosen in _kinds().items()
        for side in SIDES
        if side != RANDOM
    ]
    raw = {f"{task.problem}, {task.side}, {task.seed}": _steps(curve) for task, (curve, _) in found.items()}
    header = ["problem", "searcher", *map(str, budgets), "ms a suggestion"]
    return Result("large_spaces", header, rows, _claims(scores, budgets), raw)


def search(task: Task) -> tuple[list[float], float]:
    """One search: the best so far after each evaluation, and seconds of processor time in all."""
    problem = PROBLEMS[task.problem]()
    options: dict[str, Any] = {"count": task.budget} if task.side == RANDOM else {}

    def make(seed: int) -> searchers.SpaceSearcher:
        return searchers.create(task.side, problem.space, effort=SIDES[task.side], seed=seed, **options)

    searcher = Restarts(make, task.seed, restart=True)
    curve: list[float] = []
    best = math.inf
    with threadpool_limits(1):  # as in the driver of a search
        while len(curve) < task.budget:
            (proposal,) = searcher.ask(1)
            found = problem.objective(proposal.candidate.config)
            best = min(best, found)
            curve.append(best)
            searcher.tell(proposal, _outcome(found))
    return curve, sum(searcher.costs)


def _outcome(found: float) -> searchers.Outcome:
    """Evaluations take a second: dear enough for a model."""
    if math.isfinite(found):
        return searchers.Outcome("ok", (found,), run_s=1.0)
    return searchers.Outcome("compile_error", run_s=1.0)


# -- scores ---------------------------------------------------------------------------------------

Found = dict[Task, tuple[list[float], float]]
Scores = dict[str, dict[str, npt.NDArray[np.float64]]]


def _scores(
    problem: str, found: Found, seeds: int, budgets: tuple[int, ...]
) -> dict[str, npt.NDArray[np.float64]]:
    """Of each side the mean score over the seeds at each budget."""
    places = np.array(budgets) - 1
    curves = {
        side: np.array([found[Task(problem, side, seed, budgets[-1])][0] for seed in range(seeds)])[:, places]
        for side in SIDES
    }
    every = np.array(list(curves.values()))
    worst, optimum = every[np.isfinite(every)].max(), every.min()
    curves = {side: np.minimum(curve, worst) for side, curve in curves.items()}  # nothing has succeeded yet
    random = curves[RANDOM].mean(0)
    better = np.maximum(random - optimum, np.finfo(float).tiny)  # with one seed nobody may beat random search
    return {side: ((random - curve) / better).mean(0) for side, curve in curves.items()}


def _kinds() -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for name in PROBLEMS:
        kind = "fewer parameters" if int(name.split(", ")[1]) < MANY else "more parameters"
        kinds.setdefault("pairs of recorded landscapes" if name in PAIRS else kind, []).append(name)
    return kinds


def _mean(scores: Scores, chosen: list[str], side: str) -> npt.NDArray[np.float64]:
    return np.asarray(np.mean([scores[problem][side] for problem in chosen], axis=0))


def _claims(scores: Scores, budgets: tuple[int, ...]) -> list[Claim]:
    """How far `auto` is behind the best other one: on the worst problem, and on average."""
    others = [side for side in SIDES if side not in ("auto", RANDOM)]
    claims = []
    for place, budget in enumerate(budgets):
        behind = {
            problem: max(of[other][place] for other in others) - of["auto"][place]
            for problem, of in scores.items()
        }
        worst = max(behind, key=lambda problem: behind[problem])
        text = f"auto at {budget}: behind the best other one on {worst}, its worst problem"
        claims.append(Claim(text, float(behind[worst]), CLAIM_BEHIND, at_least=False))
        for kind, chosen in _kinds().items():
            means = {side: _mean(scores, chosen, side)[place] for side in SIDES}
            best = max(means[other] for other in others)
            text = f"auto at {budget}: behind the best other one on average, {kind}"
            claims.append(Claim(text, float(best - means["auto"]), CLAIM_BEHIND_MEAN, at_least=False))
    return claims


def _milliseconds(found: Found, problem: str, side: str) -> str:
    """Processor time of a suggestion, the mean over all runs."""
    each = [
        spent / len(curve)
        for task, (curve, spent) in found.items()
        if (task.problem, task.side) == (problem, side)
    ]
    return f"{1000 * sum(each) / len(each):.3g}"


def _steps(curve: list[float]) -> list[list[Any]]:
    """The evaluations that found something better, and what: a curve in few numbers."""
    steps: list[list[Any]] = []
    for evaluation, best in enumerate(curve, 1):
        rounded = float(f"{best:.6g}")
        if math.isfinite(best) and (not steps or rounded < steps[-1][1]):
            steps.append([evaluation, rounded])
    return steps
