"""``ciq runs``, ``show``, ``best`` and ``rerun``."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ciq_ray.cli.formats import as_environment, as_flags
from ciq_ray.errors import ConfigurationError

HARD = "two words; $HOME 'quoted' \"d\" `x` ü"


@pytest.fixture
def tuned(ciq, space):
    """Run 1: a candidate with a value that needs quoting is best; x = 3 fails."""
    file = space(
        {
            "x": {"type": "range", "start": 1, "end": 3},
            "text": {"type": "literal", "value": HARD},
            "deep": {"flag": {"type": "boolean"}},
        },
        {"x": 2, "text": HARD, "deep": {"flag": False}},
    )
    script = 'echo "log of $0" >&2; test "$0" != 3 && echo "$0"'
    ciq("tune", file, "--seed", 1, "--", "sh", "-c", script, "{x}", "{text}", "{deep.flag}")


def test_runs(ciq, tuned, runs):
    (runs / "2").mkdir()
    (runs / "2" / "journal.jsonl").write_text("junk\n")
    text = ciq("runs").stdout
    assert re.search(r"^1 .* ended +6 +1 ", text, re.MULTILINE)
    assert re.search(r"^2 .*unreadable", text, re.MULTILINE)
    data = json.loads(ciq("runs", "--json").stdout)
    assert [(Path(run["run"]).name, run["state"]) for run in data["runs"]] == [
        ("1", "ended"),
        ("2", "unreadable"),
    ]


def test_no_runs(ciq):
    assert "no runs in" in ciq("runs").stdout
    assert json.loads(ciq("runs", "--json").stdout)["runs"] == []


class TestShow:
    def test_a_run(self, ciq, tuned):
        text = ciq("show", 1).stdout
        for what in ("ended (finished)", "4 ok, 2 run_error", "genetic, seed 1", "min:last", "{text}"):
            assert what in text
        assert "the command exited with status 1" in text

    def test_json(self, ciq, tuned):
        data = json.loads(ciq("show", 1, "--json").stdout)
        assert data["evaluations"] == 6
        assert data["statuses"] == {"ok": 4, "run_error": 2}
        assert data["best"][0]["values"] == [1.0]

    def test_a_candidate(self, ciq, tuned):
        data = json.loads(ciq("show", 1, 0, "--json").stdout)
        assert data["config"] == {"x": 2, "text": HARD, "deep": {"flag": False}}
        assert data["argv"]["command"][3:] == ["2", HARD, "false"]
        text = ciq("show", 1, 0).stdout
        assert f"{shlex.quote(HARD)} false" in text

    def test_a_failed_candidate_with_what_it_printed(self, ciq, tuned):
        shown = json.loads(ciq("show", 1, "--json").stdout)
        ids = [str(i) for i in range(shown["evaluations"])]
        failed = next(
            i for i in ids if json.loads(ciq("show", 1, i, "--json").stdout)["status"] == "run_error"
        )
        assert "log of 3" in ciq("show", 1, failed).stdout

    def test_unknown_ones(self, ciq, tuned):
        assert "no candidate '99'; there are 0 to 5" in ciq("show", 1, 99, code=2).stderr
        assert "there is no run '7'" in ciq("show", 7, code=3).stderr

    def test_of_a_python_objective(self, ciq, tmp_path):
        (tmp_path / "script.py").write_text(SCRIPT)
        subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True)
        text = ciq("show", 1).stdout
        assert "objective (script.py)" in text
        assert "command" not in text
        assert "Python function" in ciq("best", 1, "--format", "command", code=2).stderr
        run = ciq("rerun", 1, 0)
        assert run.stdout.startswith("printed by 0\n")
        assert "candidate 0: 0  (in the run: 0)" in run.stdout.replace(" (in", "  (in")
        assert (tmp_path / "runs" / "1" / "reruns" / "0-1.log").read_text() == "printed by 0\n"
        assert "for commands with a build" in ciq("rerun", 1, 0, "--keep", code=2).stderr


SCRIPT = """
from ciq_ray import Search, SearchConfiguration
from searchers import Range

def objective(config):
    print("printed by", config["x"])
    return config["x"]

if __name__ == "__main__":
    Search(objective_function=objective, search_space={"x": Range(0, 5)}, initial_configs=[{"x": 0}],
           search_config=SearchConfiguration(generations=1)).start(num_workers=1)
"""


class TestBest:
    def test_json(self, ciq, tuned):
        assert json.loads(ciq("best", 1).stdout)["x"] == 1
        assert json.loads(ciq("best", 1, "--id", 0).stdout)["x"] == 2
        data = json.loads(ciq("best", 1, "--json", "--format", "flags").stdout)
        assert data["configs"][0]["text"] == HARD
        assert shlex.split(data["text"][0])[:2] == ["--x", "1"]

    @pytest.mark.parametrize("shell", ["sh", "bash"])
    def test_a_shell_reads_it_back(self, ciq, tuned, shell):
        flags = ciq("best", 1, "--format", "flags").stdout
        script = f"printf '%s\\0' {flags}"
        words = subprocess.run([shell, "-c", script], capture_output=True, text=True).stdout.split("\0")
        assert words[:4] == ["--x", "1", "--text", HARD]
        assert words[4] == "--deep.flag"
        variables = ciq("best", 1, "--format", "env").stdout
        script = f'{variables}\nprintf "%s|" "$x" "$text" "$deep_flag"'
        printed = subprocess.run([shell, "-c", script], capture_output=True, text=True).stdout
        assert printed in (f"1|{HARD}|false|", f"1|{HARD}|true|")

    def test_the_command_itself(self, ciq, tuned):
        command = ciq("best", 1, "--format", "command").stdout
        run = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert (run.stdout, run.stderr) == ("1\n", "log of 1\n")

    def test_the_command_with_its_variables(self, ciq, space, monkeypatch):
        monkeypatch.setenv("GONE", "1")
        file = space(
            {
                "x": {"type": "choice", "choices": ["a b", "c"]},
                "y": {"type": "literal", "value": "v", "knockout_prob": 1.0},
            }
        )
        script = "echo ${{GONE-unset}} $X ${{#X}}"
        ciq("tune", file, "--env", "X={x}", "--env", "GONE={y}", "--", "sh", "-c", script, "{*y}")
        entry = next(
            found
            for i in range(4)
            for found in [json.loads(ciq("show", 1, i, "--json").stdout)]
            if found["config"] == {"x": "a b"}
        )
        assert entry["env"] == {"X": "a b", "GONE": None}
        assert entry["values"] == [3.0]
        command = ciq("best", 1, "--format", "command", "--id", entry["id"]).stdout
        run = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert run.stdout == "unset a b 3\n"
        assert "env -u GONE 'X=a b' sh -c" in ciq("show", 1, entry["id"]).stdout

    def test_a_front_needs_a_choice_for_some_forms(self, ciq, space):
        ciq("tune", space(), "--score", "last", "--score", "max:last", "--", "echo", "{x}", "{x}")
        assert len(ciq("best", 1).stdout.splitlines()) == 31
        assert "--id" in ciq("best", 1, "--format", "env", code=2).stderr
        assert ciq("best", 1, "--format", "env", "--id", 0).stdout == "x=20\n"

    def test_nothing_has_passed(self, ciq, space):
        ciq("tune", space(), "--keep-going", "--max-evaluations", 3, "--", "false", "{x}", code=1)
        assert "no evaluation has passed" in ciq("best", 1, code=1).stderr


class TestFormats:
    def test_texts_stay(self):
        assert as_flags("-O2\n-g\n") == "-O2\n-g\n"
        assert as_environment("-O2\n") == "CONFIG='-O2\n'"

    def test_parts(self):
        config = [{"a": 1, "b": {"c": "x y"}}, "-O2\n-g\n"]
        assert as_flags(config) == "--a 1 --b.c 'x y' -O2 -g"
        assert as_environment(config) == "PART0_a=1\nPART0_b_c='x y'\nPART1='-O2\n-g\n'"

    def test_names_a_shell_does_not_know(self):
        assert as_environment({"-O level": 3, "2x": 1}) == "_O_level=3\n_2x=1"
        with pytest.raises(ConfigurationError, match="called a_b"):
            as_environment({"a-b": 1, "a.b": 2})


class TestRerun:
    def test_shows_and_keeps_all_output(self, ciq, tuned, runs):
        run = ciq("rerun", 1, 0)
        assert "[run] sh -c" in run.stdout
        assert "log of 2\n" in run.stdout
        assert "candidate 0: 2 (in the run: 2)" in run.stdout
        log = runs / "1" / "reruns" / "0-1.log"
        assert sorted(log.read_text().splitlines()[1:]) == ["2", "log of 2"]
        data = json.loads(ciq("rerun", 1, 0, "--json").stdout)
        assert (data["status"], data["values"], data["before"]["values"]) == ("ok", [2.0], [2.0])
        assert data["log"].endswith("0-2.log")
        assert json.loads(ciq("show", 1, "--json").stdout)["measurements"] == 6  # the run is as it was

    def test_a_failure_is_its_exit_status(self, ciq, space):
        ciq("tune", space(), "--keep-going", "--max-evaluations", 2, "--", "false", "{x}", code=1)
        run = ciq("rerun", 1, 0, code=1)
        assert (
            "candidate 0: run_error: the command exited with status 1 (in the run: run_error)" in run.stdout
        )

    def test_the_working_copy_can_be_kept(self, ciq, space, temporary):
        ciq(
            *("tune", space(), "--max-evaluations", 1, "--build", "sh -c 'echo {x} > made'"),
            *("--", "cat", "made"),
        )
        assert list(temporary.iterdir()) == []
        run = ciq("rerun", 1, 0, "--keep")
        kept = re.search(r"its working copy: (.*)", run.stdout)
        assert kept is not None
        assert (Path(kept[1]) / "made").read_text() == "20\n"


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
