"""Launches through a CUDA driver of our own, which knows the sizes of a kernel's parameters and reads them.

What the real one does with them is tested in tests/gpu/test_kernels.py.
"""

import ctypes
import enum
from types import SimpleNamespace

import pytest

from ciq_ray.compilers import find_tool
from ciq_ray.errors import ConfigurationError, ObjectiveFailure, UnsupportedError
from ciq_ray.gpu.host import HostRuntime
from ciq_ray.kernels import CudaKernel, Output, Scalar, Target, Tensor, TritonKernel, driver
from searchers import Choice


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701


OK = Result.CUDA_SUCCESS


class FakeCuda:
    """The calls that are made, with the answers of a card that has 100 KiB of shared memory."""

    CUresult = Result
    CUfunction_attribute = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_NUM_REGS="registers",
        CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES="local",
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES="static_shared",
        CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK="max_threads",
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic",
    )
    CUfunc_cache = SimpleNamespace(CU_FUNC_CACHE_PREFER_SHARED="shared")

    def __init__(self, sizes=(8, 8, 4, 4)):
        self.sizes = sizes
        self.attributes = {"registers": 40, "local": 0, "static_shared": 1024, "max_threads": 512}
        self.context = 1
        self.answer = OK
        self.launches = []
        self.loaded = self.unloaded = 0

    def cuGetErrorName(self, result):
        return OK, result.name.encode()

    def cuGetErrorString(self, result):
        return OK, b"an illegal memory access was encountered"

    def cuCtxGetCurrent(self):
        return OK, self.context

    def cuModuleLoadData(self, cubin):
        self.loaded += 1
        return OK, len(cubin)

    def cuModuleUnload(self, module):
        self.unloaded += 1
        return (OK,)

    def cuModuleGetFunction(self, module, name):
        return OK, name

    def cuFuncGetAttribute(self, kind, function):
        return OK, self.attributes[kind]

    def cuFuncSetCacheConfig(self, function, config):
        return (OK,)

    def cuFuncSetAttribute(self, function, kind, value):
        if value + 1024 > 100 << 10:
            return (Result.CUDA_ERROR_INVALID_VALUE,)
        self.attributes[kind] = value
        return (OK,)

    def cuFuncGetParamInfo(self, function, index):
        if index >= len(self.sizes):
            return Result.CUDA_ERROR_INVALID_VALUE, None, None
        return OK, 0, self.sizes[index]

    def cuLaunchKernel(self, function, *others):
        *sizes, stream, pointers, extra = others
        addresses = (ctypes.c_void_p * len(self.sizes)).from_address(pointers)
        values = [
            ctypes.string_at(address, size) for address, size in zip(addresses, self.sizes, strict=True)
        ]
        self.launches.append((function, tuple(sizes), stream, values))
        assert extra == 0
        return (self.answer,)


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(driver, "_driver", lambda: fake)
    monkeypatch.setattr(driver, "stream", lambda: 77)
    driver.load.cache_clear()
    yield fake
    driver.load.cache_clear()


ARGUMENTS = (ctypes.c_uint64(4096), ctypes.c_uint64(8192), ctypes.c_int32(7), ctypes.c_float(0.5))


def launch_of(arguments=ARGUMENTS, block=(128, 1, 1), shared=0, name="saxpy"):
    return driver.load(b"cubin", name).launcher((3, 2, 1), block, shared, arguments)


def test_arguments_are_packed_once_and_read_at_each_launch(cuda):
    launch = launch_of()
    launch()
    launch()
    assert cuda.launches[0] == cuda.launches[1]
    function, sizes, stream, values = cuda.launches[0]
    assert (function, sizes, stream) == (b"saxpy", (3, 2, 1, 128, 1, 1, 0), 77)
    assert values == [bytes(argument) for argument in ARGUMENTS]


def test_a_binary_is_loaded_once_and_unloaded_when_nobody_needs_it(cuda):
    first = launch_of()
    second = launch_of()
    assert cuda.loaded == 1
    driver.load.cache_clear()
    assert cuda.unloaded == 0
    del first
    del second
    assert cuda.unloaded == 1


def test_arguments_of_other_sizes_are_refused(cuda):
    with pytest.raises(
        ConfigurationError, match=r"sizes of \[8, 8, 8\] bytes, but saxpy takes \[8, 8, 4, 4\]"
    ):
        launch_of((*ARGUMENTS[:2], ctypes.c_int64(7)))


def test_more_threads_or_shared_memory_than_the_device_has(cuda):
    with pytest.raises(ObjectiveFailure, match="512 at most") as caught:
        launch_of(block=(32, 32, 1))
    assert caught.value.status == "resource_exceeded"
    with pytest.raises(ObjectiveFailure, match="of dynamic and 1024 of static") as caught:
        launch_of(shared=200 << 10)
    assert caught.value.status == "resource_exceeded"
    launch_of(shared=90 << 10)
    assert cuda.attributes["dynamic"] == 90 << 10


def test_little_shared_memory_needs_no_attribute(cuda):
    launch_of(shared=40 << 10)
    assert "dynamic" not in cuda.attributes


def test_errors_of_a_launch_have_cudas_names(cuda):
    launch = launch_of()
    cuda.answer = Result.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(RuntimeError, match=r"CUDA error: an illegal .*CUDA_ERROR_ILLEGAL_ADDRESS"):
        launch()
    cuda.answer = Result.CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
    with pytest.raises(ObjectiveFailure) as caught:
        launch()
    assert caught.value.status == "resource_exceeded"


def test_without_a_context_nothing_is_loaded(cuda):
    cuda.context = 0
    with pytest.raises(UnsupportedError, match="no CUDA context"):
        launch_of()


def test_without_cuda_python_the_message_says_how_to_get_it(monkeypatch):
    import sys

    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    driver._driver.cache_clear()
    with pytest.raises(UnsupportedError, match="pip install cuda-bindings"):
        driver.load(b"other", "kernel")


# --- what kernels hand to it ---

H100 = Target(90)


def as_ints(values):
    return [int.from_bytes(value, "little") for value in values]


def test_a_cuda_kernel_passes_arguments_in_their_order(cuda):
    try:
        find_tool("nvcc")
    except UnsupportedError as error:
        pytest.skip(str(error))
    kernel = CudaKernel(
        'extern "C" __global__ void f(long n, const float *x, float *y, bool on) { y[0] = x[n] + on; }',
        "f",
        arguments={"n": Scalar(5, "int64"), "x": Tensor(64), "y": Output(64), "on": True},
        grid=lambda m: m["n"],
        block=(32, 2),
        shared=lambda m: 4 * m["B"],
        space={"B": Choice([64, 128])},
        reference=lambda a: a["x"],
    )
    cuda.sizes = (8, 8, 8, 1)
    runtime = HostRuntime(1 << 16)
    work = kernel.workload(runtime, None, 0)
    artefact = kernel.compile({"B": 64}, H100)
    kernel.load(artefact, {"B": 64}, runtime, work)()
    ((function, sizes, _, values),) = cuda.launches
    assert (function, sizes) == (b"f", (5, 1, 1, 32, 2, 1, 256))
    pointers = [runtime.pointer(work.arrays[name]) for name in ("x", "y")]
    assert as_ints(values) == [5, *pointers, 1]


SCRATCH_POINTERS = 2


def test_a_triton_kernel_passes_what_is_not_compiled_in(cuda):
    pytest.importorskip("triton")
    from tests.ciq_ray.kernels.test_triton import arguments, axpy

    kernel = TritonKernel(
        axpy,
        arguments=lambda n: arguments(n),
        grid=lambda meta: meta["n"] // meta["BLOCK"],
        space={"BLOCK": Choice([64, 128]), "num_warps": Choice([2, 4])},
        reference=lambda a: 2 * a["x"],
        shapes=[4096, 4104],
    )
    config = {"BLOCK": 128, "num_warps": 2}
    artefact = kernel.compile(config, H100)
    cuda.sizes = (8, 8, 4, 4) + (8,) * SCRATCH_POINTERS
    runtime = HostRuntime(1 << 16)
    for size in (4096, 4104):
        work = kernel.workload(runtime, size, 0)
        kernel.load(artefact, config, runtime, work)()
        function, sizes, _, values = cuda.launches[-1]
        assert (function, sizes) == (b"axpy", (32, 1, 1, 64, 1, 1, 0))
        pointers = [runtime.pointer(work.arrays[name]) for name in ("x", "out")]
        assert as_ints(values[:3]) == [*pointers, size]
        assert ctypes.c_float.from_buffer_copy(values[3]).value == 2.0
        assert as_ints(values[4:]) == [0] * SCRATCH_POINTERS
    assert cuda.loaded == 2  # one is a multiple of 16, the other is not
    other = kernel.workload(runtime, 4096, 1)
    other.arguments["a"] = Scalar(1, "int32")
    with pytest.raises(ConfigurationError, match="none that this binary was compiled for"):
        kernel.load(artefact, config, runtime, other)
