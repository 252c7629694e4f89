from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchers import (
    Boolean,
    FiniteSearch,
    OptionError,
    Outcome,
    PatternSearch,
    RandomSearch,
    Range,
    Space,
    create,
)


def test_random_is_uniform_without_repeats() -> None:
    space = Space({"x": Range(0, 9), "y": Range(0, 9)}, ["x != y"])
    counts = np.zeros(90)
    for seed in range(400):
        rows = np.array([c.row for c in RandomSearch(space, seed=seed).ask(9)], dtype=np.int32)
        places = space.index_of(space.keys(rows))
        assert len(set(places.tolist())) == 9
        counts[places] += 1
    # 40 expected of each; a chi-square of 89 degrees of freedom is below 150 but for 1 in 20,000
    assert ((counts - 40) ** 2 / 40).sum() < 150


def test_count_bounds_random_search_and_includes_initial_configs() -> None:
    searcher = RandomSearch(Space({"x": Range(0, 999)}), 10, seed=1, initial_configs=[{"x": 5}])
    assert len(searcher.ask(50)) == 10
    assert searcher.finished
    with pytest.raises(OptionError, match="`count`"):
        RandomSearch(Space({"x": Boolean()}), 0)


def test_whole_numbers_of_numpy_become_plain_ones(tmp_path: Path) -> None:
    number: Any = np.int64
    space = Space({"x": Range(0, 9)})
    searcher = RandomSearch(space, number(3), seed=number(5))
    assert [c.row for c in searcher.ask(9)] == [c.row for c in RandomSearch(space, 3, seed=5).ask(9)]
    assert (type(searcher.count), type(searcher.seed)) == (int, int)
    searcher.save(str(tmp_path / "state"))
    restored = RandomSearch(space)
    restored.restore(str(tmp_path / "state"))
    assert restored.seed == 5
    for refused in (True, np.True_, 3.0, np.float64(3), "3"):
        with pytest.raises(OptionError, match="`count`"):
            RandomSearch(space, refused)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="`seed`"):
            RandomSearch(space, seed=refused)  # type: ignore[arg-type]


def test_random_search_of_a_whole_space_reaches_its_last_row() -> None:
    space = Space({"x": Range(0, 2999)})
    searcher = RandomSearch(space, count=5000, seed=1)
    assert len({c.row for c in searcher.ask(5000)}) == 3000
    assert searcher.finished


def test_finite_keeps_its_order_and_builds_a_space_of_its_own() -> None:
    configs = [{"a": 3, "b": "x"}, {"a": 1, "b": "y"}, {"a": 3, "b": "x"}, {"a": 2, "b": "x"}]
    searcher = FiniteSearch(configs=configs)
    found = [c.config for c in searcher.ask(2)] + [c.config for c in searcher.ask(9)]
    assert found == [configs[0], configs[1], configs[3]]
    assert searcher.finished
    assert searcher.count == 3
    for first, count in (({"a": 1, "b": "y"}, 3), ({"a": 1, "b": "x"}, 4)):
        assert FiniteSearch(configs=configs, initial_configs=[first]).count == count


@pytest.mark.parametrize("wrong", [None, 3, "ab", {"x": 1}, iter([{"x": 1}])])
def test_what_is_no_list_of_configurations_is_named(wrong: Any) -> None:
    space = Space({"x": Range(0, 9)})
    finite = partial(FiniteSearch, configs=[{"x": 1}])
    for make in (RandomSearch, PatternSearch, finite, partial(create, "de")):
        with pytest.raises(OptionError, match=r"`initial_configs` is .*; it must be a list"):
            make(space, initial_configs=wrong)
    with pytest.raises(OptionError, match="`initial_configs` is"):
        create("pattern", space, initial_configs=wrong, points_to_evaluate=[{"x": 2}])


@pytest.mark.parametrize("configs", [[], "abc", {"a": 1}, [{"a": 1}, {"b": 2}], [1, 2]])
def test_finite_refuses_what_is_no_list_of_configurations(configs: object) -> None:
    with pytest.raises(OptionError, match="`configs`"):
        FiniteSearch(configs=configs)  # type: ignore[arg-type]


def test_best_of_several_objectives_is_the_knee() -> None:
    configs = [{"a": i} for i in range(4)]
    searcher = FiniteSearch(configs=configs, metric=["s", "t"], mode=["min", "max"])
    for candidate, values in zip(
        searcher.ask(4), [(0.0, 0.0), (1.0, 9.0), (10.0, 10.0), (5.0, 5.0)], strict=True
    ):
        searcher.tell(candidate.id, Outcome("ok", values))
    assert [c.config["a"] for c, _ in searcher.front] == [0, 1, 2]
    best = searcher.best
    assert best is not None
    assert best[0].config == {"a": 1}


def test_random_does_not_propose_what_was_evaluated_elsewhere_in_the_meantime() -> None:
    """Rows are drawn in blocks: one that is drawn and not yet asked for may be told of first."""
    searcher = RandomSearch(Space({"x": Range(0, 9)}), seed=1)
    first = searcher.ask(1)[0].config["x"]
    other = (first + 1) % 10
    searcher.add_evaluated_point({"x": other}, -1.0)
    assert searcher.best is not None
    assert searcher.best[0].config == {"x": other}
    assert {c.config["x"] for c in searcher.ask(20)} == set(range(10)) - {first, other}


def test_random_proposals_do_not_depend_on_how_they_are_asked_for() -> None:
    space = Space({f"x{i}": Range(0, 9) for i in range(6)})
    one_by_one, at_once = RandomSearch(space, seed=1), RandomSearch(space, seed=1)
    assert [one_by_one.ask(1)[0].row for _ in range(100)] == [
        c.row for _ in range(5) for c in at_once.ask(20)
    ]
