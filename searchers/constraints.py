"""Constraints: which combinations of parameter values are allowed.

A constraint is an expression, or a function that can be traced into one (`searchers.tracing`); then it
is computed for many rows at once. Any other function is called with one configuration at a time.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from searchers.columns import Domain
from searchers.errors import ConstraintError
from searchers.evaluation import Failure, explain, truth
from searchers.expressions import Expr, parse
from searchers.source import describe
from searchers.tracing import trace

__all__ = ["ConfigOf", "Constraint", "Domain", "truth_table"]

ConfigOf = Callable[[npt.NDArray[Any]], Any]
"""Makes the configuration of one row of states."""
Mask = npt.NDArray[np.bool_]

_SMALL_TABLE: Final = 4096
_LARGE_TABLE: Final = 1 << 20
_FEW_ROWS: Final = 1024
_CHUNK: Final = 1 << 16
_LISTED: Final = 1 << 16


class Constraint:
    """One constraint of a space; `build` makes it.

    Attributes:
        source: The expression or function as the user gave it.
        expr: What it computes, or ``None`` for a function that could not be traced.
        function: The function, or ``None`` if it was given as an expression.
        leaves: The parameters it reads, or ``None`` if that is not known.
    """

    def __init__(
        self, source: str | Callable[[Any], Any], expr: Expr | None, domains: Sequence[Domain]
    ) -> None:
        self.source = source
        self.expr = expr
        self.function = None if isinstance(source, str) else source
        self.leaves = None if expr is None else expr.leaves
        self._domains = domains
        self._columns = sorted(self.leaves or ())
        self._size = math.prod(domains[leaf].n_states for leaf in self._columns)
        self._text: str | None = source.strip() if isinstance(source, str) else None
        self._table: tuple[Mask, Failure | None] | None = None
        self._asked = 0

    @classmethod
    def build(
        cls, source: Any, tree: Any, domains: Sequence[Domain], config_of: ConfigOf | None = None
    ) -> Constraint:
        """A constraint from what the user gave.

        Args:
            source: An expression (`searchers.expressions.parse`), or a callable that takes a
                configuration and returns whether it is allowed.
            tree: Nested dictionaries and lists whose leaves are positions in `domains`.
            domains: The parameters.
            config_of: Makes the configuration that a callable gets from a row of states; by default,
                `tree` with values in it, absent ones left out.

        Raises:
            ConstraintError: It is neither, the expression cannot be parsed, or the callable cannot be
                called with one configuration.
        """
        if isinstance(source, str):
            return cls(source, parse(source, tree), domains)
        if not callable(source):
            raise ConstraintError(
                f"a constraint is {source!r}; it must be an expression such as 'BLOCK_M * stages <= 512', "
                "or a function that takes a configuration and returns whether it is allowed"
            )
        _check_signature(source)
        visible = frozenset(leaf for leaf, domain in enumerate(domains) if _is_plain(domain))
        made = config_of or _plain_configs(tree, domains)
        return cls(source, trace(source, tree, domains, visible=visible, config_of=made), domains)

    @property
    def text(self) -> str:
        """The expression, or what is known of the function: a lambda's source, else the name."""
        if self._text is None:
            self._text = str(self.source) if self.function is None else describe(self.function)
        return self._text

    def holds(self, states: npt.NDArray[Any], config_of: ConfigOf) -> Mask:
        """Which rows satisfy the constraint.

        Args:
            states: A row for each configuration, a column for each parameter.
            config_of: The configuration of a row, for functions that have to be called.

        Returns:
            A mask of length ``len(states)``.

        Raises:
            ConstraintError: The expression has no value for one of the rows, or the function raised.
        """
        if not len(states):
            return np.empty(0, dtype=bool)
        if self.expr is None:
            return self._call(states, config_of)
        held, failure = self._evaluate(self.expr, states)
        if failure is None:
            return held
        if self.function is None:
            raise self.failed(failure, lambda leaf: self._values(leaf, states))
        held[failure.rows] = self._call(states[failure.rows], config_of)
        return held

    def failed(self, failure: Failure, values: Callable[[int], npt.NDArray[Any]]) -> ConstraintError:
        """The error for rows in which the expression has no value."""
        assert self.expr is not None
        names = [domain.name for domain in self._domains]
        return explain(self.expr, values, failure, self.text, names)

    def _evaluate(self, expr: Expr, states: npt.NDArray[Any]) -> tuple[Mask, Failure | None]:
        n = len(states)
        self._asked += n
        if self._size <= _SMALL_TABLE or self._size <= min(self._asked, _LARGE_TABLE):
            if self._table is None:
                self._table = truth_table(expr, self._columns, self._domains)
            places = self._places(states)
            held, failure = self._table
            if failure is None or not failure.rows[places].any():
                return held[places], None
            return held[places], Failure(failure.rows[places], failure.message)
        if n > _FEW_ROWS and self._size < 2**62 and not all(self._is_number(leaf) for leaf in self._columns):
            _, first, back = np.unique(self._places(states), return_index=True, return_inverse=True)
            if len(first) < n // 2:
                few = states[first]
                held, failure = truth(expr, lambda leaf: self._values(leaf, few), len(few))
                spread = None if failure is None else Failure(failure.rows[back], failure.message)
                return held[back], spread
        return truth(expr, lambda leaf: self._values(leaf, states), n)

    def _places(self, states: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The position of each row in the table of all combinations of the columns read."""
        places = np.zeros(len(states), dtype=np.int64)
        for leaf in self._columns:
            places *= self._domains[leaf].n_states
            places += states[:, leaf]
        return places

    def _values(self, leaf: int, states: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._domains[leaf].values(states[:, leaf].astype(np.int64))

    def _is_number(self, leaf: int) -> bool:
        return self._domains[leaf].bounds() is not None

    def _call(self, states: npt.NDArray[Any], config_of: ConfigOf) -> Mask:
        assert self.function is not None
        held = np.empty(len(states), dtype=bool)
        for place, row in enumerate(states):
            config = config_of(row)
            try:
                held[place] = bool(self.function(config))
            except Exception as error:
                shown = repr(config)
                shown = shown if len(shown) <= 500 else f"{shown[:500]}..."
                raise ConstraintError(
                    f"constraint {self.text!r} raised {type(error).__name__}: {error}, for the configuration "
                    f"{shown}; it must return True or False for each (a parameter that is knocked out is "
                    "missing from its configuration)"
                ) from error
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_text": self.text, "_table": None}

    def __repr__(self) -> str:
        return f"<Constraint {self.text!r}>"


def truth_table(expr: Expr, leaves: Sequence[int], domains: Sequence[Domain]) -> tuple[Mask, Failure | None]:
    """The truth of an expression for all combinations of its parameters' states.

    Args:
        expr: The expression.
        leaves: The parameters it reads, the slowest changing one first.
        domains: All parameters.

    Returns:
        A flat mask in lexicographic order, and the combinations for which there is no value.
    """
    shape = tuple(domains[leaf].n_states for leaf in leaves)
    size = math.prod(shape)
    held = np.empty(size, dtype=bool)
    failed: Failure | None = None
    for start in range(0, size, _CHUNK):
        stop = min(start + _CHUNK, size)
        grid = np.unravel_index(np.arange(start, stop), shape) if shape else ()
        states = dict(zip(leaves, grid, strict=True))
        held[start:stop], failure = truth(
            expr, {leaf: domains[leaf].values(column) for leaf, column in states.items()}, stop - start
        )
        if failure is not None:
            failed = failed or Failure(np.zeros(size, dtype=bool), failure.message)
            failed.rows[start:stop] = failure.rows
    return held, failed


def _check_signature(function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConstraintError(
            f"constraint {describe(function)!r} is a coroutine or generator function; "
            "it must be a plain function that returns True or False"
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise ConstraintError(
            f"constraint {describe(function)!r} cannot be called with one configuration: {error}; "
            "it must take one argument, the configuration"
        ) from error
    except ValueError:
        return  # a built-in that does not tell its signature


def _is_plain(domain: Domain) -> bool:
    """Whether a symbol can stand for the values: always present, and numbers or strings."""
    if domain.bounds() is not None:
        return True
    if domain.n_states > _LISTED:
        return False
    values = domain.values(np.arange(domain.n_states)).tolist()
    return all(isinstance(value, bool | int | float | str) for value in values)


def _plain_configs(tree: Any, domains: Sequence[Domain]) -> ConfigOf:
    known: dict[tuple[int, int], Any] = {}

    def value(leaf: int, state: int) -> Any:
        if (leaf, state) not in known:
            known[leaf, state] = domains[leaf].values(np.array([state], dtype=np.int64)).tolist()[0]
        return known[leaf, state]

    def fill(node: Any, states: list[int]) -> Any:
        if isinstance(node, Mapping):
            filled = {key: fill(child, states) for key, child in node.items()}
            return {key: child for key, child in filled.items() if child is not None}
        if isinstance(node, Sequence):
            return [fill(child, states) for child in node]
        return value(node, states[node])

    return lambda row: fill(tree, row.tolist())
