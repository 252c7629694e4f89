"""`Search` with a cache: what it begins with, what it leaves, and that resuming does not read it again."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import Search
from ciq_ray.cache import (
    LocalAutotuneCache,
    StrictLocalAutotuneCache,
    best_configs_dir,
    hardware,
    iter_cache_entries,
)
from ciq_ray.errors import ConfigurationError, JournalError
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from ciq_ray.searching import effective_options, make_searcher, raw_config
from ciq_ray.warm_start import WarmStart
from searchers import (
    DifferentialEvolutionSearch,
    InitialPopulationStrategy,
    OptionError,
    RandomSearch,
    Range,
    Space,
)

PARAMETERS = {"x": Range(0, 999), "y": Range(0, 9)}


def objectives() -> Any:
    """Functions that go to worker processes by value: they need not import this module."""

    def far(config: dict[str, int]) -> float:
        return abs(config["x"] - 321) + config["y"]

    def failing(config: dict[str, int]) -> float:
        raise ValueError("no")

    def two(config: dict[str, int]) -> tuple[float, float]:
        return float(config["x"]), float(-config["x"] + config["y"])

    def length(config: list[Any]) -> float:
        return len(config[0]) + config[1]["x"]

    return far, failing, two, length


far, failing, two, length = objectives()


def search(**fields: Any) -> Search:
    return Search(
        **{
            "objective_function": far,
            "search_space": Space(PARAMETERS, default={"x": 0, "y": 0}),
            "search_config": {"generations": 2, "pool_size": 20},
            "disable_progress_bar": True,
            "seed": 1,
            **fields,
        }
    )


def entries() -> list[Any]:
    return list(iter_cache_entries(best_configs_dir()))


def proposed(runs: Path, run_id: int) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (runs / str(run_id) / "journal.jsonl").read_text().splitlines()]
    return [c["config"] for line in lines if line["t"] == "ask" for c in line["candidates"]]


@pytest.fixture
def first() -> float:
    """A search that has left its best for n = 1024; its best score."""
    result = search(cache=True, specialization_key={"n": 1024}).start(num_workers=1)
    return float(result.get_best_result()["score"])


class TestBeginning:
    def test_the_same_search_again_begins_with_what_the_first_one_found(
        self, first: float, runs: Path
    ) -> None:
        (entry,) = entries()
        assert entry.values == (first,)
        again = search(cache=True, specialization_key={"n": 1024}, seed=2, max_evaluations=20)
        assert again.start(num_workers=1).get_best_result()["score"] <= first
        saved = [entry.config, *(one.config for one in entry.runners_up)]
        assert len(saved) == 5
        assert proposed(runs, 2)[:6] == [{"x": 0, "y": 0}, *saved]

    def test_a_similar_shape_begins_with_its_neighbours(self, first: float, runs: Path) -> None:
        search(cache=True, specialization_key={"n": 1000}, seed=2, max_evaluations=3).start(num_workers=1)
        assert proposed(runs, 2)[1] == entries()[-1].config

    def test_initial_configs_come_first(self, first: float, runs: Path) -> None:
        own = {"x": 500, "y": 5}
        search(cache=True, specialization_key={"n": 1024}, initial_configs=[own], max_evaluations=3).start(
            num_workers=1
        )
        assert proposed(runs, 2)[:2] == [own, entries()[0].config]

    def test_no_effort_evaluates_none_of_it(self, first: float, runs: Path) -> None:
        before = entries()
        fields = {"cache": True, "specialization_key": {"n": 1024}, "searcher_options": {"effort": "none"}}
        search(**fields).start(num_workers=1)
        assert proposed(runs, 2) == [{"x": 0, "y": 0}]
        assert entries()[0].config == before[0].config
        search(**fields, initial_configs=[{"x": 5, "y": 5}]).start(num_workers=1)
        assert proposed(runs, 3) == [{"x": 5, "y": 5}, {"x": 0, "y": 0}]

    @pytest.mark.parametrize("cache", [None, False])
    def test_off_by_default(self, first: float, runs: Path, cache: Any) -> None:
        before = entries()
        search(cache=cache, specialization_key={"n": 1024}, seed=2, max_evaluations=8).start(num_workers=1)
        assert entries() == before
        assert before[0].config not in proposed(runs, 2)[:2]

    def test_from_best_available_switches_it_on(self, first: float, runs: Path) -> None:
        fields = {
            "searcher": "de",
            "searcher_options": {
                "initial_population_strategy": InitialPopulationStrategy.FROM_BEST_AVAILABLE,
                "population_size": 10,
            },
            "specialization_key": {"n": 1024},
        }
        search(**fields, max_evaluations=8).start(num_workers=1)
        assert proposed(runs, 2)[1] == entries()[0].config
        search(**fields, max_evaluations=8, cache=False).start(num_workers=1)
        assert entries()[0].config not in proposed(runs, 3)

    def test_configurations_that_are_texts(self, runs: Path) -> None:
        fields = {
            "objective_function": length,
            "search_space": [PtxasSearchSpace("13.3"), {"x": Range(0, 5)}],
        }
        result = search(**fields, cache=True, max_evaluations=10).start(num_workers=1)
        again = search(**fields, cache=True, max_evaluations=2, seed=2).start(num_workers=1)
        best = result.get_best_result()
        assert proposed(runs, 2)[0] == best["params"]
        assert again.get_best_result()["score"] <= best["score"]

    def test_a_folder_of_its_own(self, tmp_path: Path) -> None:
        search(cache=str(tmp_path / "mine"), max_evaluations=5).start(num_workers=1)
        assert len(list(iter_cache_entries(tmp_path / "mine"))) == 1
        assert entries() == []

    def test_the_strict_one(self) -> None:
        search(cache=StrictLocalAutotuneCache, max_evaluations=5).start(num_workers=1)
        assert entries()[0].libraries is not None

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"cache": 3}, "cache"),
            ({"cache": RandomSearch}, "cache"),
            ({"specialization_key": {1}}, "special"),
        ],
    )
    def test_bad_fields(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            search(**fields)


class TestLeaving:
    def test_the_best_of_a_maximum(self) -> None:
        config = {"generations": 1, "pool_size": 12, "problem_type": "max"}
        result = search(cache=True, search_config=config).start(num_workers=1)
        assert entries()[0].values == (result.get_best_result()["score"],)
        assert entries()[0].modes == ("max",)

    def test_the_front_of_several_objectives(self) -> None:
        config = {"generations": 2, "pool_size": 12, "num_objectives": 2}
        search(cache=True, search_config=config, objective_function=two).start(num_workers=1)
        (entry,) = entries()
        values = [one.values for one in (entry, *entry.runners_up)]
        assert len(values) > 1
        for a, b in values:
            assert not any(c <= a and d <= b and (c, d) != (a, b) for c, d in values)

    def test_nothing_of_a_search_that_only_failed(self) -> None:
        search(cache=True, objective_function=failing, exit_on_failure=False, max_evaluations=4).start(
            num_workers=1
        )
        assert entries() == []

    def test_trouble_with_the_cache_ends_no_search(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.WARNING):
            result = search(cache=tmp_path / "file", max_evaluations=4).start(num_workers=1)
        assert len(result) == 4
        assert "not in the cache" in caplog.text


class TestResuming:
    def test_the_cache_is_not_read_again(self, first: float, runs: Path) -> None:
        search(cache=True, specialization_key={"n": 1024}, seed=2, max_evaluations=6).start(num_workers=1)
        best = entries()[0].config
        shutil.rmtree(best_configs_dir())
        resumed = Search.resume(runs / "2", far, max_evaluations=9, disable_progress_bar=True)
        assert resumed.cache is True
        assert resumed.specialization_key == {"n": 1024}
        assert len(resumed.start(num_workers=1)) == 9
        assert proposed(runs, 2)[1] == best
        assert best in [entry.config for entry in entries()]  # and it is left there again

    def test_the_first_of_the_cached_is_no_baseline(self, first: float, runs: Path) -> None:
        plain = Space(PARAMETERS)
        search(cache=True, search_space=plain, seed=2, max_evaluations=6).start(num_workers=1)
        search(cache=True, search_space=plain, seed=3, max_evaluations=6).start(num_workers=1)
        assert Search.resume(runs / "3", far).initial_configs is None

    @pytest.mark.parametrize("cache", [None, False, True, StrictLocalAutotuneCache, "folder"])
    def test_what_was_chosen_is_known(self, runs: Path, tmp_path: Path, cache: Any) -> None:
        if cache == "folder":
            cache = tmp_path / "mine"
        search(cache=cache, max_evaluations=2).start(num_workers=1)
        assert Search.resume(runs / "1", far).cache == cache

    def test_a_cache_of_ones_own_has_to_be_given(self, runs: Path) -> None:
        class Mine(LocalAutotuneCache):
            pass

        search(cache=Mine, max_evaluations=2).start(num_workers=1)
        with pytest.raises(JournalError, match="`cache`"):
            Search.resume(runs / "1", far)
        assert Search.resume(runs / "1", far, cache=Mine).cache is Mine


class TestEnvironment:
    def test_it_overrides(self, first: float, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "from_default")
        fields: dict[str, Any] = {
            "searcher": "de",
            "searcher_options": {"initial_population_strategy": "from_random", "population_size": 8},
            "search_space": Space(PARAMETERS, default={"x": 7, "y": 7}),
        }
        search(**fields, max_evaluations=3).start(num_workers=1)
        one_value = [config for config in proposed(runs, 2)[1:3] if 7 in config.values()]
        assert proposed(runs, 2)[0] == {"x": 7, "y": 7}
        assert len(one_value) == 2  # mutants of the default, not random ones

    def test_resuming_takes_what_was_in_force(self, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "from_default")
        options = {"population_size": 8}
        search(searcher="de", searcher_options=options, max_evaluations=5).start(num_workers=1)
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "from_random")
        resumed = Search.resume(runs / "1", far, max_evaluations=9, disable_progress_bar=True)
        assert len(resumed.start(num_workers=1)) == 9

    def test_unknown_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "best")
        with pytest.raises(
            ConfigurationError, match=r"CIQ_AUTOTUNER_INITIAL_POPULATION is 'best'.*from_default"
        ):
            search(searcher="de").start(num_workers=1)

    @pytest.mark.parametrize("searcher", ["genetic", "de", DifferentialEvolutionSearch()])
    def test_a_slip_shows_with_every_searcher(self, monkeypatch: pytest.MonkeyPatch, searcher: Any) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "best")
        with pytest.raises(ConfigurationError, match="CIQ_AUTOTUNER_INITIAL_POPULATION is 'best'"):
            effective_options(search(searcher=searcher))

    def test_searchers_without_the_option_do_not_care(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", " from_default ")
        assert effective_options(search()) == {}
        instance = DifferentialEvolutionSearch()
        assert effective_options(search(searcher=instance)) == {}
        assert effective_options(search(searcher=DifferentialEvolutionSearch)) == {
            "initial_population_strategy": "from_default"
        }

    def test_a_default_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "from_default")
        fields: dict[str, Any] = {"searcher": "de", "search_space": Space(PARAMETERS)}
        message = r"CIQ_AUTOTUNER_INITIAL_POPULATION is 'from_default', .* no default; unset it"
        with pytest.raises(ConfigurationError, match=message):
            search(**fields).start(num_workers=1)
        own = {"initial_population_strategy": "from_default"}
        with pytest.raises(OptionError, match="`initial_population_strategy` is 'from_default'"):
            search(**fields, searcher_options=own).start(num_workers=1)
        assert make_searcher(search(**fields, initial_configs=[{"x": 1, "y": 1}]), 1).ask(1)
        assert make_searcher(search(**fields), 1, further_rows=[[1, 1]]).ask(1)


class TestInstances:
    """They are taken as they are, and the log says what that means."""

    def best_first(self) -> DifferentialEvolutionSearch:
        return DifferentialEvolutionSearch(initial_population_strategy="from_best_available")

    def said(self, caplog: pytest.LogCaptureFixture, rows: int = 0, **fields: Any) -> str:
        make_searcher(search(**fields), 1, further_rows=[[1, 1]] * rows)
        return caplog.text

    def test_nothing_from_the_cache(self, caplog: pytest.LogCaptureFixture) -> None:
        text = self.said(caplog, 3, searcher=RandomSearch(), cache=True)
        assert "`searcher` is an instance" in text
        assert "does not begin with the 3 configurations of the cache" in text
        assert "give its name or class" in text

    def test_the_cache_stays_off(self, caplog: pytest.LogCaptureFixture) -> None:
        text = self.said(caplog, searcher=self.best_first())
        assert "'from_best_available' does not switch the cache on" in text

    def test_the_environment_changes_nothing(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "from_default")
        text = self.said(caplog, searcher=DifferentialEvolutionSearch())
        assert "CIQ_AUTOTUNER_INITIAL_POPULATION does not override its initial_population_strategy" in text

    def test_nothing_is_said_where_nothing_is_missed(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CIQ_AUTOTUNER_INITIAL_POPULATION", "from_best_available")
        assert self.said(caplog, searcher=RandomSearch(), cache=True) == ""
        assert self.said(caplog, searcher=self.best_first(), cache=False) == ""
        assert self.said(caplog, 3, searcher="random") == ""


def test_raw_config_leaves_out_what_a_condition_takes_out() -> None:
    space = Space({"x": Range(0, 3), "y": Range(0, 3, when="x > 1"), "z": Range(0, 3, knockout_prob=0.5)})
    for given in ({"x": 0}, {"x": 2, "y": 1}, {"x": 1, "z": 3}):
        row = space.encode(given)
        assert raw_config(space, row.tolist()) == given
        assert (space.encode(raw_config(space, row.tolist())) == row).all()


def test_resuming_a_run_whose_initial_config_has_a_condition_that_is_off(
    runs: Path, records: Callable[[Path], list[dict[str, Any]]]
) -> None:
    space = Space({"x": Range(0, 99), "y": Range(0, 9), "z": Range(0, 3, when="x > 50")})
    given = {"x": 1, "y": 2}
    search(search_space=space, initial_configs=[given], max_evaluations=2).start(num_workers=1)
    assert records(runs / "1")[0]["initial_rows"] == [[1, 2, 0]]
    resumed = Search.resume(runs / "1", far, max_evaluations=3, disable_progress_bar=True)
    assert resumed.initial_configs == [given]
    assert len(resumed.start(num_workers=1)) == 3


def test_what_is_asked_of_the_nodes_of_a_cluster_is_a_part_of_the_key() -> None:
    """A machine without GPUs may start searches on pools of different ones."""

    def hardware_of(worker_type: str, **options: Any) -> str:
        warm = WarmStart(search(cache=True, worker_type=worker_type), {}, options)
        assert warm._cache is not None
        return warm._cache._blank.hardware

    here = hardware_of("native", num_gpus=1)
    assert here == hardware_of("ray") == hardware_of("ray", num_cpus=4, num_gpus=0) == hardware()
    assert hardware_of("ray", num_gpus=1) == f"{here}; num_gpus=1"
    pools = {hardware_of("ray", num_gpus=1, accelerator_type=name) for name in ("H100", "L40S")}
    assert len(pools) == 2
