"""Commands that hang, fork, flood, die or print garbage; and arguments that need quoting."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ciq_ray.commands import CommandObjective
from ciq_ray.commands.processes import OUTPUT_LIMIT, run_command

HARD_VALUES = [
    "two words",
    " leading and trailing ",
    "'single'",
    'double"quote',
    "$HOME ${HOME} $(id) `id`",
    "a;b & c | d > e < f",
    "new\nline\r\n",
    "tab\t",
    "back\\slash\\",
    "grüße 日本 🚀",
    "--looks-like=an option",
    "*",
    "~",
    "!x",
    "#no comment",
    "{BLOCK} {{}}",
    "%s %n",
    "\x01\x7f",
    "a" * 60_000,
]

PRINT_ARGUMENTS = """
    import os, sys
    with open(sys.argv[1], "wb") as file:
        file.write(b"\\0".join(map(os.fsencode, sys.argv[2:])))
    print(1)
"""


class TestArguments:
    def test_each_value_arrives_byte_for_byte(self, program, tmp_path):
        objective = CommandObjective([program(PRINT_ARGUMENTS), "{FILE}", "{V}", "--v={V}", "{V}{V}"])
        for value in HARD_VALUES:
            outcome = objective({"FILE": str(tmp_path / "out"), "V": value})
            assert outcome.ok, outcome.message
            raw = value.encode()
            assert (tmp_path / "out").read_bytes().split(b"\0") == [raw, b"--v=" + raw, raw + raw]

    def test_also_where_the_locale_knows_only_ascii(self, program, tmp_path, monkeypatch):
        monkeypatch.setenv("LC_ALL", "C")
        monkeypatch.setenv("PYTHONUTF8", "0")
        monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
        objective = CommandObjective([program(PRINT_ARGUMENTS), "{FILE}", "{V}"])
        assert objective({"FILE": str(tmp_path / "out"), "V": "grüße\udcff"}).ok
        assert (tmp_path / "out").read_bytes() == "grüße".encode() + b"\xff"

    def test_of_the_build_and_the_environment_too(self, program, tmp_path):
        show = program("import os, sys; print(sys.argv[1:] == ['a b;$x'], os.environ['X'] == 'é\\n$', 5)")
        objective = CommandObjective(
            [show, "{V}"], build=[show, "{V}"], copy=False, env={"X": "{W}"}, fail_pattern="False"
        )
        assert objective({"V": "a b;$x", "W": "é\n$"}).values == (5.0,)

    def test_a_dropped_word_is_not_an_empty_one(self, program, tmp_path):
        objective = CommandObjective([program(PRINT_ARGUMENTS), "{FILE}", "{V}", "end"])
        file = str(tmp_path / "out")
        objective({"FILE": file, "V": ""})
        assert (tmp_path / "out").read_bytes() == b"\0end"
        objective({"FILE": file})
        assert (tmp_path / "out").read_bytes() == b"end"

    def test_no_shell_is_involved(self, tmp_path):
        outcome = CommandObjective(["echo", "$(touch made)", ";", "touch", "made", "7"], directory=tmp_path)(
            {}
        )
        assert outcome.values == (7.0,)
        assert list(tmp_path.glob("made")) == []

    def test_a_value_with_nul_fails_its_candidate(self):
        outcome = CommandObjective(["echo", "{V}"])({"V": "a\0b"})
        assert (outcome.status, "NUL" in outcome.message) == ("run_error", True)

    def test_one_that_is_too_long_for_the_system_fails_its_candidate(self):
        outcome = CommandObjective(["echo", "{V}"])({"V": "a" * (1 << 20)})
        assert outcome.status == "run_error"
        assert outcome.message == "the command cannot be started: Argument list too long: 'echo'"

    def test_the_file_of_the_configuration(self, program):
        objective = CommandObjective(
            [program("import sys; print(open(sys.argv[1], newline='').read(), end='')"), "{CONFIG_FILE}"],
            scores=["x"],
        )
        assert objective({"x": 3, "ü": "\n"}).values == (3.0,)
        last = CommandObjective(objective.to_dict()["command"])
        assert last("-O2\n--n=4\n").values == (4.0,)


class TestHanging:
    def test_a_hang_is_killed_with_all_it_started(self, program, tmp_path, gone):
        hang = program(
            """
            import os, signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "100"], start_new_session=True)
            open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
            print("was here", flush=True)
            time.sleep(100)
            """
        )
        begun = time.monotonic()
        outcome = CommandObjective([hang, str(tmp_path / "pids")], timeout=1.0)({})
        assert time.monotonic() - begun < 3
        assert outcome.status == "run_timeout"
        assert "was stopped after 1" in outcome.message
        assert "was here" in outcome.message
        pids = [int(text) for text in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 2
        assert all(map(gone, pids))

    def test_a_build_that_hangs(self):
        objective = CommandObjective(["echo", "1"], build="sleep 100", copy=False, build_timeout=0.2)
        begun = time.monotonic()
        outcome = objective({})
        assert time.monotonic() - begun < 2
        assert outcome.status == "compile_timeout"
        assert outcome.message.startswith("the build was stopped")
        assert outcome.compile_s == pytest.approx(0.2, abs=0.2)

    def test_one_that_closes_its_output_and_goes_on(self):
        outcome = CommandObjective(["sh", "-c", "echo 1; exec >&- 2>&-; sleep 0.3"], scores=["wall", "last"])(
            {}
        )
        assert outcome.ok
        assert 0.3 <= outcome.values[0] < 5


class TestForking:
    def test_a_daemon_left_behind_neither_hangs_nor_survives(self, program, tmp_path, gone):
        daemon = program(
            """
            import os, sys, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    open(sys.argv[1], "w").write(str(os.getpid()))
                    time.sleep(100)
                os._exit(0)
            os.wait()
            while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()):
                time.sleep(0.01)
            print(4.5)
            """
        )
        begun = time.monotonic()
        outcome = CommandObjective([daemon, str(tmp_path / "pid")])({})
        assert time.monotonic() - begun < 5
        assert outcome.values == (4.5,)
        assert gone(int((tmp_path / "pid").read_text()))

    def test_what_a_child_prints_last_is_not_waited_for(self):
        outcome = CommandObjective(["sh", "-c", "(sleep 0.3; echo 9) & echo 2"])({})
        assert outcome.values == (2.0,)


class TestFlooding:
    def test_a_megabyte_and_more(self, program):
        flood = program(
            """
            import sys
            for stream in (sys.stdout, sys.stderr):
                for _ in range(12):
                    stream.write("x" * (1 << 20))
            print("\\n0.25")
            """
        )
        finished = run_command([flood], directory=Path("/"), environment=dict(os.environ))
        assert finished.code == 0
        assert OUTPUT_LIMIT <= len(finished.stdout) <= OUTPUT_LIMIT + (1 << 16)
        assert len(finished.stdout) + len(finished.stderr) + finished.dropped == 24 * (1 << 20) + 6
        assert len(finished.tail) < 5000
        assert CommandObjective([flood])({}).values == (0.25,)

    def test_without_end(self):
        outcome = CommandObjective(["yes"], timeout=0.3)({})
        assert outcome.status == "run_timeout"
        assert len(outcome.message) < 5000

    def test_large_json(self, program):
        big = program("import json; print(json.dumps({'pad': ['x' * 100] * 20000, 'time': 3}, indent=1))")
        assert CommandObjective([big], scores="time")({}).values == (3.0,)


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("echo broken >&2; exit 3", "run_error", "the command exited with status 3\nbroken"),
        ("kill -SEGV $$", "run_error", "was killed by SIGSEGV"),
        ("exit 0", "invalid_result", "it printed nothing"),
        ("echo done", "invalid_result", "'done'; expected a number"),
        ("echo nan", "invalid_result", "nan; expected a finite number"),
        ("head -c 300 /dev/urandom | tr -d 0-9", "invalid_result", ""),
        ("echo MISMATCH at 3; echo 1", "wrong", "the command printed 'MISMATCH'"),
        ("echo MISMATCH >&2; echo 1", "wrong", "the command printed 'MISMATCH'"),
    ],
)
def test_failures_have_their_status_and_say_why(script, status, message):
    outcome = CommandObjective(["sh", "-c", script], fail_pattern="^MISMATCH")({})
    assert outcome.status == status
    assert message in outcome.message
    assert outcome.values == ()


def test_exit_statuses_that_are_fine():
    assert CommandObjective("sh -c 'echo 5; exit 3'", ok_exit=[0, 3])({}).values == (5.0,)
    assert CommandObjective("sh -c 'echo 5; exit 2'", ok_exit=[0, 3])({}).status == "run_error"


@pytest.mark.parametrize("name", ["no-such-program-anywhere", "./not-here"])
def test_a_program_that_is_not_there(name):
    outcome = CommandObjective([name])({})
    assert outcome.status == "run_error"
    assert outcome.message.startswith("the command cannot be started: No such file")
    assert CommandObjective(["echo", "1"], build=[name], copy=False)({}).status == "compile_error"


def test_json_is_kept_with_the_outcome(program):
    """What an outcome carries fits into the journal."""
    outcome = CommandObjective(["echo", "{x}"], repeat=3)({"x": 2})
    assert json.loads(json.dumps(outcome.to_dict())) == outcome.to_dict()
