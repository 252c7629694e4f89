"""From what a user gives as a searcher to the searcher itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ciq_ray import settings
from ciq_ray.errors import ConfigurationError
from searchers.initial_population import InitialPopulationStrategy
from searchers.registry import create, options_of, searcher_class

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from searchers.base import SpaceSearcher
    from searchers.space import Space

__all__ = ["effective_options", "make_searcher", "options_record", "raw_config", "searcher_record"]

logger = logging.getLogger(__name__)

_GENETIC_FIELDS = (
    "generations",
    "pool_size",
    "cull_size",
    "mutate_rate",
    "objective_weights",
    "init_with_true_random_threshold",
    "enable_large_fail_pool",
)


_STRATEGY = "initial_population_strategy"


def effective_options(search: Search) -> dict[str, Any]:
    """`searcher_options`, and what the environment makes of them; what the journal keeps of them.

    ``CIQ_AUTOTUNER_INITIAL_POPULATION`` overrides `initial_population_strategy` for a searcher given by
    name or class that has it.

    Raises:
        ConfigurationError: The variable has a value that is no strategy.
        searchers.OptionError: There is no such searcher.
    """
    options = dict(search.searcher_options)
    if isinstance(options.get(_STRATEGY), InitialPopulationStrategy):
        options[_STRATEGY] = str(options[_STRATEGY])  # which JSON gives back as it was
    override = settings.initial_population()
    kind = searcher_class(search.searcher) if isinstance(search.searcher, str) else search.searcher
    if override is not None and override not in tuple(InitialPopulationStrategy):
        raise ConfigurationError(
            f"CIQ_AUTOTUNER_INITIAL_POPULATION is {override!r}; it must be one of "
            f"{', '.join(InitialPopulationStrategy)}"
        )
    if override is None or not isinstance(kind, type) or _STRATEGY not in options_of(kind):
        return options
    return {**options, _STRATEGY: override}


def make_searcher(
    search: Search,
    seed: int,
    *,
    options: dict[str, Any] | None = None,
    further_rows: Sequence[Sequence[int]] = (),
) -> SpaceSearcher:
    """The searcher of a search, ready to be asked.

    A searcher given by name or class is configured by `SearchConfiguration`, as far as it has the same
    options, and by `searcher_options`, which win. An instance is taken as it is; it gets the space if
    it has none, and a warning in the log says what it does not get.

    Args:
        search: The search.
        seed: Of the searcher.
        options: What `effective_options` made of its options when the run began; ``None``: makes of them now.
        further_rows: Rows to propose after the initial configurations; an instance does not get them.

    Raises:
        ConfigurationError: An instance has another space, or has been used already.
        searchers.OptionError: An option is unknown or has a value it cannot have.
    """
    from searchers.base import SpaceSearcher

    config = search.search_config
    modes = [config.problem_type.value] * config.num_objectives
    names = ["score"] if len(modes) == 1 else [f"score_{i}" for i in range(len(modes))]
    if isinstance(search.searcher, SpaceSearcher):
        _say_what_is_missed(search.searcher, search, len(further_rows))
        return _adopted(search.searcher, search, names, modes)
    if not isinstance(search.searcher, (str, type)):
        raise ConfigurationError(
            f"`searcher` is {search.searcher!r}; it must be a name, a SpaceSearcher class or an instance"
        )
    kind = searcher_class(search.searcher)
    options = effective_options(search) if options is None else options
    if "generations" in options_of(kind) and "pool_size" in options_of(kind):
        options = {name: getattr(config, name) for name in _GENETIC_FIELDS} | options
    common: dict[str, Any] = {
        "metric": names if len(names) > 1 else names[0],
        "mode": modes if len(modes) > 1 else modes[0],
        "seed": seed,
        "initial_configs": [*_initial(search), *(raw_config(search.space, row) for row in further_rows)],
    }
    _check_default(search, options, common["initial_configs"])
    return create(search.searcher, search.space, **common, **options)


def _check_default(search: Search, options: dict[str, Any], given: list[Any]) -> None:
    """Name the environment's variable, if it is what asks for a default that there is not."""
    strategy = InitialPopulationStrategy.FROM_DEFAULT
    overridden = options.get(_STRATEGY) == strategy and search.searcher_options.get(_STRATEGY) != strategy
    if overridden and search.space.default is None and not given:
        raise ConfigurationError(
            "CIQ_AUTOTUNER_INITIAL_POPULATION is 'from_default', but the space has no default; unset it, or "
            "give Space(..., default=...) or `initial_configs`"
        )


def _adopted(searcher: SpaceSearcher, search: Search, names: list[str], modes: list[str]) -> SpaceSearcher:
    if searcher.n_proposed:
        raise ConfigurationError("`searcher` has proposed candidates already; give a new one")
    if search.searcher_options:
        raise ConfigurationError("`searcher_options` are for a searcher given by name or class")
    if searcher.space is None:
        searcher.space = search.space
    elif searcher.space.fingerprint != search.space.fingerprint:
        raise ConfigurationError(
            "`searcher` has another space than `search_space`; give it none, or the same"
        )
    searcher.set_search_properties(
        names if len(names) > 1 else names[0], modes if len(modes) > 1 else modes[0], {}
    )
    return searcher


def _say_what_is_missed(searcher: SpaceSearcher, search: Search, n_cached: int) -> None:
    """Warn of the cache and the environment, which reach a searcher through its constructor only."""
    strategy, override = getattr(searcher, _STRATEGY, None), settings.initial_population()
    missed = []
    if n_cached:
        missed.append(f"it does not begin with the {n_cached} configurations of the cache")
    if strategy == InitialPopulationStrategy.FROM_BEST_AVAILABLE and search.cache is None:
        missed.append(f"its {_STRATEGY} {str(strategy)!r} does not switch the cache on")
    if strategy is not None and override is not None and override != strategy:
        missed.append(f"CIQ_AUTOTUNER_INITIAL_POPULATION does not override its {_STRATEGY}")
    if missed:
        logger.warning(
            "`searcher` is an instance, which is taken as it is: %s; give its name or class, and its options "
            "as `searcher_options`",
            ", and ".join(missed),
        )


def raw_config(space: Space, row: Sequence[int]) -> Any:
    """The configuration of a row in the form in which `initial_configs` takes it: parts not rendered."""
    matrix = np.array([row], dtype=np.int32)
    return space.encoding.decode(list(row), space.inactive(matrix)[0].tolist(), raw=True)


def _initial(search: Search) -> list[Any]:
    if search.initial_configs is not None:
        return list(search.initial_configs)
    return [] if search.space.default is None else [search.space.default]


def searcher_record(searcher: Any) -> dict[str, str | None]:
    """What the journal keeps of a searcher: its name, or its class for people to read."""
    if isinstance(searcher, str):
        return {"name": searcher, "class": None}
    kind = searcher if isinstance(searcher, type) else type(searcher)
    return {"name": None, "class": f"{kind.__module__}:{kind.__qualname__}"}


def options_record(options: dict[str, Any]) -> dict[str, Any] | None:
    """What the journal keeps of `searcher_options`, ``None`` if JSON would not give the same ones back."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
    except (RecursionError, TypeError, ValueError):
        return None
    return plain if _same(plain, options) else None


def _same(left: Any, right: Any) -> bool:
    """Whether two things are equal and of the same types, throughout."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
