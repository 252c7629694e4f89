"""How a landscape is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ciq_ray._replay.recorded import Protocol
from ciq_ray.errors import ConfigurationError
from searchers.values import is_count

__all__ = ["Plan", "at_least_one"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a landscape is searched.

    Attributes:
        searcher: A name that `searchers.create` takes.
        budget: Evaluations of configurations of the file, failed ones included, re-measurements too.
        batch: How many candidates are asked for at once, all of which are told before the next are.
        noise: Draw each measurement from the recorded spread; else it is the recorded time.
        workers: Compile workers of a search in virtual time, which asks for a batch when one of them is
            free and none is left of the last; ``None`` for no time at all.
        devices: Where what they have compiled runs; only with `workers`.
        effort: See `searchers.create`.
        options: The searcher's own.
        restart: When a searcher has finished, a fresh one goes on with the next seed. It knows nothing of
            the first, and what both propose is evaluated and counted twice. Else the search ends there.
        protocol: How long an evaluation occupies a device, in virtual time.

    Raises:
        ConfigurationError: A number is not a whole one of at least 1, or nothing would be searched: `effort`
            is ``"none"``, or `searcher` is ``"finite"`` without `configs` among its `options`.
    """

    searcher: str = "auto"
    budget: int = 200
    batch: int = 1
    noise: bool = False
    workers: int | None = None
    devices: int = 1
    effort: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    restart: bool = True
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        for name in ("budget", "batch", "devices", "workers"):
            if name != "workers" or self.workers is not None:
                object.__setattr__(self, name, at_least_one(name, getattr(self, name)))
        if self.devices > 1 and self.workers is None:
            raise ConfigurationError(
                f"`devices` is {self.devices}, but without `workers` there is no virtual time; give both"
            )

        if self.effort == "none":
            raise ConfigurationError(
                "`effort` is 'none', which evaluates a space's default configuration alone, and a landscape "
                "has none; use 'quick' or 'full'"
            )
        if self.searcher == "finite" and "configs" not in self.options:
            raise ConfigurationError(
                "`searcher` is 'finite', which evaluates only what its option `configs` lists; use another "
                "one, or give `options` with `configs` from Python"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {name: getattr(self, name) for name in ("searcher", "budget", "batch", "noise", "workers")}
        plain |= {name: getattr(self, name) for name in ("devices", "effort", "restart")}
        return {**plain, "options": dict(self.options)}


def at_least_one(name: str, value: Any) -> int:
    """`value`, a whole number of at least 1.

    Raises:
        ConfigurationError: It is not.
    """
    if not is_count(value):
        raise ConfigurationError(f"`{name}` is {value!r}; it must be a whole number of at least 1")
    return int(value)
