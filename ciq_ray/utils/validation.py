"""What an objective function returned: checked, and with what led to it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, Strict, model_validator

from ciq_ray._model import Model
from ciq_ray._types.enums import INVALID_SCORE, ScoreValue
from ciq_ray.errors import CiqError, ScoreError

__all__ = ["Score", "validate_inf_nan", "validate_scores"]


def validate_inf_nan(val: float) -> float | Literal["*"]:
    """Turn what JSON has no number for into an invalid score.

    Returns:
        `val`, or `INVALID_SCORE` if it is infinite, NaN, or an integer that no float can hold.
    """
    try:
        return val if math.isfinite(val) else INVALID_SCORE
    except OverflowError:
        return INVALID_SCORE


_Integer = Annotated[int, Strict(), AfterValidator(validate_inf_nan)]
_Number = Annotated[float, Strict(), AfterValidator(validate_inf_nan)]
_Value: TypeAlias = _Integer | _Number | Literal["*"]
_Values: TypeAlias = list[_Value] | tuple[_Value, ...] | _Value


class Score(Model):
    """The values that the objective function returned, and where they come from.

    Attributes:
        score: The raw score returned by the objective function.
        norm_score: The normalized score computed by the worker, from the baseline score and the
            score returned by the objective function. Only needed when normalizing.
        params: The parameters sent to the objective function that generated this score.
        metadata: Additional metadata that is forwarded to the resulting data frame.
        param_id: The unique identifier for the parameters used in the objective function.
        num_objectives: The number of objectives in the optimization problem.
        is_baseline: Indicates if this score is a baseline score.

    Raises:
        ScoreError: A field has another type, or a score has not `num_objectives` values.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    error_class: ClassVar[type[CiqError]] = ScoreError

    score: _Values
    norm_score: _Values | None = None
    params: str | dict[Any, Any] | list[str | dict[Any, Any]]
    metadata: str = ""
    param_id: Annotated[int, Strict()] | str
    num_objectives: Annotated[int, Strict(), Field(gt=0)]
    is_baseline: bool = False

    @model_validator(mode="after")
    def _as_many_as_objectives(self) -> Score:
        for name in ("score", "norm_score"):
            value = getattr(self, name)
            if value is None or value == INVALID_SCORE:
                continue
            count = len(value) if isinstance(value, (list, tuple)) else 1
            if count != self.num_objectives:
                raise ValueError(
                    f"`{name}` is {value!r}, {count} of them; `num_objectives` is {self.num_objectives}"
                )
        return self

    @property
    def failed(self) -> bool:
        """Checks if the score indicates a failure based on the presence of `INVALID_SCORE`."""
        if isinstance(self.score, (list, tuple)):
            return INVALID_SCORE in self.score
        return self.score == INVALID_SCORE

    def to_json(self) -> str:
        """The score as JSON text; parameter values that JSON has no form for as their ``repr``."""
        return json.dumps(self.model_dump(), default=repr)


def validate_scores(func_return: Any, num_objectives: int) -> ScoreValue | tuple[ScoreValue, ...]:
    """Check that what an objective returned has the expected type and number of scores.

    Args:
        func_return: What the objective function returned: a number or `INVALID_SCORE`, or a list,
            tuple or one-dimensional array of `num_objectives` of them. NumPy's numbers are
            converted to Python's.
        num_objectives: How many scores `SearchConfiguration.num_objectives` asks for.

    Returns:
        One score for one objective, else a tuple. Infinities and NaN become `INVALID_SCORE`.

    Raises:
        ScoreError: It is something else, or there are not `num_objectives` scores.
    """
    value = _unboxed(func_return)
    wanted = "one number" if num_objectives == 1 else f"{num_objectives} numbers"
    if isinstance(value, (list, tuple)):
        if len(value) != num_objectives:
            raise ScoreError(
                f"the objective returned {len(value)} scores, {_shown(func_return)}; `num_objectives` is "
                f"{num_objectives}: return {wanted}, or change the search configuration"
            )
        scores = tuple(_one(item, func_return, wanted) for item in value)
        return scores[0] if num_objectives == 1 else scores
    score = _one(value, func_return, wanted)
    if num_objectives != 1:
        if score == INVALID_SCORE:
            return (score,) * num_objectives
        raise ScoreError(
            f"the objective returned one score, {_shown(func_return)}; `num_objectives` is "
            f"{num_objectives}: return {wanted}, or change the search configuration"
        )
    return score


def _one(item: Any, whole: Any, wanted: str) -> ScoreValue:
    item = _unboxed(item)
    if isinstance(item, str) and item == INVALID_SCORE:
        return INVALID_SCORE
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        number = int(item) if isinstance(item, int) else float(item)
        return validate_inf_nan(number)
    raise ScoreError(
        f'the objective returned {_shown(whole)}; it must return {wanted}, with "*" for an invalid score'
    )


def _unboxed(value: Any) -> Any:
    """Python's own number or list for NumPy's and the like, which need not be imported for that."""
    if isinstance(value, (str, bytes, bool, Sequence)) or not hasattr(value, "tolist"):
        return value
    try:
        return value.tolist()
    except Exception as error:
        raise ScoreError(f"the objective returned {_shown(value)}, which has no plain value") from error


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = "an object"
    return f"{text[:120]} ({type(value).__name__})"
