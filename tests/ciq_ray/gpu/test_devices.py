"""Which GPUs there are, as CUDA would see them; on a fake NVML under the real binding."""

from __future__ import annotations

import pickle

import pynvml
import pytest

from ciq_ray.errors import ConfigurationError, UnsupportedError
from ciq_ray.gpu.devices import devices, lost_cards, one_of_each_card
from ciq_ray.gpu.nvml import NvmlError, nvml
from ciq_ray.gpu.preflight import preflight


def uuids(found):
    return [device.uuid for device in found]


class TestWhatIsThere:
    def test_a_device_is_plain_data(self, fake_nvml):
        machine = fake_nvml()
        (device,) = devices()
        assert device.uuid == device.parent == machine.uuid()
        assert (device.index, device.arch, device.driver, device.mig) == (0, 90, "580.159.04", False)
        assert device.name == "NVIDIA H100 80GB HBM3"
        assert device.memory == 85520809984
        assert device.pci == "00000000:1A:00.0"
        assert pickle.loads(pickle.dumps(device)) == device
        assert device.to_dict()["uuid"] == machine.uuid()

    def test_they_come_in_the_order_of_the_bus(self, fake_nvml):
        machine = fake_nvml(gpus=3)
        machine[0].pci = b"00000000:F0:00.0"
        assert uuids(devices()) == [machine.uuid(1), machine.uuid(2), machine.uuid(0)]
        assert [device.index for device in devices()] == [1, 2, 0]

    def test_reading_changes_nothing(self, fake_nvml):
        machine = fake_nvml(gpus=2, scenario="mig")
        before = machine.contents()
        devices()
        assert machine.contents() == before

    def test_without_a_driver(self, fake_nvml):
        machine = fake_nvml()
        machine.state.init_error = 9
        with pytest.raises(UnsupportedError, match=r"no NVIDIA GPU can be used.*Driver Not Loaded"):
            devices()

    def test_without_a_binding(self, fake_nvml, monkeypatch):
        fake_nvml()
        monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
        with pytest.raises(UnsupportedError, match="pip install nvidia-ml-py"):
            devices()

    def test_without_gpus(self, fake_nvml):
        fake_nvml(gpus=0)
        with pytest.raises(UnsupportedError, match="the NVIDIA driver finds no GPU"):
            devices()

    def test_a_lost_card_is_left_out_as_CUDA_does(self, fake_nvml):
        machine = fake_nvml(gpus=2)
        assert lost_cards() == []
        machine[0].lost = 1
        assert uuids(devices()) == [machine.uuid(1)]
        (text,) = lost_cards()
        assert text == "card 0 (of 2, as in nvidia-smi): GPU is lost"
        machine[1].lost = 1
        with pytest.raises(NvmlError, match=r"GPU is lost \(all cards: 0, 1\); see `nvidia-smi`") as caught:
            devices()
        assert caught.value.kind == "lost"


class TestVisibleDevices:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("2,0", [2, 0]),
            (" 1 ", [1]),
            ("GPU-00000003-1111-2222-3333-444444444444", [2]),
            ("GPU-00000002,GPU-00000001", [1, 0]),
            ("gpu-00000002", [1]),
            ("1,-1,0", [1]),
            ("0,,2", [0]),
        ],
    )
    def test_as_CUDA_reads_it(self, fake_nvml, monkeypatch, value, expected):
        machine = fake_nvml(gpus=3)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert uuids(devices()) == [machine.uuid(i) for i in expected]

    @pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
    def test_none(self, fake_nvml, monkeypatch, value):
        fake_nvml()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        with pytest.raises(UnsupportedError, match=rf"CUDA_VISIBLE_DEVICES is '{value}'; unset it"):
            devices()

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("3", "there are 3 GPUs"),
            ("GPU-9", "'GPU-9' is no GPU of this machine; there are: 0: GPU-00000001"),
            ("GPU-0", "'GPU-0' fits several GPUs"),
            ("0,0", "names a GPU twice"),
        ],
    )
    def test_what_CUDA_would_hide_silently(self, fake_nvml, monkeypatch, value, message):
        fake_nvml(gpus=3)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        with pytest.raises(ConfigurationError, match=message):
            devices()

    def test_numbers_of_unlike_cards_need_the_order_of_the_bus(self, fake_nvml, monkeypatch):
        machine = fake_nvml(gpus=2)
        machine[1].name = b"NVIDIA T4"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with pytest.raises(ConfigurationError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
            devices()
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        assert uuids(devices()) == [machine.uuid(1)]


class TestMig:
    def test_instances_belong_to_their_card(self, fake_nvml):
        machine = fake_nvml(gpus=2, scenario="mig")
        machine[1].mig = 0
        first, second, whole = devices()
        assert first.uuid.startswith("MIG-00000001-")
        assert first.uuid != second.uuid
        assert first.parent == second.parent == machine.uuid(0)
        assert first.mig
        assert second.mig
        assert first.memory == machine[0].memory // 8
        assert whole.uuid == machine.uuid(1)

    def test_by_uuid_and_by_number(self, fake_nvml, monkeypatch):
        machine = fake_nvml(scenario="mig")
        second = machine[0].instances[1].value.decode()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", second)
        assert uuids(devices()) == [second]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert uuids(devices()) == [machine[0].instances[0].value.decode()]

    def test_one_of_each_card(self, fake_nvml):
        machine = fake_nvml(gpus=2, scenario="mig")
        machine[1].mig = 0
        first, _, whole = devices()
        assert one_of_each_card(devices()) == [first, whole]

    def test_a_card_that_is_not_split_yet(self, fake_nvml):
        machine = fake_nvml(scenario="mig", instance_count=0)
        (device,) = devices()
        assert (device.uuid, device.mig) == (machine.uuid(), True)


def test_one_that_shares_the_memory_of_the_cpu(fake_nvml, monkeypatch):
    fake_nvml()

    def not_supported(handle):
        raise pynvml.NVMLError(3)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", not_supported)
    (device,) = devices()
    assert device.memory == 0
    assert ", the CPU's memory, sm_90" in preflight(device).lines()[0]


class TestSelected:
    def test_positions_are_those_among_the_visible(self, fake_nvml, monkeypatch):
        machine = fake_nvml(gpus=3)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
        assert uuids(devices([0])) == [machine.uuid(2)]
        assert uuids(devices(["1", machine.uuid(2)])) == [machine.uuid(1), machine.uuid(2)]
        assert uuids(devices(["GPU-00000002"])) == [machine.uuid(1)]

    @pytest.mark.parametrize(
        ("selected", "message"),
        [
            ([2], r"there is no GPU 2; there are: 0: GPU-00000001.*, 1: GPU-00000002"),
            (["GPU-7"], "is no GPU of this machine"),
            (["GPU-"], "fits several"),
            ([0, "0"], "twice"),
            ([], "`selected` is empty; give None for all"),
            ([True], "named by its position or its UUID"),
            ("0", r"give a list, \['0'\]"),
        ],
    )
    def test_what_is_not_there(self, fake_nvml, selected, message):
        fake_nvml(gpus=2)
        with pytest.raises(ConfigurationError, match=message):
            devices(selected)


class TestErrors:
    def test_they_carry_the_kind_and_NVMLs_words(self, fake_nvml):
        machine = fake_nvml()
        machine[0].core_error = 4
        with nvml() as session, pytest.raises(NvmlError) as caught:
            session.call("nvmlDeviceSetGpuLockedClocks", session.handle(machine.uuid()), 1410, 1410)
        error = pickle.loads(pickle.dumps(caught.value))
        assert str(error) == "nvmlDeviceSetGpuLockedClocks: Insufficient Permissions"
        assert (error.kind, error.refusal) == ("refused", True)

    @pytest.mark.parametrize(
        ("code", "kind"), [(2, "unsupported"), (3, "unsupported"), (15, "lost"), (16, "lost"), (999, "other")]
    )
    def test_kinds(self, fake_nvml, code, kind):
        machine = fake_nvml()
        machine[0].core_error = code
        with nvml() as session, pytest.raises(NvmlError) as caught:
            session.call("nvmlDeviceSetGpuLockedClocks", session.handle(machine.uuid()), 1410, 1410)
        assert caught.value.kind == kind

    def test_a_card_that_is_gone_is_lost(self, fake_nvml):
        fake_nvml()
        with nvml() as session, pytest.raises(NvmlError) as caught:
            session.handle("GPU-gone")
        assert caught.value.kind == "lost"

    def test_a_function_that_the_binding_lacks(self, fake_nvml):
        fake_nvml()
        with nvml() as session, pytest.raises(NvmlError, match="does not have it") as caught:
            session.call("nvmlDeviceDoTheDishes")
        assert caught.value.kind == "unsupported"
