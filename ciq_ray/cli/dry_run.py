"""``ciq tune --dry-run``: what would run, how often, and what it would cost."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import typer

from ciq_ray.cli.common import FAILED, console, duration, params_text, print_json
from ciq_ray.cli.formats import environment_words

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.commands import CommandObjective
    from searchers.outcome import Outcome

__all__ = ["dry_run"]

_FIRST = 3


def dry_run(
    search: Search, objective: CommandObjective, *, workers: int, measure: bool, as_json: bool
) -> None:
    """Print what a search would do; measure its first candidate if `measure`, else run nothing.

    Args:
        search: The search; it has a seed.
        objective: Its objective.
        workers: Evaluations at a time.
        measure: Whether to evaluate the first candidate once.
        as_json: Whether to print JSON.
    """
    from ciq_ray.race import Plan
    from ciq_ray.searching import effective_options, make_searcher
    from ciq_ray.warm_start import WarmStart

    options = effective_options(search)
    cached = WarmStart(search, options).rows()
    searcher = make_searcher(search, search.seed or 0, options=options, further_rows=cached)
    candidates = searcher.ask(_FIRST)
    config = search.search_config
    planned = config.generations * config.resolved_pool_size
    limits = [planned, search.max_evaluations, search.space.size, getattr(searcher, "count", None)]
    evaluations = min(limit for limit in limits if limit is not None)
    plan = search.final_race if isinstance(search.final_race, Plan) else Plan()
    race_calls = plan.calls(plan.finalists) if search.final_race else 0
    data: dict[str, Any] = {
        "configurations": search.space.size,
        "evaluations_at_most": evaluations,
        "workers": workers,
        "seed": search.seed,
        "directory": str(objective.directory),
        "copied_files": None if objective.copies is None else objective.copies.n_files,
        "first": [
            {
                "config": found.config,
                "argv": objective.argv(found.config),
                "env": objective.variables(found.config),
            }
            for found in candidates
        ],
        "race_calls_at_most": race_calls,
    }
    outcome = objective.evaluate(candidates[0].config) if measure else None
    if outcome is not None:
        data["measured"] = outcome.to_dict()
        if outcome.ok:
            data["estimate_s"] = _estimate(objective, outcome, evaluations, workers, race_calls)
    if as_json:
        print_json(data)
    else:
        _show(data, objective, outcome)
    if outcome is not None and not outcome.ok:
        raise typer.Exit(FAILED)


def _estimate(
    objective: CommandObjective, outcome: Outcome, evaluations: int, workers: int, race_calls: int
) -> float:
    once = outcome.metrics["command_s"]
    return float(evaluations * ((outcome.compile_s or 0.0) + once) / workers + race_calls * once)


def _show(data: dict[str, Any], objective: CommandObjective, outcome: Outcome | None) -> None:
    out = console()

    def line(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    size = data["configurations"]
    line(f"{size} configurations" if size else "more configurations than can be counted")
    line(
        f"at most {data['evaluations_at_most']} evaluations, {data['workers']} at a time, seed {data['seed']}"
    )
    if data["copied_files"] is not None:
        line(f"in copies of {data['directory']} ({data['copied_files']} files)")
    else:
        line(f"in {data['directory']}")
    line("the first candidates:")
    for item in data["first"]:
        line(f"  {params_text(item['config'], one_line=True) or '(empty)'}")
        for name, words in item["argv"].items():
            line(f"    {name}: {shlex.join([*environment_words(item['env']), *words])}")
    if data["race_calls_at_most"]:
        line(f"then a final race of at most {data['race_calls_at_most']} measurements, one at a time")
    if outcome is None:
        line("nothing was run; --measure runs the first candidate once, to say how long it would take")
    elif outcome.ok:
        built = f"built in {duration(outcome.compile_s)}, " if outcome.compile_s is not None else ""
        scores = ", ".join(f"{value:.6g}" for value in objective.shown(outcome.values))
        line(
            f"the first candidate, measured once: {built}ran {duration(outcome.metrics['command_s'])}, "
            f"scored {scores}"
        )
        line(f"so all of it takes about {duration(data['estimate_s'])} at most")
    else:
        line(f"the first candidate failed, {outcome.status}: {outcome.message}")
