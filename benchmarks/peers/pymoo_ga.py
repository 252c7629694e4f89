"""pymoo's genetic algorithm for mixed variables."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers.meter import MOST_REPEATS, Meter, Spent, choices

__all__ = ["mixed_variable_ga"]


def mixed_variable_ga(meter: Meter, seed: int, batch: int = 1) -> None:
    """``MixedVariableGA()`` at its defaults, a population of 50.

    A parameter of numbers is an `Integer`, the position of its value; any other a `Choice`. What breaks a
    static constraint is infeasible, as is what fails. A generation is proposed as a whole, so that `batch`
    makes no difference.
    """
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.mixed import MixedVariableGA
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.core.variable import Choice, Integer
    from pymoo.problems.static import StaticProblem

    values = choices(meter.landscape)
    ordered = {leaf.name: leaf.param.ordered for leaf in meter.landscape.space.encoding.leaves}
    problem = Problem(
        vars={
            name: Integer(bounds=(0, len(options) - 1)) if ordered[name] else Choice(options=options)
            for name, options in values.items()
        },
        n_obj=1,
        n_ieq_constr=1,
    )
    algorithm = MixedVariableGA()
    algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
    rng = np.random.default_rng(seed)
    free = 0

    def key_of(x: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(options[int(x[name])] if ordered[name] else x[name] for name, options in values.items())

    try:
        while not meter.spent:
            population = algorithm.ask()
            times = []
            for individual in population:
                key = key_of(individual.X)
                free = 0 if meter.valid(key) and not meter.known(key) else free + 1
                if free >= MOST_REPEATS:
                    meter.time(meter.unseen(rng))  # it counts for the peer, which does not get to know it
                    free = 0
                times.append(meter.time(key) if meter.valid(key) else None)
            if not times:
                meter.time(meter.unseen(rng))
                continue
            failed = np.array([[time is None] for time in times])
            losses = np.array([[meter.landscape.worst if time is None else time] for time in times])
            Evaluator().eval(StaticProblem(problem, F=losses, G=failed.astype(float)), population)
            algorithm.tell(infills=population)
    except Spent:
        return
