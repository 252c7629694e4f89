"""Objectives that return an `Outcome` instead of scores."""

from __future__ import annotations

import pytest

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration
from ciq_ray.scores import is_outcome, read_outcome
from ciq_ray.worker import AsyncWorker, IsoMultiProcessWorker, MultiProcessWorker
from searchers import Outcome, Range

FULL = Outcome(
    "ok",
    (2.0, 3.0),
    spread=(0.1, 0.2),
    samples=5,
    compile_s=1.5,
    run_s=0.25,
    metrics={"registers": 40, "samples": [1.0, 2.0]},
)


@pytest.mark.parametrize("kind", [MultiProcessWorker, IsoMultiProcessWorker])
def test_all_of_it_arrives(opened, kind):
    report = opened(kind, lambda config: FULL, num_objectives=2).one()
    assert report.outcome == FULL


def test_from_a_coroutine(opened):
    async def objective(config):
        return FULL

    assert opened(AsyncWorker, objective, num_objectives=2).one().outcome == FULL


def test_what_it_does_not_say_is_measured(opened):
    outcome = opened(MultiProcessWorker, lambda config: Outcome("ok", (1.0,))).one().outcome
    assert outcome.run_s is not None
    assert 0 <= outcome.run_s < 5
    assert (outcome.values, outcome.spread, outcome.metrics) == ((1.0,), None, {})


@pytest.mark.parametrize("status", ["compile_error", "compile_timeout", "wrong", "run_timeout", "throttled"])
def test_failures_keep_status_and_message(opened, status):
    def objective(config):
        print("some output")
        return Outcome(status, message="off by 0.1", compile_s=2.0, metrics={"error": 0.1})

    outcome = opened(MultiProcessWorker, objective).one().outcome
    assert (outcome.status, outcome.message, outcome.compile_s) == (status, "off by 0.1", 2.0)
    assert outcome.metrics == {"error": 0.1}


@pytest.mark.parametrize("kind", [MultiProcessWorker, AsyncWorker])
def test_a_failure_with_a_status_there_is_not_names_it(opened, kind):
    def fail(config):
        raise ObjectiveFailure("bogus", "off by 0.1")

    async def fail_async(config):
        fail(config)

    outcome = opened(kind, fail_async if kind is AsyncWorker else fail).one().outcome
    assert outcome.status == "run_error"
    assert outcome.message.startswith("`status` is 'bogus'; it must be one of compile_error, ")
    assert "ObjectiveFailure: off by 0.1" in outcome.message


def test_another_exception_may_have_a_status_of_its_own(opened):
    class HttpError(Exception):
        status = "404 not found"

    def fail(config):
        raise HttpError("gone")

    outcome = opened(MultiProcessWorker, fail).one().outcome
    assert outcome.status == "run_error"
    assert outcome.message.startswith("HttpError: gone")


def test_a_wrong_number_of_values(opened):
    outcome = opened(MultiProcessWorker, lambda config: FULL).one().outcome
    assert outcome.status == "invalid_result"
    assert outcome.message == "the objective returned an Outcome with 2 values; expected a number"
    assert outcome.metrics == FULL.metrics


def test_metrics_that_cannot_travel(opened):
    def objective(config):
        import threading

        metrics = {
            0: {"lock": threading.Lock()},
            1: {("a",): 1},
            2: {"much": "x" * (1 << 19)},
        }
        return Outcome("ok", (1.0,), metrics=metrics[config])

    lock, key, much = opened(MultiProcessWorker, objective).evaluate(0, 1, 2)
    assert lock.outcome.metrics["lock"].startswith("<unlocked")
    assert key.outcome.metrics["dropped"].startswith("the metrics cannot be kept (TypeError")
    assert much.outcome.metrics["dropped"].startswith("the metrics are 524")
    assert {report.outcome.status for report in (lock, key, much)} == {"ok"}


def test_the_journal_holds_all_of_it(runs, records):
    Search(
        objective_function=lambda config: Outcome(
            "ok", (config["x"],), spread=(0.5,), samples=3, metrics={"m": 1}
        ),
        search_space={"x": Range(1, 4)},
        search_config=SearchConfiguration(generations=1),
        remeasure_every=0,
        disable_progress_bar=True,
    ).start(num_workers=1)
    outcomes = [record["outcome"] for record in records(runs / "1") if record["t"] == "outcome"]
    assert len(outcomes) == 4
    for outcome in outcomes:
        assert (outcome["spread"], outcome["samples"], outcome["metrics"]) == ([0.5], 3, {"m": 1})


def test_scores_are_no_outcomes():
    assert not any(map(is_outcome, (1.0, [1.0], "*", None, {"status": "ok"})))
    assert is_outcome(FULL)
    assert read_outcome(Outcome("ok", (float("nan"),)))[0] == "invalid_result"
