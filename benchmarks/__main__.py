"""Run the benchmarks: ``python -m benchmarks [--only NAME] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

from benchmarks._report import ROOT, Claim, Result, table

NAMES = (
    "throughput",
    "ray_throughput",
    "ray_scale",
    "tune_overhead",
    "mlflow_overhead",
    "genetic_cost",
    "suggestion_cost",
    "startup",
    "scale",
    "race",
    "compile_farm",
    "large_spaces",
    "quality",
)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for and print it; results go to ``benchmarks/results`` unless the run is quick.

    Returns:
        0 if all claims hold, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What ciq-ray costs, next to something you know."
    )
    parser.add_argument("--only", action="append", choices=NAMES, help="run this one; may be given again")
    parser.add_argument(
        "--quick", action="store_true", help="about a minute in all, to see that they run; writes nothing"
    )
    parser.add_argument("--plot", action="store_true", help="draw the results there are, and run nothing")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    if options.plot:
        from benchmarks.plots import draw

        print(f"written to {draw().relative_to(ROOT)}")
        return 0
    claims: list[Claim] = []
    for name in options.only or NAMES:
        load, started = os.getloadavg(), time.monotonic()
        print(f"== {name} (load {load[0]:.1f})", flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        result: Result = module.run(options.quick)
        print(table(result.header, result.rows))
        for claim in result.claims:
            print(f"  {claim}")
        written = "" if options.quick else f", written to {result.save(load).relative_to(ROOT)}"
        print(f"  {time.monotonic() - started:.0f} s{written}\n", flush=True)
        claims += result.claims
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
