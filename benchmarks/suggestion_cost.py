"""What a proposal of `auto` costs, up to 500 evaluations, next to one of the genetic searcher.

Processor time of `ask` and `tell` for each candidate, one by one: on a recorded landscape of 17,956
configurations of 10 parameters, all of which the model scores, and on a space of 200 parameters that is too
large for that. There is one thread, as in the driver of a search. Evaluations report a second, so that `auto`
keeps to its model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from threadpoolctl import threadpool_limits

import searchers
from benchmarks import landscape, spaces
from benchmarks._report import Claim, Result
from benchmarks.objectives import value

__all__ = ["run"]

STEPS, QUICK_STEPS = (100, 200, 300, 400, 500), (20, 40)
ROUNDS, QUICK_ROUNDS = 3, 1
CLAIMS_MS = {"hub_gemm, 10 parameters": 50.0, "200 parameters": 100.0}
GENETIC, GENETIC_CLAIM_MS = "genetic", 0.2

Label = Callable[[searchers.Candidate], searchers.Outcome]


def run(quick: bool) -> Result:
    """Measure `auto` on both spaces and the genetic searcher on the smaller one."""
    steps = QUICK_STEPS if quick else STEPS
    gemm = landscape.load("hub_gemm_RTX3090")

    def recorded(candidate: searchers.Candidate) -> searchers.Outcome:
        row = gemm.row(candidate.config)
        values = (float(gemm.times[row]),) if gemm.statuses[row] == "ok" else ()
        return searchers.Outcome(gemm.statuses[row], values, run_s=1.0)

    def made_up(candidate: searchers.Candidate) -> searchers.Outcome:
        return searchers.Outcome("ok", (value(candidate.config),), run_s=1.0)

    places: dict[str, tuple[searchers.Space, Label]] = {
        "hub_gemm, 10 parameters": (gemm.space, recorded),
        "200 parameters": (spaces.mixed(200), made_up),
    }
    table, claims, raw = [], [], {}
    for place, (space, label) in places.items():
        for name in ("auto", GENETIC):
            if name == GENETIC and space is not gemm.space:
                continue
            rounds = [
                _costs(name, space, label, steps, seed) for seed in range(QUICK_ROUNDS if quick else ROUNDS)
            ]
            costs = [statistics.median(found) for found in zip(*rounds, strict=True)]
            table.append([place, name, *(f"{cost:.3g}" for cost in costs)])
            limit = GENETIC_CLAIM_MS if name == GENETIC else CLAIMS_MS[place]
            text = f"{name}, {place}: processor milliseconds a proposal"
            claims.append(Claim(text, max(costs), limit, at_least=False))
            raw[f"{name}, {place}"] = rounds
    header = ["space", "searcher", *(f"to {step}" for step in steps)]
    return Result("suggestion_cost", header, table, claims, raw)


def _costs(name: str, space: searchers.Space, label: Label, steps: tuple[int, ...], seed: int) -> list[float]:
    """Milliseconds a proposal between one step and the next."""
    searcher = searchers.create(name, space, seed=seed)
    costs, spent, done = [], 0.0, 0
    searcher.prepare()
    with threadpool_limits(1):  # as in the driver of a search
        for step in steps:
            for _ in range(step - done):
                started = time.process_time()
                (candidate,) = searcher.ask(1)
                asked = time.process_time()
                outcome = label(candidate)
                told = time.process_time()
                searcher.tell(candidate.id, outcome)
                spent += time.process_time() - told + asked - started
            costs.append(spent / (step - done) * 1000)
            spent, done = 0.0, step
    return costs
