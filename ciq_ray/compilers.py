"""Finding and running NVIDIA's compilers, and reading what they report."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ciq_ray.errors import ObjectiveFailure, UnsupportedError

__all__ = [
    "KernelReport",
    "ToolResult",
    "find_tool",
    "parse_version",
    "ptxas_report",
    "run_tool",
    "tool_version",
]

TOOLS: Final = ("ptxas", "nvcc")
_RELEASE = re.compile(r"release (\d+\.\d+)(?:, V([\d.]+))?")


def find_tool(name: str) -> Path:
    """The path of a compiler.

    It is looked for in the packages of the ``ptxas`` extra, then in ``CUDA_HOME`` and ``CUDA_PATH``,
    then on ``PATH``.

    Args:
        name: ``ptxas`` or ``nvcc``.

    Raises:
        UnsupportedError: This machine has none; the message says how to install it.
    """
    if name not in TOOLS:
        raise UnsupportedError(f"`name` is {name!r}; it must be one of {', '.join(TOOLS)}")
    folders = _package_folders()
    folders += [Path(home) / "bin" for var in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(var))]
    for folder in folders:
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    found = shutil.which(name)
    if found is None:
        raise UnsupportedError(
            f"{name} was not found, neither in a CUDA toolkit (CUDA_HOME, PATH) nor as a Python package; "
            "install it with: pip install 'ciq-ray[ptxas]'"
        )
    return Path(found)


def _package_folders() -> list[Path]:
    """``bin`` folders of the ``nvidia-cuda-nvcc`` package, the newest CUDA first."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    found = [path for root in roots for path in root.glob("cu[0-9]*/bin")]
    return sorted(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name)), reverse=True)


def parse_version(text: str) -> str:
    """The release in what ``--version`` prints, for example ``"13.3"``.

    Raises:
        ValueError: There is none.
    """
    match = _RELEASE.search(text)
    if match is None:
        raise ValueError(f"no CUDA release in {text[:200]!r}")
    return match[1]


@functools.lru_cache(maxsize=16)
def tool_version(path: Path) -> str:
    """The release of the compiler at `path`, for example ``"13.3"``.

    Raises:
        UnsupportedError: It does not run, or does not say.
    """
    try:
        return parse_version(run_tool([str(path), "--version"], timeout=20).stdout)
    except (ObjectiveFailure, ValueError) as error:
        raise UnsupportedError(f"{path} does not tell its version: {error}") from error


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a compiler did.

    Attributes:
        returncode: 0 for success; for a signal, its number negated.
        stdout: Its standard output.
        stderr: Its standard error.
        seconds: How long it took.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run_tool(
    command: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    check: bool = True,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> ToolResult:
    """Run a compiler, in a process group of its own that is killed as a whole.

    An objective may let the exceptions through: they say how the candidate failed.

    Args:
        command: The program and its arguments; no shell sees them.
        timeout: Seconds after which it is killed, with all it started.
        check: Whether an exit status other than 0 raises.
        cwd: Folder to run it in; ``None`` stays in the current one.
        env: Environment variables that differ from those of this process.

    Raises:
        ObjectiveFailure: ``compile_timeout`` when it took too long; ``compile_error`` when it failed
            or could not be started, with its first error lines.
    """
    arguments = [os.fspath(part) for part in command]
    name = Path(arguments[0]).name
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
            process_group=0,
        )
    except (OSError, ValueError) as error:
        raise ObjectiveFailure("compile_error", f"{name} cannot be started: {error}") from error
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException as error:
        _kill_group(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise ObjectiveFailure("compile_timeout", f"{name} took longer than {timeout:g} s") from error
        raise
    if check and process.returncode:
        raise ObjectiveFailure("compile_error", f"{name}: {_reason(process.returncode, stderr or stdout)}")
    return ToolResult(process.returncode, stdout, stderr, time.monotonic() - start)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()


def _reason(returncode: int, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"error|fatal", line, re.IGNORECASE)] or lines[-3:]
    if returncode < 0:
        try:
            wrong.insert(0, f"killed by {signal.Signals(-returncode).name}")
        except ValueError:
            wrong.insert(0, f"killed by signal {-returncode}")
    return "; ".join(wrong[:3])[:1000] or f"exit status {returncode}"


@dataclass(frozen=True, slots=True)
class KernelReport:
    """What ``ptxas --verbose`` says about one function; a number it does not mention is 0.

    Attributes:
        registers: Registers each thread uses.
        spill_stores: Bytes stored because registers ran out, counted over the code, for each thread.
        spill_loads: Bytes loaded back, likewise.
        stack: Bytes of stack frame for each thread.
        shared: Bytes of static shared memory for each block.
        constant: Bytes of constant memory, all banks.
        barriers: Named barriers.
    """

    registers: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    stack: int = 0
    shared: int = 0
    constant: int = 0
    barriers: int = 0

    @property
    def spill_bytes(self) -> int:
        """Stores and loads together."""
        return self.spill_stores + self.spill_loads


_FUNCTION = re.compile(r"(?:Compiling entry function|Function properties for) '?([\w.$@]+)'?")
_NUMBERS = {
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "spill_stores": re.compile(r"(\d+) bytes spill stores"),
    "spill_loads": re.compile(r"(\d+) bytes spill loads"),
    "registers": re.compile(r"Used (\d+) registers"),
    "barriers": re.compile(r"used (\d+) barriers"),
    "shared": re.compile(r"(\d+) bytes smem"),
    "constant": re.compile(r"(\d+) bytes cmem\[\d+\]"),
}


def ptxas_report(text: str) -> dict[str, KernelReport]:
    """Read what ``ptxas --verbose`` prints on standard error.

    Args:
        text: The output, of one compilation for one architecture; other lines are skipped.

    Returns:
        A report for each function, by its name in the PTX. For device functions that are not kernels
        ptxas gives no register count.
    """
    found: dict[str, dict[str, int]] = {}
    entry = name = ""
    for line in text.splitlines():
        match = _FUNCTION.search(line)
        if match is not None:
            name = match[1]
            found.setdefault(name, {})
            if "entry function" in line:
                entry = name
            continue
        if not name:
            continue
        # the summary of a kernel follows the properties of the functions it calls
        owner = entry if "Used " in line and entry else name
        for key, pattern in _NUMBERS.items():
            values = [int(value) for value in pattern.findall(line)]
            if values:
                found[owner][key] = sum(values)
    return {function: KernelReport(**numbers) for function, numbers in found.items()}
