"""What every kind of parameter has."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from searchers.errors import ConfigError, SpaceError
from searchers.values import checked_number

__all__ = ["Levels", "Param"]

Levels = npt.NDArray[np.int64]


class Param:
    """A parameter with `n_levels` values.

    Attributes:
        kind: The name of the kind in files.
        n_levels: How many values there are.
        ordered: Whether neighbouring levels are alike (numbers), or merely different (categories).
        knockout_prob: How often an initial candidate lacks this parameter; ``None`` means never,
            and that no later one lacks it either.
        when: A condition over parameters declared earlier; where it is false this one is absent.
        important: Whether a small change of this one is worth more trials than one of the others, as
            of block sizes and warps; searchers that look at neighbours change it more often.
    """

    kind: ClassVar[str]
    n_levels: int
    ordered: bool = True

    def __init__(
        self, *, knockout_prob: float | None = None, when: str | None = None, important: bool = False
    ) -> None:
        if knockout_prob is not None:
            number = checked_number("knockout_prob", knockout_prob)
            if not 0 <= number <= 1:
                raise SpaceError(f"`knockout_prob` is {knockout_prob!r}; a probability lies between 0 and 1")
        if when is not None and not isinstance(when, str):
            raise SpaceError(f"`when` is {when!r}; it must be an expression over parameter names, as text")
        if not isinstance(important, bool):
            raise SpaceError(f"`important` is {important!r}; it must be True or False")
        self.knockout_prob = knockout_prob
        self.when = when
        self.important = important

    def value(self, level: int) -> Any:
        """The value of one level."""
        raise NotImplementedError

    def level(self, value: Any) -> int:
        """The level of a value.

        Raises:
            ConfigError: `value` is not one of this parameter's.
        """
        raise NotImplementedError

    def nearest(self, value: Any) -> int:
        """The level that stands for a value somebody uses today, which need not be one of the values.

        Raises:
            ConfigError: There is none.
        """
        return self.level(value)

    def values(self, levels: Levels) -> npt.NDArray[Any]:
        """The values of many levels, as numbers where all are, else as an object array."""
        result = np.empty(len(levels), dtype=object)
        for position, level in enumerate(levels.tolist()):
            result[position] = self.value(level)
        return result

    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value, or ``None`` if they are not all numbers."""
        return None

    def seed_levels(self) -> tuple[int, int]:
        """First and last level that initial candidates prefer."""
        return 0, self.n_levels - 1

    def neighbours(self, level: int, radius: int = 1) -> list[int]:
        """Levels at most `radius` away; for categories, every other level."""
        if not self.ordered:
            return [other for other in range(self.n_levels) if other != level]
        low, high = max(0, level - radius), min(self.n_levels - 1, level + radius)
        return [other for other in range(low, high + 1) if other != level]

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `searchers.files.param_from_dict` makes an equal parameter."""
        data = {"type": self.kind, **self._fields()}
        if self.knockout_prob is not None:
            data["knockout_prob"] = self.knockout_prob
        if self.when is not None:
            data["when"] = self.when
        if self.important:
            data["important"] = True
        return data

    def _fields(self) -> dict[str, Any]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_dict() == self.to_dict()

    __hash__ = None  # type: ignore[assignment]  # equality is by content, and contents may be unhashable

    def __repr__(self) -> str:
        fields = {k: v for k, v in self.to_dict().items() if k != "type" and v is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in fields.items())})"

    def _refuse(self, value: Any) -> ConfigError:
        if self.n_levels <= 12:
            allowed = ", ".join(repr(self.value(level)) for level in range(self.n_levels))
        else:
            allowed = f"{self.value(0)!r} to {self.value(self.n_levels - 1)!r}, {self.n_levels} values"
        return ConfigError(f"{value!r} is not a value of this parameter; it takes {allowed}")
