"""The GPUs that CUDA would see, by UUID.

CUDA's ordinals are not NVML's indices: ``CUDA_VISIBLE_DEVICES`` renumbers them, and ``CUDA_DEVICE_ORDER``
sorts them. Everything here therefore goes by UUID, and a position is one in the list that `devices` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ciq_ray import settings
from ciq_ray.errors import ConfigurationError, UnsupportedError
from ciq_ray.gpu.nvml import Nvml, NvmlError, nvml

__all__ = ["LOST_ADVICE", "Device", "devices", "lost_cards", "one_of_each_card"]

LOST_ADVICE: Final = "see `nvidia-smi` and the system's log (`dmesg`, Xid messages); it may need a reset"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or an instance of one that is split with MIG. Plain data; made by `devices`.

    Attributes:
        uuid: ``GPU-...``, or ``MIG-...`` for an instance.
        parent: UUID of the card, which owns clocks and power; the same as `uuid` without MIG.
        index: NVML's index of the card, as in ``nvidia-smi``.
        name: Such as ``NVIDIA H100 80GB HBM3``.
        arch: Compute capability times ten, such as 90.
        memory: Bytes; 0 where the device has none of its own and shares that of the CPU.
        driver: The driver's version.
        mig: Whether it is an instance.
        pci: The card's address on the bus.
    """

    uuid: str
    parent: str
    index: int
    name: str
    arch: int
    memory: int
    driver: str
    mig: bool
    pci: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def devices(selected: Sequence[int | str] | None = None) -> list[Device]:
    """The GPUs that are visible, in CUDA's order with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.

    A card that is split with MIG is listed as its instances.

    Args:
        selected: Which of them, in this order: positions in the list of all visible ones, UUIDs, or
            beginnings of UUIDs that only one of them has. ``None`` for all.

    Raises:
        UnsupportedError: There is no NVIDIA driver, or no GPU that is visible.
        ConfigurationError: `selected`, or ``CUDA_VISIBLE_DEVICES``, names what is not there.
        NvmlError: All cards are lost, or NVML fails in another way.
    """
    try:
        with nvml() as session:
            cards, lost = _cards(session)
    except NvmlError as error:
        if error.kind != "absent":
            raise
        advice = "GPUs need NVIDIA's driver and its libnvidia-ml.so.1 (in a container: --gpus all)"
        raise UnsupportedError(f"no NVIDIA GPU can be used: {error}; {advice}") from error
    if lost and not cards:
        first = next(iter(lost.values()))
        text = f"{first.text} (all cards: {', '.join(map(str, lost))}); {LOST_ADVICE}"
        raise NvmlError(first.kind, first.what, text) from first
    visible = _visible(cards)
    if not visible:
        raise UnsupportedError(
            f"no GPU is visible: {settings.ENV_VISIBLE_DEVICES} is {settings.visible_devices()!r}; unset it, "
            "or name a GPU by its UUID"
            if cards
            else "the NVIDIA driver finds no GPU; `nvidia-smi -L` should list one"
        )
    if selected is None:
        return visible
    if isinstance(selected, str):
        raise ConfigurationError(f"`selected` is {selected!r}; give a list, [{selected!r}]")
    if not selected:
        raise ConfigurationError(f"`selected` is empty; give None for all, or some of: {_named(visible)}")
    chosen = [_choose(item, visible) for item in selected]
    twice = {device.uuid for device in chosen if chosen.count(device) > 1}
    if twice:
        raise ConfigurationError(f"`selected` is {list(selected)!r}, which names {', '.join(twice)} twice")
    return chosen


def lost_cards() -> list[str]:
    """What to say of cards that are lost, which CUDA does not see and `devices` leaves out.

    Raises:
        NvmlError: There is no NVML here (``absent``), or it fails in another way.
    """
    with nvml() as session:
        cards, lost = _cards(session)
    count = len(cards) + len(lost)
    return [f"card {index} (of {count}, as in nvidia-smi): {error.text}" for index, error in lost.items()]


def one_of_each_card(found: Sequence[Device]) -> list[Device]:
    """Those that can be timed on at the same time: of the instances of one card, the first.

    They share its clock and its power, and `ciq_ray.gpu.hold.hold` holds the card.
    """
    cards: dict[str, Device] = {}
    for device in found:
        cards.setdefault(device.parent, device)
    return list(cards.values())


def _cards(session: Nvml) -> tuple[list[list[Device]], dict[int, NvmlError]]:
    """The devices of each card, in the order of the bus; and what NVML says of cards that are lost."""
    driver = session.call("nvmlSystemGetDriverVersion")
    cards, lost = [], {}
    for index in range(session.call("nvmlDeviceGetCount")):
        try:
            handle = session.call("nvmlDeviceGetHandleByIndex", index)
            cards.append(_card(session, handle, index, driver))
        except NvmlError as error:
            if error.kind != "lost":
                raise
            lost[index] = error  # CUDA does not see it either
    return sorted(cards, key=lambda card: card[0].pci), lost


def _card(session: Nvml, handle: Any, index: int, driver: str) -> list[Device]:
    parent = session.call("nvmlDeviceGetUUID", handle)
    major, minor = session.call("nvmlDeviceGetCudaComputeCapability", handle)
    pci = _text(session.call("nvmlDeviceGetPciInfo", handle).busId)

    def device(handle: Any, uuid: str, mig: bool) -> Device:
        memory = session.ask("nvmlDeviceGetMemoryInfo", handle)
        return Device(
            uuid=uuid,
            parent=parent,
            index=index,
            name=session.call("nvmlDeviceGetName", handle),
            arch=10 * major + minor,
            memory=0 if memory is None else int(memory.total),
            driver=driver,
            mig=mig,
            pci=pci,
        )

    mode = session.ask("nvmlDeviceGetMigMode", handle)
    if mode is None or not mode[0]:
        return [device(handle, parent, mig=False)]
    found = []
    for number in range(session.call("nvmlDeviceGetMaxMigDeviceCount", handle)):
        try:
            instance = session.call("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
        except NvmlError as error:
            if error.kind == "lost":
                raise
            continue  # an unused place
        found.append(device(instance, session.call("nvmlDeviceGetUUID", instance), mig=True))
    # without an instance nothing can run on it; it is shown as what it is
    return found or [device(handle, parent, mig=True)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _visible(cards: list[list[Device]]) -> list[Device]:
    """Those that ``CUDA_VISIBLE_DEVICES`` leaves, in its order."""
    every = [device for card in cards for device in card]
    wanted = settings.visible_devices()
    if wanted is None:
        return every
    found: list[Device] = []
    for item in (part.strip() for part in wanted.split(",")):
        if item.startswith("-") or not item or item == "NoDevFiles":
            break  # CUDA ignores this and what follows; "-1" is the usual way to hide all
        if item.isdigit():
            found.append(_by_ordinal(int(item), cards))
        else:
            found.append(_by_prefix(item, every, settings.ENV_VISIBLE_DEVICES))
    if len({device.uuid for device in found}) < len(found):
        raise ConfigurationError(
            f"{settings.ENV_VISIBLE_DEVICES} is {wanted!r}: it names a GPU twice, so that CUDA sees none"
        )
    return found


def _by_ordinal(ordinal: int, cards: list[list[Device]]) -> Device:
    name, wanted = settings.ENV_VISIBLE_DEVICES, settings.visible_devices()
    if ordinal >= len(cards):
        raise ConfigurationError(f"{name} is {wanted!r}, but there are {len(cards)} GPUs, 0 and up")
    # by default CUDA puts the fastest first, and what that is it keeps to itself
    if len({card[0].name for card in cards}) > 1 and not settings.pci_device_order():
        raise ConfigurationError(
            f"{name} is {wanted!r}: with GPUs of different kinds, numbers depend on what CUDA takes for the "
            "fastest; set CUDA_DEVICE_ORDER=PCI_BUS_ID as well, or use UUIDs"
        )
    return cards[ordinal][0]


def _by_prefix(text: str, among: list[Device], what: str) -> Device:
    found = [device for device in among if device.uuid == text]
    found = found or [device for device in among if device.uuid.lower().startswith(text.lower())]
    if len(found) == 1:
        return found[0]
    problem = "fits several GPUs" if found else "is no GPU of this machine"
    raise ConfigurationError(f"{what}: {text!r} {problem}; {_listed(found or among)}")


def _choose(item: int | str, visible: list[Device]) -> Device:
    if isinstance(item, str) and not item.isdigit():
        return _by_prefix(item, visible, "`selected`")
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise ConfigurationError(f"`selected` has {item!r}; a GPU is named by its position or its UUID")
    position = int(item)
    if not 0 <= position < len(visible):
        raise ConfigurationError(f"`selected`: there is no GPU {item}; {_listed(visible)}")
    return visible[position]


def _listed(found: Sequence[Device]) -> str:
    return f"there are: {_named(found)}"


def _named(found: Sequence[Device]) -> str:
    return ", ".join(f"{i}: {device.uuid} ({device.name})" for i, device in enumerate(found))
