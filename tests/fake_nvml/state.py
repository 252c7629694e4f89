"""The devices of the fake NVML library, as a structure in a file; `nvml.c` has the same one."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any

MAGIC = 0x43495147
GPUS, INSTANCES, PROCESSES, MEMORY_CLOCKS = 8, 7, 8, 4
U32, U64 = ctypes.c_uint32, ctypes.c_uint64

INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 2, 3, 4, 9


class Gpu(ctypes.Structure):
    """One card. Assigning to a field changes what the library says from then on.

    `log` has a line for each accepted change. The fields `..._error` are NVML codes with which changes
    are refused. `burst_reads` reads of the event reasons see `burst` too, and `burst_mhz` meanwhile.
    After `calls_left` calls the card is lost. `off_mhz` is how far below a lock the clock runs.
    """

    _fields_ = (
        *((name, ctypes.c_char * size) for name, size in (("uuid", 64), ("name", 64), ("pci", 32))),
        ("instances", (ctypes.c_char * 64) * INSTANCES),
        ("log", ctypes.c_char * 2048),
        *((name, U64) for name in ["memory", "reasons", "burst"]),
        *((name, U32) for name in ["burst_reads", "burst_mhz", "major", "minor", "persistence", "mig"]),
        *((name, U32) for name in ["instance_count", "sm_mhz", "mem_mhz", "base_mhz", "min_mhz", "max_mhz"]),
        *((name, U32) for name in ["step_mhz", "off_mhz"]),
        ("mem_clocks", U32 * MEMORY_CLOCKS),
        ("locked_sm", U32 * 2),
        ("locked_mem", U32 * 2),
        *((name, U32) for name in ["power_mw", "limit_mw", "default_mw", "min_mw", "max_mw", "temperature"]),
        *((name, U32) for name in ["core_error", "memory_error", "power_error", "reset_error"]),
        *((name, U32) for name in ["symbolic_error", "power_read_error", "lost", "calls_left"]),
        ("pids", U32 * PROCESSES),
        ("pid_count", U32),
    )

    @property
    def changes(self) -> list[str]:
        """What was changed, in order: ``core 1410 1410``, ``memory 0 0`` (reset), ``power 500000 500000``."""
        return self.log.decode().splitlines()


class State(ctypes.Structure):
    _fields_ = (
        *((name, U32) for name in ["magic", "size", "count", "old_driver", "init_error"]),
        ("driver", ctypes.c_char * 32),
        ("gpus", Gpu * GPUS),
    )


H100: dict[str, Any] = {
    "name": b"NVIDIA H100 80GB HBM3",
    "memory": 85520809984,
    "reasons": 1,
    "burst": 4,
    "burst_mhz": 1200,
    "major": 9,
    "minor": 0,
    "persistence": 1,
    "sm_mhz": 1980,
    "mem_mhz": 2619,
    "base_mhz": 1590,
    "min_mhz": 345,
    "max_mhz": 1980,
    "step_mhz": 15,
    "mem_clocks": (2619, 1593),
    "power_mw": 114000,
    "limit_mw": 700000,
    "default_mw": 700000,
    "min_mw": 200000,
    "max_mw": 700000,
    "temperature": 41,
}
"""What NVML says of an H100 SXM at rest with driver 580; its base clock is made up."""


def create(path: Path, gpus: int) -> None:
    """Write a file with this many cards that nobody has touched."""
    state = State(magic=MAGIC, size=ctypes.sizeof(State), count=gpus, driver=b"580.159.04")
    for index in range(gpus):
        gpu = state.gpus[index]
        gpu.uuid = f"GPU-{index + 1:08x}-1111-2222-3333-444444444444".encode()
        gpu.pci = f"{0:08X}:{0x1A + 0x10 * index:02X}:00.0".encode()
        for name, value in H100.items():
            setattr(gpu, name, type(getattr(gpu, name))(*value) if isinstance(value, tuple) else value)
        for instance in range(INSTANCES):
            text = f"MIG-{index + 1:08x}-aaaa-bbbb-cccc-{instance:012x}"
            gpu.instances[instance].value = text.encode()
    path.write_bytes(bytes(state))


def attach(path: Path) -> State:
    """The state in a file that this and other processes change."""
    with path.open("r+b") as file:
        return State.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(State)))
