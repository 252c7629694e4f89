"""What the benchmarks on GPUs share: the examples' kernels, searches of them, journals, result files."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._report import ROOT, machine, table

__all__ = [
    "KERNELS",
    "Window",
    "busy",
    "candidates",
    "finish",
    "kernel_of",
    "optimum",
    "options",
    "outcomes",
    "run_folder",
    "search",
    "the_device",
]

KERNELS = {
    "matmul": ("triton_matmul", "matmul_4096"),
    "attention": ("triton_attention", "attention_causal"),
    "convolution": ("cuda_convolution", "conv_17"),
}
"""Example and landscape of each kernel whose space was measured as a whole."""


def options(
    description: str | None, *, kernels: str | None = None, output: str = "folder to write the JSON file to"
) -> argparse.ArgumentParser:
    """A parser with what all of these scripts take.

    Args:
        description: The module's docstring.
        kernels: The default of ``--kernels``, a comma-separated list, for a script that takes that.
        output: What ``--output`` is, for the help.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help=output)
    parser.add_argument("--device", default="0", help="GPU: CUDA's number or a UUID (default: 0)")
    parser.add_argument("--workers", type=int, default=15, help="compile workers (default: 15)")
    parser.add_argument("--lock-clocks", help="base, or MHz (default: left alone)")
    if kernels is not None:
        names = ", ".join(KERNELS)
        parser.add_argument("--kernels", default=kernels, help=f"some of {names} (default: {kernels})")
    return parser


def the_device(arguments: argparse.Namespace) -> Any:
    """The GPU to measure on, as `ciq_ray.gpu.devices.Device`."""
    from ciq_ray.gpu.devices import devices

    name = arguments.device
    return devices([int(name) if name.isdigit() else name])[0]


def kernel_of(name: str, variable: str = "KERNEL") -> Any:
    """The kernel of an example, which is in this variable of it."""
    module = KERNELS[name][0] if name in KERNELS else name
    path = ROOT / "examples" / f"{module}.py"
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # workers import it by its name
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    return getattr(sys.modules[module], variable)


def optimum(name: str) -> tuple[dict[str, Any], float]:
    """The fastest configuration that was recorded, and its milliseconds."""
    import numpy as np

    from ciq_ray.landscape import Landscape

    landscape = Landscape.load(ROOT / "benchmarks" / "landscapes" / f"{KERNELS[name][1]}.csv")
    row = int(np.nanargmin(landscape.times))
    return dict(zip(landscape.parameters, landscape.keys[row], strict=True)), float(landscape.times[row])


def search(kernel: Any, arguments: argparse.Namespace, **fields: Any) -> tuple[Any, Any, float, float]:
    """Search with `auto` unless told otherwise.

    Args:
        kernel: The objective.
        arguments: As parsed by `options`.
        **fields: Of `ciq_ray.Search`; `max_evaluations` and what differs. `task_timeout` goes to `start`.

    Returns:
        The search, its result, when `start` was called and when it came back, in seconds since 1970.
    """
    from ciq_ray import Search, SearchConfiguration

    timeout = fields.pop("task_timeout", 20)
    fields = {"searcher": "auto", "disable_progress_bar": True, **fields}
    pool = fields.pop("pool_size", 32)
    made = Search(
        objective_function=kernel,
        search_space=kernel.space,
        search_config=SearchConfiguration(generations=-(-fields["max_evaluations"] // pool), pool_size=pool),
        **fields,
    )
    lock = arguments.lock_clocks
    begun = time.time()
    result = made.start(
        num_workers=arguments.workers,
        task_timeout=timeout,
        devices=[the_device(arguments).uuid],
        lock_clocks=int(lock) if lock and lock.isdigit() else lock,
    )
    return made, result, begun, time.time()


def run_folder(made: Any) -> Path:
    """The folder of a search that has run."""
    from ciq_ray.settings import runs_dir

    return runs_dir() / str(made.run_id)


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """The outcome records of a run's journal, in their order."""
    from ciq_ray.journal import read_records

    return [record for record in read_records(folder) if record.get("t") == "outcome"]


def candidates(folder: Path) -> dict[str, Any]:
    """The configurations of a run by the ids of its candidates."""
    from ciq_ray.journal import read_records

    asked = (record for record in read_records(folder) if record.get("t") == "ask")
    return {item["id"]: item["config"] for record in asked for item in record["candidates"]}


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, in seconds since 1970."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin

    def overlap(self, begin: float, end: float) -> float:
        """How much of another span lies in it."""
        return max(0.0, min(self.end, end) - max(self.begin, begin))


def busy(spans: Iterable[Sequence[float]], window: Window) -> float:
    """Seconds in a window that lie in any of the spans; where spans overlap, that counts once."""
    total, reached = 0.0, window.begin
    for begin, end in sorted((span[0], span[1]) for span in spans):
        total += window.overlap(max(begin, reached), end)
        reached = max(reached, end)
    return total


def finish(
    name: str,
    arguments: argparse.Namespace,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    raw: Mapping[str, Any],
) -> None:
    """Write everything to ``NAME.json``, with the card's name, and print the table."""
    device = the_device(arguments)
    card = {"gpu": device.name, "driver": device.driver, "memory": device.memory, "mig": device.mig}
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{name}.json"
    data = {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {**machine(), **card},
        "arguments": {key: str(value) for key, value in vars(arguments).items() if key != "output"},
        "table": [list(header), *map(list, rows)],
        "raw": raw,
    }
    path.write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"\n{device.name}, driver {device.driver}; written to {path}\n")
    print(table(header, rows), flush=True)
