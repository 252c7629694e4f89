"""The example without Python: what its page says is typed, literally, and what it says came of it is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "command_line"


def blocks(language: str) -> list[str]:
    text = (FOLDER / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def typed(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of it in `folder`, with `ciq` on PATH."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CIQ_", "LC_", "LANG"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["CIQ_CACHE_DIR"] = str(folder.parent / "cache")
    run = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        env=environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def test_from_an_empty_folder_to_a_verdict_in_under_ten_lines(tmp_path: Path) -> None:
    script = blocks("sh")[0]
    assert len(script.splitlines()) < 10
    folder = tmp_path / "empty"
    folder.mkdir()
    run = typed(script, folder)
    lines = run.stdout.splitlines()
    assert lines[0] == "14 evaluations, 0 failed; ended: finished"
    verdict = next(line for line in lines if line.startswith("verdict: "))
    # 512 bytes at a time is so slow that no noise hides it
    assert "beats the baseline" in verdict
    chosen = json.loads(next(line for line in lines if line.startswith("use: "))[5:])
    assert lines[-1] == f"dd if=data of=/dev/null bs={chosen['BLOCK']}"
    assert chosen["BLOCK"] > 512
    # the lines that are shown have the form of those that came
    shown = blocks("text")[0].splitlines()
    assert [re.sub(r"[\d.]+", "0", line) for line in shown] == [
        re.sub(r"[\d.]+", "0", line) for line in lines
    ]


@pytest.mark.slow
def test_the_benchmark_that_checks_itself(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(FOLDER, folder)
    run = typed(blocks("sh")[1], folder)
    assert "152 configurations\nat most 152 evaluations, 1 at a time" in run.stdout
    default = "./bench.sh numbers.txt --buffer-size=1024K --parallel=1"
    assert f"    command: env LC_ALL=C.UTF-8 {default}\n" in run.stdout
    assert "40 evaluations, 0 failed; ended: max_evaluations" in run.stdout
    assert "candidate 0: " in run.stdout
    assert re.search(r"^verdict: .*(beats|No significant|is worse)", run.stdout, re.MULTILINE)
    assert re.search(r"^LOCALE=C(.UTF-8)?\nBUFFER=\d+\nTHREADS=\d", run.stdout, re.MULTILINE)
    assert re.search(r"^env LC_ALL=C(.UTF-8)? ./bench.sh numbers.txt", run.stdout, re.MULTILINE)
    log = (folder / "ciq_runs" / "1" / "reruns" / "0-1.log").read_text()
    assert log.startswith(f"[run] {default}\n")
    assert json.loads(log.splitlines()[-1])["lines"] == 50_000


def test_the_benchmark_finds_a_wrong_order(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sort").write_text(
        '#!/bin/sh\ncase $1 in --check*) exec /usr/bin/sort "$@";; esac\ncat "$2"\n'
    )
    (tmp_path / "bin" / "sort").chmod(0o755)
    (tmp_path / "numbers").write_text("2\n1\n")
    run = subprocess.run(
        [FOLDER / "bench.sh", "numbers"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
    )
    assert run.returncode == 3
