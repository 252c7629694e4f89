"""A kernel search on a Ray cluster of two nodes: compiled by some actors, timed by others, and what dies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.errors import ConfigurationError
from ciq_ray.race import Plan
from ciq_ray.types import WorkerTypes
from tests.ciq_ray.kernels.host_kernel import Assassin, HostKernel

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_nodes")]

FAST: dict[str, Any] = {"budget_ms": 2.0, "min_samples": 3, "warmup_ms": 2.0, "window_ms": 1.0}


def search(kernel: HostKernel, **fields: Any) -> Search:
    options: dict[str, Any] = {
        "objective_function": kernel,
        "search_config": SearchConfiguration(generations=2, pool_size=8),
        "searcher": "random",
        "seed": 1,
        "worker_type": WorkerTypes.RAY,
        "remeasure_every": 0,
        "disable_progress_bar": True,
        **fields,
    }
    return Search(**options)


def test_a_search_and_its_race(records):
    plan = Plan(finalists=2, pick_blocks=2, verdict_blocks=6, windows=1)
    kernel = HostKernel(("ok", "segfault", "no_compile"))
    result = search(kernel, final_race=plan).start(num_workers=2, devices=1, task_timeout=5, **FAST)
    found = [record for record in records(result.folder) if record["t"] == "outcome"]
    statuses = {record["id"]: record["outcome"]["status"] for record in found}
    expected = {"ok": "ok", "segfault": "run_error", "no_compile": "compile_error"}
    for row in result.rows():
        assert statuses[str(row["param_id"])] == expected[row["params"]["behaviour"]]
    assert len(statuses) == 16
    assert result.verdict is not None
    assert all(record["place"]["node"] for record in found)


def test_two_owners_compare_by_the_control_of_each(records):
    kernel = HostKernel()
    result = search(kernel, final_race=False).start(num_workers=1, devices=2, task_timeout=5, **FAST)
    found = [record for record in records(result.folder) if record["t"] == "outcome"]
    timed = [record for record in found if "same_binary_as" not in record["outcome"]["metrics"]]
    for record in timed:
        assert record["normalized"][0] == pytest.approx(
            record["outcome"]["values"][0] / record["baseline"][0]
        )
    assert Counter(record["outcome"]["status"] for record in found) == {"ok": 16}


def test_an_owner_that_dies_is_replaced(records, tmp_path):
    made = search(Assassin(str(tmp_path / "done")), final_race=False)
    result = made.start(num_workers=1, devices=1, task_timeout=5, **FAST)
    assert (tmp_path / "done").exists()
    found = [record for record in records(result.folder) if record["t"] == "outcome"]
    assert len({record["id"] for record in found}) == len(found) == 16
    assert {record["outcome"]["status"] for record in found} == {"ok"}


def test_a_number_of_devices_is_asked_for():
    with pytest.raises(ConfigurationError, match=r"`devices` is \['GPU-1'\]; with RAY it is a number"):
        search(HostKernel()).start(devices=["GPU-1"])
