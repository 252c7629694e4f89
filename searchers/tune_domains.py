"""Ray Tune's search-space domains as parameters of ours.

| Ray Tune | here |
|---|---|
| `choice([...])`, `grid_search([...])` | `Choice` |
| `randint(a, b)`, `qrandint(a, b, q)` | `Range`; `randint` leaves `b` out, as Ray Tune does |
| `lograndint(a, b)`, `qlograndint` | `Choice` of whole numbers, evenly spaced in the logarithm |
| `quniform(a, b, q)` | `Range` |
| `uniform(a, b)` | `Range` of 65 values |
| `loguniform(a, b)`, `qloguniform` | `LogRange` of 65 values |

Normal distributions and `sample_from` have no levels and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from searchers.errors import SpaceError
from searchers.params import Choice, Literal, LogRange, Param, Range

__all__ = ["from_domain", "from_param_space"]

CONTINUOUS_LEVELS = 65
"""A continuous domain is cut into this many values, both ends included."""


def from_param_space(node: Any) -> Any:
    """A whole Ray Tune ``param_space``: domains become parameters, constants become literals."""
    if isinstance(node, Param):
        return node
    if is_domain(node):
        return from_domain(node)
    if isinstance(node, Mapping):
        return {name: from_param_space(child) for name, child in node.items()}
    return Literal(node)


def is_domain(node: Any) -> bool:
    """Whether `node` is one of Ray Tune's domains (without importing Ray Tune)."""
    if isinstance(node, Mapping):
        return set(node) == {"grid_search"}
    return any(kind.__module__ == "ray.tune.search.sample" for kind in type(node).__mro__)


def from_domain(domain: Any) -> Param:
    """One domain as a parameter.

    Raises:
        SpaceError: It is of a kind that has no levels.
    """
    if isinstance(domain, Mapping):
        return Choice(domain["grid_search"])
    kind = type(domain).__name__
    if kind == "Categorical":
        return Choice(list(domain.categories))
    sampler = domain.get_sampler() if hasattr(domain, "get_sampler") else None
    quantum = getattr(sampler, "q", None)
    if quantum is not None:
        sampler = sampler.get_sampler()  # type: ignore[union-attr]
    scale = type(sampler).__name__.strip("_")
    if kind == "Integer" and scale == "Uniform":
        step = int(quantum or 1)
        # the upper limit is left out, but not when a quantum is given
        last = domain.upper - (0 if quantum and quantum > 1 else 1)
        return Range(domain.lower, max(domain.lower, last), min(step, max(1, last - domain.lower)))
    if kind == "Integer" and scale == "LogUniform":
        return Choice(_log_integers(domain.lower, domain.upper - 1, int(quantum or 1)))
    if kind == "Float" and scale == "Uniform" and math.isfinite(domain.lower) and math.isfinite(domain.upper):
        step = quantum or (domain.upper - domain.lower) / (CONTINUOUS_LEVELS - 1)
        return Range(float(domain.lower), float(domain.upper), step)
    if kind == "Float" and scale == "LogUniform":
        return LogRange(domain.lower, domain.upper, CONTINUOUS_LEVELS)
    raise SpaceError(
        f"Ray Tune's {kind} domain with {scale} sampling has no list of values; use choice, randint, "
        "uniform, loguniform or one of their quantised forms"
    )


def _log_integers(low: int, high: int, quantum: int) -> list[int]:
    count = min(CONTINUOUS_LEVELS, high - low + 1)
    if count == 1:
        return [low]
    ratio = (high / low) ** (1 / (count - 1))
    return sorted({round(low * ratio**i / quantum) * quantum or low for i in range(count)})
