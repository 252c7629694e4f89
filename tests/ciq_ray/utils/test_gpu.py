"""`ciq_ray.utils.gpu`, as the documents describe it."""

from __future__ import annotations

import inspect
import os
import signal
import warnings

import pytest

from ciq_ray.errors import ConfigurationError, UnsupportedError
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import hold
from ciq_ray.gpu.ledger import ledgers
from ciq_ray.gpu.nvml import NvmlError
from ciq_ray.utils.gpu import ctk_supports_compileiq, gpu_benchmark_mode, has_nvidia_smi


def locked(machine):
    return [card.locked_sm[0] for card in machine.cards]


def test_parameters_and_defaults_are_the_documented_ones():
    parameters = inspect.signature(gpu_benchmark_mode).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "clock_mhz": None,
        "mem_clock_mhz": None,
        "power_watts": None,
        "gpu_id": None,
        "with_sudo": True,
        "raise_on_failure": True,
    }


class TestWhatIsThere:
    def test_nvidia_smi(self, fake_nvml, monkeypatch):
        fake_nvml()
        assert has_nvidia_smi() is True
        monkeypatch.setenv("PATH", "/nowhere")
        assert has_nvidia_smi() is False

    @pytest.mark.parametrize(
        ("release", "expected"), [("12.9", False), ("13.2", False), ("13.3", True), ("14.0", True)]
    )
    @pytest.mark.parametrize("name", ["ptxas", "nvcc"])
    def test_a_toolkit_by_its_release(self, tmp_path, monkeypatch, name, release, expected):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}.1"\n')
        tool.chmod(0o755)
        monkeypatch.setattr("ciq_ray.compilers._package_folders", list)
        monkeypatch.delenv("CUDA_HOME", raising=False)
        monkeypatch.delenv("CUDA_PATH", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert ctk_supports_compileiq() is expected

    def test_no_toolkit_or_a_broken_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ciq_ray.compilers._package_folders", list)
        monkeypatch.delenv("CUDA_HOME", raising=False)
        monkeypatch.delenv("CUDA_PATH", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert ctk_supports_compileiq() is False
        (tmp_path / "nvcc").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "nvcc").chmod(0o755)
        assert ctk_supports_compileiq() is False

    def test_the_one_of_the_extra_takes_controls(self):
        from ciq_ray.compilers import find_tool, run_tool

        said = run_tool([find_tool("ptxas"), "--help"], timeout=60).stdout
        assert ("--apply-controls" in said) == ctk_supports_compileiq()


class TestBenchmarkMode:
    def test_all_visible_gpus(self, fake_nvml):
        machine = fake_nvml(gpus=2, limit_mw=650000)
        with gpu_benchmark_mode(clock_mhz=1410, mem_clock_mhz=1593, power_watts=500):
            assert locked(machine) == [1410, 1410]
            assert [card.locked_mem[0] for card in machine.cards] == [1593, 1593]
            assert [card.limit_mw for card in machine.cards] == [500000, 500000]
        assert locked(machine) == [0, 0]
        assert [card.limit_mw for card in machine.cards] == [650000, 650000]
        assert ledgers() == []

    @pytest.mark.parametrize(
        ("gpu_id", "expected"),
        [
            (1, [0, 1410, 0]),
            ("1", [0, 1410, 0]),
            ("GPU-00000003", [0, 0, 1410]),
            ([0, "GPU-00000003-1111-2222-3333-444444444444"], [1410, 0, 1410]),
            (None, [1410, 1410, 1410]),
        ],
    )
    def test_chosen_ones(self, fake_nvml, gpu_id, expected):
        machine = fake_nvml(gpus=3)
        with gpu_benchmark_mode(clock_mhz=1410, gpu_id=gpu_id):
            assert locked(machine) == expected
        assert locked(machine) == [0, 0, 0]

    def test_visible_is_what_CUDA_sees(self, fake_nvml, monkeypatch):
        machine = fake_nvml(gpus=3)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        with gpu_benchmark_mode(clock_mhz=1410):
            assert locked(machine) == [0, 0, 1410]
        with gpu_benchmark_mode(clock_mhz=1410, gpu_id=0):
            assert locked(machine) == [0, 0, 1410]

    def test_no_call_for_what_is_none(self, fake_nvml, monkeypatch):
        machine = fake_nvml()
        before = machine.contents()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # not even looked at
        with gpu_benchmark_mode():
            assert machine.contents() == before
        assert not machine.states.exists()

    def test_instances_of_a_card_are_set_once(self, fake_nvml):
        machine = fake_nvml(scenario="mig")
        with gpu_benchmark_mode(clock_mhz=1410):
            assert machine[0].changes == ["core 1410 1410"]

    def test_a_set_up_that_fails_half_way_is_undone(self, fake_nvml):
        machine = fake_nvml(gpus=3)
        machine[2].memory_error = 3
        with (
            pytest.raises(UnsupportedError, match=r"cannot lock the memory clock .* on GPU GPU-00000003"),
            gpu_benchmark_mode(clock_mhz=1410, mem_clock_mhz=1593),
        ):
            pytest.fail("not reached")
        assert machine[0].changes == ["core 1410 1410", "memory 1593 1593", "memory 0 0", "core 0 0"]
        assert machine[2].changes == ["core 1410 1410", "core 0 0"]
        assert ledgers() == []

    def test_or_it_goes_on_with_a_warning(self, fake_nvml):
        machine = fake_nvml(gpus=2)
        machine[1].memory_error = 3
        mode = gpu_benchmark_mode(clock_mhz=1410, mem_clock_mhz=1593, raise_on_failure=False)
        with pytest.warns(RuntimeWarning, match="cannot lock the memory clock") as caught:
            mode.__enter__()
        assert [warning.filename for warning in caught] == [__file__]
        assert locked(machine) == [1410, 1410]
        assert [card.locked_mem[0] for card in machine.cards] == [1593, 0]
        mode.__exit__(None, None, None)
        assert locked(machine) == [0, 0]

    def test_a_lost_gpu(self, fake_nvml):
        machine = fake_nvml(gpus=2)
        machine[1].core_error = 15
        with pytest.raises(NvmlError, match="GPU is lost"):
            gpu_benchmark_mode(clock_mhz=1410).__enter__()
        assert locked(machine) == [0, 0]
        with (
            pytest.warns(RuntimeWarning, match="GPU is lost"),
            gpu_benchmark_mode(clock_mhz=1410, raise_on_failure=False),
        ):
            assert locked(machine) == [1410, 0]

    def test_without_a_gpu(self, fake_nvml):
        fake_nvml(gpus=0)
        with pytest.raises(UnsupportedError, match="finds no GPU"):
            gpu_benchmark_mode(clock_mhz=1410).__enter__()
        reached = False
        with (
            pytest.warns(RuntimeWarning, match="finds no GPU"),
            gpu_benchmark_mode(clock_mhz=1410, raise_on_failure=False),
        ):
            reached = True
        assert reached

    @pytest.mark.parametrize("raise_on_failure", [True, False])
    def test_mistakes_are_errors_in_any_case(self, fake_nvml, raise_on_failure):
        fake_nvml()
        with pytest.raises(ConfigurationError, match="`clock_mhz` is 0"):
            gpu_benchmark_mode(clock_mhz=0, raise_on_failure=raise_on_failure).__enter__()
        with pytest.raises(ConfigurationError, match="there is no GPU 5"):
            gpu_benchmark_mode(clock_mhz=1410, gpu_id=5, raise_on_failure=raise_on_failure).__enter__()

    def test_without_permission_with_sudo(self, fake_nvml):
        machine = fake_nvml(scenario="refused", reset_error=4)
        with gpu_benchmark_mode(clock_mhz=1410):
            assert locked(machine) == [1410]
        assert locked(machine) == [0]
        assert [line.split()[0] for line in machine.sudo_log.read_text().splitlines()] == ["-n", "-n"]

    def test_without_permission_without_sudo(self, fake_nvml):
        machine = fake_nvml(scenario="refused")
        with pytest.raises(UnsupportedError, match="does not have permission"):
            gpu_benchmark_mode(clock_mhz=1410, with_sudo=False).__enter__()
        assert not machine.sudo_log.exists()
        assert machine.smi_log.exists()

    def test_a_sudo_that_would_ask(self, fake_nvml, monkeypatch):
        machine = fake_nvml(scenario="refused")
        monkeypatch.setenv("CIQ_FAKE_SUDO_REFUSES", "1")
        with pytest.raises(UnsupportedError, match="a password is required"):
            gpu_benchmark_mode(clock_mhz=1410).__enter__()
        assert all(line.startswith("-n ") for line in machine.sudo_log.read_text().splitlines())

    def test_an_exception_of_the_measurement_comes_through(self, fake_nvml):
        machine = fake_nvml()
        with pytest.raises(ZeroDivisionError), gpu_benchmark_mode(clock_mhz=1410):
            1 / 0  # noqa: B018
        assert locked(machine) == [0]

    def test_around_a_search_that_times(self, fake_nvml):
        fake_nvml()
        with gpu_benchmark_mode(clock_mhz=1410), hold(devices()[0]) as held:
            assert held.clock_state == f"locked 1410 MHz, by process {os.getpid()}"

    def test_two_scripts_at_a_time(self, fake_nvml):
        machine = fake_nvml()
        with gpu_benchmark_mode(clock_mhz=1410):
            with pytest.raises(ConfigurationError, match="holding its clocks"):
                gpu_benchmark_mode(clock_mhz=1200).__enter__()
            with (
                pytest.warns(RuntimeWarning, match="holding its clocks"),
                gpu_benchmark_mode(clock_mhz=1200, raise_on_failure=False),
            ):
                assert locked(machine) == [1410]
            assert locked(machine) == [1410]

    def test_ended_by_SIGTERM(self, fake_nvml, scripts):
        machine = fake_nvml(gpus=2)
        script = scripts.write(
            "import time\nfrom ciq_ray.utils.gpu import gpu_benchmark_mode\n"
            "with gpu_benchmark_mode(clock_mhz=1410):\n    print('set', flush=True)\n    time.sleep(600)\n"
        )
        process = scripts.start(script)
        assert process.stdout.readline() == "set\n"
        assert locked(machine) == [1410, 1410]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 143
        assert locked(machine) == [0, 0]

    def test_nothing_is_warned_of_when_all_is_well(self, fake_nvml):
        fake_nvml()
        with warnings.catch_warnings(), gpu_benchmark_mode(clock_mhz=1410):
            warnings.simplefilter("error")
