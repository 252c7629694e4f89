"""Holding a GPU: nobody else times on it, its clocks are set, and all of it is undone in the end.

In the end means: at the end of the ``with`` block, on an exception, on SIGTERM and SIGHUP; and after a
SIGKILL or a crash at the next start, from the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ciq_ray.errors import ConfigurationError, UnsupportedError
from ciq_ray.gpu.clocks import Change, Changer, Clocks, base_mhz, changes_for
from ciq_ray.gpu.devices import Device
from ciq_ray.gpu.ledger import Fallback, Ledger, read_ledger
from ciq_ray.gpu.locks import HostLock, Owner, release_command
from ciq_ray.gpu.nvml import Nvml, NvmlError, nvml
from ciq_ray.gpu.preflight import foreign_processes
from ciq_ray.gpu.signals import Endings
from ciq_ray.warn import warn_caller

__all__ = ["UNLOCKED", "Clocks", "Held", "clock_state", "hold", "recover", "set_clocks"]

UNLOCKED = "unlocked"

Say = Callable[[str], None]


@dataclass(slots=True)
class Held:
    """What a holder has of a GPU.

    Attributes:
        clock_state: For every record: ``locked 1410/1593 MHz``, ``partly: ...`` or ``unlocked``.
        notes: What people should know: refusals, what was recovered, other processes on the GPU.
        core_mhz: What the core clock is locked to; ``None`` if it is not, or to nobody knows what.
    """

    clock_state: str = UNLOCKED
    notes: list[str] = field(default_factory=list)
    core_mhz: int | None = None


@contextmanager
def hold(
    device: Device,
    clocks: Clocks | None = None,
    *,
    wait_s: float | None = 0.0,
    fallback: Fallback = "none",
    say: Say | None = None,
) -> Iterator[Held]:
    """Be the only one of this host's users who times on a card, with its clocks set.

    For one thread of a process without a CUDA context. Whoever forks within shares the hold: it ends with
    the ``with`` block, or with the last of these processes.

    Args:
        device: The GPU; of a MIG instance the whole card is held, since it has one clock.
        clocks: What to set; what is refused is left alone, and said.
        wait_s: How long to wait for another process that holds the card; ``None`` for ever.
        fallback: What to do where NVML lacks the permission to set clocks.
        say: Gets each note as it comes up; by default it is a `RuntimeWarning`.

    Raises:
        ConfigurationError: Another process holds the card, and who; or `clocks` are out of its range.
        NvmlError: The device is lost.
    """
    say = say or _warn
    lock = HostLock(device.parent, "timing")
    lock.acquire(wait_s)
    pid = os.getpid()
    try:
        notes = [f"GPU {device.parent} is shared: {other}" for other in foreign_processes(device)]
        for note in notes:
            say(note)
        with set_clocks(device, clocks or Clocks(), wait_s=wait_s, fallback=fallback, say=say) as held:
            held.notes[:0] = notes
            yield held
    finally:
        if os.getpid() == pid:
            lock.release()


@contextmanager
def set_clocks(
    device: Device,
    clocks: Clocks,
    *,
    wait_s: float | None = 0.0,
    fallback: Fallback = "none",
    strict: bool = False,
    say: Say | None = None,
) -> Iterator[Held]:
    """Set clocks and power limit of a card, without keeping others from timing on it.

    What a process that was killed has left behind is undone first, also if there is nothing to set and
    nobody else holds the clocks.

    Args:
        device: The GPU.
        clocks: What to set.
        wait_s: How long to wait for another process that holds its clocks; ``None`` for ever.
        fallback: What to do where NVML lacks the permission.
        strict: Whether a refusal is an error, before which all that was set is undone.
        say: Gets each note as it comes up; by default it is a `RuntimeWarning`.

    Raises:
        ConfigurationError: Another process holds the clocks, or they are out of the card's range.
        UnsupportedError: Something was refused, and `strict` is set.
        NvmlError: The device is lost.
    """
    held = Held()

    def note(text: str) -> None:
        held.notes.append(text)
        (say or _warn)(text)

    if not clocks:
        _recover_if_free(device, note)
        held.clock_state = clock_state(device)
        yield held
        return
    lock = HostLock(device.parent, "clocks")
    pid = os.getpid()
    with Endings() as endings:
        lock.acquire(wait_s)
        setup = _Setup(device, clocks, fallback, strict, note, endings)
        try:
            setup.make(held)
            yield held
        finally:
            endings.deferring = True
            if os.getpid() == pid:  # a forked process that unwinds has nothing to undo
                try:
                    setup.undo()
                finally:
                    lock.release()


def clock_state(device: Device) -> str:
    """What is known of a card's clocks to those who did not set them: who locked them, or ``unlocked``."""
    ledger = read_ledger(device.parent)
    if ledger is None or ledger.rebooted or not ledger.state:
        return UNLOCKED
    return f"{ledger.state}, by process {ledger.owner.pid}"


def recover(uuid: str) -> list[str]:
    """Undo what a process has left behind that is gone, for a card that nobody holds.

    Args:
        uuid: The card's.

    Returns:
        What was done, for people; nothing if there was nothing to do.

    Raises:
        ConfigurationError: A process that lives holds the card's clocks.
        NvmlError: It could not be undone; the ledger stays.
    """
    if read_ledger(uuid) is None:
        return []
    lock = HostLock(uuid, "clocks")
    lock.acquire(0.0)
    try:
        return _recover(uuid)
    finally:
        lock.release()


def _recover(uuid: str) -> list[str]:
    """The same, for who has the lock."""
    ledger = read_ledger(uuid)
    if ledger is None:
        return []
    if not ledger.stale and ledger.owner.pid != os.getpid():
        raise ConfigurationError(
            f"the clocks of GPU {uuid} are held by {ledger.owner}, although it does not hold the lock; end it"
        )
    if not ledger.rebooted:
        _undo(uuid, ledger)
    ledger.remove()
    how = "the machine was started since" if ledger.rebooted else f"undone: {', '.join(ledger.changes)}"
    return [f"{ledger.owner} left clocks of GPU {uuid} set ({how})"]


def _recover_if_free(device: Device, note: Say) -> None:
    try:
        for text in recover(device.parent):
            note(text)
    except ConfigurationError:
        return  # whoever holds them will undo it
    except NvmlError as error:
        if not error.refusal:
            raise
        note(f"{_left_behind(device.parent)} ({error})")


def _left_behind(uuid: str) -> str:
    return f"the clocks of GPU {uuid} stay set; undo it with: {release_command()}"


def _undo(uuid: str, ledger: Ledger) -> None:
    """Undo all that a ledger has; the first failure is raised when the rest is done."""
    failure: NvmlError | None = None
    with nvml() as session:
        changer = Changer(session, uuid, ledger.fallback)
        for setting in reversed(ledger.changes):
            try:
                # to what a file of another user says nothing is put back, but to the default
                changer.undo(setting, ledger.power_mw if ledger.trusted else None)
            except NvmlError as error:
                failure = failure or error
    if failure is not None:
        raise failure


class _Setup:
    """One card's settings, from the ledger to the end."""

    def __init__(
        self,
        device: Device,
        clocks: Clocks,
        fallback: Fallback,
        strict: bool,
        note: Say,
        endings: Endings,
    ) -> None:
        self._device = device
        self._clocks = clocks
        self._fallback = fallback
        self._strict = strict
        self._note = note
        self._endings = endings
        self._ledger: Ledger | None = None
        self._awake = -1

    def make(self, held: Held) -> None:
        device, uuid = self._device, self._device.parent
        with nvml() as session:
            changes = changes_for(session, device, self._clocks)
            try:
                for text in _recover(uuid):
                    self._note(text)
            except NvmlError as error:
                if not error.refusal:
                    raise
                self._refused(f"{_left_behind(uuid)} ({error})")
                held.clock_state = clock_state(device)
                return  # the old ledger must not be lost
            handle = session.handle(uuid)
            self._keep_awake(session, handle)
            self._open_ledger(changes, session.ask("nvmlDeviceGetPowerManagementLimit", handle))
            refused = self._apply(changes, Changer(session, uuid, self._fallback))
        done = [change for change in changes if change.setting not in refused]
        core = next((change for change in done if change.setting == "core"), None)
        if core is not None:
            held.core_mhz = core.value or base_mhz(uuid)
        held.clock_state = _state(done, held.core_mhz, refused)
        if self._ledger is not None:
            self._write(replace(self._ledger, state=held.clock_state))

    def undo(self) -> None:
        try:
            if self._ledger is not None:
                self._undo_settings(self._ledger)
        finally:
            if self._awake >= 0:
                os.close(self._awake)

    def _undo_settings(self, ledger: Ledger) -> None:
        try:
            _undo(ledger.uuid, ledger)
        except NvmlError as error:
            replace(ledger, left=True).write()
            self._note(f"{_left_behind(ledger.uuid)} ({error})")
        else:
            ledger.remove()

    def _keep_awake(self, session: Nvml, handle: Any) -> None:
        """Without persistence mode the driver forgets clocks when no process has the card's file open."""
        if session.ask("nvmlDeviceGetPersistenceMode", handle) != 0:
            return
        path = f"/dev/nvidia{session.ask('nvmlDeviceGetMinorNumber', handle)}"
        try:
            self._awake = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._note(
                f"persistence mode of GPU {self._device.parent} is off, and {path} cannot be kept open "
                f"({error.strerror}): its clocks are forgotten whenever no process uses it; switch it on "
                "with: sudo nvidia-smi -pm 1"
            )

    def _open_ledger(self, changes: list[Change], power_mw: int | None) -> None:
        settings = tuple(change.setting for change in changes)
        ledger = Ledger(
            uuid=self._device.parent,
            owner=Owner.this(),
            changes=settings,
            power_mw=power_mw if "power" in settings else None,
            fallback=self._fallback,
        )
        try:
            self._write(ledger)
        except OSError as error:
            raise ConfigurationError(
                f"what is set on GPU {ledger.uuid} cannot be written down: {error}; set CIQ_GPU_STATE_DIR to "
                "a folder that can be written to"
            ) from error

    def _write(self, ledger: Ledger) -> None:
        with self._endings.deferred():
            ledger.write()
            self._ledger = ledger

    def _apply(self, changes: list[Change], changer: Changer) -> dict[str, str]:
        """Make the changes one by one; the settings that were refused, and why."""
        refused: dict[str, str] = {}
        for change in changes:
            if change.note:
                self._note(f"GPU {self._device.parent}: {change.note}")
            with self._endings.deferred():  # or nobody knows whether it was made
                try:
                    changer.apply(change)
                except NvmlError as error:
                    if not error.refusal:
                        raise
                    refused[change.setting] = error.text
                    self._forget(change)
                    self._refused(_refusal(self._device, change, error))
        return refused

    def _forget(self, change: Change) -> None:
        assert self._ledger is not None
        self._ledger = self._ledger.without(change.setting)
        if self._ledger.changes:
            self._write(self._ledger)
        else:
            self._ledger.remove()
            self._ledger = None

    def _refused(self, text: str) -> None:
        if self._strict:
            raise UnsupportedError(text)
        self._note(text)


def _refusal(device: Device, change: Change, error: NvmlError) -> str:
    advice = {
        "refused": "it takes root, in a container with SYS_ADMIN (docs/gpu.md)",
        "unsupported": "this GPU, driver or machine does not have it",
    }[error.kind]
    return f"cannot {change} on GPU {device.parent} ({device.name}): {error}; {advice}"


def _state(done: list[Change], core_mhz: int | None, refused: dict[str, str]) -> str:
    if not done:
        return UNLOCKED
    values = {change.setting: change.value for change in done}
    clocks = []
    if "core" in values:
        clocks.append("base" if core_mhz is None else f"{core_mhz}")
    if "memory" in values:
        clocks.append(f"{values['memory']}" if clocks else f"memory {values['memory']}")
    parts = [f"locked {'/'.join(clocks)} MHz"] if clocks else [UNLOCKED]
    if "power" in values:
        parts.append(f"{(values['power'] or 0) / 1000:g} W")
    parts += [f"{setting} refused ({text})" for setting, text in refused.items()]
    return ("partly: " if refused else "") + ", ".join(parts)


def _warn(text: str) -> None:
    warn_caller(text, RuntimeWarning)
