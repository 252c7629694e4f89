"""For users of Ray Tune: objectives as trainables, defaults that cost little, and results there and back.

| name | what it is |
|---|---|
| `run` | a whole experiment in one call |
| `trainable` | an objective as a class for `ray.tune.Tuner`, which reports failures and does not raise |
| `tune_config`, `run_config` | what to give to a `Tuner` of your own |
| `BatchSearcher` | several configurations in one trial while evaluations are short |
| `to_search_result`, `to_result_grid` | from Ray Tune's results to a `SearchResult`, and back |
| `MLflowCallback` | trials as runs of MLflow |

Each is loaded when it is first asked for; all of them import Ray Tune.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciq_ray.tune.batching import BatchSearcher
    from ciq_ray.tune.experiment import run, run_config, tune_config
    from ciq_ray.tune.grid import to_result_grid, to_search_result
    from ciq_ray.tune.mlflow_callback import MLflowCallback
    from ciq_ray.tune.objective import trainable

__all__ = [
    "BatchSearcher",
    "MLflowCallback",
    "run",
    "run_config",
    "to_result_grid",
    "to_search_result",
    "trainable",
    "tune_config",
]

_MODULE_OF = {
    "BatchSearcher": "batching",
    "MLflowCallback": "mlflow_callback",
    "run": "experiment",
    "run_config": "experiment",
    "to_result_grid": "grid",
    "to_search_result": "grid",
    "trainable": "objective",
    "tune_config": "experiment",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ciq_ray.tune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ciq_ray.tune.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
