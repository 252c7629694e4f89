"""Configurations as rows of an integer matrix, and back.

A row holds a level for each parameter and then one bit for each thing that can be knocked out
(1: it is). A list of parameters with a knockout probability shares one bit among its elements.

Two other forms occur. *Canonical* rows have 0 in every inactive gene, so that two rows are the same
configuration exactly when they are equal; they exist only to be compared. *States* have one column
for each parameter and no bits: an absent parameter has the state after its last level.
"""

from __future__ import annotations

import difflib
import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from searchers.errors import ConfigError, SpaceError
from searchers.lists import ListOf
from searchers.params import Param

__all__ = ["Encoding", "Leaf", "Matrix", "Path"]

Matrix = npt.NDArray[np.int32]
Path = tuple[str | int, ...]
Tree = Any
"""Nested dicts and lists; the leaves are parameter numbers."""

_MISSING: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One parameter and its place in the space.

    Attributes:
        name: As messages show it, for example ``outer["inner"]``.
        param: Its kind and values.
        path: Keys and positions that lead to it.
        bit: Column of its knockout bit, or ``None``.
        knockout_prob: The probability behind that bit.
    """

    name: str
    param: Param
    path: Path
    bit: int | None
    knockout_prob: float | None

    @property
    def can_be_absent(self) -> bool:
        """Whether some configurations lack this parameter."""
        return self.bit is not None or self.param.when is not None

    @property
    def n_states(self) -> int:
        """Levels, and one more if the parameter can be absent."""
        return self.param.n_levels + self.can_be_absent

    def values(self, states: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The value of each state, ``None`` where absent."""
        absent = states >= self.param.n_levels
        if not absent.any():
            return self.param.values(states)
        values = np.empty(len(states), dtype=object)
        present = self.param.values(states[~absent])
        values[~absent] = present.tolist() if present.dtype != object else present
        return values

    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value if all are numbers and none can be absent."""
        return None if self.can_be_absent else self.param.bounds()


class Encoding:
    """The parameters of a space, numbered, and the translation both ways.

    Args:
        parameters: Nested dicts, lists and parameters. ``Part`` objects (anything with ``parameters``
            and ``render``) may stand for a dict whose configuration is rendered into another form.

    Raises:
        SpaceError: Something in there is not a parameter, or a name is not usable.
    """

    def __init__(self, parameters: Any) -> None:
        self.leaves: list[Leaf] = []
        self.renders: dict[Path, Callable[[Any], Any]] = {}
        self._bits: list[float] = []
        pending: list[tuple[Path, Param, int | None]] = []
        self.tree: Tree = self._number(parameters, (), pending)
        if not pending:
            raise SpaceError("the space has no parameters; give at least one")
        for path, param, bit in pending:
            probability = None if bit is None else self._bits[bit]
            column = None if bit is None else len(pending) + bit
            self.leaves.append(Leaf(path_name(path), param, path, column, probability))
        self.n_parameters = len(self.leaves)
        self.n_bits = len(self._bits)
        self.n_columns = self.n_parameters + self.n_bits
        self.n_levels: Matrix = np.array(
            [leaf.param.n_levels for leaf in self.leaves] + [2] * self.n_bits, dtype=np.int32
        )
        self.ordered = np.array([leaf.param.ordered for leaf in self.leaves] + [False] * self.n_bits)
        self.bit_probabilities = np.array(self._bits)
        self._factors = _odd_factors(self.n_columns)
        self._knockable = [j for j, leaf in enumerate(self.leaves) if leaf.bit is not None]
        self._bit_columns = [bit for leaf in self.leaves if (bit := leaf.bit) is not None]

    def _number(self, node: Any, path: Path, pending: list[tuple[Path, Param, int | None]]) -> Tree:
        if isinstance(node, Param):
            if path and isinstance(path[-1], int) and node.knockout_prob is not None:
                raise SpaceError(
                    f"{path_name(path)} has `knockout_prob`, but dropping it would shift the rest of the "
                    "list; use ListOf(..., knockout_prob=...) or a dict"
                )
            bit = None
            if node.knockout_prob is not None:
                bit = len(self._bits)
                self._bits.append(float(node.knockout_prob))
            pending.append((path, node, bit))
            return len(pending) - 1
        if isinstance(node, ListOf):
            bit = None
            if node.knockout_prob is not None:
                bit = len(self._bits)
                self._bits.append(float(node.knockout_prob))
            first = len(pending)
            pending.extend(((*path, i), node.param, bit) for i in range(node.length))
            return list(range(first, first + node.length))
        if hasattr(node, "parameters") and hasattr(node, "render"):
            if node.render is not None:
                self.renders[path] = node.render
            return self._number(node.parameters, path, pending)
        if isinstance(node, Mapping):
            for name in node:
                if not isinstance(name, str) or not name:
                    raise SpaceError(f"{name!r} is not a parameter name; names are non-empty strings")
            return {name: self._number(child, (*path, name), pending) for name, child in node.items()}
        if isinstance(node, (list, tuple)):
            return [self._number(child, (*path, i), pending) for i, child in enumerate(node)]
        where = path_name(path) if path else "the space"
        raise SpaceError(
            f"{where} is {node!r}, which is not a parameter; use for example Choice([...]), Range(...) "
            "or, for a constant, Literal(...)"
        )

    def sub_tree(self, path: Path) -> Tree:
        """The part of the tree that `path` leads to."""
        node = self.tree
        for key in path:
            node = node[key]
        return node

    # -- matrices ---------------------------------------------------------------------------------

    def states(self, rows: Matrix, inactive: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """States of `rows`, given which parameters are inactive (n, n_parameters)."""
        states = rows[:, : self.n_parameters].astype(np.int64)
        return np.where(inactive, self.n_levels[: self.n_parameters], states)

    def rows(self, states: npt.NDArray[Any]) -> Matrix:
        """Canonical rows of `states`."""
        rows = np.zeros((len(states), self.n_columns), dtype=np.int32)
        absent = states >= self.n_levels[: self.n_parameters]
        rows[:, : self.n_parameters] = np.where(absent, 0, states)
        self.set_bits(rows, absent)
        return rows

    def set_bits(self, rows: Matrix, absent: npt.NDArray[np.bool_]) -> None:
        """Make the knockout bits of `rows` say which parameters are absent."""
        if self._knockable:
            rows[:, self._bit_columns] = absent[:, self._knockable]

    def knocked_out(self, rows: Matrix) -> npt.NDArray[np.bool_]:
        """Which parameters the bits of `rows` take out, shape (n, n_parameters)."""
        out = np.zeros((len(rows), self.n_parameters), dtype=bool)
        if self._knockable:
            out[:, self._knockable] = rows[:, self._bit_columns] != 0
        return out

    def keys(self, canonical: Matrix) -> npt.NDArray[np.uint64]:
        """A 64-bit hash of each canonical row, the same in every process and on every machine.

        Multilinear hashing (Lemire and Kaser, "Strongly universal string hashing is fast", 2014): two
        different rows of a search of 100,000 collide with a probability of 3e-10.
        """
        return np.asarray(canonical.astype(np.uint64) @ self._factors + self._factors[:1])

    # -- configurations ---------------------------------------------------------------------------

    def decode(self, row: Sequence[int], inactive: Sequence[bool], path: Path = (), raw: bool = False) -> Any:
        """The configuration (or the part of it at `path`) of one row; `raw` leaves parts unrendered."""
        value = self._decode(self.sub_tree(path), path, row, inactive, raw)
        return {} if value is _MISSING else value

    def _decode(self, node: Tree, path: Path, row: Sequence[int], inactive: Sequence[bool], raw: bool) -> Any:
        if isinstance(node, int):
            return _MISSING if inactive[node] else self.leaves[node].param.value(row[node])
        value: Any
        if isinstance(node, dict):
            value = {}
            for name, child in node.items():
                item = self._decode(child, (*path, name), row, inactive, raw)
                if item is not _MISSING:
                    value[name] = item
        else:
            items = [self._decode(child, (*path, i), row, inactive, raw) for i, child in enumerate(node)]
            value = [item for item in items if item is not _MISSING]
            if not value and node:
                return _MISSING
        if not raw and path in self.renders:
            return self.renders[path](value)
        return value

    def encode(self, config: Any, nearest: bool = False) -> tuple[Matrix, npt.NDArray[np.bool_]]:
        """The row of a configuration, and which parameters it has.

        A rendered part may be given as its dict, or in its rendered form if that can be parsed. With
        `nearest`, a value between those of a logarithmic range stands for the nearest.

        Raises:
            ConfigError: A name is unknown, or a value is not allowed.
        """
        row = np.zeros(self.n_columns, dtype=np.int32)
        present = np.zeros(self.n_parameters, dtype=bool)
        self._encode(self.tree, (), config, row, present, nearest)
        for j, leaf in enumerate(self.leaves):
            if leaf.bit is not None and not present[j]:
                row[leaf.bit] = 1
        return row, present

    def _encode(
        self,
        node: Tree,
        path: Path,
        config: Any,
        row: Matrix,
        present: npt.NDArray[np.bool_],
        nearest: bool,
    ) -> None:
        if path in self.renders and not isinstance(config, Mapping):
            config = self._parse(path, config)
        if isinstance(node, int):
            try:
                param = self.leaves[node].param
                row[node] = param.nearest(config) if nearest else param.level(config)
            except ConfigError as error:
                raise ConfigError(f"{path_name(path)}: {error}") from error
            present[node] = True
        elif isinstance(node, dict):
            if not isinstance(config, Mapping):
                raise ConfigError(f"{path_name(path)} is {config!r}; it must be a dict of its parameters")
            unknown = [name for name in config if name not in node]
            if unknown:
                near = difflib.get_close_matches(str(unknown[0]), list(node), 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(node)}"
                raise ConfigError(
                    f"the configuration has {path_name((*path, unknown[0]))}, unknown here{hint}"
                )
            for name, value in config.items():
                self._encode(node[name], (*path, name), value, row, present, nearest)
        else:
            if not isinstance(config, (list, tuple)) or len(config) != len(node):
                raise ConfigError(f"{path_name(path)} is {config!r}; it must be a list of {len(node)} items")
            for position, value in enumerate(config):
                self._encode(node[position], (*path, position), value, row, present, nearest)

    def _parse(self, path: Path, config: Any) -> Any:
        parse = getattr(self.renders[path], "parse", None)
        if parse is None:
            raise ConfigError(f"{path_name(path)} is {config!r}; give the dict it is rendered from")
        return parse(config)


def expression_name(path: Sequence[str | int]) -> str:
    """A path as the parser of expressions reads it, also where the name is no identifier."""
    first, *rest = path
    if isinstance(first, str) and (not first.isidentifier() or keyword.iskeyword(first)):
        return f"config[{first!r}]" + "".join(f"[{key!r}]" for key in rest)
    return path_name(path)


def path_name(path: Iterable[str | int]) -> str:
    """A path as an expression shows it: ``outer["inner"]``, ``blocks[0]``."""
    first, *rest = path or ("the configuration",)
    head = first if isinstance(first, str) else f"parts[{first}]"
    return head + "".join(f"[{key}]" if isinstance(key, int) else f'["{key}"]' for key in rest)


def _odd_factors(count: int) -> npt.NDArray[np.uint64]:
    # splitmix64 (Steele, Lea and Flood 2014) from a fixed start: the keys must never change
    state, factors = 0x9E3779B97F4A7C15, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
        factors.append((mixed ^ (mixed >> 31)) | 1)
    return np.array(factors, dtype=np.uint64)
