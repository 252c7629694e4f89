"""The final race of kernels: fresh processes as blocks, the library, who fails, interrupted and resumed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ciq_ray import Search, SearchConfiguration
from ciq_ray.cli import app
from ciq_ray.race import Plan
from ciq_ray.racing import race_run
from tests.ciq_ray.kernels.host_kernel import RecordingKernel

FAST: dict[str, Any] = {"budget_ms": 2.0, "min_samples": 3, "warmup_ms": 2.0, "window_ms": 1.0}
PLAN = Plan(finalists=2, pick_blocks=2, verdict_blocks=6, windows=2)


def search(kernel: RecordingKernel, **fields: Any) -> Search:
    options = {
        "objective_function": kernel,
        "search_config": SearchConfiguration(generations=1, pool_size=8),
        "searcher": "random",
        "seed": 3,
        "remeasure_every": 0,
        "final_race": PLAN,
        "disable_progress_bar": True,
        **fields,
    }
    return Search(**options)


def of_kind(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    return [record for line in lines if line.endswith("\n") and (record := json.loads(line))["t"] == kind]


def blocks_of(windows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [key for key, _ in itertools.groupby((each["stage"], each["block"]) for each in windows)]


class TestBlocks:
    def test_each_is_a_fresh_process_that_nothing_else_runs_in(self, tmp_path: Path) -> None:
        kernel = RecordingKernel(tmp_path / "loads")
        kernel.has_library = True
        result = search(kernel).start(num_workers=2, **FAST)
        (begin,) = of_kind(result.folder, "race_begins")
        windows = of_kind(result.folder, "race")
        assert {record["status"] for record in windows} == {"ok"}
        loads = [load for load in kernel.loads() if load["at"] >= begin["at"]]
        pids = [pid for pid, _ in itertools.groupby(load["child"] for load in loads)]
        assert len(pids) == len(set(pids)) == len(blocks_of(windows))
        assert len({load["owner"] for load in loads}) == 1
        stages = {record["stage"].partition(" ")[0] for record in windows}
        assert stages == {"pick", "verdict"}
        assert any("against the library" in record["stage"] for record in windows)
        assert result.race is not None
        assert result.race.library is not None
        assert "the library" in result.race.library.words

    @pytest.mark.slow
    def test_over_several_shapes_compare_times_and_not_ratios_to_a_control_that_changes(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        kernel = RecordingKernel(tmp_path / "loads", shapes={"small": 512, "large": 16384})
        result = search(kernel).start(num_workers=2, **FAST, control_every=2)
        assert result.verdict is not None
        assert "some tens of milliseconds for each of 2 shapes, in at most 8 " in capfd.readouterr().err
        # milliseconds: a ratio would be about 1 for the baseline
        values = [each["value"] for each in of_kind(result.folder, "race") if each["id"] == "baseline"]
        assert max(values) < 0.5


class TestFinalists:
    def test_differ_in_more_than_their_names(self, tmp_path: Path) -> None:
        kernel = RecordingKernel(tmp_path / "loads")
        places = [(16, 1), (16, 2), (64, 1), (64, 2), (128, 3), (128, 4)]
        configs = [{"behaviour": "ok", "block": block, "unroll": unroll} for block, unroll in places]
        made = search(kernel, searcher="finite", searcher_options={"configs": configs})
        result = made.start(num_workers=1, **FAST)
        (begin,) = of_kind(result.folder, "race_begins")
        blocks = {str(row["param_id"]): row["params"]["block"] for row in result.rows()}
        # those of 16 are the baseline's own binary
        assert sorted(blocks[name] for name in begin["finalists"]) == [64, 128]


class TestLibrary:
    def test_a_baseline_that_stays_is_compared_with_it(self, tmp_path: Path) -> None:
        kernel = RecordingKernel(tmp_path / "loads", library_s=0.002)
        kernel.has_library = True
        best = [{"behaviour": "ok", "block": 64, "unroll": 1}, {"behaviour": "ok", "block": 256, "unroll": 1}]
        made = search(kernel, initial_configs=best, max_evaluations=2)
        result = made.start(num_workers=1, **FAST)
        assert result.race is not None
        assert result.race.chosen.id == "baseline"
        library = result.race.library
        assert library is not None
        assert library.ratio < 0.5
        assert library.kind == "win"
        assert library.words.startswith("the baseline")

    @pytest.mark.slow
    def test_one_that_fails_costs_no_verdict(self, tmp_path: Path) -> None:
        kernel = RecordingKernel(tmp_path / "loads", library_s=-1.0)
        kernel.has_library = True
        result = search(kernel).start(num_workers=1, **FAST)
        assert result.verdict is not None
        assert result.race is not None
        assert result.race.library is None
        (verdict,) = of_kind(result.folder, "verdict")
        assert verdict["library"] is None


class TestOfARunThatIsOver:
    @pytest.mark.slow
    def test_a_finalist_that_fails_is_dropped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = RecordingKernel(tmp_path / "loads")
        # a block each, since all of one block are to fail
        configs = [{"behaviour": "ok", "block": block, "unroll": 1} for block in (16, 32, 64, 128)]
        made = search(kernel, final_race=False, searcher="finite", searcher_options={"configs": configs})
        result = made.start(num_workers=1, **FAST)
        finalists = [row for row in result.top(3) if row["params"]["block"] != 16][:2]
        monkeypatch.setenv("TEST_FAILS", str(finalists[0]["params"]["block"]))
        raced = race_run(result.folder, kernel, plan=PLAN)
        assert raced.race is not None
        failed = {name for name, why in raced.race.dropped.items() if "run_error" in why}
        assert str(finalists[0]["param_id"]) in failed
        assert raced.race.winner.id not in failed
        # in a crash the block goes on in another process
        statuses = Counter(record["status"] for record in of_kind(result.folder, "race"))
        assert set(statuses) == {"ok", "run_error"}


SCRIPT = """
import sys
from pathlib import Path
from ciq_ray import Search, SearchConfiguration
from ciq_ray.race import Plan
from tests.ciq_ray.kernels.host_kernel import RecordingKernel

KERNEL = RecordingKernel(Path(__file__).with_name("loads"))

if __name__ == "__main__":
    Search(
        objective_function=KERNEL,
        search_config=SearchConfiguration(generations=1, pool_size=8),
        searcher="random",
        seed=3,
        remeasure_every=0,
        final_race=Plan(finalists=2, pick_blocks=3, verdict_blocks=6, windows=2),
        disable_progress_bar=True,
    ).start(num_workers=1, budget_ms=2.0, min_samples=3, warmup_ms=2.0, window_ms=1.0)
"""


def ciq(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="ciq")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["killed", "Ctrl-C"],
)
def test_an_interrupted_race_goes_on_and_can_be_repeated(
    number: int, runs: Path, scripts: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts.write(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    process = scripts.start(script)
    journal = runs / "1" / "journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count('"t":"race"') >= 15, "some windows")
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_for(lambda: not scripts.alive(), "the end of what it started")
    before = of_kind(runs / "1", "race")
    whole = {key for key, of in Counter((each["stage"], each["block"]) for each in before).items() if of >= 8}
    whole &= {(each["stage"], each["block"]) for each in before}
    assert whole
    ciq("resume", runs / "1")
    windows = of_kind(runs / "1", "race")
    assert len(of_kind(runs / "1", "verdict")) == 1
    again = {(each["stage"], each["block"]) for each in windows[len(before) :]}
    assert not whole & again
    time.sleep(0.01)
    ciq("race", runs / "1", "--finalists", 1, "--verdict-blocks", 6, "--windows", 1)
    assert len(of_kind(runs / "1", "verdict")) == 2
    assert "verdict" in ciq("show", runs / "1").lower()
