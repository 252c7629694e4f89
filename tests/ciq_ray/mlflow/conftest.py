from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.types import MLflowTrackerConfig
from searchers import Range, Space

EXPERIMENT = "tests"
SERVER_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # MLflow uses what its own libraries are about to drop
            item.add_marker(pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow.*"))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow reports its use to its makers, and takes much from the environment."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow with all its tables, which takes seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    code = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code, f"sqlite:///{path}"]
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=path.parent)
    return path


class Looking:
    """What is in MLflow."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.uri = uri
        self.client = MlflowClient(uri)

    def begun(self) -> bool:
        """Whether the experiment is there already."""
        return self.client.get_experiment_by_name(EXPERIMENT) is not None

    @property
    def experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        assert found is not None
        return str(found.experiment_id)

    def runs(self, parent: Any = None) -> list[Any]:
        """The runs of searches, or those below one, oldest first."""
        condition = "" if parent is None else f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        found, token = [], None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                condition,
                max_results=1000,
                page_token=token,
                order_by=["attributes.start_time"],
            )
            found += page
            token = page.token
            if not token:
                break
        return found if parent else [run for run in found if "mlflow.parentRunId" not in run.data.tags]

    def search(self) -> tuple[Any, dict[str, Any]]:
        """The one search there is, and its evaluations by their keys, of which none is there twice."""
        [parent] = self.runs()
        children = self.runs(parent)
        by_key = {run.data.tags["ciq.key"]: run for run in children}
        assert len(by_key) == len(children)
        return parent, by_key

    def running(self) -> list[Any]:
        return list(self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'"))

    def files(self, run: Any, folder: str | None = None) -> list[str]:
        return sorted(file.path for file in self.client.list_artifacts(run.info.run_id, folder))


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Looking:
    """A database of this test's own."""
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    return Looking(f"sqlite:///{path}")


class Server:
    """An MLflow server on this machine that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"]
        options += ["--artifacts-destination", str(self.folder / "artifacts")]
        options += ["--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, **SERVER_ENVIRONMENT},
            )
        deadline = time.monotonic() + 90
        while not self._healthy():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "no MLflow server in time"
            time.sleep(0.1)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def runs(self) -> bool:
        return self._process is not None


@pytest.fixture(scope="session")
def _one_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_database, found.folder / "server.db")
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def server(_one_server: Server) -> Server:
    """The one server of all tests, running."""
    if not _one_server.runs:
        _one_server.start()
    return _one_server


@pytest.fixture
def config() -> Callable[..., MLflowTrackerConfig]:
    def make(uri: str, **fields: Any) -> MLflowTrackerConfig:
        return MLflowTrackerConfig(**{"tracking_uri": uri, "experiment_name": EXPERIMENT, **fields})

    return make


SPACE = Space({"x": Range(0, 99), "block[m]": Range(1, 4)}, default={"x": 50, "block[m]": 1})


@pytest.fixture
def search() -> Callable[..., Search]:
    def make(objective: Any, tracker_config: Any, **fields: Any) -> Search:
        return Search(
            **{
                "objective_function": objective,
                "search_space": SPACE,
                "search_config": SearchConfiguration(generations=2, pool_size=6),
                "seed": 0,
                "disable_progress_bar": True,
                "tracker_config": tracker_config,
                **fields,
            }
        )

    return make
