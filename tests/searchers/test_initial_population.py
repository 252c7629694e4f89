from __future__ import annotations

import pytest

from searchers import (
    InitialPopulationStrategy,
    LFBOTreeSearch,
    OptionError,
    Outcome,
    PatternSearch,
    Range,
    Space,
    create,
)
from searchers.initial_population import InitialPopulation

PLAIN = Space({"x": Range(0, 99), "y": Range(0, 99)})
SPACE = Space({"x": Range(0, 99), "y": Range(0, 99)}, default={"x": 50, "y": 50})
GIVEN = [{"x": 1, "y": 1}, {"x": 2, "y": 2}]


def test_strategies_are_the_documented_texts() -> None:
    assert [(s.name, s.value) for s in InitialPopulationStrategy] == [
        ("FROM_RANDOM", "from_random"),
        ("FROM_DEFAULT", "from_default"),
        ("FROM_BEST_AVAILABLE", "from_best_available"),
    ]


@pytest.mark.parametrize("strategy", [None, "from_random", InitialPopulationStrategy.FROM_RANDOM])
def test_from_random_counts_what_is_given(strategy: str | None) -> None:
    searcher = PatternSearch(SPACE, 10, initial_population_strategy=strategy, seed=1, initial_configs=GIVEN)
    configs = [c.config for c in searcher.ask(100)]
    assert len(configs) == 10
    assert configs[:2] == GIVEN


def test_from_default_starts_from_the_default_alone() -> None:
    searcher = LFBOTreeSearch(SPACE, initial_population_strategy="from_default", seed=1)
    (only,) = searcher.ask(100)
    assert only.config == {"x": 50, "y": 50}
    assert searcher.ask(100) == []
    searcher.tell(only.id, Outcome("ok", (1.0,)))
    around = searcher.ask(100)
    assert around
    assert all(abs(c.config["x"] - 50) <= 2 and abs(c.config["y"] - 50) <= 2 for c in around)


def test_from_best_available_is_the_default_and_what_is_given() -> None:
    strategy = InitialPopulationStrategy.FROM_BEST_AVAILABLE
    searcher = PatternSearch(SPACE, 10, initial_population_strategy=strategy, seed=1, initial_configs=GIVEN)
    assert [c.config for c in searcher.ask(100)] == [*GIVEN, {"x": 50, "y": 50}]
    # nothing available, as in the first search ever: there is nothing to start from but chance
    first = PatternSearch(PLAIN, 10, initial_population_strategy=strategy, seed=1)
    assert len(first.ask(100)) == 10


def test_from_best_available_can_be_filled_up() -> None:
    population = InitialPopulation.of("from_best_available", 10, SPACE, n_given=2, filled=True)
    rows, n_random = population.missing(SPACE, 2)
    assert SPACE.decode(rows[0]) == SPACE.default
    assert n_random == 7


def test_without_a_default_there_is_no_from_default() -> None:
    with pytest.raises(OptionError, match=r"`initial_population_strategy` is 'from_default'.*default=\.\.\."):
        PatternSearch(PLAIN, initial_population_strategy="from_default")
    searcher = PatternSearch(PLAIN, initial_population_strategy="from_default", initial_configs=GIVEN)
    assert [c.config for c in searcher.ask(100)] == GIVEN
    unknown = PatternSearch(None, initial_population_strategy="from_default")
    unknown.set_search_properties("m", "min", PLAIN.parameters)
    with pytest.raises(OptionError, match="from_default"):
        unknown.ask(1)


@pytest.mark.parametrize("strategy", ["random", "FROM_RANDOM", 3])
def test_unknown_strategies_are_refused_with_the_list(strategy: object) -> None:
    with pytest.raises(OptionError, match=r"from_random, from_default, from_best_available"):
        create("pattern", SPACE, initial_population_strategy=strategy)
