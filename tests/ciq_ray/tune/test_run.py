"""Whole experiments in real processes of Ray."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

import ciq_ray.tune
from ciq_ray.errors import ConfigurationError
from ciq_ray.tune import BatchSearcher, run_config, to_search_result, trainable, tune_config
from searchers import Choice, PowerOfTwo, Range, Space, create

pytestmark = [pytest.mark.usefixtures("ray_head"), pytest.mark.timeout(300)]


def hostile(config: dict[str, Any]) -> float:
    assert set(config) == {"x", "pids"}, "nothing of Ray Tune's own"
    x = config["x"]
    if x == 3:
        raise ValueError("three")
    if x == 5:
        time.sleep(100)
    if x == 7:
        os.kill(os.getpid(), signal.SIGSEGV)
    with Path(config["pids"]).open("a") as pids:
        pids.write(
            f"{os.getppid()} {os.readlink('/proc/self/fd/1')} {os.environ['CUDA_VISIBLE_DEVICES']!r}\n"
        )
    return float((x - 40) ** 2)


def test_hostile_objectives_cost_no_actor_and_each_candidate_has_its_row(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    grid = ciq_ray.tune.run(
        hostile,
        {"x": tune.randint(0, 100), "pids": str(pids)},
        num_samples=-1,
        searcher="random",
        seed=0,
        task_timeout=1,
        max_concurrent_trials=1,
        storage_path=tmp_path,
        name="hostile",
    )
    assert grid.num_errors == 0
    assert len(grid) < 50, "short evaluations share trials"
    # one actor all the time, in which a CPU trial sees none of the node's GPUs
    assert len(set(pids.read_text().splitlines())) == 1
    assert pids.read_text().endswith(" ''\n")
    assert "/working_dirs/" in pids.read_text()  # nothing is left elsewhere
    table = to_search_result(grid).get_results()
    assert sorted(params["x"] for params in table["params"]) == list(range(100))
    failed = {row["params"]["x"]: row["status"] for _, row in table.iterrows() if row["status"] != "ok"}
    assert failed == {3: "run_error", 5: "run_timeout", 7: "run_error"}
    assert to_search_result(grid).get_best_result()["params"]["x"] == 40
    assert grid.get_best_result().metrics["score"] == 0.0
    journal = (tmp_path / "hostile" / "ciq_results.jsonl").read_text().splitlines()
    assert len(journal) == 101


SPACE = Space({"x": Range(0, 9), "y": Choice(["row", "col"]), "z": PowerOfTwo(1, 8)}, ["x * z <= 40"])


def two_values(config: dict[str, Any]) -> tuple[float, float]:
    return float(config["x"] + config["z"]), float(10 - config["x"])


@pytest.mark.slow
def test_two_objectives_in_opposite_directions(tmp_path: Path) -> None:
    grid = ciq_ray.tune.run(
        two_values,
        SPACE,
        num_samples=30,
        searcher="genetic",
        metric=["time", "spare"],
        mode=["min", "min"],
        seed=0,
        batch=10,
        max_concurrent_trials=1,
        storage_path=tmp_path,
    )
    assert len(grid) == 3
    result = to_search_result(grid, metric=["time", "spare"], mode="min")
    assert len(result) == 30
    assert result.get_results()["generation"].tolist() == [0] * 10 + [1] * 10 + [2] * 10
    for found in result.pareto_front():
        assert tuple(found["score"]) == two_values(found["params"])
    with pytest.raises(ConfigurationError, match="metric"):
        to_search_result(grid)


def joined(config: dict[str, Any]) -> str:
    return " ".join(config.values())


def of_text(text: str) -> float:
    return float(len(text))


@pytest.mark.slow
def test_a_compilers_text(tmp_path: Path) -> None:
    flags = {"level": Choice(["-O1", "-O2"]), "unroll": Choice(["-funroll", "-fno-unroll"])}
    space = Space(flags, render=joined)
    grid = ciq_ray.tune.run(of_text, space, num_samples=-1, searcher="random", storage_path=tmp_path)
    assert sorted(to_search_result(grid).get_results()["params"]) == [
        "-O1 -fno-unroll",
        "-O1 -funroll",
        "-O2 -fno-unroll",
        "-O2 -funroll",
    ]
    assert {result.metrics["score"] for result in grid} <= {12.0, 15.0}


def sees(config: dict[str, Any]) -> float:
    with Path(config["path"]).open("a") as file:
        file.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\n")
    return 1.0


@pytest.mark.parametrize(("gpus", "at_once"), [(0.5, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_a_trial_sees_the_gpu_it_was_given_and_no_other(gpus: float, at_once: int, tmp_path: Path) -> None:
    path = tmp_path / "seen"
    ciq_ray.tune.run(
        sees,
        {"x": tune.randint(0, 4), "path": str(path)},
        num_samples=4,
        batch=1,
        searcher="random",
        resources={"cpu": 1, "gpu": gpus},
        max_concurrent_trials=at_once,
        storage_path=tmp_path,
    )
    seen = path.read_text().split()
    assert len(seen) == 4
    assert set(seen) <= {"0", "1"}


def steady(config: dict[str, Any]) -> float:
    return float(config["x"])


def test_a_scheduler_ends_trials_between_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ciq_ray.tune.run(
        steady,
        {"x": tune.randint(0, 100)},
        num_samples=12,
        searcher="random",
        seed=0,
        repeats=4,
        in_process=True,
        max_concurrent_trials=1,
        scheduler=ASHAScheduler(grace_period=1, reduction_factor=2, max_t=4),
        storage_path=tmp_path,
    )
    assert capsys.readouterr().out == ""
    assert "RAY_AIR_NEW_OUTPUT" not in os.environ
    assert len(grid) == 12
    steps = Counter(result.metrics["training_iteration"] for result in grid)
    assert steps[4] >= 1
    assert steps[1] >= 1
    result = to_search_result(grid)
    assert len(result) == 12
    assert set(result.get_results()["status"]) == {"ok"}
    assert result.get_best_result()["score"] == min(result.get_results()["score"])


@pytest.mark.parametrize("in_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_module_beside_the_script_reaches_actors_that_do_not_find_it(
    in_process: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper_beside.py").write_text("def doubled(x):\n    return 2.0 * x\n")
    (tmp_path / "script_beside.py").write_text(
        "import sys\n"
        "from helper_beside import doubled\n\n"
        "def objective(config):\n"
        f"    assert {str(tmp_path)!r} not in sys.path\n"
        "    return doubled(config['x'])\n"
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))  # after Ray has taken down the driver's
        script = importlib.import_module("script_beside")
        try:
            grid = ciq_ray.tune.run(
                script.objective,
                {"x": tune.randint(0, 3)},
                num_samples=-1,
                searcher="random",
                in_process=in_process,
                max_concurrent_trials=1,
                storage_path=tmp_path,
            )
        finally:
            for name in ("script_beside", "helper_beside"):
                del sys.modules[name]
    assert [result.error for result in grid] == [None] * len(grid)
    assert sorted(to_search_result(grid).get_results()["score"]) == [0.0, 2.0, 4.0]


def kills_the_actor_once(config: dict[str, Any]) -> float:
    marker = Path(config["path"]) / "killed"
    if config["x"] == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)  # called in the actor itself
    return float(config["x"])


def test_an_actor_that_dies_is_nobodys_fault(tmp_path: Path) -> None:
    grid = ciq_ray.tune.run(
        kills_the_actor_once,
        {"x": tune.randint(0, 5), "path": str(tmp_path)},
        num_samples=-1,
        searcher="random",
        in_process=True,
        max_concurrent_trials=1,
        storage_path=tmp_path,
    )
    assert (tmp_path / "killed").exists()
    result = to_search_result(grid)
    assert sorted(result.get_results()["score"]) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_tuner_of_ones_own_with_ray_tunes_domains_and_restored(tmp_path: Path) -> None:
    kind = trainable(two_values, metric=["time", "spare"], mode=["min", "max"])
    searcher = create("genetic", metric=["time", "spare"], mode=["min", "max"], seed=0)
    searcher.keep_journal(tmp_path / "journal.jsonl")
    tuner = tune.Tuner(
        kind,
        param_space={"x": tune.randint(0, 10), "z": tune.choice([1, 2, 4]), "fixed": {"depth": 3}},
        tune_config=tune_config(BatchSearcher(searcher, evaluations=20, batch=6), max_concurrent_trials=1),
        run_config=run_config("own", tmp_path),
    )
    grid = tuner.fit()
    result = to_search_result(grid, metric=["time", "spare"], mode="min")
    assert len(result) == 20
    for params in result.get_results()["params"]:
        assert params["fixed"] == {"depth": 3}
        assert set(params) == {"x", "z", "fixed"}
        assert isinstance(params["x"], int)
    restored = tune.Tuner.restore(str(tmp_path / "own"), trainable=kind)
    assert len(to_search_result(restored.fit(), metric=["time", "spare"], mode="min")) == 20


def notes_its_node(config: dict[str, Any]) -> float:
    with Path(config["path"]).open("a") as file:
        file.write(ray.get_runtime_context().get_node_id() + "\n")
    return 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_nodes")
def test_labels_choose_the_node(tmp_path: Path) -> None:
    ciq_ray.tune.run(
        notes_its_node,
        {"x": tune.randint(0, 4), "path": str(tmp_path / "nodes")},
        num_samples=4,
        batch=1,
        searcher="random",
        in_process=True,
        label_selector={"pool": "second"},
        max_concurrent_trials=2,
        storage_path=tmp_path,
    )
    labels = {node["NodeID"]: node["Labels"].get("pool") for node in ray.nodes() if node["Alive"]}
    assert [labels[node] for node in (tmp_path / "nodes").read_text().split()] == ["second"] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": True}, "num_samples"),
        ({"num_samples": 3, "searcher": 3}, "searcher"),
        ({"num_samples": 3, "searcher": create("random")}, "searcher"),
        ({"num_samples": 3, "searcher": create("random", SPACE, metric="m", mode="min")}, "space"),
        ({"num_samples": 3, "task_timeout": -1}, "task_timeout"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ciq_ray.tune.run(steady, {"x": Range(0, 3)}, storage_path=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_ray_client_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigurationError, match="RAY_ADDRESS is 'ray://head:10001'"):
        ciq_ray.tune.run(steady, {"x": Range(0, 3)}, num_samples=3, storage_path=tmp_path)


def test_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        ciq_ray.tune.rum  # noqa: B018
    assert set(dir(ciq_ray.tune)) == set(ciq_ray.tune.__all__)
    for name in ciq_ray.tune.__all__:
        assert getattr(ciq_ray.tune, name) is not None
