"""Find the fastest way to sum the rows of a matrix, on all machines of a Ray cluster.

    python examples/ray_worker.py [--workers 2] [--gpus 0] [--generations 3] [--seed 0]

On one machine nothing needs to be set up: a Ray is started for the search and stopped after it. On a cluster
the same script runs unchanged: set RAY_ADDRESS to that of the head node (`ray start --head` prints it), or
send it there with `ray job submit`. `--gpus 1` then gives each evaluation a GPU of its own.

The script shows what is special about a cluster. `inputs` is made once in each worker process, not sent
with each candidate. `task_timeout` holds on every node. Machines differ, so each actor measures
the default configuration too, and candidates are compared by their ratio to it (`normalize`). And the journal
says where each evaluation ran.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections import Counter
from typing import Any

import searchers
from ciq_ray import Search, SearchConfiguration, WorkerTypes
from ciq_ray.journal import read_records

ROWS, COLUMNS = 4096, 512
SPACE = searchers.Space(
    {
        "rows": searchers.PowerOfTwo(8, 4096),
        "method": searchers.Choice(["sum", "dot", "einsum"]),
        "order": searchers.Choice(["C", "F"]),
    },
    default={"rows": 4096, "method": "sum", "order": "C"},
)


@functools.cache
def inputs(order: str) -> Any:
    """The matrix; each worker process makes its own."""
    import numpy as np

    return np.asarray(np.random.default_rng(0).random((ROWS, COLUMNS)), order=order)


def row_sums_ms(config: dict[str, Any]) -> float:
    """The objective: milliseconds for the sums of all rows, a block of rows at a time; the best of three."""
    import numpy as np

    matrix = inputs(config["order"])
    ones = np.ones(COLUMNS)
    sums = {
        "sum": lambda block: block.sum(axis=1),
        "dot": lambda block: block @ ones,
        "einsum": lambda block: np.einsum("ij->i", block),
    }[config["method"]]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for i in range(0, ROWS, config["rows"]):
            sums(matrix[i : i + config["rows"]])
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="evaluations at a time (default: 2)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each evaluation (default: 0)")
    parser.add_argument("--generations", type=int, default=3, help="generations of 16 (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    result = Search(
        objective_function=row_sums_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=arguments.generations, pool_size=16, normalize=True),
        worker_type=WorkerTypes.RAY,
        seed=arguments.seed,
    ).start(num_workers=arguments.workers, num_gpus=arguments.gpus, task_timeout=30)

    table = result.get_results()
    best = result.get_best_result()
    print(
        f"{len(table)} of {SPACE.size} configurations tried; the best takes {best['norm_score']:.2f} of the"
    )
    print(f"default's time: {best['params']}\n")
    outcomes = [record for record in read_records(result.folder) if record["t"] == "outcome"]
    places = Counter((r["place"]["node"][:8], r["place"].get("gpu", "-"), r["worker"]) for r in outcomes)
    print("node      gpu  actor  evaluations")
    for (node, gpu, actor), count in sorted(places.items()):
        print(f"{node}  {gpu:>3}  {actor:5}  {count:11}")


if __name__ == "__main__":
    main()
