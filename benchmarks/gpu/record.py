"""Time every configuration of a kernel, one of the examples or of `unseen_kernels`, and write a landscape.

The form of the file is that of ``docs/replay.md``, the order of its rows that of the space. They are timed in
a random order, so that a card that gets warmer is no part of what a parameter does. What is not known after
``--seconds`` is left out, which is said, and the exit status is 1.

    python -m benchmarks.gpu.record --kernel ptx --output benchmarks/landscapes/ptx_spectrum.csv
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu._common import (
    KERNELS,
    candidates,
    kernel_of,
    options,
    outcomes,
    run_folder,
    search,
    the_device,
)
from benchmarks.gpu.unseen_kernels import KERNELS as UNSEEN
from ciq_ray._files import write_atomic
from ciq_ray.landscape import MEASURED
from searchers.outcome import FAILURES, OK

PARTS = {"ptx": ("ptx_spill_runtime", "RECORDED")}
"""Example and variable of each kernel whose space is a part of one that is too large."""

Row = tuple[int, ...]


def configs_of(space: Any) -> dict[Row, Any]:
    """All configurations of a space, in its order."""
    if space.rows is None:
        raise SystemExit("the space is too large to be enumerated, and so to be timed as a whole")
    return {tuple(row.tolist()): space.decode(row) for row in space.rows}


def record(
    kernel: Any, arguments: argparse.Namespace, configs: Mapping[Row, Any]
) -> dict[Row, Mapping[str, Any]]:
    """The outcomes of these configurations, by their rows; those not known are left out."""
    order = np.random.default_rng(0).permutation(len(configs))
    everything = list(configs.values())
    made, _, _, _ = search(
        kernel,
        arguments,
        searcher="finite",
        searcher_options={"configs": [everything[place] for place in order]},
        seed=0,
        max_evaluations=len(configs),
        remeasure_every=0,
        time_budget_s=arguments.seconds,
        exit_on_failure=False,
        final_race=False,
    )
    asked = candidates(run_folder(made))
    return {
        tuple(kernel.space.encode(asked[one["id"]]).tolist()): one["outcome"]
        for one in outcomes(run_folder(made))
        if one["outcome"]["status"] in (OK, *FAILURES)
    }


def cells(outcome: Mapping[str, Any]) -> list[str]:
    """The columns that are no parameters."""
    compile_s = outcome.get("compile_s")
    seconds = "" if compile_s is None else f"{compile_s:.3f}"
    if outcome["status"] != OK:
        return [outcome["status"], "", "", seconds]
    [spread] = outcome.get("spread") or [None]
    return [OK, f"{outcome['values'][0]:.6f}", "" if spread is None else f"{spread:.6f}", seconds]


def written(path: Path, configs: Mapping[Row, Any], found: Mapping[Row, Mapping[str, Any]]) -> None:
    """Write the landscape, as a whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(next(iter(configs.values())))
    writer.writerow([*names, *MEASURED])
    writer.writerows(
        [*(config[name] for name in names), *cells(found[row])]
        for row, config in configs.items()
        if row in found
    )
    write_atomic(path, [text.getvalue().encode()])


def summary(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The range of the times; how many failed in which way, and what the first of each said."""
    failed: dict[str, list[Mapping[str, Any]]] = {}
    times = []
    for outcome in found:
        if outcome["status"] == OK:
            times.append(outcome["values"][0])
        else:
            failed.setdefault(outcome["status"], []).append(outcome)
    lines = ["0 ok"]
    if times:
        middle = statistics.median(times)
        lines = [f"{len(times)} ok, {min(times):.4f} to {max(times):.4f} ms, median {middle:.4f}"]
    for status, those in failed.items():
        message = (those[0].get("message") or "").strip().splitlines() or [""]
        lines.append(f"{len(those)} {status}: {message[0]}")
    return lines


def main() -> int:
    names = sorted([*KERNELS, *PARTS, *UNSEEN])
    parser = options(__doc__, output="the landscape, a CSV file")
    parser.add_argument("--kernel", required=True, choices=names)
    parser.add_argument("--seconds", type=float, help="for all of it (default: any)")
    arguments = parser.parse_args()
    if not arguments.output.parent.is_dir():
        parser.error(f"{arguments.output.parent} is no folder")  # said now, and not after all is timed
    if arguments.kernel in UNSEEN:
        kernel = UNSEEN[arguments.kernel]
    else:
        kernel = kernel_of(*PARTS.get(arguments.kernel, (arguments.kernel,)))
    device, configs = the_device(arguments), configs_of(kernel.space)
    print(f"{len(configs)} configurations on {device.name}, driver {device.driver}", flush=True)
    begun = time.monotonic()
    found = record(kernel, arguments, configs)
    if not found:
        print("nothing was timed; no file is written", file=sys.stderr)
        return 1
    written(arguments.output, configs, found)
    print(f"{arguments.output}, after {time.monotonic() - begun:.0f} s", *summary(found.values()), sep="\n")
    left = len(configs) - len(found)
    if left:
        print(f"{left} of {len(configs)} are not known, and not in the file", file=sys.stderr)
    return int(left > 0)


if __name__ == "__main__":
    raise SystemExit(main())
