"""Reading what ``@triton.autotune`` was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ciq_ray.errors import ConfigurationError
from searchers import Choice

__all__ = ["read_autotuner"]


def read_autotuner(
    autotuner: Any, option_names: Sequence[str]
) -> tuple[Any, list[dict[str, Any]], dict[str, Choice], list[str]]:
    """The function, the configurations, the space they span, and what is put back before each launch.

    Args:
        autotuner: What the decorator made.
        option_names: Options of the compiler that a configuration can have.

    Returns:
        The ``@triton.jit`` function; its configurations, all with the same names; for each name the values
        that occur, in order; names of arguments in ``reset_to_zero`` and ``restore_value``.

    Raises:
        ConfigurationError: It is no such thing, or has what cannot be taken over.
    """
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    if not isinstance(autotuner, Autotuner):
        raise ConfigurationError(
            f"`autotuner` is {autotuner!r}; it must be a function under @triton.autotune"
        )
    if not isinstance(autotuner.fn, JITFunction):
        raise ConfigurationError(
            f"`autotuner` wraps a {type(autotuner.fn).__name__}, which cannot be taken over; put what "
            "@triton.heuristics computes into `arguments` or into the space"
        )
    hooked = autotuner.user_defined_pre_hook or any(config.pre_hook for config in autotuner.configs)
    if hooked or autotuner.user_defined_post_hook:
        raise ConfigurationError(
            '`autotuner` has hooks, which cannot be taken over; give arrays they restore role="inout"'
        )
    found = []
    for config in autotuner.configs:
        options = {name: getattr(config, name, None) for name in option_names}
        found.append({**config.kwargs, **options})
    names = list(dict.fromkeys(name for config in found for name in config))
    missing = [name for name in names if any(name not in config for config in found)]
    if missing:
        raise ConfigurationError(
            f"`autotuner` has configurations without {missing[0]!r}, which others have; give all of "
            "them the same names"
        )
    # an option that all leave alone is nothing to tune
    idle = {"num_ctas": 1, "maxnreg": None}
    names = [n for n in names if not (n in idle and all(config[n] == idle[n] for config in found))]
    configs = [{name: config[name] for name in names} for config in found]
    space = {}
    for name in names:
        values = list(dict.fromkeys(config[name] for config in configs))
        if all(isinstance(value, (int, float)) for value in values):
            values.sort()
        space[name] = Choice(values)
    return autotuner.fn, configs, space, [*autotuner.reset_to_zero, *autotuner.restore_value]
