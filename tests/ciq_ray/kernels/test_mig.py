"""Cards that are split with MIG: their instances share a clock, so that one of each card is timed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.protocol import Artefact
from searchers.outcome import Outcome
from tests.ciq_ray.kernels.device_kernel import DeviceKernel
from tests.ciq_ray.kernels.test_devices_of_search import outcomes, search

pytestmark = pytest.mark.usefixtures("runs")


class InstanceKernel(DeviceKernel):
    """It only says that it ran."""

    def run(self, artefact: Artefact, config: Any) -> Outcome:
        return Outcome("ok", (float(config["x"]),))


def test_one_of_each_is_taken(fake_nvml: Callable[..., Any]) -> None:
    machine = fake_nvml(scenario="mig")
    result = search(InstanceKernel(), max_evaluations=3).start(num_workers=1)
    first = machine[0].instances[0].value.decode()
    assert {record["place"]["gpu"] for record in outcomes(result.folder)} == {first}


def test_two_of_one_are_refused(fake_nvml: Callable[..., Any]) -> None:
    fake_nvml(scenario="mig")
    with pytest.raises(ConfigurationError, match=r"`devices` is \[0, 1\]: several instances \(MIG\)"):
        search(DeviceKernel()).start(devices=[0, 1])
