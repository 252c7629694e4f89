"""Tune the blocking of a matrix product under Ray Tune, with one of our searchers.

The product of two matrices is computed in numpy, block by block; how large the blocks are best, and in
which precision, is for the search to find. Ray Tune runs the trials, in processes it keeps
(`reuse_actors`). A trial that goes wrong says so in its result, because one that raises costs Ray Tune a
new process. Each result is written to a journal at once, so that an experiment whose driver was killed
goes on without losing one:

    python examples/tune_run.py --trials 40 --searcher genetic
    python examples/tune_run.py --restore tune_results/blocking
"""

import argparse
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

# each trial's files are only worth their time where somebody reads them; Ray Tune reads this at its import
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import numpy as np
import ray
from ray import tune

import searchers

N = 512
TOLERANCE = 1e-4  # half precision does not keep it
SPACE = searchers.Space(
    {
        "rows": searchers.PowerOfTwo(8, N),
        "columns": searchers.PowerOfTwo(8, N),
        "depth": searchers.PowerOfTwo(8, N),
        "type": searchers.Choice(["float64", "float32", "float16"]),
        "copy": searchers.Boolean(),
    },
    constraints=["rows * columns * depth >= 2**18"],  # smaller blocks only measure Python's loop
    default={"rows": 64, "columns": 64, "depth": 64, "type": "float64", "copy": False},
)


def product(config: dict[str, Any], a: Any, b: Any) -> Any:
    """The product of two matrices, block by block."""
    rows, columns, depth = config["rows"], config["columns"], config["depth"]
    c = np.zeros((N, N), dtype=a.dtype)
    for k in range(0, N, depth):
        for j in range(0, N, columns):
            right = b[k : k + depth, j : j + columns]
            right = np.ascontiguousarray(right) if config["copy"] else right
            for i in range(0, N, rows):
                c[i : i + rows, j : j + columns] += a[i : i + rows, k : k + depth] @ right
    return c


def trial(config: dict[str, Any]) -> None:
    """What Ray Tune runs: it reports milliseconds, or what went wrong."""
    generator = np.random.default_rng(0)
    a, b = generator.random((N, N)), generator.random((N, N))
    narrow_a, narrow_b = a.astype(config["type"]), b.astype(config["type"])
    error = np.abs(product(config, narrow_a, narrow_b) / (a @ b) - 1).max()
    if error > TOLERANCE:
        # Ray Tune insists on a value for the metric
        tune.report({"ms": math.nan, "ciq_status": "wrong", "ciq_message": f"off by {error:.1e}"})
        return
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(config, narrow_a, narrow_b)
        times.append(time.perf_counter() - start)
    tune.report({"ms": min(times) * 1e3})


def begin(name: str, trials: int, seed: int, folder: Path) -> tune.Tuner:
    """A new experiment."""
    searcher = searchers.create(
        name,
        SPACE,
        metric="ms",  # with a space of its own a searcher hears nothing of `TuneConfig`'s metric
        mode="min",
        seed=seed,
        points_to_evaluate=[SPACE.default],
    )
    folder.mkdir(parents=True, exist_ok=True)
    searcher.keep_journal(folder / "results.jsonl")
    return tune.Tuner(
        trial,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=trials,  # -1: until the searcher has no more
            max_concurrent_trials=1,  # more would disturb each other's times
            reuse_actors=True,  # else each trial waits seconds for a new process
        ),
        run_config=tune.RunConfig(name="blocking", storage_path=str(folder), verbose=0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40, help="how many configurations (default: 40)")
    parser.add_argument("--searcher", default="auto", help="one of searchers.registry.NAMES (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    parser.add_argument("--folder", type=Path, default=Path("tune_results"), help="where results go")
    parser.add_argument("--restore", type=Path, help="go on with the experiment in this folder")
    arguments = parser.parse_args()

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    # without its loggers Ray Tune complains about each trial that it has no file of its results
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)
    folder = arguments.folder.absolute()
    if arguments.restore:
        folder = arguments.restore.absolute().parent
        tuner = tune.Tuner.restore(str(arguments.restore.absolute()), trainable=trial)
    else:
        tuner = begin(arguments.searcher, arguments.trials, arguments.seed, folder)
    results = tuner.fit()

    # after a restart the journal knows more than Ray Tune, which forgets what came since its last snapshot
    lines = (folder / "results.jsonl").read_text().splitlines()[1:]
    tried = {tuple(line["config"].items()): line["outcome"] for line in map(json.loads, lines)}
    times = {config: outcome["values"][0] for config, outcome in tried.items() if outcome["status"] == "ok"}
    best = min(times, key=times.__getitem__)
    print(f"{len(results)} trials, {len(tried)} of {SPACE.size} configurations tried, ", end="")
    print(f"{len(tried) - len(times)} of them failed; the best one:")
    for name, value in best:
        print(f"  {name:<8} {value}")
    print(f"default  {times[tuple(SPACE.default.items())]:7.2f} ms")
    print(f"best     {times[best]:7.2f} ms")


if __name__ == "__main__":
    main()
