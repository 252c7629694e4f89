"""``ciq replay``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ciq_ray.replay import Replayer

MATMUL = Path(__file__).parents[3] / "benchmarks" / "landscapes" / "matmul_4096.csv"


@pytest.fixture
def small(tmp_path):
    lines = [f"{x},{y},ok,{1 + (x - 3) ** 2 + y},0.1,0.5" for x in range(6) for y in range(4)]
    (tmp_path / "small.csv").write_text("x,y,status,time_ms,std_ms,compile_s\n" + "\n".join(lines) + "\n")
    return "small.csv"


def test_a_table_with_scores(ciq):
    text = ciq("replay", MATMUL, "--searcher", "genetic,random", "--budget", 120, "--seeds", 3).stdout
    head, *lines = text.splitlines()
    assert head == "matmul_4096: 2240 configurations, 48 of them fail; best 0.191328 ms, worst 37.7646 ms"
    assert re.split(r"\s{2,}", lines[0].strip())[:6] == ["searcher", "seeds", "50", "100", "120", "aggregate"]
    for name, line in zip(("genetic", "random"), lines[1:3], strict=True):
        cells = re.split(r"\s{2,}", line.strip())
        assert cells[:2] == [name, "3"]
        assert all(re.fullmatch(r"-?\d+\.\d\d ± \d+\.\d\d", cell) for cell in cells[2:6])


def test_the_same_in_json(ciq, small, tmp_path):
    ciq("replay", small, "--searcher", "random", "--budget", 12, "--seeds", 2, "--json", "out.json")
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["interrupted"] is False
    (one,) = data["replays"]
    assert (one["plan"]["searcher"], one["plan"]["budget"], len(one["runs"])) == ("random", 12, 2)
    assert len(one["scores"]["12"]) == len(one["aggregate"]) == 2


def test_json_is_the_only_output(ciq, small):
    run = ciq("replay", small, "--searcher", "random", "--budget", 5, "--seeds", 1, "--json", "-")
    assert len(json.loads(run.stdout)["replays"]) == 1


def test_virtual_time(ciq, small):
    text = ciq(
        "replay", small, "--searcher", "random", "--seeds", 3, "--budget", 20, "--workers", 4, "--devices", 2
    ).stdout
    line = re.split(r"\s{2,}", text.splitlines()[-2].strip())
    assert line[0] == "random"
    assert all(re.fullmatch(r"\d+%", cell) for cell in line[2:4])


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_plot(ciq, small, tmp_path, name, start):
    more = ["--workers", 2] if name == "a.svg" else []
    ciq("replay", small, "--searcher", "random,genetic", "--budget", 12, "--seeds", 2, "--plot", name, *more)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_noise_and_batch_and_effort(ciq, small):
    options = ["--searcher", "random", "--effort", "quick", "--seeds", 1, "--budget", 20]
    (one,) = json.loads(ciq("replay", small, *options, "--noise", "--batch", 5, "--json", "-").stdout)[
        "replays"
    ]
    assert (one["plan"]["noise"], one["plan"]["batch"], one["plan"]["effort"]) == (True, 5, "quick")


def test_a_budget_of_more_than_there_is(ciq, small):
    run = ciq("replay", small, "--searcher", "random", "--seeds", 1, "--budget", 500)
    assert "small.csv has 24 configurations; the budget is that" in run.stderr
    assert "24" in run.stdout.splitlines()[1]


def test_interrupted(ciq, small, monkeypatch):
    """What is done so far is shown."""
    once = Replayer.run

    def run(self, seed, tick=None, **options):
        if self.plan.searcher == "genetic" and seed == 1:
            raise KeyboardInterrupt
        return once(self, seed, tick, **options)

    monkeypatch.setattr(Replayer, "run", run)
    stopped = ciq(
        "replay", small, "--searcher", "random,genetic,random", "--seeds", 3, "--budget", 10, code=130
    )
    assert [line.split()[:2] for line in stopped.stdout.splitlines()[2:4]] == [
        ["random", "3"],
        ["genetic", "1"],
    ]
    assert "this is what was done so far" in stopped.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--searcher", "genetc"], "did you mean 'genetic'"),
        (["--searcher", "random,"], "`searcher` is ''"),
        (["--batch", 0], "--batch"),
        (["--budget", -1], "--budget"),
        (["--workers", 0], "--workers"),
        (["--devices", 2], "without `workers` there is no virtual time"),
        (["--effort", "huge"], "`effort` is 'huge'"),
        (["--plot", "a.gif"], "--plot is 'a.gif'; it must end in one of .png, .svg, .pdf"),
        (["--plot", "no/a.png"], "there is no folder 'no'"),
        (["--json", "no/a.json"], "there is no folder 'no'"),
    ],
)
def test_refused(ciq, small, options, message):
    options = options if "--searcher" in options else [*options, "--searcher", "random"]
    assert message in ciq("replay", small, *options, code=2).stderr


def test_files_that_are_no_landscapes(ciq, tmp_path):
    (tmp_path / "bad.csv").write_text("x,status,time_ms,std_ms,compile_s\n1,fine,1,1,1\n")
    assert "bad.csv, line 2: `status` is 'fine'" in ciq("replay", "bad.csv", code=2).stderr
    assert "none.csv cannot be read" in ciq("replay", "none.csv", code=2).stderr
