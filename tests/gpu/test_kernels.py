"""Kernels on a real GPU, through the stages a search uses.

python3 -m pytest -q tests/gpu/test_kernels.py --noconftest
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ciq_ray.compilers import find_tool
from ciq_ray.errors import UnsupportedError
from ciq_ray.kernels import (
    LIBRARY,
    CommandKernel,
    CudaKernel,
    Output,
    PtxKernel,
    Scalar,
    Tensor,
    TritonKernel,
    time_kernel,
)
from ciq_ray.kernels.compile_stage import CompileStage
from ciq_ray.kernels.jobs import CANDIDATE, PREPARE, WINDOW, Job, TimingOptions
from ciq_ray.kernels.stations import target_of
from ciq_ray.kernels.timing_stage import END_GRACE_S, TimingStage
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.slots import NativePool
from searchers import Choice, PowerOfTwo

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

N = 1 << 22


@triton.jit
def matmul(a, b, c, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    left = a + rows[:, None] * K + inner[None, :]
    right = b + inner[:, None] * N + columns[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(0, K, BLOCK_K):
        total = tl.dot(tl.load(left), tl.load(right), total)
        left += BLOCK_K
        right += BLOCK_K * N
    tl.store(c + rows[:, None] * N + columns[None, :], total.to(tl.float16))


@triton.jit
def copy_with(x, out, n, MODE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < n)
    if MODE == 1:  # wrong
        values += 1.0
    if MODE == 2:  # far out of bounds
        out += 1 << 36
    if MODE == 3:  # for ever
        more = tl.load(x)
        while more == more:
            more = tl.load(x, volatile=True)
            values += more * 0
    tl.store(out + at, values, mask=at < n)


@triton.jit
def cluster_copy(x, out, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at))


def product(a):
    import torch

    return torch.matmul(a["a"], a["b"])


SIZE = 1024
MATMUL = TritonKernel(
    matmul,
    arguments={
        "a": Tensor((SIZE, SIZE), "float16"),
        "b": Tensor((SIZE, SIZE), "float16"),
        "c": Output((SIZE, SIZE), "float16"),
        "M": SIZE,
        "N": SIZE,
        "K": SIZE,
    },
    grid=lambda m: (m["M"] // m["BLOCK_M"], m["N"] // m["BLOCK_N"]),
    space={
        "BLOCK_M": PowerOfTwo(32, 256),
        "BLOCK_N": PowerOfTwo(32, 256),
        "BLOCK_K": PowerOfTwo(32, 128),
        "num_warps": Choice([4, 8]),
        "num_stages": Choice([2, 3, 4, 6]),
    },
    reference=product,
    library=product,
    flops=2.0 * SIZE**3,
    bytes=3.0 * 2 * SIZE**2,
)
GOOD = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64, "num_warps": 4, "num_stages": 3}

COPY = TritonKernel(
    copy_with,
    arguments={"x": Tensor(N), "out": Output(N), "n": N},
    grid=lambda m: triton.cdiv(m["n"], m["BLOCK"]),
    space={"MODE": Choice([0, 1, 2, 3]), "BLOCK": PowerOfTwo(256, 2048)},
    reference=lambda a: a["x"].clone(),
    bytes=8.0 * N,
)

SAXPY = """
extern "C" __global__ void saxpy(long n, float a, const float *x, float *y) {
    extern __shared__ float unused[];
    for (long i = (long)blockIdx.x * BLOCK + threadIdx.x; i < n; i += (long)gridDim.x * BLOCK)
        y[i] = a * x[i] + y[i];
}
"""


def saxpy(**options):
    return CudaKernel(
        SAXPY,
        "saxpy",
        arguments={"n": Scalar(N, "int64"), "a": 2.5, "x": Tensor(N), "y": Tensor(N, role="inout")},
        grid=lambda m: -(-m["n"] // m["BLOCK"]),
        block=lambda m: m["BLOCK"],
        space={"BLOCK": Choice([64, 128, 256, 512, 2048])},
        reference=lambda a: a["a"] * a["x"] + a["y"],
        bytes=12.0 * N,
        **options,
    )


class Bench:
    """One device with its two stages, each in a process of its own, as a search has them.

    Nothing of CUDA is ever loaded in this process: a fork of one with a context could not use the device.
    """

    def __init__(self, kernel, device, target=None, **options):
        stage = TimingStage(kernel, device, TimingOptions(**{"run_timeout": 30.0, **options}))
        self._compilers = NativePool(CompileStage(kernel, target or target_of(device)), num_workers=1)
        self._owner = NativePool(stage, num_workers=1, end_grace_s=END_GRACE_S)

    def time(self, job):
        return called(self._owner, job).outcome

    def __call__(self, config, kind=CANDIDATE, **options):
        compiled = called(self._compilers, config)
        if not compiled.outcome.ok:
            return compiled.outcome
        return self.time(Job(kind, config, compiled.attached, **options))

    def close(self):
        self._owner.close()
        self._compilers.close()


def called(pool, argument):
    pool.submit(Task("0", argument))
    while not (reports := pool.poll(1.0)):
        pass
    return reports[0]


@pytest.fixture(scope="module")
def device():
    from ciq_ray.gpu.devices import devices

    try:
        return devices()[0]
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
def opened(device):
    benches = []

    def opener(kernel, **options):
        while benches:  # only one can hold the device
            benches.pop().close()
        benches.append(Bench(kernel, device, **options))
        return benches[-1]

    yield opener
    for bench in benches:
        bench.close()


def test_a_matmul_is_right_and_timed_as_triton_times_it(opened):
    bench = opened(MATMUL)
    prepared = bench.time(Job(PREPARE))
    assert prepared.ok, prepared.message
    peaks = prepared.metrics["peaks"]
    print(prepared.metrics)
    assert peaks["tflops"] > 100
    assert peaks["gbs"] > 1000
    outcome = bench(GOOD)
    assert outcome.ok, outcome.message
    print(outcome.metrics)
    assert outcome.metrics["registers"] > 0
    assert 0 < outcome.metrics["peak_percent"] <= 105
    assert outcome.metrics["sm_mhz"] > 0
    ours = outcome.values[0]

    # by Triton itself, in another process, too
    folder = Path(__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", DO_BENCH, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=folder.parents[1],
    )
    theirs = float(found.stdout.split()[-1])
    print(f"ours {ours:.5f} ms, do_bench {theirs:.5f} ms")
    assert ours == pytest.approx(theirs, rel=0.1)


DO_BENCH = """
import sys
import torch, triton, triton.testing
sys.path.insert(0, sys.argv[1])
from test_kernels import GOOD, SIZE, matmul
a, b, c = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.float16) for _ in range(3))
grid = (SIZE // GOOD["BLOCK_M"], SIZE // GOOD["BLOCK_N"])
print(triton.testing.do_bench(lambda: matmul[grid](a, b, c, SIZE, SIZE, SIZE, **GOOD), return_mode="median"))
"""


def test_the_library_is_timed_as_well(opened):
    bench = opened(MATMUL)
    library = bench.time(Job(CANDIDATE, LIBRARY))
    assert library.ok, library.message
    ours = bench(GOOD)
    print(f"cuBLAS {library.values[0]:.5f} ms, ours {ours.values[0]:.5f} ms")
    assert library.values[0] < 3 * ours.values[0]


@pytest.mark.parametrize("compiler", ["nvcc", "nvrtc"])
def test_saxpy_in_cuda_reaches_the_memory(device, compiler):
    outcome = time_kernel(saxpy(compiler=compiler), {"BLOCK": 256}, device)
    assert outcome.ok, outcome.message
    print(outcome.metrics)
    assert outcome.metrics["gbs"] > 500


def test_a_launch_beyond_the_device_is_refused(opened):
    too_many = opened(saxpy())({"BLOCK": 2048})
    assert too_many.status == "resource_exceeded"
    assert "gpu_at" not in too_many.metrics  # no device was taken
    too_much = opened(saxpy(shared=300 << 10))({"BLOCK": 64})
    assert too_much.status == "resource_exceeded"


def test_a_device_refuses_what_was_not_known_to_be_too_much(opened, device):
    unknown = replace(target_of(device), max_shared=0)
    refused = opened(saxpy(shared=300 << 10), target=unknown)({"BLOCK": 64})
    assert refused.status == "resource_exceeded", refused.message
    assert "gpu_at" in refused.metrics
    large = opened(saxpy(shared=200 << 10))({"BLOCK": 64})
    assert large.ok, large.message


def test_an_argument_of_another_size_is_refused_before_the_launch(opened):
    kernel = saxpy()
    kernel.arguments = {**kernel.arguments, "n": N}
    outcome = opened(kernel)({"BLOCK": 64})
    assert outcome.status == "run_error"
    assert "`arguments` has sizes of [4, 4, 8, 8] bytes" in outcome.message


def test_ptx_with_options_of_ptxas(device, tmp_path):
    ptx = tmp_path / "saxpy.ptx"
    source = tmp_path / "saxpy.cu"
    source.write_text(SAXPY)
    command = [find_tool("nvcc"), f"-arch=sm_{device.arch}", "-ptx", "-DBLOCK=256", source, "-o", ptx]
    subprocess.run([str(word) for word in command], check=True)
    kernel = PtxKernel(
        ptx,
        "saxpy",
        arguments={"n": Scalar(N, "int64"), "a": 2.5, "x": Tensor(N), "y": Tensor(N, role="inout")},
        grid=-(-N // 256),
        block=256,
        space={"level": Choice([0, 1, 2, 3])},
        options=lambda config: [f"--opt-level={config['level']}"],
        reference=lambda a: a["a"] * a["x"] + a["y"],
    )
    slow, fast = (time_kernel(kernel, {"level": level}, device) for level in (0, 3))
    assert slow.ok, slow.message
    assert fast.ok, fast.message
    assert slow.metrics["digest"] != fast.metrics["digest"]


def test_what_goes_wrong_is_named_and_hurts_nobody_else(opened):
    bench = opened(COPY, run_timeout=10.0)
    right = bench({"MODE": 0, "BLOCK": 1024})
    assert right.ok, right.message
    print(right.metrics)
    found = []
    for mode in (1, 2, 3):
        found.append(bench({"MODE": mode, "BLOCK": 1024}).status)
        after = bench({"MODE": 0, "BLOCK": 512})
        assert after.ok, after.message
        assert after.values[0] == pytest.approx(right.values[0], rel=0.3)
    assert found == ["wrong", "run_error", "run_timeout"]


def test_a_cluster_is_launched_by_triton_itself(device):
    kernel = TritonKernel(
        cluster_copy,
        arguments={"x": Tensor(N), "out": Output(N)},
        grid=lambda m: N // m["BLOCK"],
        space={"BLOCK": PowerOfTwo(256, 2048), "num_ctas": Choice([1, 2])},
        reference=lambda a: a["x"].clone(),
    )
    if device.arch < 90:
        pytest.skip("clusters need sm_90")
    outcome = time_kernel(kernel, {"BLOCK": 1024, "num_ctas": 2}, device)
    assert outcome.ok, outcome.message


def test_windows_of_a_race_are_short(opened):
    bench = opened(MATMUL, window_ms=20.0)
    windows = [bench(GOOD, WINDOW) for _ in range(5)]
    assert all(window.ok for window in windows)
    medians = [window.values[0] for window in windows]
    print(medians)
    assert max(medians) / min(medians) < 1.2
    begin, end = windows[-1].metrics["gpu_at"]
    assert end - begin < 1.0


def test_a_command_sees_its_device_alone(device, tmp_path):
    (tmp_path / "main.sh").write_text('#!/bin/sh\ntest -n "$CUDA_VISIBLE_DEVICES" && echo 1.5\n')
    (tmp_path / "main.sh").chmod(0o755)
    kernel = CommandKernel(
        "cp main.sh built.sh", "./built.sh {n}", space={"n": Choice([1, 2])}, directory=tmp_path
    )
    outcome = time_kernel(kernel, {"n": 1}, device)
    assert outcome.ok, outcome.message
    assert math.isclose(outcome.values[0], 1.5)
