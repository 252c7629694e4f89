"""Looking at a GPU, and saying what would be done: nothing is changed, nothing is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu import preflight as module
from ciq_ray.gpu.clocks import Clocks
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.ledger import Ledger
from ciq_ray.gpu.locks import HostLock, Owner
from ciq_ray.gpu.preflight import foreign_processes, may_lock, plan, preflight


@pytest.fixture
def rooted(monkeypatch):
    monkeypatch.setattr(module, "may_lock", lambda: "")


class TestLooking:
    def test_all_that_there_is(self, fake_nvml, rooted):
        machine = fake_nvml(persistence=0)
        before = machine.contents()
        seen = preflight(devices()[0])
        assert seen.persistence is False
        assert (seen.power_w, seen.power_range_w) == (700.0, (200.0, 700.0))
        assert (seen.clocks_mhz, seen.memory_mhz, seen.base_mhz) == ((345, 1980), (2619, 1593), 1590)
        assert seen.now.reasons == 1
        assert seen.processes == ()
        text = "\n".join(seen.lines())
        for part in (
            machine.uuid(),
            "driver 580.159.04",
            "MIG off, persistence off",
            "core 1980 MHz, memory 2619 MHz, 114 W, 41 C, event reasons: Idle",
            "clocks: core 345 to 1980 MHz, base 1590 MHz, memory 2619, 1593 MHz",
            "power limit: 700 W of 200 to 700 W",
            "setting clocks: allowed, as far as can be seen",
        ):
            assert part in text
        assert json.loads(json.dumps(seen.to_dict()))["device"]["uuid"] == machine.uuid()
        assert machine.contents() == before
        assert not machine.states.exists()

    def test_what_the_card_does_not_tell(self, fake_nvml, monkeypatch):
        machine = fake_nvml(power_read_error=3)
        machine[0].mem_clocks[0] = 0
        monkeypatch.setenv("PATH", "/nowhere")
        text = "\n".join(preflight(devices()[0]).lines())
        assert "clocks: core unknown, base unknown, memory unknown MHz" in text
        assert "power limit: unknown of unknown" in text

    def test_an_instance_says_of_which_card_it_is(self, fake_nvml):
        machine = fake_nvml(scenario="mig")
        first, second, *_ = preflight(devices()[0]).lines()
        assert f"of {machine.uuid()}" in first
        assert "MIG on" in second

    def test_who_holds_it_and_what_was_left(self, fake_nvml):
        machine = fake_nvml()
        timing = HostLock(machine.uuid(), "timing")
        timing.acquire(0.0)
        gone = replace(Owner.this(), pid=2**22 - 1)
        Ledger(machine.uuid(), gone, ("core",), state="locked 1410 MHz").write()
        text = "\n".join(preflight(devices()[0]).lines())
        timing.release()
        assert f"timing on it: process {os.getpid()}" in text
        assert f"left behind: locked 1410 MHz, by process {gone.pid}" in text
        assert "undo it with: ciq gpu release" in text


class TestForeignProcesses:
    def test_others_count_and_our_own_do_not(self, fake_nvml):
        machine = fake_nvml()
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        machine.occupy(os.getpid(), child.pid, os.getppid())
        (other,) = foreign_processes(devices()[0])
        child.communicate()
        assert other.pid == os.getppid()
        assert other.name == Path(f"/proc/{os.getppid()}/comm").read_text().strip()
        assert str(other) == f"process {other.pid} ({other.name}, 512 MiB)"

    def test_one_of_another_namespace(self, fake_nvml):
        machine = fake_nvml()
        machine.occupy(2**22 - 1)
        (other,) = foreign_processes(devices()[0])
        assert other.name == "?"


class TestPermission:
    def test_users(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert may_lock() == "it takes root"

    @pytest.mark.parametrize(
        ("capabilities", "users", "reason"),
        [
            ("000001ffffffffff", "0 0 4294967295", ""),
            ("00000000a80425fb", "0 0 4294967295", "lacks SYS_ADMIN"),
            ("000001ffffffffff", "0 100000 65536", "root of this container is not root of the machine"),
        ],
    )
    def test_root(self, monkeypatch, capabilities, users, reason):
        texts = {"status": f"Name:\tx\nCapEff:\t{capabilities}\n", "uid_map": f"  {users}\n"}
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(Path, "read_text", lambda path: texts[path.name])
        assert reason in may_lock()
        assert bool(reason) == bool(may_lock())


class TestPlan:
    def test_each_step_and_nothing_done(self, fake_nvml, rooted):
        machine = fake_nvml(limit_mw=650000)
        before = machine.contents()
        lines = plan(devices()[0], Clocks("base", 1600, 500))
        assert lines == [
            "write down what is changed, in a file that outlives this process",
            "lock the core clock to its base clock, 1590 MHz",
            "lock the memory clock to 1593 MHz (1593 MHz is the memory clock nearest to 1600 MHz)",
            "set the power limit to 500 W",
            "at the end: put the power limit back to 650 W",
            "at the end: unlock the memory clock",
            "at the end: unlock the core clock",
        ]
        assert machine.contents() == before
        assert not machine.states.exists()
        assert not machine.sudo_log.exists()

    def test_nothing_to_do(self, fake_nvml):
        fake_nvml()
        assert plan(devices()[0], Clocks()) == ["set nothing"]

    def test_what_will_probably_be_refused(self, fake_nvml, monkeypatch):
        fake_nvml()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert plan(devices()[0], Clocks(1410))[-1] == "this will probably be refused: it takes root"
        last = plan(devices()[0], Clocks(1410), fallback="sudo")[-1]
        assert last.endswith("it takes root, so sudo -n nvidia-smi is tried")

    def test_what_is_out_of_range_is_refused_now(self, fake_nvml):
        fake_nvml()
        with pytest.raises(ConfigurationError, match="takes 345 to 1980"):
            plan(devices()[0], Clocks(9000))

    def test_others_first(self, fake_nvml, rooted):
        machine = fake_nvml()
        lock = HostLock(machine.uuid(), "clocks")
        lock.acquire(0.0)
        Ledger(machine.uuid(), replace(Owner.this(), boot="old"), ("core", "power"), 1).write()
        lines = plan(devices()[0], Clocks(1410))
        lock.release()
        assert lines[0].startswith(f"wait for process {os.getpid()}")
        assert lines[1].endswith("left: core, power")
