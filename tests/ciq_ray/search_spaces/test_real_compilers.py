"""The catalogue against the real ptxas and nvcc: what a file offers, the compiler takes."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ciq_ray.compilers import find_tool, ptxas_report, run_tool, tool_version
from ciq_ray.errors import ObjectiveFailure, UnsupportedError
from ciq_ray.search_spaces.compilers import NvccSearchSpace, PtxasSearchSpace, load_provider
from ciq_ray.search_spaces.files import apply_controls_space
from ciq_ray.utils.helpers import save_compiler_config
from searchers.space import Space

INSTALL = "needs NVIDIA's compilers: pip install 'ciq-ray[ptxas]'"

# a loop, a branch, loads, stores and an atomic, so that every option has something to act on
PTX = """\
.version 7.5
.target sm_75
.address_size 64

.visible .entry accumulate(.param .u64 total, .param .u64 values, .param .u32 count)
.maxntid 256, 1, 1
.minnctapersm 2
{
    .reg .pred %p<3>;
    .reg .b32 %r<8>;
    .reg .b64 %d<8>;
    .reg .f32 %f<8>;
    ld.param.u64 %d1, [total];
    ld.param.u64 %d2, [values];
    ld.param.u32 %r1, [count];
    cvta.to.global.u64 %d3, %d1;
    cvta.to.global.u64 %d4, %d2;
    mov.u32 %r2, %tid.x;
    mov.f32 %f1, 0f3F800000;
    setp.ge.u32 %p1, %r2, %r1;
    @%p1 bra DONE;
NEXT:
    mul.wide.u32 %d5, %r2, 4;
    add.s64 %d6, %d4, %d5;
    ld.global.f32 %f2, [%d6];
    mul.f32 %f3, %f2, %f1;
    add.f32 %f1, %f3, 0f40490FDB;
    st.global.f32 [%d6], %f1;
    add.u32 %r2, %r2, 256;
    setp.lt.u32 %p2, %r2, %r1;
    @%p2 bra NEXT;
DONE:
    red.global.add.f32 [%d3], %f1;
    ret;
}
"""

CUDA = """\
extern "C" __global__ void scale(float* values, const float* factors, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        switch (i & 3) {
            case 0: values[i] = sqrtf(values[i]); break;
            case 1: values[i] /= factors[i]; break;
            default: values[i] = values[i] * factors[i] + 1.0f;
        }
    }
}
"""

# how many threads fit a multiprocessor differs from one architecture to the next
TOLERATED = re.compile(r"Value of (threads per SM|minnctapersm) for entry \w+ is out of range")


@pytest.fixture
def ptxas() -> Path:
    try:
        path = find_tool("ptxas")
    except UnsupportedError:
        pytest.skip(INSTALL)
    if tool_version(path) not in {f"13.{minor}" for minor in range(6)}:
        pytest.skip(INSTALL)
    return path


@pytest.fixture
def nvcc() -> Path:
    try:
        path = find_tool("nvcc")
    except UnsupportedError:
        pytest.skip(INSTALL)
    if shutil.which("g++") is None:
        pytest.skip("nvcc needs a host compiler (g++) on the PATH")
    return path


def candidates(space: Space, count: int, seed: int = 0) -> list[str]:
    rows = space.sample(count, np.random.default_rng(seed))
    return [space.decode(row) for row in rows]


def refused(ptxas: Path, folder: Path, texts: list[str], architecture: str) -> list[tuple[str, str]]:
    """The candidates that ptxas refuses or warns of, with what it says."""
    ptx = folder / "kernel.ptx"
    ptx.write_text(PTX)

    def complaint(number: int) -> str:
        options = save_compiler_config(folder / f"{number}.options", texts[number])
        command = [ptxas, f"--gpu-name={architecture}", "--options-file", options, ptx]
        try:
            result = run_tool([*command, "-o", folder / f"{number}.cubin"], timeout=60)
        except ObjectiveFailure as error:
            return str(error)
        return "\n".join(line for line in result.stderr.splitlines() if not TOLERATED.search(line))

    with ThreadPoolExecutor(2) as pool:
        complaints = list(pool.map(complaint, range(len(texts))))
    return [(text, said) for text, said in zip(texts, complaints, strict=True) if said]


@pytest.mark.parametrize("variant", ["default", "full", "registers"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_ptxas_takes_every_candidate_without_a_word(
    ptxas: Path, tmp_path: Path, variant: str, architecture: str
) -> None:
    space, _ = load_provider(PtxasSearchSpace(tool_version(ptxas), variant))
    texts = candidates(space, 60)
    assert len(set(texts)) > 30
    assert refused(ptxas, tmp_path, texts, architecture) == []


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "full", "registers"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "sm_110", "sm_121"])
def test_ptxas_takes_hundreds_of_candidates(
    ptxas: Path, tmp_path: Path, variant: str, architecture: str
) -> None:
    space, _ = load_provider(PtxasSearchSpace(tool_version(ptxas), variant))
    assert refused(ptxas, tmp_path, candidates(space, 300, seed=1), architecture) == []


def test_the_check_above_would_notice(ptxas: Path, tmp_path: Path) -> None:
    texts = [
        "--opt-level=1\n--Ofast-compile=max\n",
        "--def-load-cache=cg\n--force-load-cache=cs\n",
        "--none\n",
    ]
    complaints = [said for _, said in refused(ptxas, tmp_path, texts, "sm_90")]
    assert len(complaints) == 3
    assert "Conflicting options" in complaints[0]
    assert "Conflicting options" in complaints[1]
    assert "Unknown option" in complaints[2]


@pytest.mark.parametrize("variant", ["default", "full"])
def test_a_file_has_the_effect_of_the_command_line(ptxas: Path, tmp_path: Path, variant: str) -> None:
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text(PTX)
    space, _ = load_provider(PtxasSearchSpace(tool_version(ptxas), variant))
    effects = set()
    for text in ["", *candidates(space, 25, seed=2)]:
        options = save_compiler_config(tmp_path / "options", text)
        results = []
        for way, output in (
            (["--options-file", str(options)], "file.cubin"),
            (text.split("\n")[:-1], "line.cubin"),
        ):
            command = [ptxas, "--gpu-name=sm_90", "--verbose", *way, ptx, "-o", tmp_path / output]
            report = ptxas_report(run_tool(command, timeout=60).stderr)
            results.append((report, (tmp_path / output).read_bytes()))
        assert results[0] == results[1], text
        effects.add(results[0][1])
    assert len(effects) > 10


def test_launch_bounds_are_overridden(ptxas: Path, tmp_path: Path) -> None:
    kernel = Path(__file__).parents[3] / "examples" / "kernels" / "spectrum.sm_90.ptx"
    space, _ = load_provider(PtxasSearchSpace("13.3", "registers"))

    def registers(text: str) -> int:
        options = save_compiler_config(tmp_path / "options", text)
        command = [ptxas, "--gpu-name=sm_90", "-v", "--options-file", options, kernel]
        result = run_tool([*command, "-o", tmp_path / "cubin"], timeout=60)
        return ptxas_report(result.stderr)["spectrum"].registers

    limit = "--override-directive-values\n--{}={}\n"
    texts = [
        limit.format("maxrregcount", 40),
        limit.format("minnctapersm", 1),
        limit.format("minnctapersm", 4),
    ]
    assert [space.decode(space.encode(text)) for text in texts] == texts
    assert [registers(text) for text in ["", *texts]] == [64, 40, 128, 32]


def test_every_variant_tells_its_candidates_apart() -> None:
    for provider in (PtxasSearchSpace, NvccSearchSpace):
        space, _ = load_provider(provider(variant="full"))
        rows = space.sample(500, np.random.default_rng(3))
        texts = [space.decode(row) for row in rows]
        again = np.array([space.encode(text) for text in texts])
        assert [space.decode(row) for row in again] == texts
        assert space.keys(again).tolist() == space.keys(rows).tolist()


@pytest.mark.parametrize("variant", ["default", "full"])
def test_nvcc_takes_candidates(nvcc: Path, tmp_path: Path, variant: str) -> None:
    source = tmp_path / "kernel.cu"
    source.write_text(CUDA)
    space, _ = load_provider(NvccSearchSpace(variant=variant))
    cubins = set()
    for text in candidates(space, 6, seed=4):
        options = save_compiler_config(tmp_path / "options", text)
        command = [nvcc, "-arch=sm_90", "-cubin", "--options-file", options, source]
        result = run_tool([*command, "-o", tmp_path / "cubin"], timeout=60)
        said = [line for line in result.stderr.splitlines() if line and not TOLERATED.search(line)]
        assert said == [], text
        cubins.add((tmp_path / "cubin").read_bytes())
    assert len(cubins) > 1


def test_ptxas_opens_the_control_file_it_is_given(ptxas: Path, tmp_path: Path) -> None:
    if tool_version(ptxas) == "13.0":
        pytest.skip("--apply-controls came with 13.3")
    (tmp_path / "a folder").mkdir()
    controls = tmp_path / "a folder" / "made up.bin"
    controls.write_bytes(b"no control file")
    space = apply_controls_space([controls])
    assert space.rows is not None
    texts = [space.decode(row) for row in space.rows]
    complaints = refused(ptxas, tmp_path, texts, "sm_90")
    assert [text for text, _ in complaints] == [text for text in texts if text]
    assert "Invalid compiler controls file" in complaints[0][1]
