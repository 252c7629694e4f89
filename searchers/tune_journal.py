"""A journal of what Ray Tune's trials returned: a file of JSON lines, one for each result.

The first line says which space it is of. Each further one is
``{"trial", "row", "config", "outcome"}``: Ray Tune's id of the trial, the configuration as a row of the
space's integer matrix and as people read it, and the fields of its `Outcome`. A later line for a row
replaces an earlier one. Losing power costs at most the line being written: a torn last line is cut off.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchers.encoding import Matrix
from searchers.errors import OptionError, SearcherError, StateError
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.state import rows_of

__all__ = ["TuneJournal", "read_results"]

logger = logging.getLogger(__name__)

VERSION = 1


class TuneJournal:
    """The file at `path`, which is opened for each line only, so that a searcher can be pickled.

    Args:
        path: It need not exist.

    Raises:
        OptionError: Its folder does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if not self.path.parent.is_dir():
            raise OptionError(f"`path` is {str(path)!r}; its folder does not exist, so make it first")
        self._read = 0  # bytes

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_read": 0}  # what unpickles it may know less than it does now

    def rewind(self) -> None:
        """Have `unread` begin with the first result again."""
        self._read = 0

    def append(self, space: Space, results: Sequence[tuple[str, Matrix, Outcome]]) -> None:
        """Write results, each with its trial's id, and return when they are on the disk.

        Raises:
            OSError: They could not be written.
        """
        size = self._size()
        lines: list[dict[str, Any]] = [] if size else [{"version": VERSION, "space": space.fingerprint}]
        for trial_id, row, outcome in results:
            config = space.decode(row)
            lines.append(
                {"trial": trial_id, "row": row.tolist(), "config": config, "outcome": outcome.to_dict()}
            )
        data = "".join(json.dumps(line, default=repr) + "\n" for line in lines).encode()
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if self._read == size:
            self._read += len(data)

    def unread(self, space: Space, n_objectives: int) -> list[tuple[Matrix, Outcome]]:
        """The results that were neither written nor read by this object, the last one of each row.

        Raises:
            StateError: The file is not such a journal, or is of another space or number of objectives.
        """
        size = self._size()
        if size <= self._read:
            return []
        with self.path.open("rb") as file:
            lines = file.readlines()
        results: dict[tuple[int, ...], tuple[Matrix, Outcome]] = {}
        position = 0
        for number, line in enumerate(lines):
            position += len(line)
            if position <= self._read:
                continue
            try:
                data = json.loads(line)
                if number == 0:
                    self._check_header(data, space)
                    continue
                row = rows_of("row", [data["row"]], space)[0]
                outcome = Outcome.from_dict(data["outcome"])
                if outcome.ok and len(outcome.values) != n_objectives:
                    raise StateError(f"{len(outcome.values)} values for {n_objectives} objectives")
            except (KeyError, TypeError, ValueError, SearcherError) as error:
                raise StateError(f"the journal {str(self.path)!r}, line {number + 1}: {error}") from error
            results[tuple(row.tolist())] = (row, outcome)
        self._read = size
        return list(results.values())

    def _size(self) -> int:
        """The length of the file in bytes, without a torn last line, which is cut off."""
        if not self.path.exists():
            self._read = 0
            return 0
        size = self.path.stat().st_size
        if size == self._read:
            return size
        with self.path.open("rb+") as file:
            whole = file.read().rfind(b"\n") + 1
            if whole < size:
                logger.warning("%s: cut off a torn last line of %d bytes", self.path, size - whole)
                file.truncate(whole)
        return whole

    def _check_header(self, data: Any, space: Space) -> None:
        for name, value in {"version": VERSION, "space": space.fingerprint}.items():
            if not isinstance(data, dict) or data.get(name) != value:
                found = data.get(name) if isinstance(data, dict) else data
                raise StateError(f"`{name}` is {found!r}, but here it is {value!r}; give another file")


def read_results(path: str | os.PathLike[str]) -> list[tuple[str, Any, Outcome]]:
    """The results in a journal, for those who have no space: trial, configuration and outcome.

    Of several for one configuration the last one counts, in the place of the first; a torn last line is
    left out.

    Raises:
        StateError: The file cannot be read or is not such a journal.
    """
    results: dict[tuple[int, ...], tuple[str, Any, Outcome]] = {}
    number = 0
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                data = json.loads(line)
                if number == 1:
                    if data["version"] != VERSION:
                        raise StateError(f"`version` is {data['version']!r}, but here it is {VERSION}")
                    continue
                outcome = Outcome.from_dict(data["outcome"])
                results[tuple(data["row"])] = (data["trial"], data["config"], outcome)
    except (OSError, KeyError, TypeError, ValueError, SearcherError) as error:
        raise StateError(f"the journal {str(path)!r}, line {number}: {error}") from error
    return list(results.values())
