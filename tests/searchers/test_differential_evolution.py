"""Differential evolution, without and with a surrogate: each documented sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from searchers import (
    Candidate,
    Choice,
    DESurrogateHybrid,
    DifferentialEvolutionSearch,
    InitialPopulationStrategy,
    ListOf,
    OptionError,
    Outcome,
    PowerOfTwo,
    RandomSearch,
    Range,
    Space,
    SpaceSearcher,
    StateError,
    create,
)
from searchers.testing import loss, spaces

HUGE = spaces()["huge"]


def ok(value: float) -> Outcome:
    return Outcome("ok", (value,))


def tell(searcher: SpaceSearcher, candidates: list[Candidate]) -> list[Candidate]:
    for candidate in candidates:
        searcher.tell(candidate.id, ok(loss(candidate.row)))
    return candidates


def begun(searcher: SpaceSearcher) -> SpaceSearcher:
    """A searcher whose initial population is back."""
    tell(searcher, searcher.ask(1000))
    return searcher


def driven(searcher: SpaceSearcher, n: int, batch: int = 8) -> float:
    """The best loss after `n` evaluations."""
    while searcher.n_proposed < n and not searcher.finished:
        tell(searcher, searcher.ask(min(batch, n - searcher.n_proposed)))
    assert searcher.best is not None
    return searcher.best[1].values[0]


class TestWhatIsDocumented:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            (
                DifferentialEvolutionSearch,
                {
                    "population_size": 40,
                    "max_generations": 40,
                    "crossover_rate": 0.8,
                    "immediate_update": None,
                    "min_improvement_delta": None,
                    "patience": None,
                    "initial_population_strategy": None,
                    "compile_timeout_lower_bound": 30.0,
                    "compile_timeout_quantile": 0.9,
                },
            ),
            (
                DESurrogateHybrid,
                {
                    "population_size": 40,
                    "max_generations": 40,
                    "crossover_rate": 0.8,
                    "surrogate_threshold": 100,
                    "candidate_ratio": 3,
                    "refit_frequency": 5,
                    "n_estimators": 50,
                    "min_improvement_delta": 0.001,
                    "patience": 3,
                    "initial_population_strategy": None,
                    "compile_timeout_lower_bound": 30.0,
                    "compile_timeout_quantile": 0.9,
                },
            ),
        ],
    )
    def test_names_order_and_defaults(self, kind: type[SpaceSearcher], expected: dict[str, Any]) -> None:
        import inspect

        parameters = list(inspect.signature(kind).parameters.values())[1:]
        own = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [(p.name, p.default) for p in own] == list(expected.items())

    def test_quick_effort(self) -> None:
        for name in ("de", "de_surrogate"):
            searcher = create(name, HUGE, effort="quick")
            assert isinstance(searcher, DifferentialEvolutionSearch)
            assert (searcher.population_size, searcher.max_generations) == (20, 8)

    def test_ends_after_the_generations(self) -> None:
        searcher = DifferentialEvolutionSearch(HUGE, 6, 4, seed=1)
        driven(searcher, 10_000)
        assert searcher.finished
        assert searcher.n_proposed == 6 * (1 + 4)

    @pytest.mark.parametrize("kind", [DifferentialEvolutionSearch, DESurrogateHybrid])
    def test_better_than_random(self, kind: type[SpaceSearcher]) -> None:
        mine = [driven(kind(HUGE, 20, seed=seed), 500) for seed in range(2)]
        random = [driven(RandomSearch(HUGE, seed=seed), 500) for seed in range(2)]
        assert max(mine) < 0.75 * min(random)

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"population_size": 3}, "population_size"),
            ({"population_size": 8.0}, "population_size"),
            ({"max_generations": -1}, "max_generations"),
            ({"crossover_rate": 1.1}, "crossover_rate"),
            ({"crossover_rate": "0.5"}, "crossover_rate"),
            ({"immediate_update": 1}, "immediate_update"),
            ({"min_improvement_delta": -0.1}, "min_improvement_delta"),
            ({"patience": 0}, "patience"),
            ({"initial_population_strategy": "best"}, "initial_population_strategy"),
            ({"compile_timeout_lower_bound": -1}, "compile_timeout_lower_bound"),
            ({"compile_timeout_quantile": 1.5}, "compile_timeout_quantile"),
            ({"metric": ["a", "b"], "mode": ["min", "min"]}, "metric"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(OptionError, match=f"`{named}`"):
            DifferentialEvolutionSearch(HUGE, **options)

    @pytest.mark.parametrize(
        "name", ["surrogate_threshold", "candidate_ratio", "refit_frequency", "n_estimators"]
    )
    def test_bad_options_of_the_surrogate(self, name: str) -> None:
        with pytest.raises(OptionError, match=f"`{name}`"):
            DESurrogateHybrid(HUGE, **{name: 0})

    def test_two_values_are_refused(self) -> None:
        searcher = DifferentialEvolutionSearch(HUGE, seed=1)
        with pytest.raises(OptionError, match="one objective"):
            searcher.tell(searcher.ask(1)[0].id, Outcome("ok", (1.0, 2.0)))

    def test_ray_tune_cannot_give_several_objectives(self) -> None:
        with pytest.raises(OptionError, match="one objective"):
            DifferentialEvolutionSearch(HUGE).set_search_properties(["a", "b"], ["min", "min"], {})


class TestImmediateUpdate:
    def ask_after_one(self, update: bool | None) -> list[Candidate]:
        searcher = begun(DifferentialEvolutionSearch(HUGE, 6, 3, immediate_update=update, seed=1))
        waiting = searcher.ask(6)
        assert {c.generation for c in waiting} == {1}
        assert searcher.ask(1) == []
        tell(searcher, waiting[2:3])
        return searcher.ask(6)

    @pytest.mark.parametrize("update", [None, True])
    def test_a_target_gets_its_next_challenger_when_its_present_one_is_back(
        self, update: bool | None
    ) -> None:
        (following,) = self.ask_after_one(update)
        assert following.generation == 2

    def test_a_generation_is_waited_for(self) -> None:
        assert self.ask_after_one(False) == []

    @pytest.mark.parametrize("update", [True, False])
    def test_a_challenger_replaces_its_target(self, update: bool) -> None:
        searcher = begun(DifferentialEvolutionSearch(HUGE, 4, 9, immediate_update=update, seed=1))
        first, *rest = searcher.ask(4)
        target = searcher._trials[int(first.id)].tag
        searcher.tell(first.id, ok(-1.0))
        assert (searcher._members[target] == int(first.id)) is update
        for candidate in rest:
            searcher.tell(candidate.id, ok(1e9))
        assert searcher._members[target] == int(first.id)
        assert not set(searcher._members) & {int(candidate.id) for candidate in rest}

    def test_generations_are_complete_when_all_is_back(self) -> None:
        searcher = DifferentialEvolutionSearch(HUGE, 6, 3, seed=1)
        first = searcher.ask(6)
        tell(searcher, first[:5])
        assert not searcher.generation_closed(0)
        tell(searcher, first[5:])
        assert searcher.generation_closed(0)
        second = searcher.ask(6)
        tell(searcher, second[1:])
        tell(searcher, searcher.ask(6))
        assert not searcher.generation_closed(1)
        tell(searcher, second[:1])
        assert searcher.generation_closed(1)
        assert not searcher.generation_closed(2)


class TestEarlyStopping:
    def generations(self, value: Any, **options: Any) -> int:
        searcher = DifferentialEvolutionSearch(HUGE, 4, 20, seed=1, **options)
        while not searcher.finished:
            for candidate in searcher.ask(4):
                searcher.tell(candidate.id, value(candidate.generation))
        return searcher.n_proposed // 4 - 1

    def test_off_unless_both_are_given(self) -> None:
        for options in ({}, {"patience": 2}, {"min_improvement_delta": 0.1}):
            assert self.generations(lambda g: ok(1.0), **options) == 20

    def test_patience(self) -> None:
        assert self.generations(lambda g: ok(1.0), patience=3, min_improvement_delta=0.01) == 3

    def test_relative_improvement(self) -> None:
        def each(share: float) -> Any:
            return lambda g: ok(-100.0 * (1 + share) ** g)

        assert self.generations(each(0.02), patience=2, min_improvement_delta=0.01) == 20
        assert self.generations(each(0.004), patience=2, min_improvement_delta=0.01) == 2

    def test_small_steps_add_up(self) -> None:
        """What counts is the distance to the last improvement, not to the generation before."""
        value = lambda g: ok(-100.0 * 1.006**g)  # noqa: E731
        assert self.generations(value, patience=2, min_improvement_delta=0.01) == 20

    def test_delta_of_zero_wants_any_improvement(self) -> None:
        assert self.generations(lambda g: ok(1.0), patience=2, min_improvement_delta=0.0) == 2
        assert self.generations(lambda g: ok(1.0 - g / 1e9), patience=2, min_improvement_delta=0.0) == 20

    def test_failures_do_not_count_as_stagnation(self) -> None:
        failing = self.generations(lambda g: Outcome("run_error"), patience=2, min_improvement_delta=0.1)
        assert failing == 20


DEFAULT = Space({f"p{i}": Range(0, 9) for i in range(8)}, default={f"p{i}": 4 for i in range(8)})


class TestInitialPopulation:
    def test_from_random(self) -> None:
        searcher = DifferentialEvolutionSearch(DEFAULT, 8, seed=1, initial_configs=[DEFAULT.default])
        candidates = searcher.ask(20)
        assert len(candidates) == 8
        assert candidates[0].config == DEFAULT.default
        assert {c.generation for c in candidates} == {0}

    def test_from_default_the_one_score_fills_the_population(self) -> None:
        searcher = DifferentialEvolutionSearch(
            DEFAULT, 8, 3, initial_population_strategy="from_default", seed=1
        )
        (first,) = searcher.ask(20)
        assert first.config == DEFAULT.default
        assert searcher.ask(1) == []
        searcher.tell(first.id, ok(5.0))
        assert searcher._members == [0] * 8
        challengers = searcher.ask(20)
        assert len(challengers) == 8
        assert len({c.row for c in challengers} - {first.row}) == 8
        # one that is worse is refused, one that is better is taken by its own target only
        searcher.tell(challengers[0].id, ok(6.0))
        searcher.tell(challengers[1].id, ok(4.0))
        assert sorted(searcher._members) == [0] * 7 + [2]

    def test_from_default_without_a_default(self) -> None:
        with pytest.raises(OptionError, match="default"):
            DifferentialEvolutionSearch(HUGE, initial_population_strategy="from_default")

    def test_from_best_available_fills_the_remainder_randomly(self) -> None:
        known = [{f"p{i}": k for i in range(8)} for k in (1, 2)]
        searcher = DifferentialEvolutionSearch(
            DEFAULT,
            8,
            initial_population_strategy=InitialPopulationStrategy.FROM_BEST_AVAILABLE,
            initial_configs=known,
            seed=1,
        )
        candidates = searcher.ask(20)
        assert len(candidates) == 8
        assert [c.config for c in candidates[:3]] == [*known, DEFAULT.default]

    def test_a_default_that_is_given_as_well_counts_once(self) -> None:
        searcher = DifferentialEvolutionSearch(
            DEFAULT,
            8,
            initial_population_strategy="from_best_available",
            initial_configs=[DEFAULT.default],
            seed=1,
        )
        assert len(searcher.ask(20)) == 8

    def test_more_initial_configs_than_members(self) -> None:
        known = [{f"p{i}": k for i in range(8)} for k in range(9)]
        searcher = DifferentialEvolutionSearch(DEFAULT, 4, initial_configs=known, seed=1)
        for candidate in searcher.ask(9):
            searcher.tell(candidate.id, ok(abs(candidate.config["p0"] - 6.2)))
        assert sorted(searcher._members) == [5, 6, 7, 8]

    def test_points_from_elsewhere_join(self) -> None:
        searcher = DifferentialEvolutionSearch(DEFAULT, 4, seed=1, metric="m", mode="min")
        searcher.add_evaluated_point({f"p{i}": 3 for i in range(8)}, -1.0)
        begun(searcher)
        assert 0 in searcher._members


class TestOperators:
    def test_ordered_levels_are_differences(self) -> None:
        """Mutants leave the values that the parents have, for ordered parameters only."""
        space = Space({"size": PowerOfTwo(1, 2**30), "kind": Choice(["a", "b", "c", "d"])})
        given = [{"size": 2**k, "kind": "ab"[k % 2]} for k in (8, 13, 16, 21)]
        searcher = begun(DifferentialEvolutionSearch(space, 4, 9, initial_configs=given, seed=2))
        children = np.concatenate([searcher._children(target) for target in range(4)])
        assert len(set(children[:, 0].tolist()) - {8, 13, 16, 21}) > 3
        assert set(children[:, 1].tolist()) == {0, 1}

    def test_crossover_rate(self) -> None:
        def kept(rate: float) -> float:
            searcher = begun(DifferentialEvolutionSearch(HUGE, 30, 9, rate, seed=2))
            target = searcher._trials[searcher._members[0]].row
            return float((searcher._children(0) == target).mean())

        assert kept(0.0) >= 0.9  # all but one gene
        assert 0.4 < kept(0.5) < 0.6
        assert kept(1.0) < 0.1

    def test_a_list_and_its_bit_stay_together(self) -> None:
        space = Space({"tile": ListOf(PowerOfTwo(1, 64), 3, knockout_prob=0.5), "x": Range(0, 99)})
        given = [{"x": 1}, {"x": 2}, {"x": 3, "tile": [4, 4, 4]}, {"x": 4, "tile": [16, 16, 16]}]
        searcher = begun(DifferentialEvolutionSearch(space, 4, 9, initial_configs=given, seed=2))
        configs = [space.decode(row) for target in range(4) for row in searcher._children(target)]
        tiles = [tuple(config["tile"]) for config in configs if "tile" in config]
        assert {len(config) for config in configs} == {1, 2}
        # where a parent lacks the list it is inherited whole
        assert set(tiles) <= {(4, 4, 4), (16, 16, 16)}
        assert len(set(tiles)) == 2

    def test_failed_members_are_no_parents(self) -> None:
        searcher = DifferentialEvolutionSearch(HUGE, 8, 9, seed=2)
        for candidate in searcher.ask(8):
            failed = int(candidate.id) < 4
            searcher.tell(candidate.id, Outcome("run_error") if failed else ok(1.0))
        parents = searcher._parents(0).reshape(-1, 20)
        failed_rows = {tuple(searcher._trials[i].row) for i in range(4)}
        assert not failed_rows & {tuple(row) for row in parents}

    def test_a_success_replaces_a_failure_and_never_the_reverse(self) -> None:
        searcher = DifferentialEvolutionSearch(HUGE, 4, 9, seed=2)
        for candidate in searcher.ask(4):
            searcher.tell(candidate.id, Outcome("compile_error") if candidate.id == "0" else ok(1.0))
        for candidate in searcher.ask(4):
            on_failed = searcher._trials[int(candidate.id)].tag == 0
            searcher.tell(candidate.id, ok(1e9) if on_failed else Outcome("wrong"))
        assert [searcher._succeeded(index) for index in searcher._members] == [True] * 4
        assert searcher._members[1:] == [1, 2, 3]


class TestSurrogateModel:
    def searcher(self, **options: Any) -> DESurrogateHybrid:
        return DESurrogateHybrid(HUGE, 20, surrogate_threshold=40, n_estimators=10, seed=3, **options)

    def test_used_after_so_many_evaluations(self) -> None:
        searcher = self.searcher()
        driven(searcher, 40)
        assert searcher._forest is None
        searcher.ask(1)
        assert searcher._forest is not None
        assert len(searcher._known) == 40

    def test_the_most_promising_child_is_evaluated(self) -> None:
        searcher = self.searcher(candidate_ratio=10)
        driven(searcher, 60)
        families = [searcher._new_children(target) for target in range(5)]
        for family, row in zip(families, searcher._select(families), strict=True):
            expected = [searcher._predict(child[None])[0] for child in family[:10]]
            assert row is not None
            assert searcher._predict(row[None])[0] == min(expected)
            assert min(expected) < max(expected)

    def test_refitted_every_few_generations(self) -> None:
        searcher = self.searcher(refit_frequency=2, patience=None)
        fits = []
        while searcher.n_proposed < 300:
            tell(searcher, searcher.ask(4))
            if searcher._known and (not fits or fits[-1] != searcher._fitted_at):
                fits.append(searcher._fitted_at)
        assert len(fits) > 4
        assert set(np.diff(fits)) == {2}

    def test_failures_are_the_worst(self) -> None:
        searcher = self.searcher()
        candidates = searcher.ask(4)
        outcomes = [ok(3.0), Outcome("wrong"), ok(-1.0), ok(3.0)]
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            searcher.tell(candidate.id, outcome)
        assert searcher._ranks_of([0, 1, 2, 3]) == [1 / 3, 1.0, 0.0, 1 / 3]

    def test_the_same_forest_after_restoring(self) -> None:
        searcher = self.searcher()
        driven(searcher, 60)
        state = json.loads(json.dumps(searcher.get_state()))
        other = self.searcher()
        other.set_state(state)
        rows = HUGE.sample(50, np.random.default_rng(1))
        assert other._predict(rows) == searcher._predict(rows)


class TestDamagedState:
    @pytest.mark.parametrize(
        "change",
        [
            {"members": [0, 1, 2, 99999]},
            {"members": [0, 1]},
            {"rounds": [1, 1, 1, -1]},
            {"challengers": [None, None, None, "x"]},
            {"all_started": 1},
            {"reference": "x"},
            {"reference": float("nan")},
            {"stale": -1},
            {"closed": None},
            {"known": [0, 0]},
            {"ranks": [0.5]},
            {"ranks": ["x"], "known": [0]},
            {"forest_seed": -1},
            {"fitted_at": 10**6},
        ],
    )
    def test_refused(self, change: dict[str, Any]) -> None:
        searcher = DESurrogateHybrid(HUGE, 4, surrogate_threshold=5, n_estimators=3, seed=1)
        driven(searcher, 12, batch=4)
        state = json.loads(json.dumps(searcher.get_state()))
        state["algorithm"].update(change)
        before = json.dumps(searcher.get_state())
        with pytest.raises(StateError):
            searcher.set_state(state)
        assert json.dumps(searcher.get_state()) == before

    def test_a_tag_of_no_target(self) -> None:
        searcher = begun(DifferentialEvolutionSearch(HUGE, 4, seed=1))
        searcher.ask(4)
        state = json.loads(json.dumps(searcher.get_state()))
        state["trials"][5][2] = 4
        with pytest.raises(StateError, match="tag"):
            searcher.set_state(state)
