"""Columns of numbers from CSV files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from ciq_ray.errors import ConfigurationError

__all__ = ["read_column"]

_MOST_BYTES = 256 << 20


def read_column(path: Path, name: str | None = None) -> list[float]:
    """The numbers in one column of a CSV file.

    Args:
        path: The file, with or without a header line. Rows whose ``status`` is not ``ok`` are left out.
        name: The column; by default ``score`` if there is one, else the only column that has numbers.

    Raises:
        ConfigurationError: The file cannot be read, has no such column, or a cell is no number.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(
                f"{path} has more than {_MOST_BYTES >> 20} MiB: no table of measurements"
            )
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read as CSV: {error}") from error
    if not rows:
        raise ConfigurationError(f"{path} is empty")
    header = [cell.strip() for cell in rows[0][1]]
    if any(_number(cell) is not None for cell in header):
        if name is not None:
            raise ConfigurationError(f"{path} has no header line, so that there is no column {name!r}")
        header = [str(i) for i in range(len(header))]
    else:
        rows = rows[1:]
    if "status" in header:
        place = header.index("status")
        rows = [(number, row) for number, row in rows if len(row) > place and row[place] == "ok"]
    place = _place(path, header, [row for _, row in rows], name)
    values = []
    for number, row in rows:
        value = _number(row[place]) if place < len(row) else None
        if value is None:
            shown = row[place] if place < len(row) else ""
            raise ConfigurationError(f"{path}, line {number}: {shown!r} is not a number")
        values.append(value)
    return values


def _place(path: Path, header: list[str], rows: list[list[str]], name: str | None) -> int:
    wanted = name if name is not None else "score" if "score" in header else None
    if wanted is not None:
        if wanted not in header:
            raise ConfigurationError(f"{path} has no column {wanted!r}; it has {', '.join(header)}")
        return header.index(wanted)
    numeric = [
        place
        for place in range(len(header))
        if rows and all(place < len(row) and _number(row[place]) is not None for row in rows)
    ]
    if len(numeric) != 1:
        raise ConfigurationError(
            f"{path} has {len(numeric)} columns of numbers; name one of {', '.join(header)} with --column"
        )
    return numeric[0]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
