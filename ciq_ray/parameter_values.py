"""The parameters of many evaluations as columns, from a search space or from the configurations alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers.encoding import Path, path_name
from searchers.params import Literal, LogRange, PowerOfTwo
from searchers.space import Space

__all__ = ["Parameter", "from_configs", "from_rows"]

Floats = npt.NDArray[np.float64]

_MOST_PARAMETERS = 512
_LEAST_RATIO = 4.0
"""A list of numbers that spans less is drawn on a linear axis, however it is spaced."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, with what each evaluation has for it.

    Attributes:
        name: As messages show it, for example ``outer["inner"]``.
        values: Its value in each evaluation, ``None`` where it is absent.
        positions: Where each value stands on an axis, NaN where it is absent: a number itself, or the
            number of a category; shape (n,).
        categories: The texts of the categories, in the order of their numbers; ``None`` for numbers.
        log: Whether numbers are better shown on a logarithmic axis.
    """

    name: str
    values: list[Any]
    positions: Floats
    categories: list[str] | None = None
    log: bool = False

    @property
    def scale(self) -> Floats:
        """`positions`, as logarithms if that is how they are shown; shape (n,)."""
        return np.log10(self.positions) if self.log else self.positions

    @property
    def varies(self) -> bool:
        """Whether it is not the same everywhere; absent counts as a value."""
        present = self.positions[~np.isnan(self.positions)]
        return bool(len(present)) and (len(present) < len(self.positions) or bool(np.ptp(present)))


def from_rows(space: Space, rows: npt.NDArray[np.int32]) -> list[Parameter]:
    """The parameters of a space, for rows of its matrix, shape (n, columns)."""
    inactive = space.inactive(rows)
    found = []
    for j, leaf in enumerate(space.encoding.leaves[:_MOST_PARAMETERS]):
        levels, present = rows[:, j].astype(np.int64), ~inactive[:, j]
        known = {level: leaf.param.value(level) for level in np.unique(levels[present]).tolist()}
        values = [known[level] if there else None for level, there in zip(levels, present, strict=True)]
        kind = leaf.param
        if isinstance(kind, (LogRange, PowerOfTwo)):
            found.append(_numbers(leaf.name, values, log=True))
        elif kind.ordered and not isinstance(kind, Literal) and all(map(_is_number, known.values())):
            found.append(_numbers(leaf.name, values))
        else:
            order = [known[level] for level in sorted(known)]
            found.append(_categories(leaf.name, values, order))
    return found


def from_configs(configs: Sequence[Any]) -> list[Parameter]:
    """The parameters that configurations have, by what is found in them.

    A text, such as the options of a compiler, is not taken apart: it has no parameters.
    """
    columns: dict[Path, list[Any]] = {}
    for row, config in enumerate(configs):
        for path, value in _leaves(config, ()):
            column = columns.get(path)
            if column is None:
                if len(columns) >= _MOST_PARAMETERS:
                    continue
                column = columns[path] = [None] * len(configs)
            column[row] = value
    found = []
    for path, values in columns.items():
        name = path_name(path)
        present = [value for value in values if value is not None]
        if present and all(map(_is_number, present)):
            found.append(_numbers(name, values))
        else:
            found.append(_categories(name, values, _by_appearance(present)))
    return found


def text_of(value: Any) -> str:
    """A value for people."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, default=repr, ensure_ascii=False)


def _leaves(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, (str, int, float)):  # most of them, and there may be a million
        if path and not (len(path) == 1 and isinstance(path[0], int)):
            yield path, node
    elif isinstance(node, Mapping):
        for name, child in node.items():
            yield from _leaves(child, (*path, str(name)))
    elif isinstance(node, (list, tuple)):
        # a list of plain values below a name is one value, such as an order of loops
        if path and isinstance(path[-1], str) and not any(isinstance(c, (Mapping, list)) for c in node):
            yield path, list(node)
        else:
            for position, child in enumerate(node):
                yield from _leaves(child, (*path, position))
    elif path and node is not None:
        yield path, node


def _numbers(name: str, values: list[Any], *, log: bool | None = None) -> Parameter:
    positions = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    if log is None:
        log = _is_geometric(np.unique(positions[~np.isnan(positions)]))
    return Parameter(name, values, positions, log=log)


def _categories(name: str, values: list[Any], order: Sequence[Any]) -> Parameter:
    texts = list(dict.fromkeys(text_of(value) for value in order))
    number = {text: place for place, text in enumerate(texts)}
    positions = [math.nan if value is None else float(number[text_of(value)]) for value in values]
    return Parameter(name, values, np.array(positions, dtype=np.float64), texts)


def _by_appearance(values: Sequence[Any]) -> list[Any]:
    if all(isinstance(value, bool) for value in values):
        return [False, True]
    texts = {text_of(value): value for value in values}
    return [texts[text] for text in sorted(texts)]


def _is_geometric(numbers: Floats) -> bool:
    """Whether sorted numbers are spaced more evenly in their logarithms."""
    if len(numbers) < 3 or numbers[0] <= 0 or numbers[-1] < _LEAST_RATIO * numbers[0]:
        return False
    gaps, ratios = np.diff(numbers), np.diff(np.log(numbers))
    return bool(ratios.std() / ratios.mean() < gaps.std() / gaps.mean())


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
