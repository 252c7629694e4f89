"""What the examples on GPUs share: options, the search of a recorded landscape, the table at the end."""

import argparse
from pathlib import Path
from typing import Any

LANDSCAPES = Path(__file__).resolve().parents[1] / "benchmarks" / "landscapes"


def options(description: str, max_evaluations: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--max-evaluations", type=int, default=max_evaluations, help=f"at most (default: {max_evaluations})"
    )
    parser.add_argument("--time-budget", type=float, help="seconds for the search (default: no limit)")
    parser.add_argument("--seed", type=int, default=0, help="where the search starts (default: 0)")
    parser.add_argument("--output", type=Path, help="folder to write results.csv to (default: none)")
    parser.add_argument(
        "--devices", help="GPUs to time on: indices or UUIDs with commas (default: the first)"
    )
    parser.add_argument(
        "--lock-clocks", metavar="MHZ", help="lock the GPU's clocks while it is used: base, or a frequency"
    )
    arguments = parser.parse_args()
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.devices is not None:
        arguments.devices = [int(name) if name.isdigit() else name for name in arguments.devices.split(",")]
    if arguments.lock_clocks is not None and arguments.lock_clocks.isdigit():
        arguments.lock_clocks = int(arguments.lock_clocks)
    return arguments


def usable_gpus(arguments: argparse.Namespace) -> list[Any]:
    """The GPUs to time on; if there is none, why is printed."""
    from ciq_ray import CiqError
    from ciq_ray.gpu.devices import devices

    try:
        found = devices(arguments.devices)
    except CiqError as error:
        if arguments.devices is not None:
            raise
        print(f"No GPU can be used: {str(error).removeprefix('no NVIDIA GPU can be used: ')}")
        return []
    if arguments.devices is None:
        arguments.devices = [found[0].uuid]
        found = found[:1]
    for gpu in found:
        print(f"{gpu.name}, driver {gpu.driver} ({gpu.uuid})")
    return found


def replay(file: str, kernel: Any, arguments: argparse.Namespace) -> int:
    """Search what was recorded of the same space on an H100; nothing is compiled or timed."""
    from ciq_ray.landscape import Landscape

    landscape = Landscape.load(LANDSCAPES / file)
    print(f"The {len(landscape)} recorded times of an H100 are searched instead: {LANDSCAPES / file}\n")

    def recorded(config: dict[str, Any]) -> float:
        from ciq_ray import ObjectiveFailure

        row = landscape.row(config)
        if landscape.statuses[row] != "ok":
            raise ObjectiveFailure(landscape.statuses[row], "recorded")
        return float(landscape.times[row])

    search = _search(recorded, arguments, search_space=kernel.space)
    result = search.start(num_workers=1)
    best = result.get_best_result()
    before, after = recorded(kernel.space.default_config()), best["score"]
    print(f"\n{'':>8}  {'ms':>8}  {'speed-up':>8}  configuration")
    for name, milliseconds, config in (
        ("default", before, kernel.space.default_config()),
        ("best", after, best["params"]),
    ):
        print(f"{name:>8}  {milliseconds:8.4f}  {before / milliseconds:8.2f}  {config}")
    print(
        f"\n{len(result.get_results())} of {len(landscape)} configurations looked at; the fastest of all "
        f"takes {landscape.optimum:.4f} ms, so this one is within {after / landscape.optimum - 1:.1%}."
    )
    if arguments.output is not None:
        result.save(arguments.output / "results.csv")
    return 0


def tune(kernel: Any, arguments: argparse.Namespace, library: str) -> int:
    """Search, race what was found, and say what came out."""
    search = _search(kernel, arguments, final_race=True)
    result = search.start(task_timeout=30, devices=arguments.devices, lock_clocks=arguments.lock_clocks)
    return say_what_came_out(kernel, result, arguments, library)


def _search(objective: Any, arguments: argparse.Namespace, **fields: Any) -> Any:
    from ciq_ray import Search, SearchConfiguration

    return Search(
        objective_function=objective,
        search_config=SearchConfiguration(generations=-(-arguments.max_evaluations // 32), pool_size=32),
        searcher="auto",
        seed=arguments.seed,
        max_evaluations=arguments.max_evaluations,
        time_budget_s=arguments.time_budget,
        **fields,
    )


def say_what_came_out(kernel: Any, result: Any, arguments: argparse.Namespace, library: str) -> int:
    """Time the default, the choice and the library once more, one after another, and print a table.

    Its last column is what the race said, where they took turns: the number to rely on.
    """
    from ciq_ray.kernels import LIBRARY, time_kernel

    if arguments.output is not None:
        result.save(arguments.output / "results.csv")
    baseline = kernel.initial_configs[0] if kernel.initial_configs else kernel.space.default_config()
    chosen, device = baseline, arguments.devices[0]
    print(f"\n{len(result.get_results())} configurations tried.")
    if result.race is None:
        print("There was no final race: the search was stopped, or found nothing but the default.")
    else:
        chosen = result.race.chosen.config
        print(result.race.verdict.words)
        if result.race.library is not None:
            print(result.race.library.words)
    rows = [("default", baseline), ("chosen", chosen), (library, LIBRARY)]
    raced = _speed_ups(result.race)
    outcomes = [time_kernel(kernel, config, device=device) for _, config in rows]
    width = max(len(name) for name, _ in rows)
    titles = ("ms", "TFLOP/s", "GB/s", "% of peak", "speed-up", "raced")
    print(f"\n{'':>{width}}" + "".join(f"  {title:>9}" for title in titles))
    for (name, _), outcome, race in zip(rows, outcomes, raced, strict=True):
        if not outcome.ok:
            print(f"{name:>{width}}  {outcome.status}: {outcome.message}")
            continue
        faster = outcomes[0].values[0] / outcome.values[0] if outcomes[0].ok else None
        cells = [(outcome.values[0], ".4f")]
        cells += [(outcome.metrics.get(key), ".1f") for key in ("tflops", "gbs", "peak_percent")]
        cells += [(faster, ".2f"), (race, ".2f")]
        shown = ["-" if value is None else format(value, style) for value, style in cells]
        print(f"{name:>{width}}" + "".join(f"  {cell:>9}" for cell in shown))
    print(f"\nWhat to use: {chosen!r}")
    return 0


def _speed_ups(race: Any) -> list[float | None]:
    """How many times as fast as the default the default, the choice and the library were in the race."""
    if race is None:
        return [None, None, None]
    chosen = 1 / race.verdict.ratio if race.verdict.kind == "win" else 1.0
    return [1.0, chosen, None if race.library is None else chosen * race.library.ratio]
