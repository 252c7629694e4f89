"""Seconds from `start` to a configuration within 2% of the recorded optimum, compiling included.

For each kernel and seed: `auto`, the best so far over wall time; when it first was within 2% of the optimum
that was found by exhaustion (`benchmarks/landscapes`); how long the final race took, which is apart from
that; and the winner against the recorded optimum in a race of their own, in one batch. That race also says
what the recorded optimum takes with this kernel, which is not always the one that was recorded: "within 2%
of it here" counts from that time.

    python -m benchmarks.gpu.time_to_optimum --output benchmarks/gpu/results
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any

from benchmarks.gpu._common import KERNELS, finish, kernel_of, optimum, options, outcomes, run_folder, search

WITHIN = 1.02


def progress(folder: Path, begun: float) -> list[tuple[float, float, int]]:
    """Seconds after the start, best so far in ms and evaluations until then, at each new best."""
    found: list[tuple[float, float, int]] = []
    best = float("inf")
    for number, record in enumerate(outcomes(folder), start=1):
        outcome = record["outcome"]
        if outcome["status"] == "ok" and outcome["values"][0] < best:
            best = outcome["values"][0]
            measured = outcome["metrics"].get("gpu_at") or [record["at"], record["at"]]
            found.append((max(measured[1], begun) - begun, best, number))
    return found


def first_within(history: list[tuple[float, float, int]], ms: float) -> tuple[float | None, int | None]:
    """Seconds and evaluations until the best so far was within 2% of a time."""
    for at, best, count in history:
        if best <= ms * WITHIN:
            return at, count
    return None, None


def here(found: list[dict[str, Any]], name: str) -> float:
    """What a kernel's recorded optimum takes with the kernel that is searched, in ms, by their races."""
    times = [
        one["best_ms"] / one["against_optimum"]["ratio"]
        for one in found
        if one["kernel"] == name and one["best_ms"] is not None
    ]
    return statistics.median(times) if times else float("nan")


def seconds(value: float | None) -> str:
    """Seconds in a table."""
    return "never" if value is None else f"{value:.1f}"


def against_the_optimum(
    kernel: Any, arguments: argparse.Namespace, config: Any, recorded: Any
) -> dict[str, Any]:
    """The ratio of a configuration's time to that of the recorded optimum, raced together."""
    if config == recorded:
        return {"ratio": 1.0, "words": "it is the recorded optimum"}
    from ciq_ray.race import Plan

    kernel = copy.copy(kernel)
    kernel.has_library = False  # it is asked who of these two is faster, and nothing else
    _, result, _, _ = search(
        kernel,
        arguments,
        searcher="finite",
        searcher_options={"configs": [recorded, config]},
        initial_configs=[recorded],
        max_evaluations=2,
        seed=0,
        final_race=Plan(finalists=1, pick_blocks=1, verdict_blocks=arguments.blocks),
    )
    if result.race is None:
        return {"ratio": float("nan"), "words": "the race was not run"}
    verdict = result.race.verdict
    return {"ratio": verdict.ratio, "low": verdict.low, "high": verdict.high, "words": verdict.words}


def one(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One search, its race, and the race against the recorded optimum."""
    kernel, (recorded, recorded_ms) = kernel_of(name), optimum(name)
    made, result, begun, ended = search(
        kernel,
        arguments,
        seed=seed,
        max_evaluations=arguments.max_evaluations,
        time_budget_s=arguments.seconds,
        final_race=not arguments.no_race,
    )
    folder = run_folder(made)
    records = outcomes(folder)
    history = progress(folder, begun)
    last = max((record["at"] for record in records), default=begun)
    reached_s, reached_evaluations = first_within(history, recorded_ms)
    control = list(dict.fromkeys(r["outcome"]["metrics"].get("control_ms") for r in records))
    control = [value for value in control if value is not None]
    winner = result.race.winner.config if result.race is not None else result.get_best_result()["params"]
    return {
        "kernel": name,
        "seed": seed,
        "recorded_ms": recorded_ms,
        "recorded": recorded,
        "first_result_s": min((r["at"] for r in records), default=ended) - begun,
        "reached_s": reached_s,
        "reached_evaluations": reached_evaluations,
        "best_ms": history[-1][1] if history else None,
        "evaluations": len(records),
        "search_s": last - begun,
        "after_search_s": ended - last,
        "control_ms": control,
        "statuses": {
            s: sum(r["outcome"]["status"] == s for r in records)
            for s in {r["outcome"]["status"] for r in records}
        },
        "winner": winner,
        "verdict": None if result.race is None else result.race.verdict.words,
        "against_optimum": against_the_optimum(kernel, arguments, winner, recorded),
        "history": history,
    }


def main() -> int:
    parser = options(__doc__, kernels=",".join(KERNELS))
    parser.add_argument("--seeds", type=int, default=3, help="searches of each kernel (default: 3)")
    parser.add_argument("--max-evaluations", type=int, default=300, help="of each search (default: 300)")
    parser.add_argument("--seconds", type=float, help="for each search, its race not counted (default: any)")
    parser.add_argument("--blocks", type=int, default=10, help="of the last race's verdict (default: 10)")
    parser.add_argument("--no-race", action="store_true", help="leave the search's own final race out")
    arguments = parser.parse_args()
    found = []
    for name in arguments.kernels.split(","):
        for seed in range(arguments.seeds):
            found.append(one(name, seed, arguments))
            print({k: v for k, v in found[-1].items() if k not in ("history", "control_ms")}, flush=True)
    header = [
        "kernel",
        "seed",
        "first result s",
        "within 2% s",
        "within 2% of it here s",
        "evaluations",
        "best ms",
        "recorded ms",
        "of",
    ]
    header += ["search s", "after it s", "winner / optimum", "control's spread"]
    rows = [
        [
            one["kernel"],
            str(one["seed"]),
            f"{one['first_result_s']:.1f}",
            seconds(one["reached_s"]),
            seconds(first_within(one["history"], here(found, one["kernel"]))[0]),
            str(one["reached_evaluations"] or "-"),
            "-" if one["best_ms"] is None else f"{one['best_ms']:.4f}",
            f"{one['recorded_ms']:.4f}",
            str(one["evaluations"]),
            f"{one['search_s']:.1f}",
            f"{one['after_search_s']:.1f}",
            f"{one['against_optimum']['ratio']:.4f}",
            f"{statistics.pstdev(c) / statistics.mean(c):.2%}" if len(c := one["control_ms"]) > 1 else "-",
        ]
        for one in found
    ]
    finish("time_to_optimum", arguments, header, rows, {"searches": found, "within": WITHIN})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
