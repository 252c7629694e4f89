"""What a kernel needs of a device, whether the device has it, and the machine code for people to read."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ciq_ray.compilers import KernelReport, find_tool, ptxas_report, run_tool
from ciq_ray.errors import ObjectiveFailure, UnsupportedError
from ciq_ray.kernels.protocol import Resources, Target

__all__ = ["check_fits", "combined", "disassembled", "entry_report", "needs"]

_WARP: Final = 32
_REGISTER_UNIT: Final = 256
"""Registers are handed out to a warp in units of 256 (CUDA's occupancy calculator, all since sm_30)."""


def entry_report(messages: str, name: str) -> tuple[str, KernelReport]:
    """What ``ptxas --verbose`` said about a kernel.

    Args:
        messages: Its output.
        name: The kernel's name in the source; C++ may have made a longer one of it.

    Returns:
        The kernel's name in the binary, and the report.

    Raises:
        ObjectiveFailure: ``compile_error`` if there is no such kernel, or more than one.
    """
    found = ptxas_report(messages)
    if name in found:
        return name, found[name]
    # Itanium's mangling: the length of the name, then the name
    mangled = [each for each in found if each.startswith("_Z") and f"{len(name)}{name}" in each]
    if len(mangled) == 1:
        return mangled[0], found[mangled[0]]
    what = "no kernel" if not mangled else f"{len(mangled)} kernels"
    raise ObjectiveFailure(
        "compile_error",
        f"there is {what} {name!r} in what was compiled ({', '.join(found) or 'none at all'}); declare it "
        '`extern "C" __global__`',
    )


def needs(report: KernelReport, *, threads: int, dynamic_shared: int) -> Resources:
    """Resources of a kernel and its launch.

    Args:
        report: What ptxas said.
        threads: Threads of a block.
        dynamic_shared: Bytes of shared memory that the launch asks for.
    """
    return Resources(
        registers=report.registers,
        spill_stores=report.spill_stores,
        spill_loads=report.spill_loads,
        shared=report.shared + dynamic_shared,
        threads=threads,
    )


def combined(all_resources: Iterable[Resources]) -> Resources:
    """The most of each over several variants of a kernel."""
    data = [resources.to_dict() for resources in all_resources]
    names = {name for each in data for name in each}
    return Resources(**{name: max(each[name] for each in data if name in each) for name in names})


def check_fits(resources: Resources, target: Target) -> None:
    """Refuse a launch that the device cannot do, before a device is taken.

    Raises:
        ObjectiveFailure: ``resource_exceeded``: a block has too many threads, registers, or too much shared
            memory.
    """
    where = target.name or f"sm_{target.arch}"
    threads, shared = resources.threads or 0, resources.shared or 0
    if target.max_threads and threads > target.max_threads:
        raise ObjectiveFailure(
            "resource_exceeded",
            f"a block has {threads} threads; {where} runs {target.max_threads} at most",
        )
    if target.max_shared and shared > target.max_shared:
        raise ObjectiveFailure(
            "resource_exceeded",
            f"a block needs {shared} bytes of shared memory; {where} has {target.max_shared}",
        )
    registers = resources.registers or 0
    warps = -(-threads // _WARP)
    taken = warps * (-(-registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT)
    if target.max_registers and taken > target.max_registers:
        raise ObjectiveFailure(
            "resource_exceeded",
            f"{threads} threads with {registers} registers each take {taken} registers; {where} has "
            f"{target.max_registers}",
        )


def disassembled(cubin: bytes, folder: Path) -> bytes:
    """The machine code of a cubin as text, empty if this machine has no disassembler.

    Args:
        cubin: The binary.
        folder: A place for temporary files.
    """
    tool = _disassembler()
    if tool is None:
        return b""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    try:
        return run_tool([tool, path], timeout=60).stdout.encode()
    except ObjectiveFailure:
        return b""


def _disassembler() -> Path | None:
    """``nvdisasm`` of the CUDA toolkit, else the one that comes with Triton."""
    folders = []
    for name in ("nvcc", "ptxas"):
        try:
            folders.append(find_tool(name).parent)
        except UnsupportedError:
            continue
    spec = importlib.util.find_spec("triton")
    folders += [
        Path(root, "backends/nvidia/bin") for root in (spec and spec.submodule_search_locations) or ()
    ]
    for folder in folders:
        path = folder / "nvdisasm"
        if os.access(path, os.X_OK):
            return path
    found = shutil.which("nvdisasm")
    return Path(found) if found else None
