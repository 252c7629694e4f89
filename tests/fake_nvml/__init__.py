"""A machine with NVIDIA GPUs for tests: a real ``libnvidia-ml.so.1`` without a GPU, which `pynvml` loads.

`fake_nvml(gpus=2, scenario="memory_unsupported")` returns the machine; ``machine[0]`` is a card whose fields
can be read and assigned (`tests.fake_nvml.state.Gpu`). Processes that a test starts see the same machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml import state as fake

__all__ = ["SCENARIOS", "FakeMachine"]

HERE = Path(__file__).parent
_THROTTLED = 0x4 | 0x20

SCENARIOS: dict[str, dict[str, Any]] = {
    "": {},
    "refused": dict.fromkeys(("core_error", "memory_error", "power_error"), fake.NO_PERMISSION),
    "memory_unsupported": {"memory_error": fake.NOT_SUPPORTED},
    "invalid": {"core_error": fake.INVALID_ARGUMENT},
    "throttled": {"reasons": _THROTTLED, "sm_mhz": 1200},
    "burst": {"burst": _THROTTLED, "burst_reads": 3},
    "lost": {"lost": 1},
    "mig": {"mig": 1, "instance_count": 2},
}
"""Fields of every card, by the name of a scenario."""

_SUDO = """#!/bin/sh
printf '%s\\n' "$*" >> "$CIQ_FAKE_SUDO_LOG"
[ "$1" = -n ] || { read -r password; sleep 600; exit 1; }
shift
if [ -n "$CIQ_FAKE_SUDO_REFUSES" ]; then echo "sudo: a password is required" >&2; exit 1; fi
CIQ_FAKE_ROOT=1 exec "$@"
"""
_SMI = """#!/bin/sh
exec {python} -IS {script} "$@"
"""


class FakeMachine:
    """A machine whose cards are `cards`.

    Attributes:
        path: The file with the driver's state.
        states: Where ledgers and locks are kept (`CIQ_GPU_STATE_DIR`).
        sudo_log: What ``sudo`` was called with, a line each.
        smi_log: The same for ``nvidia-smi``.
    """

    def __init__(self, path: Path, states: Path) -> None:
        self.path = path
        self.states = states
        self.sudo_log = path.with_name("sudo.log")
        self.smi_log = path.with_name("smi.log")
        self.state = fake.attach(path)

    @property
    def cards(self) -> list[fake.Gpu]:
        return [self.state.gpus[index] for index in range(self.state.count)]

    def __getitem__(self, index: int) -> fake.Gpu:
        return self.cards[index]

    def is_untouched(self, limit_mw: int = 650000) -> bool:
        """Whether the first card has no clock locked and this power limit, and no ledger is left."""
        card = self[0]
        return (
            list(card.locked_sm) == list(card.locked_mem) == [0, 0]
            and card.limit_mw == limit_mw
            and not list(self.states.glob("*.json"))
        )

    def uuid(self, index: int = 0) -> str:
        """The UUID of a card."""
        return self[index].uuid.decode()

    def contents(self) -> bytes:
        """All there is to know of the driver's state."""
        return self.path.read_bytes()

    def occupy(self, *pids: int, card: int = 0) -> None:
        """Have these processes a context on a card."""
        gpu = self[card]
        gpu.pids[: len(pids)] = pids
        gpu.pid_count = len(pids)


@pytest.fixture(scope="session")
def fake_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built; in this process it is loaded before anybody asks for the real one."""
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source, name = str(HERE / "nvml.c"), "-Wl,-soname,libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, name, source, "-o", str(library)], check=True, timeout=120)
    ctypes.CDLL(str(library))
    return library


@pytest.fixture
def fake_nvml(
    fake_nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., FakeMachine]:
    """Makes a machine: ``fake_nvml(gpus=1, scenario="", **fields_of_every_card)``; once in a test."""

    def make(gpus: int = 1, scenario: str = "", **fields: Any) -> FakeMachine:
        folder = tmp_path / "machine"
        (folder / "bin").mkdir(parents=True)
        fake.create(folder / "nvml.state", gpus)
        machine = FakeMachine(folder / "nvml.state", folder / "states")
        for card in machine.cards:
            for name, value in {**SCENARIOS[scenario], **fields}.items():
                setattr(card, name, value)
        _program(folder / "bin" / "sudo", _SUDO)
        _program(folder / "bin" / "nvidia-smi", _SMI.format(python=sys.executable, script=HERE / "smi.py"))
        libraries = [str(fake_nvml_library.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        for name, text in {
            "CIQ_FAKE_NVML": machine.path,
            "CIQ_FAKE_SUDO_LOG": machine.sudo_log,
            "CIQ_FAKE_SMI_LOG": machine.smi_log,
            "CIQ_GPU_STATE_DIR": machine.states,
            "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        }.items():
            monkeypatch.setenv(name, str(text))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
        return machine

    return make


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
    assert shutil.which(str(path))
