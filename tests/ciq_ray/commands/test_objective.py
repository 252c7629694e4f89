"""`CommandObjective`: repeats, directions, builds in working copies, and its form in a journal."""

from __future__ import annotations

import gc
import pickle
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ciq_ray import Search, SearchConfiguration, origin
from ciq_ray.commands import CommandObjective
from ciq_ray.commands.copies import WorkingCopies
from ciq_ray.errors import ConfigurationError, JournalError
from searchers import Range


@pytest.fixture
def sources(tmp_path):
    """A directory with a Makefile-like script that builds only if there is no result yet."""
    folder = tmp_path / "sources"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "data").write_text("5\n")
    (folder / "link").symlink_to("sub/data")
    (folder / "make.sh").write_text('[ -e result ] || { echo "$1" > result; echo x >> built; }\n')
    return folder


class TestRepeats:
    def test_the_median_counts_and_all_are_kept(self, program, tmp_path):
        counting = program(
            """
            import os, sys
            with open(sys.argv[1], "a+") as file:
                file.write("x")
                file.seek(0)
                print([100, 100, 5, 1, 3][len(file.read()) - 1])
            """
        )
        outcome = CommandObjective([counting, str(tmp_path / "n")], warmup=2, repeat=3)({})
        assert outcome.values == (3.0,)
        assert outcome.samples == 3
        assert outcome.spread == (pytest.approx(statistics.stdev([5, 1, 3])),)
        assert outcome.metrics["samples"] == [5.0, 1.0, 3.0]
        assert outcome.metrics["command_s"] > 0

    def test_one_failure_fails_the_candidate(self, tmp_path):
        script = f"echo x >> {tmp_path}/n; [ $(wc -l < {tmp_path}/n) -lt 2 ] && echo 1"
        assert CommandObjective(["sh", "-c", script], repeat=3)({}).status == "run_error"
        assert (tmp_path / "n").read_text() == "x\nx\n"


class TestDirections:
    def test_all_alike(self):
        objective = CommandObjective("echo 1 2", scores=["max:last", "max:last"])
        assert (objective.problem_type, objective.num_objectives) == ("max", 2)
        assert objective({}).values == (1.0, 2.0)
        assert objective.shown((1.0, 2.0)) == (1.0, 2.0)

    def test_both_kinds(self):
        objective = CommandObjective("echo 1 2", scores=["last", "max:last"])
        assert objective.problem_type == "min"
        assert objective({}).values == (1.0, -2.0)
        assert objective.shown((1.0, -2.0)) == (1.0, 2.0)


class TestBuilds:
    def test_every_candidate_is_built_from_the_sources_alone(self, sources, temporary):
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources)
        assert [objective({"x": x}).values for x in (1, 2, 3)] == [(1.0,), (2.0,), (3.0,)]
        assert sorted(path.name for path in sources.iterdir()) == ["link", "make.sh", "sub"]

    def test_in_place_the_first_result_would_stay(self, sources):
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources, copy=False)
        assert [objective({"x": x}).values for x in (1, 2)] == [(1.0,), (1.0,)]
        assert (sources / "result").exists()

    def test_the_same_build_is_not_made_twice(self, sources, temporary):
        objective = CommandObjective("sh -c 'cat built result'", build="sh make.sh {x}", directory=sources)
        first, second = objective({"x": 1}), objective({"x": 2})
        again = objective({"x": 1})
        assert first.compile_s is not None
        assert second.compile_s is not None
        assert again.compile_s is None
        assert again.values == (1.0,)

    def test_parameters_of_the_command_alone_build_nothing(self, sources, temporary):
        objective = CommandObjective(
            "sh -c 'cat result; echo $0' {y}", build="sh make.sh {x}", directory=sources
        )
        assert objective({"x": 1, "y": 7}).compile_s is not None
        outcome = objective({"x": 1, "y": 8})
        assert (outcome.compile_s, outcome.values) == (None, (8.0,))

    def test_a_failed_build_is_made_again(self, sources, temporary):
        objective = CommandObjective("cat result", build="sh -c 'echo no; exit 1' {x}", directory=sources)
        for _ in range(2):
            outcome = objective({"x": 1})
            assert outcome.status == "compile_error"
            assert outcome.message == "the build exited with status 1\nno"
            assert outcome.compile_s is not None

    def test_many_builds_use_a_bounded_number_of_copies(self, sources, temporary, monkeypatch):
        monkeypatch.setattr("ciq_ray.commands.copies._MOST_BUILDS", 3)
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources)
        assert [objective({"x": x}).values[0] for x in range(8)] == list(range(8))
        copies = objective.copies
        assert copies is not None
        assert len([path for path in copies.base.glob("copy-*") if path.is_dir()]) == 3
        # the last three are still there
        assert [objective({"x": x}).compile_s is None for x in (5, 6, 7)] == [True] * 3
        assert objective({"x": 0}).compile_s is not None

    def test_evaluations_at_the_same_time_have_copies_of_their_own(self, sources, temporary):
        objective = CommandObjective(
            "sh -c 'sleep 0.2; cat result'", build="sh -c 'sleep 0.2; sh make.sh $0' {x}", directory=sources
        )
        begun = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda x: objective({"x": x % 3}), range(4)))
        assert [outcome.values[0] for outcome in outcomes] == [0, 1, 2, 0]
        assert time.monotonic() - begun < 1.5

    def test_a_copy_is_complete_and_made_equal_again(self, sources, temporary):
        (sources / "script").write_text("#!/bin/sh\n")
        (sources / "script").chmod(0o750)
        build = (
            "sh -c 'test -x script && test -L link && cat link && rm -r sub && echo changed > make.sh"
            " && mkdir -p ro/x && touch ro/x/file && chmod -w ro/x && ! test -e extra{x} && touch extra{y}'"
        )
        objective = CommandObjective("echo 1", build=build, directory=sources)
        objective._copies._keep = 1  # type: ignore[union-attr]
        for x in range(4):
            outcome = objective({"x": x, "y": x + 1})
            assert outcome.ok, outcome.message

    def test_sources_that_change_later_do_not_count(self, sources, temporary):
        objective = CommandObjective("cat sub/data", build="touch {x}", directory=sources)
        assert objective({"x": "a"}).values == (5.0,)
        (sources / "sub" / "data").write_text("6\n")
        assert objective({"x": "b"}).values == (5.0,)

    def test_a_build_that_changed_nothing_is_reported(self, sources, temporary):
        (sources / "result").write_text("9\n")
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources)
        assert objective({"x": 1}).metrics["build_changed_nothing"] is True
        (sources / "result").unlink()
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources)
        assert "build_changed_nothing" not in objective({"x": 1}).metrics

    def test_the_configuration_in_a_file_decides_what_is_built(self, sources, temporary):
        objective = CommandObjective("cat result", build="cp {CONFIG_FILE} result", directory=sources)
        assert objective("-n=1\n").values == (1.0,)
        assert objective("-n=2\n").values == (2.0,)
        assert objective("-n=1\n").compile_s is None

    def test_runs_are_not_copied(self, sources, runs, monkeypatch, temporary):
        monkeypatch.setenv("CIQ_RUNS_DIR", str(sources / "ciq_runs"))
        (sources / "ciq_runs" / "1").mkdir(parents=True)
        outcome = CommandObjective("sh -c 'ls | wc -l'", build="touch {x}", directory=sources)({"x": "sub"})
        assert outcome.values == (3.0,)

    def test_a_directory_that_is_too_large(self, sources, monkeypatch):
        monkeypatch.setattr("ciq_ray.commands.copies._MOST_FILES", 2)
        with pytest.raises(ConfigurationError, match="too much to copy"):
            CommandObjective("echo 1", build="true", directory=sources)
        CommandObjective("echo 1", build="true", directory=sources, copy=False)


class TestEndOfCopies:
    def test_they_go_with_the_objective(self, sources, temporary):
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources)
        objective({"x": 1})
        copies = list(temporary.iterdir())
        assert len(copies) == 1
        other = pickle.loads(pickle.dumps(objective))
        assert other({"x": 1}).compile_s is None  # it uses the same ones
        del other
        assert list(temporary.iterdir()) == copies
        del objective
        assert list(temporary.iterdir()) == []

    def test_they_go_with_the_process(self, sources, temporary):
        code = (
            "from ciq_ray.commands import CommandObjective\n"
            f"o = CommandObjective('cat result', build='sh make.sh 3', directory={str(sources)!r})\n"
            "print(o({}).values)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert run.stdout == "(3.0,)\n", run.stderr
        assert list(temporary.iterdir()) == []

    def test_those_of_a_killed_process_are_removed_by_the_next(self, sources, temporary):
        code = (
            "import os, signal\n"
            "from ciq_ray.commands import CommandObjective\n"
            f"o = CommandObjective('cat result', build='sh make.sh 3', directory={str(sources)!r})\n"
            "o({}); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
        left = list(temporary.iterdir())
        assert len(left) == 1
        copies = WorkingCopies(sources)
        assert list(temporary.iterdir()) == [copies.base]

    def test_a_search_leaves_none(self, sources, temporary, runs):
        Search(
            objective_function=CommandObjective("cat result", build="sh make.sh {x}", directory=sources),
            search_space={"x": Range(1, 50)},
            search_config=SearchConfiguration(generations=1, pool_size=8),
            max_evaluations=8,
            disable_progress_bar=True,
        ).start(num_workers=2)
        gc.collect()
        assert [path for path in temporary.iterdir() if path.name.startswith("ciq-work")] == []

    def test_one_can_be_kept(self, sources, temporary):
        objective = CommandObjective("cat result", build="sh make.sh {x}", directory=sources)
        outcome = objective.evaluate({"x": 4}, keep=True)
        del objective
        with open(f"{outcome.metrics['kept']}/result") as file:
            assert file.read() == "4\n"


class TestEnvironment:
    def test_set_and_unset(self, monkeypatch):
        monkeypatch.setenv("GONE", "1")
        objective = CommandObjective(
            "sh -c 'echo ${{GONE-unset}} $THREADS'", env={"GONE": "{no}", "THREADS": "{t}"}
        )
        assert objective.evaluate({"t": 3}).values == (3.0,)
        assert objective.evaluate({"t": "x"}).message.splitlines()[-1] == "unset x"


class TestJournalForm:
    def test_round_trip(self, sources):
        objective = CommandObjective(
            ["./x", "{A}"],
            build="make {B}",
            scores=["max:time", "wall"],
            directory=sources,
            env={"N": "{A}"},
            ok_exit=[0, 2],
            fail_pattern="bad",
            timeout=3,
            build_timeout=4.5,
            repeat=2,
            warmup=1,
        )
        data = objective.to_dict()
        assert CommandObjective.from_dict(data).to_dict() == data
        assert origin.describe(objective)["command"] == data

    def test_a_changed_program_is_refused_unless_forced(self, tmp_path):
        script = tmp_path / "bench.sh"
        script.write_text("echo 1")
        record = origin.describe(CommandObjective("sh bench.sh {x}", directory=tmp_path))
        assert list(record["files"]) == ["bench.sh"]
        assert origin.load(record)({}).ok
        script.write_text("echo 2")
        with pytest.raises(JournalError, match=r"'bench.sh' has changed since .*--force"):
            origin.load(record)
        assert origin.load(record, force=True)({}).values == (2.0,)

    @pytest.mark.parametrize("damage", [{"command": {}}, {"command": {"command": ["x"], "what": 1}}, {}])
    def test_a_damaged_record(self, damage):
        with pytest.raises(JournalError, match="cannot be used"):
            origin.load({"kind": "command", "files": {}, **damage})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": []}, "`command` is empty"),
        ({"command": "echo 'open"}, "`command` .* cannot be split"),
        ({"build": ""}, "`build` is empty"),
        ({"scores": []}, "`scores` is empty"),
        ({"directory": "/no/such"}, "`directory` is '/no/such'"),
        ({"ok_exit": ["0"]}, "`ok_exit` is '0'"),
        ({"fail_pattern": "("}, "`fail_pattern` is '\\('"),
        ({"timeout": 0}, "`timeout` is 0"),
        ({"timeout": float("nan")}, "`timeout` is nan"),
        ({"build_timeout": True}, "`build_timeout` is True"),
        ({"repeat": 0}, "`repeat` is 0"),
        ({"warmup": -1}, "`warmup` is -1"),
        ({"env": {"A=B": "1"}}, "`env` has 'A=B'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        CommandObjective(**{"command": ["echo", "1"], **options})


def test_a_command_without_words():
    outcome = CommandObjective(["{*x}"])({})
    assert (outcome.status, "no words left" in outcome.message) == ("run_error", True)
