"""A worker of one's own: measure a whole generation in rounds, so that drift hits all candidates alike.

The built-in workers run each candidate once, when its turn comes. If the machine slows down meanwhile, the
later candidates look worse than they are. This worker gets a generation at a time, runs all its candidates
in several rounds, each round in another order, and reports each candidate's median.

What is tuned is a softmax over the rows of a matrix: how many rows at a time, and whether in place.

    python examples/custom_worker.py --rounds 7
"""

import argparse
import functools
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from ciq_ray import Search, SearchConfiguration
from ciq_ray.types import BaseTracker, Score, Worker
from searchers import Boolean, PowerOfTwo, Space

ROWS, COLUMNS = 1 << 14, 512

SPACE = Space(
    {"rows": PowerOfTwo(8, ROWS), "in_place": Boolean()},
    default={"rows": ROWS, "in_place": False},
)


class RoundsWorker(Worker):
    """Evaluates a generation in this process, in rounds.

    An extra argument of `Search.start` arrives in `run`: `rounds`, how often each candidate is run.
    """

    @classmethod
    def create(
        cls, cache_folder: str | os.PathLike[str], normalize: bool, tracker: BaseTracker | None
    ) -> Self:
        """Construct a worker instance with the given configuration."""
        return cls(cache_folder, normalize, tracker)

    def run(
        self,
        *,
        function: Callable[..., Any],
        params_pool: Sequence[Any],
        params_ids: Sequence[int],
        num_function_returns: int = 1,
        num_workers: int = 1,
        rounds: int = 5,
        **kwargs: Any,
    ) -> list[Score]:
        """Execute the objective function across a pool of parameters, all of it `rounds` times.

        Args:
            function: The objective; it takes one parameter set.
            params_pool: The parameter sets, each as the objective gets it.
            params_ids: One id for each parameter set; it comes back as `Score.param_id`.
            num_function_returns: How many scores the objective returns.
            num_workers: Not used: evaluations beside each other would disturb each other.
            rounds: How often each candidate is run.
            **kwargs: Not used.

        Returns:
            One `Score` for each parameter set, its medians; a candidate that raises gets an invalid one.
        """
        rng = random.Random(self.current_generation)
        samples: dict[int, list[Any]] = {param_id: [] for param_id in params_ids}
        failed: dict[int, str] = {}
        for _ in range(rounds):
            todo = [pair for pair in zip(params_ids, params_pool, strict=True) if pair[0] not in failed]
            rng.shuffle(todo)
            for param_id, params in todo:
                try:
                    samples[param_id].append(function(params))
                except Exception as error:
                    failed[param_id] = f"{type(error).__name__}: {error}"
        return [
            Score(
                score=self.invalidate_score(num_function_returns)
                if param_id in failed
                else statistics.median(samples[param_id]),
                params=params,
                metadata=failed.get(param_id, f"median of {rounds}"),
                param_id=param_id,
                num_objectives=num_function_returns,
            )
            for param_id, params in zip(params_ids, params_pool, strict=True)
        ]


@functools.cache
def problem() -> tuple[Any, Any]:
    """A matrix, and as much memory again."""
    import numpy as np

    matrix = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    return matrix, np.empty_like(matrix)


def softmax_ms(config: dict[str, Any]) -> float:
    """The objective: milliseconds for one softmax of the rows of a matrix."""
    import numpy as np

    matrix, other = problem()
    if config["in_place"]:
        np.copyto(other, matrix)
        matrix = other
    start = time.perf_counter()
    for i in range(0, ROWS, config["rows"]):
        block = matrix[i : i + config["rows"]]
        out = other[i : i + config["rows"]]
        np.subtract(block, block.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= out.sum(axis=1, keepdims=True)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each candidate (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    result = Search(
        objective_function=softmax_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=3, pool_size=8),
        worker_type=RoundsWorker,
        seed=arguments.seed,
    ).start(rounds=arguments.rounds)

    table = result.get_results().sort_values("score")
    print(f"{len(table)} of {SPACE.size} configurations tried, each {arguments.rounds} times; the best:\n")
    for row in table.head(5).to_dict("records"):
        print(f"  {row['score']:6.2f} ms  {row['params']}")
    default = table[table["params"].map(lambda params: params == SPACE.default)].iloc[0]
    print(f"\n  {default['score']:6.2f} ms  {default['params']}  (default)")


if __name__ == "__main__":
    main()
