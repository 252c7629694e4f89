"""Find the blocking that makes a matrix transposition in numpy fastest.

Written in one go, the transposition of a large matrix walks through memory with a stride that misses the
cache at every element. Block by block it does not. The search decides on the shape of a block, the order
in which blocks are visited, and how many elements pad each row of the output (a row of exactly 2048
numbers maps to the same few cache sets). The default configuration is the transposition in one go.

    python examples/single_objective.py --generations 4
"""

import argparse
import functools
import time
from typing import Any

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration
from searchers import Choice, PowerOfTwo, Space

N = 2048
REPEATS = 2

SPACE = Space(
    {
        "rows": PowerOfTwo(4, N),
        "columns": PowerOfTwo(4, N),
        "order": Choice(["by_rows", "by_columns"]),
        "padding": Choice([0, 8, 64]),
    },
    constraints=["rows * columns >= 2048"],  # smaller blocks only measure Python's loop
    default={"rows": N, "columns": N, "order": "by_rows", "padding": 0},
)


@functools.cache
def matrix() -> Any:
    """What is transposed; made once in each process."""
    import numpy as np

    return np.arange(N * N, dtype=np.float64).reshape(N, N)


def transposition_ms(config: dict[str, Any]) -> float:
    """The objective: milliseconds for one transposition, the best of a few."""
    import numpy as np

    source = matrix()
    target = np.zeros((N, N + config["padding"]))[:, :N]
    corners = [(i, j) for i in range(0, N, config["rows"]) for j in range(0, N, config["columns"])]
    if config["order"] == "by_columns":
        corners.sort(key=lambda corner: (corner[1], corner[0]))
    height, width = config["rows"], config["columns"]

    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for i, j in corners:
            target[j : j + width, i : i + height] = source[i : i + height, j : j + width].T
        times.append(time.perf_counter() - start)
    if not np.array_equal(target[:, ::37], source[::37].T):
        raise ObjectiveFailure("wrong", "the result is not the transposed matrix")
    return min(times[1:]) * 1e3  # the first run only warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=4, help="of 32 candidates each (default: 4)")
    parser.add_argument(
        "--workers", type=int, default=1, help="evaluations at once; more disturb each other (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    result = Search(
        objective_function=transposition_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=arguments.generations),
        seed=arguments.seed,
    ).start(num_workers=arguments.workers, task_timeout=30)

    best = result.get_best_result()
    print(f"{len(result.get_results())} of {SPACE.size} configurations tried; the best one:")
    for name, value in best["params"].items():
        print(f"  {name:<8} {value}")

    # what wins a search won partly by luck: measure both again, in turns
    pairs = [(transposition_ms(SPACE.default), transposition_ms(best["params"])) for _ in range(5)]
    default_ms, best_ms = (min(times) for times in zip(*pairs, strict=True))
    print(f"default  {default_ms:6.2f} ms")
    print(f"best     {best_ms:6.2f} ms, {default_ms / best_ms:.1f} times as fast")


if __name__ == "__main__":
    main()
