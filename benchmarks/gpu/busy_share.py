"""How busy the GPU and the compile workers are in a search, from its journal.

The first seconds, in which everything starts, are left out, as is the race. With ``--run`` an existing run's
journal is read instead of searching.

    python -m benchmarks.gpu.busy_share --output benchmarks/gpu/results --seconds 75
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.gpu._common import Window, busy, finish, kernel_of, options, outcomes, run_folder, search


def shares(folder: Path, begun: float, workers: int, skip_s: float, slice_s: float = 10.0) -> dict[str, Any]:
    """Busy shares of a run.

    Args:
        folder: The run's folder.
        begun: When it began, in seconds since 1970.
        workers: How many compile workers it had.
        skip_s: Seconds at its start that do not count.
        slice_s: Length of the parts that are shown besides the whole.
    """
    metrics = [record["outcome"] for record in outcomes(folder)]
    devices: dict[str, list[Any]] = {}
    compiling = []
    for outcome in metrics:
        found = outcome["metrics"]
        if found.get("gpu_at"):
            devices.setdefault((found.get("gpu") or {}).get("uuid", ""), []).append(found["gpu_at"])
        if found.get("compile_at"):
            begin, end = found["compile_at"]
            # what the compiler itself took: a result may have waited to be fetched
            seconds = outcome.get("compile_s")
            compiling.append([begin, end if seconds is None else min(end, begin + seconds)])
    spans = [span for each in devices.values() for span in each]
    last = max((end for _, end in [*spans, *compiling]), default=begun)
    window = Window(begun + skip_s, last)

    def within(part: Window) -> dict[str, float]:
        gpu = sum(busy(each, part) for each in devices.values()) / max(1, len(devices)) / part.seconds
        compile_s = sum(part.overlap(begin, end) for begin, end in compiling)
        return {"gpu": gpu, "compile": compile_s / workers / part.seconds}

    parts = []
    at = window.begin
    while at + slice_s <= window.end:
        parts.append({"from_s": at - begun, **within(Window(at, at + slice_s))})
        at += slice_s
    return {
        "seconds": window.seconds,
        "timed": sum(window.overlap(begin, end) > 0 for begin, end in spans),
        "compiled": sum(window.overlap(begin, end) > 0 for begin, end in compiling),
        "whole": within(window) if window.seconds > 0 else {"gpu": 0.0, "compile": 0.0},
        "parts": parts,
    }


def main() -> int:
    parser = options(__doc__, kernels="convolution")
    parser.add_argument("--seconds", type=float, default=75, help="for each search (default: 75)")
    parser.add_argument("--skip", type=float, default=10, help="seconds that do not count (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--searcher", default="auto", help="who proposes (default: auto)")
    parser.add_argument("--run", type=Path, help="read the journal of this run, and search nothing")
    arguments: argparse.Namespace = parser.parse_args()
    found = {}
    for name in arguments.kernels.split(","):
        if arguments.run is not None:
            from datetime import datetime

            from ciq_ray.journal import read_header

            folder = arguments.run
            begun = datetime.fromisoformat(str(read_header(folder)["created"])).timestamp()
        else:
            made, _, begun, _ = search(
                kernel_of(name),
                arguments,
                seed=arguments.seed,
                searcher=arguments.searcher,
                max_evaluations=100_000,
                time_budget_s=arguments.seconds,
                final_race=False,
            )
            folder = run_folder(made)
        found[name] = shares(folder, begun, arguments.workers, arguments.skip)
    rows = []
    for name, one in found.items():
        for part in [*one["parts"], {"from_s": None, **one["whole"]}]:
            start = part["from_s"]
            when = f"all {one['seconds']:.0f} s" if start is None else f"{start:.0f} to {start + 10:.0f} s"
            bottleneck = max(part["gpu"], part["compile"])
            rows.append([name, when, f"{part['gpu']:.1%}", f"{part['compile']:.1%}", f"{bottleneck:.1%}"])
        rows.append([name, "evaluated", f"{one['timed']} timed", f"{one['compiled']} compiled", ""])
    finish("busy_share", arguments, ["kernel", "when", "GPU busy", "workers busy", "bottleneck"], rows, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
