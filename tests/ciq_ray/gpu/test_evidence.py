"""What is read while something is timed, and what spoils it."""

from __future__ import annotations

import json
import os

import pynvml
import pytest

from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.evidence import SPOILING, Evidence, Watcher, off_clock, reason_names
from ciq_ray.gpu.nvml import NvmlError


@pytest.fixture
def watch(request):
    """Makes watchers of the machine's first device."""

    def make():
        watcher = Watcher(devices()[0])
        request.addfinalizer(watcher.close)
        return watcher

    return make


def test_a_window(fake_nvml, watch):
    machine = fake_nvml()
    watcher = watch()
    watcher.begin()
    machine[0].sm_mhz, machine[0].power_mw, machine[0].temperature = 1680, 314000, 60
    machine[0].reasons = 0
    evidence = watcher.end()
    assert evidence == Evidence(1830.0, 2619.0, 214.0, 60.0, reasons=1)
    assert json.loads(json.dumps(evidence.to_dict()))["sm_mhz"] == 1830.0


def test_the_clock_is_the_one_under_load(fake_nvml, watch):
    machine = fake_nvml()
    watcher = watch()
    watcher.begin()
    machine[0].sm_mhz = 1350
    watcher.sample()
    machine[0].sm_mhz = 1410
    evidence = watcher.end()
    assert evidence.sm_mhz == 1350
    assert off_clock(evidence, 1410)


def test_windows_do_not_mix(fake_nvml, watch):
    machine = fake_nvml(scenario="throttled")
    watcher = watch()
    watcher.begin()
    assert watcher.end().spoiled == "SwPowerCap, SwThermal"
    machine[0].reasons = 0
    watcher.begin()
    assert watcher.end() == Evidence(1200.0, 2619.0, 114.0, 41.0)


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0x4, "SwPowerCap"),
        (0x8, "HwSlowdown"),
        (0x20, "SwThermal"),
        (0x40, "HwThermal"),
        (0x80, "HwPowerBrake"),
    ],
)
def test_reasons_that_spoil(fake_nvml, watch, bit, name):
    fake_nvml(reasons=bit | 0x1)
    watcher = watch()
    watcher.begin()
    assert watcher.end().spoiled == name


def test_reasons_that_do_not(fake_nvml, watch):
    fake_nvml(reasons=0x1 | 0x2 | 0x10 | 0x100)
    watcher = watch()
    watcher.begin()
    evidence = watcher.end()
    assert (evidence.spoiled, evidence.reasons) == ("", 0x113)
    assert reason_names(evidence.reasons) == "Idle, ClocksSetting, SyncBoost, DisplayClock"
    assert not SPOILING & 0x113


def test_a_bit_that_nobody_knows_yet():
    assert reason_names(0x1 | 0x2000) == "Idle, 0x2000"


def test_a_burst_in_the_middle_is_seen(fake_nvml, watch):
    machine = fake_nvml()
    watcher = watch()
    watcher.begin()
    machine[0].burst_reads = 1
    watcher.sample()
    evidence = watcher.end()
    assert machine[0].burst_reads == 0
    assert evidence.spoiled == "SwPowerCap"


def test_what_the_card_does_not_tell_is_none(fake_nvml, watch):
    fake_nvml(power_read_error=3)
    watcher = watch()
    watcher.begin()
    evidence = watcher.end()
    assert evidence.power_w is None
    assert evidence.sm_mhz == 1980.0


def test_an_old_driver_has_the_reasons_by_their_old_name(fake_nvml, watch):
    machine = fake_nvml(scenario="throttled")
    machine.state.old_driver = 1
    watcher = watch()
    watcher.begin()
    assert watcher.end().spoiled == "SwPowerCap, SwThermal"


def test_so_has_an_old_binding(fake_nvml, watch, monkeypatch):
    fake_nvml(scenario="throttled")
    monkeypatch.delattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons")
    watcher = watch()
    watcher.begin()
    assert watcher.end().spoiled == "SwPowerCap, SwThermal"


def test_a_device_that_is_lost_meanwhile(fake_nvml, watch):
    machine = fake_nvml()
    watcher = watch()
    watcher.begin()
    machine[0].calls_left = 3
    with pytest.raises(NvmlError, match="GPU is lost") as caught:
        watcher.end()
    assert caught.value.kind == "lost"


def test_of_an_instance_the_card_is_read(fake_nvml, watch):
    fake_nvml(scenario="mig")
    watcher = watch()
    watcher.begin()
    assert watcher.end().sm_mhz == 1980.0


def test_after_a_fork_the_child_reads_for_itself(fake_nvml, watch):
    machine = fake_nvml(scenario="throttled")
    watcher = watch()
    watcher.begin()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before = watcher._session
            watcher.begin()
            code = 0 if watcher._session is not before and watcher.end().spoiled else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert machine[0].changes == []
    assert watcher.end().spoiled


def test_a_closed_watcher_opens_again(fake_nvml, watch):
    fake_nvml()
    watcher = watch()
    watcher.begin()
    watcher.close()
    watcher.close()
    watcher.begin()
    assert watcher.end().sm_mhz == 1980.0


@pytest.mark.parametrize(
    ("sm", "expected", "text"),
    [
        (1410.0, 1410, ""),
        (1400.0, 1410, ""),
        (1200.0, 1410, "locked to 1410 MHz but was 1200 MHz"),
        (1980.0, None, ""),
        (None, 1410, ""),
    ],
)
def test_whether_a_lock_held_under_load(sm, expected, text):
    assert text in off_clock(Evidence(sm_mhz=sm), expected)
    assert bool(off_clock(Evidence(sm_mhz=sm), expected)) == bool(text)
