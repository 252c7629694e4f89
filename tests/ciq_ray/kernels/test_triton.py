import os
import subprocess
import sys
import textwrap

import pytest

from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.kernels import Artefact, CompileStage, Output, Scalar, Target, Tensor, TritonKernel
from ciq_ray.kernels.arguments import resolve
from ciq_ray.kernels.specialise import specialise
from searchers import Choice, PowerOfTwo

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

H100 = Target(90, "H100", max_shared=232448, max_threads=1024, max_registers=65536)


@triton.jit
def axpy(x, out, n, a, stride, BLOCK: tl.constexpr, MODE: tl.constexpr = "mul"):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at * stride, mask=at < n)
    if MODE == "mul":
        values = values * a
    tl.store(out + at, values, mask=at < n)


@triton.jit
def tile(x, out, BLOCK: tl.constexpr, STAGE_BYTES: tl.constexpr):
    tl.static_assert(BLOCK <= 4096, "no such block")
    at = tl.arange(0, BLOCK)
    left = tl.load(x + at[:, None] * STAGE_BYTES + tl.arange(0, STAGE_BYTES)[None, :])
    right = tl.load(x + tl.arange(0, STAGE_BYTES)[:, None] * BLOCK + at[None, :])
    tl.store(out + at[:, None] * BLOCK + at[None, :], tl.dot(left, right))


@triton.jit(do_not_specialize=["n"])
def annotated(x, n, far: "i64", flag, one, BLOCK: tl.constexpr):  # noqa: F821 - Triton reads it
    tl.store(x + n, far + flag + one)


def arguments(n=4096, **others):
    return {"x": Tensor(n), "out": Output(n), "n": n, "a": 2.0, "stride": 1, **others}


def kernel(function=axpy, **options):
    given = {
        "arguments": arguments(),
        "grid": lambda meta: triton.cdiv(meta["n"], meta["BLOCK"]),
        "space": {"BLOCK": PowerOfTwo(64, 4096), "num_warps": Choice([1, 2, 4, 8])},
        "reference": lambda a: 2 * a["x"],
        **options,
    }
    return TritonKernel(function, **given)


CONFIG = {"BLOCK": 1024, "num_warps": 4}


@pytest.fixture(scope="module")
def compiled():
    return kernel().compile(CONFIG, H100, keep=True)


def test_a_configuration_is_compiled_without_a_gpu(compiled):
    assert compiled.binary.startswith(b"\x7fELF")
    assert compiled.resources.threads == 128
    assert 8 <= compiled.resources.registers <= 64
    assert compiled.resources.spill_stores == 0
    assert compiled.meta["grids"] == {"": [4, 1, 1]}
    assert "Used" in compiled.messages


def test_keep_leaves_what_an_engineer_reads(compiled):
    assert set(compiled.files) >= {"kernel.ptx", "kernel.ttgir", "kernel.cubin", "kernel.sass"}
    assert b".entry axpy" in compiled.files["kernel.ptx"]
    assert b"EXIT" in compiled.files["kernel.sass"]
    assert kernel().compile(CONFIG, H100).files == {}


def test_a_launch_passes_what_the_binary_takes(compiled):
    (variant,) = compiled.meta["variants"].values()
    # x, out, n, a; the stride of 1 is compiled in; then Triton's own scratch pointers
    declared = compiled.files["kernel.ptx"].decode().split(".entry", 1)[1].split(")", 1)[0].count(".param")
    assert declared == 4 + len(variant["scratch"])
    assert variant["special"] is False


def test_options_that_change_nothing_come_to_the_same_binary(compiled):
    again = kernel(space={"BLOCK": PowerOfTwo(64, 4096), "num_stages": Choice([1, 2, 3])})
    one, two = (again.compile({"BLOCK": 1024, "num_stages": stages}, H100) for stages in (1, 2))
    assert one.digest == two.digest == compiled.digest
    other = kernel().compile({**CONFIG, "BLOCK": 512}, H100)
    assert other.digest != compiled.digest


def test_the_same_binary_with_another_grid_is_another(compiled):
    finer = kernel(grid=lambda meta: 2 * triton.cdiv(meta["n"], meta["BLOCK"])).compile(CONFIG, H100)
    assert finer.binary == compiled.binary
    assert finer.digest != compiled.digest


def test_shapes_that_are_alike_share_a_binary():
    alike = kernel(arguments=arguments_of, shapes=[4096, 8192]).compile(CONFIG, H100)
    assert len(alike.meta["variants"]) == 1
    assert alike.meta["grids"] == {"4096": [4, 1, 1], "8192": [8, 1, 1]}
    # 4097 is no multiple of 16: vector loads have to be guarded otherwise
    unlike = kernel(arguments=arguments_of, shapes=[4096, 4097]).compile(CONFIG, H100)
    assert len(unlike.meta["variants"]) == 2
    sizes = [(each["at"], each["size"]) for each in unlike.meta["variants"].values()]
    assert sizes[1] == (sizes[0][1], len(unlike.binary) - sizes[0][1])


def arguments_of(n):
    return arguments(n)


@pytest.mark.parametrize("value", [0, 1, 2, 16, 48, -1, -16, 1 << 31, (1 << 33) + 1, 1.5, True, False])
def test_numbers_are_specialised_as_tritons_jit_does_it(value):
    from triton._C.libtriton import native_specialize_impl
    from triton.backends.compiler import BaseBackend

    kind, mark = native_specialize_impl(BaseBackend, value, False, True, True)
    given = resolve(arguments(a=value), None)
    found = specialise(axpy.params, given, {"BLOCK": 64})
    assert found.signature["a"] == kind
    assert (3 in found.divisible) == (mark == "D")
    assert (found.constants.get("a") == 1) == (kind == "constexpr")


def test_annotations_and_do_not_specialize_count():
    given = resolve({"x": Tensor(16, "int64"), "n": 1, "far": 16, "flag": True, "one": 1}, None)
    found = specialise(annotated.params, given, {"BLOCK": 64})
    assert found.signature == {
        "x": "*i64",
        "n": "i32",
        "far": "i64",
        "flag": "u1",
        "one": "constexpr",
        "BLOCK": "constexpr",
    }
    assert found.divisible == (0, 2)
    assert found.passed == (("x", "pointer"), ("n", "int32"), ("far", "int64"), ("flag", "uint8"))


def test_the_key_of_a_variant_has_nothing_of_the_configuration():
    given = resolve(arguments(), None)
    one, two = (specialise(axpy.params, given, {"BLOCK": block}) for block in (64, 128))
    assert one.key == two.key
    assert specialise(axpy.params, resolve(arguments(a=1), None), {"BLOCK": 64}).key != one.key


def test_a_constant_may_be_anything():
    found = kernel(arguments=arguments(MODE="copy")).compile(CONFIG, H100)
    assert found.digest != kernel().compile(CONFIG, H100).digest
    with pytest.raises(ConfigurationError, match=r"only a parameter that is tl\.constexpr"):
        kernel(arguments=arguments(a="two")).compile(CONFIG, H100)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arguments": arguments(b=1)}, "'b', which is no parameter of the kernel"),
        ({"arguments": {"x": Tensor(64), "out": Output(64)}}, "'n' has no value; .* `arguments`"),
        ({"space": {"BLOK": Choice([64])}}, "'BLOK', which is no parameter.*did you mean 'BLOCK'"),
        ({"space": {"num_warps": Choice([4])}}, "'BLOCK' has no value; .* `space`"),
        (
            {"arguments": lambda n: arguments(n) if n < 99 else arguments(n, b=1), "shapes": [64, 128]},
            "'b', which is no parameter",
        ),
    ],
)
def test_what_does_not_fit_the_function_is_named_before_a_search(change, named):
    with pytest.raises(ConfigurationError, match=named):
        kernel(**{"grid": 4, **change})


def test_a_configuration_of_another_space_is_refused():
    with pytest.raises(ConfigurationError, match="'UNROLL', which is no parameter of the kernel"):
        kernel().compile({**CONFIG, "UNROLL": 2}, H100)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"function": len}, "must be a @triton.jit function"),
        ({"reference": None}, "`reference`"),
        ({"arguments": {"x": Tensor(4)}}, "no output"),
        ({"shapes": []}, "`shapes` is empty"),
        ({"flops": {"other": 1.0}}, "`flops` has no number"),
        ({"bytes": -1.0}, "`bytes` is -1.0"),
        ({"bytes": float("nan")}, "`bytes` is nan"),
        ({"flops": 1e9, "shapes": [4096, 8192]}, "one number for 2 shapes; .*4096, 8192"),
        ({"dtype": "fp16"}, "`dtype` is 'fp16'"),
        ({"rtol": -0.1}, "`rtol`"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, named):
    with pytest.raises(ConfigurationError, match=named):
        kernel(**options)


def test_what_triton_refuses_is_a_compile_error():
    tiles = TritonKernel(
        tile,
        arguments={"x": Tensor((1 << 14,), "float16"), "out": Output((1 << 14,))},
        grid=1,
        space={"BLOCK": PowerOfTwo(16, 8192), "STAGE_BYTES": PowerOfTwo(16, 64)},
        reference=lambda a: a["x"],
    )
    with pytest.raises(ObjectiveFailure, match="no such block") as caught:
        tiles.compile({"BLOCK": 8192, "STAGE_BYTES": 16}, H100)
    assert caught.value.status == "compile_error"
    with pytest.raises(ObjectiveFailure, match="power of 2") as caught:
        kernel().compile({**CONFIG, "num_warps": 3}, H100)
    assert caught.value.status == "compile_error"


def test_a_users_cache_is_neither_read_nor_written(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    stage = CompileStage(kernel(), H100, tmp_path / "work")
    for _ in range(2):
        assert stage(CONFIG).outcome.ok
    assert not cache.exists()
    assert os.environ["TRITON_CACHE_DIR"] == str(cache)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_configuration_is_shown_as_one_pastes_it():
    config = {"BLOCK": 128, "num_warps": 8, "num_stages": 3, "maxnreg": None}
    text = kernel().shown(config, "triton")
    assert text == "triton.Config({'BLOCK': 128}, num_warps=8, num_stages=3)"
    with pytest.raises(ConfigurationError, match="flags"):
        kernel().shown(config, "flags")


# --- @triton.autotune ---


@triton.autotune(
    configs=[
        triton.Config({"BLOCK": 1024}, num_warps=8),
        triton.Config({"BLOCK": 256}, num_warps=4, num_stages=2),
    ],
    key=["n"],
)
@triton.jit
def tuned(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n), mask=at < n)


def from_autotune(function=tuned, **options):
    return TritonKernel.from_autotune(
        function,
        grid=lambda meta: triton.cdiv(meta["n"], meta["BLOCK"]),
        reference=lambda a: a["x"],
        **{"arguments": {"x": Tensor(4096), "out": Output(4096), "n": 4096}, **options},
    )


def test_an_autotuned_kernel_is_taken_over():
    taken = from_autotune()
    assert taken.initial_configs == [
        {"BLOCK": 1024, "num_warps": 8, "num_stages": 3},
        {"BLOCK": 256, "num_warps": 4, "num_stages": 2},
    ]
    assert taken.space.size == 8
    assert taken.compile(taken.initial_configs[1], H100).resources.threads == 128
    wider = from_autotune(space={"BLOCK": PowerOfTwo(64, 1024), "num_warps": Choice([4, 8])}, flops=1.0)
    assert wider.space.size == 10
    assert wider.flops == {"": 1.0}


def test_what_cannot_be_taken_over_is_refused():
    with pytest.raises(ConfigurationError, match=r"under @triton\.autotune"):
        from_autotune(axpy)
    with pytest.raises(ConfigurationError, match="from_autotune"):
        kernel(tuned)
    heuristic = triton.autotune([triton.Config({"BLOCK": 64})], key=[])(
        triton.heuristics({"EVEN": lambda args: True})(axpy)
    )
    with pytest.raises(ConfigurationError, match="heuristics"):
        from_autotune(heuristic)
    with pytest.raises(ConfigurationError, match=r"what @triton\.heuristics computes into `arguments`"):
        kernel(heuristic.fn)
    hooked = triton.autotune([triton.Config({"BLOCK": 64}, pre_hook=print)], key=[])(axpy)
    with pytest.raises(ConfigurationError, match="hooks"):
        from_autotune(hooked)
    with pytest.raises(TypeError, match="tolerance"):
        from_autotune(tolerance=1.0)


@pytest.mark.parametrize("option", ["reset_to_zero", "restore_value"])
def test_what_autotune_restores_has_to_be_read_and_written(option):
    restoring = triton.autotune([triton.Config({"BLOCK": 64})], key=[], **{option: ["out"]})(axpy)
    with pytest.raises(ConfigurationError, match="puts 'out' back before each launch"):
        from_autotune(restoring, arguments=arguments())
    given = arguments(64, out=Tensor(64, init="zeros", role="inout"))
    taken = TritonKernel.from_autotune(restoring, arguments=given, grid=1, reference=lambda a: a["x"])
    assert taken.initial_configs == [{"BLOCK": 64, "num_warps": 4, "num_stages": 3}]


# --- in the processes of a search ---

SCRIPT = """
import sys

import heavy
import triton
import triton.language as tl

from ciq_ray.kernels import CompileStage, Output, Target, Tensor, TritonKernel
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.slots import NativePool
from searchers import Choice

FACTOR = tl.constexpr(3.0)


@triton.jit
def tripled(values):
    return values * FACTOR


@triton.jit
def kernel(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tripled(tl.load(x + at)))


def arguments(shape):
    # runs in the worker
    print("loaded:", sorted({"heavy", "torch"} & sys.modules.keys()), file=sys.stderr)
    return {"x": Tensor(64), "out": Output(64)}


objective = TritonKernel(
    kernel,
    arguments=arguments,
    grid=1,
    space={"BLOCK": Choice([16, 32, 64])},
    reference=lambda a: heavy.triple(a["x"]),
)

if __name__ == "__main__":
    from pathlib import Path

    logs = Path(sys.argv[1])
    if len(sys.argv) > 2:  # somebody edits the script during the search
        Path(__file__).write_text("# nothing\\n")
    pool = NativePool(CompileStage(objective, Target(90)), num_workers=1, log_dir=logs)
    pool.submit(Task("0", {"BLOCK": 64}))
    reports = []
    while not reports:
        reports = pool.poll(60)
    pool.close()
    outcome = reports[0].outcome
    print(outcome.status, outcome.message, len(reports[0].attached) > 1000)
    print("".join(path.read_text() for path in logs.iterdir()))
"""


@pytest.mark.parametrize("changed", [[], ["changed"]])
def test_a_script_run_as_main_sends_its_kernel_to_workers(tmp_path, changed):
    (tmp_path / "heavy.py").write_text("def triple(x):\n    return 3 * x\n")
    script = tmp_path / "tune.py"
    script.write_text(SCRIPT)
    logs = tmp_path / "logs"
    logs.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(logs), *changed], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "ok  True" in done.stdout, done.stdout
    # neither torch nor what only the reference needs
    assert "loaded: []" in done.stdout


def test_a_kernel_of_a_module_goes_by_name(tmp_path, monkeypatch):
    import pickle

    from ciq_ray.worker.payload import Pickler

    (tmp_path / "my_kernels.py").write_text(
        textwrap.dedent(
            """
            import triton
            import triton.language as tl

            @triton.autotune([triton.Config({"BLOCK": 64})], key=[])
            @triton.jit
            def copied(x, out, BLOCK: tl.constexpr):
                at = tl.arange(0, BLOCK)
                tl.store(out + at, tl.load(x + at))
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_kernels

    taken = TritonKernel.from_autotune(
        my_kernels.copied,
        arguments={"x": Tensor(64), "out": Output(64)},
        grid=1,
        reference=lambda a: a["x"],
    )
    data = Pickler(CompileStage(taken, H100)).function
    assert b"tl.store" not in data
    assert pickle.loads(data).kernel.function is my_kernels.copied.fn
    artefact = Artefact.from_bytes(pickle.loads(data)({"BLOCK": 64, "num_warps": 4, "num_stages": 3}).data)
    assert artefact.meta["grids"] == {"": [1, 1, 1]}


def test_scalars_of_a_given_type_keep_it():
    given = resolve(arguments(a=Scalar(16, "int64")), None)
    assert specialise(axpy.params, given, {"BLOCK": 64}).signature["a"] == "i64"
