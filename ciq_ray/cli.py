"""The command ``ciq``.

Exit status, of every command:

| status | meaning |
|---|---|
| 0 | done |
| 1 | the search failed, or `ciq doctor` found something missing that is needed |
| 2 | the command line or a setting cannot be used |
| 3 | the run or its journal cannot be used |
| 130 | interrupted; the run can be resumed |
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ciq_ray._version import __version__
from ciq_ray.errors import CiqError, ConfigurationError, JournalError

if TYPE_CHECKING:
    from rich.console import Console

    from ciq_ray.ciq import Search
    from ciq_ray.results import SearchResult

__all__ = ["app", "main"]

FAILED: Final = 1
USAGE: Final = 2
UNUSABLE_RUN: Final = 3
INTERRUPTED: Final = 130

_MAX_FRONT_ROWS: Final = 20

app = typer.Typer(
    name="ciq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 the search failed, 2 wrong usage, 3 the run or its journal cannot be "
    "used, 130 interrupted.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ciq-ray {__version__}")
        raise typer.Exit


@app.callback()
def _ciq(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Find the configuration of a kernel, a compiler or any measurable program that does best.

    A search is a Python script that calls `ciq_ray.Search(...).start()`. This command looks after runs
    that scripts have begun.
    """


@app.command(short_help="Go on with a search that was interrupted.")
def resume(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="The run's folder or journal, or its number in CIQ_RUNS_DIR (by default ./ciq_runs).",
        ),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on although the script with the objective has changed since."),
    ] = False,
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

    What the journal holds is not evaluated again. The objective is imported from the script that began
    the run, which must not have changed since (see --force) and must have its `start()` under
    `if __name__ == "__main__":`. At the end the best result is printed.
    """
    with _clean_errors(), _stdout_to_stderr(as_json):
        from ciq_ray.ciq import Search
        from ciq_ray.resuming import run_folder

        folder = run_folder(run)
        fields: dict[str, Any] = {"disable_progress_bar": as_json}
        if max_evaluations is not None:
            fields["max_evaluations"] = max_evaluations
        search = Search.resume(folder, force=force, **fields)
        result = search.start(num_workers=num_workers, task_timeout=task_timeout)
    summary = _summary(folder, search, result)
    if as_json:
        print(json.dumps(summary, default=repr))
    else:
        _show(summary)
    if summary["reason"] == "stopped":
        raise typer.Exit(INTERRUPTED)
    if not summary["best"]:
        raise typer.Exit(FAILED)


@app.command(short_help="Say what this machine has for a search.")
def doctor(as_json: Json = False) -> None:
    """Say what this machine has for a search, and what to do about what it lacks.

    Looks at Python and the packages, processors and memory (the limits of a container included),
    compilers, GPUs, and the folder of the runs. Changes nothing. The exit status is 1 if something is
    missing that every search needs.
    """
    from ciq_ray.doctor import MISSING, examine

    with _clean_errors():
        findings = examine()
    ready = all(finding.state != MISSING for finding in findings)
    if as_json:
        print(json.dumps({"ready": ready, "findings": [finding.to_dict() for finding in findings]}))
    else:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        colours = {"ok": "green", "missing": "red"}
        for finding in findings:
            colour = colours.get(finding.state, "yellow")
            table.add_row(f"[{colour}]{finding.state}[/]", finding.name, _escaped(finding.value))
            if finding.advice:
                table.add_row("", "", f"[{colour}]->[/] {_escaped(finding.advice)}")
        _console().print(table)
    if not ready:
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line; does not return."""
    app(prog_name="ciq")


@contextlib.contextmanager
def _clean_errors() -> Iterator[None]:
    """Turn what is raised on purpose into one message and an exit status."""
    from searchers.errors import SearcherError

    try:
        yield
    except JournalError as error:
        _fail(error, UNUSABLE_RUN)
    except (ConfigurationError, SearcherError) as error:
        _fail(error, USAGE)
    except CiqError as error:
        _fail(error, FAILED)
    except KeyboardInterrupt:
        print("interrupted; the run can be resumed", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _fail(error: Exception, status: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(status) from error


def _stdout_to_stderr(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """What a script prints while it is imported must not end up in the JSON."""
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()


def _summary(folder: Path, search: Search, result: SearchResult) -> dict[str, Any]:
    from ciq_ray.errors import ResultError
    from ciq_ray.journal import read_records

    reason = ""
    for record in read_records(folder):
        if record.get("t") == "end":
            reason = record["reason"]
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
        "results": str(folder / "results.csv"),
    }


def _show(summary: dict[str, Any]) -> None:
    console = _console()
    console.print(
        f"{summary['evaluations']} evaluations, {summary['failed']} failed; ended: {summary['reason']}",
        highlight=False,
    )
    best = sorted(summary["best"], key=lambda row: [row[name] for name in summary["score_columns"]])
    if not best:
        console.print("no evaluation has passed", highlight=False)
    elif len(best) == 1:
        scores = ", ".join(f"{name} {best[0][name]:.6g}" for name in summary["score_columns"])
        console.print(f"best: {scores}", highlight=False)
        console.print(_params(best[0]["params"]), highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(f"Pareto front of {len(best)}:", highlight=False)
        for row in best[:_MAX_FRONT_ROWS]:
            scores = "  ".join(f"{row[name]:.6g}" for name in summary["score_columns"])
            params = " ".join(_params(row["params"]).split())
            console.print(f"  {scores}  {params}", highlight=False, markup=False, soft_wrap=True)
        if len(best) > _MAX_FRONT_ROWS:
            console.print(f"  ... and {len(best) - _MAX_FRONT_ROWS} more", highlight=False)
    console.print(f"all results: {summary['results']}", highlight=False, markup=False, soft_wrap=True)


def _params(params: Any) -> str:
    return params if isinstance(params, str) else json.dumps(params, default=repr)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
