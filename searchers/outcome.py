"""What a searcher proposes, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Final

from searchers.errors import OptionError

__all__ = ["FAILURES", "OK", "RETRIED", "STATUSES", "Candidate", "Outcome"]

OK: Final = "ok"
FAILURES: Final = (
    "compile_error",
    "compile_timeout",
    "resource_exceeded",
    "run_error",
    "run_timeout",
    "wrong",
    "invalid_result",
)
"""Failures that are the configuration's own: a searcher learns from them."""
RETRIED: Final = ("throttled", "lost")
"""Nobody's fault: sent again, never learnt from."""
STATUSES: Final = (OK, *FAILURES, *RETRIED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration to be evaluated.

    Attributes:
        id: Unique within its searcher; a re-measurement carries the same one.
        config: What the objective gets, a fresh copy for each candidate.
        row: The configuration's row of the space's integer matrix.
        generation: The block it belongs to, for searchers that have generations.
    """

    id: str
    config: Any
    row: tuple[int, ...]
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one evaluation.

    A success without finite values is turned into ``invalid_result`` here, at the one door every
    outcome passes, so that no ranking and no model ever meets NaN.

    Attributes:
        status: One of `STATUSES`.
        values: One number for each objective, in the objective's own units; empty for failures.
        spread: Standard deviation of the samples behind each value, or ``None`` if unknown.
        samples: How many measurements are behind the values, or ``None`` if unknown.
        compile_s: Seconds spent compiling, if that was a step of its own.
        run_s: Seconds the evaluation took.
        message: For people: why it failed.
        metrics: Anything else worth keeping, by name; must be JSON-serialisable.

    Raises:
        OptionError: `status` is not one of `STATUSES`, or a value is not a number.
    """

    status: str
    values: tuple[float, ...] = ()
    spread: tuple[float, ...] | None = field(default=None, kw_only=True)
    samples: int | None = field(default=None, kw_only=True)
    compile_s: float | None = field(default=None, kw_only=True)
    run_s: float | None = field(default=None, kw_only=True)
    message: str = field(default="", kw_only=True)
    metrics: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise OptionError(f"`status` is {self.status!r}; it must be one of {', '.join(STATUSES)}")
        object.__setattr__(self, "values", _numbers("values", self.values))
        if self.spread is not None:
            object.__setattr__(self, "spread", _numbers("spread", self.spread))
        if self.status != OK:
            object.__setattr__(self, "values", ())
        elif not self.values or not all(map(math.isfinite, self.values)):
            shown = ", ".join(map(str, self.values)) or "no value"
            object.__setattr__(self, "status", "invalid_result")
            object.__setattr__(self, "message", self.message or f"the objective returned {shown}")
            object.__setattr__(self, "values", ())

    @property
    def ok(self) -> bool:
        """Whether there are values."""
        return self.status == OK

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; fields that hold their default are left out."""
        data: dict[str, Any] = {"status": self.status}
        for name in ("values", "spread", "samples", "compile_s", "run_s", "message", "metrics"):
            value = getattr(self, name)
            if value is not None and value != () and value != "" and value != {}:
                data[name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_dict`.

        Raises:
            OptionError: `data` is not such a dictionary.
        """
        try:
            options = {name: value for name, value in data.items() if name not in ("status", "values")}
            return cls(data["status"], data.get("values", ()), **options)
        except (KeyError, TypeError) as error:
            raise OptionError(f"not an outcome: {data!r}") from error


def _numbers(name: str, values: Sequence[Any] | float) -> tuple[float, ...]:
    if isinstance(values, Real) and not isinstance(values, bool):  # numpy's numbers included
        values = (float(values),)
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        return tuple(float(value) for value in values)  # type: ignore[union-attr]
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"`{name}` is {values!r}; it must be a tuple of numbers") from error
