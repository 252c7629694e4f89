from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from searchers import (
    Choice,
    GeneticSearch,
    Literal,
    OptionError,
    Outcome,
    PowerOfTwo,
    RandomSearch,
    Range,
    Space,
    create,
    effort,
)
from searchers.operators import LevelCrossover, LevelMutation, LevelProblem
from searchers.survival import reference_directions, select
from searchers.testing import loss, sequence

SPACE = Space({f"x{i}": Range(0, 15) for i in range(6)})


def run_block(searcher: GeneticSearch, size: int, passing: int | None = None) -> list[Any]:
    candidates = searcher.ask(size)
    for i, candidate in enumerate(candidates):
        ok = passing is None or i < passing
        searcher.tell(candidate.id, Outcome("ok", (loss(candidate.row),)) if ok else Outcome("run_error"))
    return candidates


def test_sizes_are_derived_from_the_objectives() -> None:
    assert [(effort.pool_size(n), effort.cull_size(effort.pool_size(n))) for n in (1, 2, 3)] == [
        (32, 16),
        (48, 24),
        (64, 32),
    ]
    assert (GeneticSearch(SPACE).pool_size, GeneticSearch(SPACE).cull_size) == (32, 16)
    two = GeneticSearch(SPACE, metric=["a", "b"], mode=["min", "min"])
    assert (two.pool_size, two.cull_size) == (48, 24)
    assert GeneticSearch(SPACE, pool_size=10).cull_size == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pool_size": 5}, "pool_size"),
        ({"pool_size": 7.5}, "pool_size"),
        ({"cull_size": 3}, "cull_size"),
        ({"cull_size": 0}, "cull_size"),
        ({"pool_size": 8, "cull_size": 8, "mode": "min"}, "cull_size"),
        ({"mutate_rate": 0.0}, "mutate_rate"),
        ({"mutate_rate": 1}, "mutate_rate"),
        ({"generations": 0}, "generations"),
        ({"init_with_true_random_threshold": 1.1}, "init_with_true_random_threshold"),
        ({"objective_weights": [1, -1]}, "objective_weights"),
        ({"objective_weights": []}, "objective_weights"),
        ({"objective_weights": [1.0, 2.0], "mode": "min"}, "objective_weights"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=f"`{named}`"):
        GeneticSearch(SPACE, **options)


def test_unknown_options_are_refused_with_the_list() -> None:
    with pytest.raises(OptionError, match=r"`poolsize`.*pool_size"):
        create("genetic", SPACE, poolsize=10)
    with pytest.raises(OptionError, match=r"genetic.*random.*did you mean 'genetic'"):
        create("genetics", SPACE)


def test_generations_bound_the_search() -> None:
    searcher = GeneticSearch(SPACE, generations=3, pool_size=10, seed=1)
    candidates = []
    while not searcher.finished:
        candidates += run_block(searcher, 7)
    assert [c.generation for c in candidates] == [0] * 10 + [1] * 10 + [2] * 10


def test_nobody_waits_for_a_generation() -> None:
    searcher = GeneticSearch(SPACE, generations=4, pool_size=10, seed=1)
    assert [c.generation for c in searcher.ask(35)] == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5


def test_breeding_uses_what_is_back() -> None:
    """With a straggler in the first block, later candidates are bred from the others."""
    searcher = GeneticSearch(SPACE, pool_size=20, seed=4)
    straggler, *rest = searcher.ask(21)
    for candidate in rest:
        searcher.tell(candidate.id, Outcome("ok", (loss(candidate.row),)))
    children = searcher.ask(20)
    parents = {c.row for c in rest}
    inherited = [
        all(any(row[j] == parent[j] for parent in parents) for j in range(6))
        for row in (c.row for c in children)
    ]
    assert np.mean([loss(c.row) for c in children]) < np.mean([loss(c.row) for c in rest])
    assert any(inherited)
    searcher.tell(straggler.id, Outcome("run_timeout"))
    assert searcher.generation_closed(0)


@pytest.mark.parametrize("in_flight", [1, 7])
def test_breeding_begins_with_a_whole_population(in_flight: int) -> None:
    """Random candidates have little in common with earlier ones, children much."""
    space = Space({f"c{i}": Choice(list("abcdefgh")) for i in range(30)})
    searcher = GeneticSearch(space, pool_size=20, seed=4)
    outstanding = searcher.ask(in_flight)
    told: list[Any] = []
    while len(told) < 60:
        candidate = outstanding.pop(0)
        ok = len(told) < 3 or len(told) >= 18  # three that pass early are no population
        searcher.tell(candidate.id, Outcome("ok", (float(len(told)),)) if ok else Outcome("wrong"))
        told.append(candidate)
        outstanding += searcher.ask(1)
    rows = np.array([candidate.row for candidate in told])
    # what each has in common with the most similar one before it; two random rows share an eighth
    shared = np.array([(rows[i] == rows[:i]).mean(axis=1).max() for i in range(1, len(rows))])
    first_child = 20 + in_flight - 1
    assert shared[: first_child - 1].max() < 0.5
    assert np.median(shared[first_child - 1 :]) > 0.5


def test_evaluations_made_elsewhere_count_as_a_population() -> None:
    searcher = GeneticSearch(SPACE, pool_size=20, seed=4)
    searcher.set_search_properties("m", "min", {})
    known = RandomSearch(SPACE, seed=1).ask(100)
    for candidate in known:
        searcher.add_evaluated_point(candidate.config, loss(candidate.row))
    children = [loss(candidate.row) for candidate in searcher.ask(20)]
    assert np.mean(children) < 0.6 * np.mean([loss(candidate.row) for candidate in known])


def test_generational_mode_waits() -> None:
    searcher = GeneticSearch(SPACE, pool_size=10, generational=True, seed=1)
    first = searcher.ask(15)
    assert len(first) == 10
    assert searcher.ask(5) == []
    assert not searcher.finished
    for candidate in first[:-1]:
        searcher.tell(candidate.id, Outcome("ok", (loss(candidate.row),)))
    assert searcher.ask(5) == []
    searcher.tell(first[-1].id, Outcome("wrong"))
    assert [c.generation for c in searcher.ask(50)] == [1] * 10


def test_generational_proposals_depend_neither_on_order_nor_on_batches() -> None:
    rng = np.random.default_rng(0)
    sequences = []
    for batch in (1, 3, 50):
        searcher = GeneticSearch(
            SPACE,
            pool_size=12,
            generational=True,
            seed=6,
            initial_configs=[{f"x{i}": 1 for i in range(6)}] * 2,
        )
        rows, pending = [], []
        while len(rows) < 120:
            candidates = searcher.ask(batch)
            rows += [c.row for c in candidates]
            pending += candidates
            if not candidates:
                for i in rng.permutation(len(pending)):
                    failed = int(pending[i].id) % 4 == 0
                    outcome = Outcome("run_error") if failed else Outcome("ok", (loss(pending[i].row),))
                    searcher.tell(pending[i].id, outcome)
                pending = []
        sequences.append(rows[:120])
    assert sequences[0] == sequences[1] == sequences[2]


def test_parents_are_the_fittest_and_survivors_last() -> None:
    searcher = GeneticSearch(SPACE, pool_size=20, cull_size=6, generational=True, seed=2)
    block = run_block(searcher, 20)
    ranked = [c.id for c in sorted(block, key=lambda c: (loss(c.row), int(c.id)))]
    assert [str(i) for i in searcher._parents] == ranked[:6]
    assert [str(i) for i in searcher._survivors] == ranked[:14]
    second = searcher.ask(20)
    for candidate in second:
        searcher.tell(candidate.id, Outcome("ok", (1e9 + int(candidate.id),)))
    assert [str(i) for i in searcher._survivors] == ranked[:14]


def test_failures_are_never_parents() -> None:
    searcher = GeneticSearch(SPACE, pool_size=20, seed=2)
    failed = {c.id for c in run_block(searcher, 40, passing=15)[15:]}
    assert not failed & {str(i) for i in searcher._mating_pool()}


@pytest.mark.parametrize(("large", "topped_up"), [(True, 20), (False, 3)])
def test_a_block_that_mostly_fails_is_topped_up(large: bool, topped_up: int) -> None:
    searcher = GeneticSearch(SPACE, pool_size=20, enable_large_fail_pool=large, generational=True, seed=1)
    run_block(searcher, 20, passing=1)
    assert not searcher.generation_closed(0)
    extra = searcher.ask(100)
    assert [c.generation for c in extra] == [0] * topped_up
    for candidate in extra:
        searcher.tell(candidate.id, Outcome("ok", (loss(candidate.row),)))
    assert searcher.generation_closed(0)


def test_twenty_per_cent_is_enough() -> None:
    searcher = GeneticSearch(SPACE, pool_size=20, generational=True, seed=1)
    run_block(searcher, 20, passing=4)
    assert searcher.generation_closed(0)


def test_topping_up_ends_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    searcher = GeneticSearch(SPACE, pool_size=10, generational=True, seed=1, generations=1)
    with caplog.at_level(logging.WARNING, logger="searchers.genetic"):
        asked = 0
        while not searcher.finished:
            asked += len(run_block(searcher, 100, passing=0))
    assert asked == 10 + effort.MAX_TOP_UPS * 10
    assert "generation 0: 0 of 110 candidates passed" in caplog.text


def test_mutation_rate_is_a_chance_for_each_candidate() -> None:
    """A gene that is neither parent's comes from mutation: so have `mutate_rate` of the children."""
    space = Space({f"c{i}": Choice(list("abcdefgh")) for i in range(30)})
    searcher = GeneticSearch(space, pool_size=200, mutate_rate=0.25, seed=3, generational=True)
    block = searcher.ask(200)
    for candidate in block:
        searcher.tell(candidate.id, Outcome("ok", (float(candidate.id),)))
    pool = np.array([searcher._trials[i].row for i in searcher._mating_pool()[:2]])
    children = searcher._children(2000, searcher._mating_pool()[:2], 0)
    foreign = ((children != pool[0]) & (children != pool[1])).any(axis=1)
    assert 0.2 < foreign.mean() < 0.3


def test_mutation_moves_an_active_gene() -> None:
    space = Space(
        {
            "a": Range(0, 2),
            "b": PowerOfTwo(1, 2),
            "c": Choice(list("xyz")),
            "one": Literal(5),
            "k": Range(0, 9, knockout_prob=0.5),
        }
    )
    problem = LevelProblem(space.encoding, 1)
    rng = np.random.default_rng(0)
    rows = space.sample(3000, rng)
    active = np.concatenate([~space.inactive(rows), np.ones((3000, 1), dtype=bool)], axis=1)
    mutated = LevelMutation()._do(problem, rows, random_state=rng, active=active)
    assert (mutated != rows).any(axis=1).all()
    assert (mutated[:, 3] == 0).all()
    assert (mutated >= 0).all()
    assert (mutated < space.encoding.n_levels).all()
    knocked = rows[:, 5] == 1
    assert (mutated[knocked, 4] == rows[knocked, 4]).all()
    # every level of every gene is reached, ends as well
    for column, levels in enumerate(space.encoding.n_levels):
        assert set(mutated[:, column].tolist()) == set(range(levels))


def test_crossover_keeps_bits_with_their_genes_and_stays_inside() -> None:
    space = Space({"c": Choice(list("abcd"), knockout_prob=0.5), "x": Range(0, 99), "d": Choice(list("ab"))})
    problem = LevelProblem(space.encoding, 1)
    rng = np.random.default_rng(0)
    parents = np.array([[[0, 10, 0, 0]] * 500, [[3, 60, 1, 1]] * 500], dtype=np.int32)
    children = LevelCrossover()._do(problem, parents, random_state=rng).reshape(-1, 4)
    assert set(map(tuple, children[:, [0, 3]].tolist())) == {(0, 0), (3, 1)}
    assert set(children[:, 2].tolist()) == {0, 1}
    assert (children[:, 1] >= 0).all()
    assert (children[:, 1] <= 99).all()
    assert len(set(children[:, 1].tolist())) > 20


def test_it_finds_the_optimum_of_a_smooth_function() -> None:
    wins = 0
    for seed in range(5):
        searcher = GeneticSearch(SPACE, seed=seed)
        sequence(searcher, 1500, batch=8)
        wins += searcher.best is not None and searcher.best[1].values == (0.0,)
    assert wins >= 4  # random search needs 16**6 = 17 million


def test_seed_ranges_shape_the_first_block() -> None:
    space = Space({"x": Range(0, 9999, seed_low=10, seed_high=499), "y": Range(0, 9)})
    first = GeneticSearch(space, pool_size=400, seed=1, init_with_true_random_threshold=0.9).ask(400)
    inside = sum(10 <= c.config["x"] <= 499 for c in first) / 400
    assert 0.85 < inside < 0.96
    anywhere = GeneticSearch(space, pool_size=400, seed=1, init_with_true_random_threshold=None).ask(400)
    assert sum(10 <= c.config["x"] <= 499 for c in anywhere) / 400 < 0.1


@pytest.mark.parametrize("n", [2, 3, 5])
def test_many_objectives_spread_over_the_front(n: int) -> None:
    """x_i traded against each other: the front is every row with the right sum; extremes are found."""
    space = Space({f"x{i}": Range(0, 9) for i in range(n)}, [f"{'+'.join(f'x{i}' for i in range(n))} >= 9"])
    searcher = GeneticSearch(space, metric=[f"m{i}" for i in range(n)], mode=["min"] * n, seed=1)
    for _ in range(40):
        for candidate in searcher.ask(32):
            searcher.tell(candidate.id, Outcome("ok", tuple(float(v) for v in candidate.config.values())))
    front = {outcome.values for _, outcome in searcher.front}
    # 1,280 evaluations of 100, 1,000 and 100,000 configurations; the fronts have 10, 55 and 715 members
    share, least = {2: (1.0, 10), 3: (1.0, 50), 5: (0.5, 80)}[n]
    assert np.mean([sum(values) == 9 for values in front]) >= share
    assert len(front) >= least


def test_weights_bend_reference_directions() -> None:
    plain = reference_directions(3, 64)
    heavy = reference_directions(3, 64, [4.0, 1.0, 1.0])
    np.testing.assert_allclose(heavy.sum(axis=1), 1.0)
    assert heavy[:, 0].mean() < plain[:, 0].mean()
    for unit in np.eye(3):
        assert (np.abs(heavy - unit).sum(axis=1) < 1e-9).any()
    np.testing.assert_allclose(reference_directions(3, 64, [2.0, 2.0, 2.0]), plain)


def test_weights_shift_the_search() -> None:
    space = Space({"x": Range(0, 60), "noise": Range(0, 9)})
    means = []
    for weights in ([8.0, 1.0], [1.0, 8.0]):
        searcher = GeneticSearch(
            space, metric=["a", "b"], mode=["min", "min"], objective_weights=weights, seed=3
        )
        for _ in range(8):
            for candidate in searcher.ask(48):
                x, waste = candidate.config["x"], candidate.config["noise"]
                searcher.tell(candidate.id, Outcome("ok", (float(x + waste), float(60 - x + waste))))
        means.append(np.mean([searcher._trials[i].row[0] for i in searcher._parents]))
    assert means[0] < means[1] - 5


def test_survival_is_seeded_and_leaves_warnings_alone() -> None:
    import warnings

    losses = np.random.default_rng(1).random((60, 4))
    directions = reference_directions(4, 40)
    before = list(warnings.filters)
    picks = [select(losses, 30, np.random.default_rng(5), directions).tolist() for _ in range(2)]
    assert picks[0] == picks[1]
    assert warnings.filters == before
    assert select(np.array([[3.0], [1.0], [2.0]]), 2, np.random.default_rng(0)).tolist() == [1, 2]


def test_relabelled_parent_loses_its_place() -> None:
    searcher = GeneticSearch(SPACE, pool_size=20, cull_size=2, seed=1)
    block = run_block(searcher, 20)
    lucky = min(block, key=lambda c: loss(c.row))
    assert lucky.id in {str(i) for i in searcher._mating_pool()}
    searcher.tell(lucky.id, Outcome("ok", (1e9,)))
    assert lucky.id not in {str(i) for i in searcher._mating_pool()}
