"""What a proposal of the genetic searcher costs, against pymoo's `MixedVariableGA`.

Both propose a generation, are told its values and go on, in the same mixed space and with the same
pool. Only the processor time within `ask` and `tell` counts; the first generation, which is random and
imports what is needed, does not. Then candidates one by one, as a search with few workers asks for
them, in a space of 20,480 rows with constraints.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks import spaces
from benchmarks._report import Claim, Result, rotated
from benchmarks.objectives import value

__all__ = ["run"]

SIZES = ((32, 50), (100, 200), (1000, 50))
GENERATIONS, QUICK_GENERATIONS = 6, 3
ROUNDS, QUICK_ROUNDS = 7, 2
SINGLES, QUICK_SINGLES = 2000, 500
CLAIM_MS = 0.2

OURS, PYMOO = "searchers.GeneticSearch", "pymoo MixedVariableGA"


def run(quick: bool) -> Result:
    """Measure all sizes, both sides in turn."""
    generations = QUICK_GENERATIONS if quick else GENERATIONS
    n_rounds = QUICK_ROUNDS if quick else ROUNDS
    sides = {OURS: _ours, PYMOO: _pymoo}
    table, claims, raw = [], [], {}
    for pool, parameters in SIZES:
        rounds = []
        # pymoo needs minutes for the largest; its cost hardly varies
        for number in range(min(n_rounds, 3) if pool * parameters > 10_000 else n_rounds):
            rounds.append(
                {name: sides[name](pool, parameters, generations) for name in rotated(list(sides), number)}
            )
        ratio = statistics.median(r[PYMOO] / r[OURS] for r in rounds)
        for name in sides:
            cost = statistics.median(r[name] for r in rounds)
            shown = f"{ratio:.1f}" if name == OURS else "1"
            table.append([f"{pool} x {parameters}", name, f"{cost:.3f}", shown])
        claims.append(Claim(f"{pool} x {parameters}: cheaper than pymoo by", ratio, 1.0, at_least=True))
        raw[f"{pool}x{parameters}"] = rounds
    count = QUICK_SINGLES if quick else SINGLES
    singles = [{OURS: _ours_singly(count)} for _ in range(n_rounds)]
    cost = statistics.median(r[OURS] for r in singles)
    table.append(["one by one, 10 parameters", OURS, f"{cost:.3f}", ""])
    claims.append(Claim("one by one: processor milliseconds a candidate", cost, CLAIM_MS, at_least=False))
    raw["one by one"] = singles
    header = ["pool x parameters", "searcher", "ms a candidate", "times cheaper"]
    return Result("genetic_cost", header, table, claims, raw)


def _ours(pool: int, n_parameters: int, generations: int) -> float:
    import searchers

    searcher = searchers.GeneticSearch(
        spaces.mixed(n_parameters), generations=None, pool_size=pool, seed=1, generational=True
    )
    spent = 0.0
    for generation in range(generations + 1):
        started = time.process_time()
        candidates = searcher.ask(pool)
        asked = time.process_time()
        outcomes = [searchers.Outcome("ok", (value(candidate.config),)) for candidate in candidates]
        told = time.process_time()
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            searcher.tell(candidate.id, outcome)
        if generation:
            spent += time.process_time() - told + asked - started
    return spent / (generations * pool) * 1000


def _pymoo(pool: int, n_parameters: int, generations: int) -> float:
    from pymoo.core.mixed import MixedVariableGA
    from pymoo.core.problem import Problem
    from pymoo.problems.static import StaticProblem

    problem = Problem(vars=spaces.mixed_variables(n_parameters), n_obj=1)
    algorithm = MixedVariableGA(pop_size=pool)
    algorithm.setup(problem, termination=("n_gen", 10**9), seed=1, verbose=False)
    spent = 0.0
    for generation in range(generations + 1):
        started = time.process_time()
        infills = algorithm.ask()
        asked = time.process_time()
        losses = np.array([[value(x)] for x in infills.get("X")])
        algorithm.evaluator.eval(StaticProblem(problem, F=losses), infills)
        told = time.process_time()
        algorithm.tell(infills=infills)
        if generation:
            spent += time.process_time() - told + asked - started
    return spent / (generations * pool) * 1000


def _ours_singly(count: int) -> float:
    import searchers

    searcher = searchers.GeneticSearch(spaces.kernel(), generations=None, seed=1)
    searcher.ask(1)
    spent = 0.0
    for _ in range(count):
        started = time.process_time()
        (candidate,) = searcher.ask(1)
        asked = time.process_time()
        outcome = searchers.Outcome("ok", (value(candidate.config),))
        told = time.process_time()
        searcher.tell(candidate.id, outcome)
        spent += time.process_time() - told + asked - started
    return spent / count * 1000
