"""A job for a cluster: tune zlib for speed and size, with trials on the nodes of one pool.

Compressing a megabyte of text is timed with different settings; wanted are little time and few bytes, so
that the answer is a front. `docs/cluster.md` says how to submit it:

    ray job submit --working-dir examples/cluster -- python tune_job.py --evaluations 200

The driver runs on the head, which takes no trials. It joins the cluster by itself: Ray says where it is in
``RAY_ADDRESS``. Started by hand without a cluster, it uses this machine.
"""

import argparse
import os
import random
import time
import zlib
from pathlib import Path
from typing import Any

import searchers
from ciq_ray import tune

SPACE = searchers.Space(
    {
        "level": searchers.Range(1, 9),
        "window": searchers.Range(9, 15),
        "memory": searchers.Range(1, 9),
        "strategy": searchers.Choice(["default", "filtered", "huffman", "rle", "fixed"]),
    },
    default={"level": 6, "window": 15, "memory": 8, "strategy": "default"},
)
STRATEGIES = {
    "default": zlib.Z_DEFAULT_STRATEGY,
    "filtered": zlib.Z_FILTERED,
    "huffman": zlib.Z_HUFFMAN_ONLY,
    "rle": zlib.Z_RLE,
    "fixed": zlib.Z_FIXED,
}


def text() -> bytes:
    """A megabyte that repeats itself about as much as a log does."""
    generator = random.Random(0)
    words = [f"{generator.getrandbits(32):x}" for _ in range(2000)]
    return " ".join(generator.choices(words, k=120_000)).encode()


DATA = text()


def compress(config: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds and kilobytes."""
    start = time.perf_counter()
    packer = zlib.compressobj(
        config["level"], zlib.DEFLATED, config["window"], config["memory"], STRATEGIES[config["strategy"]]
    )
    packed = packer.compress(DATA) + packer.flush()
    elapsed = time.perf_counter() - start
    if zlib.decompress(packed) != DATA:
        raise RuntimeError("it does not come back")
    return elapsed * 1e3, len(packed) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=200, help="how many settings (default: 200)")
    parser.add_argument(
        "--storage",
        default=os.environ.get("TUNE_STORAGE", "ray_results"),
        help="where results go: a folder that all nodes have, s3:// or gs:// (default: $TUNE_STORAGE)",
    )
    parser.add_argument("--name", default="zlib", help="of the experiment; the same name again goes on")
    parser.add_argument("--pool", help="run trials on nodes with the label pool=POOL only (default: all)")
    parser.add_argument("--concurrent", type=int, help="trials at a time (default: what there is room for)")
    arguments = parser.parse_args()

    grid = tune.run(
        compress,
        SPACE,
        num_samples=arguments.evaluations,
        searcher="genetic",
        metric=["ms", "kilobytes"],
        mode=["min", "min"],
        seed=0,
        task_timeout=30,
        label_selector={"pool": arguments.pool} if arguments.pool else None,
        max_concurrent_trials=arguments.concurrent,
        storage_path=arguments.storage,
        name=arguments.name,
    )
    result = tune.to_search_result(grid, metric=["ms", "kilobytes"], mode="min")
    print(f"{len(result)} settings tried in {len(grid)} trials; no other is faster and smaller than:")
    for row in sorted(result.pareto_front(), key=lambda one: one["score"]):
        ms, kilobytes = row["score"]
        print(f"  {ms:7.1f} ms  {kilobytes:7.1f} kB  {row['params']}")
    if "://" not in arguments.storage:
        path = Path(arguments.storage) / arguments.name / "results.csv"
        result.save(path)
        print(f"all of them: {path}")


if __name__ == "__main__":
    main()
