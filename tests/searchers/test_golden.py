"""The sequences that searchers produce are pinned, so that a change of code cannot move them unseen.

When a change is meant to: ``python tests/searchers/test_golden.py`` writes them anew, and the changelog
says so, since runs begun with the old version cannot be resumed with the new one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from searchers import (
    AutoSearch,
    BayesianSearch,
    DESurrogateHybrid,
    DifferentialEvolutionSearch,
    FiniteSearch,
    GeneticSearch,
    LFBOPatternSearch,
    LFBOTreeSearch,
    PatternSearch,
    RandomSearch,
    Space,
    SpaceSearcher,
)
from searchers.testing import sequence, spaces

FOLDER = Path(__file__).parent / "golden"
LENGTH = 150
MODELLED = ("auto", "bayesian", "bayesian_two_objectives")
"""The last bits of their models are the linear algebra's, which has other code for other processors."""
OPENBLAS = {"OPENBLAS_CORETYPE": "Haswell"}
"""Code that all x86 processors since 2013 can run; it is chosen when the library is loaded."""


def _rows(space: Space) -> list[tuple[int, ...]]:
    return [candidate.row for candidate in RandomSearch(space, seed=9).ask(40)]


def two_objectives(space: Space) -> SpaceSearcher:
    return GeneticSearch(space, metric=["a", "b"], mode=["min", "max"], seed=7)


def three_objectives(space: Space) -> SpaceSearcher:
    return GeneticSearch(space, metric=["a", "b", "c"], mode=["min"] * 3, seed=7, objective_weights=[1, 2, 3])


def with_a_surrogate(space: Space) -> SpaceSearcher:
    return DESurrogateHybrid(space, 20, surrogate_threshold=40, n_estimators=10, patience=None, seed=7)


def with_two_objectives(space: Space) -> SpaceSearcher:
    return BayesianSearch(space, metric=["a", "b"], mode=["min", "max"], seed=7)


SEARCHERS: dict[str, Callable[[Space], SpaceSearcher]] = {
    "auto": lambda space: AutoSearch(space, seed=7),
    "bayesian": lambda space: BayesianSearch(space, seed=7),
    "bayesian_two_objectives": with_two_objectives,
    "de": lambda space: DifferentialEvolutionSearch(space, 20, seed=7),
    "de_generational": lambda space: DifferentialEvolutionSearch(space, 20, immediate_update=False, seed=7),
    "de_surrogate": with_a_surrogate,
    "finite": lambda space: FiniteSearch(space, [space.decode(row) for row in _rows(space)]),
    "genetic": lambda space: GeneticSearch(space, seed=7),
    "genetic_generational": lambda space: GeneticSearch(space, seed=7, pool_size=20, generational=True),
    "genetic_two_objectives": two_objectives,
    "genetic_three_objectives": three_objectives,
    "lfbo_pattern": lambda space: LFBOPatternSearch(space, 20, 2, 2, frac_selected=0.3, seed=7),
    "lfbo_tree": lambda space: LFBOTreeSearch(
        space, frac_selected=0.3, initial_population=20, copies=2, max_generations=2, seed=7
    ),
    "pattern": lambda space: PatternSearch(space, 20, seed=7),
    "random": lambda space: RandomSearch(space, seed=7),
}


def produced(name: str) -> dict[str, list[list[int]]]:
    found = {}
    for place, space in spaces().items():
        searcher = SEARCHERS[name](space)
        searcher.prepare()
        with threadpool_limits(1):  # more threads add up in another order, and differ in the last bits
            found[place] = [list(row) for row in sequence(searcher, LENGTH)]
    return found


def produced_anywhere(name: str) -> Any:
    """The same on processors of every kind."""
    if name not in MODELLED:
        return produced(name)
    command = [sys.executable, str(Path(__file__).resolve()), name]
    done = subprocess.run(command, env={**os.environ, **OPENBLAS}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_sequence_is_the_one_on_file(name: str) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    found = produced_anywhere(name)
    assert found.keys() == expected.keys()
    for place, rows in found.items():
        assert len(rows) == len(expected[place])
        for number, (mine, pinned) in enumerate(zip(rows, expected[place], strict=True)):
            assert mine == pinned, f"{name} on {place!r}: proposal {number} is {mine} instead of {pinned}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(produced(sys.argv[1])))
        sys.exit()
    FOLDER.mkdir(exist_ok=True)
    for name in SEARCHERS:
        lines = [
            f'"{place}": {json.dumps(rows, separators=(",", ":"))}'
            for place, rows in produced_anywhere(name).items()
        ]
        (FOLDER / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
