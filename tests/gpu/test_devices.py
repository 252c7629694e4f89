"""What a real GPU tells, at rest and under load. Nothing is set here: no clock, no limit, no mode."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from ciq_ray.gpu.clocks import Clocks, base_mhz
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.evidence import Watcher
from ciq_ray.gpu.findings import gpu_findings
from ciq_ray.gpu.hold import UNLOCKED, hold
from ciq_ray.gpu.ledger import ledgers
from ciq_ray.gpu.nvml import nvml
from ciq_ray.gpu.preflight import plan, preflight
from ciq_ray.utils.gpu import has_nvidia_smi

pytestmark = pytest.mark.gpu

QUERY = "index,uuid,name,driver_version,persistence_mode,power.limit"


def told() -> list[list[str]]:
    """What nvidia-smi says of each GPU."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [[word.strip() for word in line.split(",")] for line in lines]


@pytest.fixture(autouse=True)
def nothing_is_changed(tmp_path, monkeypatch):
    """Ledgers and locks go elsewhere, and settings are the same before and after."""
    monkeypatch.setenv("CIQ_GPU_STATE_DIR", str(tmp_path / "states"))
    before = told()
    yield
    assert told() == before


def test_the_same_gpus_as_nvidia_smi():
    assert has_nvidia_smi()
    known = {words[1]: words for words in told()}
    found = devices()
    assert found
    for device in found:
        index, _, name, driver, *_ = known[device.parent]
        assert (str(device.index), device.driver) == (index, driver)
        assert device.mig or device.name == name
        assert device.arch >= 70
        assert device.memory > 1 << 30


def test_by_uuid_CUDA_sees_the_same_one(monkeypatch):
    torch = pytest.importorskip("torch")
    device = devices()[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", device.uuid)
    assert [seen.uuid for seen in devices()] == [device.uuid]
    script = "import torch; print(torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid)"
    out = subprocess.run(["python3", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "1"
    assert device.mig or out[1].removeprefix("GPU-") == device.uuid.removeprefix("GPU-")
    assert torch.cuda.get_device_capability(0)[0] == device.arch // 10


def test_evidence_under_load():
    torch = pytest.importorskip("torch")
    device = devices()[0]
    watcher = Watcher(device)
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    torch.cuda.synchronize()
    watcher.begin()
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        for _ in range(50):
            matrix @ matrix
        watcher.sample()
        torch.cuda.synchronize()
    evidence = watcher.end()
    watcher.close()
    print(evidence)
    assert 200 < evidence.sm_mhz < 4000
    assert evidence.mem_mhz > 500
    assert evidence.power_w > 50
    assert 15 < evidence.temp_c < 110
    assert isinstance(evidence.reasons, int)
    assert bool(evidence.spoiled) == bool(evidence.reasons & 0xEC)


def test_a_reading_is_cheap():
    watcher = Watcher(devices()[0])
    watcher.begin()
    times = []
    for _ in range(300):
        start = time.perf_counter()
        watcher.sample()
        times.append(time.perf_counter() - start)
    watcher.close()
    middle = sorted(times)[len(times) // 2]
    print(f"a reading takes {middle * 1e6:.1f} us")
    assert middle < 1e-3


def test_preflight_and_dry_run():
    device = devices()[0]
    seen = preflight(device)
    print(*seen.lines(), sep="\n")
    limit = next(words[5] for words in told() if words[1] == device.parent)
    assert seen.power_w == pytest.approx(float(limit), abs=0.01)
    assert seen.clocks_mhz[0] < seen.clocks_mhz[1]
    assert seen.memory_mhz
    lines = plan(device, Clocks("base", seen.memory_mhz[0], int(seen.power_range_w[0])))
    print(*lines, sep="\n")
    assert lines[1].startswith("lock the core clock to its base clock")
    assert any(line.startswith("at the end: put the power limit back to") for line in lines)
    assert not os.path.exists(os.environ["CIQ_GPU_STATE_DIR"])


def test_the_base_clock_that_nvidia_smi_tells_is_below_the_maximum():
    device = devices()[0]
    base = base_mhz(device.parent)
    print("base clock", base)
    if base is None:
        pytest.skip("this nvidia-smi has no base-clocks")
    assert base <= preflight(device).clocks_mhz[1]


def test_event_reasons_have_their_present_name():
    with nvml() as session:
        handle = session.handle(devices()[0].parent)
        assert session.call("nvmlDeviceGetCurrentClocksEventReasons", handle) >= 0
        assert session.event_reasons(handle) is not None


def test_holding_without_setting_anything():
    with hold(devices()[0], say=print) as held:
        assert held.clock_state == UNLOCKED
        assert ledgers() == []


def test_doctor():
    findings = gpu_findings()
    for finding in findings:
        print(finding.state, finding.name, finding.value, finding.advice, sep=" | ")
    assert any(devices()[0].uuid in finding.value for finding in findings)
