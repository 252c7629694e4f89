"""``ciq replay``: how good a searcher is, on a recorded landscape."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ciq_ray.cli.common import INTERRUPTED, clean_errors, console, duration, escaped, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from ciq_ray.landscape import Landscape
    from ciq_ray.replay import Plan, Replay, Replayer, Run

__all__ = ["replay"]

_WIDTH: Final = 160


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="A recorded landscape: parameters, then status,time_ms,std_ms,compile_s.",
        ),
    ],
    searcher: Annotated[
        str,
        typer.Option("--searcher", metavar="NAME[,NAME]", help="Whom to try: auto, bayesian, genetic, ..."),
    ] = "auto",
    budget: Annotated[
        int, typer.Option("--budget", min=1, metavar="N", help="Evaluations of each search.")
    ] = 200,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="K", help="Searches of each.")] = 20,
    batch: Annotated[
        int, typer.Option("--batch", min=1, metavar="B", help="Candidates asked for at once.")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="W",
            help="Search in virtual time: W compile workers, with the recorded times.",
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, metavar="D", help="Devices, in virtual time.")
    ] = 1,
    noise: Annotated[
        bool, typer.Option("--noise", help="Draw each measurement from the recorded spread.")
    ] = False,
    effort: Annotated[
        str | None, typer.Option("--effort", metavar="E", help="The searchers' effort: quick or full.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="PATH", help="Draw the best so far: a .png, .svg or .pdf file."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="PATH", help="Write everything as one JSON object; - for standard output."
        ),
    ] = None,
) -> None:
    """Search a recorded landscape, to see how good a searcher is.

    Nothing is compiled or measured: every configuration's time is in the file. The score is 0 for random
    search and 1 for the optimum, at some budgets and as the mean over all from 10 on, with standard errors
    over the seeds. When a searcher has finished, a fresh one goes on with the next seed.

    docs/replay.md describes the file, the score and the virtual time.
    """
    with clean_errors():
        from ciq_ray.replay import Plan

        plan = Plan(budget=budget, batch=batch, noise=noise, workers=workers, devices=devices, effort=effort)
        names = list(dict.fromkeys(name.strip() for name in searcher.split(",")))
        try:
            _replay(file, names, plan, seeds, plot, json)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


def _replay(
    file: Path, names: Sequence[str], plan: Plan, seeds: int, plot: Path | None, json: Path | None
) -> None:
    from ciq_ray.errors import ConfigurationError
    from ciq_ray.landscape import Landscape
    from ciq_ray.replay import Replayer

    _check_outputs(plot, json)
    landscape = Landscape.load(file)
    if plan.budget > len(landscape):
        print(f"note: {file} has {len(landscape)} configurations; the budget is that", file=sys.stderr)
        plan = replace(plan, budget=len(landscape))
    # whatever is wrong is refused before anything runs
    replayers = [Replayer(landscape, replace(plan, searcher=name)) for name in names]
    replays, interrupted = _run(replayers, seeds)
    if json != Path("-"):
        _print(landscape, replays)
    try:
        if plot is not None and replays:
            from ciq_ray._replay.chart import draw

            draw(replays, plot)
        if json is not None:
            _write_json(replays, json, interrupted=interrupted)
    except OSError as error:
        raise ConfigurationError(f"the results cannot be written: {error}") from error
    if interrupted:
        print("interrupted; this is what was done so far", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def _check_outputs(plot: Path | None, json: Path | None) -> None:
    from ciq_ray._replay.chart import FORMATS
    from ciq_ray.errors import ConfigurationError

    if plot is not None and plot.suffix not in FORMATS:
        raise ConfigurationError(f"--plot is {str(plot)!r}; it must end in one of {', '.join(FORMATS)}")
    for option, path in (("--plot", plot), ("--json", json)):
        if path is not None and not path.parent.is_dir():
            raise ConfigurationError(f"{option} is {str(path)!r}; there is no folder {str(path.parent)!r}")


def _run(replayers: Sequence[Replayer], seeds: int) -> tuple[list[Replay], bool]:
    """What each has done, and whether that was cut short."""
    from tqdm import tqdm

    replays: list[Replay] = []
    total = sum(replayer.plan.budget for replayer in replayers) * seeds
    with tqdm(
        total=total, unit="eval", file=sys.stderr, dynamic_ncols=True, disable=not sys.stderr.isatty()
    ) as bar:

        def tick() -> None:
            bar.update()

        for replayer in replayers:
            runs: list[Run] = []
            try:
                for seed in range(seeds):
                    bar.set_postfix_str(f"{replayer.plan.searcher}, seed {seed}", refresh=False)
                    runs.append(replayer.run(seed, tick))
            except KeyboardInterrupt:
                return [*replays, *([replayer.summary(runs)] if runs else [])], True
            replays.append(replayer.summary(runs))
    return replays, False


def _write_json(replays: Sequence[Replay], path: Path, *, interrupted: bool) -> None:
    import json

    from ciq_ray._files import write_atomic

    data = {"interrupted": interrupted, "replays": [replay.to_dict() for replay in replays]}
    if path == Path("-"):
        print_json(data)
    else:
        write_atomic(path, [json.dumps(data).encode(), b"\n"])


def _print(landscape: Landscape, replays: Sequence[Replay]) -> None:
    from rich.table import Table

    out = _wide()
    failed = sum(status != "ok" for status in landscape.statuses)
    out.print(
        f"{landscape.name}: {len(landscape)} configurations, {failed} of them fail; best "
        f"{landscape.optimum:.6g} ms, worst {landscape.worst:.6g} ms",
        markup=False,
        soft_wrap=True,
    )
    if not replays:
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    budgets = replays[0].budgets
    for name in ("searcher", "seeds", *map(str, budgets), "aggregate", "cpu ms", "most", "restarts"):
        table.add_column(name, no_wrap=True)
    for one in replays:
        scores = one.scores()
        typical, most = one.cpu_s()
        restarts = sum(run.restarts for run in one.runs) / len(one.runs)
        table.add_row(
            escaped(one.plan.searcher),
            str(len(one.runs)),
            *(_score(scores[budget]) for budget in budgets),
            _score(one.aggregate()),
            f"{1000 * typical:.3g}",
            f"{1000 * most:.3g}",
            f"{restarts:.3g}",
        )
    out.print(table)
    out.print("cpu ms: for one suggestion, the median and the most")
    if replays[0].random:
        _print_virtual_time(replays)


def _print_virtual_time(replays: Sequence[Replay]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in (
        "searcher",
        "virtual time",
        "workers busy",
        "devices busy",
        "best",
        "random search",
        "as good after",
    ):
        table.add_column(name, no_wrap=True)
    for one in replays:
        virtual = one.virtual_time()
        as_good = "-" if virtual.as_good_s is None else duration(virtual.as_good_s)
        table.add_row(
            escaped(one.plan.searcher),
            duration(virtual.elapsed_s),
            f"{virtual.workers_busy:.0%}",
            f"{virtual.devices_busy:.0%}",
            _time(virtual.best_ms),
            _time(virtual.random_ms),
            as_good,
        )
    out = _wide()
    out.print()
    out.print(table)
    out.print(
        "medians over the seeds; random search: on the same machine after the same time; as good after: when "
        "the searcher had found as much as that",
        soft_wrap=True,
    )


def _wide() -> Console:
    """Tables are printed whole, however narrow the terminal: a cut number is none."""
    from rich.console import Console

    return Console(highlight=False, width=max(console().width, _WIDTH))


def _score(pair: tuple[float, float]) -> str:
    mean, error = pair
    if math.isnan(mean):
        return "-"
    return f"{mean:.2f}" if math.isnan(error) else f"{mean:.2f} ± {error:.2f}"


def _time(milliseconds: float) -> str:
    return "-" if math.isnan(milliseconds) else f"{milliseconds:.4g} ms"
