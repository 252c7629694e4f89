"""A search in MLflow: one run for the search, one for each evaluation, and what the objective logs itself.

What is tuned is the way a table of numbers is sorted with numpy: the algorithm, and into how many blocks the
table is cut.

    python examples/mlflow_tracking.py --uri sqlite:///mlflow.db
    mlflow ui --backend-store-uri sqlite:///mlflow.db
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration
from ciq_ray.types import MLflowTrackerConfig
from searchers import Choice, PowerOfTwo, Space

COUNT = 1 << 18

SPACE = Space(
    {"kind": Choice(["quicksort", "heapsort", "stable"]), "blocks": PowerOfTwo(1, 256)},
    default={"kind": "quicksort", "blocks": 1},
)


@functools.cache
def numbers() -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(1 << 30, size=COUNT)


def sort_ms(config: dict[str, Any]) -> float:
    """The objective: milliseconds to sort the blocks, the best of three."""
    import mlflow
    import numpy as np

    table = numbers().reshape(config["blocks"], -1)
    times = []
    for step in range(3):
        start = time.perf_counter()
        found = np.sort(table, axis=1, kind=config["kind"])
        times.append((time.perf_counter() - start) * 1e3)
        mlflow.log_metric("each_ms", times[-1], step=step)  # into the run of this evaluation
    if (np.diff(found, axis=1) < 0).any():
        raise ObjectiveFailure("wrong", "the blocks are not sorted")
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uri", default="sqlite:///mlflow.db", help="MLflow's server or database")
    parser.add_argument("--workers", type=int, default=1, help="evaluations at once (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    result = Search(
        objective_function=sort_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=2, pool_size=8),
        tracker_config=MLflowTrackerConfig(
            tracking_uri=arguments.uri,
            experiment_name="sorting",
            description=f"Sorting {COUNT} numbers, see `{Path(__file__).name}`.",
            score_names=["time_ms"],
        ),
        seed=arguments.seed,
    ).start(num_workers=arguments.workers, task_timeout=60)

    best = result.get_best_result()
    print(f"best: {best['score']:.2f} ms with {best['params']}")
    print(f"look at it: mlflow ui --backend-store-uri {arguments.uri}")


if __name__ == "__main__":
    main()
