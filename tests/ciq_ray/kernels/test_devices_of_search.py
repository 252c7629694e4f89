"""Searches on GPUs of the fake NVML: clocks put back whatever ends it, several devices, one that is lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.errors import ConfigurationError, UnsupportedError, WorkerError
from tests.ciq_ray.kernels.device_kernel import DeviceKernel
from tests.fake_nvml import FakeMachine

Machine = Callable[..., FakeMachine]
SLOW = pytest.mark.slow


def search(kernel: DeviceKernel, **fields: Any) -> Search:
    options = {
        "objective_function": kernel,
        "search_config": SearchConfiguration(generations=3, pool_size=8),
        "searcher": "random",
        "seed": 1,
        "remeasure_every": 0,
        "final_race": False,
        "disable_progress_bar": True,
        **fields,
    }
    return Search(**options)


def outcomes(folder: Path) -> list[dict[str, Any]]:
    with (folder / "journal.jsonl").open() as lines:
        return [record for line in lines if (record := json.loads(line)).get("t") == "outcome"]


def are_as_before(machine: FakeMachine) -> bool:
    return all(list(card.locked_sm) == [0, 0] for card in machine.cards)


class TestSeveralDevices:
    def test_both_time_and_scores_are_ratios_to_the_control_of_each(self, fake_nvml: Machine) -> None:
        machine = fake_nvml(gpus=2)
        made = search(DeviceKernel(together=2))
        result = made.start(num_workers=1)
        found = outcomes(result.folder)
        assert {record["place"]["gpu"] for record in found} == {machine.uuid(0), machine.uuid(1)}
        for record in found:
            factor = 1.0 if record["place"]["gpu"] == machine.uuid(0) else 2.0
            assert record["outcome"]["metrics"]["gpu"]["arch"] == 90
            assert record["baseline"] == [32.0 * factor]
        # whichever device it was timed on, a configuration has the same rank in every table
        for row in result.rows():
            assert row["norm_score"] == pytest.approx(row["params"]["x"] / 32)
        assert result.get_best_result()["params"]["x"] == min(row["params"]["x"] for row in result.rows())
        assert "norm_score" in (result.folder / "results.csv").read_text().splitlines()[0]
        assert made.search_config.normalize is False  # it is the user's

    def test_are_chosen_by_number_and_by_uuid(self, fake_nvml: Machine) -> None:
        machine = fake_nvml(gpus=3)
        for chosen, uuids in (
            (1, {machine.uuid(1)}),
            ([machine.uuid(2)], {machine.uuid(2)}),
        ):
            result = search(DeviceKernel(), max_evaluations=3).start(num_workers=1, devices=chosen)
            assert {record["place"]["gpu"] for record in outcomes(result.folder)} == uuids
            assert not result.is_normalized

    def test_of_different_kinds_are_refused(self, fake_nvml: Machine, runs: Path) -> None:
        machine = fake_nvml(gpus=2)
        machine[1].major, machine[1].name = 8, b"NVIDIA A100"
        with pytest.raises(ConfigurationError, match=r"`devices` are of different kinds.*H100.*A100"):
            search(DeviceKernel()).start()
        assert not runs.exists() or not list(runs.iterdir())

    def test_none_is_said_at_once(self, fake_nvml: Machine) -> None:
        fake_nvml(gpus=0)
        with pytest.raises((UnsupportedError, ConfigurationError), match="GPU"):
            search(DeviceKernel()).start()

    def test_one_that_was_lost_before_is_named(
        self, fake_nvml: Machine, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake_nvml(gpus=2)[1].lost = 1
        search(DeviceKernel(), max_evaluations=2).start(num_workers=1)
        assert "card 1 (of 2, as in nvidia-smi): GPU is lost" in caplog.text

    def test_a_missing_package_is_said_once_and_before_there_is_a_run(
        self, fake_nvml: Machine, runs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_nvml()
        monkeypatch.setitem(sys.modules, "torch", None)
        kernel = DeviceKernel()
        kernel.self_timed = False
        with pytest.raises(UnsupportedError) as caught:
            search(kernel).start(num_workers=1)
        assert str(caught.value) == (
            "timing on a GPU needs torch, which is not there: install PyTorch with CUDA as "
            "https://pytorch.org/get-started/locally says"
        )
        assert not runs.exists() or not list(runs.iterdir())

    def test_a_target_in_milliseconds_is_refused(self, fake_nvml: Machine) -> None:
        fake_nvml(gpus=2)
        with pytest.raises(ConfigurationError, match=r"`target` is a time.*`devices`"):
            search(DeviceKernel(), target=2.0).start()

    @pytest.mark.slow
    def test_a_run_of_one_device_does_not_go_on_with_two(self, fake_nvml: Machine) -> None:
        fake_nvml(gpus=2)
        kernel = DeviceKernel()
        result = search(kernel, max_evaluations=3).start(num_workers=1, devices=0)
        with pytest.raises(ConfigurationError, match=r"`resume`.*`devices`"):
            Search.resume(result.folder, kernel, max_evaluations=5).start(devices=[0, 1])
        again = Search.resume(result.folder, kernel, max_evaluations=5).start()
        assert len(again) == 5

    def test_one_that_is_lost_takes_no_candidate_with_it(
        self, fake_nvml: Machine, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine = fake_nvml(gpus=2)
        result = search(DeviceKernel(lost=1, together=2)).start(num_workers=1)
        found = outcomes(result.folder)
        assert {record["outcome"]["status"] for record in found} == {"ok"}
        assert len({record["id"] for record in found}) == len(found) == 24
        assert found[-1]["place"]["gpu"] == machine.uuid(0)
        assert "goes on without it" in caplog.text

    def test_the_only_one_that_is_lost_ends_the_search(self, fake_nvml: Machine) -> None:
        fake_nvml(gpus=1)
        with pytest.raises(WorkerError, match=r"cannot be used: .*lost") as caught:
            search(DeviceKernel(lost=0)).start(num_workers=1)
        assert str(caught.value).count("GPU-00000001") == 1

    def test_one_that_another_process_holds_is_left_out(
        self, fake_nvml: Machine, scripts: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine = fake_nvml(gpus=2)
        holder = scripts.start(scripts.write(HOLDER, "holder.py"))
        assert holder.stdout.readline() == "held\n"
        result = search(DeviceKernel(), max_evaluations=6).start(num_workers=1, wait_for_device_s=0.0)
        assert {record["place"]["gpu"] for record in outcomes(result.folder)} == {machine.uuid(1)}
        assert f"process {holder.pid}" in caplog.text
        holder.kill()


HOLDER = """
import time
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import hold

with hold(devices()[0]):
    print("held", flush=True)
    time.sleep(600)
"""

SCRIPT = """
import sys
from ciq_ray import Search, SearchConfiguration
from tests.ciq_ray.kernels.device_kernel import DeviceKernel

KERNEL = DeviceKernel(hang=int(sys.argv[1]), pace_s=0.05)

if __name__ == "__main__":
    Search(
        objective_function=KERNEL,
        search_config=SearchConfiguration(generations=100, pool_size=8),
        searcher="random",
        seed=1,
        final_race=False,
        disable_progress_bar=True,
    ).start(num_workers=1, lock_clocks=1410, task_timeout=120)
"""


class TestClocks:
    """Locked for a search, put back whatever ends it."""

    @pytest.fixture
    def machine(self, fake_nvml: Machine, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        return fake_nvml()

    @pytest.fixture
    def start(self, machine: FakeMachine, runs: Path, scripts: Any, wait_for: Any) -> Callable[..., Any]:
        def start(hang: int = 0) -> Any:
            process = scripts.start(scripts.write(SCRIPT), hang)
            journal = runs / "1" / "journal.jsonl"
            wait_for(lambda: journal.exists() and '"t":"outcome"' in journal.read_text(), "an outcome")
            assert list(machine[0].locked_sm) == [1410, 1410]
            return process

        return start

    def test_are_put_back_at_the_end_of_a_search(self, machine: FakeMachine) -> None:
        result = search(DeviceKernel(), max_evaluations=3).start(num_workers=1, lock_clocks=1410)
        assert machine[0].changes == ["core 1410 1410", "core 0 0"]
        states = {record["outcome"]["metrics"]["gpu"]["clock_state"] for record in outcomes(result.folder)}
        assert states == {"locked 1410 MHz"}

    @pytest.mark.parametrize(
        ("numbers", "hang"),
        [
            pytest.param((signal.SIGINT,), 0, id="Ctrl-C", marks=SLOW),
            pytest.param((signal.SIGINT, signal.SIGINT), 0, id="Ctrl-C twice", marks=SLOW),
            pytest.param((signal.SIGINT, signal.SIGINT), 5, id="Ctrl-C twice in a hang", marks=SLOW),
            pytest.param((signal.SIGTERM,), 0, id="SIGTERM", marks=SLOW),
            pytest.param((signal.SIGTERM,), 5, id="SIGTERM in a hang", marks=SLOW),
            pytest.param((signal.SIGKILL,), 0, id="SIGKILL", marks=SLOW),
            pytest.param((signal.SIGKILL,), 5, id="SIGKILL in a hang"),
        ],
    )
    def test_are_put_back_at_the_end_of_the_driver(
        self, machine: FakeMachine, start: Any, scripts: Any, wait_for: Any, numbers: Any, hang: int
    ) -> None:
        process = start(hang)
        if hang:
            wait_for(machine.path.with_name("hangs").exists, "the hang")
        for number in numbers:
            process.send_signal(number)
            if len(numbers) > 1:
                wait_for(lambda: process.stderr.readline().startswith("stopping"), "the first Ctrl-C")
                numbers = ()
        process.communicate(timeout=60)
        wait_for(lambda: are_as_before(machine), "the clocks", within=20)
        assert machine[0].changes == ["core 1410 1410", "core 0 0"]
        # the owner outlives the driver, and removes it after that
        wait_for(lambda: not list(machine.states.glob("*.ledger.json")), "the ledger's end", within=20)
        wait_for(lambda: not scripts.alive(), "the end of all processes", within=20)

    @pytest.mark.slow
    def test_are_put_back_by_who_follows_an_owner_that_is_killed(
        self, machine: FakeMachine, start: Any, runs: Path, wait_for: Any
    ) -> None:
        process = start()
        child = outcomes(runs / "1")[0]["outcome"]["metrics"]["pid"]
        os.kill(psutil.Process(child).ppid(), signal.SIGKILL)
        before = len(outcomes(runs / "1"))
        wait_for(lambda: len(outcomes(runs / "1")) > before + 5, "more outcomes")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert machine[0].changes == ["core 1410 1410", "core 0 0", "core 1410 1410", "core 0 0"]
        assert {record["outcome"]["status"] for record in outcomes(runs / "1")} == {"ok"}
