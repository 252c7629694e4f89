"""The example of `docs/tracking.md` does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "mlflow_tracking.py"


@pytest.mark.slow
def test_what_it_leaves_in_mlflow(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = subprocess.run(
        [sys.executable, EXAMPLE, "--uri", uri],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        env=dict(os.environ),
    )
    assert run.returncode == 0, run.stderr
    assert "best: " in run.stdout
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("sorting")
    assert found is not None
    *children, parent = client.search_runs([found.experiment_id])
    assert len(children) == 16
    for child in children:
        points = client.get_metric_history(child.info.run_id, "each_ms")
        assert [point.step for point in points] == [0, 1, 2]
        assert child.data.metrics["time_ms"] == min(point.value for point in points)
    assert parent.data.tags["mlflow.note.content"].startswith("Sorting 262144 numbers")
