"""What is set, and each way in which it is refused."""

from __future__ import annotations

import os

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu import clocks as module
from ciq_ray.gpu.clocks import Change, Changer, Clocks, base_mhz, changes_for
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.nvml import NvmlError, nvml

NOT_SUPPORTED, INVALID, REFUSED = 3, 2, 4


@pytest.fixture
def change():
    """Makes changes, through a session of its own."""

    def make(machine, *changes, fallback="none"):
        with nvml() as session:
            changer = Changer(session, machine.uuid(), fallback)
            for one in changes:
                changer.apply(one)

    return make


class TestWhatIsAskedFor:
    @pytest.mark.parametrize("name", ["clock_mhz", "mem_clock_mhz", "power_watts"])
    @pytest.mark.parametrize("value", [0, -5, 1410.5, True, "1410", "max"])
    def test_only_whole_positive_numbers(self, name, value):
        with pytest.raises(
            ConfigurationError, match=rf"`{name}` is {value!r}; it must be a positive integer"
        ):
            Clocks(**{name: value})

    def test_the_base_clock_is_one_of_the_core_only(self):
        assert Clocks("base")
        with pytest.raises(ConfigurationError):
            Clocks(mem_clock_mhz="base")

    def test_nothing_is_false(self):
        assert not Clocks()
        assert Clocks(power_watts=300)

    def test_as_the_card_can(self, fake_nvml):
        fake_nvml()
        with nvml() as session:
            found = changes_for(session, devices()[0], Clocks(1412, 1593, 500))
        assert [(one.setting, one.value) for one in found] == [
            ("core", 1410),
            ("memory", 1593),
            ("power", 500000),
        ]
        assert found[0].note == "1410 MHz is the core clock nearest to 1412 MHz"
        assert [one.note for one in found[1:]] == ["", ""]

    @pytest.mark.parametrize(
        ("clocks", "message"),
        [
            (Clocks(2500), "`clock_mhz` is 2500; the NVIDIA H100 80GB HBM3 takes 345 to 1980 MHz"),
            (Clocks(mem_clock_mhz=100), "`mem_clock_mhz` is 100; .* takes 1593 to 2619 MHz"),
            (Clocks(power_watts=900), "`power_watts` is 900; .* takes 200 to 700"),
        ],
    )
    def test_out_of_its_range(self, fake_nvml, clocks, message):
        fake_nvml()
        with nvml() as session, pytest.raises(ConfigurationError, match=message):
            changes_for(session, devices()[0], clocks)

    def test_a_card_that_lists_no_clocks_is_asked_for_what_was_wanted(self, fake_nvml):
        machine = fake_nvml(power_read_error=NOT_SUPPORTED)
        machine[0].mem_clocks[0] = 0
        with nvml() as session:
            found = changes_for(session, devices()[0], Clocks(1412, 1234, 300))
        assert [one.value for one in found] == [1412, 1234, 300000]


class TestThroughNvml:
    def test_each_is_set_and_reset_apart(self, fake_nvml, change):
        machine = fake_nvml()
        change(machine, Change("core", 1410), Change("memory", 1593), Change("power", 500000))
        assert machine[0].changes == ["core 1410 1410", "memory 1593 1593", "power 500000 500000"]
        with nvml() as session:
            changer = Changer(session, machine.uuid())
            changer.undo("core", None)
            changer.undo("memory", None)
            changer.undo("power", 650000)
        assert machine[0].changes[3:] == ["core 0 0", "memory 0 0", "power 650000 650000"]
        assert not machine.smi_log.exists()

    def test_the_base_clock_is_NVMLs_own(self, fake_nvml, change):
        machine = fake_nvml(base_mhz=1590)
        change(machine, Change("core", None))
        assert list(machine[0].locked_sm) == [1590, 1590]
        assert not machine.smi_log.exists()

    @pytest.mark.parametrize("error", [INVALID, NOT_SUPPORTED])
    def test_a_card_without_the_symbol_gets_the_number(self, fake_nvml, change, error):
        machine = fake_nvml(symbolic_error=error)
        change(machine, Change("core", None))
        assert machine[0].changes == ["core 1590 1590"]
        assert base_mhz(machine.uuid()) == 1590

    def test_without_either_the_way_out_is_a_number(self, fake_nvml, change, monkeypatch):
        machine = fake_nvml(symbolic_error=INVALID)
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(NvmlError, match="its base clock is unknown: give a number"):
            change(machine, Change("core", None))

    def test_the_default_limit_is_what_an_unknown_one_goes_back_to(self, fake_nvml):
        machine = fake_nvml(limit_mw=300000)
        with nvml() as session:
            Changer(session, machine.uuid()).undo("power", None)
        assert machine[0].limit_mw == 700000

    @pytest.mark.parametrize(
        ("error", "kind"), [(REFUSED, "refused"), (NOT_SUPPORTED, "unsupported"), (INVALID, "unsupported")]
    )
    @pytest.mark.parametrize("setting", ["core", "memory", "power"])
    def test_each_refusal_is_one(self, fake_nvml, change, setting, error, kind):
        machine = fake_nvml(**{f"{setting}_error": error})
        with pytest.raises(NvmlError) as caught:
            change(machine, Change(setting, 500000))
        assert (caught.value.kind, caught.value.refusal) == (kind, True)
        assert machine[0].changes == []


class TestThroughNvidiaSmi:
    def test_only_where_permission_is_lacking_and_never_with_a_question(self, fake_nvml, change):
        machine = fake_nvml(scenario="refused")
        change(
            machine, Change("core", 1410), Change("memory", 1593), Change("power", 500000), fallback="sudo"
        )
        assert machine[0].changes == ["core 1410 1410", "memory 1593 1593", "power 500000 500000"]
        said = machine.sudo_log.read_text().splitlines()
        assert [line.split()[0] for line in said] == ["-n"] * 3
        assert [line.split()[2:] for line in said] == [
            ["-i", machine.uuid(), "-lgc", "1410,1410"],
            ["-i", machine.uuid(), "-lmc", "1593,1593"],
            ["-i", machine.uuid(), "-pl", "500"],
        ]

    def test_the_base_clock_by_its_number(self, fake_nvml, change):
        machine = fake_nvml(scenario="refused")
        change(machine, Change("core", None), fallback="sudo")
        assert machine[0].changes == ["core 1590 1590"]

    def test_not_for_what_the_card_does_not_have(self, fake_nvml, change):
        machine = fake_nvml(scenario="memory_unsupported")
        with pytest.raises(NvmlError, match="Not Supported"):
            change(machine, Change("memory", 1593), fallback="sudo")
        assert not machine.smi_log.exists()

    def test_a_password_that_is_missing_is_a_refusal(self, fake_nvml, change, monkeypatch):
        machine = fake_nvml(scenario="refused")
        monkeypatch.setenv("CIQ_FAKE_SUDO_REFUSES", "1")
        with pytest.raises(NvmlError, match="sudo: a password is required") as caught:
            change(machine, Change("core", 1410), fallback="sudo")
        assert caught.value.kind == "refused"
        assert machine[0].changes == []

    def test_without_sudo_as_it_is(self, fake_nvml, change):
        machine = fake_nvml(scenario="refused")
        with pytest.raises(NvmlError, match="does not have permission to change clocks"):
            change(machine, Change("core", 1410), fallback="plain")
        assert not machine.sudo_log.exists()
        assert machine.smi_log.read_text().split()[2:] == ["-lgc", "1410,1410"]

    def test_one_that_hangs_is_ended(self, fake_nvml, change, monkeypatch):
        machine = fake_nvml(scenario="refused")
        sudo = machine.path.parent / "bin" / "sudo"
        sudo.write_text("#!/bin/sh\nexec sleep 60\n")
        monkeypatch.setattr(module, "_TOOL_LIMIT_S", 0.2)
        with pytest.raises(NvmlError, match=r"did not end within 0\.2 s") as caught:
            change(machine, Change("core", 1410), fallback="sudo")
        assert not caught.value.refusal  # it may have set the clock all the same

    @pytest.mark.parametrize("missing", ["nvidia-smi", "sudo"])
    def test_programs_that_are_not_there(self, fake_nvml, change, monkeypatch, missing):
        machine = fake_nvml(scenario="refused")
        folder = machine.path.parent / "bin"
        os.remove(folder / missing)
        monkeypatch.setenv("PATH", str(folder))
        with pytest.raises(NvmlError, match=missing):
            change(machine, Change("core", 1410), fallback="sudo")
