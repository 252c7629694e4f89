"""What `start` takes for a RAY search: Ray's options for an actor, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ciq_ray.errors import ConfigurationError
from ciq_ray.worker.adapter import warn_unused

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


def read_options(options: Mapping[str, Any]) -> ActorOptions:
    """Check keyword arguments of `start`; there is a warning for those that nobody knows.

    Args:
        options: Any of `OPTIONS` and ``max_resends``. ``None`` is the default: one CPU, no GPU, and
            nothing else.

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
    warn_unused("RayWorker", {name: value for name, value in given.items() if name not in OPTIONS})
    actor: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": 0,
        **{name: given[name] for name in OPTIONS if name in given},
    }
    _check_with_ray(actor)
    gpus = actor["num_gpus"]
    if gpus > 1 and gpus != int(gpus):
        raise ConfigurationError(f"`num_gpus` is {gpus!r}; above 1 it must be a whole number")
    return ActorOptions(actor, resends)


def _check_with_ray(options: dict[str, Any]) -> None:
    import ray

    class Probe:
        pass

    for name, value in options.items():
        try:
            ray.remote(Probe).options(**{name: value})
            if name == "runtime_env":
                ray.runtime_env.RuntimeEnv(**value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"`{name}` is {value!r}, which Ray does not take: {error}") from error
    strategy = options.get("scheduling_strategy")
    if isinstance(strategy, str) and strategy not in _STRATEGIES:
        raise ConfigurationError(
            f"`scheduling_strategy` is {strategy!r}; it must be one of {', '.join(_STRATEGIES)}, or an "
            "object of ray.util.scheduling_strategies"
        )
