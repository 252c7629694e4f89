"""Recorded tuning spaces, for searches without the hardware."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchers import Choice, Space

__all__ = ["FOLDER", "Landscape", "load", "names"]

FOLDER = Path(__file__).resolve().parent / "landscapes"
_MEASURED = ("status", "time_ms", "std_ms", "compile_s")


@dataclass(frozen=True)
class Landscape:
    """A whole tuning space with what every configuration did.

    Attributes:
        name: Of the file.
        space: All recorded rows, failed ones included; others break a static constraint.
        parameters: Names, in the order of the keys below.
        times: Milliseconds by configuration, ``None`` where it failed.
        deviations: Standard deviation of a single measurement in milliseconds, by configuration.
    """

    name: str
    space: Space
    parameters: tuple[str, ...]
    times: dict[tuple[Any, ...], float | None]
    deviations: dict[tuple[Any, ...], float]

    @property
    def optimum(self) -> float:
        """The lowest recorded time."""
        return min(time for time in self.times.values() if time is not None)

    def key(self, config: dict[str, Any]) -> tuple[Any, ...]:
        """A configuration's key in `times`."""
        return tuple(config[name] for name in self.parameters)


def names() -> list[str]:
    """All landscapes there are."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load(name: str) -> Landscape:
    """Read one landscape."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parameters = tuple(column for column in rows[0] if column not in _MEASURED)
    times: dict[tuple[Any, ...], float | None] = {}
    deviations: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = tuple(_value(row[column]) for column in parameters)
        times[key] = float(row["time_ms"]) if row["status"] == "ok" else None
        deviations[key] = float(row["std_ms"] or 0.0) if row["status"] == "ok" else 0.0
    values = {
        column: list(dict.fromkeys(key[place] for key in times)) for place, column in enumerate(parameters)
    }
    known = frozenset(times)
    space = Space(
        {column: Choice(choices) for column, choices in values.items()},
        [_Recorded(parameters, known)] if len(times) < _product(values) else [],
    )
    return Landscape(name, space, parameters, times, deviations)


class _Recorded:
    """Whether a configuration is in the file."""

    def __init__(self, parameters: tuple[str, ...], known: frozenset[tuple[Any, ...]]) -> None:
        self._parameters, self._known = parameters, known

    def __call__(self, config: dict[str, Any]) -> bool:
        return tuple(config[name] for name in self._parameters) in self._known


def _product(values: dict[str, list[Any]]) -> int:
    product = 1
    for choices in values.values():
        product *= len(choices)
    return product


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
