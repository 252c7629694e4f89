"""What the searchers' constructors check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from searchers.errors import OptionError

__all__ = ["compile_timeout_options", "configs_option", "number_option", "share_option", "whole_option"]


def whole_option(name: str, value: Any, least: int = 1) -> int:
    """`value`, a whole number of at least `least`.

    Raises:
        OptionError: It is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise OptionError(f"`{name}` is {value!r}; it must be a whole number of at least {least}")
    return int(value)


def number_option(name: str, value: Any, least: float = 0.0) -> float:
    """`value`, a finite number of at least `least`.

    Raises:
        OptionError: It is not.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:
        raise OptionError(f"`{name}` is {value!r}; it must be a finite number of at least {least:g}")
    return float(value)


def share_option(name: str, value: Any, *, one: bool = False) -> float:
    """`value`, a number between 0 and 1 that is neither; with `one`, it may be 1.

    Raises:
        OptionError: It is not.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 < value <= 1 or (value == 1 and not one):
        most = "at most 1" if one else "less than 1"
        raise OptionError(f"`{name}` is {value!r}; it must be a number above 0 and {most}")
    return float(value)


def configs_option(name: str, value: Any) -> list[Any]:
    """`value`, a list of configurations, which are looked at later.

    Raises:
        OptionError: It is not.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionError(f"`{name}` is {value!r}; it must be a list of configurations")
    return list(value)


def compile_timeout_options(lower_bound: Any, quantile: Any) -> tuple[float, float]:
    """`compile_timeout_lower_bound` and `compile_timeout_quantile`, see `PatternSearch`.

    Raises:
        OptionError: One of them has a value it cannot have.
    """
    return (
        number_option("compile_timeout_lower_bound", lower_bound),
        share_option("compile_timeout_quantile", quantile, one=True),
    )
