"""Searchers by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from searchers.errors import OptionError
from searchers.space import Space

if TYPE_CHECKING:
    from searchers.base import SpaceSearcher

__all__ = ["NAMES", "create", "options_of", "refusal", "searcher_class"]

_CLASSES = {
    "finite": ("searchers.finite_search", "FiniteSearch"),
    "genetic": ("searchers.genetic", "GeneticSearch"),
    "random": ("searchers.random_search", "RandomSearch"),
}
NAMES = tuple(sorted(_CLASSES))
"""What `create` takes."""
_PLANNED = ("auto", "bayesian", "de", "de_surrogate", "lfbo_pattern", "lfbo_tree", "pattern")
_COMMON = ("space", "metric", "mode", "seed", "initial_configs")


def refusal(name: str) -> str | None:
    """What to say of a name that no searcher has, ``None`` if one has it."""
    if name in _CLASSES:
        return None
    if name in _PLANNED:
        return f"it is not in this version, which has {', '.join(NAMES)}"
    near = difflib.get_close_matches(str(name), NAMES, 1)
    return f"it must be one of {', '.join(NAMES)}" + (f"; did you mean {near[0]!r}?" if near else "")


def searcher_class(name: str) -> type[SpaceSearcher]:
    """The class with this name.

    Raises:
        OptionError: There is none; the message lists those there are.
    """
    refused = refusal(name)
    if refused is not None:
        raise OptionError(f"`searcher` is {name!r}; {refused}")
    module, attribute = _CLASSES[name]
    found: type[SpaceSearcher] = getattr(importlib.import_module(module), attribute)
    return found


def options_of(kind: type[SpaceSearcher]) -> list[str]:
    """The options of a searcher's own, without those that all have."""
    return [name for name in inspect.signature(kind).parameters if name not in _COMMON]


def create(
    name: str,
    space: Space | None = None,
    *,
    metric: str | Sequence[str] | None = None,
    mode: str | Sequence[str] | None = None,
    seed: int | None = None,
    effort: str | None = None,
    initial_configs: Sequence[Any] = (),
    **options: Any,
) -> SpaceSearcher:
    """A searcher by its name.

    Args:
        name: One of `NAMES`.
        space: See `SpaceSearcher`.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        effort: ``"quick"``, ``"full"`` or ``None``, which means "full": how much the algorithm
            explores, where it has such profiles. Options override it.
        initial_configs: See `SpaceSearcher`.
        **options: The searcher's own.

    Raises:
        OptionError: No such searcher, effort or option; the message lists those there are.
    """
    from searchers.effort import options_for

    kind = searcher_class(name)
    allowed = options_of(kind)
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise OptionError(
            f"`{unknown[0]}` is not an option of {name!r}; it has {', '.join(allowed) or 'none'}"
        )
    return kind(
        space,
        **{**options_for(name, effort), **options},
        metric=metric,
        mode=mode,
        seed=seed,
        initial_configs=initial_configs,
    )
