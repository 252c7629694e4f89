"""``ciq tune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciq_ray.cli.common import USAGE, Json, clean_errors, stdout_to_stderr

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.commands import CommandObjective
    from searchers.space import Space

__all__ = ["tune"]


def tune(
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE",
            help="A search-space file (docs/search-spaces.md), or a compiler: ptxas:13.3, nvcc:13.3/full, "
            "gcc, gcc:gcc-12, clang.",
        ),
    ],
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="The benchmark, after `--`. {NAME} in a word is the value of a parameter, {*NAME} as many "
            "words as it has, {config} and {*config} the whole configuration, {CONFIG_FILE} the path of a "
            "file with it.",
        ),
    ],
    build: Annotated[
        str | None,
        typer.Option(
            "--build",
            metavar="'WORDS'",
            help="Run before the benchmark, in a copy of the directory: 'make CFLAGS={FLAGS}'. Split into "
            "words as a shell would; no shell runs it.",
        ),
    ] = None,
    score: Annotated[
        list[str],
        typer.Option(
            "--score",
            metavar="WHAT",
            help="Where the score comes from: `last`, the last number on the last line; `wall`, the seconds "
            "it took; else a key of its JSON output, such as time or results.0.mean. Several make several "
            "objectives. `max:` before one: high values are better.",
        ),
    ] = ["last"],  # noqa: B006 - typer copies it
    maximize: Annotated[
        bool,
        typer.Option(
            "--maximize/--minimize",
            help="Whether high scores are better, for those without `min:` or `max:`.",
        ),
    ] = False,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="TIME",
            help="How long one run of the command may take: 90, 1.5s, 10m. Then it is killed, with all it "
            "has started.",
        ),
    ] = None,
    build_timeout: Annotated[
        str | None,
        typer.Option("--build-timeout", metavar="TIME", help="The same for the build."),
    ] = None,
    ok_exit: Annotated[
        str,
        typer.Option(
            "--ok-exit",
            metavar="N,...",
            help="Exit statuses of the command that are no failure.",
        ),
    ] = "0",
    fail_pattern: Annotated[
        str | None,
        typer.Option(
            "--fail-pattern",
            metavar="REGEX",
            help="The candidate is wrong if this is in what it prints.",
        ),
    ] = None,
    repeat: Annotated[
        int,
        typer.Option(
            "--repeat",
            min=1,
            metavar="N",
            help="Runs for one evaluation; the median counts.",
        ),
    ] = 1,
    warmup: Annotated[
        int,
        typer.Option(
            "--warmup",
            min=0,
            metavar="N",
            help="Runs before these that do not count.",
        ),
    ] = 0,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME=VALUE",
            help="An environment variable; its value may have placeholders.",
        ),
    ] = None,
    directory: Annotated[
        Path,
        typer.Option("--directory", metavar="DIR", help="Where build and command run."),
    ] = Path(),
    copy: Annotated[
        bool | None,
        typer.Option(
            "--copy/--in-place",
            help="Whether evaluations get working copies of the directory. [default: if there is a --build]",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="JSON|FILE",
            help="What is in use today: evaluated first, and what the final race is against. [default: the "
            "space's default]",
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            "--initial",
            metavar="FILE",
            help="Configurations to evaluate right after the baseline: a JSON list.",
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            "--constraint",
            metavar="EXPRESSION",
            help="A further constraint on the space, such as 'BLOCK * stages <= 512'.",
        ),
    ] = None,
    generations: Annotated[
        int,
        typer.Option(
            "--generations",
            min=1,
            metavar="N",
            help="Generations of --pool-size candidates.",
        ),
    ] = 10,
    pool_size: Annotated[
        int | None,
        typer.Option(
            "--pool-size",
            min=6,
            metavar="N",
            help="Candidates of a generation. [default: 32, more for several objectives]",
        ),
    ] = None,
    max_evaluations: Annotated[
        int | None,
        typer.Option("--max-evaluations", min=1, metavar="N", help="Stop after so many."),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            "--time-budget",
            metavar="TIME",
            help="Begin nothing new after this time: 90s, 10m, 2h.",
        ),
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(
            "--target",
            metavar="SCORE",
            help="Stop when a candidate is as good as this; one for each objective.",
        ),
    ] = None,
    searcher: Annotated[
        str,
        typer.Option("--searcher", metavar="NAME", help="What to try next."),
    ] = "genetic",
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort",
            metavar="E",
            help="How much the searcher explores, if it has such profiles: quick or full; none evaluates the "
            "space's default alone. [default: full]",
        ),
    ] = None,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Begin with the best that earlier searches found on this machine, and leave what this one "
            "finds. [default: as the searcher says]",
        ),
    ] = None,
    specialization_key: Annotated[
        str | None,
        typer.Option(
            "--specialization-key",
            metavar="TEXT",
            help="What the search is for, such as 4096x4096xfp16: with --cache, results for nearby numbers "
            "are a start too.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            metavar="N",
            help="Of everything random. [default: drawn, and recorded]",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Evaluations at a time. More than one is faster, and less honest: commands that run at the "
            "same time slow each other down. Raise it if scores are not times.",
        ),
    ] = 1,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Divide scores by those of the space's default, measured again each generation.",
        ),
    ] = False,
    race: Annotated[
        bool,
        typer.Option(
            "--race",
            help="Afterwards measure the best against the baseline again, side by side, for a verdict. "
            "Hundreds of runs; `ciq race RUN` does it later.",
        ),
    ] = False,
    finalists: Annotated[
        int | None,
        typer.Option("--finalists", min=1, metavar="N", help="How many of the best enter it. [default: 8]"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would run, exactly, and how often; run nothing.",
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="With --dry-run: run the first candidate once, to say what all would cost.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write the results as CSV after each generation, too.",
        ),
    ] = None,
    run_id: Annotated[
        int | None,
        typer.Option(
            "--run-id",
            min=0,
            metavar="N",
            help="Number of the run. [default: the next free one]",
        ),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Go on even if all candidates of the first generation fail.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the parameters with which a command does best.

    The command is run with the values of one candidate after another in the places of its {NAME}s; the last
    number it prints is the score, and less is better (see --score and --maximize). No shell is involved:
    each word is one argument, whatever is in it. A candidate whose exit status is not 0 has failed.

    Everything is recorded in the run's folder. Ctrl-C ends the search in good order; `ciq resume RUN` goes
    on with it, after a crash too. `ciq show RUN`, `ciq best RUN` and `ciq rerun RUN ID` look at it.

    Example: ciq tune space.json --build 'make CFLAGS={FLAGS}' --race -- ./bench --block {BLOCK}
    """
    for given, option, other, needed in (
        (measure, "--measure", "--dry-run", dry_run),
        (finalists is not None, "--finalists", "--race", race),
    ):
        if given and not needed:
            print(f"error: {option} is for {other}; give both", file=sys.stderr)
            raise typer.Exit(USAGE)
    with clean_errors(), stdout_to_stderr(as_json):
        from ciq_ray.cli.inputs import read_seconds, read_space, read_variables
        from ciq_ray.commands import CommandObjective
        from ciq_ray.commands.checks import check_programs, check_space
        from ciq_ray.race import Plan
        from ciq_ray.spaces import resolve

        mode = "max" if maximize else "min"
        objective = CommandObjective(
            command,
            build=build,
            scores=[text if text.startswith(("min:", "max:")) else f"{mode}:{text}" for text in score],
            directory=directory,
            copy=copy,
            env=read_variables(env or []),
            ok_exit=_statuses(ok_exit),
            fail_pattern=fail_pattern,
            timeout=read_seconds("--timeout", timeout),
            build_timeout=read_seconds("--build-timeout", build_timeout),
            repeat=repeat,
            warmup=warmup,
        )
        source = read_space(space)
        resolved = resolve(source, constraint or ()).space
        warnings = check_space(objective, resolved)
        check_programs(objective)
        if workers > 1 and copy is False and build is not None:
            warnings.append(
                "builds in place, more than one at a time, overwrite each other; leave out --in-place"
            )
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        search = _search(
            objective,
            source,
            {
                "constraints": constraint or (),
                "initial_configs": _initial(resolved, baseline, initial, race=race, normalize=normalize),
                "searcher": searcher,
                "searcher_options": _effort(effort, searcher, resolved),
                "cache": cache,
                "specialization_key": specialization_key,
                "seed": seed,
                "max_evaluations": max_evaluations,
                "time_budget_s": read_seconds("--time-budget", time_budget),
                "target": None if not target else objective.shown(_one_each(target, objective)),
                "final_race": race if finalists is None else Plan(finalists=finalists),
                "dump_results": output,
                "run_id": run_id,
                "exit_on_failure": not keep_going,
                "disable_progress_bar": as_json,
            },
            {"generations": generations, "pool_size": pool_size, "normalize": normalize},
        )
    if dry_run:
        from ciq_ray.cli.dry_run import dry_run as say_what_would_run

        with clean_errors():
            say_what_would_run(search, objective, workers=workers, measure=measure, as_json=as_json)
        return
    from ciq_ray import settings
    from ciq_ray.cli.resume import end

    with clean_errors(), stdout_to_stderr(as_json):
        result = search.start(num_workers=workers)
        folder = settings.runs_dir() / str(search.run_id)
    end(folder, result, as_json=as_json)


def _search(
    objective: CommandObjective, space: Any, fields: dict[str, Any], config: dict[str, Any]
) -> Search:
    import numpy as np

    from ciq_ray.ciq import Search
    from ciq_ray.types import ProblemType, SearchConfiguration

    if fields["seed"] is None:  # drawn here, so that a dry run can say it
        fields["seed"] = int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
    return Search(
        objective_function=objective,
        search_space=space,
        search_config=SearchConfiguration(
            problem_type=ProblemType(objective.problem_type),
            num_objectives=objective.num_objectives,
            **config,
        ),
        **fields,
    )


def _initial(
    space: Any, baseline: str | None, initial: Path | None, *, race: bool, normalize: bool
) -> list[Any] | None:
    """What is evaluated first; the first of it is what a race is against."""
    from ciq_ray.cli.inputs import read_baseline, read_initial
    from ciq_ray.errors import ConfigurationError

    configs = [] if space.default is None else [space.default]
    if baseline is not None:
        given = read_baseline(baseline, space)
        if normalize and (space.default is None or not (space.encode(given) == space.default_row).all()):
            raise ConfigurationError(
                "--normalize divides by the space's default, which --baseline is not; put it into the space "
                "file as `default`"
            )
        configs = [given]
    if race and not configs:
        raise ConfigurationError(
            "--race needs something to beat: the space has no default, so give what is in use today as "
            "--baseline"
        )
    if initial is not None:
        configs += read_initial(initial, space)
    return configs or None


def _effort(effort: str | None, searcher: str, space: Space) -> dict[str, Any]:
    """The searcher's options: its effort, if one is given that it has."""
    from ciq_ray.errors import ConfigurationError
    from searchers.effort import EFFORTS, QUICK
    from searchers.registry import NAMES

    if effort is None:
        return {}
    if effort not in EFFORTS:
        raise ConfigurationError(f"--effort is {effort!r}; it must be one of {', '.join(EFFORTS)}")
    if effort == "quick" and searcher in NAMES and searcher not in QUICK:
        raise ConfigurationError(
            f"--effort is 'quick', and --searcher {searcher} has no such profile; {', '.join(QUICK)} have, "
            "and --max-evaluations limits any search"
        )
    if effort == "none" and space.default is None:
        raise ConfigurationError(
            "--effort is 'none', which evaluates the space's default, and the space has none; put one into "
            "the space file as `default`"
        )
    return {"effort": effort}


def _one_each(target: list[float], objective: CommandObjective) -> list[float]:
    from ciq_ray.errors import ConfigurationError

    if len(target) != objective.num_objectives:
        raise ConfigurationError(
            f"--target is given {len(target)} times for {objective.num_objectives} scores; give one for each"
        )
    return target


def _statuses(text: str) -> list[int]:
    from ciq_ray.errors import ConfigurationError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(
            f"--ok-exit is {text!r}; give exit statuses separated by commas: 0,3"
        ) from error
