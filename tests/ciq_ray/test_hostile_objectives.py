"""Objectives that do everything wrong, together in one search, which goes on."""

from __future__ import annotations

import math
from typing import Any

import psutil
import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import choice
from ciq_ray.types import WorkerTypes

EXPECTED = {
    "fine": ("ok", ""),
    "raises": ("run_error", "ValueError: no good"),
    "raises what it likes": ("run_error", "its text cannot be had"),
    "exits": ("run_error", "SystemExit: 3"),
    "interrupts": ("run_error", "KeyboardInterrupt"),
    "says why": ("compile_error", "ptxas said no"),
    "wrong shape": ("invalid_result", "2 values; expected a number"),
    "empty": ("invalid_result", "0 values"),
    "nothing": ("invalid_result", "None"),
    "nan": ("invalid_result", "nan"),
    "inf": ("invalid_result", "inf"),
    "string": ("invalid_result", "a str ('12')"),
    "bool": ("invalid_result", "a bool (True)"),
    "invalid": ("invalid_result", "the objective reported an invalid score"),
    "huge number": ("invalid_result", "an integer too large for a float"),
    "unpicklable": ("invalid_result", "a function"),
    "hangs": ("run_timeout", "longer than 1.5 s"),
    "forks": ("ok", ""),
    "forks and returns twice": ("ok", ""),
    "dies": ("run_error", "exited with code 7"),
    "segfaults": ("run_error", "was killed by SIGSEGV"),
    "aborts": ("run_error", "was killed by SIGABRT"),
    "is killed": ("run_error", "was killed by SIGKILL"),
    "prints": ("ok", ""),
    "prints and raises": ("run_error", "RuntimeError: after a megabyte"),
    "needs too much": ("resource_exceeded", "MemoryError"),
    "leaks": ("ok", ""),
    "recurses": ("run_error", "RecursionError"),
    "closes everything": ("run_error", ""),
}

LEAKED: list[bytes] = []


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class SaidError(Exception):
    status = "compile_error"


def hostile(config: dict[str, Any]) -> Any:
    import os
    import signal
    import subprocess
    import sys
    import time

    def recurse(depth: int) -> int:
        return recurse(depth + 1) + 1

    match config["kind"]:
        case "raises":
            raise ValueError("no good")
        case "raises what it likes":
            raise TextlessError
        case "exits":
            sys.exit(3)
        case "interrupts":
            raise KeyboardInterrupt
        case "says why":
            raise SaidError("ptxas said no")
        case "wrong shape":
            return (1.0, 2.0)
        case "empty":
            return []
        case "nothing":
            return None
        case "nan":
            return float("nan")
        case "inf":
            return -float("inf")
        case "string":
            return "12"
        case "bool":
            return True
        case "invalid":
            return "*"
        case "huge number":
            return 10**400
        case "unpicklable":
            return lambda: 1
        case "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            time.sleep(600)
        case "forks":
            if os.fork() == 0:
                time.sleep(600)
        case "forks and returns twice":
            os.fork()
        case "dies":
            os._exit(7)
        case "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "aborts":
            os.abort()
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "prints":
            print("x" * (1 << 20))
            print("y" * (1 << 20), file=sys.stderr)
        case "prints and raises":
            print("z" * (1 << 20))
            raise RuntimeError("after a megabyte")
        case "needs too much":
            bytearray(1 << 60)
        case "leaks":
            LEAKED.append(bytes(30 << 20))
        case "recurses":
            return recurse(0)
        case "closes everything":
            os.closerange(0, 1 << 16)
    return 1.0


@pytest.mark.parametrize(
    "worker", [WorkerTypes.NATIVE, pytest.param(WorkerTypes.ISOLATED, marks=pytest.mark.slow)]
)
def test_each_is_recorded_under_its_kind_and_the_search_goes_on(worker, runs, records):
    search = Search(
        objective_function=hostile,
        search_space={"kind": choice(list(EXPECTED))},
        search_config=SearchConfiguration(generations=10, pool_size=10),
        worker_type=worker,
        searcher="random",
        disable_progress_bar=True,
        exit_on_failure=False,
        seed=3,
    )
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    table = search.start(num_workers=2, task_timeout=1.5).get_results()

    assert len(table) == len(EXPECTED)
    for row in table.to_dict("records"):
        kind = row["params"]["kind"]
        status, message = EXPECTED[kind]
        assert row["status"] == status, f"{kind}: {row['message']}"
        assert message in row["message"], kind
        assert row["score"] == 1.0 if status == "ok" else math.isnan(row["score"])
        assert len(row["message"]) < 20_000, kind
    journalled = {
        record["id"]: record["outcome"] for record in records(runs / "1") if record["t"] == "outcome"
    }
    assert len(journalled) == len(table)
    for row in table.to_dict("records"):
        assert journalled[str(row["param_id"])]["status"] == row["status"]
    left = {process.pid for process in psutil.Process().children(recursive=True)} - before
    assert not left, "the search left processes behind"
