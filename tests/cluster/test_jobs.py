"""Jobs on a head and a node that are started by the commands of cluster.yaml, with a token.

All that is started carries a variable of this session's own, by which it is found and ended; `ray stop` is
for nobody to call here, since it ends what others run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from ciq_ray import SearchResult
from tests.cluster.checks import ROOT

pytestmark = pytest.mark.timeout(300)

RAY = Path(sys.executable).with_name("ray")
OURS = "--block --node-ip-address=127.0.0.1"
MARK = f"CIQ_TEST_{secrets.token_hex(6)}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def alive() -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and MARK in process.environ():
                found.append(process.pid)
    return found


@dataclass
class Cluster:
    """Where it is, and what a user of it has in the environment."""

    folder: Path
    url: str
    token: str
    environment: dict[str, str]
    add_node: Callable[[], object] = lambda: None

    def submit(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        deadline = time.monotonic() + 60
        while True:
            done = self._submit(command, environment)
            # the process of a new node that starts jobs is there some seconds after the dashboard
            if "No available agent" not in done.stderr or time.monotonic() > deadline:
                return done

    def _submit(
        self, command: tuple[str, ...], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAY, "job", "submit", "--address", self.url, *command],
            cwd=self.folder,
            env={**self.environment, "RAY_AUTH_MODE": "token", **environment},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def status(self, token: str | None, job: bytes | None = None) -> int:
        """What it answers to somebody with this token who asks for the jobs, or submits one."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self.url}/api/jobs/", job, headers), timeout=10
            ) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without trials, to which a node with the label ``pool=cpu`` may be added."""
    folder = tmp_path_factory.mktemp("cluster")
    home = folder / "home"
    (home / ".ray").mkdir(parents=True)
    token = secrets.token_hex(32)
    (home / ".ray" / "auth_token").write_text(token)
    (home / "ciq").mkdir()
    (home / "ciq" / "venv").symlink_to(sys.prefix)
    # sockets live in Ray's folder, and their paths are short
    short = Path("/tmp") / f"ciq-{secrets.token_hex(4)}"
    short.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CIQ_", "MLFLOW_"))
    }
    environment |= {"HOME": str(home), MARK: "1", "RAY_HEAD_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    port, dashboard = free_port(), free_port()
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())

    def start(role: str, extra: str) -> subprocess.Popen[bytes]:
        command = config[f"{role}_start_ray_commands"][-1]
        for old, new in {
            ":6379": f":{port}",
            "--port=6379": f"--port={port}",
            "--dashboard-port=8265": f"--dashboard-port={dashboard}",
            " --autoscaling-config=~/ray_bootstrap_config.yaml": "",  # of `ray up`
            "/shared/": f"{folder}/",
            "nvidia-smi": "nvidia-smi-of-no-machine",
        }.items():
            command = command.replace(old, new)
        with (folder / f"{role}.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"{command} {OURS} --dashboard-agent-listen-port={free_port()} {extra}"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes.append(process)
        return process

    processes: list[subprocess.Popen[bytes]] = []
    found = Cluster(folder, f"http://127.0.0.1:{dashboard}", token, environment)
    try:
        head = start("head", f"--temp-dir={short}/head --ray-client-server-port={free_port()}")
        deadline = time.monotonic() + 90
        while True:
            assert head.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline, (folder / "head.log").read_text()
            with contextlib.suppress(OSError):
                if found.status(token) == 200:
                    break
            time.sleep(0.2)
        # a folder of its own, as on a machine of its own: each node tidies up what jobs have uploaded
        found.add_node = lambda: start("worker", f"--num-cpus=2 --temp-dir={short}/node")
        yield found
        for process in processes:
            assert process.poll() is None, [log.read_text() for log in folder.glob("*.log")]
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            for pid in alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, kind)
            deadline = time.monotonic() + 3
            while alive() and time.monotonic() < deadline:
                time.sleep(0.1)
        for process in processes:
            process.wait(5)
        shutil.rmtree(short, ignore_errors=True)
    assert alive() == []


def test_who_has_not_the_token_is_refused(cluster: Cluster) -> None:
    job = json.dumps({"entrypoint": "echo stolen"}).encode()
    for token, answer in ((None, 401), ("0" * 64, 403)):
        assert cluster.status(token) == answer
        assert cluster.status(token, job) == answer
    assert cluster.status(cluster.token) == 200


@pytest.mark.slow
def test_a_job_with_another_token_is_refused(cluster: Cluster) -> None:
    wrong = cluster.submit("--", sys.executable, "-c", "print('stolen')", RAY_AUTH_TOKEN="0" * 64)
    assert wrong.returncode != 0
    assert "token" in (wrong.stdout + wrong.stderr).lower()
    assert "stolen" not in wrong.stdout


@pytest.mark.slow
def test_a_job_knows_the_cluster_and_the_folder_for_runs(cluster: Cluster) -> None:
    (cluster.folder / "script").mkdir()
    (cluster.folder / "script" / "show.py").write_text(
        "import os\nfor name in ('CIQ_RUNS_DIR', 'MLFLOW_TRACKING_URI', 'RAY_ADDRESS'):\n"
        "    print(name, os.environ[name])\n"
    )
    done = cluster.submit("--working-dir", str(cluster.folder / "script"), "--", sys.executable, "show.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"CIQ_RUNS_DIR {cluster.folder}/ciq_runs\n" in done.stdout
    assert "MLFLOW_TRACKING_URI http://192.0.2.10:5000\n" in done.stdout
    assert re.search(r"^RAY_ADDRESS \S+$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_example_runs_as_a_job_on_the_node_and_not_on_the_head(cluster: Cluster) -> None:
    cluster.add_node()
    arguments = ["--evaluations", "20", "--storage", str(cluster.folder), "--name", "zlib", "--pool", "cpu"]
    done = cluster.submit(
        "--working-dir",
        str(ROOT / "examples" / "cluster"),
        "--",
        f"{cluster.environment['HOME']}/ciq/venv/bin/python",  # another Python would have another Ray
        "tune_job.py",
        *arguments,
        "--concurrent",
        "1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 settings tried" in done.stdout
    result = SearchResult.from_csv(cluster.folder / "zlib" / "results.csv", "min")
    assert len(result) == 20
    assert set(result.get_results()["status"]) == {"ok"}
