import sys
import types

import pytest

from ciq_ray.compilers import find_tool
from ciq_ray.errors import ConfigurationError, ObjectiveFailure, UnsupportedError
from ciq_ray.gpu.host import HostRuntime
from ciq_ray.kernels import CudaKernel, Output, Scalar, Target, Tensor
from ciq_ray.kernels.timing_child import check_packages
from ciq_ray.worker.limits import set_compile_timeout
from searchers import Choice

H100 = Target(90, "H100", max_shared=232448, max_threads=1024, max_registers=65536)

SOURCE = """
#ifdef EXTRA
#include "extra.h"
#endif
extern "C" __global__ void scale(const float *x, float *out, long n, float a) {
    __shared__ float tile[TILE];
    long i = blockIdx.x * (long)blockDim.x + threadIdx.x;
    if (threadIdx.x < TILE) tile[threadIdx.x] = a;
    __syncthreads();
    if (i < n) out[i] = tile[i % TILE] * x[i] + OFFSET;
}
"""

CONFIG = {"TILE": 32, "THREADS": 128, "OFFSET": True}


@pytest.fixture(autouse=True)
def _nvcc():
    try:
        find_tool("nvcc")
    except UnsupportedError as error:
        pytest.skip(str(error))


def kernel(source=SOURCE, name="scale", **options):
    given = {
        "arguments": {"x": Tensor(4096), "out": Output(4096), "n": Scalar(4096, "int64"), "a": 2.0},
        "grid": lambda m: -(-m["n"] // m["THREADS"]),
        "block": lambda m: (m["THREADS"], 1),
        "space": {"TILE": Choice([32, 64]), "THREADS": Choice([128, 2048]), "OFFSET": Choice([False, True])},
        "reference": lambda a: 2 * a["x"],
        **options,
    }
    return CudaKernel(source, name, **given)


def test_a_library_has_to_compute_the_same():
    runtime = HostRuntime(1 << 16)
    for library in (lambda a: 2 * a["x"], lambda a: {"out": a["x"] + a["x"]}, lambda a: None):
        right = kernel(library=library)
        assert right.library(runtime, right.workload(runtime, None, 0)) is not None
    wrong = kernel(library=lambda a: 3 * a["x"])
    with pytest.raises(ObjectiveFailure, match=r"`library` returns something else.* 4096 of 4096") as caught:
        wrong.library(runtime, wrong.workload(runtime, None, 0))
    assert caught.value.status == "wrong"
    assert kernel().library(runtime, kernel().workload(runtime, None, 0)) is None


def test_macros_decide_what_is_compiled():
    small, large = (kernel().compile({**CONFIG, "TILE": tile}, H100) for tile in (32, 64))
    assert small.binary.startswith(b"\x7fELF")
    assert (small.resources.shared, large.resources.shared) == (128, 256)
    assert small.resources.threads == 128
    assert small.resources.registers > 4
    assert small.meta == {
        "name": "scale",
        "launches": {"": {"grid": [32, 1, 1], "block": [128, 1, 1], "shared": 0}},
    }


def test_what_only_the_launch_reads_need_not_be_a_macro():
    one = kernel(macros=["TILE", "OFFSET"], shared=lambda m: 4 * m["THREADS"])
    assert one.shown(CONFIG, "flags") == "-DTILE=32 -DOFFSET=1"
    artefact = one.compile(CONFIG, H100)
    assert artefact.resources.shared == 128 + 4 * 128
    assert kernel().shown({**CONFIG, "OFFSET": None}, "flags") == "-DTILE=32 -DTHREADS=128"


def test_flags_may_follow_from_the_configuration():
    limited = kernel(flags=lambda config: [f"-maxrregcount={config['TILE'] // 2}"])
    assert limited.compile(CONFIG, H100).resources.registers <= 16
    assert limited.shown(CONFIG, "flags").endswith("-maxrregcount=16")


@pytest.mark.parametrize("flags", ["-O3 -DTWO='a b'", lambda config: "-O3 -DTWO='a b'", ["-O3", "-DTWO=a b"]])
def test_flags_may_be_a_text(flags):
    assert kernel(flags=flags).options({"BLOCK": 64})[-2:] == ["-O3", "-DTWO=a b"]


def test_a_text_of_flags_that_does_not_end_is_refused():
    with pytest.raises(ConfigurationError, match="cannot be read: No closing quotation"):
        kernel(flags="-DTWO='a")


def test_a_file_finds_its_own_headers(tmp_path):
    (tmp_path / "extra.h").write_text("static __device__ const int extra = 1;\n")
    (tmp_path / "scale.cu").write_text(SOURCE)
    assert kernel(tmp_path / "scale.cu", flags=["-DEXTRA"]).compile(CONFIG, H100).binary
    with pytest.raises(ObjectiveFailure, match=r"extra\.h"):
        kernel(flags=["-DEXTRA"]).compile(CONFIG, H100)


def test_an_error_has_the_compilers_text():
    with pytest.raises(ObjectiveFailure, match='identifier "missing" is undefined') as caught:
        kernel(SOURCE.replace("OFFSET", "missing")).compile(CONFIG, H100)
    assert caught.value.status == "compile_error"


def test_more_static_shared_memory_than_there_is_is_no_error_of_the_source():
    with pytest.raises(ObjectiveFailure, match="too much shared data") as caught:
        kernel().compile({**CONFIG, "TILE": 16000}, H100)
    assert caught.value.status == "resource_exceeded"


def test_a_kernel_in_cpp_is_found_by_its_mangled_name():
    artefact = kernel(SOURCE.replace('extern "C"', "")).compile(CONFIG, H100)
    assert artefact.meta["name"].startswith("_Z5scale")
    with pytest.raises(ObjectiveFailure, match="no kernel 'scala'"):
        kernel(name="scala").compile(CONFIG, H100)


def test_keep_leaves_source_ptx_and_sass():
    files = kernel().compile(CONFIG, H100, keep=True).files
    assert set(files) == {"kernel.cu", "kernel.ptx", "kernel.cubin", "kernel.sass"}
    assert b".entry scale" in files["kernel.ptx"]


def test_the_limit_of_the_task_is_kept():
    set_compile_timeout(0.001)
    try:
        with pytest.raises(ObjectiveFailure, match=r"0\.001 s") as caught:
            kernel().compile(CONFIG, H100)
    finally:
        set_compile_timeout(None)
    assert caught.value.status == "compile_timeout"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"compiler": "clang"}, "`compiler`"),
        ({"source": "no/such/file.cu"}, "`source`"),
        ({"name": ""}, "`name`"),
        ({"arguments": {"out": Output(4), "mode": "fast"}}, "'mode' is 'fast'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, named):
    with pytest.raises(ConfigurationError, match=named):
        kernel(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"block": lambda m: (0, 1)}, "`block`"),
        ({"grid": lambda m: (1, 70000)}, "`grid`"),
        ({"grid": lambda m: 1.5}, "`grid`"),
        ({"shared": -1}, "`shared`"),
    ],
)
def test_a_launch_that_cannot_be_is_named(options, named):
    with pytest.raises(ConfigurationError, match=named):
        kernel(**options).compile(CONFIG, H100)


def nvrtc_or_skip():
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    try:
        nvrtc.nvrtcVersion()
    except (RuntimeError, OSError) as error:
        pytest.skip(str(error))


def test_what_launches_it_is_missed_before_a_search(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(UnsupportedError, match=r"needs cuda-bindings.*: pip install 'ciq-ray\[gpu\]'$"):
        check_packages(kernel())


def test_nvrtc_makes_the_same_of_it():
    nvrtc_or_skip()
    artefact = kernel(compiler="nvrtc").compile(CONFIG, H100, keep=True)
    assert artefact.resources.shared == 128
    assert artefact.resources.registers > 4
    assert b".entry scale" in artefact.files["kernel.ptx"]
    with pytest.raises(ObjectiveFailure, match='identifier "missing" is undefined'):
        kernel(SOURCE.replace("OFFSET", "missing"), compiler="nvrtc").compile(CONFIG, H100)


def test_without_nvrtc_the_message_says_how_to_get_it(monkeypatch):
    import sys

    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match="pip install cuda-bindings"):
        kernel(compiler="nvrtc").compile(CONFIG, H100)
