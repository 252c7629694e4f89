"""`Search`: its documented fields and methods, one by one."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import searchers
from ciq_ray import Search, SearchConfiguration
from ciq_ray.ciq import Search as SearchOfTheDocument
from ciq_ray.errors import ConfigurationError, SearchSpaceError
from ciq_ray.search_spaces.base import choice, literal
from ciq_ray.search_spaces.base import range as range_of
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from ciq_ray.searching import make_searcher
from ciq_ray.types import LoguruTrackerConfig, Score, Worker, WorkerTypes

SPACE = {"x": range_of(0, 30), "y": choice(["a", "b", "c"])}


def named_objective(config: dict[str, Any]) -> float:
    return (config["x"] - 7) ** 2 + "abc".index(config["y"]) * 0.25


def without_a_name() -> Callable[[dict[str, Any]], float]:
    """It goes to worker processes by value, so that they need not import all that this module does."""

    def objective(config):
        return (config["x"] - 7) ** 2 + "abc".index(config["y"]) * 0.25

    return objective


objective = without_a_name()


def make(**fields: Any) -> Search:
    return Search(
        **{
            "objective_function": objective,
            "search_space": SPACE,
            "search_config": {"generations": 2, "pool_size": 8},
            "disable_progress_bar": True,
            "seed": 4,
            **fields,
        }
    )


def header(runs: Path, run: int = 1) -> dict[str, Any]:
    first, *_ = (runs / str(run) / "journal.jsonl").read_bytes().splitlines()
    return json.loads(first)


def proposals(records: Any, run: Path) -> list[Any]:
    return [c["config"] for record in records(run) if record["t"] == "ask" for c in record["candidates"]]


def test_a_search_from_start_to_result(runs):
    search = make(search_config=SearchConfiguration(generations=4, pool_size=10))
    result = search.start(num_workers=2)
    table = result.get_results()
    assert len(table) == 40
    assert set(table["generation"]) == {0, 1, 2, 3}
    assert all(row["score"] == objective(row["params"]) for row in table.to_dict("records"))
    best = result.get_best_result()
    assert best["score"] == min(table["score"])
    assert (runs / "1" / "results.csv").is_file()


def test_it_is_where_the_document_has_it():
    assert SearchOfTheDocument is Search


def test_documented_fields_and_their_defaults():
    search = Search(objective_function=objective, search_space=SPACE, search_config={"generations": 1})
    assert search.worker_type is WorkerTypes.NATIVE
    assert search.tracker_config.type == "disabled"
    assert search.debug is False
    assert search.cache_folder is None
    assert search.dump_results is None
    assert search.disable_progress_bar is False
    assert search.exit_on_failure is True
    assert search.run_id is None
    assert search.current_generation == 0
    assert search.search_space_resolution_metadata is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective_function": 5}, "objective_function"),
        ({"search_config": {"generations": 0}}, "generations"),
        ({"search_config": {"generation": 5}}, "Did you mean `generations`"),
        ({"search_config": 5}, "search configuration cannot be made of 5"),
        ({"search_config": "nowhere.config"}, "there is no configuration file 'nowhere.config'"),
        ({"worker_type": "native2"}, "it must be one of native, isolated, ray, async"),
        ({"worker_type": int}, "it must be a subclass of Worker"),
        ({"tracker_config": "loguru"}, "tracker_config"),
        ({"run_id": -1}, "run_id"),
        ({"searcher": "genetics"}, "it must be one of auto, bayesian, de, de_surrogate, finite, genetic"),
        ({"searcher": 5}, "a SpaceSearcher class or an instance"),
        ({"seed": -1}, "seed"),
        ({"max_evaluations": 0}, "max_evaluations"),
        ({"time_budget_s": 0}, "time_budget_s"),
        ({"target": (1, 2)}, "give one finite score for each of 1 objectives"),
        ({"target": float("nan")}, "give one finite score"),
        ({"max_evaluation": 5}, "Did you mean `max_evaluations`"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        make(**fields)


def test_searcher_options_are_checked_before_anything_runs(runs):
    with pytest.raises(searchers.OptionError, match="`pools` is not an option of 'genetic'"):
        make(searcher_options={"pools": 5}).start(num_workers=1)
    with pytest.raises(searchers.OptionError, match="`pool` is not an option of RandomSearch; it has count"):
        make(searcher=searchers.RandomSearch, searcher_options={"pool": 5}).start(num_workers=1)


class Narrow(searchers.PatternSearch):
    """A pattern search of one's own, whose class attributes are others."""

    num_neighbors_cap = 5


@pytest.mark.parametrize("searcher", ["pattern", searchers.PatternSearch, Narrow])
def test_an_effort_is_an_option_of_names_and_classes(searcher):
    for options, initial in (({}, 30), ({"initial_population": 7}, 7)):
        quick = make_searcher(make(searcher=searcher, searcher_options={"effort": "quick", **options}), 4)
        assert (quick.initial_population, quick.copies, quick.max_generations) == (initial, 2, 5)
    assert make_searcher(make(searcher=searcher, searcher_options={"effort": "full"}), 4).copies == 5
    with pytest.raises(searchers.OptionError, match="`effort` is 'huge'"):
        make_searcher(make(searcher=searcher, searcher_options={"effort": "huge"}), 4)


def test_a_searcher_of_ones_own_has_an_effort_of_its_own():
    class Own(searchers.RandomSearch):
        def __init__(self, space, effort=1, *, metric=None, mode=None, seed=None, initial_configs=()):
            super().__init__(space, effort, metric=metric, mode=mode, seed=seed)

    assert make_searcher(make(searcher=Own, searcher_options={"effort": 3}), 4).count == 3
    assert make_searcher(make(searcher=Own), 4).count == 1


@pytest.mark.parametrize("searcher", ["pattern", searchers.PatternSearch])
def test_an_effort_is_resumed(searcher, runs):
    fields = {
        "searcher": searcher,
        "searcher_options": {"effort": "quick"},
        "search_config": {"generations": 9},
    }
    make(**fields, max_evaluations=4).start(num_workers=1)
    assert header(runs)["searcher_options"] == {"effort": "quick"}
    given = {"searcher": searcher} if isinstance(searcher, type) else {}
    again = Search.resume(runs / "1", objective, max_evaluations=60, disable_progress_bar=True, **given)
    assert again.searcher_options == {"effort": "quick"}
    resumed = again.start(num_workers=1).get_results()
    whole = make(**fields, max_evaluations=60).start(num_workers=1).get_results()
    assert resumed["params"].tolist() == whole["params"].tolist()


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_num_workers_is_checked(number):
    with pytest.raises(ConfigurationError, match="`num_workers` is"):
        make().start(num_workers=number)


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan"), True, "2"])
def test_task_timeout_is_checked(limit):
    with pytest.raises(ConfigurationError, match="`task_timeout` is"):
        make().start(task_timeout=limit)


def test_task_timeout_fails_a_candidate():
    def slow(config):
        import time

        time.sleep(30 if config["x"] % 2 else 0)
        return 1

    table = (
        make(objective_function=slow, max_evaluations=6).start(num_workers=2, task_timeout=0.3).get_results()
    )
    assert all(
        (row["status"] == "run_timeout") == (row["params"]["x"] % 2) for row in table.to_dict("records")
    )
    assert set(table["status"]) == {"ok", "run_timeout"}


def test_worker_arguments_nobody_uses_are_warned_about():
    with pytest.warns(UserWarning, match="does not use `num_gpus`"):
        make(max_evaluations=1).start(num_workers=1, num_gpus=1)


# -- search spaces --------------------------------------------------------------------------------


def test_space_object():
    space = searchers.Space({"x": searchers.Range(0, 9)}, ["x > 3"])
    search = make(search_space=space, objective_function=lambda config: config["x"], max_evaluations=6)
    assert search.space.size == 6
    assert sorted(search.start(num_workers=1).get_results()["score"]) == [4, 5, 6, 7, 8, 9]


def test_space_file(tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(searchers.Space({"x": searchers.Range(0, 9)}).to_dict()))
    for given in (path, str(path)):
        assert make(search_space=given).space.size == 10


def test_list_of_spaces_gives_a_list_of_parts(tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(searchers.Space({"z": searchers.Boolean()}).to_dict()))
    search = make(
        search_space=[{"x": range_of(0, 9)}, path, PtxasSearchSpace()],
        objective_function=lambda parts: parts[0]["x"] + parts[1]["z"] + len(parts[2]),
        max_evaluations=4,
        constraints=["parts[0]['x'] > 4"],
    )
    for first, second, third in (row["params"] for row in search.start(1).get_results().to_dict("records")):
        assert first["x"] > 4
        assert isinstance(second["z"], bool)
        assert isinstance(third, str)
    [record] = search.search_space_resolution_metadata
    assert record["compiler"] == "ptxas"


def test_provider_with_a_space_of_its_own():
    class Provider:
        def retrieve(self) -> dict[str, Any]:
            return {"x": range_of(0, 3)}

    search = make(search_space=Provider())
    assert search.space.size == 4
    assert len(search.search_space_resolution_metadata) == 1


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ({}, searchers.SpaceError, "has no parameters"),
        ([], searchers.SpaceError, "has no parameters"),
        ("", ConfigurationError, "must not be empty"),
        (5, ConfigurationError, "it must be a dict of parameters, a Space, a path"),
        ({"x": 5}, searchers.SpaceError, "which is not a parameter"),
        ("nowhere.json", SearchSpaceError, r"nowhere.json: cannot be read"),
        ([{"x": range_of(0, 1)}, 5], ConfigurationError, "it must be a dict of parameters"),
    ],
)
def test_bad_spaces_are_refused(space, error, message):
    with pytest.raises(error, match=message):
        make(search_space=space)


def test_constraints_hold_for_every_candidate():
    search = make(constraints=["x % 3 == 0", lambda config: config["y"] != "b"])
    table = search.start(num_workers=2).get_results()
    assert all(params["x"] % 3 == 0 and params["y"] != "b" for params in table["params"])


def test_constraint_that_nothing_satisfies():
    with pytest.raises(searchers.ConstraintError, match="x > 99"):
        make(constraints="x > 99")


def test_sample():
    samples = make(constraints=["x > 20"]).sample(50)
    assert len(samples) == 50
    assert all(set(sample) == {"x", "y"} and 20 < sample["x"] <= 30 for sample in samples)
    assert make().sample(5) == make().sample(5)
    assert len(make().sample()) == 1
    assert make().sample(0) == []
    with pytest.raises(ConfigurationError, match="`num_samples` is -1"):
        make().sample(-1)


def test_sample_prefers_seed_ranges_as_often_as_configured():
    space = {"x": range_of(0, 999, seed_low=0, seed_high=9)}
    config = {"generations": 1, "init_with_true_random_threshold": 0.5}
    low = sum(sample["x"] <= 9 for sample in make(search_space=space, search_config=config).sample(1000))
    assert 440 < low < 560
    config["init_with_true_random_threshold"] = None
    low = sum(sample["x"] <= 9 for sample in make(search_space=space, search_config=config).sample(1000))
    assert low < 40


def test_sample_runs_nothing(runs):
    make(objective_function=lambda config: 1 / 0).sample(3)
    assert not runs.exists()


# -- configuration --------------------------------------------------------------------------------


def test_configuration_from_a_file(tmp_path):
    path = tmp_path / "search.config"
    path.write_text('{"generations": 3, "pool_size": 9, "problem_type": "max"}')
    search = make(search_config=path)
    assert search.search_config.generations == 3
    assert search.start(num_workers=1).get_best_result()["params"]["x"] in (29, 30)


def test_several_objectives():
    search = make(
        objective_function=lambda config: (config["x"], 30 - config["x"]),
        search_config={"generations": 2, "pool_size": 8, "num_objectives": 2},
    )
    front = search.start(num_workers=2).get_best_result()
    assert len(front) > 3


# -- what is proposed -----------------------------------------------------------------------------


def test_initial_configs_go_first(runs, records):
    wanted = [{"x": 29, "y": "c"}, {"x": 3, "y": "b"}]
    make(initial_configs=wanted, max_evaluations=5).start(num_workers=1)
    assert proposals(records, runs / "1")[:2] == wanted


def test_default_of_the_space_goes_first_unless_told_otherwise(runs, records):
    space = searchers.Space(SPACE, default={"x": 11, "y": "b"})
    make(search_space=space, max_evaluations=3).start(num_workers=1)
    make(search_space=space, max_evaluations=3, initial_configs=[]).start(num_workers=1)
    assert proposals(records, runs / "1")[0] == {"x": 11, "y": "b"}
    assert proposals(records, runs / "2")[0] != {"x": 11, "y": "b"}


def test_initial_config_that_is_no_member_is_refused(runs):
    with pytest.raises(searchers.ConfigError, match="99 is not a value"):
        make(initial_configs=[{"x": 99, "y": "a"}]).start(num_workers=1)


def test_equal_seeds_give_equal_proposals(runs, records):
    def with_seed(seed: int | None, **options: Any) -> list[Any]:
        search = make(seed=seed, **options)
        search.start(num_workers=options.pop("workers", 1))
        return proposals(records, runs / str(search.run_id))

    first = with_seed(1)
    assert with_seed(1) == first
    assert with_seed(2) != first
    drawn = with_seed(None)
    assert header(runs, 4)["seed"] >= 0
    assert with_seed(header(runs, 4)["seed"]) == drawn


def test_strict_generations_do_not_depend_on_the_order_of_outcomes(runs, records):
    def jittery(config):
        import random
        import time

        time.sleep(random.random() / 100)
        return config["x"]

    found = []
    for workers in (1, 3):
        search = make(
            objective_function=jittery,
            searcher_options={"generational": True},
            search_config={"generations": 3, "pool_size": 8},
        )
        search.start(num_workers=workers)
        found.append(proposals(records, runs / str(search.run_id)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "searcher",
    [
        "random",
        searchers.RandomSearch,
        searchers.RandomSearch(count=6, seed=1),
        searchers.RandomSearch(searchers.Space(SPACE), count=6, seed=1),
    ],
    ids=["name", "class", "instance", "instance with a space"],
)
def test_searcher_as_name_class_and_instance(searcher):
    options = {"searcher_options": {"count": 6}} if isinstance(searcher, (str, type)) else {}
    assert len(make(searcher=searcher, **options).start(num_workers=2).get_results()) == 6


@pytest.mark.parametrize(
    ("searcher", "options", "message"),
    [
        (searchers.RandomSearch(), {"count": 5}, "for a searcher given by name or class"),
        (searchers.RandomSearch(searchers.Space({"z": searchers.Boolean()})), {}, "another space"),
    ],
)
def test_searcher_that_does_not_fit(searcher, options, message):
    with pytest.raises(ConfigurationError, match=message):
        make(searcher=searcher, searcher_options=options).start(num_workers=1)


def test_searcher_that_has_been_used():
    used = searchers.RandomSearch(searchers.Space(SPACE), seed=1)
    used.ask(1)
    with pytest.raises(ConfigurationError, match="has proposed candidates already"):
        make(searcher=used).start(num_workers=1)


def test_configuration_reaches_the_genetic_searcher(records, runs):
    config = {"generations": 2, "pool_size": 9, "cull_size": 2, "mutate_rate": 0.9}
    make(search_config=config).start(num_workers=1)
    generations = [c["generation"] for r in records(runs / "1") if r["t"] == "ask" for c in r["candidates"]]
    assert generations == [0] * 9 + [1] * 9


# -- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["isolated", WorkerTypes.ISOLATED])
def test_isolated(worker):
    def counts_calls(config):
        import builtins

        builtins.calls = getattr(builtins, "calls", 0) + 1
        return builtins.calls

    search = make(worker_type=worker, objective_function=counts_calls, max_evaluations=4)
    assert set(search.start(num_workers=2).get_results()["score"]) == {1}


def test_async():
    async def waits(config):
        import asyncio

        await asyncio.sleep(0.2)
        return config["x"]

    search = make(worker_type="async", objective_function=waits, max_evaluations=16)
    started = time.monotonic()
    assert len(search.start(num_workers=16).get_results()) == 16
    assert time.monotonic() - started < 16 * 0.2


class PoolsOfMine(Worker):
    """A worker as the document has it: a pool of parameters in, a list of scores out."""

    pools: list[int] = []  # noqa: RUF012 - shared on purpose: the search makes the instance

    def run(self, *, function, params_pool, params_ids, num_function_returns=1, num_workers=1, **kwargs):
        self.pools.append(len(params_pool))
        return [
            Score(score=function(params), params=params, param_id=id, num_objectives=num_function_returns)
            for params, id in zip(params_pool, params_ids, strict=True)
        ]

    @classmethod
    def create(cls, cache_folder, normalize, tracker):
        assert Path(cache_folder).is_dir()
        return cls(cache_folder, normalize, tracker)


def test_worker_of_ones_own():
    PoolsOfMine.pools.clear()
    table = make(worker_type=PoolsOfMine).start(num_workers=2).get_results()
    assert all(row["score"] == objective(row["params"]) for row in table.to_dict("records"))
    assert PoolsOfMine.pools == [8, 8]


def test_knocked_out_parameters_are_missing():
    seen = make(
        search_space={"x": range_of(0, 9), "flag": literal("-f", knockout_prob=0.5)},
        objective_function=lambda config: 2 if "flag" in config else 1,
    ).start(num_workers=1)
    assert set(seen.get_results()["score"]) == {1, 2}


def test_loguru_tracker_writes_the_life_cycle(tmp_path):
    log = tmp_path / "search.log"
    make(tracker_config=LoguruTrackerConfig(sink=str(log)), max_evaluations=3).start(num_workers=1)
    text = log.read_text()
    for line in (
        "search starts",
        "generation 0 starts",
        "evaluating",
        "scored",
        "generation 0 ends",
        "search ends",
    ):
        assert line in text


def test_a_search_in_another_thread(runs):
    results = []
    thread = threading.Thread(target=lambda: results.append(make(max_evaluations=3).start(num_workers=1)))
    thread.start()
    thread.join(60)
    assert len(results[0].get_results()) == 3


def test_start_prints_where_the_run_is(runs, capsys):
    make(max_evaluations=1).start(num_workers=1)
    assert capsys.readouterr().err == f"run 1: {os.fspath(runs / '1')}\n"
