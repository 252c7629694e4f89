"""Find the GCC options that make four small C programs fastest, and say whether they beat -O3.

The programs (``kernels/*.c``: a stencil, products of small matrices, a parser, a hash table) time
themselves. The objective compiles them with a candidate's options, checks that they compute what a build
with -O0 does, and returns the geometric mean of their times. The best candidates then race against -O3,
and -O3 against itself.

    python examples/gcc_flags.py                  # about five minutes
    CC=clang python examples/gcc_flags.py
"""

import argparse
import concurrent.futures
import functools
import hashlib
import os
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration
from ciq_ray.compilers import run_tool
from ciq_ray.errors import UnsupportedError
from ciq_ray.race import Plan
from ciq_ray.search_spaces.gcc import ClangSearchSpace, GccSearchSpace
from ciq_ray.settings import cache_dir
from ciq_ray.utils.helpers import save_compiler_config

SOURCES = Path(__file__).resolve().parent / "kernels"
KERNELS = ("stencil", "matmul", "parser", "words")
CC = os.environ.get("CC", "gcc")
BASELINE = "-O3\n"
BUILDS = cache_dir() / "gcc_flags"
WINDOWS, WINDOW_MS = 5, 3
RUN_TIMEOUT_S = 20


def geometric_mean_s(options: str) -> float:
    """The objective: geometric mean over the programs of the seconds of one call.

    Its ratio for two candidates is the mean speed-up, to which each program counts the same.
    """
    folder = build(options)
    return statistics.geometric_mean(seconds(folder / kernel, kernel) for kernel in KERNELS)


def build(options: str) -> Path:
    """The folder with the compiled programs; what was compiled before is used again."""
    target = BUILDS / build_key(options)
    if target.is_dir():
        return target
    BUILDS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=BUILDS))
    try:
        save_compiler_config(folder / "options", options)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(functools.partial(compile_one, folder), KERNELS))
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def compile_one(folder: Path, kernel: str) -> Path:
    """Compile a program with the options in `folder`, into it."""
    # not GNU C, in which GCC may round sums of products once where the source says twice
    command = [CC, "-std=c11", "@options", SOURCES / f"{kernel}.c", "-o", kernel]
    run_tool(command, timeout=60, cwd=folder)
    return folder / kernel


def build_key(options: str) -> str:
    """Changes with whatever the compiled programs depend on."""
    compiler = Path(shutil.which(CC) or CC).resolve()
    parts = [str(compiler), str(compiler.stat().st_mtime_ns), options]
    parts += [path.read_text() for path in sorted(SOURCES.glob("*.[ch]"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def seconds(program: Path, kernel: str) -> float:
    """Time of one call, the median of several windows, of a program that computes what it should."""
    printed = run(program, WINDOWS)
    if set(checksums(printed)) != {reference(kernel)}:
        raise ObjectiveFailure("wrong", f"{kernel} computes something else than with -O0")
    return statistics.median(map(float, re.findall(r"^seconds (\S+)$", printed, re.MULTILINE)))


@functools.cache
def reference(kernel: str) -> str:
    """The checksum of a build without optimisation."""
    return checksums(run(build("-O0\n") / kernel, 0))[0]


def checksums(printed: str) -> list[str]:
    return re.findall(r"^checksum (\w+)$", printed, re.MULTILINE)


def run(program: Path, windows: int) -> str:
    try:
        result = run_tool([program, str(windows), str(WINDOW_MS)], timeout=RUN_TIMEOUT_S, check=False)
    except ObjectiveFailure as error:
        raise ObjectiveFailure("run_timeout", str(error)) from error
    if result.returncode:
        raise ObjectiveFailure("run_error", f"{program.name} ended with status {result.returncode}")
    return result.stdout


def essential(options: str) -> str:
    """The options without those that make no difference to the compiled programs."""
    wanted = build(options)
    lines = options.splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in list(lines):
            if line.startswith(("-O", "-ffp-contract")):
                continue  # the latter keeps -march=native from changing results, of programs in GNU C
            fewer = [other for other in lines if other != line]
            save_compiler_config(folder / "options", "".join(fewer))
            programs = (compile_one(folder, kernel).read_bytes() for kernel in KERNELS)
            if all(
                program == (wanted / k).read_bytes() for program, k in zip(programs, KERNELS, strict=True)
            ):
                lines = fewer
    return "".join(lines)


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180, help="for the search (default: 180)")
    parser.add_argument("--seed", type=int, default=0, help="where the search starts (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("gcc_flags.options"), help="file to write")
    parser.add_argument("--quick", action="store_true", help="a few candidates and a short race")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = arguments_of(argv)
    provider = (ClangSearchSpace if "clang" in Path(CC).name else GccSearchSpace)(CC)
    try:
        found = provider.resolution_metadata()
    except UnsupportedError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{found['compiler']} {found['version']} ({found['source']}) for {found['target']}")

    quick = arguments.quick
    search = Search(
        objective_function=geometric_mean_s,
        search_space=provider,
        search_config=SearchConfiguration(generations=1 if quick else 100, pool_size=6 if quick else 24),
        initial_configs=[BASELINE],
        seed=arguments.seed,
        time_budget_s=arguments.seconds,
        final_race=Plan(finalists=2, pick_blocks=2, verdict_blocks=6, windows=2)
        if quick
        else Plan(finalists=6, pick_blocks=12, verdict_blocks=20, windows=3),
    )
    print(f"{len(search.space.parameters)} options; {', '.join(KERNELS)}; baseline {BASELINE.strip()}")
    try:
        result = search.start(num_workers=1, task_timeout=120)  # one at a time: they are timed
        race = result.race
        if race is None:  # it was stopped
            return 1
        print(f"\n{len(result.get_results())} candidates, {race.calls} calls in the race")
        print(f"Winner against -O3: {race.verdict.words}")
        print(f"-O3 against itself: {race.control.words}")

        print(f"\n{'':>10}  {'-O3':>10}  {'winner':>10}")
        before, after = build(BASELINE), build(race.winner.config)
        for kernel in KERNELS:
            times = [1e6 * seconds(folder / kernel, kernel) for folder in (before, after)]
            print(f"{kernel:>10}  {times[0]:>7.1f} µs  {times[1]:>7.1f} µs")
        chosen = essential(race.chosen.config)
    finally:
        shutil.rmtree(BUILDS, ignore_errors=True)

    file = save_compiler_config(arguments.output, chosen)
    print(f"\nWhat to use ({race.verdict.kind}): {' '.join(chosen.split())}")
    print(f"It is in a file; to use it: {CC} @{file} ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
