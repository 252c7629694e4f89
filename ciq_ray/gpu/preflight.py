"""What there is to know of a GPU before anything is timed on it; nothing here changes anything."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ciq_ray._processes import stat_of
from ciq_ray.gpu.clocks import BASE, Clocks, base_mhz, changes_for
from ciq_ray.gpu.devices import Device
from ciq_ray.gpu.evidence import Evidence, Watcher, reason_names
from ciq_ray.gpu.ledger import Fallback, Ledger, Setting, read_ledger
from ciq_ray.gpu.locks import HostLock
from ciq_ray.gpu.nvml import nvml

__all__ = ["Preflight", "Process", "foreign_processes", "ledger_text", "may_lock", "plan", "preflight"]

_CAP_SYS_ADMIN: Final = 1 << 21
_EVERYBODY: Final = 1 << 32
"""So many user numbers there are; root of a namespace with fewer is not root for the driver."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process with a context on a GPU.

    Attributes:
        pid: Its number; in a container NVML may give that of another namespace, or no processes at all.
        name: Of its program, ``?`` if it is not to be seen.
        memory: Bytes it uses on the GPU, ``None`` if unknown.
    """

    pid: int
    name: str
    memory: int | None

    def __str__(self) -> str:
        memory = "" if self.memory is None else f", {self.memory / (1 << 20):.0f} MiB"
        return f"process {self.pid} ({self.name}{memory})"


def foreign_processes(device: Device) -> list[Process]:
    """Processes with a context on the card, other than this one and what it has started.

    Raises:
        NvmlError: The device is lost.
    """
    with nvml() as session:
        handle = session.handle(device.parent)
        found = session.ask("nvmlDeviceGetComputeRunningProcesses", handle) or []
    return [
        Process(entry.pid, _name(entry.pid), entry.usedGpuMemory)
        for entry in found
        if not _descends(entry.pid, os.getpid())
    ]


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        found = stat_of(pid)
        pid = 0 if found is None else found.parent
    return pid == ancestor


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def may_lock() -> str:
    """Why this process will not be allowed to set clocks; nothing if it should be.

    NVML has no question for it. Drivers ask for root and CAP_SYS_ADMIN, of the machine and not only of a
    container's own users.
    """
    if os.geteuid() != 0:
        return "it takes root"
    try:
        status = Path("/proc/self/status").read_text()
        users = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return ""
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    if not int(capabilities, 16) & _CAP_SYS_ADMIN:
        return "the container lacks SYS_ADMIN (docker run --cap-add SYS_ADMIN)"
    if len(users) == 3 and int(users[2]) < _EVERYBODY - 1:
        return "root of this container is not root of the machine"
    return ""


@dataclass(frozen=True, slots=True)
class Preflight:
    """A GPU as it is now; ``None`` for what it does not tell.

    Attributes:
        device: The GPU.
        persistence: Whether the driver keeps its state while no process uses it.
        power_w: The power limit in watts.
        power_range_w: The lowest and the highest that it takes.
        clocks_mhz: The lowest and the highest core clock.
        memory_mhz: Memory clocks, the highest first.
        base_mhz: The base clock, if ``nvidia-smi`` tells.
        cannot_lock: Why clocks cannot be set; nothing if they should.
        processes: Others that use it.
        now: Clocks, power, temperature and event reasons at this moment.
        ledger: What is set on it, or was left behind.
        timing: Who times on it.
        setting: Who holds its clocks.
    """

    device: Device
    persistence: bool | None
    power_w: float | None
    power_range_w: tuple[float, float] | None
    clocks_mhz: tuple[int, int] | None
    memory_mhz: tuple[int, ...]
    base_mhz: int | None
    cannot_lock: str
    processes: tuple[Process, ...]
    now: Evidence
    ledger: Ledger | None
    timing: str
    setting: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        device, now = self.device, self.now
        card = f" of {device.parent}" if device.mig else ""
        memory = f"{device.memory / (1 << 30):.0f} GiB" if device.memory else "the CPU's memory"
        lines = [
            f"{device.name}, {memory}, sm_{device.arch}, {device.uuid}{card}",
            f"driver {device.driver}, NVML index {device.index}, bus {device.pci}, "
            f"MIG {'on' if device.mig else 'off'}, persistence {_on(self.persistence)}",
            f"now: core {_number(now.sm_mhz, 'MHz')}, memory {_number(now.mem_mhz, 'MHz')}, "
            f"{_number(now.power_w, 'W')}, {_number(now.temp_c, 'C')}, "
            f"event reasons: {reason_names(now.reasons) or 'none'}",
            f"clocks: core {_range(self.clocks_mhz, 'MHz')}, base {_number(self.base_mhz, 'MHz')}, memory "
            f"{', '.join(map(str, self.memory_mhz)) or 'unknown'} MHz",
            f"power limit: {_number(self.power_w, 'W')} of {_range(self.power_range_w, 'W')}",
            f"setting clocks: {self.cannot_lock or 'allowed, as far as can be seen'}",
        ]
        lines += [f"shared: {process}" for process in self.processes]
        if self.timing:
            lines.append(f"timing on it: {self.timing}")
        if self.setting:
            lines.append(f"holding its clocks: {self.setting}")
        if self.ledger is not None:
            lines.append(ledger_text(self.ledger))
        return lines


def ledger_text(ledger: Ledger) -> str:
    """What a ledger says, for people."""
    what = ledger.state or f"about to set: {', '.join(ledger.changes)}"
    if not ledger.left_behind:
        return f"set: {what}, by {ledger.owner}"
    if ledger.rebooted:
        return f"an old ledger of {ledger.owner}, undone by the machine's start"
    return f"left behind: {what}, by {ledger.owner}; undo it with: ciq gpu release"


def _on(value: bool | None) -> str:
    return "unknown" if value is None else "on" if value else "off"


def _number(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.0f} {unit}"


def _range(values: tuple[float, float] | None, unit: str) -> str:
    return "unknown" if values is None else f"{values[0]:.0f} to {values[1]:.0f} {unit}"


def preflight(device: Device) -> Preflight:
    """Look at a GPU.

    Raises:
        NvmlError: The device is lost, or NVML fails.
    """
    uuid = device.parent
    with nvml() as session:
        handle = session.handle(uuid)
        persistence = session.ask("nvmlDeviceGetPersistenceMode", handle)
        power = session.ask("nvmlDeviceGetPowerManagementLimit", handle)
        limits = session.ask("nvmlDeviceGetPowerManagementLimitConstraints", handle)
        memory = session.ask("nvmlDeviceGetSupportedMemoryClocks", handle) or []
        core = session.ask("nvmlDeviceGetSupportedGraphicsClocks", handle, memory[0]) if memory else None
    watcher = Watcher(device)
    try:
        watcher.begin()
        now = watcher.end()
    finally:
        watcher.close()
    return Preflight(
        device=device,
        persistence=None if persistence is None else bool(persistence),
        power_w=None if power is None else power / 1000,
        power_range_w=None if limits is None else (limits[0] / 1000, limits[1] / 1000),
        clocks_mhz=(min(core), max(core)) if core else None,
        memory_mhz=tuple(memory),
        base_mhz=base_mhz(uuid),
        cannot_lock=may_lock(),
        processes=tuple(foreign_processes(device)),
        now=now,
        ledger=read_ledger(uuid),
        timing=_holder(uuid, "timing"),
        setting=_holder(uuid, "clocks"),
    )


def _holder(uuid: str, kind: str) -> str:
    owner = HostLock(uuid, kind).holder()
    return "" if owner is None else str(owner)


def plan(device: Device, clocks: Clocks, *, fallback: Fallback = "none") -> list[str]:
    """What `ciq_ray.gpu.hold.set_clocks` would do; nothing is done.

    Raises:
        ConfigurationError: A value is outside of the card's range.
        NvmlError: The device is lost, or NVML fails.
    """
    uuid = device.parent
    with nvml() as session:
        changes = changes_for(session, device, clocks)
        power = session.ask("nvmlDeviceGetPowerManagementLimit", session.handle(uuid))
    lines = []
    holder = _holder(uuid, "clocks")
    if holder:
        lines.append(f"wait for {holder}, who holds the clocks")
    ledger = read_ledger(uuid)
    if ledger is not None and ledger.stale:
        lines.append(f"undo what {ledger.owner} left: {', '.join(ledger.changes)}")
    if not changes:
        return [*lines, "set nothing"]
    lines.append("write down what is changed, in a file that outlives this process")
    for change in changes:
        lines.append(f"{change}{f' ({change.note})' if change.note else ''}")
    if clocks.clock_mhz == BASE and (base := base_mhz(uuid)) is not None:
        lines[-len(changes)] += f", {base} MHz"
    for change in reversed(changes):
        lines.append(f"at the end: {_undoing(change.setting, power)}")
    reason = may_lock()
    if reason:
        how = {"none": "", "plain": ", so nvidia-smi is tried", "sudo": ", so sudo -n nvidia-smi is tried"}
        lines.append(f"this will probably be refused: {reason}{how[fallback]}")
    return lines


def _undoing(setting: Setting, power_mw: int | None) -> str:
    if setting == "power":
        return f"put the power limit back to {_number(None if power_mw is None else power_mw / 1000, 'W')}"
    return f"unlock the {setting} clock"
