"""Holding a GPU: set, undone, and recovered whatever happens to who held it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest

from ciq_ray.errors import ConfigurationError, UnsupportedError
from ciq_ray.gpu import hold as module
from ciq_ray.gpu.clocks import Changer
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import UNLOCKED, Clocks, clock_state, hold, recover, set_clocks
from ciq_ray.gpu.ledger import Ledger, read_ledger
from ciq_ray.gpu.locks import HostLock, Owner
from ciq_ray.gpu.nvml import NvmlError

pytestmark = pytest.mark.usefixtures("default_handlers")

ALL = Clocks(1410, 1593, 500)
UNDONE = ["power 650000 650000", "memory 0 0", "core 0 0"]

HOLDER = """
import os, sys, time
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import Clocks, hold
pid, how = os.getpid(), sys.argv[1]
try:
    with hold(devices()[0], Clocks(1410, 1593, 500), say=print) as held:
        child = None if how == "alone" else os.fork()
        if child == 0 and how == "unwind":
            sys.exit(3)
        if child == 0 or how != "sleep":  # not before a child can be killed: at a fork signals get lost
            print(held.clock_state, flush=True)
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        time.sleep(600)
finally:
    if os.getpid() == pid:
        print("ended", flush=True)
"""


@pytest.fixture
def said():
    return []


@pytest.fixture
def holder(scripts):
    """Starts a process that holds the first GPU with all settings."""

    def start(how="alone"):
        process = scripts.start(scripts.write(HOLDER), how)
        assert process.stdout.readline() == "locked 1410/1593 MHz, 500 W\n", process.stderr.read()
        return process

    return start


class TestInGoodOrder:
    def test_set_and_undone(self, fake_nvml, said):
        machine = fake_nvml(limit_mw=650000)
        with hold(devices()[0], ALL, say=said.append) as held:
            assert held.clock_state == "locked 1410/1593 MHz, 500 W"
            assert held.core_mhz == 1410
            ledger = read_ledger(machine.uuid())
            assert (ledger.owner.pid, ledger.power_mw) == (os.getpid(), 650000)
            assert machine[0].changes == ["core 1410 1410", "memory 1593 1593", "power 500000 500000"]
        assert machine[0].changes[3:] == UNDONE
        assert machine.is_untouched()
        assert said == held.notes == []

    @pytest.mark.parametrize(
        ("clocks", "state"),
        [
            (Clocks("base"), "locked 1590 MHz"),
            (Clocks(1410), "locked 1410 MHz"),
            (Clocks(mem_clock_mhz=1593), "locked memory 1593 MHz"),
            (Clocks(power_watts=300), "unlocked, 300 W"),
            (Clocks(), UNLOCKED),
            (None, UNLOCKED),
        ],
    )
    def test_how_it_is_called_in_records(self, fake_nvml, clocks, state):
        machine = fake_nvml(limit_mw=650000)
        with hold(devices()[0], clocks) as held:
            assert held.clock_state == state
        assert machine.is_untouched()

    def test_the_base_clock_without_anybody_who_knows_it(self, fake_nvml, monkeypatch):
        fake_nvml()
        monkeypatch.setenv("PATH", "/nowhere")
        with hold(devices()[0], Clocks("base")) as held:
            assert (held.clock_state, held.core_mhz) == ("locked base MHz", None)

    def test_the_ledger_is_there_before_the_first_change(self, fake_nvml, monkeypatch):
        machine = fake_nvml(limit_mw=650000)
        seen = []
        apply = Changer.apply

        def watched(self, change):
            seen.append(read_ledger(machine.uuid()))
            apply(self, change)

        monkeypatch.setattr(Changer, "apply", watched)
        with hold(devices()[0], ALL):
            pass
        assert seen[0].changes == ("core", "memory", "power")
        assert seen[0].power_mw == 650000

    def test_nothing_is_set_when_the_ledger_cannot_be_written(self, fake_nvml, monkeypatch):
        machine = fake_nvml()

        def fail(self):
            raise OSError("No space left on device")

        monkeypatch.setattr(Ledger, "write", fail)
        with pytest.raises(ConfigurationError, match=r"cannot be written down: No space.*CIQ_GPU_STATE_DIR"):
            hold(devices()[0], ALL).__enter__()
        assert machine[0].changes == []

    def test_an_exception_undoes_it(self, fake_nvml):
        machine = fake_nvml(limit_mw=650000)
        with pytest.raises(ZeroDivisionError), hold(devices()[0], ALL):
            1 / 0  # noqa: B018
        assert machine.is_untouched()

    def test_out_of_range_is_refused_before_anything_is_set(self, fake_nvml):
        machine = fake_nvml()
        with pytest.raises(ConfigurationError, match="`power_watts` is 9000"):
            hold(devices()[0], Clocks(1410, None, 9000)).__enter__()
        assert machine[0].changes == []
        with hold(devices()[0]):
            pass

    def test_an_instance_holds_its_card(self, fake_nvml):
        machine = fake_nvml(scenario="mig")
        first, second = devices()
        with hold(first, Clocks(1410)):
            assert list(machine[0].locked_sm) == [1410, 1410]
            with pytest.raises(ConfigurationError, match=machine.uuid()):
                hold(second).__enter__()

    def test_others_on_it_are_noticed(self, fake_nvml, said):
        machine = fake_nvml()
        machine.occupy(1)
        with hold(devices()[0], say=said.append) as held:
            assert held.notes == said
        assert said[0].startswith(f"GPU {machine.uuid()} is shared: process 1 (")

    def test_notes_are_warnings_unless_somebody_takes_them(self, fake_nvml):
        fake_nvml().occupy(1)
        with pytest.warns(RuntimeWarning, match="is shared") as caught, hold(devices()[0]):
            pass
        assert [warning.filename for warning in caught] == [__file__]

    def test_without_persistence_mode_it_is_said_that_clocks_may_be_forgotten(self, fake_nvml, said):
        fake_nvml(persistence=0)
        with hold(devices()[0], Clocks(1410), say=said.append):
            pass
        assert "cannot be kept open" in said[0]
        assert "nvidia-smi -pm 1" in said[0]

    def test_without_it_the_cards_file_is_kept_open(self, fake_nvml, said, monkeypatch, tmp_path):
        fake_nvml(persistence=0)
        opened = os.open
        (tmp_path / "nvidia0").touch()
        files = []

        def redirected(path, *arguments, **options):
            if path == "/dev/nvidia0":
                files.append(opened(tmp_path / "nvidia0", *arguments, **options))
                return files[-1]
            return opened(path, *arguments, **options)

        monkeypatch.setattr(module.os, "open", redirected)
        with hold(devices()[0], Clocks(1410), say=said.append):
            os.fstat(files[0])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(files[0])
        assert said == []


class TestRefusals:
    def test_all_of_them(self, fake_nvml, said):
        machine = fake_nvml(scenario="refused")
        with hold(devices()[0], ALL, say=said.append) as held:
            assert held.clock_state == UNLOCKED
            assert held.core_mhz is None
            assert read_ledger(machine.uuid()) is None
        assert len(said) == 3
        assert "cannot lock the core clock to 1410 MHz" in said[0]
        assert "Insufficient Permissions; it takes root, in a container with SYS_ADMIN" in said[0]
        assert machine[0].changes == []

    def test_memory_alone(self, fake_nvml, said):
        machine = fake_nvml(scenario="memory_unsupported", limit_mw=650000)
        with hold(devices()[0], ALL, say=said.append) as held:
            assert held.clock_state == "partly: locked 1410 MHz, 500 W, memory refused (Not Supported)"
            assert read_ledger(machine.uuid()).changes == ("core", "power")
        assert machine[0].changes == [
            "core 1410 1410",
            "power 500000 500000",
            "power 650000 650000",
            "core 0 0",
        ]
        (note,) = said
        assert "this GPU, driver or machine does not have it" in note

    @pytest.mark.parametrize("error", [2, 3, 4])
    @pytest.mark.parametrize(
        ("setting", "state"),
        [("core", "partly: locked memory 1593 MHz, 500 W, core"), ("power", "partly: locked 1410/1593 MHz")],
    )
    def test_each_way_of_saying_no_is_alike(self, fake_nvml, said, setting, state, error):
        machine = fake_nvml(limit_mw=650000, **{f"{setting}_error": error})
        with hold(devices()[0], ALL, say=said.append) as held:
            assert held.clock_state.startswith(f"{state}")
        machine[0].power_error = 0
        assert list(machine[0].locked_sm) == list(machine[0].locked_mem) == [0, 0]
        assert machine[0].limit_mw == 650000

    def test_strict_undoes_what_was_set_before_it_raises(self, fake_nvml):
        machine = fake_nvml(power_error=4, limit_mw=650000)
        with pytest.raises(UnsupportedError, match="cannot set the power limit to 500 W"):
            set_clocks(devices()[0], ALL, strict=True).__enter__()
        assert machine[0].changes == ["core 1410 1410", "memory 1593 1593", "memory 0 0", "core 0 0"]
        assert machine.is_untouched()

    def test_a_device_that_is_lost_half_way(self, fake_nvml, said):
        machine = fake_nvml(memory_error=15)
        with pytest.raises(NvmlError) as caught:
            hold(devices()[0], ALL, say=said.append).__enter__()
        assert caught.value.kind == "lost"
        assert machine[0].changes == ["core 1410 1410", "power 700000 700000", "memory 0 0", "core 0 0"]

    def test_with_sudo_it_is_undone_with_sudo(self, fake_nvml, said):
        machine = fake_nvml(scenario="refused", limit_mw=650000, reset_error=4)
        with hold(devices()[0], ALL, fallback="sudo", say=said.append) as held:
            assert held.clock_state == "locked 1410/1593 MHz, 500 W"
        assert machine.is_untouched()
        assert said == []
        lines = machine.sudo_log.read_text().splitlines()
        assert len(lines) == 6
        assert all(line.startswith("-n ") for line in lines)

    def test_what_can_be_undone_is_although_something_cannot(self, fake_nvml, said):
        machine = fake_nvml()
        with hold(devices()[0], ALL, say=said.append):
            machine[0].power_error = 4
        assert list(machine[0].locked_sm) == list(machine[0].locked_mem) == [0, 0]
        assert len(said) == 1

    def test_what_cannot_be_undone_is_said_and_kept_for_later(self, fake_nvml, said):
        machine = fake_nvml(limit_mw=650000)
        with hold(devices()[0], ALL, say=said.append):
            machine[0].reset_error = 4
        assert machine[0].limit_mw == 650000
        assert list(machine[0].locked_sm) == [1410, 1410]
        (note,) = said
        assert f"stay set; undo it with: sudo env CIQ_GPU_STATE_DIR={machine.states} " in note
        assert " -m ciq_ray gpu release" in note
        assert read_ledger(machine.uuid()).left
        assert clock_state(devices()[0]).startswith("locked 1410/1593 MHz")
        with hold(devices()[0], Clocks(1200), say=said.append) as held:
            assert held.clock_state.startswith("locked 1410/1593 MHz")  # still, and not 1200
        with pytest.raises(UnsupportedError), set_clocks(devices()[0], Clocks(1200), strict=True):
            pass
        machine[0].reset_error = 0
        assert "undone: core, memory, power" in recover(machine.uuid())[0]
        assert machine.is_untouched()


class TestWhoDies:
    def test_killed_and_recovered_at_the_next_start(self, fake_nvml, holder, said):
        machine = fake_nvml(limit_mw=650000)
        process = holder()
        process.kill()
        process.wait()
        assert list(machine[0].locked_sm) == [1410, 1410]
        assert machine[0].limit_mw == 500000
        assert clock_state(devices()[0]).endswith(f"by process {process.pid}")
        with hold(devices()[0], say=said.append) as held:
            assert machine.is_untouched()
            assert held.clock_state == UNLOCKED
        assert f"process {process.pid} of" in said[0]
        assert "undone: core, memory, power" in said[0]

    def test_the_next_one_that_sets_clocks_knows_the_old_limit(self, fake_nvml, holder, said):
        machine = fake_nvml(limit_mw=650000)
        process = holder()
        process.kill()
        process.wait()
        with hold(devices()[0], Clocks(power_watts=400), say=said.append):
            assert machine[0].limit_mw == 400000
            assert list(machine[0].locked_sm) == [0, 0]
            assert read_ledger(machine.uuid()).power_mw == 650000
        assert machine.is_untouched()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_ended_by_a_signal(self, fake_nvml, holder, number):
        machine = fake_nvml(limit_mw=650000)
        process = holder()
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        assert out == "ended\n"
        assert process.returncode in (128 + number, -number)
        assert machine.is_untouched()

    @pytest.mark.parametrize(("how", "ends_with"), [("unwind", 3), ("sleep", -signal.SIGTERM)])
    def test_a_forked_process_undoes_nothing(self, fake_nvml, holder, scripts, how, ends_with):
        machine = fake_nvml()
        process = holder(how)
        if how == "sleep":
            (child,) = [pid for pid in scripts.alive() if pid != process.pid]
            os.kill(child, signal.SIGTERM)
        assert process.stdout.readline() == f"{ends_with}\n"
        assert list(machine[0].locked_sm) == [1410, 1410]
        assert machine[0].changes[3:] == []
        with pytest.raises(ConfigurationError, match=f"process {process.pid}"):
            HostLock(machine.uuid(), "timing").acquire(0.0)

    def test_ended_while_it_is_set(self, fake_nvml, monkeypatch):
        machine = fake_nvml(limit_mw=650000)
        apply = Changer.apply

        def ended(self, change):
            apply(self, change)
            if change.setting == "memory":
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(Changer, "apply", ended)
        with pytest.raises(SystemExit):
            hold(devices()[0], ALL).__enter__()
        assert machine.is_untouched()

    def test_after_a_start_of_the_machine_there_is_nothing_to_undo(self, fake_nvml, said):
        machine = fake_nvml()
        Ledger(machine.uuid(), replace(Owner.this(), boot="earlier"), ("core", "power"), 300000).write()
        with hold(devices()[0], say=said.append):
            pass
        assert "the machine was started since" in said[0]
        assert machine[0].changes == []
        assert read_ledger(machine.uuid()) is None

    def test_a_number_that_now_is_another_process(self, fake_nvml, said):
        machine = fake_nvml()
        owner = Owner.this()
        later = replace(owner, pid=os.getppid(), started=owner.started + 1)
        Ledger(machine.uuid(), later, ("core",)).write()
        with hold(devices()[0], say=said.append):
            assert machine[0].changes == ["core 0 0"]

    def test_a_limit_from_another_users_file_is_not_taken(self, fake_nvml, said, monkeypatch):
        machine = fake_nvml(limit_mw=650000)
        Ledger(machine.uuid(), replace(Owner.this(), pid=2**22 - 1), ("power",), 200000).write()
        path = machine.states / f"{machine.uuid()}.ledger.json"
        if os.geteuid() == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        recover(machine.uuid())
        assert machine[0].limit_mw == machine[0].default_mw

    def test_clocks_that_a_living_process_has_set_are_left_alone(self, fake_nvml, holder, said):
        machine = fake_nvml()
        process = holder()
        for attempt in (
            lambda: hold(devices()[0]).__enter__(),
            lambda: set_clocks(devices()[0], ALL).__enter__(),
            lambda: recover(machine.uuid()),
        ):
            with pytest.raises(ConfigurationError, match=f"process {process.pid} of"):
                attempt()
        assert machine[0].changes[3:] == []

    def test_also_when_its_lock_was_removed(self, fake_nvml, holder):
        machine = fake_nvml()
        process = holder()
        (machine.states / f"{machine.uuid()}.clocks").unlink()
        with pytest.raises(ConfigurationError, match=rf"process {process.pid} .*, although it does not hold"):
            recover(machine.uuid())


class TestTogether:
    def test_clocks_of_a_script_around_a_search(self, fake_nvml):
        machine = fake_nvml()
        with set_clocks(devices()[0], Clocks(1410)), hold(devices()[0]) as held:
            assert held.clock_state == f"locked 1410 MHz, by process {os.getpid()}"
            assert list(machine[0].locked_sm) == [1410, 1410]
        assert machine.is_untouched(700000)

    def test_timing_waits_for_timing(self, fake_nvml, holder):
        fake_nvml()
        process = holder()
        process.terminate()
        with hold(devices()[0], wait_s=60.0):
            pass
        process.communicate(timeout=60)

    def test_two_gpus_at_a_time(self, fake_nvml):
        machine = fake_nvml(gpus=2)
        first, second = devices()
        with hold(first, Clocks(1410)), hold(second, Clocks(1200)):
            assert [list(card.locked_sm) for card in machine.cards] == [[1410, 1410], [1200, 1200]]
        assert [list(card.locked_sm) for card in machine.cards] == [[0, 0], [0, 0]]


def test_the_ledger_is_readable_by_people(fake_nvml):
    machine = fake_nvml()
    with hold(devices()[0], Clocks(1410)):
        data = json.loads((machine.states / f"{machine.uuid()}.ledger.json").read_text())
    assert data["changes"] == ["core"]
    assert data["state"] == "locked 1410 MHz"
