from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from ciq_ray.errors import ConfigurationError, ObjectiveFailure, WorkerError
from ciq_ray.worker import MultiProcessWorker
from ciq_ray.worker.protocol import Task


def square(config):
    return config["x"] ** 2


def test_values_seconds_name_and_pid(opened):
    def objective(config):
        time.sleep(0.05)
        return config["x"], os.getpid()

    report = opened(MultiProcessWorker, objective, num_objectives=2).one({"x": 3})
    assert report.outcome.status == "ok"
    assert report.outcome.values == (3.0, report.pid)
    assert report.outcome.run_s >= 0.05
    assert report.worker == "native-0"
    assert report.pid != os.getpid()
    assert report.baseline is None


def test_results_stream_as_they_come(opened):
    def objective(seconds):
        time.sleep(seconds)
        return seconds

    worker = opened(MultiProcessWorker, objective, num_workers=2).worker
    assert worker.free == 2
    worker.submit(Task("slow", 1.0))
    worker.submit(Task("fast", 0.01))
    assert worker.free == 0
    with pytest.raises(WorkerError, match="nothing is free"):
        worker.submit(Task("more", 0.01))
    assert [report.task_id for report in worker.poll(10)] == ["fast"]
    assert worker.free == 1
    assert worker.poll(0) == []
    assert [report.task_id for report in worker.poll(10)] == ["slow"]


def test_poll_waits_no_longer_than_told(opened):
    worker = opened(MultiProcessWorker, lambda config: time.sleep(5)).worker
    worker.submit(Task("a", None))
    started = time.monotonic()
    assert worker.poll(0.2) == []
    assert 0.15 < time.monotonic() - started < 1.0


def test_processes_live_on_between_tasks(opened):
    state = []

    def objective(config):
        state.append(1)
        return len(state)

    reports = opened(MultiProcessWorker, objective).evaluate(None, None, None)
    assert [report.outcome.values for report in reports] == [(1.0,), (2.0,), (3.0,)]
    assert len({report.pid for report in reports}) == 1


def test_one_task_at_a_time_in_each_process(opened, tmp_path):
    def objective(path):
        marker = os.path.join(path, str(os.getpid()))
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        time.sleep(0.005)
        os.unlink(marker)
        return 1.0

    reports = opened(MultiProcessWorker, objective, num_workers=2).evaluate(*[str(tmp_path)] * 30)
    assert all(report.outcome.ok for report in reports)


def test_the_objective_gets_its_own_copy(opened):
    def objective(config):
        config["x"].append(1)
        return len(config["x"])

    config = {"x": []}
    reports = opened(MultiProcessWorker, objective).evaluate(config, config)
    assert config == {"x": []}
    assert [report.outcome.values for report in reports] == [(1.0,), (1.0,)]


# --- what can be an objective ---


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, config):
        return self.factor * config["x"]

    def method(self, config):
        return self.factor + config["x"]


def test_kinds_of_callables(opened):
    offset = 10
    for function, expected in [
        (square, 9),
        (lambda config: config["x"] + offset, 13),
        (functools.partial(lambda factor, config: factor * config["x"], 5), 15),
        (Scaled(2), 6),
        (Scaled(2).method, 5),
        (functools.partial(square), 9),
        (math.sqrt, 2),
    ]:
        config = 4 if function is math.sqrt else {"x": 3}
        assert opened(MultiProcessWorker, function).one(config).outcome.values == (expected,)


def test_functions_of_main_and_their_globals(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from dataclasses import dataclass\n"
        "from ciq_ray.worker import MultiProcessWorker\n"
        "from ciq_ray.worker.protocol import Task\n"
        "@dataclass\n"
        "class Tile:\n"
        "    side: int\n"
        "def helper(tile): return math.sqrt(tile.side)\n"
        "def objective(config): return helper(config['tile'])\n"
        "if __name__ == '__main__':\n"
        "    worker = MultiProcessWorker('.')\n"
        "    worker.open(objective, num_workers=1)\n"
        "    worker.submit(Task('a', {'tile': Tile(16)}))\n"
        "    print(worker.poll(30)[0].outcome.values)\n"
        "    worker.close()\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.stdout == "(4.0,)\n", run.stderr


def test_modules_a_fresh_interpreter_cannot_import(opened, monkeypatch):
    module = types.ModuleType("made_up_module")
    source = "class Point:\n    x = 7\ndef helper(p): return p.x\ndef objective(p): return helper(p)\n"
    exec(compile(source, "made_up_module.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "made_up_module", module)
    report = opened(MultiProcessWorker, module.objective).one(module.Point())
    assert report.outcome.values == (7.0,)


def test_configurations_may_hold_anything_that_cloudpickle_takes(opened):
    class Tile:
        def __init__(self, side):
            self.side = side

    def objective(config):
        return config["tile"].side + config["f"](1)

    config = {"tile": Tile(3), "f": lambda x: x + 1}
    reports = opened(MultiProcessWorker, objective).evaluate(config, config)
    assert [report.outcome.values for report in reports] == [(5.0,), (5.0,)]


def test_configurations_of_a_module_a_fresh_interpreter_cannot_import(opened, monkeypatch):
    module = types.ModuleType("another_made_up_module")
    exec("class Point:\n    x = 7\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert opened(MultiProcessWorker, lambda point: point.x).one(module.Point()).outcome.values == (7.0,)


def test_modules_on_our_path_go_by_name(opened, tmp_path, monkeypatch):
    (tmp_path / "on_our_path.py").write_text("def objective(config): return len(__file__) > 0 and 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    import on_our_path

    assert opened(MultiProcessWorker, on_our_path.objective).one().outcome.values == (5.0,)


def test_what_cannot_be_sent_is_named_before_anything_starts(tmp_path):
    lock = threading.Lock()

    def objective(config):
        with lock:
            return 1.0

    worker = MultiProcessWorker(tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"`objective_function`.*`lock` of the enclosing function, a _thread.lock"
    ):
        worker.open(objective, num_workers=1, task_timeout=None)
    with pytest.raises(ConfigurationError, match="must be callable"):
        worker.open(3, num_workers=1)
    with pytest.raises(WorkerError, match="not open"):
        worker.poll(0)


def test_a_configuration_that_cannot_be_sent(opened):
    driver = opened(MultiProcessWorker, lambda config: 1.0)
    with pytest.raises(ConfigurationError, match="cannot be sent"):
        driver.worker.submit(Task("a", {"x": threading.Lock()}))
    assert driver.one({"x": lambda: 1}).outcome.ok


def test_a_function_the_process_cannot_load_ends_the_search(opened, tmp_path, monkeypatch):
    path = tmp_path / "comes_and_goes.py"
    path.write_text("def objective(config): return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import comes_and_goes

    objective = comes_and_goes.objective
    assert opened(MultiProcessWorker, objective).one().outcome.ok
    path.write_text("import not_installed_anywhere\n")
    driver = opened(MultiProcessWorker, objective)
    driver.worker.submit(Task("a", None))
    with pytest.raises(
        WorkerError, match=r"(?s)cannot load the objective.*ModuleNotFoundError.*not_installed_anywhere"
    ):
        driver.worker.poll(30)
    with pytest.raises(WorkerError, match="cannot load"):
        driver.worker.poll(0)


def test_a_process_that_dies_while_loading_ends_the_search(opened, tmp_path, monkeypatch):
    path = tmp_path / "dies_when_imported.py"
    path.write_text("def objective(config): return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import dies_when_imported

    path.write_text("import os, sys; print('bad driver', file=sys.stderr); sys.stderr.flush(); os._exit(9)\n")
    driver = opened(MultiProcessWorker, dies_when_imported.objective)
    driver.worker.submit(Task("a", None))
    with pytest.raises(WorkerError, match=r"(?s)exited with code 9 before it had loaded.*bad driver"):
        driver.worker.poll(30)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_workers": 0}, "`num_workers` is 0"),
        ({"num_workers": True}, "`num_workers` is True"),
        ({"task_timeout": 0}, "`task_timeout` is 0"),
        ({"task_timeout": math.nan}, "`task_timeout` is nan"),
        ({"task_timeout": "1"}, "`task_timeout` is '1'"),
        ({"num_objectives": 0}, "`num_objectives` is 0"),
    ],
)
def test_bad_options(tmp_path, options, words):
    with pytest.raises(ConfigurationError, match=words):
        MultiProcessWorker(tmp_path).open(square, **{"num_workers": 1, "task_timeout": None, **options})


def test_an_asynchronous_objective_is_refused(tmp_path):
    async def objective(config):
        return 1.0

    with pytest.raises(ConfigurationError, match=r"asynchronous; use WorkerTypes.ASYNC"):
        MultiProcessWorker(tmp_path).open(objective, num_workers=1)


def test_processes_that_cannot_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    with pytest.raises(WorkerError, match=r"cannot start worker processes.*no-such-python"):
        MultiProcessWorker(tmp_path).open(square, num_workers=1)


# --- objectives that fail ---


def test_exceptions_are_run_errors_with_a_traceback_and_output(opened):
    def inner():
        raise ValueError("tile 12 does not divide 64")

    def objective(config):
        print("compiling for sm_90")
        print("warning: slow", file=sys.stderr)
        inner()

    driver = opened(MultiProcessWorker, objective)
    first, second = driver.evaluate(None, None)
    assert first.outcome.status == "run_error"
    assert first.outcome.message.startswith("ValueError: tile 12 does not divide 64\n")
    assert "in inner" in first.outcome.message
    assert "child.py" not in first.outcome.message
    assert first.outcome.message.count("compiling for sm_90") == 1
    assert "warning: slow" in first.outcome.message
    # what an earlier task printed is not in a later one's message, and the process lives on
    assert second.outcome.message.count("compiling for sm_90") == 1
    assert first.pid == second.pid


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (MemoryError("2 TB"), "resource_exceeded", "MemoryError: 2 TB"),
        (ObjectiveFailure("compile_error", "ptxas said no"), "compile_error", "ptxas said no"),
        (ObjectiveFailure("wrong"), "wrong", "wrong"),
        (SystemExit(3), "run_error", "SystemExit: 3"),
        (KeyboardInterrupt(), "run_error", "KeyboardInterrupt"),
        (RecursionError("deep"), "run_error", "RecursionError: deep"),
    ],
)
def test_kinds_of_exceptions(opened, error, status, message):
    def objective(config):
        if config is not None:
            return config
        raise error

    failed, fine = opened(MultiProcessWorker, objective).evaluate(None, 1.0)
    assert failed.outcome.status == status
    assert failed.outcome.message.splitlines()[0] == message
    assert fine.outcome.values == (1.0,)
    assert fine.pid == failed.pid


def test_any_exception_with_a_known_status_says_how_it_failed(opened):
    class Refused(Exception):
        status = "compile_timeout"

    class HttpError(Exception):
        status = 404

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    def objective(kind):
        raise [Refused("60 s"), HttpError("not there"), Broken()][kind]

    reports = opened(MultiProcessWorker, objective).evaluate(0, 1, 2)
    assert [report.outcome.status for report in reports] == ["compile_timeout", "run_error", "run_error"]
    assert reports[0].outcome.message == "60 s"
    assert reports[1].outcome.message.startswith("HttpError: not there")


def test_bad_return_values_are_invalid_results(opened):
    def objective(kind):
        import threading

        return {
            "nan": math.nan,
            "text": "fast",
            "none": None,
            "three": (1, 2, 3),
            "huge": "x" * 50_000_000,
            "unpicklable": threading.Lock(),
            "invalid": (1.0, "*"),
        }[kind]

    kinds = ["nan", "text", "none", "three", "huge", "unpicklable", "invalid"]
    reports = opened(MultiProcessWorker, objective, num_objectives=2).evaluate(*kinds)
    assert {report.outcome.status for report in reports} == {"invalid_result"}
    messages = dict(zip(kinds, [report.outcome.message for report in reports], strict=True))
    assert "3 values" in messages["three"]
    assert "a lock" in messages["unpicklable"]
    assert len(messages["huge"]) < 300
    assert messages["invalid"] == "the objective reported an invalid score"


def test_a_megabyte_of_output(opened, tmp_path):
    def objective(config):
        print("x" * 1_000_000)
        print("the end")
        raise ValueError("loud")

    report = opened(MultiProcessWorker, objective, log_dir=tmp_path / "logs").one()
    assert report.outcome.message.startswith("ValueError: loud")
    assert report.outcome.message.endswith("the end")
    assert len(report.outcome.message) < 5000
    assert (tmp_path / "logs" / "native-0.log").stat().st_size > 1_000_000


def test_a_large_log_is_emptied_between_tasks(opened, tmp_path):
    def objective(size):
        print("x" * size)
        return 1.0

    log = tmp_path / "native-0.log"
    driver = opened(MultiProcessWorker, objective, log_dir=tmp_path)
    driver.one(9 << 20)
    assert log.stat().st_size > 8 << 20
    driver.one(10)
    assert log.stat().st_size == 11


def test_standard_input_is_empty(opened):
    def objective(config):
        return len(sys.stdin.read())

    assert opened(MultiProcessWorker, objective).one().outcome.values == (0.0,)


# --- processes that die ---


def test_death_is_reported_with_its_reason_and_the_process_replaced(opened):
    def objective(kind):
        print("last words", flush=True)
        if kind == "exit":
            os._exit(7)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "segv":
            import ctypes

            ctypes.string_at(0)
        return 1.0

    reports = opened(MultiProcessWorker, objective).evaluate("exit", "kill", "segv", "fine")
    assert [report.outcome.status for report in reports] == ["run_error"] * 3 + ["ok"]
    exited, killed, crashed, _ = (report.outcome.message for report in reports)
    assert "exited with code 7" in exited
    assert "last words" in exited
    assert "SIGKILL" in killed
    assert "out of memory" in killed
    assert "SIGSEGV" in crashed
    assert "in objective" in crashed, "the Python traceback of the crash is in the output"
    assert len({report.pid for report in reports}) == 4


def test_death_is_noticed_although_a_grandchild_holds_everything_open(opened, alive, wait_until):
    def objective(config):
        for fd in range(3, 32):
            with contextlib.suppress(OSError):
                os.dup(fd)  # copies of the connection among them, which nobody closes
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        os.write(1, f"grandchild {pid}\n".encode())
        os._exit(1)

    started = time.monotonic()
    report = opened(MultiProcessWorker, objective).one()
    assert time.monotonic() - started < 5
    assert report.outcome.status == "run_error"
    grandchild = int(report.outcome.message.split("grandchild ")[1].split()[0])
    wait_until(lambda: not alive(grandchild))


def test_an_idle_process_that_dies_costs_no_task(opened, wait_until, alive):
    driver = opened(MultiProcessWorker, lambda config: 1.0)
    first = driver.one()
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not alive(first.pid))
    second = driver.one()
    assert second.outcome.ok
    assert second.pid != first.pid


def test_an_idle_process_that_does_not_read_costs_no_task(opened, monkeypatch):
    monkeypatch.setattr("ciq_ray.worker.process._SEND_LIMIT_S", 0.3)
    driver = opened(MultiProcessWorker, lambda config: 1.0)
    first = driver.one()
    os.kill(first.pid, signal.SIGSTOP)
    second = driver.one("x" * 5_000_000)
    assert second.outcome.ok
    assert second.pid != first.pid


def test_closed_descriptors_are_a_failure_with_a_reason(opened):
    def objective(config):
        if config == "close":
            os.closerange(3, 256)
        return 1.0

    closed, fine = opened(MultiProcessWorker, objective).evaluate("close", None)
    assert closed.outcome.status == "run_error"
    assert fine.outcome.ok


def test_garbage_on_the_connection_is_a_failure_with_a_reason(opened):
    def objective(config):
        import socket
        import stat

        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    socket.socket(fileno=os.dup(fd)).send(b"\xff" * 100)
            except OSError:
                pass
        time.sleep(5)

    report = opened(MultiProcessWorker, objective).one()
    assert report.outcome.status == "run_error"
    assert "lost its connection" in report.outcome.message


def test_a_forked_copy_that_returns_is_no_second_worker(opened, tmp_path):
    def objective(path):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
        return os.getpid()

    path = str(tmp_path / "calls")
    driver = opened(MultiProcessWorker, objective, log_dir=tmp_path)
    reports = driver.evaluate(path, path)
    assert [report.outcome.values for report in reports] == [(report.pid,) for report in reports]
    assert driver.worker.poll(0.2) == []
    assert len((tmp_path / "calls").read_text().split()) == 4
    assert (tmp_path / "native-0.log").read_text() == ""


def test_a_forked_copy_that_raises_is_no_second_worker(opened):
    def objective(config):
        if os.fork() == 0:
            raise ValueError("the copy")
        time.sleep(0.1)
        return 1.0

    driver = opened(MultiProcessWorker, objective)
    assert driver.one().outcome.ok
    assert driver.worker.poll(0.2) == []


# --- cancel and close ---


def test_cancel_kills_what_is_in_flight_and_goes_on(opened, wait_until, alive):
    def objective(seconds):
        time.sleep(seconds)
        return os.getpid()

    driver = opened(MultiProcessWorker, objective, num_workers=2)
    pids = {report.pid for report in driver.evaluate(0.05, 0.05)}
    driver.worker.submit(Task("x", 60))
    driver.worker.submit(Task("y", 60))
    started = time.monotonic()
    assert sorted(driver.worker.cancel()) == ["x", "y"]
    assert time.monotonic() - started < 1
    assert not any(alive(pid) for pid in pids)
    assert driver.worker.free == 2
    assert driver.worker.poll(0.1) == []
    assert driver.one(0).outcome.ok
    assert driver.worker.cancel() == []


def test_what_is_finished_is_reported_although_the_rest_is_cancelled(opened):
    driver = opened(MultiProcessWorker, lambda seconds: time.sleep(seconds) or 1.0, num_workers=2)
    driver.evaluate(0, 0)
    driver.worker.submit(Task("finished", 0))
    driver.worker.submit(Task("running", 60))
    time.sleep(0.3)
    assert driver.worker.cancel() == ["running"]
    assert [report.task_id for report in driver.worker.poll(0)] == ["finished"]


def test_close_leaves_nothing_and_can_be_repeated(tmp_path, alive):
    def objective(config):
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        print(child.pid, flush=True)
        time.sleep(60)

    worker = MultiProcessWorker(tmp_path)
    worker.open(objective, num_workers=2, task_timeout=None, log_dir=tmp_path)
    worker.submit(Task("a", None))
    log = tmp_path / "native-0.log"
    deadline = time.monotonic() + 10
    while not (log.exists() and log.read_text().strip()):
        worker.poll(0.02)
        assert time.monotonic() < deadline
    grandchild = int(log.read_text())
    started = time.monotonic()
    worker.close()
    assert time.monotonic() - started < 1.5
    assert not alive(grandchild)
    worker.close()
    with pytest.raises(WorkerError, match="not open"):
        worker.submit(Task("b", None))


def test_an_idle_process_may_clean_up(tmp_path):
    def objective(path):
        import atexit

        atexit.register(lambda: open(path, "w").close())
        return 1.0

    worker = MultiProcessWorker(tmp_path)
    worker.open(objective, num_workers=1, task_timeout=None)
    worker.submit(Task("a", str(tmp_path / "cleaned")))
    assert worker.poll(30)[0].outcome.ok
    worker.close()
    assert (tmp_path / "cleaned").exists()


def test_temporary_logs_are_removed(opened, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    driver = opened(MultiProcessWorker, lambda config: print("x") or 1.0)
    driver.one()
    assert list(tmp_path.glob("ciq-*/*.log"))
    driver.worker.close()
    assert not list(tmp_path.glob("ciq-*"))
