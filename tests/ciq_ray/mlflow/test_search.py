"""A search in MLflow: what is there when it is over."""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import ObjectiveFailure, SearchConfiguration
from ciq_ray.errors import ConfigurationError
from ciq_ray.tracker import MLflowTracker, make_tracker
from ciq_ray.types import MLflowTrackerConfig, Score, TrackerConfig
from searchers import Outcome


def identity(config: dict[str, Any]) -> float:
    return float(config["x"])


def moody(config: dict[str, Any]) -> Any:
    """Fails in every way that is not a crash, by turns."""
    match config["x"] % 5:
        case 0:
            raise ObjectiveFailure("wrong", "the result is wrong")
        case 1:
            raise ValueError("no such block")
        case 2:
            return "*"
        case _:
            return Outcome("ok", (float(config["x"]),), metrics={"clock[mhz]": 1200, "bad": float("inf")})


def text(client: Any, run: Any, path: str, folder: Path) -> str:
    return Path(client.download_artifacts(run.info.run_id, path, str(folder))).read_text()


def test_a_search_and_its_evaluations(database: Any, config: Any, search: Any, tmp_path: Path) -> None:
    wanted = config(database.uri, run_name="gemm", description="Tiles of *gemm*.")
    result = search(identity, wanted).start(num_workers=2, task_timeout=30)
    parent, children = database.search()

    assert (parent.info.run_name, parent.info.status) == ("gemm", "FINISHED")
    params = parent.data.params
    assert (params["searcher"], params["seed"], params["generations"]) == ("genetic", "0", "2")
    assert (params["num_workers"], params["task_timeout"], params["worker_type"]) == ("2", "30", "native")
    assert {"version.ciq_ray", "version.python", "version.mlflow"} <= set(params)

    assert sorted(map(int, children)) == list(range(12))
    table = {str(row["param_id"]): row for row in result.rows()}
    for key, run in children.items():
        assert run.info.status == "FINISHED"
        assert run.data.metrics["score"] == table[key]["score"]
        assert run.data.params == {
            "x": str(table[key]["params"]["x"]),
            "block_m_": run.data.params["block_m_"],
        }
        assert run.data.tags["ciq.generation"] == str(table[key]["generation"])
        assert run.data.tags["ciq.status"] == "ok"
        assert run.info.end_time >= run.info.start_time >= parent.info.start_time
        [point] = database.client.get_metric_history(run.info.run_id, "score")
        assert point.step == table[key]["generation"]

    best = result.get_best_result()
    history = database.client.get_metric_history(parent.info.run_id, "best_score")
    assert [point.step for point in history] == [0, 1]
    assert history[-1].value == best["score"]
    assert parent.data.metrics["evaluations_ok"] == 12
    means = database.client.get_metric_history(parent.info.run_id, "mean_score")
    scores = [row["score"] for row in result.rows() if row["generation"] == 0]
    assert means[0].value == pytest.approx(sum(scores) / 6)

    assert database.files(parent) == ["best_config.json", "figures", "search"]
    assert database.files(parent, "search") == [
        "search/environment.json",
        "search/search.json",
        "search/space.json",
    ]
    assert database.files(parent, "figures") == ["figures/convergence.html"]
    kept = json.loads(text(database.client, parent, "best_config.json", tmp_path))
    assert (kept["params"], kept["scores"]) == (best["params"], {"score": best["score"]})
    assert (
        "numpy" in json.loads(text(database.client, parent, "search/environment.json", tmp_path))["packages"]
    )
    assert json.loads(text(database.client, parent, "search/space.json", tmp_path))

    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("Tiles of *gemm*.\n\n[All evaluations in a table](/#/experiments/")
    assert "?workflowType=machine_learning" in note
    assert "[Compare the best" in note
    assert children[str(best["param_id"])].info.run_id in note
    assert not (tmp_path / "mlruns").joinpath("0").exists()  # artefacts are next to the database


def test_failures(database: Any, config: Any, search: Any) -> None:
    search(moody, config(database.uri, log_config=False)).start(num_workers=1)
    parent, children = database.search()
    kinds = {"wrong": "the result is wrong", "run_error": "ValueError: no such block"}
    seen = set()
    for run in children.values():
        status = run.data.tags["ciq.status"]
        seen.add(status)
        assert run.info.status == ("FINISHED" if status == "ok" else "FAILED")
        assert run.data.params == {}
        if status in kinds:
            assert run.data.tags["ciq.message"].startswith(kinds[status])
        if status == "ok":
            assert run.data.metrics["clock_mhz_"] == 1200
            assert run.data.tags["ciq.not_finite.bad"] == "inf"
        else:
            assert "score" not in run.data.metrics
    assert {"ok", "wrong"} <= seen
    counted = parent.data.metrics
    assert counted["evaluations_ok"] + counted["evaluations_failed"] == len(children) >= 12


def two(config: dict[str, Any]) -> tuple[float, float]:
    return float(config["x"]), float(100 - config["x"])


def test_several_scores(database: Any, config: Any, search: Any, tmp_path: Path) -> None:
    fields = {"search_config": SearchConfiguration(generations=2, pool_size=6, num_objectives=2)}
    wanted = config(database.uri, score_names=["time [ms]", "size"])
    result = search(two, wanted, **fields).start(num_workers=1)
    parent, children = database.search()
    run = next(iter(children.values()))
    assert {"time _ms_", "size"} <= set(run.data.metrics)
    volume = database.client.get_metric_history(parent.info.run_id, "hypervolume")
    assert 0 < volume[0].value <= volume[1].value
    assert {"best_time _ms_", "best_size", "mean_size"} <= set(parent.data.metrics)
    rows = list(csv.reader(text(database.client, parent, "front.csv", tmp_path).splitlines()))
    assert rows[0] == ["time _ms_", "size", "candidate", "generation", "params"]
    assert len(rows) - 1 == len(result.pareto_front())
    assert database.files(parent, "figures") == ["figures/convergence.html", "figures/pareto.html"]


def test_score_names_must_be_as_many(database: Any, config: Any, search: Any, runs: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"`score_names` is .*num_objectives`=1"):
        search(identity, config(database.uri, score_names=["a", "b"])).start(num_workers=1)
    assert not list(runs.iterdir())  # nothing was begun


def test_measured_again(database: Any, config: Any, search: Any) -> None:
    """Each measurement has a run; the search's own run knows the pooled value."""
    search(noisy, config(database.uri), remeasure_every=1).start(num_workers=1)
    _, children = database.search()
    again = [key for key in children if "." in key]
    assert again
    assert {key.partition(".")[0] for key in again} <= set(children)


def noisy(config: dict[str, Any]) -> float:
    return config["x"] + time.perf_counter() % 1


class Own(MLflowTracker):
    """A user's own: it adds to what is recorded, and its mistakes are no matter."""

    def post_objective(self, scores: str, **kwargs: Any) -> None:
        super().post_objective(scores, **kwargs)
        raise RuntimeError("mine")


@pytest.mark.filterwarnings("ignore")
def test_a_subclass(database: Any, config: Any, search: Any, caplog: pytest.LogCaptureFixture) -> None:
    search(identity, Own(config(database.uri))).start(num_workers=1)
    assert len(database.search()[1]) == 12
    assert "mine" in caplog.text


class TestEnds:
    def test_an_error(self, database: Any, config: Any, search: Any) -> None:
        def broken(config: dict[str, Any]) -> float:
            raise ValueError("all of them")

        with pytest.raises(RuntimeError, match="all 6 candidates"):
            search(broken, config(database.uri)).start(num_workers=1)
        parent, _ = database.search()
        assert parent.info.status == "FAILED"
        assert "all 6 candidates" in parent.data.tags["ciq.message"]
        assert not database.running()

    def test_the_target(self, database: Any, config: Any, search: Any) -> None:
        search(identity, config(database.uri), target=100).start(num_workers=2)
        parent, _ = database.search()
        assert (parent.info.status, parent.data.tags["ciq.ended"]) == ("FINISHED", "target")
        assert not database.running()

    def test_the_same_tracker_again(self, database: Any, config: Any, search: Any) -> None:
        tracker = make_tracker(config(database.uri))
        for _ in range(2):
            search(identity, tracker).start(num_workers=1)
        assert [run.info.status for run in database.runs()] == ["FINISHED"] * 2

    @pytest.mark.slow
    def test_the_final_race(self, database: Any, config: Any, search: Any, tmp_path: Path) -> None:
        from ciq_ray.race import Plan

        plan = Plan(finalists=1, pick_blocks=1, verdict_blocks=6, windows=1)
        result = search(above_zero, config(database.uri), final_race=plan).start(num_workers=1)
        parent, _ = database.search()
        assert result.verdict is not None
        assert result.verdict.words in parent.data.tags["mlflow.note.content"]
        kept = json.loads(text(database.client, parent, "verdict.json", tmp_path))
        assert kept["words"] == result.verdict.words


def above_zero(config: dict[str, Any]) -> float:
    return 1.0 + config["x"]


class TestByHand:
    def test_the_documented_life_cycle(self, database: Any, config: Any) -> None:
        tracker = make_tracker(config(database.uri, run_name="by hand"))
        tracker.search_starts()
        tracker.generation_starts(0)
        for task, value in enumerate((1.5, "*")):
            params = {"n": task}
            tracker.pre_objective(params, task_id=task, node_id="host")
            score = Score(score=value, params=params, param_id=task, num_objectives=1, metadata="luck")
            tracker.post_objective(score.to_json(), task_id=task, node_id="host")
        tracker.generation_ends(0)
        tracker.search_ends()
        tracker.cleanup()
        parent, children = database.search()
        assert (parent.info.run_name, parent.info.status) == ("by hand", "FINISHED")
        assert [children[key].info.status for key in "01"] == ["FINISHED", "FAILED"]
        assert children["1"].data.tags["ciq.node"] == "host"
        assert not database.running()

    def test_a_run_that_has_no_name(self) -> None:
        assert len(MLflowTracker.get_date_string()) == len("2025-01-31_23-59-59")


class TestRefused:
    @pytest.mark.parametrize("uri", ["htp://localhost:5000", "sqlite:////no/such/folder/x.db", "mlruns"])
    def test_addresses(self, uri: str) -> None:
        with pytest.raises(ConfigurationError, match="`tracking_uri` is"):
            make_tracker(MLflowTrackerConfig(tracking_uri=uri))

    def test_a_deleted_experiment(self, database: Any, config: Any) -> None:
        make_tracker(config(database.uri)).cleanup()
        database.client.delete_experiment(database.experiment_id)
        with pytest.raises(ConfigurationError, match="has been deleted"):
            make_tracker(config(database.uri))

    @pytest.mark.parametrize(
        "fields",
        [{"score_names": ["a", "a"]}, {"score_names": [""]}, {"tracking_uri": " "}, {"live_runs": "yes"}],
    )
    def test_fields(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            MLflowTrackerConfig(**fields)

    def test_a_path_becomes_absolute(self, tmp_path: Path) -> None:
        assert MLflowTrackerConfig(tracking_uri="sqlite:///x.db").tracking_uri == f"sqlite:///{tmp_path}/x.db"


def test_the_plain_configuration_takes_what_the_environment_says(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    tracker = make_tracker(TrackerConfig(type="mlflow"))
    assert isinstance(tracker, MLflowTracker)
    assert database.experiment_id


def test_a_server_that_is_not_there(
    config: Any, search: Any, runs: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The search is none the worse for it, and its folder has what is to be recorded."""
    with caplog.at_level(logging.WARNING):
        started = time.monotonic()
        result = search(identity, config("http://127.0.0.1:9")).start(num_workers=1)
    assert len(result) == 12
    assert time.monotonic() - started < 20
    assert "cannot be reached" in caplog.text
    lines = (runs / "1" / "mlflow-spool.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert keys[0] == ""
    assert sorted(int(key) for key in keys if key) == list(range(12))
    assert f"ciq mlflow-replay {runs / '1'}" in capfd.readouterr().err


def test_nothing_is_left_in_the_environment(database: Any, config: Any, search: Callable[..., Any]) -> None:
    before = dict(os.environ)
    search(identity, config(database.uri)).start(num_workers=1)
    assert dict(os.environ) == before
