"""Finding compilers, running them, reading their reports."""

import os
import stat
import time
from pathlib import Path

import pytest

from ciq_ray import compilers
from ciq_ray.compilers import (
    KernelReport,
    find_tool,
    parse_version,
    ptxas_report,
    run_tool,
    tool_version,
)
from ciq_ray.errors import ObjectiveFailure, UnsupportedError

INSTALL = "needs NVIDIA's compilers: pip install 'ciq-ray[ptxas]'"


def fake_tool(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_packages_of_the_extra_come_first_and_know_their_version() -> None:
    try:
        path = find_tool("ptxas")
    except UnsupportedError:
        pytest.skip(INSTALL)
    if "nvidia" not in path.parts:
        pytest.skip(INSTALL)
    assert tool_version(path) == "13.3"


def test_a_toolkit_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "_package_folders", list)
    of_home = fake_tool(tmp_path / "cuda" / "bin", "ptxas", "")
    of_path = fake_tool(tmp_path / "bin", "ptxas", "")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("PATH", str(of_path.parent))
    assert find_tool("ptxas") == of_home
    of_home.chmod(0o644)
    assert find_tool("ptxas") == of_path


def test_a_missing_tool_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "_package_folders", list)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"nvcc was not found.*pip install 'ciq-ray\[ptxas\]'"):
        find_tool("nvcc")
    with pytest.raises(UnsupportedError, match="`name` is 'gcc'; it must be one of ptxas, nvcc"):
        find_tool("gcc")


def test_versions() -> None:
    assert parse_version("Cuda compilation tools, release 13.3, V13.3.73\nBuild x") == "13.3"
    with pytest.raises(ValueError, match="no CUDA release"):
        parse_version("gcc 12")


def test_a_tool_that_does_not_tell_its_version(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="does not tell its version"):
        tool_version(fake_tool(tmp_path, "ptxas", "echo hello"))


def test_output_status_and_time(tmp_path: Path) -> None:
    result = run_tool(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=10, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert 0 < result.seconds < 10
    assert run_tool(["pwd"], timeout=10, cwd=tmp_path).stdout.strip() == str(tmp_path.resolve())


def test_a_failure_says_why() -> None:
    script = "echo one; echo 'ptxas fatal : bad option' >&2; echo two >&2; exit 255"
    with pytest.raises(ObjectiveFailure, match=r"^sh: ptxas fatal : bad option$") as caught:
        run_tool(["sh", "-c", script], timeout=10)
    assert caught.value.status == "compile_error"
    with pytest.raises(ObjectiveFailure, match="sh: killed by SIGKILL"):
        run_tool(["sh", "-c", "kill -9 $$"], timeout=10)
    with pytest.raises(ObjectiveFailure, match="sh: exit status 7"):
        run_tool(["sh", "-c", "exit 7"], timeout=10)
    with pytest.raises(ObjectiveFailure, match="no-such-compiler cannot be started"):
        run_tool(["/no-such-compiler"], timeout=10)


def test_no_shell_sees_the_arguments(tmp_path: Path) -> None:
    assert run_tool(["printf", "%s", "$(touch x); a b"], timeout=10, cwd=tmp_path).stdout == "$(touch x); a b"
    assert not list(tmp_path.iterdir())


def test_output_that_is_not_text_is_no_error() -> None:
    assert run_tool(["printf", r"\377\376ok"], timeout=10).stdout.endswith("ok")


def test_a_timeout_kills_all_that_was_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"trap '' TERM; sleep 60 & echo $! > {pid_file}; wait"
    start = time.monotonic()
    with pytest.raises(ObjectiveFailure, match=r"sh took longer than 0\.5 s") as caught:
        run_tool(["sh", "-c", script], timeout=0.5)
    assert caught.value.status == "compile_timeout"
    assert time.monotonic() - start < 5
    grandchild = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while _runs(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(grandchild)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'two' for 'sm_75'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Compile time = 7.525 ms
ptxas info    : Compiling entry function 'one' for 'sm_75'
ptxas info    : Function properties for _Z6helperfPKf
    40 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Function properties for one
    32 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 32 bytes cumulative stack size, 1024 bytes smem, \
360 bytes cmem[0], 8 bytes cmem[2]
"""


def test_a_report_has_every_function() -> None:
    assert ptxas_report(REPORT) == {
        "two": KernelReport(registers=8, constant=360),
        "_Z6helperfPKf": KernelReport(stack=40, spill_stores=4, spill_loads=8),
        "one": KernelReport(24, 12, 16, stack=32, shared=1024, constant=368, barriers=1),
    }
    assert ptxas_report(REPORT)["one"].spill_bytes == 28
    assert ptxas_report("nothing here\n") == {}


def test_tools_get_no_input() -> None:
    assert run_tool(["cat"], timeout=10).stdout == ""


def test_the_environment_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIQ_TEST_MARK", "here")
    assert "CIQ_TEST_MARK" in os.environ
    assert run_tool(["sh", "-c", "echo $CIQ_TEST_MARK"], timeout=10).stdout == "here\n"
