"""``ciq gpu``, and the GPUs' part of ``ciq doctor``."""

from __future__ import annotations

import json
import os
import sys
import types
from dataclasses import replace

import pytest

from ciq_ray.gpu import preflight
from ciq_ray.gpu.findings import gpu_findings
from ciq_ray.gpu.ledger import Ledger, read_ledger
from ciq_ray.gpu.locks import HostLock, Owner


@pytest.fixture
def leave():
    """Leaves a card as a process that was killed would."""

    def do(machine, card=0, **fields):
        gone = replace(Owner.this(), pid=2**22 - 1)
        ledger = Ledger(machine.uuid(card), gone, ("core", "power"), 650000, "locked 1410 MHz, 500 W")
        replace(ledger, **fields).write()
        machine[card].locked_sm[:] = [1410, 1410]
        machine[card].limit_mw = 500000

    return do


class TestStatus:
    def test_for_people(self, ciq, fake_nvml):
        machine = fake_nvml(gpus=2)
        before = machine.contents()
        out = ciq("gpu", "status").stdout
        for part in ("0: NVIDIA H100", "1: NVIDIA H100", machine.uuid(1), "event reasons: Idle", "base 1590"):
            assert part in out
        assert machine.contents() == before
        assert not machine.states.exists()

    def test_of_one_as_json(self, ciq, fake_nvml):
        machine = fake_nvml(gpus=2)
        (seen,) = json.loads(ciq("gpu", "status", "1", "--json").stdout)
        assert seen["device"]["uuid"] == machine.uuid(1)
        assert seen["now"]["sm_mhz"] == 1980
        assert seen["lines"][0].startswith("NVIDIA H100")

    def test_without_a_gpu(self, ciq, fake_nvml):
        machine = fake_nvml()
        machine.state.init_error = 9
        assert "no NVIDIA GPU can be used" in ciq("gpu", "status", code=1).stderr

    def test_one_that_is_not_there(self, ciq, fake_nvml):
        fake_nvml()
        assert "there is no GPU 3" in ciq("gpu", "status", "3", code=2).stderr

    def test_one_that_is_lost(self, ciq, fake_nvml):
        fake_nvml(scenario="lost")
        assert "GPU is lost" in ciq("gpu", "status", code=1).stderr

    def test_one_that_is_lost_among_others(self, ciq, fake_nvml):
        machine = fake_nvml(gpus=2)
        machine[1].lost = 1
        run = ciq("gpu", "status")
        assert "warning: card 1 (of 2, as in nvidia-smi): GPU is lost" in run.stderr
        assert machine.uuid(0) in run.stdout


class TestPlan:
    def test_it_changes_nothing(self, ciq, fake_nvml):
        machine = fake_nvml()
        before = machine.contents()
        out = ciq("gpu", "plan", "--clock", "base", "--power", "500").stdout
        assert "lock the core clock to its base clock, 1590 MHz" in out
        assert "at the end: put the power limit back to 700 W" in out
        assert machine.contents() == before
        assert not machine.states.exists()
        assert not machine.sudo_log.exists()

    def test_as_json(self, ciq, fake_nvml):
        machine = fake_nvml(gpus=2)
        plans = json.loads(ciq("gpu", "plan", "--clock", "1412", "1", "--json").stdout)
        assert list(plans) == [machine.uuid(1)]
        assert "1410 MHz is the core clock nearest to 1412 MHz" in plans[machine.uuid(1)][1]

    @pytest.mark.parametrize("clock", ["fast", "9999", "-5"])
    def test_a_clock_that_is_none(self, ciq, fake_nvml, clock):
        fake_nvml()
        assert "`clock_mhz` is" in ciq("gpu", "plan", f"--clock={clock}", code=2).stderr


class TestRelease:
    def test_what_was_left_is_undone(self, ciq, fake_nvml, leave):
        machine = fake_nvml(gpus=2)
        leave(machine, 1)
        out = ciq("gpu", "release").stdout
        assert f"left clocks of GPU {machine.uuid(1)} set (undone: core, power)" in out
        assert machine[1].changes == ["power 650000 650000", "core 0 0"]
        assert machine[0].changes == []
        assert read_ledger(machine.uuid(1)) is None
        assert ciq("gpu", "release").stdout == "nothing was left set\n"

    def test_one_of_several(self, ciq, fake_nvml, leave):
        machine = fake_nvml(gpus=2)
        leave(machine, 0)
        leave(machine, 1)
        done = json.loads(ciq("gpu", "release", machine.uuid(0), "--json").stdout)
        assert len(done["done"]) == 1
        assert read_ledger(machine.uuid(0)) is None
        assert read_ledger(machine.uuid(1)) is not None

    @pytest.mark.parametrize("name", ["1", "GPU-00000002", "gpu-00000002"])
    def test_by_position_or_the_beginning_of_its_uuid(self, ciq, fake_nvml, leave, name):
        machine = fake_nvml(gpus=2)
        leave(machine, 0)
        leave(machine, 1)
        assert len(json.loads(ciq("gpu", "release", name, "--json").stdout)["done"]) == 1
        assert read_ledger(machine.uuid(0)) is not None
        assert read_ledger(machine.uuid(1)) is None

    def test_of_one_that_is_not_visible(self, ciq, fake_nvml, leave, monkeypatch):
        machine = fake_nvml(gpus=2)
        leave(machine, 1)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        ciq("gpu", "release", machine.uuid(1))
        assert read_ledger(machine.uuid(1)) is None

    def test_a_mistyped_name_is_not_taken_for_success(self, ciq, fake_nvml):
        machine = fake_nvml()
        assert "nothing was left set" in ciq("gpu", "release", machine.uuid()).stdout
        error = ciq("gpu", "release", "GPU-x", code=2).stderr
        assert f"'GPU-x' is no GPU of this machine; there are: 0: {machine.uuid()}" in error

    def test_without_permission_it_stays(self, ciq, fake_nvml, leave):
        machine = fake_nvml(reset_error=4, power_error=4)
        leave(machine)
        assert "Insufficient Permissions" in ciq("gpu", "release", code=1).stderr
        assert read_ledger(machine.uuid()) is not None

    def test_with_sudo_if_it_took_that_to_set_it(self, ciq, fake_nvml, leave):
        machine = fake_nvml(reset_error=4, power_error=4)
        leave(machine, fallback="sudo")
        ciq("gpu", "release")
        assert machine[0].changes == ["power 650000 650000", "core 0 0"]

    def test_that_of_a_living_process_is_its_own(self, ciq, fake_nvml):
        machine = fake_nvml()
        lock = HostLock(machine.uuid(), "clocks")
        lock.acquire(0.0)
        Ledger(machine.uuid(), Owner.this(), ("core",)).write()
        assert "is in use" in ciq("gpu", "release", code=1).stderr
        lock.release()
        assert machine[0].changes == []

    def test_of_a_card_that_is_gone(self, ciq, fake_nvml):
        machine = fake_nvml()
        Ledger("GPU-gone", replace(Owner.this(), pid=2**22 - 1), ("core",)).write()
        assert "GPU-gone" in ciq("gpu", "release", code=1).stderr
        assert machine[0].changes == []


class TestDoctor:
    @pytest.fixture
    def found(self, monkeypatch):
        monkeypatch.setattr(preflight, "may_lock", lambda: "")

        def look():
            return {finding.name: finding for finding in gpu_findings()}

        return look

    def test_all_is_well(self, fake_nvml, found):
        machine = fake_nvml(gpus=2)
        before = machine.contents()
        findings = found()
        for name in ("GPU 0", "GPU 1", "GPU 0 driver", "GPU 0 clocks", "GPU 0 power", "GPU 0 now"):
            assert findings[name].state == "ok"
        assert machine.uuid(1) in findings["GPU 1"].value
        assert "driver 580.159.04" in findings["GPU 0 driver"].value
        assert findings["GPU 0 locking"].value == "clocks can be set, as far as can be seen"
        assert machine.contents() == before

    def test_what_gets_in_the_way(self, fake_nvml, found, leave, monkeypatch):
        machine = fake_nvml(scenario="throttled", persistence=0)
        machine.occupy(1)
        leave(machine)
        findings = found()
        assert findings["GPU 0 now"].state == "warning"
        assert findings["GPU 0 now"].advice.startswith("SwPowerCap, SwThermal: what is timed now")
        assert findings["GPU 0 users"].value.startswith("process 1 (")
        assert findings["GPU clocks"].state == "warning"
        assert findings["GPU clocks"].advice == "ciq gpu release"
        lock = HostLock(machine.uuid(), "timing")
        lock.acquire(0.0)
        monkeypatch.setattr(preflight, "may_lock", lambda: "it takes root")
        all_of_them = gpu_findings()
        lock.release()
        texts = [f"{finding.name}: {finding.value}" for finding in all_of_them]
        assert "GPU 0 locking: persistence mode is off" in texts
        assert "GPU 0 locking: clocks cannot be set: it takes root" in texts
        assert any(f"timing on it: process {os.getpid()}" in text for text in texts)
        assert all(finding.advice for finding in all_of_them if finding.state != "ok")

    def test_a_lost_gpu_among_others(self, fake_nvml, found):
        machine = fake_nvml(gpus=2)
        machine[0].lost = 1
        findings = found()
        assert machine.uuid(1) in findings["GPU 0"].value
        assert findings["GPU lost"].state == "warning"
        assert findings["GPU lost"].value == "card 0 (of 2, as in nvidia-smi): GPU is lost"
        assert "dmesg" in findings["GPU lost"].advice

    def test_what_kernels_need(self, fake_nvml, found, monkeypatch):
        machine = fake_nvml()
        for name in ("torch", "cuda", "triton"):
            monkeypatch.setitem(sys.modules, name, None)
        findings = found()
        for name, state in (("torch", "warning"), ("cuda-bindings", "warning"), ("triton", "absent")):
            assert findings[name].state == state
            assert "not installed" in findings[name].value
        assert "pytorch.org" in findings["torch"].advice
        assert findings["cuda-bindings"].advice == "pip install 'ciq-ray[gpu]'"
        machine.state.init_error = 9  # without a GPU none of them is needed
        assert {found()[name].state for name in ("torch", "cuda-bindings", "triton")} == {"absent"}
        monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
        assert found()["torch"].state == "ok"

    def test_clocks_held_by_a_process_that_is_not_seen_from_here(self, fake_nvml, found, leave):
        # as in another container, which shares the folder
        machine = fake_nvml()
        leave(machine)
        lock = HostLock(machine.uuid(), "clocks")
        lock.acquire(0.0)
        finding = found()["GPU clocks"]
        lock.release()
        assert finding.state == "ok"
        assert f"set: locked 1410 MHz, 500 W, by process {2**22 - 1}" in finding.value
        assert found()["GPU clocks"].state == "warning"

    def test_a_lost_gpu_and_no_driver(self, fake_nvml, found):
        machine = fake_nvml(scenario="lost")
        assert "GPU is lost (all cards: 0); see `nvidia-smi`" in found()["GPU"].advice
        machine.state.init_error = 9
        assert (found()["GPU"].state, found()["GPU"].value) == ("absent", "no NVIDIA driver")

    def test_one_that_is_lost_while_it_is_looked_at(self, fake_nvml, found):
        fake_nvml(power_read_error=15)
        assert "see `nvidia-smi`" in found()["GPU 0"].advice

    def test_hidden_gpus(self, fake_nvml, found, monkeypatch):
        fake_nvml()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert found()["GPU"].state == "warning"
        assert "unset it" in found()["GPU"].advice

    def test_the_toolkit(self, fake_nvml, found):
        fake_nvml()
        assert found()["CUDA toolkit"].state == "ok"

    def test_in_the_table(self, ciq, fake_nvml):
        machine = fake_nvml()
        out = ciq("doctor").stdout
        assert machine.uuid() in out
        assert "GPU 0 driver" in out
