from pathlib import Path

import pytest

from ciq_ray.compilers import find_tool
from ciq_ray.errors import ConfigurationError, ObjectiveFailure, UnsupportedError
from ciq_ray.kernels import CompileStage, Output, PtxKernel, Target, Tensor
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from searchers import Choice

PTX = Path(__file__).parents[3] / "examples" / "kernels" / "spectrum.sm_90.ptx"
H100 = Target(90, "H100", max_shared=232448, max_threads=1024, max_registers=65536)


@pytest.fixture(autouse=True)
def _ptxas():
    try:
        find_tool("ptxas")
    except UnsupportedError as error:
        pytest.skip(str(error))


def kernel(**options):
    given = {
        "source": PTX,
        "name": "spectrum",
        "arguments": {"x": Tensor(1 << 16), "out": Output(1 << 16)},
        "grid": 128,
        "block": 512,
        "space": PtxasSearchSpace(),
        "reference": lambda a: a["x"],
        **options,
    }
    return PtxKernel(given.pop("source"), given.pop("name"), **given)


def test_options_from_a_compilers_space_are_passed_as_a_text():
    none = kernel().compile("", H100)
    assert none.resources.registers == 64
    assert none.resources.spill_stores > 0
    some = kernel().compile("--opt-level=1\n", H100)
    assert some.digest != none.digest
    assert kernel().shown("--opt-level=1\n--dont-merge-basicblocks\n", "flags") == (
        "--opt-level=1 --dont-merge-basicblocks"
    )


def test_members_of_the_space_assemble():
    import numpy as np

    tuned = kernel()
    stage = CompileStage(tuned, H100)
    rows = tuned.space.sample(3, np.random.default_rng(1))
    statuses = {stage(tuned.space.decode(row)).outcome.status for row in rows}
    assert statuses <= {"ok", "resource_exceeded", "compile_error"}
    assert "ok" in statuses


def test_any_space_may_be_made_options_of():
    limited = kernel(
        space={"registers": Choice([32, 64])},
        options=lambda config: [f"--maxrregcount={config['registers']}"],
        block=256,
    )
    few, more = (limited.compile({"registers": registers}, H100) for registers in (32, 64))
    assert few.resources.registers <= 64
    assert limited.shown({"registers": 32}, "flags") == "--maxrregcount=32"
    assert few.meta["launches"][""]["block"] == [256, 1, 1]
    assert more.binary
    limited.options = lambda config: f"--maxrregcount={config['registers']} --opt-level=1"
    assert limited.option_text({"registers": 32}) == "--maxrregcount=32\n--opt-level=1\n"
    with pytest.raises(ConfigurationError, match="`options`"):
        kernel().compile({"registers": 32}, H100)


def test_what_ptxas_refuses_is_a_compile_error():
    with pytest.raises(ObjectiveFailure, match="no-such-option") as caught:
        kernel().compile("--no-such-option\n", H100)
    assert caught.value.status == "compile_error"
    with pytest.raises(ObjectiveFailure, match="no kernel 'spectra'"):
        kernel(name="spectra").compile("", H100)


def test_too_many_registers_for_a_block_are_refused_before_a_device_is_taken():
    small = Target(90, "a small GPU", max_registers=1 << 14)
    outcome = CompileStage(kernel(), small)("").outcome
    assert outcome.status == "resource_exceeded"
    assert "512 threads with 64 registers" in outcome.message


def test_keep_leaves_options_and_sass():
    files = kernel().compile("--opt-level=2\n", H100, keep=True).files
    assert files["options.txt"] == b"--opt-level=2\n"
    assert b"EXIT" in files["kernel.sass"]


def test_what_is_no_ptx_is_refused(tmp_path):
    (tmp_path / "kernel.ptx").write_text("int main() {}\n")
    with pytest.raises(ConfigurationError, match=r"`\.target"):
        kernel(source=tmp_path / "kernel.ptx")
