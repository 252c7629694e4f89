"""GPUs for scripts: fixed clocks while something is measured, and what this machine has.

Searches over kernels (`ciq_ray.kernels`) set clocks by themselves when asked to; this is for objectives that
time by themselves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ciq_ray.compilers import TOOLS, find_tool, tool_version
from ciq_ray.errors import CiqError, ConfigurationError, UnsupportedError
from ciq_ray.gpu.devices import Device, devices, one_of_each_card
from ciq_ray.gpu.hold import Clocks, set_clocks
from ciq_ray.warn import warn_caller

__all__ = ["ctk_supports_compileiq", "gpu_benchmark_mode", "has_nvidia_smi"]

_FIRST_WITH_CONTROLS: Final = (13, 3)


def has_nvidia_smi() -> bool:
    """Whether ``nvidia-smi`` is on ``PATH``."""
    return shutil.which("nvidia-smi") is not None


def ctk_supports_compileiq() -> bool:
    """Whether a CUDA toolkit is here whose compilers take ``--apply-controls``: 13.3 or later.

    It is looked for on ``PATH``, and where `ciq_ray.compilers.find_tool` looks.
    """
    return any(_release(path) >= _FIRST_WITH_CONTROLS for path in _compilers())


def _compilers() -> list[Path]:
    found = [Path(path) for name in TOOLS if (path := shutil.which(name)) is not None]
    for name in TOOLS:
        try:
            found.append(find_tool(name))
        except UnsupportedError:
            continue
    return list(dict.fromkeys(found))


def _release(path: Path) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in tool_version(path).split("."))
    except UnsupportedError:
        return ()


@contextmanager
def gpu_benchmark_mode(
    clock_mhz: int | None = None,
    mem_clock_mhz: int | None = None,
    power_watts: int | None = None,
    gpu_id: int | str | list[str | int] | None = None,
    with_sudo: bool = True,
    raise_on_failure: bool = True,
) -> Iterator[None]:
    """Set clocks and power limits of GPUs for a measurement, and undo it at the end.

    The end is that of the ``with`` block, also by an exception or by SIGTERM. Locked clocks are reset, the
    power limit is put back to what it was. What a process that was killed left behind is undone by the next
    one, and by ``ciq gpu release``.

    NVML is asked first; only where it lacks the permission ``nvidia-smi`` is run. `nvidia-smi` never waits
    for a password.

    Args:
        clock_mhz: Core clock in MHz. A fixed one keeps times from swinging during a search; the maximum
            does not, since there the power limit decides. ``None`` leaves it alone.
        mem_clock_mhz: Memory clock in MHz. ``None`` leaves it alone.
        power_watts: Power limit in watts. ``None`` leaves it alone.
        gpu_id: Position among the visible GPUs, UUID or its beginning, or a list of these; ``None`` for
            all that are visible.
        with_sudo: Whether `nvidia-smi` is run with ``sudo -n``; without it, as it is, which is enough
            where it is set up to need no root, and in containers whose user is root.
        raise_on_failure: Whether a failure is raised, after all has been undone; else it is a warning, and
            things go on with what could be set.

    Raises:
        ConfigurationError: A value is none, or not in the range of the GPU; or another process holds its
            clocks.
        UnsupportedError: There is no GPU, or something was refused (with `raise_on_failure`).
        NvmlError: A GPU is lost (with `raise_on_failure`).
    """
    clocks = Clocks(clock_mhz, mem_clock_mhz, power_watts)
    with ExitStack() as stack:
        if clocks:
            for device in _cards(gpu_id, raise_on_failure):
                try:
                    stack.enter_context(
                        set_clocks(
                            device,
                            clocks,
                            fallback="sudo" if with_sudo else "plain",
                            strict=raise_on_failure,
                            say=_warn,
                        )
                    )
                except CiqError as error:
                    if raise_on_failure:
                        raise
                    _warn(str(error))
        yield


def _cards(gpu_id: int | str | list[str | int] | None, raise_on_failure: bool) -> list[Device]:
    """One device of each card, in an order in which two processes cannot wait for each other."""
    wanted = gpu_id if gpu_id is None or isinstance(gpu_id, list) else [gpu_id]
    try:
        found = devices(wanted)
    except ConfigurationError:
        raise
    except CiqError as error:
        if raise_on_failure:
            raise
        _warn(str(error))
        return []
    return sorted(one_of_each_card(found), key=lambda device: device.parent)


def _warn(text: str) -> None:
    warn_caller(text, RuntimeWarning)
