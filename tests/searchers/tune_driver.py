"""A driver of Ray Tune that a test kills: ``tune_driver.py FOLDER begin|restore own|domains TRIALS``.

Writes a line to ``FOLDER/evaluated`` for each evaluation that begins, and ``FOLDER/end.json`` at the end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from searchers import Range, Space, create

FOLDER = Path(sys.argv[1])


def slow(config: dict[str, Any]) -> None:
    with (FOLDER / "evaluated").open("a") as file:
        file.write(f"{config['x']},{config['y']}\n")
    time.sleep(0.1)
    tune.report({"time": float(abs(config["x"] - 50) + config["y"])})


def begin(kind: str, trials: int) -> tune.Tuner:
    if kind == "own":
        space = Space({"x": Range(0, 99), "y": Range(0, 99)}, [lambda c: (c["x"] + c["y"]) % 2 == 0])
        searcher = create("genetic", space, metric="time", mode="min", seed=0)
        options: dict[str, Any] = {}
    else:
        searcher = create("genetic", seed=0)
        options = {"metric": "time", "mode": "min"}
    searcher.keep_journal(FOLDER / "results.jsonl")
    return tune.Tuner(
        slow,
        param_space=None if kind == "own" else {"x": tune.randint(0, 100), "y": tune.randint(0, 100)},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=trials,
            max_concurrent_trials=2,
            reuse_actors=True,
            **options,
        ),
        run_config=tune.RunConfig(storage_path=str(FOLDER), name="run", verbose=0),
    )


def main() -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    if sys.argv[2] == "begin":
        tuner = begin(sys.argv[3], int(sys.argv[4]))
    else:
        tuner = tune.Tuner.restore(str(FOLDER / "run"), trainable=slow)
    results = tuner.fit()
    (FOLDER / "end.json").write_text(
        json.dumps([[result.config, (result.metrics or {}).get("time")] for result in results])
    )


if __name__ == "__main__":
    main()
