"""Saved state: in a file, the old or the new but never half of it; and the checks of what is read back."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from searchers.encoding import Matrix
from searchers.errors import StateError
from searchers.outcome import Outcome
from searchers.space import Space
from searchers.trial import Trial

__all__ = [
    "all_or_nothing",
    "flag",
    "positions",
    "read_state",
    "rows_of",
    "trials_of",
    "whole",
    "write_state",
]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Replace the file at `path`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_state(path: Path) -> Any:
    """What `write_state` wrote.

    Raises:
        StateError: The file cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"cannot read the searcher state {str(path)!r}: {error}") from error


@contextlib.contextmanager
def all_or_nothing(owner: object) -> Iterator[None]:
    """Put the attributes of `owner` back if they cannot all be replaced.

    Raises:
        StateError: In place of whatever was raised inside.
    """
    before = dict(vars(owner))
    try:
        yield
    except BaseException as error:
        vars(owner).clear()
        vars(owner).update(before)
        if not isinstance(error, Exception):
            raise
        raise StateError(f"the saved state is damaged ({type(error).__name__}: {error})") from error


def whole(name: str, value: Any, most: int | None = None) -> int:
    """`value`, which must be a whole number from 0 to `most`.

    Raises:
        StateError: It is not.
    """
    if type(value) is not int or value < 0 or (most is not None and value > most):
        limit = "of at least 0" if most is None else f"from 0 to {most}"
        raise StateError(f"`{name}` is {value!r}; it must be a whole number {limit}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value`, which must be true or false.

    Raises:
        StateError: It is not.
    """
    if not isinstance(value, bool):
        raise StateError(f"`{name}` is {value!r}; it must be true or false")
    return value


def positions(name: str, values: Any, count: int, *, once: bool = False) -> list[int]:
    """A copy of `values`, which must be a list of positions in something with `count` elements.

    Raises:
        StateError: It is not, or one is in it twice although it may be there `once`.
    """
    if not isinstance(values, list) or (once and len(set(values)) != len(values)):
        raise StateError(f"`{name}` is {values!r}; it must be a list{' without repetition' * once}")
    return [whole(name, value, count - 1) for value in values]


def rows_of(name: str, rows: Any, space: Space) -> Matrix:
    """Rows of the matrix of `space`, shape (rows, columns).

    Raises:
        StateError: They are not.
    """
    encoding = space.encoding
    if not isinstance(rows, list):
        raise StateError(f"`{name}` is {rows!r}; it must be a list")
    for row in rows:
        if not isinstance(row, list) or len(row) != encoding.n_columns:
            raise StateError(f"`{name}` has {row!r}, which is no row of {encoding.n_columns} columns")
        for level, levels in zip(row, encoding.n_levels.tolist(), strict=True):
            whole(name, level, levels - 1)
    return np.array(rows, dtype=np.int32).reshape(len(rows), encoding.n_columns)


def trials_of(data: Any, space: Space, n_objectives: int) -> tuple[list[Trial], dict[int, int]]:
    """The trials of a saved state, and their positions by the key of their row.

    Raises:
        StateError: A row is not of the space or is there twice, or an outcome has not one value for each
            objective.
        OptionError: An outcome is none.
    """
    trials = []
    matrix = rows_of("trials", [entry[0] for entry in data], space)
    for index, (_, generation, tag, outcome) in enumerate(data):
        if generation is not None:
            whole("generation", generation)
        trial = Trial(index, matrix[index].copy(), generation, tag)
        if outcome is not None:
            trial.outcome = Outcome.from_dict(outcome)
            if trial.outcome.ok and len(trial.outcome.values) != n_objectives:
                raise StateError(f"trial {index} has {outcome!r} for {n_objectives} objectives")
        trials.append(trial)
    by_key = {key: index for index, key in enumerate(space.keys(matrix).tolist() if trials else [])}
    if len(by_key) != len(trials):
        raise StateError("a configuration is in `trials` twice")
    return trials, by_key
