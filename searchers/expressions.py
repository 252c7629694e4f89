"""Constraint expressions: a small tree of operations, and the parser that builds it from text.

Text is read with Python's own `ast` and every node is checked against an allow-list, so that nothing
a user writes is ever executed. `searchers.evaluation` computes an expression for many rows at once,
`searchers.intervals` says what it can still become when only some parameters are known.
"""

from __future__ import annotations

import ast
import difflib
import keyword
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from searchers.errors import ConstraintError

__all__ = ["FUNCTIONS", "MAX_DEPTH", "MAX_TEXT", "Const", "Expr", "Leaf", "Op", "conjuncts", "parse"]

MAX_TEXT: Final = 10_000
"""Longest expression text, in characters."""
MAX_DEPTH: Final = 100
"""Deepest nesting of an expression."""
MAX_BITS: Final = 256
"""Largest integer constant, in bits."""
ROOT: Final = "config"
"""Name of the whole configuration, for parameters whose name is not an identifier."""
LIST_ROOT: Final = "parts"
"""Name of the whole configuration where it is a list."""

FUNCTIONS: Final[Mapping[str, tuple[int, int]]] = {
    "abs": (1, 1),
    "ceil": (1, 1),
    "float": (1, 1),
    "floor": (1, 1),
    "gcd": (1, 64),
    "int": (1, 1),
    "len": (1, 1),
    "log2": (1, 1),
    "max": (1, 1000),
    "min": (1, 1000),
    "round": (1, 2),
    "sqrt": (1, 1),
    "sum": (1, 1),
}
"""Functions an expression may call, each with the least and the greatest number of arguments."""

_BINARY: Final[Mapping[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_UNARY: Final[Mapping[type[ast.unaryop], str]] = {
    ast.USub: "neg",
    ast.UAdd: "pos",
    ast.Invert: "invert",
    ast.Not: "not",
}
_COMPARE: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
_ALLOWED: Final = (
    "allowed are parameters, numbers, strings, True, False, None, and/or/not, comparisons, in, "
    "'is None', + - * / // % ** & | ^ ~ << >>, 'a if c else b', tuples, lists, x[0], "
    f"and calls of {', '.join(FUNCTIONS)}"
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The value of one parameter."""

    index: int

    @property
    def leaves(self) -> frozenset[int]:
        """Indices of the parameters the expression reads."""
        return frozenset((self.index,))

    @property
    def size(self) -> int:
        """Number of nodes."""
        return 1

    @property
    def depth(self) -> int:
        """Levels of nesting."""
        return 1


@dataclass(frozen=True, slots=True)
class Const:
    """A number, a string, a truth value or ``None``."""

    value: int | float | str | bool | None

    @property
    def leaves(self) -> frozenset[int]:
        """Indices of the parameters the expression reads: none."""
        return frozenset()

    @property
    def size(self) -> int:
        """Number of nodes."""
        return 1

    @property
    def depth(self) -> int:
        """Levels of nesting."""
        return 1


@dataclass(frozen=True, slots=True)
class Op:
    """An operation on other expressions.

    Attributes:
        name: A Python operator (``"neg"``, ``"pos"`` and ``"invert"`` for the unary ones), a name
            in `FUNCTIONS`, ``"if"`` (condition, value if true, value if false), ``"item"`` (container,
            index), or ``"list"`` or ``"tuple"``. ``"and"`` and ``"or"`` take two or more arguments.
        args: The operands, in Python's order.
        leaves: Indices of the parameters the expression reads.
        size: Number of nodes.
        depth: Levels of nesting.
    """

    name: str
    args: tuple[Expr, ...]
    leaves: frozenset[int] = field(init=False, compare=False, repr=False)
    size: int = field(init=False, compare=False, repr=False)
    depth: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "leaves", frozenset().union(*(arg.leaves for arg in self.args)))
        object.__setattr__(self, "size", 1 + sum(arg.size for arg in self.args))
        object.__setattr__(self, "depth", 1 + max((arg.depth for arg in self.args), default=0))


Expr = Leaf | Const | Op


def conjuncts(expr: Expr) -> Iterator[Expr]:
    """The operands of the outermost ``and``, flattened; the expression itself if there is none."""
    if isinstance(expr, Op) and expr.name == "and":
        for arg in expr.args:
            yield from conjuncts(arg)
    else:
        yield expr


def parse(text: str, tree: Mapping[Any, Any] | Sequence[Any]) -> Expr:
    """Read a constraint expression.

    Args:
        text: A Python expression over parameter names, such as ``"BLOCK * outer['inner'] <= 512"``.
        tree: Nested dictionaries and lists whose leaves are the indices of parameters. The keys of
            a top-level dictionary are the names; ``config["..."]`` reads those that are not
            identifiers. A top-level list is called ``parts`` (or ``config``).

    Returns:
        The expression. A name that stands for a list of parameters becomes the list of their values.

    Raises:
        ConstraintError: `text` is not such an expression, is too long or too deeply nested, or names
            a parameter that `tree` does not have.
    """
    if not isinstance(text, str):
        raise ConstraintError(f"a constraint expression must be a string, not {text!r}")
    text = text.strip()
    if not text:
        raise ConstraintError("a constraint expression is empty; write one such as 'BLOCK_M * stages <= 512'")
    if len(text) > MAX_TEXT:
        raise ConstraintError(
            f"constraint {text[:40]!r}... has {len(text)} characters; the limit is {MAX_TEXT}: "
            "split it into several constraints"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = ast.parse(text, mode="eval").body
        return _Parser(text, tree).expression(node, 1)
    except SyntaxError as error:
        column = max(error.offset or 1, 1) - 1
        raise ConstraintError(
            _point(text, error.lineno or 1, column, error.msg or "invalid syntax")
        ) from error
    except (RecursionError, MemoryError) as error:
        raise ConstraintError(_too_deep(text)) from error
    except ConstraintError:
        raise
    except ValueError as error:
        raise ConstraintError(f"constraint {text[:200]!r} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class _Group:
    """A part of the tree that holds several parameters."""

    content: Mapping[Any, Any] | Sequence[Any]
    name: str


class _Parser:
    def __init__(self, text: str, tree: Mapping[Any, Any] | Sequence[Any]) -> None:
        self._text = text
        self._tree = tree

    def expression(self, node: ast.expr, depth: int) -> Expr:
        found = self._resolve(node, depth)
        return found if isinstance(found, Leaf | Const | Op) else self._list_of(found, node)

    def _resolve(self, node: ast.expr, depth: int) -> Expr | _Group:
        if depth > MAX_DEPTH:
            raise ConstraintError(_too_deep(self._text))
        match node:
            case ast.Constant(value=value):
                if value is not None and not isinstance(value, int | float | str):
                    raise self._refuse(node, f"a {type(value).__name__} constant")
                if isinstance(value, int) and value.bit_length() > MAX_BITS:
                    raise self._refuse(node, f"a number of more than {MAX_BITS} bits")
                return Const(value)
            case ast.Name(id=name):
                return self._name(name, node)
            case ast.Subscript(value=container, slice=index):
                return self._subscript(container, index, node, depth)
            case ast.BoolOp(op=operator, values=values):
                name = "and" if isinstance(operator, ast.And) else "or"
                return Op(name, tuple(self.expression(value, depth + 1) for value in values))
            case ast.UnaryOp(op=unary, operand=operand):
                return self._negated(Op(_UNARY[type(unary)], (self.expression(operand, depth + 1),)))
            case ast.BinOp(left=left, op=binary, right=right) if type(binary) in _BINARY:
                args = self.expression(left, depth + 1), self.expression(right, depth + 1)
                return Op(_BINARY[type(binary)], args)
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return Op("if", tuple(self.expression(part, depth + 1) for part in (test, body, orelse)))
            case ast.Tuple(elts=items) | ast.List(elts=items):
                name = "tuple" if isinstance(node, ast.Tuple) else "list"
                return Op(name, tuple(self.expression(item, depth + 1) for item in items))
            case ast.Call():
                return self._call(node, depth)
            case _:
                raise self._refuse(node, _describe(node))

    @staticmethod
    def _negated(expr: Op) -> Expr:
        """Fold the sign into a number, so that -1 is a constant."""
        (arg,) = expr.args
        number = isinstance(arg, Const) and type(arg.value) in (int, float)
        if expr.name == "neg" and number:
            return Const(-arg.value)  # type: ignore[union-attr,operator]
        return expr

    def _comparison(self, node: ast.Compare, depth: int) -> Expr:
        operands = [node.left, *node.comparators]
        pairs: list[Expr] = []
        values = [self._operand(operands[0], None, depth + 1)]
        for operator, operand in zip(node.ops, node.comparators, strict=True):
            values.append(self._operand(operand, operator, depth + 1))
            if isinstance(operator, ast.Is | ast.IsNot) and not _singleton(values[-1]):
                raise self._refuse(operand, "'is' with anything but None, True or False (write ==)")
            pairs.append(Op(_COMPARE[type(operator)], (values[-2], values[-1])))
        return pairs[0] if len(pairs) == 1 else Op("and", tuple(pairs))

    def _operand(self, node: ast.expr, operator: ast.cmpop | None, depth: int) -> Expr:
        if isinstance(node, ast.Set) and isinstance(operator, ast.In | ast.NotIn):
            return Op("list", tuple(self.expression(item, depth + 1) for item in node.elts))
        return self.expression(node, depth)

    def _call(self, node: ast.Call, depth: int) -> Expr:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            raise self._refuse(node, f"a call of {ast.unparse(node.func)[:60]!r}")
        name = node.func.id
        if node.keywords:
            raise self._refuse(node, f"a keyword argument of {name}()")
        least, most = FUNCTIONS[name]
        if not least <= len(node.args) <= most:
            raise self._error(node, f"{name}() takes {least} to {most} arguments, not {len(node.args)}")
        return Op(name, tuple(self.expression(arg, depth + 1) for arg in node.args))

    def _name(self, name: str, node: ast.expr) -> Expr | _Group:
        tree = self._tree
        if isinstance(tree, Mapping):
            for key in tree:
                # the parser has normalised the name, the user's key may not be
                if key == name or (isinstance(key, str) and unicodedata.normalize("NFKC", key) == name):
                    return self._found(tree[key], name)
        elif name == LIST_ROOT:
            return _Group(tree, name)
        if name == ROOT:
            return _Group(tree, name)
        raise self._error(node, f"unknown name {name!r}; {self._suggest(name)}")

    def _subscript(self, container: ast.expr, index: ast.expr, node: ast.expr, depth: int) -> Expr | _Group:
        found = self._resolve(container, depth + 1)
        if isinstance(index, ast.Slice):
            raise self._refuse(node, "a slice")
        key = self.expression(index, depth + 1)
        if not isinstance(found, _Group):
            return Op("item", (found, key))
        if not isinstance(key, Const):
            raise self._error(index, f"the index of {found.name!r} must be a constant")
        try:
            inner = found.content[key.value]  # type: ignore[index]
        except (LookupError, TypeError) as error:
            raise self._error(index, f"{found.name!r} has no {key.value!r}; {_keys(found)}") from error
        return self._found(inner, f"{found.name}[{key.value!r}]")

    def _found(self, content: Any, name: str) -> Expr | _Group:
        return _Group(content, name) if isinstance(content, Mapping | Sequence) else Leaf(int(content))

    def _list_of(self, group: _Group, node: ast.expr) -> Expr:
        items = [] if isinstance(group.content, Mapping) else list(group.content)
        if not items or any(isinstance(item, Mapping | Sequence) for item in items):
            raise self._error(node, f"{group.name!r} is a group of parameters, not one; {_keys(group)}")
        return Op("list", tuple(Leaf(int(item)) for item in items))

    def _suggest(self, name: str) -> str:
        nested = [path for path, key in _paths(self._tree) if key == name]
        if nested:
            return f"did you mean {' or '.join(nested[:3])}?"
        known = [str(key) for key in self._tree] if isinstance(self._tree, Mapping) else [LIST_ROOT]
        near = difflib.get_close_matches(name, known[:2000], n=3)
        if near:
            return f"did you mean {' or '.join(near)}?"
        more = ", ..." if len(known) > 12 else ""
        return f"the names are {', '.join(known[:12])}{more}"

    def _refuse(self, node: ast.expr, what: str) -> ConstraintError:
        return self._error(node, f"{what} is not allowed here", hint=f"\n{_ALLOWED}")

    def _error(self, node: ast.expr, message: str, *, hint: str = "") -> ConstraintError:
        line = self._text.split("\n")[node.lineno - 1] if node.lineno <= self._text.count("\n") + 1 else ""
        column = len(line.encode(errors="replace")[: node.col_offset].decode(errors="replace"))
        return ConstraintError(_point(self._text, node.lineno, column, message) + hint)


def _singleton(expr: Expr) -> bool:
    return isinstance(expr, Const) and (expr.value is None or isinstance(expr.value, bool))


def _describe(node: ast.expr) -> str:
    names = {
        "Attribute": "an attribute (a dot)",
        "Lambda": "a lambda",
        "JoinedStr": "an f-string",
        "NamedExpr": "':='",
        "Starred": "'*'",
        "Dict": "a dictionary",
        "Set": "a set",
        "BinOp": "this operator",
    }
    kind = type(node).__name__
    return names.get(kind, f"a {kind}")


def _keys(group: _Group) -> str:
    content = group.content
    if isinstance(content, Mapping):
        shown = ", ".join(repr(key) for key in list(content)[:12])
        return f"it has {shown}{', ...' if len(content) > 12 else ''}"
    return f"it is a list with the indices 0 to {len(content) - 1}" if content else "it is an empty list"


def _paths(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each parameter as it is written in an expression, with its own key."""
    pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
    for key, inner in pairs:
        plain = not prefix and isinstance(content, Mapping) and _is_name(str(key))
        root = prefix or (ROOT if isinstance(content, Mapping) else LIST_ROOT)
        path = str(key) if plain else f"{root}[{key!r}]"
        yield path, key
        if isinstance(inner, Mapping | Sequence):
            yield from _paths(inner, path)


def _is_name(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key)


def _too_deep(text: str) -> str:
    return (
        f"constraint {text[:60]!r}... is nested more than {MAX_DEPTH} levels deep; "
        "use sum([...]), or split it into several constraints"
    )


def _point(text: str, line: int, column: int, message: str) -> str:
    """The message, and the line of the text it is about with a caret under the place."""
    lines = text.split("\n")
    shown = lines[line - 1] if 0 < line <= len(lines) else lines[0]
    column = min(column, len(shown))
    start = max(0, column - 60) if len(shown) > 100 else 0
    shown = "".join(char if char.isprintable() else "?" for char in shown[start : start + 100])
    caret = " " * (column - start) + "^"
    return f"constraint {text[:100]!r}: {message}, at column {column + 1}\n    {shown}\n    {caret}"
