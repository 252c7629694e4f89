"""The report's part on a kernel, from the journal of a search on a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.report.data import ReportData
from ciq_ray.report.kernel import baseline_row, kernel_section
from ciq_ray.spaces import resolve
from searchers import PowerOfTwo

SPACE = resolve({"BLOCK": PowerOfTwo(32, 256)}).space


def outcome(
    ms: float, registers: int, *, reasons: int = 0, dropped: int = 0, mhz: float = 1410.0
) -> dict[str, Any]:
    evidence = {"sm_mhz": mhz, "power_w": 300.0, "temp_c": 55.0, "reasons": reasons, "spoiled": ""}
    return {
        "status": "ok",
        "values": [ms],
        "metrics": {
            "registers": registers,
            "threads": 128,
            "spill_stores": 0,
            "spill_loads": 0,
            "shared": 4096,
            "tflops": 100 / ms,
            "peak_percent": 50.0,
            "sm_mhz": mhz,
            "power_w": 300.0,
            "temp_c": 55.0,
            "timing": {"": {"median_ms": ms, "samples_ms": [ms], "dropped": dropped, "evidence": evidence}},
            "gpu": {
                "uuid": "GPU-1",
                "name": "NVIDIA H100 80GB HBM3",
                "driver": "580.159.04",
                "clock_state": "locked 1410 MHz",
            },
        },
    }


def run_of(folder: Path, outcomes: list[dict[str, Any]], kind: str = "kernel", **more: Any) -> ReportData:
    space = SPACE.to_dict() if hasattr(SPACE, "to_dict") else None
    header = {
        "t": "header",
        "version": 1,
        "objective": {"kind": kind, "class": "CudaKernel", "qualname": "KERNEL", "script": "/x/tune.py"},
        "search_config": {"num_objectives": 1, "problem_type": "min"},
        "space": {"list": False, "parts": [{"space": space}]},
        "initial_rows": [[0]],
    }
    lines: list[dict[str, Any]] = [header]
    for number, one in enumerate(outcomes):
        candidate = {
            "id": str(number),
            "row": [number],
            "generation": None,
            "config": {"BLOCK": 32 << number},
        }
        lines.append({"t": "ask", "n": 1, "candidates": [candidate]})
        lines.append({"t": "outcome", "id": str(number), "outcome": one, "at": 0.0})
    lines += [more["verdict"]] if "verdict" in more else []
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ReportData.of_run(folder)


def cells(page: str) -> list[list[str]]:
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_best_next_to_default(tmp_path: Path) -> None:
    data = run_of(tmp_path, [outcome(0.4, 64), outcome(0.2, 168), outcome(0.3, 80)])
    section = kernel_section(data)
    assert section is not None
    head, best, default = cells(section.html)[:3]
    assert head == [
        "",
        "candidate",
        "ms",
        "TFLOP/s",
        "% of peak",
        "registers",
        "spill stores B",
        "spill loads B",
        "shared B",
        "threads",
        "blocks/SM by registers",
    ]
    # 65536 registers over 128 threads of 168 are three blocks
    assert best == ["best", "1", "0.2", "500", "50.0", "168", "0", "0", "4096", "128", "3"]
    assert default == ["default", "0", "0.4", "250", "50.0", "64", "0", "0", "4096", "128", "8"]
    found = baseline_row(data)
    assert found is not None
    assert found.id == "0"


def test_of_a_kernel_that_times_itself_the_score_may_be_anything(tmp_path: Path) -> None:
    outcomes = [outcome(40.0, 64), outcome(20.0, 168)]
    for one in outcomes:
        del one["metrics"]["timing"]
    section = kernel_section(run_of(tmp_path, outcomes))
    assert section is not None
    assert cells(section.html)[0][2] == "score"


def test_clocks_and_event_reasons(tmp_path: Path) -> None:
    data = run_of(
        tmp_path, [outcome(0.4, 64, reasons=0x1), outcome(0.2, 64, reasons=0x4, dropped=3, mhz=1200.0)]
    )
    section = kernel_section(data)
    assert section is not None
    device = cells(section.html)[-1]
    assert device[0] == "NVIDIA H100 80GB HBM3 GPU-1"
    assert device[1:4] == ["580.159.04", "locked 1410 MHz", "1305 (1200 to 1410)"]
    assert "SwPowerCap" in device[6]
    assert device[7] == "3"


def test_the_default_is_the_best(tmp_path: Path) -> None:
    section = kernel_section(run_of(tmp_path, [outcome(0.1, 64), outcome(0.2, 64)]))
    assert section is not None
    assert [row[0] for row in cells(section.html)[1:2]] == ["best"]
    assert "default" not in section.html


def test_a_failed_default_says_how(tmp_path: Path) -> None:
    section = kernel_section(run_of(tmp_path, [{"status": "wrong", "message": "x"}, outcome(0.2, 64)]))
    assert section is not None
    assert cells(section.html)[2][:3] == ["default", "0", "wrong"]


def test_the_verdict_against_the_library(tmp_path: Path) -> None:
    def judged(name: str, ratio: float) -> dict[str, Any]:
        sides = {"candidate": "candidate 1", "baseline": name, "mode": "min", "samples": None}
        limits = {"low": ratio - 0.01, "high": ratio + 0.01, "margin": 0.01, "confidence": 0.95, "blocks": 20}
        return {"kind": "win" if ratio < 1 else "loss", "ratio": ratio, **limits, **sides}

    verdict = {
        "t": "verdict",
        "verdict": judged("the baseline", 0.5),
        "control": judged("the baseline", 1.0),
        "library": judged("the library", 1.25),
        "winner": "1",
        "chosen": "1",
        "config": {"BLOCK": 64},
        "ranking": [["1", 0.5]],
        "dropped": {},
        "calls": 9,
    }
    section = kernel_section(run_of(tmp_path, [outcome(0.4, 64), outcome(0.2, 64)], verdict=verdict))
    assert section is not None
    assert "Against the library: " in section.html
    assert "25.0% more" in section.html


@pytest.mark.parametrize("kind", ["", "command"])
def test_other_searches_have_none(kind: str, tmp_path: Path) -> None:
    data = run_of(tmp_path, [outcome(0.4, 64)])
    assert data.view is not None
    data.view.objective["kind"] = kind
    assert kernel_section(data) is None


def test_nothing_passed(tmp_path: Path) -> None:
    assert kernel_section(run_of(tmp_path, [{"status": "wrong"}])) is None


def test_text_of_a_journal_is_text(tmp_path: Path) -> None:
    hostile = outcome(0.4, 64)
    hostile["metrics"]["gpu"]["name"] = "<script>alert(1)</script>"
    section = kernel_section(run_of(tmp_path, [hostile]))
    assert section is not None
    assert "<script>" not in section.html
