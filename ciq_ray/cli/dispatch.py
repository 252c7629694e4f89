"""``ciq dispatch``: a configuration for each shape, out of few."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ciq_ray.cli.common import Json, Run, clean_errors, print_json

__all__ = ["dispatch"]


class Format(StrEnum):
    """How `ciq dispatch` prints a table."""

    table = "table"
    json = "json"
    python = "python"


def dispatch(
    run: Run,
    entries: Annotated[
        int, typer.Option("--entries", "-k", min=1, metavar="K", help="The most configurations.")
    ] = 3,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="table: for people, with what each shape loses. json: `DispatchTable.load` reads it. "
            "python: source to paste.",
        ),
    ] = Format.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to, instead of printing it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose few configurations for the shapes of a kernel, and say what each shape loses by it.

    Of the configurations that the run has timed on every shape, those are chosen that together lose least:
    the geometric mean over shapes of the time divided by the best time. docs/kernels.md says more.
    """
    with clean_errors():
        from ciq_ray._files import write_atomic
        from ciq_ray.errors import ConfigurationError
        from ciq_ray.kernels.dispatch import DispatchTable

        table = DispatchTable.of(run, entries)
        if as_json:
            print_json({**table.to_dict(), "regret": table.regret, "mean_regret": table.mean_regret})
            return
        text = {Format.table: table.table, Format.json: table.to_json, Format.python: table.as_python}[form]()
        text = text if text.endswith("\n") else f"{text}\n"
        if output is None:
            sys.stdout.write(text)
            return
        try:
            write_atomic(output, [text.encode()])
        except OSError as error:
            raise ConfigurationError(
                f"--output is {str(output)!r}, which cannot be written: {error}"
            ) from error
    print(output)
