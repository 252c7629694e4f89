"""What an objective returned, read as scores.

Worker processes use this right after a call, so it imports nothing: a process that lives for one
evaluation cannot afford a second of imports, and a huge return value is judged where it is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from searchers.outcome import Outcome

    Reading: TypeAlias = tuple[str, tuple[float, ...], str]

__all__ = ["INVALID_MESSAGE", "is_outcome", "read_outcome", "read_scores"]

INVALID_MESSAGE = "the objective reported an invalid score"

_INFINITY = float("inf")
_SHOWN = 60
_METRICS_LIMIT = 1 << 18


def read_scores(value: Any, num_objectives: int = 1) -> Reading:
    """Judge what an objective returned.

    A number is an int or a float (not a bool), a NumPy scalar, or an array of no dimension. Several
    come as a list, a tuple or an array of one dimension; for one objective a list of one is fine too.

    Args:
        value: The return value, of any type.
        num_objectives: How many numbers it must hold.

    Returns:
        ``("ok", values, "")`` with `num_objectives` finite floats, or
        ``("invalid_result", (), message)`` where the message says what came and what was expected.
    """
    try:
        return "ok", tuple(_numbers(value, num_objectives)), ""
    except _InvalidError as error:
        return "invalid_result", (), str(error)
    except Exception as error:  # a value may run code of its own when it is looked at
        message = f"the objective returned {_article(type(value).__name__)} that cannot be read as a score"
        return "invalid_result", (), f"{message} ({type(error).__name__}: {error})"


def is_outcome(value: Any) -> bool:
    """Whether an objective returned a `searchers.Outcome`, which says more than scores do."""
    import sys

    module = sys.modules.get("searchers.outcome")  # who has made one has imported it
    return module is not None and isinstance(value, module.Outcome)


def read_outcome(
    outcome: Outcome, num_objectives: int = 1
) -> tuple[str, tuple[float, ...], str, dict[str, Any]]:
    """Judge an `Outcome` that an objective returned.

    Args:
        outcome: As returned.
        num_objectives: How many values one that is ``ok`` must hold.

    Returns:
        Status, values and message as of `read_scores`, and the other fields that are set: plain data.
        Metrics that JSON cannot hold are there as their `repr`; a quarter of a megabyte of them at most.
    """
    status, values, message = outcome.status, outcome.values, outcome.message
    if outcome.ok and len(values) != num_objectives:
        error = _unexpected(f"an Outcome with {len(values)} values", num_objectives)
        status, values, message = "invalid_result", (), str(error)
    details = {
        name: found
        for name in ("spread", "samples", "compile_s", "run_s")
        if (found := getattr(outcome, name)) is not None
    }
    if outcome.metrics:
        details["metrics"] = _plain_metrics(outcome.metrics)
    return status, values, message, details


def _plain_metrics(metrics: Any) -> Any:
    import json

    try:
        text = json.dumps(dict(metrics), default=repr)
    except Exception as error:  # a key that is no text, a circle, a `repr` that raises
        return {"dropped": f"the metrics cannot be kept ({type(error).__name__}: {error})"}
    if len(text) > _METRICS_LIMIT:
        return {
            "dropped": f"the metrics are {len(text)} characters of JSON; {_METRICS_LIMIT} are kept at most"
        }
    return json.loads(text)


class _InvalidError(Exception):
    """Carries the message for people."""


def _numbers(value: Any, count: int) -> list[float]:
    value = _without_numpy(value, count)
    if isinstance(value, str) and value == "*":
        raise _InvalidError(INVALID_MESSAGE)
    if not isinstance(value, (list, tuple)):
        if count == 1:
            return [_number(value, "")]
        raise _unexpected(_described(value), count)
    if len(value) != count:
        if len(value) <= 1024 and any(isinstance(item, str) and item == "*" for item in value):
            raise _InvalidError(INVALID_MESSAGE)
        raise _unexpected(f"{len(value)} values", count)
    return [_number(_without_numpy(item, 1), f" as value {i} of {count}") for i, item in enumerate(value, 1)]


def _without_numpy(value: Any, count: int) -> Any:
    """The plain number or list behind a NumPy (or similar) scalar or array; others as they are."""
    if isinstance(value, (int, float, str, list, tuple)) or not hasattr(value, "tolist"):
        return value
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or len(shape) > 1:
        shown = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
        raise _unexpected(f"{_article(type(value).__name__)}{shown}", count)
    if shape and shape[0] != count:
        raise _unexpected(f"an array of {shape[0]} values", count)
    return value.tolist()


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and value == "*":
        raise _InvalidError(INVALID_MESSAGE)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _unexpected(f"{_described(value)}{where}", 1)
    try:
        number = float(value)
    except OverflowError:
        raise _unexpected(f"an integer too large for a float{where}", 1) from None
    if number != number or number in (_INFINITY, -_INFINITY):
        raise _InvalidError(f"the objective returned {number}{where}; expected a finite number")
    return number


def _unexpected(what: str, count: int) -> _InvalidError:
    expected = "a number" if count == 1 else f"{count} numbers (`num_objectives` is {count})"
    return _InvalidError(f"the objective returned {what}; expected {expected}")


def _described(value: Any) -> str:
    if value is None:
        return "None"
    name = _article(type(value).__name__)
    if isinstance(value, (str, bytes)):
        cut = "..." if len(value) > _SHOWN else ""
        return f"{name} ({value[:_SHOWN]!r}{cut})"
    if isinstance(value, bool):
        return f"{name} ({value})"
    if hasattr(value, "__await__"):
        if hasattr(value, "close"):
            value.close()  # it will never be awaited, and Python would warn about that
        return f"{name} (an asynchronous objective needs the ASYNC worker)"
    return name


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
