"""Tune one kernel on two cards of different speed, with and without normalising.

Two worker processes run the candidates; each owns one card, the second one 1.7 times as slow as the first.
The cards are simulated here: time is a formula times the card's factor. As they are, the scores say as much
about the card as about the candidate. With `normalize=True` each process also measures the default
configuration, at its start and once in each generation, and the search works with the ratios.

    python examples/normalizing.py --generations 4
"""

import argparse
import fcntl
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ciq_ray import Search, SearchConfiguration, SearchResult
from searchers import PowerOfTwo, Range, Space

SLOWDOWN = [1.0, 1.7]
"""Of the first card and of the second."""

SPACE = Space(
    {"rows": PowerOfTwo(8, 256), "columns": PowerOfTwo(8, 256), "stages": Range(1, 5)},
    constraints=["(rows + columns) * stages <= 1024"],  # what fits into shared memory
    default={"rows": 64, "columns": 64, "stages": 2},
)

_held: list[Any] = []


def card_of_this_process() -> int:
    """Claim a card at the first call: whoever holds the lock of its file owns it."""
    for number in range(len(SLOWDOWN)):
        if _held:
            break
        file = (Path(os.environ["CARDS"]) / f"card-{number}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            _held.extend([number, file])
    return int(_held[0])


def true_ms(config: dict[str, Any]) -> float:
    """What the kernel takes on the first card: memory traffic, work that overlaps badly, idle threads."""
    rows, columns, stages = config["rows"], config["columns"], config["stages"]
    traffic = 40 / rows + 44 / columns
    stalls = 1.2 / stages
    idle = rows * columns * stages / 50_000
    return 0.5 + traffic + stalls + idle


def measured_ms(config: dict[str, Any]) -> float:
    """The objective: what the kernel takes on the card that this process owns."""
    milliseconds = true_ms(config) * SLOWDOWN[card_of_this_process()]
    time.sleep(milliseconds / 1e3)
    return milliseconds


def misjudged(result: SearchResult) -> float:
    """The share of pairs of candidates whose scores have the wrong order."""
    table = result.get_results()
    scores = table[result.score_columns[0]]
    known = [(score, true_ms(params)) for score, params in zip(scores, table["params"], strict=True)]
    pairs = [(a, b) for a, b in itertools.combinations(known, 2) if abs(a[1] - b[1]) > 1e-9]
    return sum((a[0] < b[0]) != (a[1] < b[1]) for a, b in pairs) / len(pairs)


def search(arguments: argparse.Namespace, *, normalize: bool) -> SearchResult:
    return Search(
        objective_function=measured_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(
            generations=arguments.generations, pool_size=16, normalize=normalize
        ),
        seed=arguments.seed,
    ).start(num_workers=len(SLOWDOWN), task_timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=4, help="of 16 candidates each (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory(prefix="cards_") as folder:
        os.environ["CARDS"] = folder  # the worker processes inherit it
        for normalize in (False, True):
            result = search(arguments, normalize=normalize)
            best = result.get_best_result()
            shown = f"{best['norm_score']:.3f}" if normalize else f"{best['score']:.3f} ms"
            rows.append(("yes" if normalize else "no", misjudged(result), shown, best["params"]))

    print(f"the default takes {true_ms(SPACE.default):.3f} ms on the first card\n")
    print("normalised  pairs misjudged  best score  on the first card  configuration")
    for name, wrong, shown, params in rows:
        print(f"{name:<10}  {wrong:>15.1%}  {shown:>10}  {true_ms(params):>14.3f} ms  {params}")


if __name__ == "__main__":
    main()
