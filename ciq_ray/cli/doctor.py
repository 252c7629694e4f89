"""``ciq doctor``."""

from __future__ import annotations

import typer

from ciq_ray.cli.common import FAILED, Json, clean_errors, console, escaped, print_json

__all__ = ["doctor"]


def doctor(as_json: Json = False) -> None:
    """Say what this machine has for a search, and what to do about what it lacks.

    Looks at Python and the packages, processors and memory (the limits of a container included),
    compilers, GPUs, and the folder of the runs. Changes nothing. The exit status is 1 if something is
    missing that every search needs.
    """
    from ciq_ray.doctor import MISSING, examine

    with clean_errors():
        findings = examine()
    ready = all(finding.state != MISSING for finding in findings)
    if as_json:
        print_json({"ready": ready, "findings": [finding.to_dict() for finding in findings]})
    else:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        colours = {"ok": "green", "missing": "red"}
        for finding in findings:
            colour = colours.get(finding.state, "yellow")
            table.add_row(f"[{colour}]{finding.state}[/]", finding.name, escaped(finding.value))
            if finding.advice:
                table.add_row("", "", f"[{colour}]->[/] {escaped(finding.advice)}")
        console().print(table)
    if not ready:
        raise typer.Exit(FAILED)
