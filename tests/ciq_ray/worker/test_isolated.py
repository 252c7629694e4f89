from __future__ import annotations

import os
import signal
import time

from ciq_ray.worker import IsoMultiProcessWorker
from ciq_ray.worker.protocol import Task


def test_a_fresh_interpreter_for_each_evaluation(opened):
    state = []

    def objective(config):
        state.append(1)
        return len(state)

    reports = opened(IsoMultiProcessWorker, objective, num_workers=2).evaluate(*range(6))
    assert [report.outcome.values for report in reports] == [(1.0,)] * 6
    assert len({report.pid for report in reports}) == 6
    assert {report.worker for report in reports} == {"isolated-0", "isolated-1"}


def test_the_next_process_starts_meanwhile(opened, tmp_path, monkeypatch):
    (tmp_path / "heavy_import.py").write_text(
        "import time; time.sleep(0.5)\ndef objective(config): time.sleep(0.7); return time.time()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_import

    first, second = opened(IsoMultiProcessWorker, heavy_import.objective).evaluate(None, None)
    # 0.7 s apart if the second import was over when the first evaluation ended, 1.2 s if it began then
    assert second.outcome.values[0] - first.outcome.values[0] < 1.1


def test_failures_and_deaths(opened):
    def objective(kind):
        if kind == "raise":
            raise ValueError("no")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    driver = opened(IsoMultiProcessWorker, objective, num_workers=2)
    reports = driver.evaluate("raise", "kill", "fine", "kill", "fine")
    assert [r.outcome.status for r in reports] == ["run_error", "run_error", "ok", "run_error", "ok"]
    assert "SIGKILL" in reports[1].outcome.message


def test_a_process_that_does_not_end_is_ended(opened, wait_until, alive):
    def objective(config):
        import threading

        threading.Thread(target=time.sleep, args=(60,)).start()
        return 1.0

    driver = opened(IsoMultiProcessWorker, objective)
    reports = driver.evaluate(None, None)
    assert all(report.outcome.ok for report in reports)
    wait_until(lambda: driver.worker.poll(0) == [] and not any(alive(report.pid) for report in reports), 3)


def test_what_an_evaluation_leaves_in_its_group_is_ended(opened, wait_until, alive):
    def objective(config):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        return pid

    driver = opened(IsoMultiProcessWorker, objective)
    grandchild = int(driver.one().outcome.values[0])
    wait_until(lambda: driver.worker.poll(0) == [] and not alive(grandchild))


def test_cancel(opened):
    driver = opened(IsoMultiProcessWorker, lambda seconds: time.sleep(seconds) or 1.0)
    driver.worker.submit(Task("a", 60))
    driver.worker.poll(0.3)
    assert driver.worker.cancel() == ["a"]
    assert driver.evaluate(0, 0)[1].outcome.ok
