"""``ciq mlflow-replay``: records that waited for a server."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ciq_ray.cli.common import Json, clean_errors, print_json

__all__ = ["mlflow_replay"]

Where = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run's folder, its mlflow-spool.jsonl, or its number in CIQ_RUNS_DIR.",
    ),
]


def mlflow_replay(run: Where, json: Json = False) -> None:
    """Write into MLflow what it could not take while a search ran.

    A search whose MLflow server is away goes on, and keeps what is to be recorded in its folder. If the
    server does not come back before its end, this writes it later. Nothing is written twice; a command
    that was interrupted is simply given again.
    """
    with clean_errors():
        from ciq_ray import journal as journals
        from ciq_ray._mlflow.link import replay_spool
        from ciq_ray._mlflow.spool import FILE_NAME
        from ciq_ray.errors import JournalError
        from ciq_ray.resuming import run_folder
        from ciq_ray.run_view import RunView

        folder = Path(run).parent if Path(run).name == FILE_NAME else run_folder(run)
        if (folder / journals.FILE_NAME).exists() and RunView(folder).state == "running":
            raise JournalError(f"the search in {folder} is running, and does this itself; wait for its end")
        written = replay_spool(folder, _Shown())
        if json:
            print_json({"run": str(folder), "records": written})
        else:
            print(f"{written} records are in MLflow")


class _Shown:
    """Shows how far it is, now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 2.0

    def __call__(self, done: int, count: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 5.0
            print(f"{done} of {count} records", file=sys.stderr)
