"""Evaluations per second of a whole search with NATIVE workers, against the pools of the standard library.

The pools only call a function on a list that is known beforehand. A search also proposes, keeps a
journal on the disk, learns from each outcome and records it, and it sends nothing to a process that is
busy. Both are timed from the first result to the last: starting up is another benchmark.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import objectives, spaces
from benchmarks._report import Claim, Result, medians, rotated

__all__ = ["native", "quiet_runs", "run"]

WORKERS = 2
PARAMETERS = 10
EVALUATIONS, QUICK_EVALUATIONS = 2000, 300
ROUNDS, QUICK_ROUNDS = 9, 2
CLAIM = 0.7

Objective = Callable[[dict[str, Any]], float]
Configs = list[dict[str, Any]]


def run(quick: bool) -> Result:
    """Measure all sides in turn, round after round."""
    space = spaces.mixed(PARAMETERS)
    evaluations = QUICK_EVALUATIONS if quick else EVALUATIONS
    rows = space.sample(evaluations, np.random.default_rng(0))
    configs = [space.decode(row) for row in rows]
    sides: dict[str, Callable[[Objective], float]] = {
        "multiprocessing.Pool": partial(_pool, configs),
        "ProcessPoolExecutor": partial(_executor, configs),
        "NATIVE, random": partial(_search, evaluations, "random"),
        "NATIVE, genetic": partial(_search, evaluations, "genetic"),
    }
    table, claims, raw = [], [], {}
    for objective in (objectives.sleeping, objectives.busy):
        rounds = []
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            rounds.append({name: sides[name](objective) for name in rotated(list(sides), number)})
        rates = medians(rounds)
        peers = list(sides)[:2]
        for name in sides:
            ratio = statistics.median(r[name] / max(r[peer] for peer in peers) for r in rounds)
            table.append([objective.__name__, name, f"{rates[name]:,.0f}", f"{ratio:.2f}"])
            if name not in peers:
                text = f"{name}, {objective.__name__}: rate relative to the better pool"
                claims.append(Claim(text, ratio, CLAIM, at_least=True))
        raw[objective.__name__] = rounds
    header = ["objective of 1 ms", "side", "evaluations/s", "ratio to the better pool"]
    return Result("throughput", header, table, claims, raw)


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def _pool(configs: Configs, objective: Objective) -> float:
    with multiprocessing.Pool(WORKERS) as pool:
        return _rate([time.perf_counter() for _ in pool.imap_unordered(objective, configs)])


def _executor(configs: Configs, objective: Objective) -> float:
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(objective, config) for config in configs]
        return _rate([time.perf_counter() for _ in concurrent.futures.as_completed(futures)])


def _search(evaluations: int, searcher: str, objective: Objective) -> float:
    return _rate(native(objective, spaces.mixed(PARAMETERS), evaluations, searcher))


def native(objective: Objective, space: Any, evaluations: int, searcher: str) -> list[float]:
    """Run a search with NATIVE workers; when each outcome was written to its journal, in seconds."""
    from ciq_ray import Search, SearchConfiguration
    from ciq_ray.journal import read_records

    with quiet_runs() as folder:
        search = Search(
            objective_function=objective,
            search_space=space,
            search_config=SearchConfiguration(generations=10**6),
            searcher=searcher,
            searcher_options={"count": 10**6} if searcher == "random" else {},
            max_evaluations=evaluations,
            seed=0,
            disable_progress_bar=True,
        )
        search.start(num_workers=WORKERS)
        return [record["at"] for record in read_records(folder / "1") if record["t"] == "outcome"]


@contextmanager
def quiet_runs() -> Iterator[Path]:
    """A temporary folder for runs, on the disk on which they usually are; nothing on standard error."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder, open(os.devnull, "w") as nothing:
        saved, stderr = os.environ.get("CIQ_RUNS_DIR"), os.dup(2)
        os.environ["CIQ_RUNS_DIR"] = folder
        os.dup2(nothing.fileno(), 2)
        try:
            yield Path(folder)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if saved is None:
                del os.environ["CIQ_RUNS_DIR"]
            else:
                os.environ["CIQ_RUNS_DIR"] = saved
