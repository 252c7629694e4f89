"""What an actor holds of its device is known to its child, which writes it into every record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import Clocks
from ciq_ray.kernels import on_ray
from ciq_ray.kernels.jobs import TimingOptions
from ciq_ray.kernels.timing_stage import TimingStage
from searchers.outcome import Outcome
from tests.ciq_ray.kernels.device_kernel import DeviceKernel


def test_also_the_clock_that_a_lock_should_keep(
    fake_nvml: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = fake_nvml(scenario="memory_unsupported")
    monkeypatch.setenv("CIQ_HELD", "")  # so that it is put back
    holding = on_ray.held(Clocks(1410, 1593), 0.0)
    with pytest.warns(RuntimeWarning, match="cannot lock the memory clock"):
        holding.__enter__()
    known = on_ray._held_by_parent()
    assert list(machine[0].locked_sm) == [1410, 1410]
    holding.__exit__(None, None, None)
    assert known is not None
    assert known.clock_state == "partly: locked 1410 MHz, memory refused (Not Supported)"
    assert "cannot lock the memory clock" in known.notes[0]
    stage = TimingStage(DeviceKernel(), devices()[0], TimingOptions(), held=known)
    about = stage._about_device(Outcome("ok", (1.0,), metrics={"sm_mhz": 1300.0}))["gpu"]
    assert about["clock_state"] == known.clock_state
    assert about["off_clock"] == "the core clock is locked to 1410 MHz but was 1300 MHz under load"
