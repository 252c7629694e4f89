"""The quality benchmark: how peers are counted, and that a run that was killed goes on where it was."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import _quality, _report, landscape, quality
from benchmarks.peers.meter import Meter, Spent
from ciq_ray.landscape import Landscape

LINE = (
    "x,y,status,time_ms,std_ms,compile_s\n"
    "0,a,ok,3.0,,\n1,a,ok,2.0,,\n2,a,run_error,,,\n3,b,ok,1.0,,\n4,b,ok,5.0,,\n"
)


@pytest.fixture
def line(tmp_path):
    (tmp_path / "line.csv").write_text(LINE)
    return Landscape.load(tmp_path / "line.csv")


class TestMeter:
    def test_what_counts(self, line):
        meter = Meter(line, 3)
        assert meter.time((4, "b")) == 5.0
        assert meter.time((4, "b")) == 5.0
        assert meter.time((2, "a")) is None
        assert (meter.evaluations, meter.left, meter.spent) == (2, 1, False)
        assert meter.time((1, "a")) == 2.0
        assert meter.steps == [(1, 5.0), (3, 2.0)]
        assert meter.spent
        assert meter.time((4, "b")) == 5.0  # known, so that it costs nothing
        with pytest.raises(Spent):
            meter.time((0, "a"))

    def test_static_constraints(self, line):
        meter = Meter(line, 3)
        assert not meter.valid((0, "b"))
        with pytest.raises(ValueError, match="static constraint"):
            meter.time((0, "b"))

    def test_unseen(self, line):
        meter, rng = Meter(line, 9), np.random.default_rng(0)
        keys = []
        for _ in range(5):
            keys.append(meter.unseen(rng))
            meter.time(keys[-1])
        assert sorted(keys) == sorted(line.keys)
        with pytest.raises(Spent):
            meter.unseen(rng)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(_quality, "FOLDER", tmp_path / "quality")
    return tmp_path / "quality"


class TestFiles:
    def test_only_what_is_missing_is_run(self, results):
        work = quality.Work("random", "matmul_4096", 16, (0, 1))
        assert quality.work_off(work) == 2
        (path,) = results.iterdir()
        assert path.name == "random.matmul_4096.batch16.json"
        before = path.read_bytes()
        assert quality.work_off(work) == 0
        assert path.read_bytes() == before
        assert quality.work_off(quality.Work("random", "matmul_4096", 16, (1, 2))) == 1
        data = json.loads(path.read_text())
        assert list(data["seeds"]) == ["0", "1", "2"]
        assert data["seeds"]["0"] == json.loads(before)["seeds"]["0"]
        assert data["seeds"]["2"]["evaluations"] == quality.BUDGET

    def test_the_report_of_files(self, results):
        record = _quality.Record("genetic", "matmul_4096", 1)
        land = landscape.load("matmul_4096")
        for seed in (0, 1):
            record.add(
                seed, {"steps": [[1, land.worst], [20, land.optimum]], "evaluations": 400, "cpu_s": 0.4}
            )
        found = _quality.load({"matmul_4096": land}, tuple(quality.SEARCHERS), 1)
        assert list(found) == ["genetic"]
        assert found["genetic"].at(50) == (1.0, 0.0)
        assert found["genetic"].at(19)[0] < 0
        (row,) = _quality.rows(found, 1, 8)
        assert row[:4] == ["genetic", "1", "2, 1 of 8 landscapes", "1.00 ± 0.00"]
        assert row[-1] == "1"

    def test_claims_are_about_what_was_measured(self, results):
        assert _quality.claims({}, {}, quality.PEERS) == []
        one = _quality.Found({"a": np.full((2, 400), 0.9)}, [0.01], [0.1])
        peer = _quality.Found({"a": np.full((2, 400), 0.95)}, [0.01], [])
        made = _quality.claims({"auto": one, "optuna_tpe": peer}, {"auto": one}, quality.PEERS)
        verdicts = {claim.text: claim.holds for claim in made}
        assert verdicts["auto at 100"]
        assert not verdicts["auto at 200"]
        assert verdicts["auto, aggregate lost with batch 16"]
        (behind,) = [claim for claim in made if "behind" in claim.text]
        assert behind.value == pytest.approx(0.05)


def test_the_unseen_landscapes_have_a_report_of_their_own(results, tmp_path, monkeypatch, capsys):
    def here(tasks, jobs):
        for task in tasks:
            quality.work_off(task)
        return 0

    monkeypatch.setattr(_report, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "measure", here)
    command = ["--unseen", "--searcher", "random", "--seeds", "1", "--batch", "16"]
    assert quality.main(command) == 0
    assert {path.name for path in results.iterdir()} == {
        f"random.{name}.batch16.json" for name in landscape.unseen()
    }
    assert [path.name for path in tmp_path.glob("*.*")] == ["quality_unseen.json"], "no picture, no claims"
    out = capsys.readouterr().out
    assert all(name in out for name in landscape.unseen())
    assert "claimed" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--landscape", "sgemm_1k"], "--landscape sgemm_1k goes with --unseen"),
        (["--unseen", "--landscape", "conv_17"], "--landscape conv_17 goes without --unseen"),
    ],
)
def test_a_landscape_of_the_other_report(results, arguments, says, capsys):
    with pytest.raises(SystemExit):
        quality.main(arguments)
    assert says in capsys.readouterr().err
    assert not results.exists()


def test_a_file_more_is_no_landscape_to_compare_on(tmp_path, monkeypatch):
    names = landscape.names()
    assert len(names) == 8
    assert not set(names) & set(landscape.unseen())
    assert all((landscape.FOLDER / f"{name}.csv").is_file() for name in [*names, *landscape.unseen()])
    (tmp_path / "part.csv").write_text(LINE)
    monkeypatch.setattr(landscape, "FOLDER", tmp_path)
    assert landscape.names() == names


def test_every_side_can_be_found():
    from searchers.registry import NAMES

    for name, side in quality.SEARCHERS.items():
        assert side.peer == (name in quality.PEERS)
        assert side.peer or side.name in NAMES


def test_a_failure_is_reported_and_the_rest_goes_on(results, capfd, monkeypatch):
    tasks = [quality.Work("random", "no such landscape", 1, (0,))]
    assert quality.measure(tasks, jobs=1) == 1
    assert "random on no such landscape, batch 1 FAILED" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at the parent's death is Linux's")
def test_a_killed_run_leaves_no_process_that_writes(tmp_path):
    root = Path(quality.__file__).parents[1]
    shutil.copytree(
        root / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("results", "gpu")
    )
    arguments = ["--searcher", "auto", "--landscape", "matmul_4096", "--seeds", "1000", "--jobs", "1"]
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.quality", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("benchmarks/results/quality/auto.*.json")):
            assert run.poll() is None
            assert time.monotonic() < deadline, "no seed was done"
            time.sleep(0.1)
        workers = psutil.Process(run.pid).children(recursive=True)
    finally:
        run.kill()
        run.wait()
    assert workers
    _, left = psutil.wait_procs(workers, timeout=20)
    assert not left


@pytest.mark.filterwarnings("ignore")
class TestPeers:
    """Real ones, where they are installed."""

    @pytest.mark.parametrize(
        ("package", "name"),
        [
            ("kernel_tuner", "kernel_tuner_ga"),
            ("kernel_tuner", "kernel_tuner_pso"),
            ("optuna", "optuna_tpe"),
            ("pymoo", "pymoo_ga"),
        ],
    )
    def test_the_budget_and_the_seed_hold(self, package, name):
        pytest.importorskip(package)
        land = landscape.load("conv_17")  # more than a third of its product breaks a constraint
        first, again = (quality.search(name, land, 3, 1, budget=60) for _ in range(2))
        assert first["evaluations"] == 60
        assert first["steps"] == again["steps"]
        evaluations, times = zip(*first["steps"], strict=True)
        assert list(evaluations) == sorted(evaluations)
        assert list(times) == sorted(times, reverse=True)
        assert set(times) <= set(land.times.tolist())
        assert quality.search(name, land, 4, 1, budget=60)["steps"] != first["steps"]

    def test_optuna_in_batches(self):
        pytest.importorskip("optuna")
        land = landscape.load("matmul_4096")
        module = importlib.import_module("benchmarks.peers.optuna_tpe")
        meter = Meter(land, 40)
        module.tpe(meter, 0, batch=16)
        assert meter.evaluations == 40

    def test_a_space_smaller_than_the_budget(self, line):
        pytest.importorskip("optuna")
        module = importlib.import_module("benchmarks.peers.optuna_tpe")
        meter = Meter(line, 40)
        module.tpe(meter, 0)
        assert (meter.evaluations, meter.steps[-1][1]) == (5, 1.0)
