"""The demo: it runs as a user runs it, and what it says is true."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ciq_ray.compilers import find_tool, run_tool, tool_version
from ciq_ray.errors import ObjectiveFailure, UnsupportedError

EXAMPLES = Path(__file__).parents[2] / "examples"
INSTALL = "needs NVIDIA's compilers: pip install 'ciq-ray[ptxas]'"


@pytest.fixture
def example() -> ModuleType:
    """The example as a module; its PTX is of the version that ptxas 13.3 introduced."""
    try:
        if tool_version(find_tool("ptxas")) not in ("13.3", "13.4", "13.5"):
            pytest.skip(INSTALL)
    except UnsupportedError:
        pytest.skip(INSTALL)
    spec = importlib.util.spec_from_file_location("ptxas_spill", EXAMPLES / "ptxas_spill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_objective_returns_spilled_bytes_and_registers(example: ModuleType) -> None:
    assert example.spill_and_registers("") == (584, 64)
    assert example.spill_and_registers("--opt-level=1\n") == (480, 64)


def test_a_kernel_that_cannot_be_launched_is_a_failure(example: ModuleType) -> None:
    with pytest.raises(ObjectiveFailure, match=r"512 threads with 1[3-9]. registers") as caught:
        example.spill_and_registers("--override-directive-values\n--maxntid=64\n")
    assert caught.value.status == "resource_exceeded"
    with pytest.raises(ObjectiveFailure, match="Unknown option"):
        example.spill_and_registers("--nonsense\n")


@pytest.mark.parametrize(
    ("registers", "blocks"), [(24, 4), (32, 4), (40, 3), (41, 2), (64, 2), (65, 1), (129, 0)]
)
def test_occupancy(example: ModuleType, registers: int, blocks: int) -> None:
    assert example.blocks_per_sm(registers) == blocks


def test_only_the_options_that_matter_are_shown(example: ModuleType) -> None:
    options = "--opt-level=1\n--override-directive-values\n--minnctapersm=2\n--def-load-cache=cg\n"
    assert example.essential(options, (480, 64)) == "--opt-level=1\n"


def test_it_runs_from_any_folder_and_beats_the_default(example: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "ptxas_spill.py", "--generations", "1", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        (name, int(registers), int(spill))
        for name, registers, spill in re.findall(r"^ *(\w+) +(\d+) +\d +(\d+) B  ", done.stdout, re.MULTILINE)
    ]
    assert rows[0] == ("default", 64, 584)
    front = [(registers, spill) for _, registers, spill in rows[1:]]
    assert len(front) >= 3
    assert front == sorted(front)
    assert [spill for _, spill in front] == sorted((spill for _, spill in front), reverse=True)
    assert any(registers <= 64 and spill < 584 for registers, spill in front)

    best = min(spill for registers, spill in front if registers <= 64)
    options = (tmp_path / "out" / "spectrum.options").read_text()
    assert example.spill_and_registers(options)[0] == best
    assert f"Applied again: {best} B spilled" in done.stdout
    assert "ptxas --gpu-name=sm_90 --options-file out/spectrum.options" in done.stdout
    assert (tmp_path / "out" / "spectrum.cubin").read_bytes().startswith(b"\x7fELF")
    assert (tmp_path / "out" / "results.csv").read_text().count("maxrregcount") > 5


def test_help_needs_no_compiler(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "ptxas_spill.py", "--help"]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--generations" in done.stdout


def test_the_ptx_is_what_nvcc_makes_of_the_source(tmp_path: Path) -> None:
    try:
        nvcc = find_tool("nvcc")
    except UnsupportedError:
        pytest.skip(INSTALL)
    if tool_version(nvcc) != "13.3" or shutil.which("g++") is None:
        pytest.skip("needs nvcc 13.3 and a host compiler")
    shutil.copytree(EXAMPLES / "kernels", tmp_path / "kernels")
    made = tmp_path / "kernels" / "spectrum.sm_90.ptx"
    made.unlink()
    run_tool(["env", f"NVCC={nvcc}", tmp_path / "kernels" / "build.sh"], timeout=120)
    assert made.read_text() == (EXAMPLES / "kernels" / "spectrum.sm_90.ptx").read_text()
