"""Recording a landscape: every configuration, in a file that can be replayed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import landscape
from benchmarks.gpu import record
from ciq_ray.landscape import Landscape
from searchers.outcome import Outcome
from tests.ciq_ray.kernels.device_kernel import DeviceKernel
from tests.fake_nvml import FakeMachine

Run = Callable[..., int]


class OneIsWrong(DeviceKernel):
    """64 configurations, one of which is wrong."""

    def run(self, artefact: Any, config: Any) -> Outcome:
        """See the class."""
        done = super().run(artefact, config)
        if config["x"] == 7:
            return Outcome("wrong", message="off by one")
        return Outcome("ok", done.values, spread=(0.25,), compile_s=0.5)


@pytest.fixture
def run(
    fake_nvml: Callable[..., FakeMachine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Records `kernel` into ``found.csv``, on a GPU that is not there."""
    fake_nvml()
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path / "runs"))

    def main(kernel: Any, *options: str) -> int:
        monkeypatch.setattr(record, "kernel_of", lambda *names: kernel)
        command = ["record", "--kernel", "ptx", "--output", str(tmp_path / "found.csv"), "--workers", "1"]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        return record.main()

    return main


def test_every_configuration_is_in_the_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(OneIsWrong(pace_s=0.0)) == 0
    found = Landscape.load(tmp_path / "found.csv")
    assert [key for (key,) in found.keys] == list(range(1, 65))
    assert found.parameters == ("x",)
    assert found.statuses[6] == "wrong"
    assert found.statuses.count("ok") == 63
    assert found.times[8] == 9.0
    assert set(found.deviations.tolist()) == {0.0, 0.25}
    out = capsys.readouterr().out
    assert "64 configurations on NVIDIA H100" in out
    assert "63 ok, 1.0000 to 64.0000 ms, median 33.0000\n1 wrong: off by one\n" in out


def test_a_limit_leaves_out_what_is_not_known_and_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(DeviceKernel(pace_s=0.4), "--seconds", "4") == 1
    found = Landscape.load(tmp_path / "found.csv")
    assert 0 < len(found) < 64
    assert f"{64 - len(found)} of 64 are not known" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_before_anything_is_timed(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(DeviceKernel(), "--output", str(tmp_path / "none" / "found.csv"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("kernel", "recorded"),
    [
        ("heat", "heat_256"),
        ("matrix_vector", "matrix_vector_8k"),
        ("sgemm", "sgemm_1k"),
        ("transpose", "transpose_8k"),
        ("nbody", "nbody_8k"),
    ],
)
def test_what_was_recorded_of_a_kernel_is_its_whole_space(kernel: str, recorded: str) -> None:
    space = record.UNSEEN[kernel].space
    assert set(record.UNSEEN) == {"heat", "matrix_vector", "sgemm", "transpose", "nbody"}
    found = landscape.load(recorded)
    assert found.parameters == tuple(space.names)
    assert found.keys == tuple(tuple(config.values()) for config in record.configs_of(space).values())
