"""Every searcher under Ray Tune's own loop, with real trials in real processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Repeater, Searcher

from searchers import Choice, OptionError, PowerOfTwo, Range, Space, SpaceSearcher, create
from searchers.registry import NAMES

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(300),
]
SEARCHERS = [name for name in NAMES if name != "finite"]  # which has its list instead of a space


def slow_but(*kept: str) -> list[Any]:
    """All searchers, of which only those kept run in every test run."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHERS]


Trainable = Callable[[dict[str, Any]], None]


def space() -> Space:
    return Space(
        {"x": Range(0, 9), "y": Choice(["row", "col"]), "z": PowerOfTwo(1, 8)},
        ["x * z <= 40", lambda config: config["y"] == "row" or config["x"] > 1],
    )


def time_of(config: dict[str, Any]) -> float:
    return float((config["x"] - 4) ** 2 + config["z"] + (config["y"] == "col"))


def some_fail(config: dict[str, Any]) -> None:
    if config["x"] % 4 == 3:
        tune.report({"time": math.nan, "ciq_status": "compile_error", "ciq_message": "no registers"})
    else:
        tune.report({"time": time_of(config)})


def fit(
    trainable: Trainable,
    search_alg: Searcher,
    folder: Path,
    param_space: dict[str, Any] | None = None,
    **options: Any,
) -> tune.ResultGrid:
    config = tune.TuneConfig(search_alg=search_alg, reuse_actors=True, **options)
    run = tune.RunConfig(storage_path=str(folder), name="run", verbose=0)
    tuner = tune.Tuner(trainable, param_space=param_space, tune_config=config, run_config=run)
    return tuner.fit()


def configs(results: tune.ResultGrid) -> list[dict[str, Any]]:
    return [dict(result.config) for result in results]


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_space_of_ours_and_failures_as_results(name: str, tmp_path: Path) -> None:
    searcher = create(name, space(), metric="time", mode="min", seed=0)
    results = fit(some_fail, searcher, tmp_path, num_samples=12, max_concurrent_trials=1)
    tried = configs(results)
    assert len(tried) == 12
    assert results.num_errors == 0
    assert len({tuple(config.items()) for config in tried}) == 12
    for config in tried:
        space().encode(config)  # raises if it breaks a constraint
    outcomes = [searcher._trials[int(index)].outcome for index in range(searcher.n_proposed)]
    failed = [o for o in outcomes if o is not None and not o.ok]
    assert len(failed) == sum(config["x"] % 4 == 3 for config in tried)
    assert {(o.status, o.message) for o in failed} <= {("compile_error", "no registers")}
    passed = [time_of(config) for config in tried if config["x"] % 4 != 3]
    assert sorted(o.values[0] for o in outcomes if o is not None and o.ok) == sorted(passed)
    assert searcher.best is not None
    assert searcher.best[1].values == (min(passed),)
    assert searcher.n_pending == 0


def of_domains(config: dict[str, Any]) -> None:
    assert config["fixed"] == {"depth": 7}
    assert config["twice"] == 2 * config["inner"]["x"]
    tune.report({"time": config["inner"]["x"] * (2 if config["y"] == "b" else 1)})


@pytest.mark.parametrize("name", slow_but("auto", "genetic"))
def test_param_space_until_there_is_nothing_left(name: str, tmp_path: Path) -> None:
    searcher = create(name, seed=0)
    results = tune.run(
        of_domains,
        config={
            "inner": {"x": tune.randint(0, 4)},
            "y": tune.choice(["a", "b"]),
            "fixed": {"depth": 7},
            # the searcher does not see it: Ray Tune works it out for each trial
            "twice": tune.sample_from(lambda config: 2 * config["inner"]["x"]),
        },
        search_alg=searcher,
        metric="time",
        mode="max",
        num_samples=-1,
        max_concurrent_trials=1,
        reuse_actors=True,
        storage_path=str(tmp_path),
        verbose=0,
    )
    tried = [(trial.config["inner"]["x"], trial.config["y"]) for trial in results.trials]
    assert searcher.space is not None
    assert searcher.space.size == 8
    assert len(set(tried)) == len(tried) <= 8
    assert searcher.finished
    assert searcher.best is not None
    assert searcher.best[1].values == (max(x * (2 if y == "b" else 1) for x, y in tried),)


def two_values(config: dict[str, Any]) -> None:
    tune.report({"time": time_of(config), "size": float(10 - config["x"])})


@pytest.mark.parametrize(
    "name", ["genetic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("auto", "bayesian"))]
)
def test_two_objectives_by_lists(name: str, tmp_path: Path) -> None:
    searcher = create(name, space(), metric=["time", "size"], mode=["min", "max"], seed=0)
    results = fit(two_values, searcher, tmp_path, num_samples=20, max_concurrent_trials=1)
    values = {(result.metrics["time"], result.metrics["size"]) for result in results if result.metrics}
    front = {
        (time, size)
        for time, size in values
        if not any(t <= time and s >= size and (t, s) != (time, size) for t, s in values)
    }
    assert {outcome.values for _, outcome in searcher.front} == front
    assert len(results) == 20


def raises(config: dict[str, Any]) -> None:
    if config["x"] == 2:
        raise RuntimeError("two")
    tune.report({"time": time_of(config)})


@pytest.mark.slow
def test_a_trial_that_raises_is_a_failure_and_may_be_tried_again(tmp_path: Path) -> None:
    points = [{"x": 2, "y": "row", "z": 1}, {"x": 3, "y": "row", "z": 1}]
    searcher = create("random", space(), metric="time", mode="min", seed=0, points_to_evaluate=points)
    # no limiter: Ray Tune's own would keep a resumed trial's second result to itself
    results = fit(raises, searcher, tmp_path, num_samples=2)
    assert results.num_errors == 1
    assert configs(results) == points
    outcomes = [trial.outcome for trial in searcher._trials[:2]]
    assert [outcome and outcome.status for outcome in outcomes] == ["run_error", "ok"]

    def repaired(config: dict[str, Any]) -> None:
        tune.report({"time": time_of(config)})

    repaired.__name__ = repaired.__qualname__ = "raises"
    restored = tune.Tuner.restore(str(tmp_path / "run"), trainable=repaired, resume_errored=True)
    assert restored.fit().num_errors == 0
    state = (tmp_path / "run").glob("searcher-state-*.pkl")
    searcher.restore(str(max(state)))
    relabelled = searcher._trials[0].outcome
    assert relabelled is not None
    assert relabelled.values == (time_of(points[0]),)


@pytest.mark.parametrize("batch", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_limiter_around_it(batch: bool, tmp_path: Path) -> None:
    searcher = create(
        "genetic", space(), pool_size=6, generations=2, generational=True, metric="time", mode="min", seed=0
    )
    limited = ConcurrencyLimiter(searcher, max_concurrent=2, batch=batch)
    results = fit(some_fail, limited, tmp_path, num_samples=-1)
    assert len(results) == searcher.n_proposed >= 12
    assert searcher.finished
    assert searcher.n_pending == 0


def noisy(config: dict[str, Any]) -> None:
    tune.report({"time": time_of(config) + config["__trial_index__"]})


def test_a_repeater_around_it(tmp_path: Path) -> None:
    searcher = create("genetic", space(), metric="time", mode="min", seed=0)
    results = fit(noisy, Repeater(searcher, repeat=3), tmp_path, num_samples=9, max_concurrent_trials=1)
    assert len({(c["x"], c["y"], c["z"]) for c in configs(results)}) == 3
    assert searcher.n_pending == 0
    for trial in searcher._trials[:3]:
        assert trial.outcome is not None
        assert trial.outcome.values == (time_of(space().decode(trial.row)) + 1.0,)  # mean of 0, 1 and 2


def of_parts(config: dict[str, Any]) -> None:
    first, second = config["config"]
    tune.report({"time": first["a"] + second["b"] + config["epochs"]})


def test_trials_of_another_experiment_are_learnt_from(tmp_path: Path) -> None:
    def fresh() -> SpaceSearcher:
        return create("random", Space([{"a": Range(0, 3)}, {"b": Range(0, 3)}]), metric="time", mode="min")

    first = fresh()
    # constants may come through `param_space`; a configuration that is a list of parts comes as "config"
    results = fit(
        of_parts, first, tmp_path, {"epochs": 10}, num_samples=10, max_concurrent_trials=1, metric="time"
    )
    analysis = results._experiment_analysis
    assert analysis.trials is not None
    for source in (results, analysis, analysis.trials, analysis.trials[0]):
        second = fresh()
        second.add_evaluated_trials(source, "time")
        known = 1 if source is analysis.trials[0] else 10
        assert second.n_proposed == known
        if known == 10:
            assert first.best is not None
            assert second.best is not None
            assert second.best[1].values == first.best[1].values
            rest = [candidate.config for candidate in second.ask(16)]
            assert len(rest) == 6
            assert not any(config in [c["config"] for c in configs(results)] for config in rest)
    with pytest.raises(OptionError, match="trials_or_analysis"):
        fresh().add_evaluated_trials("path", "time")
    with pytest.raises(OptionError, match="metric"):
        fresh().add_evaluated_trials(results, ["time", "size"])


def test_the_metric_has_to_be_the_searchers_own(tmp_path: Path) -> None:
    searcher = create("random", space(), seed=0)
    with pytest.raises(OptionError, match="give both to the searcher"):
        fit(some_fail, searcher, tmp_path, num_samples=1, metric="time", mode="min")


def test_normal_distributions_are_refused(tmp_path: Path) -> None:
    searcher = create("random", seed=0)
    with pytest.raises(ValueError, match="Normal"):
        fit(some_fail, searcher, tmp_path, {"x": tune.randn(0, 1)}, metric="time", mode="min")
