"""What recording a search in MLflow costs it: with a database file, and with a server.

The same search, whose objective sleeps for 20 ms, runs without a tracker and with one, in turn. What is
compared is the time from the start of the search to its last tell; MLflow takes longer than that to
write all of it down, so the drain after it is a column of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import spaces
from benchmarks._report import Claim, Result, rotated
from benchmarks.throughput import quiet_runs

__all__ = ["run"]

WORKERS = 2
PARAMETERS = 10
SLEEP_S = 0.02
EVALUATIONS, QUICK_EVALUATIONS = 1000, 60
ROUNDS, QUICK_ROUNDS = 3, 1
CLAIM = 1.1
_SIDES = ("no tracker", "database file", "server")


def sleeping(config: dict[str, Any]) -> float:
    """The objective: 20 ms in which nothing is computed."""
    time.sleep(SLEEP_S)
    return float(next(value for value in config.values() if isinstance(value, (int, float))))


def run(quick: bool) -> Result:
    """Measure all sides in turn, round after round."""
    evaluations = QUICK_EVALUATIONS if quick else EVALUATIONS
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    rounds = []
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder, _server(Path(folder)) as server:
        uris = {"database file": f"sqlite:///{Path(folder).absolute() / 'file.db'}", "server": server}
        for uri in uris.values():
            _tracked_search(uri, 10)  # the first contact makes the tables
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            found = {}
            for side in rotated(_SIDES, number):
                found[side] = _tracked_search(uris.get(side), evaluations)
            rounds.append(found)
    rows, claims = [], []
    for side in _SIDES:
        search_s = statistics.median(r[side]["search_s"] for r in rounds)
        drain_s = statistics.median(r[side]["drain_s"] for r in rounds)
        ratio = statistics.median(r[side]["search_s"] / r["no tracker"]["search_s"] for r in rounds)
        rows.append([side, f"{search_s:.2f}", f"{ratio:.3f}", f"{drain_s:.1f}"])
        if side != "no tracker":
            text = f"{side}: time to the last tell relative to no tracker"
            claims.append(Claim(text, ratio, CLAIM, at_least=False))
    header = [f"{evaluations} evaluations of 20 ms, {WORKERS} workers", "search s", "ratio", "drain s"]
    return Result("mlflow_overhead", header, rows, claims, {"rounds": rounds})


def _tracked_search(uri: str | None, evaluations: int) -> dict[str, float]:
    """Seconds from the start of a search to its last tell, and from there until all is recorded."""
    from ciq_ray import Search, SearchConfiguration
    from ciq_ray.journal import read_records
    from ciq_ray.types import DisabledTrackerConfig, MLflowTrackerConfig, TrackerConfig

    tracker: TrackerConfig = DisabledTrackerConfig()
    if uri is not None:
        tracker = MLflowTrackerConfig(tracking_uri=uri, experiment_name="overhead")
    with quiet_runs() as folder:
        search = Search(
            objective_function=sleeping,
            search_space=spaces.mixed(PARAMETERS),
            search_config=SearchConfiguration(generations=10**6),
            searcher="random",
            searcher_options={"count": 10**6},
            max_evaluations=evaluations,
            seed=0,
            disable_progress_bar=True,
            tracker_config=tracker,
        )
        started = time.time()
        search.start(num_workers=WORKERS)
        ended = time.time()
        last = max(record["at"] for record in read_records(folder / "1") if record["t"] == "outcome")
    return {"search_s": last - started, "drain_s": ended - last}


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """An MLflow server on this machine, with a database file of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    options = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "artifacts"]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight more processes
        )
    try:
        deadline = time.monotonic() + 120
        while not _healthy(uri):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no MLflow server: {(folder / 'server.log').read_text()}")
            time.sleep(0.1)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
