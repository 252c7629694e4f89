"""The first record of a run's journal: what is searched, by what, where, and from where it started."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciq_ray import origin
from ciq_ray._version import __version__
from ciq_ray.race import Plan
from ciq_ray.resuming import tracker_record
from ciq_ray.searching import options_record, searcher_record
from ciq_ray.spaces import describe
from ciq_ray.types import WorkerTypes
from ciq_ray.warm_start import cache_record

if TYPE_CHECKING:
    from ciq_ray.ciq import Search

__all__ = ["run_header"]


def run_header(
    search: Search,
    *,
    seed: int,
    options: dict[str, Any],
    cached_rows: list[list[int]],
    num_workers: int | None,
    task_timeout: float | None,
    worker_options: Mapping[str, Any],
) -> dict[str, Any]:
    """The header, as JSON data; `ciq_ray.resuming` goes the other way.

    Args:
        search: What is run.
        seed: Of everything random.
        options: Those of the searcher that are in force.
        cached_rows: Rows of the configurations that came from the cache.
        num_workers: See `Search.start`.
        task_timeout: See `Search.start`.
        worker_options: The further keyword arguments of `Search.start`.
    """
    worker = search.worker_type
    constraints = list(search.constraints)
    return {
        "run_id": search.run_id,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "ciq_ray": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "machine": {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
        },
        "objective": origin.describe(search.objective_function),
        "space": describe(search._space_parts, isinstance(search.search_space, (list, tuple))),
        "space_fingerprint": search.space.fingerprint,
        "constraints": constraints if all(isinstance(text, str) for text in constraints) else None,
        "search_config": search.search_config.to_json_dict(),
        "searcher": searcher_record(search.searcher),
        "searcher_options": options_record(options),
        "seed": seed,
        "initial_rows": None
        if search.initial_configs is None
        else [search.space.encode(config, nearest=True).tolist() for config in search.initial_configs],
        "cached_rows": cached_rows,
        "cache": cache_record(search.cache),
        "specialization_key": search.specialization_key,
        "worker_type": worker.value if isinstance(worker, WorkerTypes) else None,
        "max_evaluations": search.max_evaluations,
        "time_budget_s": search.time_budget_s,
        "target": search.target,
        "exit_on_failure": search.exit_on_failure,
        "final_race": asdict(search.final_race) if isinstance(search.final_race, Plan) else search.final_race,
        "remeasure_every": search.remeasure_every,
        "dump_results": _absolute(search.dump_results),
        "cache_folder": _absolute(search.cache_folder),
        "debug": search.debug,
        "tracker": tracker_record(search.tracker_config),
        "num_workers": num_workers,
        "task_timeout": task_timeout,
        "worker_options": _plain(worker_options),
    }


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON gives back as it was under ``known``, the names of the rest under ``unknown``."""
    known = {name: value for name, value in options.items() if options_record({name: value}) is not None}
    return {"known": known, "unknown": [name for name in options if name not in known]}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
