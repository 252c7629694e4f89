"""What `start` takes for a RAY search: Ray's options for an actor, checked before anything is started."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ciq_ray.errors import ConfigurationError
from ciq_ray.warn import warn_caller

__all__ = ["OPTIONS", "ActorOptions", "read_options"]

OPTIONS: Final = (
    "num_cpus",
    "num_gpus",
    "resources",
    "memory",
    "accelerator_type",
    "label_selector",
    "scheduling_strategy",
    "runtime_env",
)
"""Options of Ray's that are passed on, as Ray documents them."""

_OURS: Final = (
    "allow_out_of_order_execution",
    "concurrency_groups",
    "enable_task_events",
    "fallback_strategy",
    "get_if_exists",
    "lifetime",
    "max_concurrency",
    "max_pending_calls",
    "max_restarts",
    "max_task_retries",
    "name",
    "namespace",
    "num_returns",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
)
_STRATEGIES: Final = ("DEFAULT", "SPREAD")
_ACCELERATOR_SHARE: Final = 0.001
"""What Ray itself asks for of the resource that stands for an accelerator's type."""


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """What one actor asks of the cluster.

    Attributes:
        options: For Ray's ``.options()``; `num_cpus` and `num_gpus` are always there.
        max_resends: How often a candidate whose actor died under it is sent again; ``None`` for the engine's.
    """

    options: Mapping[str, Any] = field(default_factory=lambda: {"num_cpus": 1, "num_gpus": 0})
    max_resends: int | None = None

    @property
    def request(self) -> dict[str, float]:
        """The resources that one actor takes, under Ray's names for them."""
        asked = {
            "CPU": self.options["num_cpus"],
            "GPU": self.options["num_gpus"],
            "memory": self.options.get("memory", 0),
            **self.options.get("resources", {}),
        }
        if "accelerator_type" in self.options:
            asked[f"accelerator_type:{self.options['accelerator_type']}"] = _ACCELERATOR_SHARE
        return {name: float(amount) for name, amount in asked.items() if amount}

    @property
    def words(self) -> str:
        """The options that decide where an actor fits, as they were written."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items() if name != "runtime_env")


def read_options(options: Mapping[str, Any], *, warns: bool = True) -> ActorOptions:
    """Check keyword arguments of `start`.

    Args:
        options: Any of `OPTIONS` and ``max_resends``. ``None`` is the default: one CPU, no GPU, and
            nothing else.
        warns: Whether to warn of those that nobody knows.

    Raises:
        ConfigurationError: Ray would refuse it, or it is one that the worker sets itself.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name in _OURS:
            raise ConfigurationError(
                f"`{name}` is set by the RAY worker itself; the options it takes are {', '.join(OPTIONS)} "
                "and max_resends"
            )
    resends = given.pop("max_resends", None)
    if resends is not None and (not isinstance(resends, int) or isinstance(resends, bool) or resends < 0):
        raise ConfigurationError(f"`max_resends` is {resends!r}; it must be a whole number, at least 0")
    if warns:
        _warn_unknown([name for name in given if name not in OPTIONS])
    actor: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": 0,
        **{name: given[name] for name in OPTIONS if name in given},
    }
    for name in ("num_cpus", "num_gpus", "memory"):
        _check_amount(name, actor.get(name, 0))
    if isinstance(resources := actor.get("resources"), Mapping):
        for name, amount in resources.items():
            _check_amount(f"resources[{name!r}]", amount)
    _check_with_ray(actor)
    gpus = actor["num_gpus"]
    if gpus > 1 and gpus != int(gpus):
        raise ConfigurationError(f"`num_gpus` is {gpus!r}; above 1 it must be a whole number")
    return ActorOptions(actor, resends)


def _warn_unknown(names: list[str]) -> None:
    if not names:
        return
    words = ", ".join(f"`{name}`" + _suggestion(name, (*OPTIONS, "max_resends")) for name in names)
    warn_caller(f"RayWorker does not use {words}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _check_amount(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ConfigurationError(f"`{name}` is {value!r}; it must be a number, at least 0")


def _check_environment(environment: Mapping[str, Any]) -> None:
    """Look for mistyped names, which Ray passes on; others may be those of a plugin."""
    from ray.runtime_env import RuntimeEnv

    known = {name for name in RuntimeEnv.known_fields if not name.startswith("_")} | {"nsight", "rocprof_sys"}
    for name in environment:
        if name not in known | RuntimeEnv.known_fields and (hint := _suggestion(name, known)):
            raise ValueError(f"it does not know {name!r}{hint}")


def _check_with_ray(options: dict[str, Any]) -> None:
    import ray

    class Probe:
        pass

    for name, value in options.items():
        try:
            ray.remote(Probe).options(**{name: value})
            if name == "runtime_env":
                _check_environment(ray.runtime_env.RuntimeEnv(**value))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"`{name}` is {value!r}, which Ray does not take: {error}") from error
    strategy = options.get("scheduling_strategy")
    if isinstance(strategy, str) and strategy not in _STRATEGIES:
        raise ConfigurationError(
            f"`scheduling_strategy` is {strategy!r}; it must be one of {', '.join(_STRATEGIES)}, or an "
            "object of ray.util.scheduling_strategies"
        )
