"""``ciq report``."""

from __future__ import annotations

import json
import shutil
import time

import pytest

WORDS = ("sh", "-c", "echo $(( ($1 - 7) * ($1 - 7) ))", "sh", "{x}")


@pytest.fixture
def run(ciq, space):
    ciq("tune", space(), "--max-evaluations", 12, "--", *WORDS)
    return "1"


def test_writes_into_the_folder_of_the_run(ciq, run, runs):
    assert ciq("report", run).stdout.strip().endswith("runs/1/report.html")
    content = (runs / "1" / "report.html").read_text()
    assert "Best configuration" in content
    assert "sh -c &#x27;echo $(( ($1 - 7) * ($1 - 7) ))&#x27; sh 7" in content or "sh -c" in content
    assert "ciq best" in content
    ciq("report", run)  # over its own


def test_where_to(ciq, run, tmp_path):
    ciq("report", run, "-o", "mine.html")
    assert (tmp_path / "mine.html").exists()
    (tmp_path / "notes.txt").write_text("notes")
    assert "is no report" in ciq("report", run, "-o", "notes.txt", code=2).stderr
    assert (tmp_path / "notes.txt").read_text() == "notes"
    ciq("report", run, "-o", "notes.txt", "--force")
    assert "there is no folder" in ciq("report", run, "-o", "no/where.html", code=2).stderr


def test_json(ciq, run):
    said = json.loads(ciq("report", run, "--json").stdout)
    assert said["evaluations"] == 12
    assert said["report"].endswith("report.html")


def test_no_such_run(ciq):
    assert "there is no run" in ciq("report", 99, code=3).stderr


def test_directions_are_shown_as_the_command_gave_them(ciq, space, tmp_path):
    words = ("sh", "-c", 'echo "$1 $(( $1 * 10 ))"', "sh", "{x}")
    ciq("tune", space(), "--score", "min:last", "--score", "max:last", "--max-evaluations", 15, "--", *words)
    ciq("report", 1, "-o", "front.html")
    content = (tmp_path / "front.html").read_text()
    assert "(max)" in content
    assert '"cells":' in content
    cells = json.loads(content.split('id="table-data">')[1].split("</script>")[0])
    names = [column["name"] for column in cells["columns"]]
    second = cells["cells"][[i for i, name in enumerate(names) if "last" in name][1]]
    assert all(value >= 0 for value in second)


SEARCH = """
import time
from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import range

def objective(config):
    time.sleep(0.02)
    return config["x"]

if __name__ == "__main__":
    Search(objective_function=objective, search_space={"x": range(0, 2000)}, seed=1,
           search_config=SearchConfiguration(generations=50, pool_size=20)).start(num_workers=1)
"""


def test_of_a_search_that_runs_and_of_one_that_was_killed(ciq, scripts, runs, wait_for, tmp_path):
    process = scripts.start(scripts.write(SEARCH))
    journal = runs / "1" / "journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count('"t":"outcome"') > 20, "some outcomes")
    ciq("report", 1, "-o", "running.html")
    assert "still running" in (tmp_path / "running.html").read_text()
    process.kill()
    process.wait()
    wait_for(lambda: not scripts.alive(), "the end of all processes", within=5)
    ciq("report", 1, "-o", "killed.html")
    assert "interrupted; it can be resumed" in (tmp_path / "killed.html").read_text()


def test_of_a_folder_that_has_moved(ciq, run, runs, tmp_path):
    shutil.move(runs / "1", tmp_path / "elsewhere")
    begun = time.monotonic()
    assert "elsewhere/report.html" in ciq("report", "elsewhere").stdout
    assert time.monotonic() - begun < 30
