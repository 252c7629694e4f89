"""What the benchmarks on GPUs compute, and the kernel that misbehaves, as far as that needs no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu._common import KERNELS, Window, busy, optimum
from benchmarks.gpu.busy_share import shares
from benchmarks.gpu.hostile import compared
from benchmarks.gpu.hostile_kernel import BROKEN, CLEAN, CLEAN_KERNEL, EXPECTED, GREEDY, HANGS, KERNEL, NAMES
from benchmarks.gpu.time_to_optimum import progress
from ciq_ray.kernels.compile_stage import CompileStage
from ciq_ray.kernels.protocol import Target
from searchers.outcome import STATUSES

H100 = Target(90, "NVIDIA H100 80GB HBM3", 227 << 10, 1024, 65536)


def journal(folder: Path, outcomes: list[dict[str, Any]]) -> Path:
    lines: list[dict[str, Any]] = [{"t": "header", "version": 1}]
    lines += [
        {"t": "outcome", "id": str(number), "at": 1000.0 + number, "outcome": outcome}
        for number, outcome in enumerate(outcomes)
    ]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_overlapping_spans_count_once() -> None:
    window = Window(10.0, 20.0)
    assert busy([(0, 5), (25, 30)], window) == 0.0
    assert busy([(8, 12), (11, 13), (12.5, 12.75), (19, 40)], window) == 4.0
    assert busy([(0, 100)], window) == window.seconds == 10.0


def test_shares_leave_the_start_out_and_the_time_a_result_waited(tmp_path: Path) -> None:
    folder = journal(
        tmp_path,
        [
            # timed from 0 to 10 s and 12 to 20 s; one of two workers compiles for 5 s and then waits for 3
            {"compile_s": 9.0, "metrics": {"gpu_at": [0.0, 10.0], "compile_at": [0.0, 9.0]}},
            {"compile_s": 5.0, "metrics": {"gpu_at": [12.0, 20.0], "compile_at": [10.0, 18.0]}},
            {"metrics": {"same_binary_as": "0"}},
            {"compile_s": 1.0, "status": "compile_error", "metrics": {"compile_at": [10.0, 11.0]}},
        ],
    )
    found = shares(folder, 0.0, 2, 10.0, 5.0)
    assert found["seconds"] == 10.0
    assert found["whole"] == {"gpu": pytest.approx(0.8), "compile": pytest.approx(0.3)}
    assert [part["from_s"] for part in found["parts"]] == [10.0, 15.0]
    assert found["parts"][0]["gpu"] == pytest.approx(0.6)
    assert (found["timed"], found["compiled"]) == (1, 2)


def test_progress_is_by_the_end_of_the_timing(tmp_path: Path) -> None:
    def ok(ms: float, end: float) -> dict[str, Any]:
        return {"status": "ok", "values": [ms], "metrics": {"gpu_at": [end - 1, end]}}

    folder = journal(
        tmp_path, [ok(3.0, 1002.0), {"status": "wrong", "metrics": {}}, ok(4.0, 1003.0), ok(1.0, 1004.0)]
    )
    assert progress(folder, 1000.0) == [(2.0, 3.0, 1), (4.0, 1.0, 4)]


def test_comparing_times() -> None:
    found = compared({"a": 2.0, "b": 1.0, "c": 9.0}, {"a": 1.0, "b": 1.0, "d": 3.0})
    assert (found["configurations"], found["median"], found["low"], found["high"]) == (2, 1.5, 1.0, 2.0)


def test_recorded_optima() -> None:
    assert {name: round(optimum(name)[1], 4) for name in KERNELS} == {
        "matmul": 0.1913,
        "attention": 0.4417,
        "convolution": 0.6463,
    }


class TestHostileKernel:
    def test_the_space(self) -> None:
        assert set(EXPECTED) == set(NAMES)
        assert set(EXPECTED.values()) <= set(STATUSES)
        assert KERNEL.space.size == 9 * 40 + 10
        assert CLEAN_KERNEL.space.size == 40
        # whatever is clean is in both
        assert CLEAN_KERNEL.space.default_config() == KERNEL.space.default_config()

    @pytest.mark.parametrize("behaviour", sorted(EXPECTED), ids=lambda number: NAMES[number])
    def test_what_the_compile_stage_says(self, behaviour: int) -> None:
        config = {"BEHAVIOUR": behaviour, "BLOCK": 128, "ITEMS": 2, "STRIDED": 0}
        outcome = CompileStage(KERNEL, H100)(config).outcome
        expected = EXPECTED[behaviour] if behaviour in (BROKEN, GREEDY) else "ok"
        assert outcome.status == expected, outcome.message

    def test_no_loop_is_optimised_away(self) -> None:
        config = {"BEHAVIOUR": HANGS, "BLOCK": 128, "ITEMS": 1, "STRIDED": 0}
        hanging = CompileStage(KERNEL, H100)(config)
        clean = CompileStage(KERNEL, H100)({**config, "BEHAVIOUR": CLEAN})
        assert hanging.outcome.metrics["digest"] != clean.outcome.metrics["digest"]
