from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration, SearchResult
from ciq_ray.report.data import Evaluated, ReportData
from searchers import Boolean, Choice, Literal, LogRange, PowerOfTwo, Range, Space

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"

SPACE = Space(
    {
        "BLOCK": PowerOfTwo(16, 512),
        "stages": Range(1, 4),
        "order": Choice(["row", HOSTILE]),
        "fast": Boolean(),
        "flag": Literal("-x", knockout_prob=0.5),
        "lr": LogRange(1e-3, 1e-1, total=8),
        "fixed": Literal(7),
    },
    default={
        "BLOCK": 256,
        "stages": 2,
        "order": "row",
        "fast": False,
        "flag": "-x",
        "lr": 1e-3,
        "fixed": 7,
    },
)


def kernel(config: dict[str, Any]) -> float:
    if config["BLOCK"] * config["stages"] > 600:
        raise ObjectiveFailure("resource_exceeded", f"out of shared memory {HOSTILE}")
    if config["stages"] == 3:
        raise ValueError("three stages")
    return abs(config["BLOCK"].bit_length() - 7) + (config["order"] == "row") + 1.0


@pytest.fixture
def searched() -> Callable[..., SearchResult]:
    """Searches for real."""

    def run(objective: Callable[[Any], Any] = kernel, space: Any = SPACE, **options: Any) -> SearchResult:
        config = {"generations": 5, "pool_size": 20}
        config |= {
            name: options.pop(name) for name in list(options) if name in SearchConfiguration.model_fields
        }
        search = Search(
            objective_function=objective,
            search_space=space,
            search_config=SearchConfiguration(**config),
            seed=1,
            disable_progress_bar=True,
            **options,
        )
        return search.start(num_workers=1)

    return run


@pytest.fixture
def made() -> Callable[..., ReportData]:
    """Data from configurations and scores, ``None`` for a failure."""

    def make(configs: list[Any], scores: list[float | tuple[float, ...] | None], *modes: str) -> ReportData:
        rows = []
        for number, (config, score) in enumerate(zip(configs, scores, strict=True)):
            values = () if score is None else score if isinstance(score, tuple) else (score,)
            status = "run_error" if score is None else "ok"
            rows.append(Evaluated(str(number), config, number // 10, status, values, values))
        modes = modes or ("min",)
        names = ["score"] if len(modes) == 1 else [f"score_{i}" for i in range(len(modes))]
        return ReportData(rows, names, list(modes))

    return make


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "report.html"
