"""100,000 evaluations in one search: is the last tenth as fast as the first, and what memory does it take?

Twice: the searcher in batches with its journal and result table, without any worker, and a whole search
with NATIVE workers. Each in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks import spaces
from benchmarks._report import ROOT, Claim, Result
from benchmarks.objectives import value

__all__ = ["run"]

EVALUATIONS, QUICK_EVALUATIONS = 100_000, 5_000
PARAMETERS = 12
BATCH = 100
CLAIM_RATE, CLAIM_MB = 0.8, 1000.0


def run(quick: bool) -> Result:
    """Run each kind in a fresh process."""
    count = QUICK_EVALUATIONS if quick else EVALUATIONS
    table, claims, raw = [], [], {}
    for kind, text in (
        ("batch", "ask, journal, tell, result; by 100"),
        ("native", "Search, 2 NATIVE workers"),
    ):
        for searcher in ("genetic", "random"):
            output = subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", kind, searcher, str(count)],
                check=True,
                cwd=ROOT,
                stdout=subprocess.PIPE,
            ).stdout
            found: dict[str, Any] = json.loads(output)
            tenths = found["tenths"]
            rate = count / sum(count / 10 / tenth for tenth in tenths)
            ratio = tenths[-1] / tenths[0]
            spent = found["processor_us"]
            table.append(
                [
                    text,
                    searcher,
                    f"{rate:,.0f}",
                    f"{ratio:.2f}",
                    f"{spent[0]:.0f} / {spent[-1]:.0f}",
                    f"{found['peak_mb']:,.0f}",
                ]
            )
            name = f"{count:,} evaluations, {kind}, {searcher}"
            claims.append(
                Claim(f"{name}: rate of the last tenth to the first", ratio, CLAIM_RATE, at_least=True)
            )
            claims.append(Claim(f"{name}: peak memory in MB", found["peak_mb"], CLAIM_MB, at_least=False))
            raw[f"{kind}, {searcher}"] = found
    header = [
        f"{count:,} evaluations",
        "searcher",
        "evaluations/s",
        "last tenth to first",
        "driver µs each, first / last tenth",
        "peak MB",
    ]
    return Result("scale", header, table, claims, raw)


def measure(kind: str, searcher: str, count: int) -> dict[str, Any]:
    """Run one search in this process; rates of its tenths, and the peak of its memory in MB."""
    measured: Callable[[str, int], list[float]] = {"batch": _batch, "native": _native}[kind]
    with _ProcessorClock() as clock:
        times = measured(searcher, count)
    marks = [times[0], *(times[count * k // 10 - 1] for k in range(1, 11))]
    tenths = [count / 10 / (after - before) for before, after in itertools.pairwise(marks)]
    spent = [clock.between(before, after) / (count / 10) * 1e6 for before, after in itertools.pairwise(marks)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "tenths": [round(rate, 1) for rate in tenths],
        "processor_us": [round(us, 1) for us in spent],
        "peak_mb": round(peak, 1),
    }


class _ProcessorClock:
    """Notes the processor time of this process a few times a second, to be read afterwards."""

    def __init__(self) -> None:
        self._notes: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        over = False
        while not over:
            self._notes.append((time.time(), time.process_time()))
            over = self._done.wait(0.1)
        self._notes.append((time.time(), time.process_time()))

    def between(self, before: float, after: float) -> float:
        """Seconds of processor time between two moments of ``time.time``."""
        moments, spent = zip(*self._notes, strict=True)
        return float(np.interp(after, moments, spent) - np.interp(before, moments, spent))


def _batch(name: str, count: int) -> list[float]:
    """When each evaluation was in the result; it drives the pieces as the engine does."""
    import searchers
    from ciq_ray.journal import Journal
    from ciq_ray.results import SearchResult
    from ciq_ray.types import ProblemType, Score

    options: dict[str, Any] = {"count": count} if name == "random" else {"generations": None}
    searcher = searchers.create(name, spaces.mixed(PARAMETERS), metric="loss", mode="min", seed=0, **options)
    result = SearchResult(None, ProblemType.MIN, 1)
    times: list[float] = []
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        journal = Journal.create(Path(folder), {})
        while len(times) < count:
            candidates = searcher.ask(min(BATCH, count - len(times)))
            journal.write({"t": "ask", "id": c.id, "row": c.row, "config": c.config} for c in candidates)
            journal.sync()
            for c in candidates:
                outcome = searchers.Outcome("ok", (value(c.config),))
                journal.write([{"t": "outcome", "id": c.id, "outcome": outcome.to_dict()}])
                searcher.tell(c.id, outcome)
                score = Score(score=outcome.values[0], params=c.config, param_id=int(c.id), num_objectives=1)
                result.add_result(score, int(c.id) // BATCH, False)
                times.append(time.time())
        journal.close()
    return times


def _native(name: str, count: int) -> list[float]:
    from benchmarks.throughput import native

    return native(value, spaces.mixed(PARAMETERS), count, name)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
