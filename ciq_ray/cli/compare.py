"""``ciq compare`` and ``ciq race``: who really won."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciq_ray.cli.common import (
    Force,
    Json,
    Run,
    ago,
    clean_errors,
    console,
    duration,
    escaped,
    numbers,
    params_text,
    print_json,
    stdout_to_stderr,
)

if TYPE_CHECKING:
    from ciq_ray.run_view import RunView

__all__ = ["compare", "race"]


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A run, or a CSV file: the candidate.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another of the same kind: the baseline.")],
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="The column of the CSV files. [default: `score`, or the only one with numbers]",
        ),
    ] = None,
    maximize: Annotated[
        bool, typer.Option("--maximize", help="High numbers of the CSV files are better.")
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option("--margin", min=0, help="What counts as a difference of CSV files. [default: 0.01]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two runs, or two columns of numbers.

    Of runs it shows the results side by side. That is no proof: the best of a search won partly by luck.
    For a verdict use `ciq race`.

    Of two CSV files with measurements it says which is better, with an interval for the ratio. Columns of
    one length are taken as pairs, row by row, as from measurements in alternation. The files may have a
    header line; rows whose `status` is not ok are left out.
    """
    with clean_errors():
        from ciq_ray.errors import ConfigurationError

        files = [_is_table(name) for name in (first, second)]
        if files[0] != files[1]:
            raise ConfigurationError(
                f"{first!r} and {second!r} are not of one kind; give two runs or two CSV files"
            )
        if files[0]:
            _compare_columns(first, second, column, maximize, margin, as_json=as_json)
        elif column is not None or maximize or margin is not None:
            raise ConfigurationError("--column, --maximize and --margin are for CSV files, not for runs")
        else:
            _compare_runs(first, second, as_json=as_json)


def race(
    run: Run,
    finalists: Annotated[
        int | None, typer.Option("--finalists", min=1, metavar="N", help="How many of the best enter.")
    ] = None,
    pick_blocks: Annotated[
        int | None,
        typer.Option("--pick-blocks", min=1, metavar="N", help="Most fresh processes to pick the winner in."),
    ] = None,
    verdict_blocks: Annotated[
        int | None,
        typer.Option("--verdict-blocks", min=6, metavar="N", help="Fresh processes for the verdict."),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option("--windows", min=1, metavar="N", help="Measurements of each entrant in a process."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Of the order in which they take turns.")
    ] = None,
    task_timeout: Annotated[
        float | None,
        typer.Option("--task-timeout", metavar="S", help="Seconds one measurement may take. [as in the run]"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure the best of a run against the baseline again, side by side, for a verdict.

    The finalists and the baseline take turns in fresh processes; a winner is picked; then the winner is
    measured against the baseline once more, in new processes. Only if it is better beyond doubt does it
    win: "no significant difference" is a result, and then the baseline stays. Everything measured is in the
    run's journal. It may run on another machine than the search. Needs one objective.

    What is not given is as in the run if that had a final race, else a default.
    """
    given = {
        "finalists": finalists,
        "pick_blocks": pick_blocks,
        "verdict_blocks": verdict_blocks,
        "windows": windows,
        "seed": seed,
    }
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with clean_errors(), stdout_to_stderr(as_json):
        from ciq_ray.journal import read_header
        from ciq_ray.progress import RaceProgress
        from ciq_ray.race import Plan
        from ciq_ray.racing import race_run
        from ciq_ray.resuming import run_folder

        folder = run_folder(run)
        recorded = read_header(folder).get("final_race")
        plan = Plan(**{**(recorded if isinstance(recorded, dict) else {}), **changed}) if changed else None
        progress = RaceProgress(disable=as_json)
        try:
            result = race_run(folder, plan=plan, force=force, task_timeout=task_timeout, say=progress.say)
        finally:
            progress.close()
    verdict, raced = result.verdict, result.race
    if verdict is None or raced is None:
        raise RuntimeError("a race that has ended has a verdict")
    if as_json:
        print_json(
            {
                "run": str(folder),
                "verdict": verdict.to_dict(),
                "library": None if raced.library is None else raced.library.to_dict(),
                "winner": raced.winner.id,
                "chosen": raced.chosen.id,
                "config": raced.chosen.config,
                "ranking": [list(pair) for pair in raced.ranking],
                "dropped": raced.dropped,
                "calls": raced.calls,
                "seconds": raced.seconds,
            }
        )
        return
    out = console()
    out.print(f"verdict: {verdict.words}", markup=False, soft_wrap=True)
    if raced.library is not None:
        out.print(f"library: {raced.library.words}", markup=False, soft_wrap=True)
    out.print(f"use {raced.chosen.id}: {params_text(raced.chosen.config)}", markup=False, soft_wrap=True)


def _is_table(name: str) -> bool:
    path = Path(name)
    return path.is_file() and path.suffix != ".jsonl"  # a journal stands for its run


def _compare_columns(
    first: str, second: str, column: str | None, maximize: bool, margin: float | None, *, as_json: bool
) -> None:
    from ciq_ray.cli.columns import read_column
    from ciq_ray.statistics import MARGIN, compare_samples

    mine, other = read_column(Path(first), column), read_column(Path(second), column)
    verdict = compare_samples(
        mine,
        other,
        mode="max" if maximize else "min",
        margin=MARGIN if margin is None else margin,
        names=(first, second),
    )
    if as_json:
        print_json({"verdict": verdict.to_dict(), "paired": len(mine) == len(other)})
        return
    how = "pairs" if len(mine) == len(other) else "two samples"
    console().print(f"{len(mine)} and {len(other)} numbers, taken as {how}")
    console().print(verdict.words, markup=False, soft_wrap=True)


def _compare_runs(first: str, second: str, *, as_json: bool) -> None:
    from ciq_ray.resuming import run_folder
    from ciq_ray.run_view import RunView

    views = [RunView(run_folder(name)) for name in (first, second)]
    data = [view.to_dict() for view in views]
    same = {
        "objective": views[0].what == views[1].what,
        "space": views[0].header.get("space_fingerprint") == views[1].header.get("space_fingerprint"),
    }
    if as_json:
        print_json({"runs": data, "same": same})
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("", first, second):
        table.add_column(escaped(name), overflow="fold")

    def row(name: str, values: list[str]) -> None:
        table.add_row(name, *map(escaped, values))

    row("objective", [str(one["objective"]) for one in data])
    row("begun", [f"{ago(str(one['created']))} on {one['host']}" for one in data])
    row("searcher", [f"{one['searcher']}, seed {one['seed']}" for one in data])
    row("state", [f"{one['state']} ({one['reason'] or '-'})" for one in data])
    row("evaluations", [str(one["evaluations"]) for one in data])
    row("failed", [str(one["evaluations"] - one["statuses"].get("ok", 0)) for one in data])
    row("time", [duration(one["seconds"]) for one in data])
    row("best", [_best(view) for view in views])
    row("configuration", [_configuration(view) for view in views])
    row("verdict", ["-" if one["verdict"] is None else one["verdict"]["words"] for one in data])
    console().print(table)
    notes = [f"the {name} differs" for name, equal in same.items() if not equal]
    if notes:
        console().print(f"note: {' and '.join(notes)}, so that scores may not be comparable")


def _best(view: RunView) -> str:
    leaders = view.best()
    if len(leaders) > 1:
        return f"front of {len(leaders)}"
    return numbers(view.shown(leaders[0].values)) if leaders else "-"


def _configuration(view: RunView) -> str:
    leaders = view.best()
    return params_text(leaders[0].config, one_line=True) if len(leaders) == 1 else "-"
