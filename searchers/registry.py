"""Searchers by name or class."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from searchers.checks import configs_option
from searchers.errors import OptionError
from searchers.space import Space

if TYPE_CHECKING:
    from searchers.base import SpaceSearcher

__all__ = ["NAMES", "create", "options_of", "refusal", "searcher_class"]

_CLASSES = {
    "auto": ("searchers.auto", "AutoSearch"),
    "bayesian": ("searchers.bayesian", "BayesianSearch"),
    "de": ("searchers.differential_evolution", "DifferentialEvolutionSearch"),
    "de_surrogate": ("searchers.de_surrogate", "DESurrogateHybrid"),
    "finite": ("searchers.finite_search", "FiniteSearch"),
    "genetic": ("searchers.genetic", "GeneticSearch"),
    "lfbo_pattern": ("searchers.lfbo_pattern", "LFBOPatternSearch"),
    "lfbo_tree": ("searchers.lfbo_tree", "LFBOTreeSearch"),
    "pattern": ("searchers.pattern", "PatternSearch"),
    "random": ("searchers.random_search", "RandomSearch"),
}
NAMES = tuple(sorted(_CLASSES))
"""What `create` takes."""
_COMMON = ("space", "metric", "mode", "seed", "initial_configs")


def refusal(name: str) -> str | None:
    """What to say of a name that no searcher has, ``None`` if one has it."""
    if name in _CLASSES:
        return None
    near = difflib.get_close_matches(str(name), NAMES, 1)
    return f"it must be one of {', '.join(NAMES)}" + (f"; did you mean {near[0]!r}?" if near else "")


def searcher_class(name: str | type[SpaceSearcher]) -> type[SpaceSearcher]:
    """The class with this name; a class is its own.

    Raises:
        OptionError: There is none, and the message lists those there are; or the class is none of a searcher.
    """
    if isinstance(name, type):
        from searchers.base import SpaceSearcher

        if not issubclass(name, SpaceSearcher):
            raise OptionError(f"`searcher` is {name!r}; it must be a subclass of searchers.SpaceSearcher")
        return name
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
    name: str | type[SpaceSearcher],
    space: Space | None = None,
    *,
    metric: str | Sequence[str] | None = None,
    mode: str | Sequence[str] | None = None,
    seed: int | None = None,
    effort: str | None = None,
    initial_configs: Sequence[Any] = (),
    points_to_evaluate: Sequence[Any] | None = None,
    evaluated_rewards: Sequence[Any] | None = None,
    **options: Any,
) -> SpaceSearcher:
    """A searcher by its name or its class.

    Args:
        name: One of `NAMES`, or a class.
        space: See `SpaceSearcher`.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        effort: ``"quick"``, ``"full"`` or ``None``, which means "full": how much the algorithm
            explores, where it has such profiles; a class of yours has those of the one it is derived
            from. Options override it. With ``"none"`` there is no search: the space's default
            configuration is evaluated, by a `FiniteSearch`, whatever the name; before it those of
            `initial_configs` and `points_to_evaluate`, if any are given.
        initial_configs: See `SpaceSearcher`.
        points_to_evaluate: Configurations to propose first, after `initial_configs`: Ray Tune's name
            for them.
        evaluated_rewards: The values of `points_to_evaluate` where they have been measured already, a
            number for each (or a list of numbers, with several objectives), ``None`` for one that has
            not. The searcher learns from them and does not propose them.
        **options: The searcher's own.

    Raises:
        OptionError: No such searcher, effort or option; the message lists those there are. Or `effort` is
            ``"none"`` and the space has no default.
    """
    kind = searcher_class(name)
    allowed = options_of(kind)
    unknown = [option for option in options if option not in allowed]
    if unknown:
        shown = kind.__name__ if isinstance(name, type) else repr(name)
        raise OptionError(
            f"`{unknown[0]}` is not an option of {shown}; it has {', '.join(allowed) or 'none'}"
        )
    if effort is not None and "effort" in allowed:  # an option of the class itself
        options, effort = {**options, "effort": effort}, None
    options = {**_profile(kind, effort), **options}
    if effort == "none":
        alone = {"configs": [_default_of(space)]}
        needed = alone if "configs" in allowed else {}
        kind(space, **{**needed, **options}, metric=metric, mode=mode)  # refuses what it cannot have
        kind, options = searcher_class("finite"), alone
    given = configs_option("initial_configs", initial_configs)
    points = [] if points_to_evaluate is None else configs_option("points_to_evaluate", points_to_evaluate)
    rewards = [None] * len(points) if evaluated_rewards is None else evaluated_rewards
    if not isinstance(rewards, (list, tuple)) or len(rewards) != len(points):
        raise OptionError(
            f"`evaluated_rewards` is {rewards!r}; it must be a list with a value, or None, for each of the "
            f"{len(points)} `points_to_evaluate`"
        )
    pairs = list(zip(points, rewards, strict=True))
    first = [point for point, reward in pairs if reward is None]
    searcher = kind(
        space,
        **options,
        metric=metric,
        mode=mode,
        seed=seed,
        initial_configs=[*given, *first],
    )
    for point, reward in pairs:
        if reward is not None:
            searcher.add_evaluated_point(point, reward)
    return searcher


def _profile(kind: type[SpaceSearcher], effort: str | None) -> dict[str, Any]:
    """The options that an effort gives a class: those of the first of its bases that has a name."""
    from searchers.effort import options_for

    names = {place: name for name, place in _CLASSES.items()}
    places = [(base.__module__, base.__qualname__) for base in kind.__mro__]
    name = next((names[place] for place in places if place in names), "")
    allowed = options_of(kind)
    return {option: value for option, value in options_for(name, effort).items() if option in allowed}


def _default_of(space: Space | None) -> Any:
    if space is None or space.default is None:
        raise OptionError(
            "`effort` is 'none', which evaluates the default configuration, but the space has none; give "
            "Space(..., default=...) or another effort"
        )
    return space.default
