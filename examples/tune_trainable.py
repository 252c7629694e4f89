"""A program that crashes and hangs, tuned under Ray Tune with `ciq_ray.tune`.

The objective stands for a kernel that is compiled, loaded and timed: some configurations do not compile, one
in a while ends its process, one never comes back. Each of these is a result. Evaluations take milliseconds,
so several go into one trial. Stop it with Ctrl-C, or kill it; the same command goes on:

    python examples/tune_trainable.py --evaluations 200 --name demo
"""

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

import searchers
from ciq_ray import ObjectiveFailure, tune

SPACE = searchers.Space(
    {
        "tile": searchers.PowerOfTwo(8, 256),
        "unroll": searchers.Range(1, 16),
        "stages": searchers.Range(1, 8),
        "order": searchers.Choice(["row", "column"]),
    },
    constraints=["tile * stages <= 1024"],
    default={"tile": 32, "unroll": 1, "stages": 2, "order": "row"},
)


def kernel(config: dict[str, Any]) -> float:
    """Milliseconds, if it comes to that."""
    registers = config["unroll"] * config["stages"] * 4
    if registers > 255:
        raise ObjectiveFailure("compile_error", f"{registers} registers are needed; there are 255")
    if config["stages"] == 7 and config["unroll"] % 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if config["stages"] == 5 and config["unroll"] == 5:
        time.sleep(3600)
    time.sleep(0.002)
    return (
        0.5
        + abs(config["tile"] - 64) / 64
        + abs(config["unroll"] - 8) / 10
        + abs(config["stages"] - 3) / 5
        + 0.3 * (config["order"] == "row")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=200, help="how many configurations (default: 200)")
    parser.add_argument("--searcher", default="auto", help="one of searchers.registry.NAMES (default: auto)")
    parser.add_argument("--folder", type=Path, default=Path("tune_results"), help="where results go")
    parser.add_argument("--name", default="kernel", help="of the experiment; the same name again goes on")
    arguments = parser.parse_args()

    grid = tune.run(
        kernel,
        SPACE,
        num_samples=arguments.evaluations,
        searcher=arguments.searcher,
        metric="ms",
        mode="min",
        seed=0,
        task_timeout=1,
        storage_path=arguments.folder,
        name=arguments.name,
    )

    result = tune.to_search_result(grid, metric="ms", mode="min")
    table = result.get_results()
    print(f"{len(result)} configurations in {len(grid)} trials:")
    for status, count in table["status"].value_counts().items():
        print(f"  {count:4d} {status}")
    best = result.get_best_result()
    print(f"best: {best['score']:.2f} ms with {best['params']}")


if __name__ == "__main__":
    main()
