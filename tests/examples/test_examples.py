"""The examples run as a user runs them, and what they say is true. The demo has a file of its own."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ciq_ray import ObjectiveFailure, SearchResult

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("[!_]*.py"))


def run(name: str, folder: Path, *arguments: object) -> str:
    """The output of an example that must succeed; its run is number 1 in `folder`."""
    process = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CIQ_RUNS_DIR": str(folder / "runs"), "CIQ_CACHE_DIR": str(folder / "cache")},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def results(folder: Path, run_id: int = 1) -> SearchResult:
    return SearchResult.from_csv(folder / "runs" / str(run_id) / "results.csv", "min")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match is not None, text
    return float(match[1])


@pytest.mark.parametrize("name", NAMES)
def test_help_and_docstring_agree(name: str, tmp_path: Path) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    usage = re.search(rf"^    python examples/{name}\.py (.*)$", source, re.MULTILINE)
    assert usage is not None, "the docstring shows how to run it"
    shown = run(name, tmp_path, "--help")
    for option in re.findall(r"--[a-z-]+", usage[1]):
        assert option in shown
    assert not (tmp_path / "runs").exists()


def test_single_objective(tmp_path: Path) -> None:
    output = run("single_objective", tmp_path, "--generations", 1)
    example = load("single_objective")
    assert "32 of 432 configurations tried" in output
    found = results(tmp_path)
    table = found.get_results()
    assert (table["status"] == "ok").all()
    assert table["params"][0] == example.SPACE.default
    for params in table["params"]:
        example.SPACE.encode(params)  # a member that keeps the constraint
    best = found.get_best_result()
    for name, value in best["params"].items():
        assert re.search(rf"^  {name} +{value}$", output, re.MULTILINE)
    # blocks that fit the cache beat the default by far, also on a busy machine
    assert number(r"([\d.]+) times as fast", output) > 1.2


def test_single_objective_finds_a_wrong_result() -> None:
    example = load("single_objective")
    example.matrix().flags.writeable = True
    config = {"rows": 64, "columns": 256, "order": "by_columns", "padding": 8}
    assert 0 < example.transposition_ms(config) < 10_000

    class Odd(int):
        """A height whose slices miss the last row of each block."""

        def __radd__(self, other: int) -> int:
            return other + int(self) - 1

    with pytest.raises(ObjectiveFailure) as caught:
        example.transposition_ms({**config, "rows": Odd(64)})
    assert caught.value.status == "wrong"


def test_multi_objective(tmp_path: Path) -> None:
    output = run("multi_objective", tmp_path, "--generations", 1, "--csv", tmp_path / "zlib.csv")
    found = SearchResult.from_csv(tmp_path / "zlib.csv", "min")
    table = found.get_results()
    assert len(table) == 48
    lines = re.findall(r"^ +(default|\d+) +([\d.]+) +([\d.]+)  level", output, re.MULTILINE)
    shown = {name: (float(time), float(size)) for name, time, size in lines}
    default = shown.pop("default")
    first = table[table["params"].map(lambda params: params == load("multi_objective").SPACE.default)].iloc[0]
    assert default == (round(first["score_0"], 2), round(first["score_1"], 2))
    front = found.pareto_front()
    assert sorted(shown.values()) == sorted((round(r["score_0"], 2), round(r["score_1"], 2)) for r in front)
    for one, other in itertools.permutations(front, 2):
        assert not (one["score_0"] <= other["score_0"] and one["score_1"] < other["score_1"])
    for row in table.to_dict("records"):
        assert any(r["score_0"] <= row["score_0"] and r["score_1"] <= row["score_1"] for r in front)


def test_multi_objective_sizes_are_those_of_zlib() -> None:
    import zlib

    example = load("multi_objective")
    _, size = example.time_and_size({"level": 9, "strategy": "default", "memory": 8, "window": 15})
    assert size == pytest.approx(100 * len(zlib.compress(example.text(), 9)) / len(example.text()))


def test_nested_space(tmp_path: Path) -> None:
    output = run("nested_space", tmp_path, "--generations", 1)
    example = load("nested_space")
    table = results(tmp_path).get_results()
    assert (table["status"] == "ok").all(), table[table["status"] != "ok"]["message"].tolist()
    assert set(table["params"].map(lambda params: params["method"])) == {"shifts", "windows", "fft"}
    for params in table["params"]:
        example.SPACE.encode(params)
        assert bool(params["fft"]) == (params["method"] == "fft") == (not params["tile"])
    default = number(r"default +([\d.]+) ms", output)
    best = number(r"best +([\d.]+) ms", output)
    assert best <= default
    assert best == pytest.approx(table["score"].min(), abs=0.005)


def test_nested_space_finds_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("nested_space")
    right = example.by_fft
    monkeypatch.setattr(example, "by_fft", lambda *arguments, **options: right(*arguments, **options) + 1e-3)
    with pytest.raises(ObjectiveFailure, match=r"off by 1\.0e-03") as caught:
        example.convolution_ms(
            {"method": "fft", "tile": {}, "fft": {"length": "even", "precision": "double"}}
        )
    assert caught.value.status == "wrong"


def test_normalizing(tmp_path: Path) -> None:
    output = run("normalizing", tmp_path, "--generations", 2)
    example = load("normalizing")
    wrong = dict(re.findall(r"^(no|yes) +([\d.]+)%", output, re.MULTILINE))
    assert float(wrong["no"]) > 2
    assert float(wrong["yes"]) == 0
    raw, normalised = results(tmp_path, 1), results(tmp_path, 2)
    factors = [row["score"] / example.true_ms(row["params"]) for row in raw.get_results().to_dict("records")]
    assert {round(factor, 6) for factor in factors} == set(example.SLOWDOWN)
    baseline = example.true_ms(example.SPACE.default)
    for row in normalised.get_results().to_dict("records"):
        assert row["norm_score"] == pytest.approx(example.true_ms(row["params"]) / baseline)


def test_custom_worker(tmp_path: Path) -> None:
    output = run("custom_worker", tmp_path, "--rounds", 2)
    table = results(tmp_path).get_results()
    assert f"{len(table)} of 24 configurations tried, each 2 times" in output
    assert len(table) == 24
    assert (table["status"] == "ok").all()
    times = [float(text) for text in re.findall(r"^ +([\d.]+) ms  \{.*\}$", output, re.MULTILINE)]
    assert times == [round(score, 2) for score in sorted(table["score"])[:5]]


def test_custom_worker_takes_medians_of_shuffled_rounds_and_keeps_failures_apart(tmp_path: Path) -> None:
    worker = load("custom_worker").RoundsWorker.create(tmp_path, False, None)
    order: list[int] = []

    def objective(config: dict[str, int]) -> float:
        order.append(config["x"])
        if config["x"] == 3:
            raise ValueError("three")
        return float(config["x"] * order.count(config["x"]))

    scores = worker.run(function=objective, params_pool=[{"x": x} for x in (1, 2, 3)], params_ids=[7, 8, 9])
    assert [(score.param_id, score.score) for score in scores] == [(7, 3.0), (8, 6.0), (9, "*")]
    assert scores[2].metadata == "ValueError: three"
    assert order.count(3) == 1
    assert sorted(order) == [1] * 5 + [2] * 5 + [3]
    assert order != sorted(order)


@pytest.mark.slow
def test_ray_worker(tmp_path: Path) -> None:
    output = run("ray_worker", tmp_path, "--generations", 1)
    table = results(tmp_path).get_results()
    assert f"{len(table)} of 60 configurations tried" in output
    assert table["params"][0] == load("ray_worker").SPACE.default
    assert (table["status"] == "ok").all()
    assert (table["norm_score"] > 0).all()
    assert number(r"the best takes ([\d.]+) of the", output) == round(table["norm_score"].min(), 2)
    rows = re.findall(r"^[0-9a-f]{8} +- +(ray-\d) +(\d+)$", output, re.MULTILINE)
    assert sum(int(count) for _, count in rows) == len(table)


def test_custom_tracker(tmp_path: Path) -> None:
    output = run("custom_tracker", tmp_path, "--log", tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = [line["event"] for line in lines]
    generation = ["generation_starts", *["evaluation"] * 8, "generation_ends"]
    assert events == ["search_starts", *generation * 3, "search_ends"]
    assert lines[0]["run_id"] == 1
    assert lines[-1]["reason"] == "finished"
    assert [line["generation"] for line in lines if line["event"] == "generation_starts"] == [0, 1, 2]
    told = sorted(line["score"] for line in lines if line["event"] == "evaluation")
    assert told == sorted(results(tmp_path).get_results()["score"])
    assert number(r"best +([\d.]+) ms", output) <= number(r"default +([\d.]+) ms", output)
    assert "log.jsonl has 32 lines, 24 of them evaluations" in output


@pytest.mark.slow
def test_tune_run(tmp_path: Path) -> None:
    output = run(
        "tune_run", tmp_path, "--trials", 12, "--searcher", "genetic", "--folder", tmp_path / "results"
    )
    example = load("tune_run")
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()[1:]
    tried = [json.loads(line) for line in lines]
    assert tried[0]["config"] == example.SPACE.default
    failed = [line for line in tried if line["outcome"]["status"] != "ok"]
    assert all(line["config"]["type"] == "float16" for line in failed)
    assert all(line["outcome"]["status"] == "wrong" for line in failed)
    assert f"12 trials, 12 of 1140 configurations tried, {len(failed)} of them failed" in output
    best = min(
        (line for line in tried if line["outcome"]["status"] == "ok"),
        key=lambda line: float(line["outcome"]["values"][0]),
    )
    for name, value in best["config"].items():
        assert re.search(rf"^  {name} +{value}$", output, re.MULTILINE)
    assert number(r"best +([\d.]+) ms", output) <= number(r"default +([\d.]+) ms", output)


def test_tune_run_computes_the_product_and_finds_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    example = load("tune_run")
    reports: list[dict[str, object]] = []
    monkeypatch.setattr(example.tune, "report", reports.append)
    a, b = np.random.default_rng(1).random((2, example.N, example.N))
    for copy in (False, True):
        config = {"rows": 64, "columns": 512, "depth": 128, "type": "float64", "copy": copy}
        assert np.allclose(example.product(config, a, b), a @ b)
        example.trial(config)
    example.trial({**config, "type": "float16"})
    assert [report.get("ciq_status", "ok") for report in reports] == ["ok", "ok", "wrong"]
