"""What this machine has for a search, and what to do about what it lacks; see ``ciq doctor``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ciq_ray import settings
from ciq_ray._version import __version__

__all__ = ["ABSENT", "MISSING", "OK", "WARNING", "Finding", "examine"]

OK: Final = "ok"
WARNING: Final = "warning"
"""There, but it will get in the way."""
ABSENT: Final = "absent"
"""Not there, and not every search needs it."""
MISSING: Final = "missing"
"""Not there, and every search needs it."""

_GIB: Final = 1 << 30
_MIN_FREE_DISK: Final = _GIB
_MIN_MEMORY: Final = 2 * _GIB
_MIN_SHARED_MEMORY: Final = _GIB
_SLOW_FSYNC_S: Final = 0.02
_TOOL_LIMIT_S: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: ``"ok"``, ``"warning"``, ``"absent"`` (not every search needs it) or ``"missing"``.
        value: What was found.
        advice: What to do about it; empty if nothing has to be done.
    """

    name: str
    state: str
    value: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain data for JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; takes a second or two and changes nothing."""
    parts: list[Callable[[], Iterable[Finding]]] = [
        _python,
        _packages,
        _processors,
        _memory,
        _compilers,
        _gpus,
        _runs,
        _shared_memory,
    ]
    return [finding for part in parts for finding in part()]


def _python() -> list[Finding]:
    version = f"{platform.python_version()} ({sys.executable})"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    known = sys.platform == "linux"
    return [
        Finding("ciq-ray", OK, __version__),
        Finding("Python", OK, version),
        Finding(
            "system",
            OK if known else WARNING,
            system,
            "" if known else "only Linux is tested; worker processes rely on it to end what they started",
        ),
    ]


def _packages() -> list[Finding]:
    try:
        requirements = importlib.metadata.requires("ciq-ray") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("packages", WARNING, "ciq-ray is not installed", "install it with: pip install -e .")]
    needed = [text for text in requirements if "extra ==" not in text]
    found, absent = [], []
    for requirement in needed:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(requirement.split(";")[0].strip())
    findings = [Finding("packages", OK, ", ".join(found))] if found else []
    for requirement in absent:
        findings.append(Finding(requirement, MISSING, "not installed", f"pip install '{requirement}'"))
    return findings


def _processors() -> list[Finding]:
    from ciq_ray.worker.pool import available_cpus

    total, usable = os.cpu_count() or 1, available_cpus()
    value = f"{usable} usable of {total}"
    quota = _cpu_quota()
    if quota is not None and quota < usable:
        return [
            Finding(
                "processors",
                WARNING,
                f"{value}, but a limit of {quota:.3g} processors' time",
                f"give `num_workers={max(1, int(quota))}`: more would wait for each other and spoil timings",
            )
        ]
    return [Finding("processors", OK, value)]


def _cpu_quota() -> float | None:
    """Processors' worth of time that the control group allows, ``None`` for no limit."""
    lowest = None
    for text in _control_group_values("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max" and period:
            share = int(quota) / int(period)
            lowest = share if lowest is None else min(lowest, share)
    return lowest


def _memory() -> list[Finding]:
    values = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
    if "MemTotal" not in values:
        return [Finding("memory", WARNING, "unknown", "/proc/meminfo cannot be read")]
    total, free = values["MemTotal"], values.get("MemAvailable", values["MemTotal"])
    text = f"{_size(free)} free of {_size(total)}"
    limits = [int(value) for value in _control_group_values("memory.max") if value.isdigit()]
    if limits and min(limits) < total:
        text += f", limited to {_size(min(limits))}"
        free = min(free, min(limits))
    if free < _MIN_MEMORY:
        advice = (
            "close something, or give a smaller `num_workers`; each worker process holds the objective's data"
        )
        return [Finding("memory", WARNING, text, advice)]
    return [Finding("memory", OK, text)]


def _control_group_values(name: str) -> list[str]:
    """The contents of this file in our control group and those around it (version 2 of them)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    root = Path("/sys/fs/cgroup")
    folder = root / own.lstrip("/")
    values = []
    for group in [folder, *folder.parents]:
        with contextlib.suppress(OSError):
            values.append((group / name).read_text().strip())
        if group == root:
            break
    return values


def _compilers() -> list[Finding]:
    from ciq_ray.compilers import find_tool, tool_version
    from ciq_ray.errors import UnsupportedError

    findings = []
    for name in ("ptxas", "nvcc"):
        try:
            path = find_tool(name)
            findings.append(Finding(name, OK, f"{tool_version(path)} ({path})"))
        except UnsupportedError as error:
            advice = "pip install 'ciq-ray[ptxas]', or set CUDA_HOME, if you tune compiler options"
            findings.append(Finding(name, ABSENT, str(error).split(";")[0], advice))
    for name in ("gcc", "clang"):
        found = shutil.which(name)
        if found is None:
            advice = "nvcc needs a host compiler" if name == "gcc" else ""
            findings.append(Finding(name, ABSENT, "not found on PATH", advice))
        else:
            first = (_output([found, "--version"]) or "does not run").splitlines()[0]
            findings.append(Finding(name, OK, f"{first} ({found})"))
    return findings


def _gpus() -> list[Finding]:
    from ciq_ray.gpu.findings import gpu_findings

    return gpu_findings()


def _runs() -> list[Finding]:
    folder = settings.runs_dir().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    shown = f"{folder}" if existing == folder else f"{folder} (not there yet)"
    advice = "set CIQ_RUNS_DIR to a folder that you can write to"
    if not existing.is_dir():
        return [Finding("runs", MISSING, f"{shown}: {existing} is not a folder", advice)]
    try:
        times = _fsync_times(existing)
    except OSError as error:
        return [Finding("runs", MISSING, f"{shown}: {error.strerror}", advice)]
    findings = [Finding("runs", OK, f"{shown} can be written to")]

    free = shutil.disk_usage(existing).free
    enough = free >= _MIN_FREE_DISK
    findings.append(
        Finding(
            "disk",
            OK if enough else WARNING,
            f"{_size(free)} free for runs",
            "" if enough else "a run that fills the disk stops: make room, or set CIQ_RUNS_DIR",
        )
    )
    middle, worst = statistics.median(times), max(times)
    fast = middle < _SLOW_FSYNC_S
    findings.append(
        Finding(
            "fsync",
            OK if fast else WARNING,
            f"{middle * 1e3:.2f} ms, at worst {worst * 1e3:.2f} ms of {len(times)}",
            ""
            if fast
            else "short evaluations will wait for the journal: set CIQ_RUNS_DIR to a folder on a local disk",
        )
    )
    return findings


def _fsync_times(folder: Path, count: int = 20) -> list[float]:
    """Seconds that each of some appended lines needs to reach the disk."""
    times = []
    with tempfile.TemporaryFile(dir=folder, prefix=".ciq-doctor-", buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(b"x" * 400)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return times


def _shared_memory() -> list[Finding]:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return [Finding("/dev/shm", ABSENT, "not there", "Ray needs it; local searches do not")]
    enough = usage.total >= _MIN_SHARED_MEMORY
    return [
        Finding(
            "/dev/shm",
            OK if enough else WARNING,
            f"{_size(usage.free)} free of {_size(usage.total)}",
            "" if enough else "small for Ray; in a container: docker run --shm-size=2g",
        )
    ]


def _output(command: list[str]) -> str | None:
    """What a program prints, ``None`` if it fails or does not end."""
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOOL_LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout if run.returncode == 0 else None


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.0f} MiB"
