from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and caches of a test go into its own folder; the folder of the runs."""
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("CIQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CIQ_GPU_STATE_DIR", str(tmp_path / "gpus"))
    for name in (
        "CIQ_AUTOTUNER_INITIAL_POPULATION",
        "CIQ_KEEP_CACHE",
        "CIQ_SEARCH_SPACES_DIR",
        "CIQ_SEARCH_SPACES_REPO",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs"


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads the whole lines of a run's journal, the header included."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    return read


@pytest.fixture
def wait_for() -> Callable[..., None]:
    def wait(condition: Callable[[], Any], what: str = "it", within: float = 30.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen in time"
            time.sleep(0.005)

    return wait


class Scripts:
    """Starts scripts in processes of their own, and finds all that descends from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = f"CIQ_TEST_{secrets.token_hex(6)}"
        self._started: list[subprocess.Popen[str]] = []

    def write(self, source: str, name: str = "script.py") -> Path:
        path = self.folder / name
        path.write_text(source)
        return path

    def start(self, path: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, self.token: "1", "PYTHONWARNINGS": "error"}
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self._started.append(process)
        return process

    def run(
        self, path: Path, *arguments: object, code: int = 0, within: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; it must end with `code`."""
        process = self.start(path, *arguments)
        out, err = process.communicate(timeout=within)
        assert process.returncode == code, err
        return subprocess.CompletedProcess([], code, out, err)

    def alive(self) -> list[int]:
        """Processes of these scripts that still live, whoever is their parent now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and self.token in process.environ():
                    found.append(process.pid)
        return found

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def scripts(tmp_path: Path, wait_for: Callable[..., None]) -> Iterator[Scripts]:
    """Scripts in processes of their own; when the test is over nothing of them may be left running."""
    started = Scripts(tmp_path)
    try:
        yield started
    finally:
        started.end()
    wait_for(lambda: not started.alive(), "the end of all processes", within=5)
