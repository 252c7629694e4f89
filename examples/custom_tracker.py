"""A tracker of one's own: write the life of a search to a file, one JSON object a line.

Trackers are told what happens, in a fixed order, by a thread of their own: they neither slow nor stop a
search. What is tuned is a histogram in numpy: which function makes it, from how many numbers at a time.

    python examples/custom_tracker.py --log histogram.jsonl
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any, Literal

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration
from ciq_ray.types import BaseTracker, TrackerConfig, TrackerTypes
from searchers import Choice, PowerOfTwo, Space

COUNT, BINS = 1 << 18, 256

SPACE = Space(
    {"function": Choice(["bincount", "histogram", "unique", "add_at"]), "chunk": PowerOfTwo(1 << 10, COUNT)},
    default={"function": "histogram", "chunk": COUNT},
)


class JsonLinesConfig(TrackerConfig):
    """Where to write.

    Attributes:
        type: None of the built-in kinds.
        path: The file; lines are appended.
    """

    type: Literal[TrackerTypes.DISABLED] = TrackerTypes.DISABLED
    path: Path

    def tracker_class(self) -> Any:
        """What a search makes of this configuration."""
        return JsonLinesTracker


class JsonLinesTracker(BaseTracker):
    """Appends one JSON object for each event."""

    tracker_config: JsonLinesConfig

    def setup(self, **kwargs: Any) -> None:
        """Open the file; called once, by `BaseTracker.__init__`."""
        super().setup(**kwargs)
        self._file = self.tracker_config.path.open("a", encoding="utf-8")

    def cleanup(self, **kwargs: Any) -> None:
        """Close the file; called once, after everything else."""
        self._file.close()

    def search_starts(self, **kwargs: Any) -> None:
        """Called when the search begins, before any generations run."""
        self._write("search_starts", **kwargs)

    def search_ends(self, **kwargs: Any) -> None:
        """Called when the search finishes, after all generations complete."""
        self._write("search_ends", **kwargs)

    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        """Called at the start of each generation."""
        self._write("generation_starts", generation=generation_number)

    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        """Called at the end of each generation."""
        self._write("generation_ends", generation=generation_number)

    def pre_objective(self, config: Any, **kwargs: Any) -> None:
        """Called before each objective function evaluation; there is nothing to say yet."""

    def post_objective(self, scores: str, **kwargs: Any) -> None:
        """Called after each objective function evaluation, with its score as JSON."""
        self._write("evaluation", **kwargs, **json.loads(scores))

    def _write(self, event: str, **details: Any) -> None:
        self._file.write(json.dumps({"event": event, "time": time.time(), **details}) + "\n")
        self._file.flush()


@functools.cache
def numbers() -> Any:
    """What is counted, and how often each number is there."""
    import numpy as np

    values = np.random.default_rng(0).integers(BINS, size=COUNT)
    return values, np.bincount(values, minlength=BINS)


def histogram_ms(config: dict[str, Any]) -> float:
    """The objective: milliseconds for one histogram, the best of three."""
    import numpy as np

    values, expected = numbers()
    times = []
    for _ in range(3):
        counts = np.zeros(BINS, dtype=np.int64)
        start = time.perf_counter()
        for i in range(0, COUNT, config["chunk"]):
            chunk = values[i : i + config["chunk"]]
            match config["function"]:
                case "bincount":
                    counts += np.bincount(chunk, minlength=BINS)
                case "histogram":
                    counts += np.histogram(chunk, bins=BINS, range=(0, BINS))[0]
                case "unique":
                    found, how_often = np.unique(chunk, return_counts=True)
                    counts[found] += how_often
                case "add_at":
                    np.add.at(counts, chunk, 1)
        times.append(time.perf_counter() - start)
    if not np.array_equal(counts, expected):
        raise ObjectiveFailure("wrong", "the counts are wrong")
    return min(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, default=Path("histogram.jsonl"), help="file to append to")
    parser.add_argument("--workers", type=int, default=1, help="evaluations at once (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    result = Search(
        objective_function=histogram_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=3, pool_size=8),
        tracker_config=JsonLinesConfig(path=arguments.log),
        seed=arguments.seed,
    ).start(num_workers=arguments.workers, task_timeout=30)

    best = result.get_best_result()
    table = result.get_results()
    default = table[table["params"].map(lambda params: params == SPACE.default)].iloc[0]
    print(f"default  {default['score']:6.2f} ms  {default['params']}")
    print(f"best     {best['score']:6.2f} ms  {best['params']}")

    lines = [json.loads(line) for line in arguments.log.read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    print(
        f"{arguments.log} has {len(lines)} lines, {len(evaluations)} of them evaluations; the last of these:"
    )
    print({key: evaluations[-1][key] for key in ("task_id", "score", "params")})


if __name__ == "__main__":
    main()
