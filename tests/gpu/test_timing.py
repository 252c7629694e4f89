"""The CUDA runtime, timing on it, and children that lose their context; on a real GPU.

python3 -m pytest -q tests/gpu/test_timing.py --noconftest

The tests with children run in processes of their own: what forks must not have touched CUDA. `-s` shows
what was measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.devices import Device, devices
from ciq_ray.gpu.evidence import Watcher
from ciq_ray.gpu.runtime import INITS
from ciq_ray.gpu.timing import Timing, measure
from ciq_ray.gpu.torch_runtime import TorchRuntime

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).parents[2]
FLOATS = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "bool")


@pytest.fixture(scope="module")
def device() -> Device:
    return devices()[0]


@pytest.fixture(scope="module")
def runtime(device: Device) -> TorchRuntime:
    return TorchRuntime(device)


def show(name: str, timing: Timing) -> None:
    evidence = timing.evidence
    clock = "" if evidence is None else f", {evidence.sm_mhz} MHz, {evidence.power_w} W"
    print(
        f"\n{name}: {timing.median_ms * 1e3:.2f} us, spread {timing.spread_ms * 1e3:.2f}, "
        f"{len(timing.samples_ms)} samples of {timing.launches}, warm-up {timing.warmup}, {timing.regime}, "
        f"{timing.timer}{', blocked' if timing.blocked else ''}, {timing.stopped}, "
        f"{timing.dropped} dropped{clock}"
    )


class TestRuntime:
    @pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
    def test_arrays_of_each_type(self, runtime: TorchRuntime, dtype: str) -> None:
        for init in INITS:
            array = runtime.array((8, 5), dtype, init, 1)
            assert (tuple(array.shape), array.dtype) == ((8, 5), getattr(torch, dtype))
            assert array.is_contiguous()
            assert runtime.pointer(array) == array.data_ptr()
            assert runtime.difference(array, runtime.array((8, 5), dtype, init, 1), 0, 0) == ""
            poisoned = runtime.copy(array)
            runtime.poison(poisoned)
            assert runtime.difference(poisoned, array, 0.01, 0.01).startswith("40 of 40 elements differ")

    def test_numbers_are_as_on_the_host(self, runtime: TorchRuntime) -> None:
        integers = runtime.array((10_000,), "int32", "integers", 0)
        assert (int(integers.min()), int(integers.max())) == (-8, 7)
        normal = runtime.array((100_000,), "float16", "normal", 0).float()
        assert abs(float(normal.mean())) < 0.02
        assert abs(float(normal.std()) - 1) < 0.02
        with pytest.raises(ConfigurationError, match="`dtype`"):
            runtime.array((2,), "float31", "zeros", 0)

    def test_differences_say_where(self, runtime: TorchRuntime) -> None:
        expected = runtime.array((64, 64), "float32", "ones", 0)
        actual = runtime.copy(expected)
        actual[1, 7] = 2.0
        actual[3, 3] = 1.5
        text = runtime.difference(actual, expected, 0.1, 0.0)
        assert text == "2 of 4096 elements differ, the worst at (1, 7): 2.0 instead of 1.0"
        actual[63, 63] = float("nan")
        text = runtime.difference(actual, expected, 0.1, 0.0)
        assert text == "3 of 4096 elements differ, the worst at (63, 63): nan instead of 1.0"
        assert runtime.difference(actual, actual, 0.0, 0.0) == ""

    def test_large_arrays_are_compared_in_parts(self, runtime: TorchRuntime) -> None:
        expected = runtime.array((6000, 6000), "float16", "normal", 0)
        actual = runtime.copy(expected)
        actual[5999, 5998] += 3
        assert "1 of 36000000 element differs, the worst at (5999, 5998)" in runtime.difference(
            actual, expected, 0, 0.5
        )

    def test_the_reference_is_exact(self, runtime: TorchRuntime) -> None:
        left, right = (runtime.array((512, 512), "float32", "normal", seed) for seed in (0, 1))
        exact = left.double() @ right.double()
        assert float((left @ right - exact).abs().max()) < 1e-3  # TF32 is off by 0.05


class TestMeasure:
    def test_a_matmul_takes_what_do_bench_says(self, runtime: TorchRuntime, device: Device) -> None:
        do_bench = pytest.importorskip("triton.testing").do_bench
        left, right = (runtime.array((4096, 4096), "float16", "normal", seed) for seed in (0, 1))
        out = torch.empty_like(left)
        launch = lambda: torch.matmul(left, right, out=out)  # noqa: E731
        ratios = []
        for _ in range(3):
            begun = time.perf_counter()
            timing = measure(launch, runtime=runtime, watcher=Watcher(device), noise=0, budget_ms=50)
            took = time.perf_counter() - begun
            show(f"matmul 4096 in {took * 1e3:.0f} ms", timing)
            reference = do_bench(launch, warmup=10, rep=25, return_mode="median")
            time.sleep(1)  # at its power limit a card takes longer, whoever asks
            print(f"do_bench: {reference * 1e3:.2f} us")
            ratios.append(timing.median_ms / reference)
        assert 0.93 < sorted(ratios)[1] < 1.07, ratios
        assert timing.evidence is not None
        assert timing.evidence.sm_mhz is not None
        assert timing.evidence.sm_mhz > 300

    def test_it_stops_early_when_it_knows_enough(self, runtime: TorchRuntime) -> None:
        left, right = (runtime.array((4096, 4096), "float16", "normal", seed) for seed in (0, 1))
        out = torch.empty_like(left)
        launch = lambda: torch.matmul(left, right, out=out)  # noqa: E731
        measure(launch, runtime=runtime)
        begun = time.perf_counter()
        timing = measure(launch, runtime=runtime)
        show(f"matmul 4096 again in {(time.perf_counter() - begun) * 1e3:.1f} ms", timing)
        assert timing.stopped == "noise"
        slow = measure(launch, runtime=runtime, slower_than_ms=timing.median_ms / 2)
        show("much slower than the limit", slow)
        assert slow.stopped == "slower"
        assert len(slow.samples_ms) <= 10

    def test_a_tiny_kernel_is_not_timed_by_its_launch(self, runtime: TorchRuntime) -> None:
        array = runtime.array((1024,), "float32", "ones", 0)
        launch = lambda: array.add_(1)  # noqa: E731
        cold, warm = (measure(launch, runtime=runtime, flush=flush) for flush in (True, False))
        show("tiny, cold", cold)
        show("tiny, warm", warm)
        assert (cold.timer, cold.blocked) == ("events", True)
        assert (warm.timer, warm.launches > 1) == ("graph", True)
        assert warm.median_ms < 0.01
        assert warm.median_ms < cold.median_ms < 0.03

    def test_a_slow_launch_does_not_count(self, runtime: TorchRuntime) -> None:
        array = runtime.array((1 << 22,), "float32", "ones", 0)

        def launch() -> None:
            end = time.perf_counter() + 300e-6
            while time.perf_counter() < end:
                pass
            array.add_(1)

        plain = measure(lambda: array.add_(1), runtime=runtime)
        slow = measure(launch, runtime=runtime)
        show("launched at once", plain)
        show("launched after 300 us", slow)
        assert slow.blocked
        assert slow.median_ms < 1.15 * plain.median_ms

    def test_an_empty_cache_is_slower(self, runtime: TorchRuntime) -> None:
        source = runtime.array((8 << 20,), "uint8", "zeros", 0)
        target = runtime.copy(source)
        launch = lambda: runtime.assign(target, source)  # noqa: E731
        cold, warm = (measure(launch, runtime=runtime, flush=flush) for flush in (True, False))
        show("copy of 8 MiB, cold", cold)
        show("copy of 8 MiB, warm", warm)
        assert cold.median_ms > 1.1 * warm.median_ms

    def test_what_cannot_be_captured_has_no_graph(self, runtime: TorchRuntime) -> None:
        array = runtime.array((1024,), "float32", "ones", 0)
        assert runtime.graph(lambda: array.sum().item(), 2) is None
        assert measure(lambda: array.add_(1), runtime=runtime, flush=False).timer == "graph"  # still works

    def test_repeated_it_says_the_same(self, runtime: TorchRuntime) -> None:
        left, right = (runtime.array((2048, 2048), "float16", "normal", seed) for seed in (0, 1))
        out = torch.empty_like(left)
        medians = [
            measure(lambda: torch.matmul(left, right, out=out), runtime=runtime).median_ms for _ in range(10)
        ]
        print(f"\nmatmul 2048, ten times: {min(medians) * 1e3:.2f} to {max(medians) * 1e3:.2f} us")
        assert max(medians) < 1.1 * min(medians)


CHILDREN = """
import json, os, sys, time
from pathlib import Path
begun = time.perf_counter()
from ciq_ray.gpu.torch_runtime import TorchRuntime, import_torch
torch = import_torch()
import triton, triton.language as tl
imported = time.perf_counter() - begun
from ciq_ray.gpu.child import *
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.evidence import Watcher
from ciq_ray.gpu.timing import measure

device = devices()[0]

@triton.jit
def store(out, offset, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + offset + at, at.to(tl.float32))

@triton.jit
def spin(out):
    value = tl.load(out)
    while value == value:
        value = tl.load(out, volatile=True)
    tl.store(out, value)

def serve():
    runtime = TorchRuntime(device)
    out = runtime.array((1024,), "float32", "zeros", 0)
    def answer(request):
        if request == "hang":
            spin[(1,)](out)
        elif request == "measure":
            return measure(lambda: out.add_(1), runtime=runtime, watcher=Watcher(device)).median_ms
        else:
            store[(1,)](out, request, BLOCK=1024)
        runtime.synchronize()
        return float(out[7])
    return answer

found = {"import_s": imported, "gpus": len(devices())}
def child():
    begun = time.perf_counter()
    made = ForkedChild(serve, Path(os.devnull))
    found["fork_s"] = time.perf_counter() - begun
    made.wait(120)
    found["ready_s"] = time.perf_counter() - begun
    return made

first = child()
found["right"] = first.call(0, 120)
try:
    first.call(1 << 40, 120)
except ChildFailed as error:
    found["illegal"] = str(error)
try:
    first.call(0, 120)
except ChildFailed as error:
    found["sticky"] = str(error)
begun = time.perf_counter()
first.close()
found["close_s"] = time.perf_counter() - begun

second = child()
found["after_illegal"] = second.call(0, 120)
found["ms"] = second.call("measure", 120)
begun = time.perf_counter()
try:
    second.call("hang", 3)
except ChildTimeout as error:
    found["hang"] = str(error)
found["kill_s"] = time.perf_counter() - begun - 3

third = child()
found["after_hang"] = third.call(0, 120)
third.close()
found["initialized"] = torch.cuda.is_initialized()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an owner and its children went through."""
    script = tmp_path_factory.mktemp("children") / "owner.py"  # Triton reads the source of its kernels
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CHILDREN}")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print("\n" + "\n".join(f"{name}: {answer}" for name, answer in answers.items()))
    return answers


class TestChildren:
    def test_the_owner_never_touches_cuda(self, found: dict[str, Any]) -> None:
        assert not found["initialized"]

    def test_a_context_that_is_lost_is_lost_for_that_child_only(self, found: dict[str, Any]) -> None:
        assert found["right"] == 7.0
        assert "illegal memory access" in found["illegal"]
        assert "illegal memory access" in found["sticky"]
        assert found["after_illegal"] == 7.0
        assert 0 < found["ms"] < 1

    def test_a_kernel_that_hangs_is_ended(self, found: dict[str, Any]) -> None:
        assert "longer than 3 s" in found["hang"]
        assert found["kill_s"] < 20
        assert found["after_hang"] == 7.0

    def test_the_next_child_is_there_soon(self, found: dict[str, Any]) -> None:
        assert found["ready_s"] < 5
        assert found["fork_s"] < 1
