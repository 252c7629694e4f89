"""Trade time against size: the settings of zlib on Python source code.

Two objectives have no single best configuration. The search returns the Pareto front: the settings that no
other setting beats in both. The default settings of zlib are measured with the rest.

    python examples/multi_objective.py --generations 4 --csv zlib.csv
"""

import argparse
import functools
from pathlib import Path
from typing import Any

from ciq_ray import Search, SearchConfiguration
from searchers import Choice, Range, Space

STRATEGIES = {"default": 0, "filtered": 1, "huffman_only": 2, "rle": 3, "fixed": 4}
REPEATS = 3

SPACE = Space(
    {
        "level": Range(1, 9),
        "strategy": Choice(list(STRATEGIES)),
        "memory": Range(1, 9),
        "window": Range(9, 15),
    },
    default={"level": 6, "strategy": "default", "memory": 8, "window": 15},
)


@functools.cache
def text() -> bytes:
    """Half a megabyte of source code that every Python has."""
    import argparse
    import inspect
    import tarfile
    import typing

    modules = [argparse, inspect, tarfile, typing]
    return b"".join(Path(str(module.__file__)).read_bytes() for module in modules)[: 1 << 19]


def time_and_size(config: dict[str, Any]) -> tuple[float, float]:
    """The objective: processor milliseconds, and the size as a percentage; both better when smaller."""
    import time
    import zlib

    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        compressor = zlib.compressobj(
            level=config["level"],
            wbits=config["window"],
            memLevel=config["memory"],
            strategy=STRATEGIES[config["strategy"]],
        )
        data = compressor.compress(text()) + compressor.flush()
        times.append(time.process_time() - start)
    return min(times) * 1e3, 100 * len(data) / len(text())


def show(name: str, scores: list[float], config: dict[str, Any]) -> None:
    """Print one line of the table."""
    settings = "  ".join(f"{key} {value}" for key, value in config.items())
    print(f"{name:>8}  {scores[0]:>7.2f}  {scores[1]:>6.2f}  {settings}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=4, help="of 48 candidates each (default: 4)")
    parser.add_argument("--workers", type=int, default=2, help="evaluations at once (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    parser.add_argument("--csv", type=Path, help="write all results to this file as they come")
    arguments = parser.parse_args()

    result = Search(
        objective_function=time_and_size,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=arguments.generations, num_objectives=2),
        seed=arguments.seed,
        dump_results=arguments.csv,
    ).start(num_workers=arguments.workers, task_timeout=30)

    table = result.get_results()
    default = table[table["params"].map(lambda params: params == SPACE.default)].iloc[0]
    front = sorted(result.get_best_result(), key=lambda row: row["score"][0])
    print(f"{len(table)} of {SPACE.size} settings tried, {len(front)} of them on the Pareto front:\n")
    print(f"{'':>8}  {'ms':>7}  {'size %':>6}  settings")
    show("default", [default["score_0"], default["score_1"]], default["params"])
    for number, row in enumerate(front, start=1):
        show(str(number), row["score"], row["params"])
    close = [row for row in front if row["score_1"] <= 1.1 * default["score_1"]]
    if close:
        fastest = min(close, key=lambda row: row["score_0"])
        gain = default["score_0"] / fastest["score_0"]
        print(f"\nWithin 10% of the default's size, level {fastest['params']['level']} is ", end="")
        print(f"{gain:.1f} times as fast.")


if __name__ == "__main__":
    main()
