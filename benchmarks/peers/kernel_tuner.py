"""Kernel Tuner's genetic algorithm and particle swarm."""

from __future__ import annotations

import contextlib
import importlib
import io
import random
from typing import Any, Final

import numpy as np

from benchmarks.peers.meter import Meter, choices

__all__ = ["genetic_algorithm", "pso"]

_MOST_RUNS: Final = 100


def genetic_algorithm(meter: Meter, seed: int, batch: int = 1) -> None:
    """The strategy ``genetic_algorithm`` at its defaults; it evaluates one by one."""
    _tune("genetic_algorithm", meter, seed)


def pso(meter: Meter, seed: int, batch: int = 1) -> None:
    """The strategy ``pso`` at its defaults; it evaluates one by one."""
    _tune("pso", meter, seed)


def _tune(strategy: str, meter: Meter, seed: int) -> None:
    """Run a strategy, again and again if its generations end before the budget.

    It gets the list of valid configurations, and a runner that looks them up, as the package's own
    simulation mode does: a configuration that was evaluated before costs nothing.
    """
    from kernel_tuner.interface import Options
    from kernel_tuner.runners.runner import Runner
    from kernel_tuner.searchspace import Searchspace
    from kernel_tuner.util import RuntimeFailedConfig, TuningBudget

    parameters = choices(meter.landscape)

    class Lookup(Runner):
        def get_device_info(self) -> None:
            return None

        def get_environment(self, tuning_options: Any) -> dict[str, Any]:
            return {}

        def run(self, parameter_space: Any, tuning_options: Any) -> list[dict[str, Any] | None]:
            results: list[dict[str, Any] | None] = []
            for element in parameter_space:
                if tuning_options.budget.is_done():
                    results.append(None)
                    continue
                key = tuple(element)
                if not meter.known(key):
                    tuning_options.budget.add_evaluations(1)
                time = meter.time(key)
                result = dict(zip(parameters, element, strict=True))
                results.append(
                    {**result, "__error__": RuntimeFailedConfig()}
                    if time is None
                    else {**result, "time": time}
                )
            return results

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the strategies draw from the global generators
    module = importlib.import_module(f"kernel_tuner.strategies.{strategy}")
    cache = {
        str(place): dict(zip(parameters, key, strict=True)) for place, key in enumerate(meter.landscape.keys)
    }
    for _ in range(_MOST_RUNS):
        if meter.spent:
            return
        # a new one for each run: its cache of neighbours leaks positions from one run into the next
        space = Searchspace(None, None, None, from_cache={"tune_params": parameters, "cache": cache})
        options = Options(
            strategy_options=Options({}),
            budget=TuningBudget(max_fevals=meter.left),
            objective=["time"],
            objective_higher_is_better=[False],
            tune_params=parameters,
            restrictions=None,
            metrics=None,
            verbose=False,
            cache={},
        )
        with contextlib.redirect_stdout(io.StringIO()):
            module.tune(space, Lookup(), options)
