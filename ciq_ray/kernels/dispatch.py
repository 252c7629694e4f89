"""Which configuration for which shape: a table of few entries out of a search over several shapes.

A library that is called with many shapes does not want a configuration for each: every entry is a binary
more to compile, ship and choose from. `DispatchTable.of` picks the at most k configurations that, with the
best of them for each shape, lose least against having all.
"""

from __future__ import annotations

import json
import math
import os
import pprint
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.run_times import times_of
from ciq_ray.kernels.selection import choose

if TYPE_CHECKING:
    from ciq_ray.results import SearchResult

__all__ = ["DispatchTable"]

FORMAT: Final = "ciq-dispatch-table"
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class DispatchTable:
    """A configuration for each shape, out of few.

    Attributes:
        configs: The configurations, no two alike, the one of most shapes first.
        ids: Their candidates' ids in the run.
        entries: For each shape by name the place of its configuration in `configs`.
        times_ms: Median time of that configuration on each shape, in milliseconds.
        best_ms: That of the fastest configuration of the run on each shape.
        best_ids: Who that is.
        exact: Whether no other selection of as many is better; else it was found by exchange.
    """

    configs: tuple[Any, ...]
    ids: tuple[str, ...]
    entries: Mapping[str, int]
    times_ms: Mapping[str, float]
    best_ms: Mapping[str, float]
    best_ids: Mapping[str, str]
    exact: bool

    @classmethod
    def of(cls, run: SearchResult | str | os.PathLike[str], entries: int = 3) -> Self:
        """Choose from what a search has measured, by its journal.

        Minimises the geometric mean over shapes of a shape's time divided by its best time. Up to 200,000
        selections of configurations that no other beats on all shapes are tried, which is exact; beyond,
        it begins with the best single one, adds the one that helps most until there are `entries`, and
        then exchanges one for another as long as that helps (Teitz and Bart, "Heuristic Methods for
        Estimating the Generalized Vertex Median of a Weighted Graph", 1968). An entry that gains nothing is
        left out. A configuration that failed on one shape has failed, and is not in a table.

        The times are those of the search, the fastest of many: race a table's entries against what is in
        use before it ships.

        Args:
            run: The result of a search, a run's folder or its number.
            entries: The most configurations.

        Raises:
            ConfigurationError: `entries` is below 1, or the run has no times by shape.
            JournalError: There is no such run, or its journal cannot be read.
        """
        configs, times = times_of(run)
        return cls.from_times(configs, times, entries)

    @classmethod
    def from_times(
        cls, configs: Mapping[str, Any], times: Mapping[str, Mapping[str, float]], entries: int = 3
    ) -> Self:
        """Choose from times given.

        Args:
            configs: Configurations by id.
            times: For each id milliseconds by shape; every shape in each.
            entries: The most configurations.

        Raises:
            ConfigurationError: `entries` is below 1, or there are no times.
        """
        import numpy as np

        if not isinstance(entries, int) or isinstance(entries, bool) or entries < 1:
            raise ConfigurationError(f"`entries` is {entries!r}; it must be a whole number, at least 1")
        ids = list(times)
        if not ids or not times[ids[0]]:
            raise ConfigurationError("there are no times by shape to choose from")
        shapes = list(times[ids[0]])
        matrix = np.array([[times[name][shape] for shape in shapes] for name in ids])
        if not (np.isfinite(matrix).all() and (matrix > 0).all()):
            raise ConfigurationError("a time is not a number above 0; leave out what has failed")
        best = matrix.min(axis=0)
        selection, exact = choose(np.log(matrix / best), entries)
        nearest = matrix[selection].argmin(axis=0)
        used, counts = np.unique(nearest, return_counts=True)
        # stable: of two with as many shapes the one that was tried first
        order = [int(place) for place in used[np.argsort(-counts, kind="stable")]]
        place_of = {place: number for number, place in enumerate(order)}
        chosen = [selection[place] for place in order]
        first = matrix.argmin(axis=0)
        return cls(
            configs=tuple(configs[ids[row]] for row in chosen),
            ids=tuple(ids[row] for row in chosen),
            entries={shape: place_of[int(nearest[at])] for at, shape in enumerate(shapes)},
            times_ms={
                shape: float(matrix[selection[int(nearest[at])], at]) for at, shape in enumerate(shapes)
            },
            best_ms={shape: float(best[at]) for at, shape in enumerate(shapes)},
            best_ids={shape: ids[int(first[at])] for at, shape in enumerate(shapes)},
            exact=exact,
        )

    # --- what it costs, and how it is asked ---

    @property
    def regret(self) -> dict[str, float]:
        """What each shape loses against its best, as a fraction of the best time: 0.02 is 2% slower."""
        return {shape: self.times_ms[shape] / self.best_ms[shape] - 1 for shape in self.entries}

    @property
    def mean_regret(self) -> float:
        """The same over all shapes: their geometric mean ratio, less 1."""
        ratios = [self.times_ms[shape] / self.best_ms[shape] for shape in self.entries]
        return statistics.geometric_mean(ratios) - 1

    def lookup(self, shape: str | float | Sequence[float]) -> Any:
        """The configuration for a shape.

        Args:
            shape: Its name, or the numbers in it: ``"4096x4096"``, ``(4096, 4096)``. One that is not in
                the table gets the configuration of the nearest that is, by the Euclidean distance of the
                logarithms of the numbers; of two as near, the first.

        Raises:
            ConfigurationError: It is not in the table, and no shape in it has as many numbers.
        """
        if isinstance(shape, str) and shape in self.entries:
            return self.configs[self.entries[shape]]
        wanted = _numbers_in(shape)
        known = {name: numbers for name in self.entries if (numbers := _numbers_in(name))}
        near = {name: _distance(wanted, n) for name, n in known.items() if len(n) == len(wanted) and wanted}
        if not near:
            raise ConfigurationError(
                f"`shape` is {shape!r}, which is not in the table and has nothing near in it; it has "
                f"{', '.join(map(repr, self.entries))}"
            )
        return self.configs[self.entries[min(near, key=near.__getitem__)]]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each shape: its name, entry, candidate, times in milliseconds and regret."""
        regret = self.regret
        return [
            {
                "shape": shape,
                "entry": entry,
                "id": self.ids[entry],
                "ms": self.times_ms[shape],
                "best_ms": self.best_ms[shape],
                "best_id": self.best_ids[shape],
                "regret": regret[shape],
            }
            for shape, entry in self.entries.items()
        ]

    def table(self) -> str:
        """For people: the entries, and what each shape loses with its own."""
        header = ("shape", "entry", "ms", "best ms", "best", "regret")
        lines = [
            (
                row["shape"] or "(the only one)",
                str(row["entry"]),
                f"{row['ms']:.4g}",
                f"{row['best_ms']:.4g}",
                row["best_id"],
                f"{row['regret']:.1%}",
            )
            for row in self.rows()
        ]
        widths = [max(len(line[at]) for line in (header, *lines)) for at in range(len(header))]
        text = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in (header, *lines)
        ]
        text.append("")
        text += [
            f"entry {place}: candidate {name}: {_shown(config)}"
            for place, (name, config) in enumerate(zip(self.ids, self.configs, strict=True))
        ]
        how = "no other choice of as many loses less" if self.exact else "found by exchange"
        text.append(f"in all: {self.mean_regret:.2%} slower than the best for each shape ({how})")
        return "\n".join(text)

    # --- as a file, as source ---

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "format": FORMAT,
            "version": 1,
            "configs": list(self.configs),
            "ids": list(self.ids),
            "entries": dict(self.entries),
            "times_ms": dict(self.times_ms),
            "best_ms": dict(self.best_ms),
            "best_ids": dict(self.best_ids),
            "exact": self.exact,
        }

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ConfigurationError: It is no dispatch table.
        """
        try:
            if data["format"] != FORMAT or data["version"] != 1:
                raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
            configs = tuple(data["configs"])
            entries = {str(shape): int(place) for shape, place in data["entries"].items()}
            times, best = (
                {shape: float(data[name][shape]) for shape in entries} for name in ("times_ms", "best_ms")
            )
            if not entries or not all(0 <= place < len(configs) for place in entries.values()):
                raise ValueError("an entry that is not there")
            if not all(0 < value < math.inf for value in (*times.values(), *best.values())):
                raise ValueError("a time that is not a number above 0")
            return cls(
                configs,
                tuple(map(str, data["ids"])),
                entries,
                times,
                best,
                {shape: str(data["best_ids"][shape]) for shape in entries},
                bool(data["exact"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"not a dispatch table ({type(error).__name__}: {error}); `DispatchTable.save` writes one"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON.

        Raises:
            OSError: The file cannot be written.
        """
        from ciq_ray._files import write_atomic

        return write_atomic(path, [self.to_json().encode(), b"\n"])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            ConfigurationError: The file is no dispatch table.
            OSError: It cannot be read.
        """
        try:
            data = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{str(path)!r} is not JSON: {error}") from error
        return cls.from_dict(data)

    def as_python(self) -> str:
        """Source to paste: the table, and a function that asks it, without a dependency.

        The function does what `lookup` does, with the numbers of a shape as its arguments.
        """
        keys = {shape: tuple(_numbers_in(shape)) for shape in self.entries}
        lengths = {len(numbers) for numbers in keys.values()}
        numeric = lengths != {0} and len(lengths) == 1 and len(set(keys.values())) == len(keys)
        table = {keys[shape] if numeric else shape: place for shape, place in self.entries.items()}
        configs = pprint.pformat(list(self.configs), width=100, sort_dicts=False)
        parts = [
            f"# {len(self.configs)} configurations for {len(self.entries)} shapes, in all "
            f"{self.mean_regret:.2%} slower than the best for each",
            f"CONFIGS = {configs}",
            f"TABLE = {pprint.pformat(table, width=100, sort_dicts=False)}",
        ]
        head = ["import math", ""] if numeric else []
        return "\n".join([*head, *parts, "", "", _NUMERIC if numeric else _NAMED, ""])


_NUMERIC: Final = '''\
def config_for(*shape):
    """The configuration for a shape, or of the nearest in the table by the distance of logarithms."""
    if shape in TABLE:
        return CONFIGS[TABLE[shape]]
    near = min(TABLE, key=lambda known: sum(math.log(a / b) ** 2 for a, b in zip(known, shape, strict=True)))
    return CONFIGS[TABLE[near]]'''

_NAMED: Final = '''\
def config_for(shape):
    """The configuration for a shape."""
    return CONFIGS[TABLE[shape]]'''


def _numbers_in(shape: str | float | Sequence[float]) -> list[float]:
    """The numbers in a shape; integers stay integers."""
    if isinstance(shape, str):
        found: list[float] = [float(text) if "." in text else int(text) for text in _NUMBER.findall(shape)]
    else:
        found = [shape] if isinstance(shape, (int, float)) else list(shape)
    return found if all(number > 0 for number in found) else []


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return math.hypot(*(math.log(a / b) for a, b in zip(one, other, strict=True)))


def _shown(config: Any) -> str:
    return config if isinstance(config, str) else json.dumps(config, default=repr, ensure_ascii=False)
