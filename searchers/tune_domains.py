"""Ray Tune's search-space domains as parameters of ours.

| Ray Tune | here |
|---|---|
| `choice([...])`, `grid_search([...])` | `Choice` |
| `randint(a, b)` | `Range`, which leaves `b` out, as Ray Tune does |
| `qrandint(a, b, q)`, `quniform(a, b, q)` | `Range` of the multiples of `q`, `b` included unless `q` is 1 |
| `uniform(a, b)` | `Range` of 65 values |
| `loguniform(a, b)` | `LogRange` of 65 values |
| `lograndint(a, b)`, `qlograndint`, `qloguniform` | `Choice` of at most 65, evenly spaced in the logarithm |

Normal distributions have no levels and are refused. `sample_from`, and constants that are objects, never
get here: Ray Tune takes them out of ``param_space`` and puts them back into a trial's configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from searchers.errors import SpaceError
from searchers.params import MAX_LEVELS, Choice, Literal, LogRange, Param, Range

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
    if isinstance(node, (list, tuple)) and _has_domain(node):
        return [from_param_space(child) for child in node]
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
    kind = type(domain).__name__
    if isinstance(domain, Mapping) or kind == "Categorical":
        values = domain["grid_search"] if isinstance(domain, Mapping) else domain.categories
        if _has_domain(list(values)):
            raise SpaceError(
                f"{values!r} has a domain inside a choice, which is more than one parameter; give "
                "`searchers.Space` a parameter with `when`"
            )
        return Choice(list(values))
    sampler = domain.get_sampler() if hasattr(domain, "get_sampler") else None
    quantum = getattr(sampler, "q", None)
    if quantum is not None:
        sampler = sampler.get_sampler()  # type: ignore[union-attr]
    scale = type(sampler).__name__.strip("_")
    if kind in ("Integer", "Float") and math.isfinite(domain.lower) and math.isfinite(domain.upper):
        low, high = domain.lower, domain.upper
        if quantum is not None:
            # a limit between two multiples is drawn inwards; the tolerance is Ray Tune's
            low, high = math.ceil(low / quantum - 1e-9) * quantum, math.floor(high / quantum + 1e-9) * quantum
        if kind == "Integer" and quantum in (None, 1):
            high -= 1
        if low > high:
            raise SpaceError(f"Ray Tune's {kind} domain from {domain.lower} to {domain.upper} has no value")
        if low == high:
            return Choice([low])
        stepped = scale == "Uniform" and (kind == "Integer" or quantum is not None)
        if stepped and (high - low) / (quantum or 1) >= MAX_LEVELS:
            raise SpaceError(
                f"Ray Tune's {kind} domain from {domain.lower} to {domain.upper} has more than the "
                f"{MAX_LEVELS} values there may be; use a larger `q`, or a logarithmic form"
            )
        if scale == "Uniform" and kind == "Integer":
            return Range(int(low), int(high), int(quantum or 1))
        if scale == "Uniform":
            return Range(float(low), float(high), quantum or (high - low) / (CONTINUOUS_LEVELS - 1))
        if scale == "LogUniform" and kind == "Float" and quantum is None:
            return LogRange(low, high, CONTINUOUS_LEVELS)
        if scale == "LogUniform":
            return Choice(_log_multiples(low, high, quantum or 1))
    raise SpaceError(
        f"Ray Tune's {kind} domain with {scale} sampling has no list of values; use choice, randint, "
        "uniform, loguniform or one of their quantised forms"
    )


def _has_domain(node: Any) -> bool:
    """Whether there is a domain in `node`."""
    if is_domain(node):
        return True
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    return any(map(_has_domain, children))


def _log_multiples(low: float, high: float, quantum: float) -> list[float]:
    """Multiples of `quantum` from `low` to `high`, both included, evenly spaced in the logarithm."""
    count = min(CONTINUOUS_LEVELS, round((high - low) / quantum) + 1)
    ratio = (high / low) ** (1 / max(1, count - 1))
    return sorted({round(low * ratio**i / quantum) * quantum for i in range(count)})
