"""How well a measurement repeats: one configuration 30 times in a search, and races of a kernel with itself.

The configuration is the kernel's default, timed again after every few others, as when a search comes back to
one. Then 20 final races in which finalist and baseline are the same binary: each "win" or "loss" is false.

    python -m benchmarks.gpu.repeatability --output benchmarks/gpu/results --kernels matmul
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.gpu._common import finish, kernel_of, options, the_device


class Bench:
    """One kernel on one device, without a search: what a search and its race do to measure."""

    def __init__(self, kernel: Any, device: Any, lock: str | None) -> None:
        from ciq_ray.gpu.hold import Clocks
        from ciq_ray.kernels.jobs import TimingOptions
        from ciq_ray.kernels.stations import target_of
        from ciq_ray.kernels.timing_stage import TimingStage

        clock = int(lock) if lock and lock.isdigit() else lock
        self.kernel = kernel
        self._target = target_of(device)
        self.stage = TimingStage(
            kernel, device, TimingOptions(clocks=None if lock is None else Clocks(clock_mhz=clock))
        )

    def prepare(self) -> None:
        """Have the device ready before anything is timed."""
        from ciq_ray.kernels.jobs import Job

        outcome = self.stage(Job("prepare"))
        if not outcome.ok:
            raise RuntimeError(f"the device cannot be used: {outcome.message}")

    def compiled(self, configs: Sequence[Any], workers: int) -> list[bytes]:
        """Artefacts, empty for those that cannot be compiled."""
        from ciq_ray.kernels.compile_stage import CompileStage
        from ciq_ray.worker.protocol import Task
        from ciq_ray.worker.slots import NativePool

        artefacts = [b""] * len(configs)
        waiting = list(enumerate(configs))[::-1]
        left = len(waiting)
        pool = NativePool(CompileStage(self.kernel, self._target), num_workers=min(workers, left))
        try:
            while left:
                while waiting and pool.free > 0:
                    number, config = waiting.pop()
                    pool.submit(Task(str(number), config))
                for report in pool.poll(1.0):
                    left -= 1
                    if report.outcome.ok:
                        artefacts[int(report.task_id)] = report.attached
        finally:
            pool.close()
        return artefacts

    def candidate(self, config: Any, artefact: bytes) -> Any:
        """Time a candidate as a search does."""
        from ciq_ray.kernels.jobs import Job

        return self.stage(Job("candidate", config, artefact))

    def windows(self, order: Iterable[Any], config: Any, artefact: bytes) -> Iterator[tuple[Any, Any]]:
        """A block of a race: windows in one fresh process, all of the same binary."""
        from ciq_ray.kernels.jobs import Job

        for number, entrant in enumerate(order):
            yield entrant, self.stage(Job("window", config, artefact, fresh=number == 0))


def spread_over_a_search(bench: Bench, config: Any, times: int, between: int, workers: int) -> dict[str, Any]:
    """The same configuration again and again, with random others in between."""
    import numpy as np

    space = bench.kernel.space
    others = [space.decode(row) for row in space.sample(between * times, np.random.default_rng(0))]
    artefacts = bench.compiled([config, *others], workers)
    values, spreads, other_ms = [], [], []
    for turn in range(times):
        outcome = bench.candidate(config, artefacts[0])
        if not outcome.ok:
            raise RuntimeError(f"the default fails: {outcome.status}: {outcome.message}")
        values.append(outcome.values[0])
        spreads.append(outcome.spread or 0.0)
        for place in range(turn * between, (turn + 1) * between):
            if artefacts[1 + place]:
                found = bench.candidate(others[place], artefacts[1 + place])
                other_ms.append(found.values[0] if found.ok else found.status)
    middle = statistics.median(values)
    return {
        "ms": values,
        "within_ms": spreads,
        "others": other_ms,
        "median_ms": middle,
        "deviation": statistics.stdev(values) / middle,
        "range": (max(values) - min(values)) / middle,
        "worst": max(abs(value / middle - 1) for value in values),
    }


def races_with_itself(bench: Bench, config: Any, count: int, blocks: int) -> list[dict[str, Any]]:
    """Races of one binary with itself."""
    from ciq_ray.race import Entrant, Plan, Race

    [artefact] = bench.compiled([config], 1)
    found = []
    for seed in range(count):
        race = Race(
            finalists=[Entrant("the same", {"the same": True})],
            baseline=Entrant("baseline", config),
            measure=lambda order: bench.windows(order, config, artefact),
            plan=Plan(finalists=1, pick_blocks=1, verdict_blocks=blocks, seed=seed),
        )
        verdict = race.run().verdict
        found.append({"kind": verdict.kind, "ratio": verdict.ratio, "low": verdict.low, "high": verdict.high})
        print(f"race {seed}: {verdict.words}", flush=True)
    return found


def main() -> int:
    parser = options(__doc__, kernels="matmul")
    parser.add_argument("--times", type=int, default=30, help="measurements (default: 30)")
    parser.add_argument("--between", type=int, default=7, help="others between two of them (default: 7)")
    parser.add_argument("--races", type=int, default=20, help="races of a binary with itself (default: 20)")
    parser.add_argument("--blocks", type=int, default=10, help="of each race (default: 10)")
    arguments: argparse.Namespace = parser.parse_args()
    raw, rows = {}, []
    for name in arguments.kernels.split(","):
        kernel = kernel_of(name)
        bench = Bench(kernel, the_device(arguments), arguments.lock_clocks)
        config = kernel.space.default_config()
        with bench.stage.hold():
            bench.prepare()
            begun = time.monotonic()
            repeated = spread_over_a_search(
                bench, config, arguments.times, arguments.between, arguments.workers
            )
            middle = time.monotonic()
            races = races_with_itself(bench, config, arguments.races, arguments.blocks)
        raw[name] = {
            "config": config,
            "repeated": repeated,
            "repeated_s": middle - begun,
            "races": races,
            "races_s": time.monotonic() - middle,
        }
        false = sum(race["kind"] != "no significant difference" for race in races)
        rows.append(
            [
                name,
                f"{repeated['median_ms']:.4f}",
                f"{repeated['deviation']:.2%}",
                f"{repeated['worst']:.2%}",
                str(len(repeated["ms"])),
                f"{sum(race['kind'] == 'win' for race in races)} of {len(races)}",
                f"{false} of {len(races)}",
                f"{middle - begun:.0f} + {time.monotonic() - middle:.0f}",
            ]
        )
    header = [
        "kernel",
        "median ms",
        "deviation",
        "farthest",
        "measurements",
        "false wins",
        "false verdicts",
        "seconds",
    ]
    finish("repeatability", arguments, header, rows, raw)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
