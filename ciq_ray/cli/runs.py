"""``ciq runs``, ``ciq show`` and ``ciq best``: looking at runs."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciq_ray.cli.common import (
    FAILED,
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
from ciq_ray.cli.formats import as_environment, as_flags, as_macros, environment_words
from ciq_ray.kernels.figures import COLUMNS, present
from ciq_ray.kernels.figures import text as figure

if TYPE_CHECKING:
    from ciq_ray.run_view import Entry, RunView

__all__ = ["best", "runs", "show"]

_FRONT_ROWS = 10
_NOT_TRITON = ("CudaKernel", "PtxKernel", "CommandKernel")


class Format(StrEnum):
    """How `ciq best` prints a configuration."""

    json = "json"
    flags = "flags"
    env = "env"
    command = "command"
    triton = "triton"


def runs(as_json: Json = False) -> None:
    """List the runs in CIQ_RUNS_DIR (by default ./ciq_runs), the oldest first."""
    with clean_errors():
        from ciq_ray import settings
        from ciq_ray.errors import JournalError
        from ciq_ray.journal import FILE_NAME
        from ciq_ray.run_view import RunView

        folder = settings.runs_dir()
        found = [path.parent for path in folder.glob(f"*/{FILE_NAME}")]
        found.sort(key=lambda path: (int(path.name) if path.name.isdigit() else sys.maxsize, path.name))
        rows: list[dict[str, Any]] = []
        for path in found:
            try:
                rows.append(RunView(path).to_dict())
            except JournalError as error:
                rows.append({"run": str(path), "state": "unreadable", "error": str(error)})
    if as_json:
        print_json({"runs_dir": str(folder), "runs": rows})
        return
    if not rows:
        console().print(f"no runs in {escaped(str(folder))}; `ciq tune` or a script with `Search` begins one")
        return
    table = _table("run", "begun", "state", "evaluations", "best", "objective")
    for path, row in zip(found, rows, strict=True):
        if "error" in row:
            table.add_row(path.name, "", "[red]unreadable[/]", "", "", escaped(row["error"]))
            continue
        leaders = row["best"]
        score = numbers(leaders[0]["values"]) if len(leaders) == 1 else f"front of {len(leaders)}"
        table.add_row(
            path.name,
            ago(row["created"] or ""),
            row["state"],
            str(row["evaluations"]),
            score if leaders else "-",
            escaped(row["objective"]),
        )
    console().print(table)


def show(
    run: Run,
    candidate: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A candidate's id; without it, the whole run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a run: what is searched, how it stands, what failed and why, the best; or one candidate of it."""
    with clean_errors():
        view = _view(run)
        entry = None if candidate is None else view.entry(candidate)
        words, variables = ({}, {}) if entry is None else _filled_in(view, entry.config)
    if entry is None:
        if as_json:
            print_json(view.to_dict())
        else:
            _show_run(view)
        return
    if as_json:
        print_json({**view.entry_dict(entry), "argv": words, "env": variables})
    else:
        _show_entry(view, entry, words, variables)


def best(
    run: Run,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="json: the configuration. flags: `--NAME VALUE` words quoted for a shell, of a CUDA kernel "
            "its macros and flags, for which its script is imported; the text of an options file as it is. "
            "env: `NAME=VALUE` lines for a shell. command: the build and the command themselves, with their "
            "variables. triton: a `triton.Config` to paste, of all but commands and other kinds of kernels.",
        ),
    ] = Format.json,
    candidate: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Of this candidate instead of the best one.")
    ] = None,
    ignore_race: Annotated[
        bool,
        typer.Option("--ignore-race", help="The best of the search, even if it did not win the final race."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the best configuration of a run, for use in a script.

    After a final race that is the winner, or the baseline if nobody beat it. Of several objectives, all
    that no other beats are printed, one on a line. Whatever else there is to say goes to standard error.
    """
    with clean_errors():
        from ciq_ray.errors import ConfigurationError

        view = _view(run)
        chosen = [view.entry(candidate)] if candidate is not None else view.best()
        verdict = view.verdict if candidate is None and not ignore_race else None
        configs = [entry.config for entry in chosen] if verdict is None else [verdict["config"]]
        if not configs:
            print("no evaluation has passed", file=sys.stderr)
            raise typer.Exit(FAILED)
        if len(configs) > 1 and form in (Format.env, Format.command):
            raise ConfigurationError(
                f"the Pareto front has {len(configs)} configurations; choose one of "
                f"{', '.join(entry.id for entry in chosen[:_FRONT_ROWS])} with --id"
            )
        lines = [_formatted(view, config, form) for config in configs]
    if verdict is not None:
        print(verdict["verdict"]["words"], file=sys.stderr)
    if as_json:
        print_json(
            {"configs": configs, "text": lines, "verdict": None if verdict is None else verdict["verdict"]}
        )
    else:
        for line in lines:
            sys.stdout.write(line if line.endswith("\n") else f"{line}\n")


def _filled_in(view: RunView, config: Any) -> tuple[dict[str, list[str]], dict[str, str | None]]:
    """What runs for a configuration, and the variables that are set; empty if it is no command."""
    if view.command is None:
        return {}, {}
    from ciq_ray.commands import CommandObjective

    # it only fills in words here: where it would run does not matter
    objective = CommandObjective.from_dict({**view.command, "directory": "/", "copy": False})
    return objective.argv(config), objective.variables(config)


def _view(run: str) -> RunView:
    from ciq_ray.resuming import run_folder
    from ciq_ray.run_view import RunView

    return RunView(run_folder(run))


def _formatted(view: RunView, config: Any, form: Format) -> str:
    from ciq_ray.errors import ConfigurationError

    if form is Format.json:
        import json

        return json.dumps(config)
    if form is Format.flags:
        return _flags(view, config)
    if form is Format.env:
        return as_environment(config)
    if form is Format.triton:
        what = view.objective.get("class") if view.command is None else "command"
        if what in ("command", *_NOT_TRITON):
            raise ConfigurationError(
                f"the objective of this run is a {what}, not a Triton kernel; use --format json or flags"
            )
        from ciq_ray.kernels.pasting import as_triton

        return as_triton(config)
    if view.objective.get("class") == "CommandKernel":
        command = _kernel_of(view).objective
        words, variables = command.argv(config), command.variables(config)
    else:
        words, variables = _filled_in(view, config)
    if not words:
        what = view.objective.get("class", "Python function")
        raise ConfigurationError(
            f"the objective of this run is a {what}, not a command; use --format json, flags or env"
        )
    prefix = environment_words(variables)
    return "\n".join(shlex.join([*prefix, *line]) for line in words.values())


def _flags(view: RunView, config: Any) -> str:
    """What a compiler is given; a kernel is asked, whose flags may be computed."""
    from ciq_ray.errors import ConfigurationError, JournalError

    if view.objective.get("kind") != "kernel" or isinstance(config, str):
        return as_flags(config)
    try:
        return str(_kernel_of(view).shown(config, "flags"))
    except ConfigurationError:  # it has no such form
        return as_flags(config)
    except JournalError as error:
        if view.objective.get("class") != "CudaKernel":
            return as_flags(config)
        print(f"shown as macros, also what its `flags` make of it: {error}", file=sys.stderr)
        return as_macros(config)


def _kernel_of(view: RunView) -> Any:
    """The run's kernel, by importing its script.

    Raises:
        JournalError: It cannot be had, or has changed.
    """
    from ciq_ray.origin import load

    with stdout_to_stderr(True):
        return load(view.objective)


def _show_run(view: RunView) -> None:
    data = view.to_dict()
    table = _table(header=False)

    def row(name: str, value: str) -> None:
        if value:
            table.add_row(name, escaped(value))

    row("run", f"{data['run']}, begun {ago(data['created'] or '')} on {data['host']}")
    reason = view.reason.splitlines()[0] if view.reason else ""
    row("state", view.state + (f" ({reason})" if reason not in ("", view.state) else ""))
    if view.command is not None:
        row("build", shlex.join(view.command["build"] or []))
        row("command", shlex.join(view.command["command"]))
        row("environment", shlex.join(f"{name}={value}" for name, value in view.command["env"].items()))
        row("directory", view.command["directory"])
        row("scores", ", ".join(view.command["scores"]))
    else:
        row("objective", view.what)
    row("searcher", f"{data['searcher']}, seed {data['seed']}")
    again = view.measurements - data["evaluations"]
    row("evaluations", f"{data['evaluations']}" + (f", {again} measured again" if again else ""))
    row("statuses", ", ".join(f"{count} {status}" for status, count in view.statuses.items()))
    run_s, compile_s = view.seconds
    if not compile_s:
        row("time", duration(run_s))
    elif view.objective.get("kind") == "kernel":  # compiled elsewhere, while others are timed
        row("time", f"{duration(run_s)} timing, {duration(compile_s)} compiling")
    else:
        row("time", f"{duration(run_s)}, {duration(compile_s)} of it builds")
    if view.verdict is not None:
        row("verdict", str(view.verdict["verdict"]["words"]))
        row("library", str((view.verdict.get("library") or {}).get("words", "")))
    console().print(table)
    leaders = view.best()
    if leaders:
        shown = leaders[:_FRONT_ROWS]
        figures = present(entry.outcomes[-1].metrics for entry in shown)
        titles = [COLUMNS[name][0] for name in figures]
        configs = [escaped(params_text(entry.config, one_line=True)) for entry in shown]
        beside = not figures  # with all of a kernel's figures there is no room for them
        front = _table("best", *view.score_names, *titles, *(["configuration"] if beside else []))
        for entry, config in zip(shown, configs, strict=True):
            values = [f"{value:.6g}" for value in view.shown(entry.values)]
            values += [figure(entry.outcomes[-1].metrics, name) for name in figures]
            front.add_row(entry.id, *values, *([config] if beside else []))
        console().print(front)
        if not beside:
            below = _table("best", "configuration")
            for entry, config in zip(shown, configs, strict=True):
                below.add_row(entry.id, config)
            console().print(below)
        if len(leaders) > _FRONT_ROWS:
            console().print(f"... and {len(leaders) - _FRONT_ROWS} more on the Pareto front")
    failures = [entry for entry in view.entries.values() if entry.outcomes and not entry.outcomes[-1].ok]
    seen: dict[str, Entry] = {}
    for entry in failures:
        seen.setdefault(entry.status, entry)
    if seen:
        failed = _table("failed", "first", "its message")
        for status, entry in seen.items():
            lines = entry.outcomes[-1].message.strip().splitlines() or [""]
            failed.add_row(status, entry.id, escaped(lines[0]))
        console().print(failed)


def _show_entry(
    view: RunView, entry: Entry, words: dict[str, list[str]], variables: dict[str, str | None]
) -> None:
    out = console()
    table = _table(header=False)
    table.add_row("candidate", escaped(entry.id))
    table.add_row("status", entry.status)
    for name, value in zip(view.score_names, view.shown(entry.values) if entry.values else (), strict=False):
        table.add_row(escaped(name), f"{value:.6g}")
    for outcome in entry.outcomes[-1:]:
        if outcome.spread is not None:
            table.add_row("spread", numbers(outcome.spread))
        if outcome.compile_s is not None:
            table.add_row("build", duration(outcome.compile_s))
        if outcome.run_s is not None:
            table.add_row("took", duration(outcome.run_s))
        for name in present([outcome.metrics]):
            table.add_row(COLUMNS[name][0], figure(outcome.metrics, name))
    if len(entry.outcomes) > 1:
        table.add_row("measured", f"{len(entry.outcomes)} times")
    if entry.generation is not None:
        table.add_row("generation", str(entry.generation))
    out.print(table)
    out.print(params_text(entry.config), markup=False, soft_wrap=True)
    for name, line in words.items():
        text = shlex.join([*environment_words(variables), *line])
        out.print(f"{name}: {text}", markup=False, soft_wrap=True)
    message = entry.outcomes[-1].message.strip() if entry.outcomes else ""
    if message:
        out.print(message, markup=False, soft_wrap=True)


def _table(*columns: str, header: bool = True) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=header, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns or ("", ""):
        table.add_column(escaped(name), overflow="fold", no_wrap=False)
    return table
