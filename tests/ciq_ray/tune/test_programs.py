"""Programs as a user starts them, each with a Ray of its own: the example, and one that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "tune_trainable.py"

SCRIPT = """
import os, sys, time
from pathlib import Path
from ray import tune
import ciq_ray.tune

FOLDER = Path(sys.argv[1])

def objective(config):
    with (FOLDER / "evaluated").open("a") as file:
        file.write(f"{config['x']}\\n")
    time.sleep(0.05)
    return float(config["x"])

if __name__ == "__main__":
    if sys.argv[2] == "restore":
        import ray
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        grid = tune.Tuner.restore(str(FOLDER / "run"), trainable=ciq_ray.tune.trainable(objective)).fit()
    else:
        grid = ciq_ray.tune.run(objective, {"x": tune.randint(0, 1000)}, num_samples=80, searcher="random",
            seed=0, storage_path=FOLDER, name="run", max_concurrent_trials=2)
    result = ciq_ray.tune.to_search_result(grid)
    result.save(FOLDER / "results.csv")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def start(folder: Path, *command: Any) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environment, "RAY_USAGE_STATS_ENABLED": "0"},
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """The driver and all that it has started, none of which can say goodbye."""
    for victim in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    process.wait()


def journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "run" / "ciq_results.jsonl"
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("way", ["run", "restore"])
def test_a_killed_driver_loses_no_result_and_repeats_none(way: str, tmp_path: Path) -> None:
    """Whether the same call goes on, or Ray Tune's `Tuner.restore`."""
    (tmp_path / "script.py").write_text(SCRIPT)
    process = start(tmp_path, "script.py", tmp_path, "run")
    while len(journal(tmp_path)) < 30:
        assert process.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.02)
    kill(process)
    kept = journal(tmp_path)
    assert len(kept) < 80
    process = start(tmp_path, "script.py", tmp_path, way)
    assert process.wait(150) == 0, (tmp_path / "output").read_text()
    whole = journal(tmp_path)
    assert whole[: len(kept)] == kept
    assert len({line["config"]["x"] for line in whole}) == 80
    # restored, the two trials that ran at the snapshot run again: eight candidates each, by their time
    assert len(whole) == 80 or (way == "restore" and len(whole) <= 80 + 2 * 8)
    times = Counter((tmp_path / "evaluated").read_text().split())
    known = [str(line["config"]["x"]) for line in kept]
    repeated = sum(times[x] > 1 for x in known)
    assert repeated == 0 or (way == "restore" and repeated <= 2 * 8)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 81


def test_the_example(tmp_path: Path) -> None:
    process = start(tmp_path, EXAMPLE, "--evaluations", 120, "--searcher", "random")
    assert process.wait(150) == 0, (tmp_path / "output").read_text()
    output = (tmp_path / "output").read_text()
    assert re.search(r"^120 configurations in \d+ trials:$", output, re.MULTILINE)
    found = dict(reversed(pair) for pair in re.findall(r"^ +(\d+) (\w+)$", output, re.MULTILINE))
    assert sum(map(int, found.values())) == 120
    assert int(found["compile_error"]) > 0
    assert re.search(r"^best: [0-9.]+ ms with ", output, re.MULTILINE)
