"""A search whose driver is killed again and again ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCRIPT = '''
"""usage: script.py WORKERS GENERATIONAL [RUN_TO_GO_ON_WITH]"""
import json, os, sys, time

from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import choice, range


def objective(config):
    log = os.open("evaluations.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (json.dumps([config, os.getpid()]) + "\\n").encode())
    os.close(log)
    time.sleep((config["x"] * 7 + config["y"] * 3) % 5 / 1000)
    return (config["x"] - 20) ** 2 + config["y"] + len(config["z"])


if __name__ == "__main__":
    if len(sys.argv) > 3:
        Search.resume(sys.argv[3]).start()
    else:
        Search(
            objective_function=objective,
            search_space={"x": range(0, 40), "y": range(0, 40), "z": choice(["a", "bb", "ccc"])},
            search_config=SearchConfiguration(generations=10, pool_size=20),
            searcher_options={"generational": sys.argv[2] == "True"},
            seed=5,
        ).start(num_workers=int(sys.argv[1]))
'''
EVALUATIONS = 200


@dataclass
class Killed:
    """A search that is killed at random moments and resumed, and what is checked after each kill."""

    scripts: Any
    read: Any
    wait_for: Any
    workers: int
    generational: bool
    rng: random.Random = field(default_factory=lambda: random.Random(11))

    def __post_init__(self) -> None:
        self.folder: Path = self.scripts.folder
        self.script = self.scripts.write(SCRIPT)
        self.run = self.folder / "runs" / "1"
        self.known: set[str] = set()
        self.seen = 0

    def go_on(self) -> Any:
        arguments = [self.run] if self.begun() else []
        return self.scripts.start(self.script, self.workers, self.generational, *arguments)

    def begun(self) -> bool:
        journal = self.run / "journal.jsonl"
        if journal.exists() and b"\n" in journal.read_bytes():
            return True
        if self.run.exists():  # killed before there was anything to go on with
            self.run.rename(self.folder / f"stillborn-{time.monotonic_ns()}")
        return False

    def kill_after(self, evaluations: int | None) -> None:
        """Kill the driver when that many more are back, or (``None``) while it starts."""
        before = self.count()
        driver = self.go_on()
        if evaluations is None:
            time.sleep(self.rng.uniform(0, 1.5))
        else:
            goal = min(before + evaluations, EVALUATIONS - 1)
            self.wait_for(lambda: self.count() >= goal or driver.poll() is not None, "progress")
            time.sleep(self.rng.uniform(0, 0.008))
        if driver.poll() is not None:
            assert driver.returncode == 0, driver.communicate()
        driver.kill()
        driver.wait()
        self.wait_for(lambda: not self.scripts.alive(), "the end of its processes", within=3)
        self.check_last_life()

    def finish(self) -> None:
        driver = self.go_on()
        out, err = driver.communicate(timeout=100)
        assert driver.returncode == 0, out + err
        self.check_last_life()

    def records(self) -> list[dict[str, Any]]:
        return self.read(self.run) if (self.run / "journal.jsonl").exists() else []

    def count(self) -> int:
        journal = self.run / "journal.jsonl"
        return journal.read_bytes().count(b'"t":"outcome"') if journal.exists() else 0

    def outcomes(self) -> list[str]:
        return [record["id"] for record in self.records() if record["t"] == "outcome"]

    def proposals(self) -> list[Any]:
        asks = [record for record in self.records() if record["t"] == "ask"]
        return [(c["id"], c["row"], c["config"]) for ask in asks for c in ask["candidates"]]

    def evaluated(self) -> list[str]:
        log = self.folder / "evaluations.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.dumps(json.loads(line)[0], sort_keys=True) for line in lines]

    def check_last_life(self) -> None:
        """What the process that has just ended did, against the journal it found and the one it left."""
        journalled = {
            json.dumps(config, sort_keys=True)
            for id, _, config in self.proposals()
            if id in set(self.outcomes())
        }
        evaluated = self.evaluated()
        lately, self.seen = evaluated[self.seen :], len(evaluated)
        assert not self.known & set(lately), "a journalled evaluation ran again"
        assert self.known <= journalled, "a journalled evaluation was lost"
        for config, times in Counter(lately).items():
            assert times == 1, f"{config} ran {times} times in one life"
        assert len(set(lately) - journalled) <= self.workers, "more was lost than was in flight"
        assert len(self.outcomes()) == len(set(self.outcomes()))
        self.known = journalled

    def check_end(self) -> None:
        ids = [id for id, _, _ in self.proposals()]
        assert ids == [str(number) for number in range(EVALUATIONS)]
        assert sorted(self.outcomes(), key=int) == ids
        assert self.records()[-1]["reason"] == "finished"
        _header, *rows = (self.run / "results.csv").read_text().splitlines()
        assert len(rows) == EVALUATIONS


@pytest.fixture
def killed(scripts, records, wait_for):
    def make(workers: int, generational: bool) -> Killed:
        return Killed(scripts, records, wait_for, workers, generational)

    return make


def uninterrupted(search: Killed) -> list[Any]:
    """The proposals of the same search without a kill."""
    search.scripts.run(search.script, search.workers, search.generational)
    proposals = search.proposals()
    search.run.rename(search.folder / "uninterrupted")
    (search.folder / "evaluations.log").unlink()
    return proposals


@pytest.mark.parametrize(
    ("workers", "generational"), [pytest.param(1, False, marks=pytest.mark.slow), (2, True)]
)
def test_a_few_kills(killed, workers, generational):
    search = killed(workers, generational)
    expected = uninterrupted(search)
    for evaluations in (0, 60, None, 70):
        search.kill_after(evaluations)
    search.finish()
    search.check_end()
    assert search.proposals() == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("workers", "generational"), [(1, False), (2, True), (2, False)])
def test_fifty_kills(killed, workers, generational):
    search = killed(workers, generational)
    expected = uninterrupted(search)
    for _ in range(50):
        search.kill_after(search.rng.choice([None, *range(8)]))
    search.finish()
    search.check_end()
    if workers == 1 or generational:
        assert search.proposals() == expected
