"""Setting clocks and the power limit of a card, through NVML or, lacking its permission, ``nvidia-smi``.

Clocks are locked with NVML's ``SetGpuLockedClocks`` and ``SetMemoryLockedClocks``; application clocks are
deprecated and go with CUDA 14. The base clock is NVML's own: ``NVML_CLOCK_LIMIT_ID_TDP``, "lock clock to
TDP" in nvml.h, which nvbench uses as well. No function tells its frequency (on an H100 the default
application clock and the customer boost clock are both the maximum), but ``nvidia-smi base-clocks`` does.
Locking to the maximum would be of no use, since there the power limit decides.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.devices import Device
from ciq_ray.gpu.ledger import Fallback, Setting
from ciq_ray.gpu.nvml import Nvml, NvmlError

__all__ = ["BASE", "Change", "Changer", "Clocks", "base_mhz", "changes_for"]

BASE: Final = "base"

_LIMIT_TDP: Final = 0xFFFFFF01  # nvmlClockLimitId_t
_TOOL_LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """What to set on a GPU; what is ``None`` is left alone.

    Attributes:
        clock_mhz: Core clock in MHz, or ``"base"`` for the clock that the card can keep up at any load.
        mem_clock_mhz: Memory clock in MHz.
        power_watts: Power limit in watts.
    """

    clock_mhz: int | str | None = None
    mem_clock_mhz: int | None = None
    power_watts: int | None = None

    def __post_init__(self) -> None:
        for name in ("clock_mhz", "mem_clock_mhz", "power_watts"):
            value = getattr(self, name)
            if value is None or (name == "clock_mhz" and value == BASE):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                other = ", 'base'" if name == "clock_mhz" else ""
                raise ConfigurationError(
                    f"`{name}` is {value!r}; it must be a positive integer{other} or None"
                )

    def __bool__(self) -> bool:
        return (self.clock_mhz, self.mem_clock_mhz, self.power_watts) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of a card.

    Attributes:
        setting: What is set.
        value: MHz; for the power limit, milliwatts; ``None`` for the base clock.
        note: How it differs from what was asked for, for people.
    """

    setting: Setting
    value: int | None
    note: str = ""

    def __str__(self) -> str:
        if self.setting == "power":
            return f"set the power limit to {(self.value or 0) / 1000:g} W"
        clock = "its base clock" if self.value is None else f"{self.value} MHz"
        return f"lock the {self.setting} clock to {clock}"


def changes_for(session: Nvml, device: Device, clocks: Clocks) -> list[Change]:
    """What has to be set, checked against what the card says that it can.

    Raises:
        ConfigurationError: A value is outside of the card's range.
        NvmlError: The device is lost, or does not answer.
    """
    handle = session.handle(device.parent)
    found = []
    memory = session.ask("nvmlDeviceGetSupportedMemoryClocks", handle) or []
    if clocks.clock_mhz == BASE:
        found.append(Change("core", None))
    elif clocks.clock_mhz is not None:
        core = session.ask("nvmlDeviceGetSupportedGraphicsClocks", handle, memory[0]) if memory else []
        found.append(_nearest("core", "clock_mhz", int(clocks.clock_mhz), core or [], device))
    if clocks.mem_clock_mhz is not None:
        found.append(_nearest("memory", "mem_clock_mhz", clocks.mem_clock_mhz, memory, device))
    if clocks.power_watts is not None:
        limits = session.ask("nvmlDeviceGetPowerManagementLimitConstraints", handle)
        wanted = clocks.power_watts * 1000
        if limits is not None and not limits[0] <= wanted <= limits[1]:
            raise ConfigurationError(
                f"`power_watts` is {clocks.power_watts}; the {device.name} takes {limits[0] / 1000:g} to "
                f"{limits[1] / 1000:g}"
            )
        found.append(Change("power", wanted))
    return found


def _nearest(setting: Setting, name: str, wanted: int, supported: list[int], device: Device) -> Change:
    if not supported:
        return Change(setting, wanted)
    low, high = min(supported), max(supported)
    if not low <= wanted <= high:
        raise ConfigurationError(f"`{name}` is {wanted}; the {device.name} takes {low} to {high} MHz")
    nearest = min(supported, key=lambda clock: abs(clock - wanted))
    note = "" if nearest == wanted else f"{nearest} MHz is the {setting} clock nearest to {wanted} MHz"
    return Change(setting, nearest, note)


class Changer:
    """Changes settings of one card.

    NVML is asked first. Where it lacks the permission, and only there, `fallback` follows.

    Args:
        session: An open session.
        uuid: The card's; clocks belong to the whole card, not to a MIG instance.
        fallback: ``none``, ``plain`` (``nvidia-smi``) or ``sudo`` (``sudo -n nvidia-smi``, which fails
            where it would have to ask for a password).
    """

    def __init__(self, session: Nvml, uuid: str, fallback: Fallback = "none") -> None:
        self._session = session
        self._uuid = uuid
        self._fallback = fallback
        self._handle: Any = session.handle(uuid)

    def apply(self, change: Change) -> None:
        """Make one change.

        Raises:
            NvmlError: It was refused (`NvmlError.refusal`), or failed.
        """
        value = change.value
        if change.setting == "power":
            self._do("nvmlDeviceSetPowerManagementLimit", [value], ["-pl", f"{(value or 0) / 1000:g}"])
        elif change.setting == "memory":
            self._do("nvmlDeviceSetMemoryLockedClocks", [value, value], ["-lmc", f"{value},{value}"])
        elif value is None:
            self._lock_to_base()
        else:
            self._do("nvmlDeviceSetGpuLockedClocks", [value, value], ["-lgc", f"{value},{value}"])

    def undo(self, setting: Setting, power_mw: int | None) -> None:
        """Reset locked clocks, or put the power limit back.

        Args:
            setting: What to undo.
            power_mw: The power limit as it was, in milliwatts; ``None`` for the card's default.

        Raises:
            NvmlError: It was refused, or failed.
        """
        if setting == "core":
            self._do("nvmlDeviceResetGpuLockedClocks", [], ["-rgc"])
        elif setting == "memory":
            self._do("nvmlDeviceResetMemoryLockedClocks", [], ["-rmc"])
        else:
            if power_mw is None:
                power_mw = self._session.call("nvmlDeviceGetPowerManagementDefaultLimit", self._handle)
            self.apply(Change("power", power_mw))

    def _lock_to_base(self) -> None:
        try:
            self._session.call("nvmlDeviceSetGpuLockedClocks", self._handle, _LIMIT_TDP, _LIMIT_TDP)
        except NvmlError as error:
            if not error.refusal or (error.kind == "refused" and self._fallback == "none"):
                raise
            # nvidia-smi takes numbers only, and so do devices that do not know NVML's symbols
            base = base_mhz(self._uuid)
            if base is None:
                raise NvmlError(
                    error.kind, error.what, f"{error.text}, and its base clock is unknown: give a number"
                ) from error
            self.apply(Change("core", base))

    def _do(self, function: str, arguments: list[int | None], words: list[str]) -> None:
        try:
            self._session.call(function, self._handle, *arguments)
        except NvmlError as error:
            if error.kind != "refused" or self._fallback == "none":
                raise
            _nvidia_smi(self._uuid, words, sudo=self._fallback == "sudo", refusal=error)


def _nvidia_smi(uuid: str, words: list[str], *, sudo: bool, refusal: NvmlError) -> None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        raise NvmlError("refused", refusal.what, f"{refusal.text}, and there is no nvidia-smi") from refusal
    command = [*(["sudo", "-n"] if sudo else []), tool, "-i", uuid, *words]
    shown = " ".join(["sudo -n nvidia-smi" if sudo else "nvidia-smi", *words])
    try:
        # no terminal to ask on: a password that is missing is a refusal, not a wait
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TOOL_LIMIT_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        # no refusal: it may yet come to pass, so that it has to be undone
        raise NvmlError("other", shown, f"did not end within {_TOOL_LIMIT_S:g} s") from error
    except OSError as error:
        raise NvmlError("refused", shown, str(error)) from refusal
    if run.returncode:
        said = " ".join((run.stderr + run.stdout).split())[:300]
        raise NvmlError("refused", shown, said or f"exit status {run.returncode}") from refusal


def base_mhz(uuid: str) -> int | None:
    """The base clock of a card in MHz, as ``nvidia-smi base-clocks`` prints it; ``None`` if it does not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        run = subprocess.run(
            [tool, "base-clocks", "-i", uuid],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TOOL_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d{3,4}) ?MHz", run.stdout) if run.returncode == 0 else None
    return int(found[1]) if found else None
