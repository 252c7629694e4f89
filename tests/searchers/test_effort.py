"""Effort profiles, and the documented defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from searchers import OptionError, Range, Space, create
from searchers.registry import NAMES, searcher_class

SPACE = Space({"x": Range(0, 9), "y": Range(0, 9)}, default={"x": 3, "y": 4})
_PATTERN: dict[str, Any] = {
    "initial_population": 100,
    "copies": 5,
    "max_generations": 20,
    "min_improvement_delta": 0.001,
}
_LAST: dict[str, Any] = {
    "initial_population_strategy": None,
    "compile_timeout_lower_bound": 30.0,
    "compile_timeout_quantile": 0.9,
}
DOCUMENTED: dict[str, dict[str, Any]] = {
    "pattern": {**_PATTERN, **_LAST},
    "lfbo_pattern": {
        **_PATTERN,
        "frac_selected": 0.1,
        "num_neighbors": 300,
        "radius": 2,
        "quantile": 0.1,
        "patience": 1,
        "similarity_penalty": 1.0,
        **_LAST,
    },
    "lfbo_tree": {
        "num_neighbors": 200,
        "frac_selected": 0.1,
        "radius": 2,
        **_PATTERN,
        "quantile": 0.1,
        "patience": 1,
        "similarity_penalty": 1.0,
        **_LAST,
    },
    "random": {"count": 1000},
}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_parameters_have_the_documented_names_order_and_defaults(name: str) -> None:
    parameters = list(inspect.signature(searcher_class(name)).parameters.values())
    own = parameters[1 : 1 + len(DOCUMENTED[name])]
    assert parameters[0].name == "space"
    assert {p.name: p.default for p in own} == DOCUMENTED[name]
    assert [p.name for p in own] == list(DOCUMENTED[name])
    assert [p.name for p in parameters[1 + len(own) :]] == ["metric", "mode", "seed", "initial_configs"]


def test_full_is_what_the_constructors_have() -> None:
    for name in DOCUMENTED:
        for effort in (None, "full"):
            searcher = create(name, SPACE, effort=effort)
            values = {option: getattr(searcher, option) for option in DOCUMENTED[name]}
            expected = dict(DOCUMENTED[name])
            if "initial_population_strategy" in expected:
                expected["initial_population_strategy"] = "from_random"
            assert values == expected


def test_quick_is_smaller_and_options_override_it() -> None:
    for name in ("pattern", "lfbo_pattern", "lfbo_tree"):
        searcher: Any = create(name, SPACE, effort="quick", copies=7)
        assert (searcher.initial_population, searcher.copies, searcher.max_generations) == (30, 7, 5)
    random: Any = create("random", SPACE, effort="quick")
    assert random.count == 100


@pytest.mark.parametrize("name", NAMES)
def test_none_evaluates_the_default(name: str) -> None:
    searcher = create(name, SPACE, effort="none", metric="time", mode="min", seed=1)
    assert [c.config for c in searcher.ask(10)] == [{"x": 3, "y": 4}]
    assert searcher.finished


def test_none_evaluates_given_configurations_too() -> None:
    given: dict[str, Any] = {"initial_configs": [{"x": 1, "y": 1}], "points_to_evaluate": [{"x": 2, "y": 2}]}
    found = [c.config for c in create("pattern", SPACE, effort="none", **given).ask(9)]
    assert found == [{"x": 1, "y": 1}, {"x": 2, "y": 2}, {"x": 3, "y": 4}]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pattern", {"copies": -5}, "`copies` is -5"),
        ("genetic", {"mutate_rate": 7}, "`mutate_rate` is 7"),
        ("finite", {"configs": []}, r"`configs` is \[\]"),
        ("pattern", {"metric": ["a", "b"], "mode": ["min", "min"]}, "PatternSearch takes one objective"),
    ],
)
@pytest.mark.parametrize("effort", ["none", "full"])
def test_none_refuses_what_the_others_refuse(name: str, options: Any, message: str, effort: str) -> None:
    with pytest.raises(OptionError, match=message):
        create(name, SPACE, effort=effort, **options)


def test_none_needs_a_default() -> None:
    for space in (None, Space({"x": Range(0, 9)})):
        with pytest.raises(OptionError, match=r"`effort` is 'none'.*default=\.\.\."):
            create("lfbo_tree", space, effort="none")
    with pytest.raises(OptionError, match="`radios`"):
        create("lfbo_tree", SPACE, effort="none", radios=3)


def test_unknown_efforts_are_refused_with_the_list() -> None:
    with pytest.raises(OptionError, match=r"`effort` is 'huge'.*none, quick, full"):
        create("random", SPACE, effort="huge")
