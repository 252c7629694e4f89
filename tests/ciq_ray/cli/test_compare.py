"""``ciq compare``: two runs, or two columns of numbers."""

from __future__ import annotations

import json

import pytest

from ciq_ray.cli.columns import read_column
from ciq_ray.errors import ConfigurationError


@pytest.fixture
def column(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return name

    return write


class TestColumns:
    def test_a_real_difference(self, ciq, column):
        fast = column("fast.csv", "".join(f"{1 + i / 1000}\n" for i in range(20)))
        slow = column("slow.csv", "".join(f"{1.2 + i / 1000}\n" for i in range(20)))
        text = ciq("compare", fast, slow).stdout
        assert "20 and 20 numbers, taken as pairs" in text
        assert "fast.csv beats slow.csv: 16." in text
        data = json.loads(ciq("compare", fast, slow, "--maximize", "--json").stdout)
        assert (data["verdict"]["kind"], data["paired"]) == ("loss", True)
        data = json.loads(ciq("compare", fast, slow, "--margin", 0.5, "--json").stdout)
        assert data["verdict"]["kind"] == "no significant difference"

    def test_different_lengths_and_columns(self, ciq, column):
        a = column("a.csv", "name,time,rss\n" + "x,1.5,3\n" * 12)
        b = column("b.csv", "name,time,rss\n" + "x,1.0,3\n" * 10)
        assert "--column" in ciq("compare", a, b, code=2).stderr
        data = json.loads(ciq("compare", a, b, "--column", "time", "--json").stdout)
        assert (data["verdict"]["kind"], data["paired"]) == ("loss", False)

    def test_too_few(self, ciq, column):
        run = ciq("compare", column("a.csv", "1\n2\n"), column("b.csv", "1\n2\n"), code=2)
        assert "too few" in run.stderr

    def test_results_of_a_run(self, ciq, space, tmp_path):
        ciq("tune", space(), "--output", "r.csv", "--", "sh", "-c", "test $0 != 3 && echo $(($0 + 1))", "{x}")
        assert len(read_column(tmp_path / "r.csv")) == 30
        ciq("compare", "r.csv", "r.csv")

    @pytest.mark.parametrize(
        ("text", "name", "message"),
        [
            ("", None, "is empty"),
            ("a\nx\n", None, "0 columns of numbers"),
            ("a,b\n1,2\n", None, "2 columns of numbers; name one of a, b"),
            ("a\n1\n", "b", "no column 'b'; it has a"),
            ("1\n2\n", "b", "no header line"),
            ("score\n1\nx\n", None, "line 3: 'x' is not a number"),
            ("score\n1\nnan\n", None, "line 3: 'nan'"),
            ("a,score\n1\n", None, "line 2: '' is not a number"),
        ],
    )
    def test_files_that_cannot_be_used(self, tmp_path, column, text, name, message):
        with pytest.raises(ConfigurationError, match=message):
            read_column(tmp_path / column("x.csv", text), name)


class TestRuns:
    def test_side_by_side(self, ciq, space):
        ciq("tune", space(), "--seed", 1, "--", "echo", "{x}")
        ciq("tune", space(), "--seed", 2, "--max-evaluations", 3, "--maximize", "--", "echo", "{x}", "1{x}")
        text = ciq("compare", 1, 2).stdout
        assert "genetic, seed 2" in text
        assert "note: the objective differs" in text
        data = json.loads(ciq("compare", 1, 2, "--json").stdout)
        assert data["same"] == {"objective": False, "space": True}
        assert [run["evaluations"] for run in data["runs"]] == [31, 3]

    def test_options_of_columns_are_refused(self, ciq, space):
        ciq("tune", space(), "--max-evaluations", 2, "--", "echo", "{x}")
        assert "not for runs" in ciq("compare", 1, 1, "--maximize", code=2).stderr

    def test_a_run_and_a_file(self, ciq, space, column):
        ciq("tune", space(), "--max-evaluations", 2, "--", "echo", "{x}")
        assert "not of one kind" in ciq("compare", 1, column("a.csv", "1\n"), code=2).stderr
