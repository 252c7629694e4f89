"""Candidates per second under Ray Tune: `ciq_ray.tune` next to a plain trainable with ``reuse_actors``.

The objective sleeps for a millisecond, so that what is measured is what Ray Tune takes for a trial. All sides
run the same random search with two trials at a time, in one Ray, and are timed from the end of their fifth
trial, when all actors have started, to that of the last.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import searchers
from benchmarks import objectives, spaces
from benchmarks._report import Claim, Result, medians, rotated

__all__ = ["run"]

AT_ONCE = 2
STARTING = 5
PARAMETERS = 10
TRIALS, QUICK_TRIALS = 200, 40
BATCHED, QUICK_BATCHED = 3000, 400
ROUNDS, QUICK_ROUNDS = 3, 1
ALONE, TOGETHER = 0.8, 5.0
PLAIN = "plain, reuse_actors"


def run(quick: bool) -> Result:
    """Measure all sides in turn, round after round."""
    import ray

    trials, batched = (QUICK_TRIALS, QUICK_BATCHED) if quick else (TRIALS, BATCHED)
    sides: dict[str, Callable[[], float]] = {
        PLAIN: lambda: _plain(trials),
        "ciq_ray.tune, one in a trial": lambda: _ours(trials, batch=1),
        "ciq_ray.tune, one in a trial, in the actor": lambda: _ours(trials, batch=1, in_process=True),
        "ciq_ray.tune": lambda: _ours(batched),
        "ciq_ray.tune, in the actor": lambda: _ours(batched, in_process=True),
    }
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # of the plain side: no files of trials
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    ray.init(address="local", num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    try:
        rounds = [
            {name: sides[name]() for name in rotated(list(sides), number)}
            for number in range(QUICK_ROUNDS if quick else ROUNDS)
        ]
    finally:
        ray.shutdown()
    rates = medians(rounds)
    ratios = medians([{name: one[name] / one[PLAIN] for name in one} for one in rounds])
    table = [
        [name, f"{rates[name]:,.0f}", f"{1e3 / rates[name]:.1f}", f"{ratios[name]:.2f}"] for name in sides
    ]
    claims = [
        Claim(f"{name}: rate relative to a plain trainable", ratios[name], floor, at_least=True)
        for name, floor in (("ciq_ray.tune, one in a trial", ALONE), ("ciq_ray.tune", TOGETHER))
    ]
    header = ["objective of 1 ms, two at a time", "candidates/s", "ms each", "ratio to the plain trainable"]
    return Result("tune_overhead", header, table, claims, {"rounds": rounds})


def _ours(count: int, **options: Any) -> float:
    from ciq_ray import tune

    clock = _clock()
    with tempfile.TemporaryDirectory() as folder:
        tune.run(
            objectives.sleeping,
            spaces.mixed(PARAMETERS),
            num_samples=count,
            searcher=_searcher(),
            max_concurrent_trials=AT_ONCE,
            storage_path=folder,
            callbacks=[clock],
            **options,
        )
    return float(clock.rate())


def _plain(count: int) -> float:
    from ray import tune

    clock = _clock()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            _trial,
            tune_config=tune.TuneConfig(
                search_alg=_searcher(),
                num_samples=count,
                max_concurrent_trials=AT_ONCE,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[clock]),
        ).fit()
    return float(clock.rate())


def _trial(config: dict[str, Any]) -> None:
    from ray import tune

    tune.report({"score": objectives.sleeping(config)})


def _searcher() -> searchers.SpaceSearcher:
    return searchers.create(
        "random", spaces.mixed(PARAMETERS), metric="score", mode="min", seed=0, count=10**6
    )


def _clock() -> Any:
    """A callback of Ray Tune that notes when each trial has ended, and how many candidates it had."""
    from ray import tune

    class Clock(tune.Callback):  # type: ignore[misc]  # Ray publishes no types
        def __init__(self) -> None:
            self.ends: list[tuple[float, int]] = []

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.ends.append((time.perf_counter(), len(trial.config.get("ciq_batch", [None]))))

        def rate(self) -> float:
            timed = self.ends[STARTING - 1 :]
            return sum(count for _, count in timed[1:]) / (timed[-1][0] - timed[0][0])

    return Clock()
