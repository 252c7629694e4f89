"""The command ``ciq``.

Exit status, of every command:

| status | meaning |
|---|---|
| 0 | done |
| 1 | the search, the race or the candidate failed, or `ciq doctor` found something missing that is needed |
| 2 | the command line or a setting cannot be used |
| 3 | the run or its journal cannot be used |
| 130 | interrupted; the run can be resumed |
"""

from __future__ import annotations

from typing import Annotated

import typer

from ciq_ray._version import __version__
from ciq_ray.cli.compare import compare, race
from ciq_ray.cli.dispatch import dispatch
from ciq_ray.cli.doctor import doctor
from ciq_ray.cli.gpu import gpu
from ciq_ray.cli.mlflow_replay import mlflow_replay
from ciq_ray.cli.replay import replay
from ciq_ray.cli.report import report
from ciq_ray.cli.rerun import rerun
from ciq_ray.cli.resume import resume
from ciq_ray.cli.runs import best, runs, show
from ciq_ray.cli.tune import tune

__all__ = ["app", "main"]

app = typer.Typer(
    name="ciq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 the search or the candidate failed, 2 wrong usage, 3 the run or its "
    "journal cannot be used, 130 interrupted.",
)


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

    `ciq tune` searches with a command as the objective. A search with a Python function as the objective is
    a script that calls `ciq_ray.Search(...).start()`. The other commands look after runs of both kinds.
    """


app.command(short_help="Find the parameters with which a command does best.")(tune)
app.command(short_help="Go on with a search that was interrupted.")(resume)
app.command(short_help="List the runs.")(runs)
app.command(short_help="Show a run, or one candidate of it.")(show)
app.command(short_help="Print the best configuration of a run.")(best)
app.command(short_help="Choose few configurations for the shapes of a kernel.")(dispatch)
app.command(short_help="Write a run into one HTML file.")(report)
app.command(short_help="Evaluate one candidate again, and keep what it prints.")(rerun)
app.command(short_help="Measure the best of a run against the baseline again, for a verdict.")(race)
app.command(short_help="Compare two runs, or two columns of numbers.")(compare)
app.command(short_help="Search a recorded landscape, to see how good a searcher is.")(replay)
app.command(short_help="Write into MLflow what it could not take while a search ran.")(mlflow_replay)
app.command(short_help="Say what this machine has for a search.")(doctor)
app.add_typer(gpu, name="gpu", short_help="Look at GPUs, and undo what was left set on them.")


def main() -> None:
    """Run the command line; does not return."""
    app(prog_name="ciq")
