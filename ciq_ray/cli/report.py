"""``ciq report``: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciq_ray.cli.common import Json, Run, clean_errors, print_json

__all__ = ["report"]


def report(
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to. An earlier report is replaced. [default: report.html in the run's folder]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no report, too.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run into one HTML file that needs no network.

    It shows the best configuration and how to apply it, how the search went, what failed, which parameters
    matter, where evaluations ran, and a table of all of them. Of a search that is still running, or that was
    stopped, it shows what there is. The file's name is printed.
    """
    with clean_errors():
        from ciq_ray.report.data import ReportData
        from ciq_ray.report.html import check_target, write_report
        from ciq_ray.resuming import run_folder

        folder = run_folder(run)
        target = check_target(output if output is not None else folder / "report.html", force=force)
        data = ReportData.of_run(folder)
        write_report(data, target)
    if as_json:
        print_json({"run": str(folder), "report": str(target), "evaluations": len(data.rows)})
    else:
        print(target)
