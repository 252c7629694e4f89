"""A search in a space of configurations that hang, corrupt memory, give wrong answers and do not compile.

Each must end in the right status, and none may touch a neighbour's time: the times of those that behave are
compared with a search of nothing else, and that one with a second of its kind, which is the noise.

    python -m benchmarks.gpu.hostile --output benchmarks/gpu/results
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu._common import candidates, finish, options, outcomes, run_folder, search
from benchmarks.gpu.hostile_kernel import CLEAN, CLEAN_KERNEL, EXPECTED, KERNEL, NAMES


def times(folder: Path) -> dict[str, float]:
    """Milliseconds of those that behave, by configuration."""
    configs = candidates(folder)
    found = {}
    for record in outcomes(folder):
        config, outcome = configs[record["id"]], record["outcome"]
        if config["BEHAVIOUR"] == CLEAN and outcome["status"] == "ok":
            found[json.dumps(config, sort_keys=True)] = outcome["values"][0]
    return found


def compared(one: dict[str, float], other: dict[str, float]) -> dict[str, Any]:
    """Ratios of the times of configurations that are in both."""
    ratios = {name: one[name] / other[name] for name in one.keys() & other.keys()}
    values = list(ratios.values()) or [float("nan")]
    return {
        "configurations": len(ratios),
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "ratios": ratios,
    }


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--evaluations", type=int, default=200, help="of the hostile search (default: 200)")
    parser.add_argument("--limit", type=float, default=3, help="seconds a candidate may run (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    arguments: argparse.Namespace = parser.parse_args()

    def folder_of(kernel: Any, evaluations: int) -> tuple[Path, float]:
        made, _, begun, ended = search(
            kernel,
            arguments,
            searcher="random",
            searcher_options={"count": evaluations},
            seed=arguments.seed,
            max_evaluations=evaluations,
            task_timeout=arguments.limit,
            exit_on_failure=False,
            final_race=False,
        )
        return run_folder(made), ended - begun

    everything = int(CLEAN_KERNEL.space.size or 0)
    clean, clean_s = folder_of(CLEAN_KERNEL, everything)
    hostile, hostile_s = folder_of(KERNEL, arguments.evaluations)
    again, _ = folder_of(CLEAN_KERNEL, everything)

    configs = candidates(hostile)
    counts: Counter[tuple[int, str]] = Counter()
    misjudged = []
    for record in outcomes(hostile):
        config, outcome = configs[record["id"]], record["outcome"]
        counts[config["BEHAVIOUR"], outcome["status"]] += 1
        if outcome["status"] != EXPECTED[config["BEHAVIOUR"]]:
            misjudged.append(
                {"config": config, "status": outcome["status"], "message": outcome["message"][:500]}
            )
    effect = compared(times(hostile), times(clean))
    noise = compared(times(again), times(clean))
    rows = [
        [
            NAMES[behaviour],
            EXPECTED[behaviour],
            str(count),
            "right" if status == EXPECTED[behaviour] else status,
        ]
        for (behaviour, status), count in sorted(counts.items())
    ]
    rows.append(["in all", "", str(sum(counts.values())), f"{len(misjudged)} misjudged"])
    for name, found in (("hostile / clean", effect), ("clean again / clean", noise)):
        text = f"{found['median']:.4f} ({found['low']:.3f} to {found['high']:.3f})"
        rows.append([name, "ratio of times", str(found["configurations"]), text])
    rows.append(["seconds", "", f"{hostile_s:.0f}", f"clean: {clean_s:.0f}"])
    raw = {
        "misjudged": misjudged,
        "effect": effect,
        "noise": noise,
        "hostile_s": hostile_s,
        "clean_s": clean_s,
    }
    finish("hostile", arguments, ["what it does", "expected", "candidates", "came out"], rows, raw)
    return 1 if misjudged else 0


if __name__ == "__main__":
    raise SystemExit(main())
