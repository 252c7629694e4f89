"""A driver of Ray Tune is killed, and what it had found is not lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

DRIVER = Path(__file__).with_name("tune_driver.py")
TRIALS = 40
AT_ONCE = 2


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    fixed = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, DRIVER, folder, *arguments, str(TRIALS)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **fixed, **environment},
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """The driver and all that it has started, none of which can say goodbye."""
    started = psutil.Process(process.pid).children(recursive=True)
    for victim in (process.pid, *(child.pid for child in started)):
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def results(folder: Path) -> list[dict[str, Any]]:
    """What the journal holds, whole lines only."""
    if not (folder / "results.jsonl").exists():
        return []
    text = (folder / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]


def evaluated(folder: Path) -> list[tuple[int, int]]:
    lines = (folder / "evaluated").read_text().splitlines()
    return [(int(x), int(y)) for x, y in (line.split(",") for line in lines)]


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(150) == 0, (folder / "output").read_text()


def killed(folder: Path, kind: str, **environment: str) -> tuple[list[tuple[int, int]], list[dict[str, Any]]]:
    """Kill a driver that is at work; what had begun and what had ended before."""
    process = start(folder, "begin", kind, **environment)
    while len(results(folder)) < 20:
        assert process.poll() is None, (folder / "output").read_text()
        time.sleep(0.02)
    kill(process)
    before, kept = evaluated(folder), results(folder)
    assert len(before) < TRIALS
    return before, kept


def check(folder: Path, before: list[tuple[int, int]], kept: list[dict[str, Any]]) -> None:
    """No result is lost, and nothing is there twice but what was running at the snapshot or the end."""
    journal = results(folder)
    assert journal[: len(kept)] == kept
    count = Counter(evaluated(folder))
    in_flight = set(count) - {(line["config"]["x"], line["config"]["y"]) for line in journal}
    assert len(in_flight) <= AT_ONCE
    assert in_flight <= set(before)
    repeated = {config for config in count if count[config] > 1}
    assert len(repeated) <= 2 * AT_ONCE
    assert repeated <= set(before)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "snapshot_s"),
    [
        ("own", "1000"),  # only the one at the start, so that Ray Tune forgets everything
        ("domains", "2"),
    ],
)
def test_a_killed_driver_loses_no_result_and_repeats_none(kind: str, snapshot_s: str, tmp_path: Path) -> None:
    before, kept = killed(tmp_path, kind, TUNE_GLOBAL_CHECKPOINT_S=snapshot_s)
    finish(start(tmp_path, "restore", kind), tmp_path)
    assert len(json.loads((tmp_path / "end.json").read_text())) == TRIALS
    check(tmp_path, before, kept)
    assert len(set(evaluated(tmp_path))) > TRIALS, "others took the place of those that Ray Tune forgot"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_journal_is_enough_when_ray_tunes_snapshot_is_torn(tmp_path: Path) -> None:
    before, kept = killed(tmp_path, "own")
    # Ray Tune copies its snapshots to where they are kept, and a kill may leave half of one: then
    # it begins anew, with one trial
    for snapshot in (tmp_path / "run").glob("experiment_state-*.json"):
        snapshot.write_text("")
    finish(start(tmp_path, "restore", "own"), tmp_path)
    check(tmp_path, before, kept)
    assert len(json.loads((tmp_path / "end.json").read_text())) == 1
    finish(start(tmp_path, "begin", "own"), tmp_path)
    check(tmp_path, before, kept)
    assert len(set(evaluated(tmp_path))) > TRIALS
