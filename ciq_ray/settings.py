"""Every environment variable that is read, in one place.

| variable | meaning | default |
|---|---|---|
| `CIQ_RUNS_DIR` | where runs keep their journals | `./ciq_runs` |
| `CIQ_CACHE_DIR` | cache files, best configurations, downloaded search spaces | `~/.cache/ciq_ray` |
| `CIQ_AUTOTUNER_INITIAL_POPULATION` | overrides `initial_population_strategy` (docs/cache.md) | none |
| `CIQ_KEEP_CACHE` | `1`: the cache files of a search are kept when it ends | off |
| `CIQ_SEARCH_SPACES_DIR` | a folder with `manifest.json` and its files, in place of the catalogue | none |
| `CIQ_SEARCH_SPACES_REPO` | a release to fetch search spaces from | none: nothing is fetched |
| `CIQ_GPU_STATE_DIR` | locks of GPUs, and what was set on them (docs/gpu.md) | `/var/lock/ciq-ray-gpu` |
| `CUDA_VISIBLE_DEVICES`, `CUDA_DEVICE_ORDER` | which GPUs there are, as CUDA reads them | all |
| `RAY_ADDRESS` | the cluster that a RAY search joins | none: a local Ray is started |

Values are read when they are needed, so that a change during the life of a process counts.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = [
    "ENV_VISIBLE_DEVICES",
    "cache_dir",
    "gpu_state_dir",
    "initial_population",
    "keep_cache",
    "pci_device_order",
    "ray_address",
    "runs_dir",
    "search_spaces_dir",
    "search_spaces_repo",
    "visible_devices",
]

ENV_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_TRUE = frozenset({"1", "true", "yes", "on"})


def runs_dir() -> Path:
    """The folder of all runs."""
    return Path(os.environ.get("CIQ_RUNS_DIR") or "ciq_runs").expanduser()


def cache_dir() -> Path:
    """The root of all caches."""
    return Path(os.environ.get("CIQ_CACHE_DIR") or "~/.cache/ciq_ray").expanduser()


def initial_population() -> str | None:
    """What overrides the `initial_population_strategy` of searchers, if anything."""
    return os.environ.get("CIQ_AUTOTUNER_INITIAL_POPULATION", "").strip() or None


def keep_cache() -> bool:
    """Whether cache files outlive their search."""
    return os.environ.get("CIQ_KEEP_CACHE", "").strip().lower() in _TRUE


def ray_address() -> str | None:
    """The Ray cluster to join, if one is set."""
    return os.environ.get("RAY_ADDRESS", "").strip() or None


def search_spaces_dir() -> Path | None:
    """A local folder of search spaces, if one is set."""
    value = os.environ.get("CIQ_SEARCH_SPACES_DIR")
    return Path(value).expanduser() if value else None


def search_spaces_repo() -> str | None:
    """The release that search spaces are fetched from, if one is set."""
    return os.environ.get("CIQ_SEARCH_SPACES_REPO") or None


def gpu_state_dir() -> Path | None:
    """The folder of ledgers and locks of GPUs, if one is set."""
    value = os.environ.get("CIQ_GPU_STATE_DIR")
    return Path(value).expanduser() if value else None


def visible_devices() -> str | None:
    """The GPUs that CUDA is to see; ``None`` for all."""
    return os.environ.get(ENV_VISIBLE_DEVICES)


def pci_device_order() -> bool:
    """Whether CUDA numbers GPUs as they come on the bus."""
    return os.environ.get("CUDA_DEVICE_ORDER", "").strip() == "PCI_BUS_ID"
