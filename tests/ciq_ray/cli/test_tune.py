"""``ciq tune``: the search it makes, what it refuses, how it is resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ciq_ray.journal import read_header, read_records

BENCH = 'echo "$1" >> calls; echo "took $(( ($1 - 7) * ($1 - 7) + 1 )) ms"'


@pytest.fixture
def bench(tmp_path):
    """A shell benchmark that is best at 7; it notes each call."""
    (tmp_path / "bench.sh").write_text(f"#!/bin/sh\n{BENCH}\n")
    (tmp_path / "bench.sh").chmod(0o755)
    return "./bench.sh"


def outcomes(folder: Path) -> list[dict]:
    return [record["outcome"] for record in read_records(folder) if record["t"] == "outcome"]


class TestSearching:
    def test_finds_the_best_and_says_so(self, ciq, space, bench, tmp_path):
        run = ciq("tune", space(), "--seed", 1, "--", bench, "{x}")
        assert "31 evaluations, 0 failed; ended: finished" in run.stdout
        assert 'best: score 1\n{"x": 7}\n' in run.stdout
        calls = (tmp_path / "calls").read_text().split()
        assert calls[0] == "20"  # the default goes first
        assert sorted(map(int, calls)) == list(range(31))
        assert "run 1: " in run.stderr

    def test_json_is_the_only_output(self, ciq, space, bench):
        run = ciq("tune", space(), "--json", "--max-evaluations", 5, "--run-id", 9, "--", bench, "{x}")
        summary = json.loads(run.stdout)
        assert summary["evaluations"] == 5
        assert summary["reason"] == "max_evaluations"
        assert Path(summary["run"]).name == "9"
        assert summary["verdict"] is None

    def test_options_reach_the_search(self, ciq, space, bench, tmp_path):
        (tmp_path / "initial.json").write_text('[{"x": 3}, {"x": 4}]')
        ciq(
            *("tune", space(), "--baseline", '{"x": 12}', "--initial", "initial.json", "--seed", 5),
            *("--searcher", "random", "--pool-size", 6, "--generations", 2, "--time-budget", "10m"),
            *("--constraint", "x < 25", "--workers", 1, "--repeat", 2, "--warmup", 1, "--timeout", "20s"),
            *("--output", "out.csv", "--target", 10, "--keep-going", "--", bench, "{x}"),
        )
        header = read_header(tmp_path / "runs" / "1")
        assert header["seed"] == 5
        assert header["searcher"]["name"] == "random"
        assert header["constraints"] == ["x < 25"]
        assert header["time_budget_s"] == 600
        assert (header["num_workers"], header["exit_on_failure"], header["target"]) == (1, False, [10.0])
        command = header["objective"]["command"]
        assert (command["repeat"], command["warmup"], command["timeout"]) == (2, 1, 20.0)
        calls = (tmp_path / "calls").read_text().split()
        assert calls[:9] == ["12"] * 3 + ["3"] * 3 + ["4"] * 3
        assert len(calls[9:]) <= 3  # 4 scores 10, which is the target; the next one may be on its way
        assert (tmp_path / "out.csv").read_text().count("\n") == 1 + len(calls) / 3

    def test_a_second_search_begins_where_the_first_one_ended(self, ciq, space, bench, tmp_path):
        ciq("tune", space(), "--seed", 1, "--cache", "--specialization-key", "n=64", "--", bench, "{x}")
        (tmp_path / "calls").unlink()
        again = ("tune", space(), "--seed", 2, "--specialization-key", "n=128", "--max-evaluations", 3)
        ciq(*again, "--cache", "--", bench, "{x}")
        calls = (tmp_path / "calls").read_text().split()
        assert calls[:2] == ["20", "7"]  # the default, then the best of the neighbour
        assert read_header(tmp_path / "runs" / "2")["specialization_key"] == "n=128"
        dry = ciq(*again, "--cache", "--dry-run", "--", bench, "{x}")
        assert f"{bench} 7\n" in dry.stdout
        ciq(*again, "--no-cache", "--", bench, "{x}")
        assert read_header(tmp_path / "runs" / "3")["cached_rows"] == []

    def test_an_effort_reaches_the_search_and_the_dry_run(self, ciq, space, bench, tmp_path):
        quick = ("tune", space(), "--searcher", "pattern", "--effort", "quick", "--seed", 1)
        ciq(*quick, "--max-evaluations", 3, "--", bench, "{x}")
        assert read_header(tmp_path / "runs" / "1")["searcher_options"] == {"effort": "quick"}
        calls = (tmp_path / "calls").read_text().split()
        plan = json.loads(ciq(*quick, "--dry-run", "--json", "--", bench, "{x}").stdout)
        assert [item["argv"]["command"][1] for item in plan["first"]] == calls
        run = ciq("resume", 1, "--max-evaluations", 5)
        assert "5 evaluations" in run.stdout

    @pytest.mark.parametrize("searcher", ["genetic", "auto", "finite", "lfbo_tree"])
    def test_no_effort_evaluates_the_default_alone(self, ciq, space, bench, tmp_path, searcher):
        none = ("tune", space(), "--searcher", searcher, "--effort", "none")
        assert "at most 1 evaluations" in ciq(*none, "--dry-run", "--", bench, "{x}").stdout
        summary = json.loads(ciq(*none, "--json", "--", bench, "{x}").stdout)
        assert (summary["evaluations"], summary["best"][0]["params"]) == (1, {"x": 20})
        assert (tmp_path / "calls").read_text() == "20\n"

    def test_several_objectives_in_both_directions(self, ciq, space):
        script = "echo '{\"time\": '$0', \"speed\": '$(( $0 * $0 ))'}'"
        run = ciq(
            *("tune", space(), "--score", "time", "--score", "max:speed", "--json", "--", "sh", "-c"),
            script.replace("{", "{{").replace("}", "}}"),
            "{x}",
        )
        summary = json.loads(run.stdout)
        assert len(summary["best"]) == 31  # all are on the front
        shown = json.loads(ciq("show", 1, "--json").stdout)
        assert shown["scores"] == ["time", "speed"]
        assert all(entry["values"][1] == entry["values"][0] ** 2 for entry in shown["best"])

    def test_maximize(self, ciq, space, bench):
        run = ciq("tune", space(), "--maximize", "--json", "--", bench, "{x}")
        assert json.loads(run.stdout)["best"][0]["params"] == {"x": 30}

    def test_a_build_as_its_own_step(self, ciq, space, tmp_path):
        (tmp_path / "source").write_text("1\n")
        run = ciq(
            *("tune", space({"x": {"type": "range", "start": 1, "end": 9}}), "--workers", 2, "--json"),
            *("--build", "sh -c 'test {x} -ne 5 && cp source result{x} && echo {x} >> result{x}'"),
            *("--", "tail", "-n", "1", "result{x}"),
        )
        summary = json.loads(run.stdout)
        assert (summary["evaluations"], summary["failed"]) == (9, 1)
        assert summary["best"][0]["params"] == {"x": 1}
        failed = [outcome for outcome in outcomes(tmp_path / "runs" / "1") if outcome["status"] != "ok"]
        assert [outcome["status"] for outcome in failed] == ["compile_error"]
        assert all(outcome["compile_s"] > 0 for outcome in outcomes(tmp_path / "runs" / "1"))
        assert list(tmp_path.glob("result*")) == []

    def test_builds_that_do_nothing_are_mentioned(self, ciq, space, bench):
        run = ciq("tune", space(), "--max-evaluations", 2, "--build", "test {x}", "--", bench, "{x}")
        assert "warning: 2 builds changed no file" in run.stdout

    def test_a_compiler_space(self, ciq, tmp_path):
        run = ciq(
            *("tune", "ptxas:13.3/full", "--max-evaluations", 4, "--baseline", "--opt-level=2\n", "--json"),
            *("--score", "last", "--", "sh", "-c", "wc -c < $0", "{CONFIG_FILE}"),
        )
        assert json.loads(run.stdout)["evaluations"] == 4
        first = next(record for record in read_records(tmp_path / "runs" / "1") if record["t"] == "ask")
        assert first["candidates"][0]["config"] == "--opt-level=2\n"

    def test_failures_of_all_kinds(self, ciq, space, tmp_path):
        script = "case $0 in 0) exit 3;; 1) sleep 50;; 2) echo junk;; 3) echo BAD 1;; *) echo 1;; esac"
        ciq(
            *("tune", space({"x": {"type": "range", "start": 0, "end": 4}}), "--timeout", 0.5),
            *("--fail-pattern", "^BAD", "--", "sh", "-c", script, "{x}"),
        )
        assert sorted(outcome["status"] for outcome in outcomes(tmp_path / "runs" / "1")) == [
            "invalid_result",
            "ok",
            "run_error",
            "run_timeout",
            "wrong",
        ]
        shown = ciq("show", 1).stdout
        for text in ("exited with status 3", "was stopped after", "'junk'; expected", "printed 'BAD'"):
            assert text in shown

    def test_if_all_fail(self, ciq, space):
        run = ciq("tune", space(), "--", "sh", "-c", "echo the disk is full >&2; exit 1", "{x}", code=1)
        assert "all 31 candidates of the first generation failed" in run.stderr
        assert "the disk is full" in run.stderr


class TestRace:
    def test_ends_in_a_verdict(self, ciq, space, tmp_path):
        (tmp_path / "bench").write_text('#!/bin/sh\necho "$(( $1 * 10 + $$ % 3 ))"\n')
        (tmp_path / "bench").chmod(0o755)
        run = ciq(
            *("tune", space({"x": {"type": "range", "start": 5, "end": 8}}, {"x": 8}), "--race"),
            *("--finalists", 1, "--", "./bench", "{x}"),
        )
        assert "verdict: candidate" in run.stdout
        assert "beats the baseline" in run.stdout
        assert 'use: {"x": 5}' in run.stdout
        assert json.loads(ciq("best", 1).stdout) == {"x": 5}
        shown = json.loads(ciq("show", 1, "--json").stdout)
        assert shown["verdict"]["kind"] == "win"
        assert shown["chosen"] == {"x": 5}

        again = ciq("race", 1, "--finalists", 1, "--verdict-blocks", 6, "--windows", 1, "--json")
        report = json.loads(again.stdout)
        assert report["verdict"]["kind"] == "win"
        assert report["verdict"]["blocks"] == 6
        assert report["config"] == {"x": 5}
        text = ciq("race", 1, "--finalists", 1, "--verdict-blocks", 6, "--windows", 1).stdout
        assert text.startswith("verdict: candidate")

    def test_needs_something_to_beat(self, ciq, space, bench):
        file = space({"x": {"type": "range", "start": 5, "end": 8}})
        run = ciq("tune", file, "--race", "--", bench, "{x}", code=2)
        assert "--baseline" in run.stderr


class TestDryRun:
    def test_says_exactly_what_would_run(self, ciq, space, tmp_path):
        run = ciq(
            *("tune", space(), "--dry-run", "--seed", 3, "--max-evaluations", 25, "--race", "--build"),
            *("cp a {x}", "--", "./none there", "a b", "{x};$"),
        )
        assert "31 configurations\nat most 25 evaluations, 1 at a time, seed 3" in run.stdout
        assert "    build: cp a 20\n    command: './none there' 'a b' '20;$'\n" in run.stdout
        assert "final race of at most 1080 measurements" in run.stdout
        assert not (tmp_path / "runs").exists()

    def test_json_agrees_with_the_search(self, ciq, space, bench, tmp_path):
        plan = json.loads(ciq("tune", space(), "--dry-run", "--json", "--", bench, "{x}").stdout)
        assert not (tmp_path / "calls").exists()
        ciq("tune", space(), "--seed", plan["seed"], "--max-evaluations", 3, "--", bench, "{x}")
        calls = (tmp_path / "calls").read_text().split()
        assert calls == [str(item["config"]["x"]) for item in plan["first"]]
        assert [item["argv"] for item in plan["first"]] == [{"command": [bench, x]} for x in calls]
        assert [item["env"] for item in plan["first"]] == [{}] * 3

    def test_measure_runs_the_first_candidate_once(self, ciq, space, tmp_path):
        run = ciq(
            *(
                "tune",
                space(),
                "--dry-run",
                "--measure",
                "--json",
                "--",
                "sh",
                "-c",
                "echo x >> n; sleep 0.2;",
            ),
            *("echo", "{x}"),
            code=1,
        )
        assert json.loads(run.stdout)["measured"]["status"] == "invalid_result"
        run = ciq(
            *("tune", space(), "--dry-run", "--measure", "--json", "--"),
            *("sh", "-c", "echo x >> m; sleep 0.2; echo $0", "{x}"),
        )
        plan = json.loads(run.stdout)
        assert (tmp_path / "m").read_text() == "x\n"
        assert plan["measured"]["values"] == [20.0]
        assert 0.2 * 31 <= plan["estimate_s"] < 60

    def test_a_first_candidate_that_fails(self, ciq, space):
        run = ciq("tune", space(), "--dry-run", "--measure", "--", "false", "{x}", code=1)
        assert "the first candidate failed, run_error: the command exited with status 1" in run.stdout


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "command", "message"),
        [
            ([], ["./bench.sh", "{y}"], "{y} is not in the search space"),
            ([], ["./bench.sh"], "the parameter x is in no word"),
            ([], ["./bench.sh", "{x"], "single '{'"),
            ([], ["./missing", "{x}"], "'./missing' is not in"),
            ([], ["no-such-program", "{x}"], "no program 'no-such-program' on PATH"),
            (["--baseline", '{"x": 99}'], ["./bench.sh", "{x}"], "99 is not a value"),
            (["--baseline", "nothing.json"], ["./bench.sh", "{x}"], "neither a file nor a configuration"),
            (["--initial", "nothing.json"], ["./bench.sh", "{x}"], "nothing.json cannot be read"),
            (["--timeout", "soon"], ["./bench.sh", "{x}"], "--timeout is 'soon'; give a time"),
            (["--time-budget", "0"], ["./bench.sh", "{x}"], "--time-budget is '0'"),
            (["--ok-exit", "0;3"], ["./bench.sh", "{x}"], "--ok-exit is '0;3'"),
            (["--env", "NAME"], ["./bench.sh", "{x}"], "NAME=VALUE"),
            (["--fail-pattern", "("], ["./bench.sh", "{x}"], "no regular expression"),
            (["--score", "a..b"], ["./bench.sh", "{x}"], "does not describe a score"),
            (["--target", "1", "--target", "2"], ["./bench.sh", "{x}"], "given 2 times for 1"),
            (["--searcher", "magic"], ["./bench.sh", "{x}"], "genetic"),
            (["--searcher", "magic", "--effort", "quick"], ["./bench.sh", "{x}"], "`searcher` is 'magic'"),
            (
                ["--effort", "huge"],
                ["./bench.sh", "{x}"],
                "--effort is 'huge'; it must be one of none",
            ),
            (["--effort", "quick"], ["./bench.sh", "{x}"], "--searcher genetic has no such profile"),
            (["--measure"], ["./bench.sh", "{x}"], "--measure is for --dry-run"),
            (["--finalists", "2"], ["./bench.sh", "{x}"], "--finalists is for --race"),
            (["--score", "a", "--score", "b", "--race"], ["./bench.sh", "{x}"], "one objective"),
            (["--normalize", "--baseline", '{"x": 3}'], ["./bench.sh", "{x}"], "--normalize divides"),
        ],
    )
    def test_before_anything_runs(self, ciq, space, bench, tmp_path, options, command, message):
        run = ciq("tune", space(), *options, "--", *command, code=2)
        assert message in run.stderr
        assert not (tmp_path / "calls").exists()
        assert not (tmp_path / "runs").exists()

    def test_no_effort_without_a_default(self, ciq, space, bench):
        file = space({"x": {"type": "range", "start": 5, "end": 8}})
        run = ciq("tune", file, "--effort", "none", "--", bench, "{x}", code=2)
        assert "put one into the space file as `default`" in run.stderr

    @pytest.mark.parametrize("text", ["nothing.json", "rustc", "ptxas:99.9", "ptxas/none"])
    def test_spaces_that_are_not_there(self, ciq, text):
        ciq("tune", text, "--", "echo", "{*config}", code=2)


class TestResume:
    def test_after_sigkill_without_a_script(self, space, ciq, tmp_path):
        (tmp_path / "bench.sh").write_text('echo "$1" >> calls; [ -e fast ] || sleep 0.2; echo "$1"\n')
        process = subprocess.Popen(
            [sys.executable, "-m", "ciq_ray", "tune", space(), "--seed", "2", "--", "sh", "bench.sh", "{x}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ},
        )
        calls = tmp_path / "calls"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (calls.exists() and calls.read_text().count("\n") >= 5):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (tmp_path / "fast").touch()
        run = ciq("resume", 1, "--json")
        assert json.loads(run.stdout)["evaluations"] == 31
        made = [int(x) for x in calls.read_text().split()]
        assert set(made) == set(range(31))
        assert len(made) <= 32  # what was in flight ran again
        assert "0.." not in run.stderr

    def test_a_changed_program_is_refused(self, ciq, space, bench, tmp_path):
        ciq("tune", space(), "--max-evaluations", 3, "--", bench, "{x}")
        with (tmp_path / "bench.sh").open("a") as file:
            file.write("# changed\n")
        run = ciq("resume", 1, "--max-evaluations", 5, code=3)
        assert "'./bench.sh' has changed since the run began" in run.stderr
        assert "5 evaluations" in ciq("resume", 1, "--max-evaluations", 5, "--force").stdout
