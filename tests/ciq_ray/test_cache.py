"""The best-config cache: keys, neighbours, files, processes that write at the same time."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import landscape
from ciq_ray import Search, SearchConfiguration
from ciq_ray import cache as caches
from ciq_ray._cache import identity
from ciq_ray.cache import (
    LocalAutotuneCache,
    SavedBestConfig,
    StrictLocalAutotuneCache,
    best_configs_dir,
    get_cache_dir,
    get_helion_cache_dir,
    helion_triton_cache_dir,
    iter_cache_entries,
)
from ciq_ray.errors import ConfigurationError
from searchers import Choice, ConfigError, GeneticSearch, Literal, Outcome, RandomSearch, Range, Space

SPACE = Space({"x": Range(0, 99), "y": Choice(["a", ("t", 1)]), "flag": Literal("-f", knockout_prob=0.5)})


def config(x: int, **more: Any) -> dict[str, Any]:
    return {"x": x, "y": "a", **more}


def of(key: Any = "", **options: Any) -> LocalAutotuneCache:
    return LocalAutotuneCache(SPACE, specialization_key=key, **options)


def found(cache: LocalAutotuneCache, limit: int = 20) -> list[int]:
    return [saved.config["x"] for saved in cache.best_available(limit)]


class TestFolders:
    def test_the_root(self, tmp_path: Path) -> None:
        assert get_cache_dir() == get_helion_cache_dir() == tmp_path / "cache"
        assert best_configs_dir().parent == get_cache_dir()

    def test_triton_has_one_for_each_device(self) -> None:
        assert helion_triton_cache_dir(1) == get_cache_dir() / "triton" / "1"
        for bad in (-1, "0", True):
            with pytest.raises(ConfigurationError, match="device_index"):
                helion_triton_cache_dir(bad)  # type: ignore[arg-type]


class TestEntries:
    def test_the_documented_fields_come_first(self) -> None:
        fields = [field.name for field in dataclasses.fields(SavedBestConfig)]
        assert fields[:5] == ["hardware", "specialization_key", "config", "config_spec_hash", "flat_config"]

    def test_there_and_back(self) -> None:
        cache = of((64, "fp16"), hardware="H100")
        assert cache.get() is None
        cache.put({"x": 3, "y": ("t", 1), "flag": "-f"}, 0.25)
        saved = cache.get()
        assert saved is not None
        assert saved.hardware == "H100"
        assert saved.specialization_key == '[64,"fp16"]'
        assert saved.config == {"x": 3, "y": ("t", 1), "flag": "-f"}
        assert saved.config_spec_hash == SPACE.fingerprint
        assert saved.flat_config == (3, 1, 0, 0)
        assert saved.values == (0.25,)
        (read,) = iter_cache_entries(best_configs_dir())
        assert read.config == {"x": 3, "y": ["t", 1], "flag": "-f"}  # as JSON has it

    def test_the_best_few_are_kept_in_order(self) -> None:
        cache = of()
        cache.put_all([(config(x), 100 - x) for x in (5, 1, 9, 3, 7, 2)])
        cache.put(config(6), [94.0])
        assert found(cache) == [9, 7, 6, 5, 3]
        assert len(list(best_configs_dir().glob("*.best_config"))) == 1

    def test_the_better_one_stays(self) -> None:
        cache = of()
        cache.put(config(1), 1.0)
        cache.put(config(2), 2.0)
        assert cache.get().config["x"] == 1  # type: ignore[union-attr]

    def test_a_maximum(self) -> None:
        cache = LocalAutotuneCache(RandomSearch(SPACE, metric="m", mode="max"))
        cache.put_all([(config(1), 1.0), (config(2), 2.0)])
        assert found(cache) == [2, 1]
        assert found(LocalAutotuneCache(RandomSearch(SPACE, metric="m", mode="min"))) == []

    def test_of_the_same_configuration_the_newer_score_counts(self) -> None:
        cache = of()
        cache.put_all([(config(1), 0.1), (config(2), 0.5)])
        cache.put(config(1), 0.9)
        assert found(cache) == [2, 1]

    def test_also_if_it_is_none_of_the_best_any_more(self) -> None:
        cache = of()
        cache.put(config(50), 0.001)  # a lucky measurement
        cache.put_all([(config(x), 1.0 + x) for x in range(60)])
        assert found(cache) == [0, 1, 2, 3, 4]

    def test_what_has_failed_since_is_dropped(self) -> None:
        cache = of()
        cache.put_all([(config(1), 0.1), (config(2), 0.5)])
        cache.put_all([], failed=[config(1)])
        assert found(cache) == [2]
        cache.put_all([], failed=[config(2)])
        assert cache.get() is None
        assert not cache.file.exists()

    def test_several_objectives(self) -> None:
        cache = LocalAutotuneCache(GeneticSearch(SPACE, metric=["a", "b"], mode=["min", "max"]))
        cache.put_all([(config(1), (1.0, 2.0)), (config(2), (0.5, 1.0))])
        cache.put(config(3), (9.0, 9.0))
        assert found(cache) == [3, 1, 2]
        with pytest.raises(ConfigurationError, match="score"):
            cache.put(config(3), 1.0)

    @pytest.mark.parametrize(
        "score",
        [
            float("nan"),
            float("inf"),
            (1.0, 2.0),
            (),
            "x",
            "1",
            None,
            [None],
            pytest.param(10**400, id="huge"),
        ],
    )
    def test_bad_scores(self, score: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"`score` is .* it must be one finite number"):
            of().put(config(1), score)

    def test_no_member(self) -> None:
        with pytest.raises(ConfigError):
            of().put({"x": 1000, "y": "a"}, 1.0)

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigurationError, match="cannot write"):
            of(path=tmp_path / "file").put(config(1), 1.0)

    @pytest.mark.parametrize("bad", [None, 3, RandomSearch(None)])
    def test_no_autotuner(self, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match="autotuner"):
            LocalAutotuneCache(bad)

    def test_bad_specialization_key(self) -> None:
        with pytest.raises(ConfigurationError, match="specialization_key"):
            of({1, 2})


class TestIteration:
    def write(self, names: str) -> list[Path]:
        files = []
        for age, name in enumerate(names):
            cache = of(name)
            cache.put(config(age), 1.0)
            os.utime(cache.file, (1e9 + age, 1e9 + age))
            files.append(cache.file)
        return files

    def test_newest_first(self) -> None:
        self.write("abc")
        entries = list(iter_cache_entries(best_configs_dir()))
        assert [entry.specialization_key for entry in entries] == ["c", "b", "a"]
        assert [e.specialization_key for e in iter_cache_entries(str(best_configs_dir()), max_scan=2)] == [
            "c",
            "b",
        ]

    @pytest.mark.parametrize("bad", [-1, 1.5, "x", True])
    def test_bad_max_scan(self, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"`max_scan` is {bad!r}; it must be a whole number"):
            iter_cache_entries(best_configs_dir(), max_scan=bad)

    def test_nothing_to_look_at(self) -> None:
        self.write("abc")
        assert list(iter_cache_entries(best_configs_dir(), max_scan=0)) == []

    def test_no_folder(self, tmp_path: Path) -> None:
        assert list(iter_cache_entries(tmp_path / "none")) == []

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b"[" * 100_000,
            {"format": "other"},
            {"version": 2},
            {"hardware": 3},
            {"modes": []},
            {"modes": ["best"]},
            {"best": []},
            {"best": [{"config": {}, "row": [0, -1], "values": [1.0]}]},
            {"best": [{"config": {}, "row": "0", "values": [1.0]}]},
            {"best": [{"config": {}, "row": [0, 0, 0, 0], "values": []}]},
            {"best": [{"config": {}, "row": [0, 0, 0, 0], "values": [None]}]},
            {"best": [{"row": [0, 0, 0, 0], "values": [1.0]}]},
            {"best": [{"config": {}, "row": [0, 0, 0, 0], "values": [10**400]}]},
            {"saved_at": "now"},
            {"saved_at": 10**400},
            {"libraries": 1},
        ],
    )
    def test_corrupt_files_are_skipped_with_a_warning(
        self, content: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, damaged, _ = self.write("abc")
        if isinstance(content, dict):
            content = json.dumps({**json.loads(damaged.read_text()), **content}).encode()
        damaged.write_bytes(content)
        os.utime(damaged, (1e9 + 1, 1e9 + 1))
        with caplog.at_level(logging.WARNING):
            entries = list(iter_cache_entries(best_configs_dir()))
        assert [entry.specialization_key for entry in entries] == ["c", "a"]
        assert damaged.name in caplog.text
        assert of("b").get() is None
        of("b").put(config(7), 1.0)  # a damaged entry is replaced
        assert of("b").get().config["x"] == 7  # type: ignore[union-attr]

    @pytest.mark.parametrize("row", [[5], [100, 0, 0, 0], [0, 0, 0, 0, 0]])
    def test_rows_of_another_space_are_not_used(
        self, row: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        (file,) = self.write("a")
        data = json.loads(file.read_text())
        data["best"].append({"config": {}, "row": row, "values": [0.0]})
        data["best"].reverse()
        file.write_text(json.dumps(data))
        assert found(of("a")) == [0]
        assert "not of its space" in caplog.text


def objective(config: dict[str, Any]) -> float:
    return float(config["x"])


def other_objective(config: dict[str, Any]) -> float:
    return 2.0 * config["x"]


@pytest.fixture
def unknown_gpus() -> Iterator[None]:
    """What GPUs there are is looked up anew, and forgotten again."""
    identity._gpus.cache_clear()
    yield
    identity._gpus.cache_clear()


class TestKeys:
    def test_every_part_counts(self) -> None:
        search = GeneticSearch(SPACE, metric="m", mode="max")
        files = {
            of().file,
            of(1).file,
            of(hardware="H100").file,
            of(objective=objective).file,
            of(objective=other_objective).file,
            of(objective=functools.partial(objective, extra=1)).file,
            LocalAutotuneCache(search).file,
            LocalAutotuneCache(Space({"x": Range(0, 99)})).file,
            StrictLocalAutotuneCache(SPACE).file,
        }
        assert len(files) == 9

    def test_it_is_the_same_in_each_process(self) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_file_name) == _file_name()

    def test_a_search_has_all_of_it(self) -> None:
        search = Search(
            objective_function=objective,
            search_space=SPACE,
            search_config=SearchConfiguration(generations=1, problem_type="max", normalize=True),
            specialization_key={"n": 4},
        )
        cache = LocalAutotuneCache(search)
        cache.put(config(1), 2.0)
        saved = cache.get()
        assert saved is not None
        assert (saved.modes, saved.normalized, saved.objective) == (("max",), True, "objective")
        assert saved.specialization_key == '{"n":4}'
        assert saved.source is not None
        assert saved.libraries is None

    def test_a_command_is_known_by_its_words_and_files(self, tmp_path: Path) -> None:
        from ciq_ray.commands import CommandObjective

        (tmp_path / "run.sh").write_text("echo 1")

        def source(*words: str) -> str | None:
            return identity.objective_identity(CommandObjective(words, directory=tmp_path))[1]

        first = source("sh", "run.sh")
        assert source("sh", "run.sh") == first
        assert source("sh", "run.sh", "{x}") != first
        (tmp_path / "run.sh").write_text("echo 2")
        assert source("sh", "run.sh") != first

    def test_strict_means_versions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        strict = functools.partial(StrictLocalAutotuneCache, SPACE)
        strict().put(config(1), 1.0)
        assert strict().get().libraries["ciq_ray"]  # type: ignore[union-attr, index]
        assert {"python", "numpy"} <= set(identity.libraries())
        monkeypatch.setattr(identity, "__version__", "99")
        assert strict().get() is None
        assert strict().best_available() == []
        assert found(of()) == [1]  # to the loose one it is a neighbour

    @pytest.mark.usefixtures("unknown_gpus")
    def test_hardware_names_processor_and_gpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in "01":
            folder = tmp_path / f"0000:0{number}:00.0"
            folder.mkdir()
            (folder / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   42\n")
        monkeypatch.setattr(identity, "_GPUS", tmp_path)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        text = identity.hardware()
        assert text.endswith("; NVIDIA H100 80GB HBM3")
        assert text.startswith(os.uname().machine)

    @pytest.mark.usefixtures("unknown_gpus")
    def test_which_gpus_are_visible_counts_where_they_differ(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("L40S", "H100"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "information").write_text(f"Model: \t\t NVIDIA {name}\n")
        monkeypatch.setattr(identity, "_GPUS", tmp_path)
        assert identity.hardware().endswith("; NVIDIA H100; NVIDIA L40S")
        files = []
        for number in "01":
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", number)
            assert identity.hardware().endswith(f"; NVIDIA L40S; CUDA_VISIBLE_DEVICES={number}")
            files.append(of().file)
        assert files[0] != files[1]

    @pytest.mark.usefixtures("unknown_gpus")
    def test_hardware_by_nvidia_smi(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\necho 'NVIDIA A100'\n")
        program.chmod(0o755)
        monkeypatch.setattr(identity, "_GPUS", tmp_path / "none")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        assert identity.hardware().endswith("; NVIDIA A100")
        program.write_text("#!/bin/sh\nexit 9\n")
        identity._gpus.cache_clear()
        assert "NVIDIA" not in identity.hardware()


def _file_name() -> str:
    space = Space({"x": Range(0, 99), "y": Choice(["a", "b"])})
    return LocalAutotuneCache(space, specialization_key=(4, "b"), objective=objective).file.name


class TestNeighbours:
    def test_distance(self) -> None:
        assert identity.distance("[1024,1024]", "[1024,1024]") == 0
        assert identity.distance("[1024,1024]", "[2048,1024]") == 1
        assert identity.distance("[1024,1024]", "[2048,512]") == pytest.approx(2**0.5)
        assert identity.distance("4096x128", "4096x64") == 1
        assert identity.distance("n=0", "n=1") == 1
        assert identity.distance("lr1e-2", "lr0.01") == 0
        assert identity.distance("[1024,bf16]", "[1024,fp16]") == float("inf")
        assert identity.distance("[1,2]", "[1,2,3]") == float("inf")
        assert identity.distance("9" * 400, "1") < float("inf")
        assert identity.distance("", "") == 0

    def test_the_nearest_come_first(self) -> None:
        for n in (256, 1024, 8192, 2048):
            of([n, "fp16"]).put(config(n % 97), 1.0)
        of([1024, "bf16"]).put(config(9), 0.1)
        assert found(of([1900, "fp16"])) == [2048 % 97, 1024 % 97, 8192 % 97, 256 % 97, 9]
        assert found(of([300, "fp16"]), 2) == [256 % 97, 1024 % 97]

    def test_its_own_entry_comes_before_all(self) -> None:
        of(1).put_all([(config(1), 1.0), (config(2), 2.0)])
        of(2).put_all([(config(3), 0.1), (config(4), 0.2)])
        of(4).put_all([(config(5), 0.1), (config(1), 0.2)])
        assert found(of(1)) == [1, 2, 3, 5, 4]

    def test_other_hardware_or_space_or_mode_is_none(self) -> None:
        of(1, hardware="H100").put(config(1), 1.0)
        LocalAutotuneCache(RandomSearch(SPACE, metric="m", mode="max")).put(config(2), 1.0)
        LocalAutotuneCache(Space({"x": Range(0, 98)})).put({"x": 3}, 1.0)
        assert found(of(1)) == []

    def test_an_objective_that_was_edited_is_a_neighbour_and_another_comes_later(self) -> None:
        of(8, objective=objective).put(config(1), 1.0)
        of(1, objective=other_objective).put(config(2), 1.0)
        cache = of(1, objective=functools.partial(objective))
        assert found(cache) == [1, 2]

    @pytest.mark.parametrize("bad", [-1, 1.5, "x", True, None])
    def test_bad_limit(self, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"`limit` is {bad!r}; it must be a whole number"):
            of(1).best_available(bad)

    def test_at_most_twenty(self) -> None:
        for n in range(1, 31):
            of(n).put(config(n), 1.0)
        assert len(found(of(15))) == 20


def _put(folder: Path, first: int) -> None:
    cache = LocalAutotuneCache(SPACE, path=folder, hardware="h")
    for x in range(first, 40, 4):
        cache.put(config(x), float(x))


def test_processes_that_write_at_a_time_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put, args=(tmp_path, first)) for first in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    cache = LocalAutotuneCache(SPACE, path=tmp_path, hardware="h")
    assert found(cache) == [0, 1, 2, 3, 4]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", cache.file.name}


@pytest.mark.parametrize("name", landscape.names())
def test_a_second_search_reaches_the_first_ones_best_within_20(name: str) -> None:
    known = landscape.load(name)

    def best_of(searcher: Any, budget: int) -> tuple[float, list[tuple[Any, float]], list[Any]]:
        scored, failed = [], []
        for _ in range(budget):
            (candidate,) = searcher.ask(1)
            row = known.row(candidate.config)
            passed, time = known.statuses[row] == "ok", float(known.times[row])
            searcher.tell(candidate.id, Outcome("ok", (time,)) if passed else Outcome("run_error"))
            if passed:
                scored.append((candidate.config, time))
            else:
                failed.append(candidate.config)
        return min(time for _, time in scored), scored, failed

    first, scored, failed = best_of(GeneticSearch(known.space, seed=1), 60)
    cache = functools.partial(LocalAutotuneCache, known.space, hardware="h")
    cache(specialization_key="n=4096").put_all(scored, failed)
    for key in ("n=4096", "n=2048"):  # the same search again, and one for a similar shape
        start = [saved.config for saved in cache(specialization_key=key).best_available()]
        second, again, _ = best_of(GeneticSearch(known.space, seed=2, initial_configs=start), 20)
        assert again[0][1] == first  # it comes first, not by luck
        assert second <= first


def test_every_public_name_is_there() -> None:
    for name in caches.__all__:
        assert getattr(caches, name) is not None
