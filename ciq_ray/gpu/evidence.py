"""What the device did while something was timed on it, and whether that spoils the timing.

Which reasons spoil a sample follows nvbench: those by which the card, and not the kernel, decided on the
clock. Idling, and clocks that were set on purpose, do not. The bits are those of nvml.h
(``nvmlClocksEventReason...``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ciq_ray.gpu.devices import Device
from ciq_ray.gpu.nvml import Nvml, NvmlError, open_nvml

__all__ = ["SPOILING", "Evidence", "Watcher", "off_clock", "reason_names"]

_REASONS: Final = {
    0x1: "Idle",
    0x2: "ClocksSetting",
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x10: "SyncBoost",
    0x20: "SwThermal",
    0x40: "HwThermal",
    0x80: "HwPowerBrake",
    0x100: "DisplayClock",
}
SPOILING: Final = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""The reasons with which a sample does not count: the power cap, heat, and what hardware does in distress."""

_CLOCK_SM, _CLOCK_MEM, _TEMPERATURE_GPU = 1, 2, 0
_LOCK_TOLERANCE: Final = 0.02


def reason_names(reasons: int) -> str:
    """Event reasons for people: ``"Idle, SwPowerCap"``, or nothing for none."""
    names = [name for bit, name in _REASONS.items() if reasons & bit]
    unknown = reasons & ~sum(_REASONS)
    return ", ".join([*names, hex(unknown)] if unknown else names)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read over a window; ``None`` for what the device does not tell.

    Attributes:
        sm_mhz: Mean clock of the multiprocessors, at the samples within the window, if there are any: at its
            begin and end the device may be at rest, where it says nothing of the clock under load.
        mem_mhz: The same of the memory clock.
        power_w: Mean power draw in watts. Since Ampere the driver averages over a second, so that a shorter
            window shows mostly what came before it.
        temp_c: Highest temperature in degrees Celsius.
        reasons: All clock event reasons that were seen, as NVML's bits.
        spoiled: Why what was timed meanwhile does not count (``"SwPowerCap, HwThermal"``), or nothing.
    """

    sm_mhz: float | None = None
    mem_mhz: float | None = None
    power_w: float | None = None
    temp_c: float | None = None
    reasons: int = 0
    spoiled: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def off_clock(evidence: Evidence, expected_mhz: float | None) -> str:
    """Whether a lock held under load: nothing, or what the clock was instead (more than 2% away).

    Args:
        evidence: Of a window in which the device was busy; at rest the clock says nothing.
        expected_mhz: `ciq_ray.gpu.hold.Held.core_mhz`; ``None`` if no clock was locked to a number.
    """
    if expected_mhz is None or evidence.sm_mhz is None:
        return ""
    if abs(evidence.sm_mhz - expected_mhz) <= _LOCK_TOLERANCE * expected_mhz:
        return ""
    return f"the core clock is locked to {expected_mhz:.0f} MHz but was {evidence.sm_mhz:.0f} MHz under load"


@dataclass(slots=True)
class _Readings:
    sm: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    power: list[float] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)
    reasons: int = 0


class Watcher:
    """Reads clocks, power, temperature and event reasons of a card; a reading takes some 10 us.

    For one thread. After a fork the child reads through a session of its own.

    Args:
        device: Whom to watch; for a MIG instance its card, which owns all of this.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._session: Nvml | None = None
        self._pid = 0
        self._handle: Any = None
        self._silent: set[str] = set()
        self._readings = _Readings()

    def begin(self) -> None:
        """Open a window, with a first reading.

        Raises:
            NvmlError: The device is lost, or there is no NVML.
        """
        self._readings = _Readings()
        self.sample()

    def sample(self) -> None:
        """Read, as often as one likes.

        Raises:
            NvmlError: The device is lost, or there is no NVML.
        """
        session, readings = self._open(), self._readings
        reasons = session.event_reasons(self._handle) if "reasons" not in self._silent else None
        if reasons is None:
            self._silent.add("reasons")
        readings.reasons |= reasons or 0
        self._read(readings.sm, "sm", "nvmlDeviceGetClockInfo", _CLOCK_SM)
        self._read(readings.memory, "memory", "nvmlDeviceGetClockInfo", _CLOCK_MEM)
        self._read(readings.power, "power", "nvmlDeviceGetPowerUsage", scale=1e-3)
        self._read(readings.temperature, "temperature", "nvmlDeviceGetTemperature", _TEMPERATURE_GPU)

    def end(self) -> Evidence:
        """Close the window, with a last reading.

        Raises:
            NvmlError: The device is lost, or there is no NVML.
        """
        self.sample()
        readings = self._readings
        return Evidence(
            sm_mhz=_of(_mean, _within(readings.sm)),
            mem_mhz=_of(_mean, _within(readings.memory)),
            power_w=_of(_mean, readings.power),
            temp_c=_of(max, readings.temperature),
            reasons=readings.reasons,
            spoiled=reason_names(readings.reasons & SPOILING),
        )

    def close(self) -> None:
        """End the session with NVML; a later reading opens another."""
        if self._session is not None and self._pid == os.getpid():
            self._session.close()
        self._session = None

    def _open(self) -> Nvml:
        if self._session is None or self._pid != os.getpid():
            self._session, self._pid = open_nvml(), os.getpid()
            try:
                self._handle = self._session.handle(self._device.parent)
            except NvmlError:
                self.close()
                raise
        return self._session

    def _read(self, into: list[float], name: str, function: str, *arguments: int, scale: float = 1.0) -> None:
        if name in self._silent:
            return
        value = self._open().ask(function, self._handle, *arguments)
        if value is None:
            self._silent.add(name)
        else:
            into.append(value * scale)


def _within(values: list[float]) -> list[float]:
    return values[1:-1] or values


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _of(how: Callable[[list[float]], float], values: list[float]) -> float | None:
    return round(how(values), 3) if values else None
