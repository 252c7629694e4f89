"""The command ``ciq``: what it prints, and its exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ciq_ray import __version__, doctor
from ciq_ray.journal import read_records

SCRIPT = """
import sys, time
from pathlib import Path
from ciq_ray import Search, SearchConfiguration
from searchers import Range

def objective(config):
    with open(Path(__file__).parent / "calls", "a") as file:
        file.write(f"{config['x']}\\n")
    if (Path(__file__).parent / "slow").exists():
        time.sleep(0.3)
    if (Path(__file__).parent / "broken").exists():
        raise RuntimeError("the kernel is gone")
    return abs(config["x"] - 40)

if __name__ == "__main__":
    Search(
        objective_function=objective,
        search_space={"x": Range(0, 99)},
        search_config=SearchConfiguration(generations=4, pool_size=10),
        max_evaluations=int(sys.argv[1]),
        seed=1,
    ).start(num_workers=1)
else:
    print("imported")
"""


def ciq(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ciq_ray", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a script whose run, number 1, has ended after 10 evaluations."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "script.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "script.py", "10"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CIQ_RUNS_DIR": str(folder / "runs")},
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def begun(original, tmp_path):
    """A copy of it, whose journal names the copy of the script."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    journal = tmp_path / "runs" / "1" / "journal.jsonl"
    journal.write_text(journal.read_text().replace(str(original), str(tmp_path)))
    return tmp_path


def calls(folder):
    return (folder / "calls").read_text().split()


class TestResume:
    def test_goes_on_and_prints_the_best_result(self, begun):
        run = ciq("resume", "1", "--max-evaluations", 25, cwd=begun)
        assert run.returncode == 0, run.stderr
        assert "25 evaluations, 0 failed; ended: max_evaluations" in run.stdout
        assert len(calls(begun)) == len(set(calls(begun))) == 25
        best = min(calls(begun), key=lambda x: abs(int(x) - 40))
        assert f"best: score {abs(int(best) - 40)}\n" in run.stdout
        assert f'{{"x": {best}}}' in run.stdout
        assert "goes on from 10 evaluations" in run.stderr

    def test_json_is_the_only_output(self, begun):
        run = ciq("resume", begun / "runs" / "1", "--max-evaluations", 12, "--json", cwd=begun)
        assert run.returncode == 0, run.stderr
        summary = json.loads(run.stdout)
        assert summary["evaluations"] == 12
        assert summary["failed"] == 0
        assert summary["reason"] == "max_evaluations"
        assert summary["best"][0]["score"] == min(abs(int(x) - 40) for x in calls(begun))
        assert Path(summary["results"]).is_file()
        assert "imported" in run.stderr

    def test_a_changed_script_is_refused_unless_forced(self, begun):
        with (begun / "script.py").open("a") as file:
            file.write("# changed\n")
        refused = ciq("resume", "1", "--max-evaluations", 12, cwd=begun)
        assert refused.returncode == 3
        assert refused.stderr.startswith("error: ")
        assert "has changed" in refused.stderr
        assert "Traceback" not in refused.stderr
        forced = ciq("resume", "1", "--max-evaluations", 12, "--force", cwd=begun)
        assert forced.returncode == 0, forced.stderr
        assert len(calls(begun)) == 12

    def test_options_reach_the_search(self, begun):
        (begun / "slow").touch()
        run = ciq(
            "resume", "1", "--max-evaluations", 13, "--task-timeout", 0.1, "--num-workers", 2, cwd=begun
        )
        assert run.returncode == 0, run.stderr
        records = [r for r in read_records(begun / "runs" / "1") if r["t"] == "outcome"]
        late = records[10:]
        assert {record["outcome"]["status"] for record in late} == {"run_timeout"}
        assert len({record["worker"] for record in late}) == 2
        assert "13 evaluations, 3 failed" in run.stdout

    def test_no_such_run(self, tmp_path):
        run = ciq("resume", "7", cwd=tmp_path)
        assert run.returncode == 3
        assert run.stderr.count("\n") == 1
        assert "there is no run '7'" in run.stderr

    def test_a_journal_that_cannot_be_read(self, begun):
        journal = begun / "runs" / "1" / "journal.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        lines[2] = b"{torn\n"
        journal.write_bytes(b"".join(lines))
        run = ciq("resume", journal, cwd=begun)
        assert run.returncode == 3
        assert "line 3" in run.stderr
        assert "Traceback" not in run.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ["resume"],
            ["resume", "1", "--num-workers", "0"],
            ["resume", "1", "--task-timeout", "-1"],
            ["resume", "1", "--workers", "2"],
            ["retry", "1"],
        ],
    )
    def test_wrong_usage(self, begun, arguments):
        run = ciq(*arguments, cwd=begun)
        assert run.returncode == 2, run.stdout + run.stderr
        assert "Traceback" not in run.stderr
        assert len(calls(begun)) == 10

    def test_ctrl_c_ends_it_in_good_order(self, begun):
        (begun / "slow").touch()
        process = subprocess.Popen(
            [sys.executable, "-m", "ciq_ray", "resume", "1", "--max-evaluations", "40"],
            cwd=begun,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(calls(begun)) < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "ended: stopped" in stdout
        assert "go on with: ciq resume" in stderr
        done = len(calls(begun))
        assert 12 <= done < 40
        (begun / "slow").unlink()
        again = ciq("resume", "1", "--max-evaluations", done + 5, "--json", cwd=begun)
        assert json.loads(again.stdout)["evaluations"] == done + 5
        assert len(set(calls(begun))) == len(calls(begun)) == done + 5

    def test_a_search_that_fails(self, tmp_path):
        (tmp_path / "script.py").write_text(SCRIPT)
        (tmp_path / "broken").touch()
        subprocess.run(
            [sys.executable, "script.py", "4"], cwd=tmp_path, capture_output=True, timeout=120, check=False
        )
        run = ciq("resume", "1", "--max-evaluations", 10, cwd=tmp_path)
        assert run.returncode == 1
        assert "all 10 candidates of the first generation failed" in run.stderr
        assert "the kernel is gone" in run.stderr
        # what the objective raised is quoted, but there is no traceback of ours
        assert "session.py" not in run.stderr


class TestDoctor:
    def test_says_what_there_is(self, tmp_path):
        run = ciq("doctor", cwd=tmp_path)
        assert run.returncode == 0, run.stdout + run.stderr
        for word in (__version__, sys.executable, "ray ", "processors", "memory", "ptxas", "fsync"):
            assert word in run.stdout
        assert list(tmp_path.iterdir()) == []

    def test_json(self, tmp_path):
        report = json.loads(ciq("doctor", "--json", cwd=tmp_path).stdout)
        assert report["ready"] is True
        found = {finding["name"]: finding for finding in report["findings"]}
        assert found["Python"]["state"] == "ok"
        assert found["runs"]["value"].startswith(str(tmp_path / "runs"))
        for finding in report["findings"]:
            assert set(finding) == {"name", "state", "value", "advice"}
            assert finding["state"] in (doctor.OK, doctor.WARNING, doctor.ABSENT, doctor.MISSING)
            assert finding["advice"] or finding["state"] in (doctor.OK, doctor.ABSENT)

    def test_runs_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        run = ciq("doctor", cwd=tmp_path, CIQ_RUNS_DIR=str(tmp_path / "file"))
        assert run.returncode == 1
        assert "missing  runs" in run.stdout
        assert "set CIQ_RUNS_DIR" in run.stdout

    def test_no_compilers(self, tmp_path):
        """Without the packages of the extra (no site folder) and with nothing on PATH."""
        code = (
            "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [sys.argv[1]]\n"
            "from ciq_ray import doctor\n"
            "for finding in doctor._compilers(): print(finding.name, finding.state, finding.advice)"
        )
        root = Path(__file__).resolve().parents[2]
        run = subprocess.run(
            [sys.executable, "-S", "-c", code, str(root)],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": str(tmp_path)},
        )
        assert run.returncode == 0, run.stderr
        assert "ptxas absent pip install 'ciq-ray[ptxas]'" in run.stdout
        assert "gcc absent" in run.stdout

    def test_a_slow_disk_and_a_package_that_is_gone_are_named(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path))
        monkeypatch.setattr(doctor, "_SLOW_FSYNC_S", 0.0)
        monkeypatch.setattr(
            doctor.importlib.metadata, "requires", lambda name: ["numpy>=1", "no-such-package>=2; extra_no"]
        )
        found = {finding.name: finding for finding in doctor.examine()}
        assert found["fsync"].state == doctor.WARNING
        assert "local disk" in found["fsync"].advice
        assert found["no-such-package>=2"].state == doctor.MISSING
        assert found["no-such-package>=2"].advice == "pip install 'no-such-package>=2'"


def test_version(tmp_path):
    run = ciq("--version", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (0, f"ciq-ray {__version__}\n")


def test_help_names_the_commands_and_the_exit_status(tmp_path):
    run = ciq("--help", cwd=tmp_path)
    assert run.returncode == 0
    for word in ("resume", "doctor", "--version", "130 interrupted"):
        assert word in run.stdout
    options = ciq("resume", "--help", cwd=tmp_path).stdout
    for word in ("--force", "--num-workers", "--task-timeout", "--max-evaluations", "--json", "CIQ_RUNS_DIR"):
        assert word in options


def test_help_loads_nothing_heavy(tmp_path):
    # typer itself may load pydantic
    code = (
        "import sys\n"
        "from ciq_ray.cli import app\n"
        "try:\n    app(['resume', '--help'], prog_name='ciq')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'ray', 'pandas', 'pymoo', 'numpy', 'tqdm', 'loguru'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.endswith("HEAVY []\n"), run.stdout + run.stderr


def test_the_console_script_is_the_same_command():
    script = Path(sys.executable).with_name("ciq")
    run = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert run.stdout == f"ciq-ray {__version__}\n"
