"""``ciq gpu``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ciq_ray.cli.common import FAILED, Json, clean_errors, print_json
from ciq_ray.errors import CiqError

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device

__all__ = ["gpu"]

Which = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[GPU]...",
        help="Positions among the visible GPUs, or UUIDs or their beginnings; by default all.",
        show_default=False,
    ),
]

gpu = typer.Typer(no_args_is_help=True, help="Look at GPUs, and undo what was left set on them.")


@gpu.command(short_help="Show GPUs as they are now.")
def status(which: Which = None, as_json: Json = False) -> None:
    """Show GPUs as they are now: clocks, power, event reasons, who uses and holds them. Changes nothing."""
    from ciq_ray.gpu.devices import LOST_ADVICE, lost_cards
    from ciq_ray.gpu.preflight import preflight

    with clean_errors():
        seen = [preflight(device) for device in _devices(which)]
        for text in lost_cards():
            print(f"warning: {text}; {LOST_ADVICE}", file=sys.stderr)
    if as_json:
        print_json([{**one.to_dict(), "lines": one.lines()} for one in seen])
        return
    for position, one in enumerate(seen):
        first, *rest = one.lines()
        print("\n  ".join([f"{position}: {first}", *rest]))


@gpu.command(short_help="Say what setting clocks would do.")
def plan(
    which: Which = None,
    clock: Annotated[
        str | None, typer.Option(metavar="MHZ|base", help="Core clock: a number, or the base clock.")
    ] = None,
    mem_clock: Annotated[int | None, typer.Option(metavar="MHZ", help="Memory clock.")] = None,
    power: Annotated[int | None, typer.Option(metavar="W", help="Power limit.")] = None,
    sudo: Annotated[bool, typer.Option("--sudo", help="With sudo -n where root is needed.")] = False,
    as_json: Json = False,
) -> None:
    """Say what setting clocks would do, step by step, and whether it seems to be allowed. Changes nothing."""
    from ciq_ray.gpu.clocks import Clocks
    from ciq_ray.gpu.preflight import plan as planned

    with clean_errors():
        clocks = Clocks(int(clock) if clock and clock.isdigit() else clock, mem_clock, power)
        plans = {
            device.uuid: planned(device, clocks, fallback="sudo" if sudo else "none")
            for device in _devices(which)
        }
    if as_json:
        print_json(plans)
        return
    for uuid, lines in plans.items():
        print("\n  ".join([uuid, *lines]))


@gpu.command(short_help="Undo what processes that are gone have left set.")
def release(
    which: Which = None,
    as_json: Json = False,
) -> None:
    """Undo what processes that are gone have left set on GPUs: locked clocks, power limits.

    The next search on the GPU does the same by itself. Exit status 1: something could not be undone, mostly
    for lack of permission.
    """
    from ciq_ray.gpu.hold import recover
    from ciq_ray.gpu.ledger import ledgers

    done: list[str] = []
    failed: list[str] = []
    with clean_errors():
        left = [ledger.uuid for ledger in ledgers()]
        for uuid in _cards(which, left) if which else left:
            try:
                done += recover(uuid)
            except CiqError as error:
                failed.append(f"GPU {uuid}: {error}")
    if as_json:
        print_json({"done": done, "failed": failed})
    else:
        for line in done or ([] if failed else ["nothing was left set"]):
            print(line)
        for line in failed:
            print(f"error: {line}", file=sys.stderr)
    if failed:
        raise typer.Exit(FAILED)


def _cards(which: list[str], left: list[str]) -> list[str]:
    """UUIDs of cards, also of those that something was left set on and that are not visible."""
    found = []
    for name in which:
        known = [uuid for uuid in left if uuid.lower().startswith(name.lower())]
        found += known or [device.parent for device in _devices([name])]
    return list(dict.fromkeys(found))


def _devices(which: list[str] | None) -> list[Device]:
    from ciq_ray.gpu.devices import devices

    return devices(which or None)
