"""Ctrl-C once and twice, and SIGTERM, sent to a real process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from ciq_ray.interrupts import Interrupts

SCRIPT = '''
"""usage: script.py SECONDS_OF_ONE_EVALUATION [RUN]"""
import os, sys, time

from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import range

SECONDS = float(sys.argv[1])


def objective(config):
    if SECONDS > 5:
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")  # a grandchild that nobody waits for
    time.sleep(SECONDS)
    return config["x"]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        search = Search.resume(sys.argv[2], force=True)
    else:
        search = Search(
            objective_function=objective,
            search_space={"x": range(0, 1000)},
            search_config=SearchConfiguration(generations=2, pool_size=10),
            seed=1,
        )
    try:
        result = search.start(num_workers=2)
        print("result of", len(result.get_results()), flush=True)
    finally:
        print("left in good order", flush=True)
'''


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_first_interrupt_requests_and_second_raises(capsys):
    with Interrupts() as interrupts:
        assert not interrupts.requested
        interrupt()
        assert interrupts.requested
        assert "press Ctrl-C again to stop at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_what_is_waited_for_afterwards_ends_alone(capsys):
    with Interrupts() as interrupts:
        with interrupts.afterwards() as stop_requested:
            assert not stop_requested()
            interrupt()
            assert stop_requested()
            assert not interrupts.requested
            assert "leaving the rest for later" in capsys.readouterr().err
            with pytest.raises(KeyboardInterrupt):
                interrupt()
        with interrupts.afterwards() as stop_requested:
            assert not stop_requested()
        interrupt()
        assert interrupts.requested


def test_sigterm_raises_system_exit():
    with Interrupts(), pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ZeroDivisionError), Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    inside = []

    def work() -> None:
        with Interrupts() as interrupts:
            inside.append((signal.getsignal(signal.SIGINT), interrupts.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, False)]


@pytest.fixture
def running(scripts, tmp_path, wait_for):
    """Starts a search whose evaluations take so long; returns when enough of them are back."""

    def start(seconds: float, back: int):
        process = scripts.start(scripts.write(SCRIPT), seconds)
        journal = tmp_path / "runs" / "1" / "journal.jsonl"

        def there() -> bool:
            assert process.poll() is None, process.communicate()
            data = journal.read_bytes() if journal.exists() else b""
            return data.count(b'"t":"outcome"') >= back and b'"t":"ask"' in data

        wait_for(there, "the search")
        return process

    return start


def test_once_stops_in_good_order_and_the_run_can_go_on(running, scripts, runs, records, wait_for):
    process = running(0.3, back=3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    outcomes = [record for record in records(runs / "1") if record["t"] == "outcome"]
    asked = [c["id"] for record in records(runs / "1") if record["t"] == "ask" for c in record["candidates"]]
    # at most two were in flight when the signal came, plus two sent in the moment before
    assert 5 <= len(outcomes) <= 7
    assert all(record["outcome"]["status"] == "ok" for record in outcomes), "those in flight were finished"
    assert out == f"result of {len(outcomes)}\nleft in good order\n"
    assert "stopping: waiting for the evaluations in flight" in err
    assert f"stopped; go on with: ciq resume {runs / '1'}" in err
    assert records(runs / "1")[-1] == {"t": "end", "reason": "stopped", "at": records(runs / "1")[-1]["at"]}
    assert (runs / "1" / "results.csv").exists()
    wait_for(lambda: not scripts.alive(), "the end of all processes", within=2)

    again = scripts.run(scripts.folder / "script.py", 0.001, runs / "1")
    assert again.stdout.startswith("result of 20\n")
    again_asked = [
        c["id"] for record in records(runs / "1") if record["t"] == "ask" for c in record["candidates"]
    ]
    assert again_asked[: len(asked)] == asked
    assert len(again_asked) == len(set(again_asked)) == 20


def test_twice_stops_at_once(running, scripts, runs, records, wait_for):
    process = running(60, back=0)
    wait_for(lambda: len(scripts.alive()) >= 6, "two evaluations with their grandchildren")
    process.send_signal(signal.SIGINT)
    assert "press Ctrl-C again" in "".join(process.stderr.readline() for _ in range(3))
    time.sleep(0.3)
    assert process.poll() is None, "the evaluations in flight are waited for"
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert process.returncode != 0
    assert err.endswith("KeyboardInterrupt\n")
    assert out == "left in good order\n"
    assert records(runs / "1")[-1]["t"] == "end"
    assert records(runs / "1")[-1]["reason"].startswith("KeyboardInterrupt")
    wait_for(lambda: not scripts.alive(), "the end of all processes", within=2)


def test_sigterm_stops_at_once(running, scripts, runs, records, wait_for):
    process = running(60, back=0)
    wait_for(lambda: len(scripts.alive()) >= 6, "two evaluations with their grandchildren")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert out == "left in good order\n"
    assert records(runs / "1")[-1]["reason"].startswith("SystemExit")
    wait_for(lambda: not scripts.alive(), "the end of all processes", within=2)


def test_signals_while_it_starts_leave_nothing_behind(scripts, wait_for):
    script = scripts.write(SCRIPT)
    for delay in (0.3, 0.6, 0.9):
        process = scripts.start(script, 60)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode in (143, -signal.SIGTERM)
        wait_for(lambda: not scripts.alive(), "the end of all processes", within=3)
