"""RAY on a machine with NVIDIA GPUs: which one an evaluation sees, and that its name is the card's own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration, WorkerTypes
from ciq_ray.journal import read_records
from searchers import Range

pytestmark = pytest.mark.gpu

CONFIG = SearchConfiguration(generations=1, pool_size=6)


def visible(config: dict[str, Any]) -> float:
    """How many GPUs CUDA finds in the process of an evaluation."""
    import ctypes

    cuda = ctypes.CDLL("libcuda.so.1")
    count = ctypes.c_int(0)
    if cuda.cuInit(0) == 0:
        cuda.cuDeviceGetCount(ctypes.byref(count))
    return float(count.value)


def places(runs: Path, **options: Any) -> tuple[list[float], list[dict[str, str]]]:
    search = Search(
        objective_function=visible,
        search_space={"x": Range(0, 5)},
        search_config=CONFIG,
        worker_type=WorkerTypes.RAY,
        seed=0,
        disable_progress_bar=True,
    )
    table = search.start(num_workers=1, **options).get_results()
    outcomes = [record for record in read_records(runs / "1") if record["t"] == "outcome"]
    return table["score"].tolist(), [record["place"] for record in outcomes]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("CIQ_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_each_outcome_carries_the_uuid_of_its_gpu(runs: Path) -> None:
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    uuids = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    scores, found = places(runs, num_gpus=1)
    assert scores == [1.0] * 6
    assert {place["gpu"] for place in found} <= set(uuids)
    assert all(place["node"] and place["actor"] for place in found)


def test_without_one_none_is_seen(runs: Path) -> None:
    scores, found = places(runs)
    assert scores == [0.0] * 6
    assert not any("gpu" in place for place in found)
