"""Objectives in spaces too large to record: test functions, models of what is tuned, pairs of recorded ones.

Each problem is a space and a function of a configuration; less is better, and the function costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import searchers
from benchmarks import landscape, spaces
from benchmarks.objectives import value

__all__ = ["PAIRS", "PROBLEMS", "Problem"]

Floats = npt.NDArray[np.float64]
Objective = Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Problem:
    """What is searched.

    Attributes:
        space: More than 32,768 configurations.
        objective: Of a configuration.
    """

    space: searchers.Space
    objective: Objective


# -- test functions on grids ----------------------------------------------------------------------


def _grid(
    function: Callable[[Floats], float], dimensions: int, levels: int, reach: float, *, moved: bool = True
) -> Problem:
    """A function of numbers between -reach and reach, `moved` so that its optimum is not in the middle."""
    step = 2 * reach / (levels - 1)
    middle = (levels - 1) / 2
    rng = np.random.default_rng(7)
    centre = rng.integers(levels // 5, 4 * levels // 5, dimensions) if moved else np.full(dimensions, middle)

    def objective(config: dict[str, Any]) -> float:
        return float(function((np.array(list(config.values()), dtype=float) - centre) * step))

    space = searchers.Space({f"x{i}": searchers.Range(0, levels - 1, step=1) for i in range(dimensions)})
    return Problem(space, objective)


def _rastrigin(x: Floats) -> float:
    return float((10 + x**2 - 10 * np.cos(2 * math.pi * x)).sum())


def _schwefel(x: Floats) -> float:
    return float((418.9829 - x * np.sin(np.sqrt(np.abs(x)))).sum())


def _rosenbrock(x: Floats) -> float:
    y = x + 1
    return float((100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2).sum())


def _levy(x: Floats) -> float:
    w = 1 + x / 4
    inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * math.pi * w[-1]) ** 2)
    return float(np.sin(math.pi * w[0]) ** 2 + inner.sum() + last)


def _ackley(x: Floats) -> float:
    root, waves = math.sqrt((x**2).mean()), np.cos(2 * math.pi * x).mean()
    return float(20 - 20 * math.exp(-0.2 * root) + math.e - math.exp(waves))


def _griewank(x: Floats) -> float:
    return float(1 + (x**2).sum() / 4000 - np.cos(x / np.sqrt(np.arange(1, len(x) + 1))).prod())


# -- flags and their interactions -----------------------------------------------------------------


def _flags(n: int, seed: int) -> Problem:
    """A compiler's flags: 2 of 5 matter alone, and pairs and triples of any kind together."""
    rng = np.random.default_rng(seed)
    alone = rng.normal(0, 0.03, n) * (rng.random(n) < 0.4)
    groups = [
        (rng.integers(0, n, size).tolist(), float(effect))
        for size, count, scale in ((2, n, 0.03), (3, n // 3, 0.06))
        for effect in rng.normal(0, scale, count)
    ]

    def objective(config: dict[str, Any]) -> float:
        on = list(config.values())
        effects = sum(effect for effect, flag in zip(alone, on, strict=True) if flag)
        return math.exp(effects + sum(effect for group, effect in groups if all(on[i] for i in group)))

    return Problem(searchers.Space({f"flag{i}": searchers.Boolean() for i in range(n)}), objective)


def _nk(n: int, k: int, seed: int) -> Problem:
    """Kauffman's NK landscape ("The Origins of Order", 1993): what a bit is worth depends on `k` others."""
    rng = np.random.default_rng(seed)
    groups = [[i, *rng.choice([j for j in range(n) if j != i], k, replace=False).tolist()] for i in range(n)]
    worth = rng.random((n, 2 ** (k + 1)))

    def objective(config: dict[str, Any]) -> float:
        bits = list(config.values())
        places = [sum(bits[j] << power for power, j in enumerate(group)) for group in groups]
        return 1.0 - float(worth[np.arange(n), places].mean())

    return Problem(searchers.Space({f"bit{i}": searchers.Boolean() for i in range(n)}), objective)


# -- a kernel -------------------------------------------------------------------------------------

_M = _N = 2000
_K = 3000
_REGISTERS, _SHARED, _THREADS, _BLOCKS, _PROCESSORS = 65536, 228_000, 2048, 32, 132
"""Of a multiprocessor, and how many there are: an H100's."""


def _tiles() -> Problem:
    """A tiled matrix product by rule of thumb: occupancy, waves, spills, bank conflicts and traffic."""
    space = searchers.Space(
        {
            "BM": searchers.PowerOfTwo(8, 256),
            "BN": searchers.PowerOfTwo(8, 256),
            "BK": searchers.PowerOfTwo(8, 128),
            "TM": searchers.PowerOfTwo(1, 16),
            "TN": searchers.PowerOfTwo(1, 16),
            "stages": searchers.Range(1, 6, step=1),
            "vector": searchers.PowerOfTwo(1, 8),
            "unroll": searchers.Range(1, 16, step=1),
            "group": searchers.Range(1, 16, step=1),
            "split": searchers.PowerOfTwo(1, 16),
            "registers": searchers.Range(32, 255, step=1),
            "order": searchers.Choice(["row", "column", "swizzled"]),
            "pad": searchers.Range(0, 7, step=1),
            "asynchronous": searchers.Boolean(),
            "cached": searchers.Boolean(),
        },
        constraints=[
            "BM % TM == 0",
            "BN % TN == 0",
            "(BM // TM) * (BN // TN) >= 32",
            "(BM // TM) * (BN // TN) <= 1024",
            "(BM + BN) * BK * stages * 4 <= 200000",
        ],
    )
    return Problem(space, _tile_time)


def _tile_time(config: dict[str, Any]) -> float:
    """Milliseconds; infinite where not one block fits."""
    c = config
    threads = (c["BM"] // c["TM"]) * (c["BN"] // c["TN"])
    work = c["TM"] * c["TN"]
    shared = (c["BM"] + c["BN"] + c["pad"]) * c["BK"] * c["stages"] * 4
    fits = (_REGISTERS // (c["registers"] * threads), _THREADS // threads, _SHARED // shared, _BLOCKS)
    resident = min(fits)
    if resident < 1:
        return math.inf
    occupancy = resident * threads / _THREADS
    spilled = max(0, work + 4 * (c["TM"] + c["TN"]) + 2 * c["unroll"] + 20 - c["registers"])
    compute = 1000 * 2 * _M * _N * _K / 6e13 / (1 - math.exp(-3 * occupancy * math.sqrt(work)))
    compute *= (1 + 0.3 / c["unroll"] + 0.02 * max(0, c["unroll"] - 8)) * (1 + 4 / c["BK"]) * (1 + 1 / work)
    compute *= (1 + 0.05 * spilled) * (1.13 if (c["BK"] + c["pad"]) % 8 == 0 else 1.0)
    memory = 1000 * 8 * _M * _N * _K * (1 / c["BM"] + 1 / c["BN"]) / 2e12
    memory *= 1 + 0.4 * abs(c["group"] - 8) / 8 if c["cached"] else 1.3
    memory *= 1 + 0.15 * abs(math.log2(c["vector"]) - 2)
    hidden = 1 + (0.5 if c["asynchronous"] else 0.15) * (c["stages"] - 1)
    blocks = math.ceil(_M / c["BM"]) * math.ceil(_N / c["BN"]) * c["split"]
    waves = blocks / (_PROCESSORS * resident)
    time = (max(compute, memory) + min(compute, memory) / hidden) * math.ceil(waves) / waves
    time += 0.02 * c["split"] if c["split"] > 1 else 0.0
    factors = {"row": 1.1, "column": 1.15, "swizzled": 1.0}
    return float(time * factors[c["order"]])


# -- recorded landscapes --------------------------------------------------------------------------


def _pair(first: str, second: str) -> Problem:
    """Two recorded landscapes as one: how many times as long as the best each takes, added up.

    Together they have too many rows to list, so what is missing in either breaks no constraint: it fails.
    """
    halves = landscape.load(first), landscape.load(second)
    cut = len(halves[0].parameters)

    def objective(config: dict[str, Any]) -> float:
        values = tuple(config.values())
        total = 0.0
        for half, key in zip(halves, (values[:cut], values[cut:]), strict=True):
            place = half.find(key)
            if place is None or not math.isfinite(half.times[place]):
                return math.inf
            total += float(half.times[place]) / half.optimum
        return total

    parameters = {
        f"{half.name}_{name}": param for half in halves for name, param in half.space.parameters.items()
    }
    return Problem(searchers.Space(parameters), objective)


# -- all ------------------------------------------------------------------------------------------


def _mixed(n_parameters: int) -> Problem:
    return Problem(spaces.mixed(n_parameters), value)


PAIRS: Final[dict[str, Callable[[], Problem]]] = {
    f"{first} and {second}, {n_parameters}": partial(_pair, first, second)
    for first, second, n_parameters in (
        ("hub_pnpoly_RTX3090", "hub_conv_A4000", 11),
        ("nbody_8k", "matmul_4096", 12),
        ("matrix_vector_8k", "attention_causal", 13),
        ("heat_256", "sgemm_1k", 14),
        ("conv_17", "transpose_8k", 15),
        ("hub_gemm_RTX3090", "rmsnorm_8k", 17),
    )
}
"""Of recorded landscapes, by their names and the number of parameters."""
PROBLEMS: Final[dict[str, Callable[[], Problem]]] = {
    "rosenbrock, 8": lambda: _grid(_rosenbrock, 8, 101, 2.0),
    "rastrigin, 10": lambda: _grid(_rastrigin, 10, 101, 5.0),
    "schwefel, 10": lambda: _grid(_schwefel, 10, 101, 500.0, moved=False),
    "levy, 12": lambda: _grid(_levy, 12, 81, 10.0),
    "tiles, 15": _tiles,
    "griewank, 15": lambda: _grid(_griewank, 15, 201, 60.0),
    "ackley, 20": lambda: _grid(_ackley, 20, 101, 10.0),
    "mixed, 30": lambda: _mixed(30),
    "nk, 32": lambda: _nk(32, 3, 3),
    "flags, 60": lambda: _flags(60, 1),
    "nk, 80": lambda: _nk(80, 4, 5),
    "flags, 120": lambda: _flags(120, 2),
    "mixed, 200": lambda: _mixed(200),
    **PAIRS,
}
"""All, by name and number of parameters."""
