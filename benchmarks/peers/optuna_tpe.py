"""Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import warnings

import numpy as np

from benchmarks.peers.meter import MOST_REPEATS, Meter, Spent, choices

__all__ = ["tpe"]


def tpe(meter: Meter, seed: int, batch: int = 1) -> None:
    """``TPESampler(multivariate=True)``, its other options at their defaults.

    Every parameter is categorical, as lists of values usually are: with integers for the positions of
    numbers it found less, at twice the cost. What breaks a static constraint, and what fails, is told as
    pruned, which the sampler takes for worse than anything that is complete. Of a batch, all are asked for
    before any is told.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    pruned = optuna.trial.TrialState.PRUNED
    values = choices(meter.landscape)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(range(len(options)))
        for name, options in values.items()
    }
    rng = np.random.default_rng(seed)
    free = 0
    try:
        while not meter.spent:
            if free >= MOST_REPEATS:
                key, free = meter.unseen(rng), 0
                place = {
                    name: options.index(v) for (name, options), v in zip(values.items(), key, strict=True)
                }
                study.enqueue_trial(place)
            trials = [study.ask(space) for _ in range(batch)]
            for trial in trials:
                key = tuple(options[trial.params[name]] for name, options in values.items())
                free = 0 if meter.valid(key) and not meter.known(key) else free + 1
                time = meter.time(key) if meter.valid(key) else None
                if time is None:
                    study.tell(trial, state=pruned)
                else:
                    study.tell(trial, time)
    except Spent:
        return
