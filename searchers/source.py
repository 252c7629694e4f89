"""What to call a user's function in a message."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["describe"]


def describe(function: Callable[..., Any]) -> str:
    """A function's name, or a lambda's source text where it can be found."""
    function = inspect.unwrap(function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = getattr(function, "__code__", None)
    if name.endswith("<lambda>") and isinstance(code, CodeType):
        return _lambda_text(code) or "<lambda>"
    return str(name).rpartition("<locals>.")[2]


def _lambda_text(code: CodeType) -> str | None:
    source = "".join(linecache.getlines(code.co_filename))
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Lambda)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = [node for node in nodes if node.lineno == code.co_firstlineno]
    if len(nodes) > 1:
        # several on one line: the instructions know the column they come from
        starts = {(line, column) for line, _, column, _ in code.co_positions()}
        nodes = [node for node in nodes if (node.body.lineno, node.body.col_offset) in starts]
    text = ast.get_source_segment(source, nodes[0]) if len(nodes) == 1 else None
    return None if text is None else " ".join(text.split())[:200]
