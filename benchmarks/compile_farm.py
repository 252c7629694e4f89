"""The first stage of a kernel search by itself: option sets of ptxas compiled a second, and how that scales.

The peer is `multiprocessing.Pool`, which calls the same function on a list that is known beforehand.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from benchmarks._report import ROOT, Claim, Result, medians, rotated
from ciq_ray.kernels import CompileStage, Target
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.slots import NativePool

TARGET = Target(90, "H100", 227 << 10, 1024, 65536)


def stage() -> CompileStage:
    """That of the kernel in examples/ptx_spill_runtime.py."""
    path = ROOT / "examples" / "ptx_spill_runtime.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # processes import it by its name
    spec.loader.exec_module(module)
    return CompileStage(module.KERNEL, TARGET)


def farm(compiles: CompileStage, configs: Sequence[Any], workers: int) -> Iterator[None]:
    """Compile all, as a search does; one item for each that is done."""
    with closing(NativePool(compiles, num_workers=workers)) as pool:
        left, done = list(configs), 0
        while done < len(configs):
            while left and pool.free:
                pool.submit(Task(str(len(left)), left.pop()))
            for _ in pool.poll(1.0):
                done += 1
                yield


_held: list[CompileStage] = []


def hold(compiles: CompileStage) -> None:
    """What a process of the peer begins with."""
    _held.append(compiles)


def compiled(config: Any) -> Any:
    """What a process of the peer does with an item."""
    return _held[0](config)


def peer(compiles: CompileStage, configs: Sequence[Any], workers: int) -> Iterator[None]:
    """The same by `multiprocessing.Pool`, whose processes get the function once, like ours."""
    with multiprocessing.get_context("spawn").Pool(workers, hold, [compiles]) as pool:
        for _ in pool.imap_unordered(compiled, configs):
            yield


def rate(done: Iterator[None], count: int, workers: int) -> float:
    """A second, from the first result of each process to the last."""
    for _ in range(workers):
        next(done)
    begun = time.perf_counter()
    for _ in done:
        pass
    return (count - workers) / (time.perf_counter() - begun)


def run(quick: bool) -> Result:
    """One and two workers and the peer, in turn."""
    count, rounds = (12, 1) if quick else (160, 5)
    compiles = stage()
    space = compiles.kernel.space
    configs = [space.decode(row) for row in space.sample(count, np.random.default_rng(0))]
    sides: dict[str, Callable[[], float]] = {
        "1 worker": lambda: rate(farm(compiles, configs, 1), count, 1),
        "2 workers": lambda: rate(farm(compiles, configs, 2), count, 2),
        "multiprocessing.Pool of 2": lambda: rate(peer(compiles, configs, 2), count, 2),
    }
    found = [{name: sides[name]() for name in rotated(list(sides), number)} for number in range(rounds)]
    ratios = medians(
        [
            {
                "scaling": one["2 workers"] / one["1 worker"],
                "against the peer": one["2 workers"] / one["multiprocessing.Pool of 2"],
            }
            for one in found
        ]
    )
    middle = medians([{name: one[name] for name in sides} for one in found])
    rows = [[name, f"{value:.1f}", f"{value / middle['1 worker']:.2f}"] for name, value in middle.items()]
    return Result(
        "compile_farm",
        ["side", "option sets/s", "ratio to 1 worker"],
        rows,
        [
            Claim("two compile workers to one, on two processors", ratios["scaling"], 1.7, at_least=True),
            Claim(
                "two compile workers to multiprocessing.Pool of two",
                ratios["against the peer"],
                0.9,
                at_least=True,
            ),
        ],
        {"rates": found, "option_sets": count},
    )
