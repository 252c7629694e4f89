"""``ciq rerun``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciq_ray.cli.common import (
    FAILED,
    Force,
    Json,
    Run,
    clean_errors,
    console,
    numbers,
    print_json,
    stdout_to_stderr,
)

if TYPE_CHECKING:
    from ciq_ray.commands import CommandObjective
    from ciq_ray.run_view import Entry, RunView
    from searchers.outcome import Outcome

__all__ = ["rerun"]


def rerun(
    run: Run,
    candidate: Annotated[
        str, typer.Argument(metavar="ID", help="The candidate's id; `ciq show` lists some.")
    ],
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Leave the working copy of a build behind, or a kernel's PTX, SASS and the compiler's "
            "messages, and say where.",
        ),
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Evaluate one candidate again, here and now, and keep everything it prints.

    The output of a command is shown as it comes; that of a Python objective when it has ended. All of it
    goes to RUN/reruns/ID-N.log, and what is kept of a kernel to the folder RUN/reruns/ID-N. Without a GPU
    a kernel can be kept, but not timed. The run's results are not changed. The exit status is 1 if the
    candidate fails.
    """
    with clean_errors(), stdout_to_stderr(as_json):
        from ciq_ray.ciq import Search
        from ciq_ray.commands import CommandObjective
        from ciq_ray.errors import ConfigurationError
        from ciq_ray.kernels.protocol import Kernel
        from ciq_ray.resuming import run_folder
        from ciq_ray.run_view import RunView

        folder = run_folder(run)
        view = RunView(folder)
        entry = view.entry(candidate)
        search = Search.resume(folder, force=force)
        config = search.space.decode(entry.row)
        log = _new_log(folder / "reruns", candidate)
        note = ""
        if isinstance(search.objective_function, Kernel):
            outcome, note = _kernel(search, config, view, entry, log, keep=keep, quiet=as_json)
        elif isinstance(search.objective_function, CommandObjective):
            outcome = _command(search.objective_function, config, log, keep=keep, quiet=as_json)
        elif keep:
            raise ConfigurationError(
                "--keep is for commands with a build and for kernels; this run's objective is a function"
            )
        else:
            outcome = _function(search, config, log, view.header.get("task_timeout"), quiet=as_json)
    values = list(view.shown(outcome.values)) if outcome.ok and not note else []
    if as_json:
        before = list(view.shown(entry.values)) if entry.values else []
        print_json(
            {**outcome.to_dict(), "id": candidate, "config": config, "values": values}
            | {"before": {"status": entry.status, "values": before}, "log": str(log)}
            | ({"note": note} if note else {})
        )
    else:
        out = console()
        if note:
            out.print(f"candidate {candidate}: {outcome.status}, {note}", markup=False, soft_wrap=True)
        if outcome.ok and not note:
            out.print(f"candidate {candidate}: {numbers(values)}{_before(view, entry)}")
        elif not outcome.ok:
            first = outcome.message.splitlines()[:1] or [""]
            out.print(
                f"candidate {candidate}: {outcome.status}: {first[0]}{_before(view, entry)}", markup=False
            )
        out.print(f"what it printed: {log}", markup=False, soft_wrap=True)
        if "kept" in outcome.metrics:
            what = "what was made" if isinstance(search.objective_function, Kernel) else "its working copy"
            out.print(f"{what}: {outcome.metrics['kept']}", markup=False, soft_wrap=True)
    if not outcome.ok:
        raise typer.Exit(FAILED)


def _before(view: Any, entry: Any) -> str:
    was = numbers(view.shown(entry.values)) if entry.values else entry.status
    return f" (in the run: {was})"


def _command(objective: CommandObjective, config: Any, log: Path, *, keep: bool, quiet: bool) -> Outcome:
    last = b"\n"
    with log.open("wb") as file:

        def sink(data: bytes) -> None:
            nonlocal last
            file.write(data)
            last = data[-1:]
            if not quiet:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()

        outcome = objective.evaluate(config, sink=sink, keep=keep)
    if not quiet and last != b"\n":
        print(flush=True)
    return outcome


def _function(search: Any, config: Any, log: Path, task_timeout: float | None, *, quiet: bool) -> Outcome:
    """Evaluate in a worker process, as the search does."""
    import tempfile

    from ciq_ray.worker import IsoMultiProcessWorker
    from ciq_ray.worker.protocol import Task

    with tempfile.TemporaryDirectory(prefix="ciq-rerun-") as folder:
        worker = IsoMultiProcessWorker(folder)
        try:
            worker.open(
                search.objective_function,
                num_workers=1,
                task_timeout=task_timeout,
                num_objectives=search.search_config.num_objectives,
                log_dir=Path(folder),
            )
            worker.submit(Task("0", config))
            reports = worker.poll(1.0)
            while not reports:
                reports = worker.poll(1.0)
        finally:
            worker.close()
        printed = b"".join(path.read_bytes() for path in sorted(Path(folder).glob("*.log")))
    outcome: Outcome = reports[0].outcome
    log.write_bytes(printed)
    if not quiet:
        sys.stdout.buffer.write(printed)
        sys.stdout.buffer.flush()
        if not outcome.ok:
            print(outcome.message, file=sys.stderr)
    return outcome


def _kernel(
    search: Any, config: Any, view: RunView, entry: Entry, log: Path, *, keep: bool, quiet: bool
) -> tuple[Outcome, str]:
    """Both stages in processes of their own, and why there was only the first if there was."""
    from dataclasses import replace

    from ciq_ray.cli.rerun_kernel import rerun_kernel

    last = entry.outcomes[-1:]
    kept = log.with_suffix("") if keep else None
    found = rerun_kernel(search, config, view.header, dict(last[0].metrics) if last else {}, kept)
    log.write_bytes(found.printed)
    if not quiet:
        sys.stdout.buffer.write(found.printed)
        sys.stdout.buffer.flush()
    outcome = found.outcome
    if kept is not None:
        outcome = replace(outcome, metrics={**outcome.metrics, "kept": str(kept)})
    return outcome, found.note


def _new_log(folder: Path, candidate: str) -> Path:
    folder.mkdir(exist_ok=True)
    number = 1
    while True:
        path = folder / f"{candidate}-{number}.log"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1
