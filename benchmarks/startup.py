"""Seconds from the start of a process to the first evaluation, against importing Ray Tune's base class.

A search needs `ray.tune.search.Searcher`, whose import is the yardstick. Everything else (the space,
the worker processes, the journal) has to hide behind it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._report import ROOT, Claim, Result, medians, rotated

__all__ = ["run"]

ROUNDS, QUICK_ROUNDS = 11, 2
CLAIM = 1.3

PEER, OURS = "import of ray.tune.search.Searcher", "first NATIVE evaluation"
WHOLE, LIGHT = "whole search of 8, process included", "import ciq_ray"


def run(quick: bool) -> Result:
    """Measure in fresh processes, in turn."""
    rounds = []
    for number in range((QUICK_ROUNDS if quick else ROUNDS) + 1):
        measured: dict[str, float] = {}
        for side in rotated((PEER, OURS, LIGHT), number):
            if side == OURS:
                measured.update(_search())
            else:
                code = "import ciq_ray" if side == LIGHT else "from ray.tune.search import Searcher"
                measured[side] = _seconds([sys.executable, "-c", code])
        if number:  # the first round only fills caches
            rounds.append(measured)
    seconds = medians(rounds)
    ratios = {name: statistics.median(r[name] / r[PEER] for r in rounds) for name in seconds}
    table = [[name, f"{seconds[name]:.2f}", f"{ratios[name]:.2f}"] for name in (PEER, OURS, WHOLE, LIGHT)]
    claim = Claim(f"{OURS}: time relative to {PEER}", ratios[OURS], CLAIM, at_least=False)
    return Result(
        "startup", ["from the start of a process", "seconds", "ratio"], table, [claim], {"rounds": rounds}
    )


def _seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(
        command, check=True, cwd=ROOT, env={**os.environ, **(environment or {})}, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def _search() -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        seen = Path(folder) / "first"
        started = time.time()
        command = [sys.executable, "-m", "benchmarks.first_evaluation", str(seen)]
        whole = _seconds(command, {"CIQ_RUNS_DIR": folder})
        return {OURS: float(seen.read_text(encoding="utf-8")) - started, WHOLE: whole}
