"""The example that tunes GCC: its objective, its kernels, and a short run as a user runs it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ciq_ray.compilers import run_tool
from ciq_ray.errors import ObjectiveFailure

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "gcc_flags.py"


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builds")


@pytest.fixture
def example(builds: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc: apt install gcc")
    monkeypatch.delenv("CC", raising=False)
    spec = importlib.util.spec_from_file_location("gcc_flags", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.BUILDS = builds
    return module


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    keep = {name: value for name, value in os.environ.items() if name not in ("CC", "CIQ_RUNS_DIR")}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=folder,
        env={**keep, "CIQ_CACHE_DIR": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_objective_is_the_geometric_mean_of_the_seconds(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert example.geometric_mean_s("-O3\n") < 0.8 * example.geometric_mean_s("-O0\n")
    times = dict(zip(example.KERNELS, (1.0, 2.0, 4.0, 8.0), strict=True))
    monkeypatch.setattr(example, "seconds", lambda program, kernel: times[kernel])
    assert example.geometric_mean_s("-O3\n") == pytest.approx(64**0.25)


def test_options_that_change_results_are_wrong(example: ModuleType) -> None:
    with pytest.raises(ObjectiveFailure, match="computes something else than with -O0") as caught:
        example.geometric_mean_s("-O3\n-ffast-math\n-fsingle-precision-constant\n")
    assert caught.value.status == "wrong"
    example.geometric_mean_s("-O3\n-ffp-contract=off\n-march=native\n")


def test_options_that_do_not_compile(example: ModuleType, builds: Path) -> None:
    before = set(builds.iterdir())
    with pytest.raises(ObjectiveFailure, match="no-such-thing") as caught:
        example.geometric_mean_s("-O3\n-fno-such-thing\n")
    assert caught.value.status == "compile_error"
    assert set(builds.iterdir()) == before, "a failed build left something behind"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exec sleep 60", "run_timeout"), ("kill -SEGV $$", "run_error"), ("exit 3", "run_error")],
)
def test_programs_that_fail(
    example: ModuleType, script: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(example, "RUN_TIMEOUT_S", 0.5 if status == "run_timeout" else 20)
    with pytest.raises(ObjectiveFailure) as caught:
        example.seconds(program, "stencil")
    assert caught.value.status == status


def test_a_result_that_changes_later_is_noticed(example: ModuleType, tmp_path: Path) -> None:
    right = example.reference("stencil")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho checksum {right}\necho seconds 1e-3\necho checksum 0\n")
    program.chmod(0o755)
    with pytest.raises(ObjectiveFailure, match="computes something else") as caught:
        example.seconds(program, "stencil")
    assert caught.value.status == "wrong"


def test_a_build_is_used_again(example: ModuleType) -> None:
    folder = example.build("-O1\n")
    made = (folder / "stencil").stat().st_mtime_ns
    assert example.build("-O1\n") == folder
    assert (folder / "stencil").stat().st_mtime_ns == made
    assert example.build("-O1\n-fweb\n") != folder


def test_only_options_that_matter_are_kept(example: ModuleType) -> None:
    assert example.essential("-O2\n-fjump-tables\n-fgcse\n") == "-O2\n"
    kept = "-O2\n-ffp-contract=off\n-funroll-loops\n"
    assert example.essential(kept) == kept


@pytest.mark.parametrize("kernel", ["stencil", "matmul", "parser", "words"])
def test_a_kernel_times_itself(example: ModuleType, kernel: str, tmp_path: Path) -> None:
    program = tmp_path / kernel
    warnings = ["-Wall", "-Wextra", "-Werror", "-std=c11", "-fsanitize=undefined,address"]
    source = EXAMPLES / "kernels" / f"{kernel}.c"
    run_tool(["gcc", *warnings, "-fno-sanitize-recover", source, "-o", program], timeout=60)
    plain = run_tool([program, "0", "1"], timeout=30).stdout
    assert re.fullmatch(r"checksum [0-9a-f]{16}\n", plain)
    program = example.build("-O2\n") / kernel
    lines = run_tool([program, "3", "2"], timeout=30).stdout.splitlines()
    assert lines[0] == lines[-1] == plain.strip()
    times = [float(line.removeprefix("seconds ")) for line in lines[1:-1]]
    assert len(times) == 3
    assert all(1e-7 < time < 1e-2 for time in times)
    assert run_tool([program], timeout=30, check=False).returncode == 2


@pytest.mark.slow
def test_a_short_run_ends_with_verdicts_and_a_file(example: ModuleType, tmp_path: Path) -> None:
    done = start(tmp_path, "--quick", "--seed", "3", "--output", "best.options")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"^Winner against -O3: .*(beats|No significant|is worse).* over 6 blocks", done.stdout, re.M
    )
    assert re.search(r"^-O3 against itself: .*over 6 blocks", done.stdout, re.M)
    rows = re.findall(r"^ *(\w+) +([\d.]+) µs +([\d.]+) µs$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(example.KERNELS)
    text = (tmp_path / "best.options").read_text()
    kind = re.search(r"^What to use \((.*)\): (.*)$", done.stdout, re.MULTILINE)
    assert kind is not None
    assert kind[2] == " ".join(text.split())
    assert kind[1] == "win" or text == "-O3\n"
    assert example.geometric_mean_s(text) > 0
    assert list((tmp_path / "cache").glob("gcc_flags/*")) == []


def test_without_a_compiler_it_says_how_to_install_one(tmp_path: Path) -> None:
    for compiler, package in (("gcc", "apt install gcc"), ("clang", "apt install clang")):
        done = start(tmp_path, "--quick", PATH=str(tmp_path), CC=compiler)
        assert done.returncode == 2
        assert package in done.stderr
        assert "Traceback" not in done.stderr


def test_help_needs_no_compiler(tmp_path: Path) -> None:
    done = start(tmp_path, "--help", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
