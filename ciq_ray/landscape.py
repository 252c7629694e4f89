"""Recorded tuning spaces: what every configuration did, so that searches need no hardware.

A landscape is a CSV file: a column for each parameter, and ``status,time_ms,std_ms,compile_s``. A
configuration that is not in the file breaks a static constraint. ``docs/replay.md`` describes the form.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ciq_ray.errors import ConfigurationError
from searchers import FAILURES, Choice, Space
from searchers.outcome import OK

__all__ = ["MEASURED", "Key", "Landscape", "aggregate"]

Floats = npt.NDArray[np.float64]
Key = tuple[Any, ...]

MEASURED: Final = ("status", "time_ms", "std_ms", "compile_s")
"""The columns that are not parameters."""
CACHE_HIT_S: Final = 0.01
"""A compilation that took less was answered by the compiler's cache."""
FIRST_BUDGET: Final = 10
"""Aggregate scores begin here; before, all searches are still random."""
_NEGLIGIBLE: Final = 1e-200
_MOST_TEXT: Final = 9_000
"""Characters of an expression that excludes pairs of values; `searchers` reads at most 10,000."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """A whole tuning space with what every configuration did; `load` reads one.

    All arrays have an element for each row of the file, in its order.

    Attributes:
        name: Of the file, without its suffix.
        parameters: Names of the parameters, in the order of the keys.
        keys: The values of the parameters.
        statuses: ``"ok"``, or how the configuration failed (`searchers.FAILURES`).
        times: Milliseconds; NaN where it failed.
        deviations: Standard deviation of one measurement in milliseconds; 0 where it is not known.
        compile_s: Seconds one core took to compile it. For cache hits, and where the file says nothing,
            the median of the others.
        space: All configurations of the file; any other breaks a constraint.
    """

    name: str
    parameters: tuple[str, ...]
    keys: tuple[Key, ...]
    statuses: tuple[str, ...]
    times: Floats
    deviations: Floats
    compile_s: Floats
    space: Space
    _places: dict[Key, int] = field(repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Landscape:
        """Read a file.

        Numbers in a column of nothing but numbers are numbers, and ordered; anything else is text.

        Raises:
            ConfigurationError: The file cannot be read, or is no landscape; the message has the line.
        """
        path = Path(path)
        header, lines = _read(path)
        missing = [name for name in MEASURED if name not in header]
        if missing:
            raise ConfigurationError(
                f"{path} has no column {missing[0]!r}; a landscape has parameters and {', '.join(MEASURED)}"
            )
        places = {name: place for place, name in enumerate(header)}
        parameters = tuple(name for name in header if name not in MEASURED)
        if not parameters:
            raise ConfigurationError(f"{path} has no parameters, only {', '.join(header)}")
        columns = [_values([row[places[name]] for _, row in lines]) for name in parameters]
        keys = tuple(zip(*columns, strict=True))
        known: dict[Key, int] = {}
        for place, key in enumerate(keys):
            if known.setdefault(key, place) != place:
                raise ConfigurationError(
                    f"{path}, line {lines[place][0]}: the configuration of line {lines[known[key]][0]} again"
                )
        measured = [
            _measurement(f"{path}, line {number}", {name: row[places[name]] for name in MEASURED})
            for number, row in lines
        ]
        statuses = tuple(status for status, *_ in measured)
        if OK not in statuses:
            raise ConfigurationError(f"{path} has no row whose `status` is {OK!r}: there is nothing to find")
        times, deviations, compile_s = np.array([numbers for _, *numbers in measured]).T
        return cls(
            name=path.stem,
            parameters=parameters,
            keys=keys,
            statuses=statuses,
            times=times,
            deviations=deviations,
            compile_s=_without_cache_hits(compile_s),
            space=_space(parameters, keys, known),
            _places=known,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def optimum(self) -> float:
        """The lowest time, in milliseconds."""
        return float(np.nanmin(self.times))

    @property
    def worst(self) -> float:
        """The highest time, in milliseconds, which is also what a failure counts."""
        return float(np.nanmax(self.times))

    def find(self, key: Key) -> int | None:
        """The row with these values of the parameters; ``None``: they break a static constraint."""
        return self._places.get(key)

    def row(self, config: Mapping[str, Any]) -> int:
        """The row of a configuration.

        Raises:
            ConfigurationError: It is not in the file.
        """
        row = self.find(tuple(config[name] for name in self.parameters))
        if row is None:
            raise ConfigurationError(f"`config` is {config!r}, which is not in {self.name}")
        return row

    def expected_best(self, most: int) -> Floats:
        """What random search has found after 1, 2, ... `most` evaluations, on average and exactly.

        It draws without replacement from all rows; a failure counts as the worst time. With the times
        sorted, the best of B draws is later than row i with the probability
        ``C(n - i - 1, B) / C(n, B)``; going from B to B + 1 multiplies that by
        ``(n - i - 1 - B) / (n - B)``, so that nothing is ever large or subtracted.

        Args:
            most: The largest budget, from 1 to the number of rows.

        Returns:
            Milliseconds, shape (most,).

        Raises:
            ConfigurationError: `most` is out of range.
        """
        rows = len(self)
        if not 1 <= most <= rows:
            raise ConfigurationError(f"`most` is {most}; {self.name} has 1 to {rows} evaluations")
        ordered = np.sort(np.where(np.isnan(self.times), self.worst, self.times))
        gaps = np.diff(ordered)
        left = np.arange(rows - 1, 0, -1)  # rows later than each
        later = np.ones(rows - 1)
        expected = np.empty(most)
        for budget in range(most):
            later *= np.maximum(left - budget, 0) / (rows - budget)
            # it falls from row to row; what is below any rounding goes before it gets denormal, and slow
            hopeful = int(np.searchsorted(-later, -_NEGLIGIBLE))
            later, left, gaps = later[:hopeful], left[:hopeful], gaps[:hopeful]
            expected[budget] = ordered[0] + (gaps * later).sum()
        return expected

    def scores(self, best: npt.ArrayLike) -> Floats:
        """How good a search was: 0 is random search, 1 the optimum, less than 0 worse than random.

        Args:
            best: The time in milliseconds that the search has to show after 1, 2, ... evaluations, NaN
                where it has none; shape (..., evaluations), at most as many as there are rows.

        Returns:
            ``(R - best) / (R - optimum)`` with R from `expected_best`, in the shape of `best`.
        """
        found = np.where(np.isnan(best), self.worst, best)
        expected = self.expected_best(found.shape[-1])
        gain = expected - self.optimum
        # where even random search is sure of the optimum there is nothing to gain
        return np.where(gain > 0, (expected - found) / np.where(gain > 0, gain, 1.0), 1.0)


def aggregate(scores: Floats) -> Floats:
    """The mean score over the budgets 10, 11, ... B, for scores at 1, 2, ... B; NaN if B is below 10."""
    if scores.shape[-1] < FIRST_BUDGET:
        return np.full(scores.shape[:-1], math.nan)
    return np.asarray(scores[..., FIRST_BUDGET - 1 :].mean(axis=-1))


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and the rows with the number of the line they end on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read as CSV: {error}") from error
    if len(lines) < 2:
        what = "has a header and no rows" if lines else "is empty"
        raise ConfigurationError(f"{path} {what}; a landscape has a row for each configuration")
    (_, header), *rows = lines
    for place, name in enumerate(header):
        if not name or name in header[:place]:
            what = f"the column {name!r} twice" if name else f"no name for column {place + 1}"
            raise ConfigurationError(f"{path}, line 1 has {what}")
    for number, row in rows:
        if len(row) != len(header):
            raise ConfigurationError(
                f"{path}, line {number} has {len(row)} columns; the header has {len(header)}"
            )
    return header, rows


def _values(cells: Sequence[str]) -> list[Any]:
    """A column of parameters: whole numbers if all are, numbers if all are, else text."""
    for kind in (int, float):
        try:
            numbers = {cell: kind(cell) for cell in set(cells)}
        except ValueError:
            continue
        if all(map(math.isfinite, numbers.values())):
            return [numbers[cell] for cell in cells]
    return list(cells)


def _measurement(where: str, cells: Mapping[str, str]) -> tuple[str, float, float, float]:
    """Status, time, deviation and seconds of compiling; NaN for what is not known."""
    status = cells["status"]
    if status not in (OK, *FAILURES):
        raise ConfigurationError(
            f"{where}: `status` is {status!r}; it must be one of {', '.join((OK, *FAILURES))}"
        )
    numbers = {}
    for name in MEASURED[1:]:
        try:
            numbers[name] = float(cells[name] or "nan")
        except ValueError as error:
            raise ConfigurationError(f"{where}: `{name}` is {cells[name]!r}, which is no number") from error
        if cells[name] and not (math.isfinite(numbers[name]) and numbers[name] >= 0):
            raise ConfigurationError(
                f"{where}: `{name}` is {cells[name]!r}; it must be a finite number of at least 0, or empty"
            )
    if status == OK and not numbers["time_ms"] > 0:
        raise ConfigurationError(
            f"{where}: `time_ms` is {cells['time_ms']!r}; where `status` is {OK!r} it must be more than 0"
        )
    time = numbers["time_ms"] if status == OK else math.nan
    deviation = 0.0 if math.isnan(numbers["std_ms"]) or status != OK else numbers["std_ms"]
    return status, time, deviation, numbers["compile_s"]


def _without_cache_hits(seconds: Floats) -> Floats:
    """Compile times with the median of the real ones for cache hits and gaps; 0 if there is none."""
    real = seconds >= CACHE_HIT_S
    typical = float(np.median(seconds[real])) if real.any() else 0.0
    return np.where(real, seconds, typical)


# -- the space ------------------------------------------------------------------------------------


class _Recorded:
    """The constraint that a configuration is in the file.

    Attributes:
        fingerprint: Of the rows, for the fingerprint of the space.
    """

    def __init__(self, parameters: tuple[str, ...], keys: Mapping[Key, int]) -> None:
        self._parameters, self._keys = parameters, keys
        text = repr((parameters, sorted(map(repr, keys))))
        self.fingerprint = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def __call__(self, config: Mapping[str, Any]) -> bool:
        return tuple(config[name] for name in self._parameters) in self._keys


def _space(parameters: tuple[str, ...], keys: tuple[Key, ...], known: Mapping[Key, int]) -> Space:
    columns = [list(dict.fromkeys(column)) for column in zip(*keys, strict=True)]
    constraints: list[Any] = []
    if len(keys) < math.prod(map(len, columns)):
        # a function has to be called for each row that the expressions before it have left
        constraints = [*_pairs(parameters, columns, keys), _Recorded(parameters, known)]
    return Space(
        {name: Choice(values) for name, values in zip(parameters, columns, strict=True)}, constraints
    )


def _pairs(parameters: tuple[str, ...], columns: Sequence[Sequence[Any]], keys: Sequence[Key]) -> list[str]:
    """What the rows imply for each two parameters, as expressions."""
    if "config" in parameters:
        return []  # in an expression that name is the parameter, and no longer the whole configuration
    levels = []
    for values, column in zip(columns, zip(*keys, strict=True), strict=True):
        number = {value: level for level, value in enumerate(values)}
        levels.append(np.array([number[value] for value in column]))
    found = []
    for first, second in itertools.combinations(range(len(parameters)), 2):
        together = np.zeros((len(columns[first]), len(columns[second])), dtype=bool)
        together[levels[first], levels[second]] = True
        if together.all():
            continue
        one, other = (f"config[{parameters[place]!r}]" for place in (first, second))
        partners = [[v for v, may in zip(columns[second], row, strict=True) if may] for row in together]
        text = " or ".join(
            f"{one} == {value!r} and {other} in {others!r}"
            for value, others in zip(columns[first], partners, strict=True)
        )
        if len(text) <= _MOST_TEXT:
            found.append(text)
    return found
