"""How good searchers are: ours and their peers on recorded landscapes.

::

    python -m benchmarks.quality                                what is missing of all, then the report
    python -m benchmarks.quality --searcher auto --jobs 2       what is missing of one
    python -m benchmarks.quality --report                       only the report, from the files there are
    python -m benchmarks.quality --unseen --searcher auto       the landscapes by which nothing was set

The score is that of ``docs/replay.md``. Every side gets the same budget: evaluations of valid
configurations, failed ones included. The rules where the sides differ:

* Ours never propose an invalid configuration nor one twice. One that has finished is followed by a fresh one
  with the next seed, whose evaluations count again.
* Optuna and pymoo do not know static constraints. A proposal that breaks one costs them nothing, and is told
  as infeasible (Optuna: as pruned). So does one that they made before: it is answered from memory. After
  1,000 such proposals in a row a random new configuration is evaluated.
* Kernel Tuner gets the list of valid configurations; what was evaluated before costs nothing. When its
  generations end before the budget, it starts again, with that memory.
* All are at their defaults. Kernel Tuner evaluates one by one; pymoo proposes a generation of 50 at a time,
  so that there is nothing to compare with a batch of 16. Optuna asks for 16 before it tells, with
  ``constant_liar``.

There is one small file for each searcher, landscape and batch in ``results/quality``, with the best so far
of each seed as a list of steps, and its processor time. A file is replaced whenever a seed is done: a run
that was killed goes on where it was. Everything computes with one thread.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import landscape
from benchmarks._report import Result, table
from ciq_ray.gpu.orphans import die_with_parent
from ciq_ray.landscape import Landscape

__all__ = ["PEERS", "SEARCHERS", "main", "run"]

BUDGET: Final = 400
SEEDS: Final = 20
BATCHES: Final = (1, 16)
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Side:
    """Somebody who searches.

    Attributes:
        name: Of our searcher; or ``module.function`` of a peer.
        effort: Of our searcher.
        peer: Whether it is not ours.
        batches: How many it may be asked for at once.
    """

    name: str
    effort: str | None = None
    peer: bool = False
    batches: tuple[int, ...] = BATCHES


SEARCHERS: Final = {
    "auto": Side("auto"),
    "bayesian": Side("bayesian"),
    "genetic": Side("genetic"),
    "lfbo_tree_quick": Side("lfbo_tree", "quick"),
    "lfbo_pattern_quick": Side("lfbo_pattern", "quick"),
    "pattern_quick": Side("pattern", "quick"),
    "de": Side("de"),
    "de_surrogate": Side("de_surrogate"),
    "random": Side("random"),
    "optuna_tpe": Side("optuna_tpe.tpe", peer=True),
    "pymoo_ga": Side("pymoo_ga.mixed_variable_ga", peer=True, batches=(1,)),
    "kernel_tuner_ga": Side("kernel_tuner.genetic_algorithm", peer=True, batches=(1,)),
    "kernel_tuner_pso": Side("kernel_tuner.pso", peer=True, batches=(1,)),
}
"""By their names in the table."""
PEERS: Final = tuple(name for name, side in SEARCHERS.items() if side.peer)


@dataclass(frozen=True)
class Work:
    """The seeds of one searcher on one landscape."""

    searcher: str
    landscape: str
    batch: int
    seeds: tuple[int, ...]


def search(searcher: str, recorded: Landscape, seed: int, batch: int, budget: int = BUDGET) -> dict[str, Any]:
    """One run, as it is in the files.

    Args:
        searcher: A name of `SEARCHERS`.
        recorded: What is searched.
        seed: Of the run.
        batch: How many it is asked for at once.
        budget: Evaluations.
    """
    side = SEARCHERS[searcher]
    if side.peer:
        from benchmarks.peers.meter import Meter

        module, _, function = side.name.partition(".")
        tune: Callable[[Any, int, int], None] = getattr(
            importlib.import_module(f"benchmarks.peers.{module}"), function
        )
        meter = Meter(recorded, budget)
        begun = time.process_time()
        tune(meter, seed, batch)
        spent = time.process_time() - begun
        steps = [list(step) for step in meter.steps]
        return {"steps": steps, "evaluations": meter.evaluations, "cpu_s": round(spent, 6)}
    from ciq_ray.replay import Plan, Replayer

    plan = Plan(searcher=side.name, effort=side.effort, budget=budget, batch=batch)
    found = Replayer(recorded, plan).run(seed)
    return {
        "steps": [list(step) for step in found.steps],
        "evaluations": found.evaluations,
        "restarts": found.restarts,
        "cpu_s": round(sum(found.cpu_s), 6),
        "slowest_s": round(max(found.cpu_s), 6),
    }


def work_off(work: Work) -> int:
    """Run the seeds that are not in the file yet; returns how many that were."""
    from benchmarks._quality import Record

    record = Record(work.searcher, work.landscape, work.batch)
    missing = [seed for seed in work.seeds if seed not in record.read()]
    if missing:
        recorded = landscape.load(work.landscape)
        for seed in missing:
            record.add(seed, search(work.searcher, recorded, seed, work.batch))
    return len(missing)


def measure(tasks: Sequence[Work], jobs: int) -> int:
    """Work off all tasks in processes of their own; returns how many failed."""
    # the libraries read these when they are loaded, which a spawned process does anew
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    failed = 0
    begun = time.monotonic()
    with ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        # else they go on after this process was killed, and write what they find beside a later run
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        running = {pool.submit(work_off, task): task for task in tasks}
        for number, future in enumerate(as_completed(running), 1):
            task = running[future]
            name = f"{task.searcher} on {task.landscape}, batch {task.batch}"
            elapsed = f"{time.monotonic() - begun:.0f} s, {number}/{len(tasks)}"
            try:
                print(f"{elapsed}: {name}: {future.result()} new runs", file=sys.stderr, flush=True)
            except Exception as error:
                failed += 1
                print(
                    f"{elapsed}: {name} FAILED: {type(error).__name__}: {error}", file=sys.stderr, flush=True
                )
    return failed


def tasks_of(
    searchers: Sequence[str], landscapes: Sequence[str], batches: Sequence[int], seeds: int
) -> list[Work]:
    """What there is to do, as far as a searcher has such a batch."""
    return [
        Work(searcher, landscape, batch, tuple(range(seeds)))
        for batch in batches
        for searcher in searchers
        if batch in SEARCHERS[searcher].batches
        for landscape in landscapes
    ]


def report(*, unseen: bool = False) -> Result:
    """The tables and claims that the files give; of the unseen landscapes only the tables."""
    from benchmarks import _quality

    names = landscape.unseen() if unseen else landscape.names()
    landscapes = {name: landscape.load(name) for name in names}
    found = {batch: _quality.load(landscapes, tuple(SEARCHERS), batch) for batch in BATCHES}
    rows = [row for batch in BATCHES for row in _quality.rows(found[batch], batch, len(landscapes))]
    aggregate = f"aggregate to {_quality.AGGREGATE}"
    header = ["searcher", "batch", "seeds", *map(str, _quality.BUDGETS), aggregate, "ms a suggestion"]
    places = _quality.by_landscape(found[1], list(landscapes), _quality.AGGREGATE)
    raw = {"by landscape at 200, batch 1": [["searcher", *landscapes], *places]}
    if unseen:
        return Result("quality_unseen", header, rows, raw=raw)
    if any(found.values()):
        _quality.draw({batch: searchers for batch, searchers in found.items() if searchers}, PEERS)
    return Result("quality", header, rows, _quality.claims(found[1], found[16], PEERS), raw)


def run(quick: bool = False) -> Result:
    """Run what is missing and report; `quick` runs two searchers for a moment and writes nothing."""
    if not quick:
        measure(tasks_of(tuple(SEARCHERS), landscape.names(), BATCHES, SEEDS), jobs=1)
        return report()
    recorded = landscape.load("matmul_4096")
    rows = []
    for searcher in ("genetic", "random"):
        found = search(searcher, recorded, 0, 1, 50)
        rows.append([searcher, f"{found['steps'][-1][1]:.4g}"])
    return Result("quality", ["searcher", "best ms of matmul_4096 in 50"], rows)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's description.

    Returns:
        0, or 1 if something failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description="Searchers and peers on recorded landscapes."
    )
    parser.add_argument("--searcher", action="append", choices=tuple(SEARCHERS), help="may be given again")
    every = [*landscape.names(), *landscape.unseen()]
    parser.add_argument("--landscape", action="append", choices=every, help="may be given again")
    parser.add_argument("--unseen", action="store_true", help="the landscapes by which nothing was set")
    parser.add_argument("--batch", action="append", type=int, choices=BATCHES, help="may be given again")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many; {SEEDS} by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes; 1 by default")
    parser.add_argument("--report", action="store_true", help="run nothing, report what there is")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.jobs) < 1:
        parser.error("--seeds and --jobs must be at least 1")
    places = landscape.unseen() if options.unseen else landscape.names()
    others = [name for name in options.landscape or () if name not in places]
    if others:
        parser.error(f"--landscape {others[0]} goes {'without' if options.unseen else 'with'} --unseen")
    failed = 0
    if not options.report:
        searchers = options.searcher or tuple(SEARCHERS)
        tasks = tasks_of(searchers, options.landscape or places, options.batch or BATCHES, options.seeds)
        failed = measure(tasks, options.jobs)
    found = report(unseen=options.unseen)
    print(table(found.header, found.rows))
    print("\nby landscape at 200, batch 1\n")
    head, *lines = found.raw["by landscape at 200, batch 1"]
    print(table(head, lines))
    for claim in found.claims:
        print(f"  {claim}")
    print(f"written to {found.save(os.getloadavg())}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
