"""Tune the options of NVIDIA's ptxas on a kernel that runs out of registers.

The kernel (``kernels/spectrum.cu``) keeps more values than it has registers, so that ptxas spills some
to memory. Its launch bounds decide how many registers there are, and so how many threads a
multiprocessor can run at once. This search looks for the options with the least spilling for each
number of registers. It needs no GPU: ptxas reports both numbers.

    python examples/ptxas_spill.py --generations 4 --output ptxas_spill
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from ciq_ray import Search, SearchConfiguration, SearchResult
from ciq_ray.compilers import KernelReport, find_tool, ptxas_report, run_tool, tool_version
from ciq_ray.errors import ObjectiveFailure, UnsupportedError
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from ciq_ray.utils.helpers import save_compiler_config

PTX = Path(__file__).resolve().parent / "kernels" / "spectrum.sm_90.ptx"
KERNEL = "spectrum"
ARCHITECTURE = "sm_90"
BLOCK_THREADS = 512
REGISTERS_PER_SM = 65536
THREADS_PER_SM = 2048


def assemble(options_file: Path, cubin: Path) -> KernelReport:
    """Assemble the kernel with the options in a file; ptxas says what came out."""
    command = [find_tool("ptxas"), "--verbose", f"--gpu-name={ARCHITECTURE}"]
    command += ["--options-file", options_file, "--output-file", cubin, PTX]
    return ptxas_report(run_tool(command, timeout=30).stderr)[KERNEL]


def spill_and_registers(options: str) -> tuple[int, int]:
    """The objective: bytes spilled and registers used by each thread, both better when smaller."""
    with tempfile.TemporaryDirectory(prefix="ptxas_spill_") as folder:
        options_file = save_compiler_config(Path(folder) / "options.txt", options)
        report = assemble(options_file, Path(folder) / "kernel.cubin")
    if blocks_per_sm(report.registers) == 0:
        raise ObjectiveFailure(
            "resource_exceeded",
            f"{BLOCK_THREADS} threads with {report.registers} registers each do not fit a multiprocessor",
        )
    return report.spill_bytes, report.registers


def blocks_per_sm(registers: int) -> int:
    """How many blocks a multiprocessor can run at once; registers are handed out eight at a time."""
    by_registers = REGISTERS_PER_SM // (-(-registers // 8) * 8 * BLOCK_THREADS)
    return min(by_registers, THREADS_PER_SM // BLOCK_THREADS)


def essential(options: str, scores: tuple[int, int]) -> str:
    """The options without those that make no difference here."""
    lines = options.splitlines(keepends=True)
    for line in list(lines):
        fewer = "".join(other for other in lines if other != line)
        try:
            if spill_and_registers(fewer) == scores:
                lines.remove(line)
        except ObjectiveFailure:
            continue
    return "".join(lines)


def pareto_front(result: SearchResult) -> list[tuple[int, int, str]]:
    """Spilled bytes, registers and options, the fewest registers first, one of each kind."""
    front = {(int(row["score"][1]), int(row["score"][0])): row["params"] for row in result.get_best_result()}
    return [
        (spill, registers, essential(options, (spill, registers)))
        for (registers, spill), options in sorted(front.items())
    ]


def print_table(rows: list[tuple[str, int, int, str]]) -> None:
    print(f"\n{'':>7}  {'registers':>9}  {'blocks/SM':>9}  {'spilled':>10}  options")
    for name, spill, registers, options in rows:
        shown = " ".join(options.split()) or "(none)"
        print(f"{name:>7}  {registers:>9}  {blocks_per_sm(registers):>9}  {spill:>8} B  {shown}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=4, help="of 48 candidates each (default: 4)")
    parser.add_argument("--workers", type=int, default=2, help="ptxas processes at once (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="where the search starts (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("ptxas_spill"), help="folder to write to")
    arguments = parser.parse_args()
    try:
        ptxas = find_tool("ptxas")
    except UnsupportedError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"ptxas {tool_version(ptxas)} ({ptxas})")

    search = Search(
        objective_function=spill_and_registers,
        search_space=PtxasSearchSpace(),
        search_config=SearchConfiguration(generations=arguments.generations, num_objectives=2),
        seed=arguments.seed,
    )
    start = time.perf_counter()
    result = search.start(num_workers=arguments.workers, task_timeout=60)
    seconds = time.perf_counter() - start

    default = spill_and_registers("")
    front = pareto_front(result)
    print(f"\n{len(result.get_results())} option sets in {seconds:.1f} s for {KERNEL} on {ARCHITECTURE}")
    print_table([("default", *default, ""), *((str(i), *row) for i, row in enumerate(front, start=1))])

    # the least spilling that runs as many threads at once as the default options do
    same = [row for row in front if blocks_per_sm(row[1]) >= blocks_per_sm(default[1])]
    spill, registers, options = min(same or front)
    options_file = save_compiler_config(arguments.output / f"{KERNEL}.options", options)
    result.save(arguments.output / "results.csv")
    report = assemble(options_file, arguments.output / f"{KERNEL}.cubin")
    print(f"\nLeast spilling for {blocks_per_sm(registers)} blocks on a multiprocessor: {options_file}")
    print(f"Applied again: {report.spill_bytes} B spilled with {report.registers} registers", end="")
    print(f" (default options: {default[0]} B with {default[1]}).")
    if (report.spill_bytes, report.registers) != (spill, registers):
        print("That is not what the search measured. Did ptxas or the PTX change?", file=sys.stderr)
        return 1
    print("\nTo use it:")
    print(f"  ptxas --gpu-name={ARCHITECTURE} --options-file {options_file} kernel.ptx -o kernel.cubin")
    print(f"  nvcc -arch={ARCHITECTURE} -Xptxas --options-file={options_file} ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
