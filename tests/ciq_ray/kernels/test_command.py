import shutil

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.kernels import Artefact, CommandKernel, CompileStage, Target, time_kernel
from ciq_ray.worker.limits import set_compile_timeout
from searchers import Choice

CPU = Target(0)

SOURCE = """
#include <stdio.h>
#include "value.h"
int main(int argc, char **argv) { printf("%d %s\\n", SIZE * VALUE, argc > 1 ? argv[1] : ""); return FAILS; }
"""


@pytest.fixture
def folder(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.c").write_text(SOURCE)
    (source / "value.h").write_text("#define VALUE 3\n")
    return source


def kernel(folder, build="gcc -s -O{level} -DSIZE={size} -DFAILS=0 -o bench main.c", **options):
    given = {
        "command": "sh -c 'echo ran >> log; ./bench'",
        "space": {"level": Choice([0, 1]), "size": Choice([1, 2])},
        "directory": folder,
        "needs_gpu": False,
        **options,
    }
    return CommandKernel(build, given.pop("command"), **given)


def test_a_build_travels_to_where_the_command_runs(folder):
    two = kernel(folder)
    artefact = two.compile({"level": 1, "size": 2}, CPU)
    assert b"bench" in artefact.binary
    assert b"main.c" not in artefact.binary  # it is there already
    outcome = two.run(Artefact.from_bytes(artefact.to_bytes()), {"level": 1, "size": 2})
    assert (outcome.status, outcome.values) == ("ok", (6.0,))
    assert sorted(path.name for path in folder.iterdir()) == ["main.c", "value.h"]


def test_builds_that_come_to_the_same_files_have_one_digest(folder):
    two = kernel(folder, outputs=["ben*"])
    one, same = (two.compile({"level": 0, "size": 1}, CPU).digest for _ in range(2))
    assert one == same
    assert two.compile({"level": 0, "size": 2}, CPU).digest != one


def test_the_command_line_is_part_of_the_digest(folder):
    two = kernel(folder, "gcc -o bench main.c -DSIZE=1 -DFAILS=0", command="./bench {size} {level}")
    digests = {two.compile({"level": 0, "size": size}, CPU).digest for size in (1, 2)}
    assert len(digests) == 2


def test_one_measurement_does_not_see_the_files_of_another(folder):
    two = kernel(folder, command="sh -c 'test ! -e log && echo 1 && touch log'")
    for level in (0, 1):
        config = {"level": level, "size": 1}
        assert two.run(two.compile(config, CPU), config).ok


def test_without_a_build_there_is_nothing_to_compile(folder):
    plain = kernel(folder, None, command="echo {size} {level}", scores="last")
    artefact = plain.compile({"level": 1, "size": 2}, CPU)
    assert artefact.binary == b""
    assert plain.run(artefact, {"level": 1, "size": 2}).values == (1.0,)


def test_a_build_that_fails_is_a_compile_error_with_its_text(folder):
    stage = CompileStage(kernel(folder, "gcc -O{level} -DSIZE={size} -o bench none.c"), CPU)
    outcome = stage({"level": 0, "size": 1}).outcome
    assert outcome.status == "compile_error"
    assert outcome.message.startswith("the build exited with status")
    assert "none.c" in outcome.message


def test_a_build_keeps_the_limit_of_its_task(folder):
    slow = kernel(folder, "sh -c 'sleep 60 # {level} {size}'")
    set_compile_timeout(0.2)
    try:
        with pytest.raises(ObjectiveFailure, match="the build was stopped") as caught:
            slow.compile({"level": 0, "size": 1}, CPU)
    finally:
        set_compile_timeout(None)
    assert caught.value.status == "compile_timeout"


def test_a_build_that_leaves_too_much_is_refused(folder):
    large = kernel(folder, "sh -c 'head -c 70000000 /dev/zero > bench # {level} {size}'")
    with pytest.raises(ObjectiveFailure, match="`outputs`"):
        large.compile({"level": 0, "size": 1}, CPU)


def test_registers_and_spills_are_read_from_what_a_build_prints(folder):
    report = (
        "ptxas info : Compiling entry function k for sm_90\n"
        "ptxas info : Function properties for k\n"
        " 8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n"
        "ptxas info : Used 40 registers\n"
    )
    (folder / "report.txt").write_text(report)
    told = kernel(folder, "sh -c 'cat report.txt >&2; touch bench # {level} {size}'")
    artefact = told.compile({"level": 0, "size": 1}, CPU, keep=True)
    assert artefact.resources.to_dict() == {"registers": 40, "spill_stores": 16, "spill_loads": 24}
    assert b"Used 40 registers" in artefact.files["build.log"]


def test_a_command_that_fails_is_a_run_error(folder):
    failing = kernel(folder, "gcc -O{level} -DSIZE={size} -DFAILS=4 -o bench main.c", command="./bench")
    config = {"level": 0, "size": 1}
    outcome = failing.run(failing.compile(config, CPU), config)
    assert outcome.status == "run_error"
    assert "status 4" in outcome.message


def test_a_configuration_in_a_file_counts(folder):
    script = "import json, sys; print(json.load(open(sys.argv[1]))['size'])"
    (folder / "read.py").write_text(script)
    reading = kernel(folder, None, command="python3 read.py {CONFIG_FILE}")
    digests = set()
    for size in (1, 2):
        config = {"level": 0, "size": size}
        artefact = reading.compile(config, CPU)
        digests.add(artefact.digest)
        assert reading.run(artefact, config).values == (float(size),)
    assert len(digests) == 2


def test_parameters_in_no_word_and_missing_folders_are_refused(folder):
    with pytest.raises(ConfigurationError, match="is in no word"):
        kernel(folder, "gcc -O{level} main.c")
    with pytest.raises(ConfigurationError, match="`directory`"):
        kernel(folder / "none")


def test_a_search_goes_where_the_scores_are_better(folder):
    most = kernel(folder, None, command="echo {level} {size}", scores="max:last", needs_gpu=False)
    assert (most.num_objectives, most.problem_type) == (1, "max")
    small = {"generations": 1, "pool_size": 6}
    with pytest.raises(ConfigurationError, match=r"'max'; give SearchConfiguration\(problem_type='max'\)"):
        Search(objective_function=most, search_config=SearchConfiguration(**small))
    config = SearchConfiguration(**small, problem_type="max")
    search = Search(objective_function=most, search_config=config, searcher="random", final_race=False)
    assert search.start(num_workers=1).get_best_result()["score"] == 2
    two = kernel(folder, None, command="echo {level} {size}", scores=["first", "last"])
    with pytest.raises(ConfigurationError, match=r"SearchConfiguration\(num_objectives=2\)"):
        Search(objective_function=two, search_config=SearchConfiguration(**small))


def test_nothing_to_compare_with_is_said(folder, caplog):
    bare, config = kernel(folder), SearchConfiguration(generations=1, pool_size=6)
    assert not Search(objective_function=bare, search_config=config).final_race
    assert "CommandKernel has nothing to be compared with" in caplog.text
    caplog.clear()
    Search(objective_function=bare, search_config=config, final_race=False)
    assert not caplog.text


def test_it_goes_through_both_stages_of_a_search(folder):
    outcome = time_kernel(kernel(folder), {"level": 1, "size": 2})
    assert outcome.ok, outcome.message
    assert outcome.values == (6.0,)
    assert outcome.compile_s > 0
    assert outcome.metrics["gpu_at"][0] > 0
