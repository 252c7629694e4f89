"""Evaluations per second of a whole search with the RAY worker, against `ActorPool` and Ray Tune.

The pools only call a function on a list that is known beforehand, and get no journal, no time limit and
no process of its own to run it in. All are timed from the first result to the last: starting up is
another benchmark. All run in one Ray, two at a time.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import objectives, spaces
from benchmarks._report import Claim, Result, medians, rotated
from benchmarks.throughput import quiet_runs

__all__ = ["run"]

WORKERS = 2
PARAMETERS = 10
BATCH = 10
EVALUATIONS, QUICK_EVALUATIONS = 1000, 200
SLOW_EVALUATIONS, QUICK_SLOW_EVALUATIONS = 200, 40
TRIALS, QUICK_TRIALS = 60, 10
LONG, QUICK_LONG = 10_000, 1_000
ROUNDS, QUICK_ROUNDS = 5, 1
CLAIM_POOL, CLAIM_IDEAL, CLAIM_CONSTANT = 0.8, 0.95, 0.9
SLOW_S = 0.1

Objective = Callable[[dict[str, Any]], float]
Configs = list[dict[str, Any]]


def run(quick: bool) -> Result:
    """Measure all sides in turn, round after round, in one Ray."""
    import ray

    ray.init(
        address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    try:
        return _measured(quick)
    finally:
        ray.shutdown()


def _measured(quick: bool) -> Result:
    evaluations = QUICK_EVALUATIONS if quick else EVALUATIONS
    space = spaces.mixed(PARAMETERS)
    configs = [space.decode(row) for row in space.sample(evaluations, np.random.default_rng(0))]
    sides: dict[str, Callable[[], float]] = {
        "ActorPool": partial(_actor_pool, configs, 1),
        f"ActorPool, batches of {BATCH}": partial(_actor_pool, configs, BATCH),
        "Ray Tune, reuse_actors": partial(_tune, QUICK_TRIALS if quick else TRIALS),
        "RAY, random": partial(_search, objectives.sleeping, evaluations, "random"),
        "RAY, genetic": partial(_search, objectives.sleeping, evaluations, "genetic"),
    }
    rounds = []
    for number in range(QUICK_ROUNDS if quick else ROUNDS):
        rounds.append({name: sides[name]() for name in rotated(list(sides), number)})
    rates = medians(rounds)
    peer = list(sides)[1]
    table, claims = [], []
    for name in sides:
        ratio = statistics.median(r[name] / r[peer] for r in rounds)
        table.append(["1 ms, asleep", name, f"{rates[name]:,.0f}", f"{ratio:.2f}", ""])
        if name.startswith("RAY"):
            text = f"{name}, 1 ms: rate relative to {peer}"
            claims.append(Claim(text, ratio, CLAIM_POOL, at_least=True))
    slow = QUICK_SLOW_EVALUATIONS if quick else SLOW_EVALUATIONS
    ideals = [
        _search(_hundred_ms, slow, "random") * SLOW_S / WORKERS for _ in range(QUICK_ROUNDS if quick else 3)
    ]
    ideal = statistics.median(ideals)
    rate = f"{ideal * WORKERS / SLOW_S:.1f}"
    table.append(["100 ms, asleep", "RAY, random", rate, "", f"{ideal:.3f} of ideal"])
    claims.append(Claim("RAY, 100 ms: rate relative to the ideal one", ideal, CLAIM_IDEAL, at_least=True))
    long = QUICK_LONG if quick else LONG
    tenths = _tenths(_times(objectives.sleeping, long, "random"))
    constant = tenths[-1] / tenths[0]
    text = f"last tenth to first: {constant:.2f}"
    table.append([f"1 ms, {long:,} evaluations", "RAY, random", f"{statistics.mean(tenths):,.0f}", "", text])
    claims.append(
        Claim(f"RAY, {long:,} evaluations: last tenth to first", constant, CLAIM_CONSTANT, at_least=True)
    )
    header = ["objective", "side", "evaluations/s", f"ratio to {peer}", ""]
    raw = {"1 ms": rounds, "100 ms, of ideal": ideals, "tenths": tenths}
    return Result("ray_throughput", header, table, claims, raw)


def _rate(times: list[float], results: int) -> float:
    """Results per second, those of the first moment left out."""
    return results / (times[-1] - times[0])


def _actor_pool(configs: Configs, batch: int) -> float:
    import ray
    from ray.util import ActorPool

    class Evaluator:
        def evaluate(self, batch: Configs) -> list[float]:
            return [objectives.sleeping(config) for config in batch]

    remote = ray.remote(Evaluator)
    actors = [remote.remote() for _ in range(WORKERS)]
    chunks = [configs[i : i + batch] for i in range(0, len(configs), batch)]
    results = ActorPool(actors).map_unordered(lambda actor, chunk: actor.evaluate.remote(chunk), chunks)
    times = [time.perf_counter() for _ in results]
    return _rate(times, len(configs) - batch)


def _tune(trials: int) -> float:
    from ray import tune

    class Clock(tune.Callback):
        times: list[float]

        def __init__(self) -> None:
            self.times = []

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.times.append(time.perf_counter())

    def trial(config: dict[str, Any]) -> None:
        tune.report({"loss": objectives.sleeping(config)})

    clock = Clock()
    with quiet_runs() as folder:
        tune.Tuner(
            trial,
            param_space={f"p{i}": tune.randint(0, 100) for i in range(PARAMETERS)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=WORKERS, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(folder.absolute()), verbose=0, callbacks=[clock], name="tune"
            ),
        ).fit()
    return _rate(clock.times, trials - 1)


def _hundred_ms(config: dict[str, Any]) -> float:
    time.sleep(SLOW_S)
    return objectives.value(config)


def _search(objective: Objective, evaluations: int, searcher: str) -> float:
    times = _times(objective, evaluations, searcher)
    # both actors have shown how long they take, and what is sent at once follows from that
    settled = times[len(times) // 10 :]
    return _rate(settled, len(settled) - 1)


def _times(objective: Objective, evaluations: int, searcher: str) -> list[float]:
    """When each outcome was written to the journal, in seconds."""
    from ciq_ray import Search, SearchConfiguration, WorkerTypes
    from ciq_ray.journal import read_records

    with quiet_runs() as folder:
        search = Search(
            objective_function=objective,
            search_space=spaces.mixed(PARAMETERS),
            search_config=SearchConfiguration(generations=10**6),
            searcher=searcher,
            searcher_options={"count": 10**6} if searcher == "random" else {},
            worker_type=WorkerTypes.RAY,
            max_evaluations=evaluations,
            seed=0,
            disable_progress_bar=True,
        )
        search.start(num_workers=WORKERS)
        return [record["at"] for record in read_records(folder / "1") if record["t"] == "outcome"]


def _tenths(times: list[float]) -> list[float]:
    """Rates of ten equal parts, of the results after the first hundredth."""
    settled = times[len(times) // 100 :]
    marks = [settled[(len(settled) - 1) * k // 10] for k in range(11)]
    return [len(settled) / 10 / (after - before) for before, after in itertools.pairwise(marks)]
