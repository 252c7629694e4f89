"""The file that shows the results so far while a search runs."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ciq_ray._files import write_atomic
from ciq_ray._result_table import csv_header, csv_line
from ciq_ray.errors import ConfigurationError, ResultError

__all__ = ["ResultCsv"]

_ALWAYS_BELOW_S: Final = 0.05
_REST: Final = 9.0


class ResultCsv:
    """A CSV file that is replaced as a whole each time results have come in.

    A row is turned into text once, when it is added. What it ends with is what
    `SearchResult.save` writes.

    Args:
        path: The file; missing folders on the way are made.
        columns: The table's columns, `ciq_ray._result_table.table_columns`.

    Raises:
        ConfigurationError: There can be no such file.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str]) -> None:
        self.path = Path(path)
        self.count = 0
        self._columns = list(columns)
        self._chunks = [csv_header(self._columns)]
        self._lost: set[str] = set()
        self._pending = True
        self._written_at = 0.0
        self._took = 0.0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError("it is a folder")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"`dump_results` is {str(path)!r}; no file there: {error}") from error

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, as `SearchResult.rows` gives them; `count` says how many were added so far.

        Raises:
            ResultError: A row has other columns than the table.
        """
        known = len(self._lost)
        lines = []
        for row in rows:
            if list(row) != self._columns:
                raise ResultError(f"a row has the columns {list(row)}; the file has {self._columns}")
            lines.append(csv_line(self._columns, row.values(), self._lost))
        if lines:
            self.count += len(lines)
            self._chunks.append(b"".join(lines))
            self._pending = True
        if len(self._lost) > known:
            warn_lost(self._lost)

    def flush(self, *, final: bool = False) -> bool:
        """Write the file, if there is anything new.

        A file that has grown so large that writing it takes more than 50 ms is left for later while
        that would take more than a tenth of the time.

        Args:
            final: Write it in any case, and have it on the disk on return.

        Returns:
            Whether the file now has all rows.

        Raises:
            ResultError: It cannot be written. The rows are kept: a later call tries again.
        """
        if not self._pending and not final:
            return True
        now = time.monotonic()
        too_soon = now - self._written_at < _REST * self._took
        if not final and self._took > _ALWAYS_BELOW_S and too_soon:
            return False
        try:
            write_atomic(self.path, self._chunks, durable=final)
        except OSError as error:
            raise ResultError(f"cannot write the results to {str(self.path)!r}: {error}") from error
        self._written_at = time.monotonic()
        self._took = self._written_at - now
        self._pending = False
        return True


def warn_lost(types: Iterable[str]) -> None:
    """Say that some parameter values will not come back from the file as they were."""
    warnings.warn(
        f"`params` holds values that JSON has no form for ({', '.join(sorted(types))}); "
        "the file has their `repr`",
        stacklevel=3,
    )
