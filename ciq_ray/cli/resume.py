"""``ciq resume``, and the summary of a search that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ciq_ray.cli.common import (
    FAILED,
    INTERRUPTED,
    Force,
    Json,
    Run,
    clean_errors,
    console,
    numbers,
    params_text,
    print_json,
    stdout_to_stderr,
)

if TYPE_CHECKING:
    from ciq_ray.results import SearchResult

__all__ = ["end", "resume"]

_MAX_FRONT_ROWS: Final = 20


def resume(
    run: Run,
    force: Force = False,
    num_workers: Annotated[
        int | None,
        typer.Option("--num-workers", min=1, metavar="N", help="Evaluations at a time. [default: as before]"),
    ] = None,
    task_timeout: Annotated[
        float | None,
        typer.Option(
            "--task-timeout", metavar="S", help="Seconds one evaluation may take. [default: as before]"
        ),
    ] = None,
    max_evaluations: Annotated[
        int | None,
        typer.Option(
            "--max-evaluations",
            min=1,
            metavar="N",
            help="Evaluations of the whole search, those already made included. [default: as before]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Go on with a search that was interrupted, killed or stopped by its budget.

    What the journal holds is not evaluated again. A command is the one that `ciq tune` was given. A Python
    objective is imported from the script that began the run, which must have its `start()` under
    `if __name__ == "__main__":`. Neither must have changed since (see --force). At the end the best result
    is printed.
    """
    with clean_errors(), stdout_to_stderr(as_json):
        from ciq_ray.ciq import Search
        from ciq_ray.resuming import run_folder

        folder = run_folder(run)
        fields: dict[str, Any] = {"disable_progress_bar": as_json}
        if max_evaluations is not None:
            fields["max_evaluations"] = max_evaluations
        search = Search.resume(folder, force=force, **fields)
        result = search.start(num_workers=num_workers, task_timeout=task_timeout)
    end(folder, result, as_json=as_json)


def end(folder: Path, result: SearchResult, *, as_json: bool) -> None:
    """Print what came of a search, and exit with its status."""
    summary = _summary(folder, result)
    if as_json:
        print_json(summary)
    else:
        _show(summary)
    if summary["reason"] == "stopped":
        raise typer.Exit(INTERRUPTED)
    if not summary["best"]:
        raise typer.Exit(FAILED)


def _summary(folder: Path, result: SearchResult) -> dict[str, Any]:
    from ciq_ray.errors import ResultError
    from ciq_ray.journal import read_records

    reason, unchanged, chosen = "", 0, None
    for record in read_records(folder):
        if record.get("t") == "end":
            reason = record["reason"]
        elif record.get("t") == "outcome":
            unchanged += "build_changed_nothing" in record["outcome"].get("metrics", {})
        elif record.get("t") == "verdict":
            chosen = record["config"]
    table = result.get_results()
    try:
        best = result.pareto_front() if result.num_scores > 1 else [result.get_best_result()]
    except ResultError:
        best = []
    return {
        "run": str(folder),
        "reason": reason,
        "evaluations": len(table),
        "failed": int((table["status"] != "ok").sum()) if len(table) else 0,
        "problem_type": result.problem_type.value,
        "score_columns": result.score_columns,
        "best": best,
        "verdict": None if result.verdict is None else result.verdict.to_dict(),
        "chosen": None if result.verdict is None else chosen,
        "builds_that_changed_nothing": unchanged,
        "results": str(folder / "results.csv"),
    }


def _show(summary: dict[str, Any]) -> None:
    out = console()
    out.print(f"{summary['evaluations']} evaluations, {summary['failed']} failed; ended: {summary['reason']}")
    best = sorted(summary["best"], key=lambda row: [row[name] for name in summary["score_columns"]])
    if not best:
        out.print("no evaluation has passed")
    elif len(best) == 1:
        scores = ", ".join(f"{name} {best[0][name]:.6g}" for name in summary["score_columns"])
        out.print(f"best: {scores}")
        out.print(params_text(best[0]["params"]), markup=False, soft_wrap=True)
    else:
        out.print(f"Pareto front of {len(best)}:")
        for row in best[:_MAX_FRONT_ROWS]:
            scores = numbers([row[name] for name in summary["score_columns"]])
            params = params_text(row["params"], one_line=True)
            out.print(f"  {scores}  {params}", markup=False, soft_wrap=True)
        if len(best) > _MAX_FRONT_ROWS:
            out.print(f"  ... and {len(best) - _MAX_FRONT_ROWS} more")
    if summary["verdict"]:
        out.print(f"verdict: {summary['verdict']['words']}", markup=False, soft_wrap=True)
        out.print(f"use: {params_text(summary['chosen'], one_line=True)}", markup=False, soft_wrap=True)
    if summary["builds_that_changed_nothing"]:
        out.print(
            f"warning: {summary['builds_that_changed_nothing']} builds changed no file, so that what ran may "
            "have been built before; does the build take what is there for up to date (make -B)?",
            soft_wrap=True,
        )
    out.print(f"all results: {summary['results']}", markup=False, soft_wrap=True)
