"""Turning a constraint that is a Python function into an expression, where that can be done safely.

The function is called with a configuration whose values are symbols. Operators on symbols build an
expression. Where Python wants a truth value, both answers are explored by calling again, so that the
result is a tree of decisions. Anything a symbol cannot follow (``int()``, formatting, hashing, attributes,
too many paths) makes the function opaque, and so does a parameter that may be absent: ``is None`` cannot
be seen by a symbol. What was found is compared with the function itself on some hundred configurations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from searchers.columns import Domain
from searchers.evaluation import truth
from searchers.expressions import MAX_DEPTH, Const, Expr, Leaf, Op

__all__ = ["trace"]

_MAX_PATHS: Final = 64
_MAX_DECISIONS: Final = 64
_MAX_SIZE: Final = 4000
_CHECKED_ROWS: Final = 400
_SMALL_DOMAIN: Final = 16
_CHECK_SECONDS: Final = 1.0

Node = Any
"""Nested dicts and lists of parameter numbers, or of symbols."""


def trace(
    function: Callable[[Any], Any],
    tree: Node,
    domains: Sequence[Domain],
    *,
    visible: frozenset[int],
    config_of: Callable[[npt.NDArray[Any]], Any],
) -> Expr | None:
    """The expression a function computes, or ``None`` if that cannot be told.

    Args:
        function: Takes a configuration, returns whether it is allowed.
        tree: Nested dictionaries and lists of parameter numbers, in the form of a configuration.
        domains: The parameters.
        visible: The parameters a traceable function may read: always present, and numbers or strings.
        config_of: The configuration of a row of states, for the comparison with the function itself.

    Returns:
        An expression with the function's truth value. Exceptions of the function are not passed on.
    """
    try:
        expr = _Explorer(function, tree, visible).explore()
        agrees = _agrees(function, expr, domains, config_of)
    except (Exception, _Untraceable):
        return None
    return expr if agrees else None


class _Untraceable(BaseException):
    """Not an `Exception`, so that a function that catches those does not swallow it."""


class _Explorer:
    """Calls the function once for each path through its decisions."""

    def __init__(self, function: Callable[[Any], Any], tree: Node, visible: frozenset[int]) -> None:
        self._function, self._tree, self._visible = function, tree, visible
        self._paths = 0
        self._script: list[bool] = []
        self._conditions: list[Expr] = []
        self._failed = False

    def explore(self) -> Expr:
        return self._branch([])

    def _branch(self, script: list[bool]) -> Expr:
        """The decision tree below the answers in `script`."""
        result, conditions = self._call(script)
        for place in reversed(range(len(script), len(conditions))):
            # the call took the true branch at each decision it met after the script
            taken = [*script, *[True] * (place - len(script))]
            result = _decision(conditions[place], result, self._branch([*taken, False]))
            if result.depth > MAX_DEPTH or result.size > _MAX_SIZE:
                raise _Untraceable
        return result

    def _call(self, script: list[bool]) -> tuple[Expr, list[Expr]]:
        self._paths += 1
        if self._paths > _MAX_PATHS:
            raise _Untraceable
        self._script, self._conditions = script, []
        answer = self._function(_mirror(self._tree, self))
        if self._failed:
            raise _Untraceable
        result = answer._expr if isinstance(answer, _Symbol) else Const(bool(answer))
        return _truthy(result), self._conditions

    def decide(self, condition: Expr) -> bool:
        place = len(self._conditions)
        if place >= _MAX_DECISIONS:
            self.fail()
        self._conditions.append(condition)
        return self._script[place] if place < len(self._script) else True

    def fail(self) -> NoReturn:
        self._failed = True
        raise _Untraceable

    def sees(self, node: Node) -> bool:
        """Whether everything below a node of the tree can be read."""
        if isinstance(node, Mapping):
            return all(self.sees(child) for child in node.values())
        if isinstance(node, Sequence):
            return all(self.sees(child) for child in node)
        return node in self._visible


def _decision(test: Expr, if_true: Expr, if_false: Expr) -> Expr:
    """``if_true if test else if_false`` as a condition, in its simplest form."""
    test = _truthy(test)
    if_true = Const(True) if if_true == test else if_true
    if_false = Const(False) if if_false == test else if_false
    if if_true == if_false:
        return if_true
    match if_true, if_false:
        case Const(value=True), Const(value=False):
            return test
        case Const(value=False), Const(value=True):
            return Op("not", (test,))
        case _, Const(value=False):
            return Op("and", (test, if_true))
        case Const(value=True), _:
            return Op("or", (test, if_false))
        case Const(value=False), _:
            return Op("and", (Op("not", (test,)), if_false))
        case _, Const(value=True):
            return Op("or", (Op("not", (test,)), if_true))
    return Op("if", (test, if_true, if_false))


def _truthy(expr: Expr) -> Expr:
    return Const(bool(expr.value)) if isinstance(expr, Const) else expr


def _mirror(node: Node, explorer: _Explorer) -> Any:
    """The configuration with a symbol for each value."""
    if isinstance(node, Mapping):
        return _Config(node, explorer)
    if isinstance(node, Sequence):
        if not all(explorer.sees(child) for child in node if not isinstance(child, Mapping | Sequence)):
            explorer.fail()
        return [_mirror(child, explorer) for child in node]
    if node not in explorer._visible:
        explorer.fail()
    return _Symbol(Leaf(int(node)), explorer)


class _Config(dict[Any, Any]):
    """A dictionary that makes the symbol of a parameter when it is read.

    Its entries are the nodes of the tree. Whatever depends on which keys there are is refused if one
    of them may be absent.
    """

    def __init__(self, node: Mapping[Any, Any], explorer: _Explorer) -> None:
        super().__init__(node)
        self._explorer = explorer

    def __getitem__(self, key: Any) -> Any:
        return _mirror(super().__getitem__(key), self._explorer)

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if dict.__contains__(self, key) else default

    def __contains__(self, key: object) -> bool:
        if dict.__contains__(self, key) and not self._explorer.sees(super().__getitem__(key)):
            self._explorer.fail()
        return dict.__contains__(self, key)

    def _whole(self) -> None:
        if not all(self._explorer.sees(node) for node in super().values()):
            self._explorer.fail()

    def __iter__(self) -> Iterator[Any]:
        self._whole()
        return super().__iter__()

    def __len__(self) -> int:
        self._whole()
        return super().__len__()

    def __bool__(self) -> bool:
        return len(self) > 0

    def keys(self) -> Any:
        self._whole()
        return super().keys()

    def values(self) -> Any:
        return [self[key] for key in self]

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def copy(self) -> dict[Any, Any]:
        return dict(self.items())

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        self._explorer.fail()

    __eq__ = __ne__ = __or__ = __ror__ = __ior__ = __reversed__ = _refuse
    __setitem__ = __delitem__ = __repr__ = __str__ = __reduce_ex__ = _refuse
    pop = popitem = setdefault = update = clear = _refuse
    __hash__ = None


class _Symbol:
    """The unknown value of an expression."""

    __slots__ = ("_explorer", "_expr")
    __array_ufunc__ = None
    _expr: Expr
    _explorer: _Explorer

    def __init__(self, expr: Expr, explorer: _Explorer) -> None:
        if expr.size > _MAX_SIZE or expr.depth > MAX_DEPTH:
            explorer.fail()
        object.__setattr__(self, "_expr", expr)
        object.__setattr__(self, "_explorer", explorer)

    def _apply(self, name: str, *others: Any, reflected: bool = False) -> _Symbol:
        args = (self._expr, *(self._operand(other) for other in others))
        return _Symbol(Op(name, args[::-1] if reflected else args), self._explorer)

    def _operand(self, other: Any) -> Expr:
        if isinstance(other, _Symbol):
            return other._expr
        if isinstance(other, np.generic):
            other = other.item()
        if other is not None and type(other) not in (bool, int, float, str):
            self._explorer.fail()
        return Const(other)

    def __bool__(self) -> bool:
        return self._explorer.decide(self._expr)

    def __round__(self, digits: Any = None) -> _Symbol:
        return self._apply("round") if digits is None else self._apply("round", digits)

    def __divmod__(self, other: Any) -> tuple[_Symbol, _Symbol]:
        return self._apply("//", other), self._apply("%", other)

    def __rdivmod__(self, other: Any) -> tuple[_Symbol, _Symbol]:
        return self._apply("//", other, reflected=True), self._apply("%", other, reflected=True)

    def __pow__(self, other: Any, modulus: Any = None) -> _Symbol:
        if modulus is not None:
            self._explorer.fail()
        return self._apply("**", other)

    def __getattr__(self, name: str) -> NoReturn:
        self._explorer.fail()

    def _refuse(self, *args: Any) -> NoReturn:
        self._explorer.fail()

    __hash__ = __int__ = __float__ = __complex__ = __index__ = __len__ = _refuse
    __str__ = __repr__ = __format__ = __bytes__ = __iter__ = __contains__ = _refuse
    __getitem__ = __call__ = __setattr__ = __delattr__ = __reduce_ex__ = _refuse
    __copy__ = __deepcopy__ = __trunc__ = _refuse


def _forward(name: str) -> Callable[[_Symbol, Any], _Symbol]:
    return lambda self, other: self._apply(name, other)


def _backward(name: str) -> Callable[[_Symbol, Any], _Symbol]:
    return lambda self, other: self._apply(name, other, reflected=True)


def _alone(name: str) -> Callable[[_Symbol], _Symbol]:
    return lambda self: self._apply(name)


for _method, _name in {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "and": "&",
    "or": "|",
    "xor": "^",
    "lshift": "<<",
    "rshift": ">>",
}.items():
    setattr(_Symbol, f"__{_method}__", _forward(_name))
    setattr(_Symbol, f"__r{_method}__", _backward(_name))
for _method, _name in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(_Symbol, f"__{_method}__", _forward(_name))
for _method in ("neg", "pos", "invert", "abs", "floor", "ceil"):
    setattr(_Symbol, f"__{_method}__", _alone(_method))
_Symbol.__rpow__ = _backward("**")  # type: ignore[attr-defined]


def _agrees(
    function: Callable[[Any], Any],
    expr: Expr,
    domains: Sequence[Domain],
    config_of: Callable[[npt.NDArray[Any]], Any],
) -> bool:
    """Whether expression and function say the same of random rows, and of each state of small domains."""
    rng = np.random.default_rng(0)
    counts = np.array([domain.n_states for domain in domains], dtype=np.int64)
    rows = rng.integers(0, counts, size=(_CHECKED_ROWS, len(counts)))
    rows[0], rows[1] = 0, counts - 1
    place = 2
    for leaf in sorted(expr.leaves):
        edges = range(counts[leaf]) if counts[leaf] <= _SMALL_DOMAIN else (0, counts[leaf] - 1)
        for state in edges:
            if place < _CHECKED_ROWS // 2:
                rows[place, leaf] = state
                place += 1
    found, failure = truth(expr, lambda leaf: domains[leaf].values(rows[:, leaf]), len(rows))
    if failure is not None:
        return False
    deadline = time.monotonic() + _CHECK_SECONDS
    for row, expected in zip(rows, found.tolist(), strict=True):
        if bool(function(config_of(row))) is not expected or time.monotonic() > deadline:
            return False
    return True
