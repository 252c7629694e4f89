from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ciq_ray.gpu import child as module
from ciq_ray.gpu import orphans
from ciq_ray.gpu.child import ChildDied, ChildFailed, ChildTimeout, ForkedChild
from ciq_ray.gpu.child_log import ChildLog

ROOT = Path(__file__).parents[3]

Start = Callable[[Callable[[Any], Any]], ForkedChild]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Forks a child that answers with a function; afterwards nothing is left of it."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with contextlib.ExitStack() as stack:

        def fork(answer: Callable[[Any], Any]) -> ForkedChild:
            child = ForkedChild(lambda: answer, tmp_path / "child.log", grace_s=0.1)
            stack.callback(child.close)
            return child

        yield fork
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert left == []


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def deaf() -> None:
    """Hang, and let nobody end it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


class TestCalls:
    def test_are_answered_in_one_process(self, start: Start) -> None:
        child = start(lambda request: (os.getpid(), request))
        assert [child.call(i, 30) for i in range(3)] == [(child.pid, i) for i in range(3)]
        assert child.pid != os.getpid()
        assert child.alive

    def test_what_the_owner_has_is_there_without_pickling(self, start: Start) -> None:
        cannot_be_pickled = iter(range(5, 9))
        assert start(lambda request: next(cannot_be_pickled)).call(None, 30) == 5

    def test_large_requests_and_answers(self, start: Start) -> None:
        data = os.urandom(8 << 20)
        assert start(lambda request: request[::-1]).call(data, 30) == data[::-1]

    def test_an_exception_is_told_and_survived(self, start: Start) -> None:
        child = start(lambda request: 1 // request)
        with pytest.raises(ChildFailed, match="ZeroDivisionError"):
            child.call(0, 30)
        assert child.call(1, 30) == 1

    def test_sys_exit_is_an_exception(self, start: Start) -> None:
        child = start(sys.exit)
        with pytest.raises(ChildFailed, match="SystemExit: 3"):
            child.call(3, 30)
        assert child.alive

    def test_an_answer_that_cannot_be_pickled(self, start: Start) -> None:
        child = start(lambda request: (lambda: None) if request else "fine")
        with pytest.raises(ChildFailed, match="pickle"):
            child.call(True, 30)
        assert child.call(False, 30) == "fine"

    def test_an_answer_that_cannot_be_read(self, start: Start) -> None:
        child = start(lambda request: Unreadable() if request else "fine")
        with pytest.raises(ChildFailed, match="cannot be read"):
            child.call(True, 30)
        assert child.call(False, 30) == "fine"


class Unreadable:
    def __reduce__(self) -> Any:
        return divmod, (1, 0)


class TestStart:
    def test_takes_its_time(self, tmp_path: Path) -> None:
        child = ForkedChild(lambda: time.sleep(60), tmp_path / "log")  # type: ignore[arg-type]
        with pytest.raises(ChildTimeout, match=r"0\.2 s"):
            child.wait(0.2)
        assert not alive(child.pid)

    def test_fails(self, tmp_path: Path) -> None:
        def serve() -> Any:
            raise RuntimeError("no device")

        child = ForkedChild(serve, tmp_path / "log")
        with pytest.raises(ChildFailed, match="no device"):
            child.wait(30)
        assert not alive(child.pid)

    def test_dies(self, tmp_path: Path) -> None:
        child = ForkedChild(lambda: os._exit(4), tmp_path / "log")
        with pytest.raises(ChildDied, match="exited with code 4"):
            child.call(None, 30)


class TestDeaths:
    @pytest.mark.parametrize(
        ("how", "words"),
        [
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
            (lambda: ctypes.string_at(0), "was killed by SIGSEGV"),
            (lambda: os.abort(), "was killed by SIGABRT"),
            (lambda: os._exit(3), "exited with code 3"),
            (lambda: os._exit(0), "exited with code 0"),
        ],
        ids=["kill", "segfault", "abort", "exit-3", "exit-0"],
    )
    def test_are_named(self, start: Start, how: Callable[[], Any], words: str) -> None:
        child = start(lambda request: how())
        with pytest.raises(ChildDied, match=words):
            child.call(None, 30)
        assert not child.alive
        with pytest.raises(ChildDied, match=words):  # nothing changes by asking again
            child.call(None, 30)

    def test_leave_the_last_output(self, start: Start) -> None:
        def answer(request: Any) -> None:
            print("before", flush=True)
            os.write(2, b"the end is near\n")
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(ChildDied) as caught:
            start(answer).call(None, 30)
        assert caught.value.tail == "before\nthe end is near"

    def test_a_segmentation_fault_leaves_a_traceback(self, start: Start) -> None:
        with pytest.raises(ChildDied) as caught:
            start(lambda request: ctypes.string_at(0)).call(None, 30)
        assert ", line " in caught.value.tail

    def test_between_calls(self, start: Start) -> None:
        child = start(lambda request: os.getpid())
        os.kill(child.call(None, 30), signal.SIGKILL)
        wait_until(lambda: not child.alive)
        with pytest.raises(ChildDied, match="SIGKILL"):
            child.call(None, 30)

    @pytest.mark.parametrize(
        "garbage", [b"", b"\0\0\0\4junk", b"\xff\xff\xff\xff"], ids=["closes", "junk", "huge"]
    )
    def test_of_its_connection(self, start: Start, garbage: bytes) -> None:
        def answer(request: Any) -> None:
            for name in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                        os.write(int(name), garbage)
                        os.close(int(name))
            time.sleep(60)

        child = start(answer)
        with pytest.raises((ChildDied, ChildFailed)):
            child.call(None, 30)
        if child.alive:
            with pytest.raises(ChildDied):
                child.call(None, 30)


class TestTimeouts:
    @pytest.mark.parametrize("hang", [lambda: time.sleep(60), deaf], ids=["asleep", "deaf"])
    def test_end_it(self, start: Start, hang: Callable[[], None]) -> None:
        child = start(lambda request: hang() if request else "ready")
        assert child.call(False, 30) == "ready"
        with pytest.raises(ChildTimeout, match=r"longer than 0\.3 s"):
            child.call(True, 0.3)
        assert not alive(child.pid)

    def test_what_it_may_clean_up_it_does(self, start: Start, tmp_path: Path) -> None:
        def clean_up(number: int, frame: object) -> None:
            (tmp_path / "clean").touch()
            os._exit(0)

        def answer(request: Any) -> None:
            signal.signal(signal.SIGTERM, clean_up)
            time.sleep(60 if request else 0)

        child = ForkedChild(lambda: answer, tmp_path / "log", grace_s=30)
        child.call(False, 30)
        with pytest.raises(ChildTimeout):
            child.call(True, 0.3)
        assert (tmp_path / "clean").exists()

    def test_a_request_that_is_not_read(self, start: Start) -> None:
        child = start(lambda request: request)
        child.wait(30)
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(ChildTimeout):
            child.call(os.urandom(4 << 20), 0.5)
        assert not alive(child.pid)

    def test_one_that_does_not_die_is_waited_for_no_longer_than_asked(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        child = start(lambda request: deaf())
        with monkeypatch.context() as patch:
            # as a driver does that keeps a process while its kernel runs
            for place in (module, orphans):
                patch.setattr(place, "kill_families", lambda *arguments: time.sleep(0.2))
            with contextlib.suppress(ZeroDivisionError):
                interrupted(lambda: child.call(None, 60), after_s=0.2)
            begun = time.monotonic()
            child.close(0.2)
            assert time.monotonic() - begun < 4
        assert alive(child.pid)
        with pytest.raises(ChildDied, match="does not end, not even by SIGKILL"):
            child.call(None, 1)
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)


def interrupted(call: Callable[[], Any], after_s: float) -> None:
    """As a signal's handler would that raises."""

    def handler(number: int, frame: Any) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after_s)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TestFamilies:
    @staticmethod
    def fork_away(path: Path) -> None:
        """A grandchild in a session of its own whose parent is dead: nothing ties it to the child."""
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                path.write_text(str(os.getpid()))
                deaf()
            os._exit(0)
        os.wait()
        while not path.exists() or not path.read_text():
            time.sleep(0.001)

    @pytest.mark.parametrize("end", ["close", "death", "timeout"])
    def test_end_with_it(self, start: Start, tmp_path: Path, end: str) -> None:
        path = tmp_path / "pid"

        def answer(request: Any) -> None:
            if request == "begin":
                self.fork_away(path)
                subprocess.Popen(["sleep", "600"], start_new_session=True)
            elif request == "death":
                os._exit(1)
            else:
                deaf()

        child = start(answer)
        child.call("begin", 60)
        assert alive(int(path.read_text()))
        if end == "death":
            with pytest.raises(ChildDied):
                child.call(end, 60)
        elif end == "timeout":
            with pytest.raises(ChildTimeout):
                child.call(end, 0.3)
        else:
            child.close()
        assert not alive(int(path.read_text()))

    def test_others_are_left_alone(self, start: Start) -> None:
        bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            child = start(lambda request: os._exit(1))
            with pytest.raises(ChildDied):
                child.call(None, 30)
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()

    def test_a_copy_that_comes_back_is_no_child(self, start: Start) -> None:
        def answer(request: Any) -> int:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return os.getpid()

        child = start(answer)
        assert [child.call(None, 30) for _ in range(2)] == [child.pid] * 2


class TestOutput:
    def test_a_flood_neither_blocks_nor_fills_the_disk(self, start: Start, tmp_path: Path) -> None:
        def answer(request: Any) -> str:
            for _ in range(200):
                os.write(2, b"x" * (1 << 20))
            print("the end", flush=True)
            return "done"

        child = start(answer)
        assert child.call(None, 120) == "done"
        size = (tmp_path / "child.log").stat().st_size
        assert 0 < size <= (256 << 10) + 100
        assert "not kept" in (tmp_path / "child.log").read_text()

    def test_the_log_is_bounded_over_many_calls(self, start: Start, tmp_path: Path) -> None:
        child = start(lambda request: os.write(1, b"y" * (1 << 19)))
        for _ in range(50):
            child.call(None, 30)
        assert (tmp_path / "child.log").stat().st_size <= (8 << 20) + (512 << 10)

    def test_what_a_link_leads_to_is_not_emptied(self, tmp_path: Path) -> None:
        # /dev/stderr, which may be a file of the user's
        target, link = tmp_path / "target", tmp_path / "link"
        with target.open("wb") as file:
            file.truncate(9 << 20)
        link.symlink_to(target)
        ChildLog(link).begin()
        assert target.stat().st_size == 9 << 20
        ChildLog(target).begin()
        assert target.stat().st_size == 0

    def test_a_full_disk_does_not_matter(self) -> None:
        child = ForkedChild(lambda: lambda request: os.write(2, b"x" * 1000), Path("/dev/full"))
        assert child.call(None, 30) == 1000
        child.close()

    def test_there_is_no_input(self, start: Start) -> None:
        assert start(lambda request: os.read(0, 10)).call(None, 30) == b""

    def test_what_the_owner_had_not_written_is_written_once(self, tmp_path: Path) -> None:
        script = (
            "import sys; from pathlib import Path; from ciq_ray.gpu.child import ForkedChild\n"
            "sys.stdout.write('once ')\n"
            f"child = ForkedChild(lambda: print, Path({str(tmp_path / 'log')!r}))\n"
            "child.call('inside', 30); child.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert done.stdout == "once "
        assert (tmp_path / "log").read_text() == "inside\n"


class TestOwner:
    def test_its_death_is_the_childs(self, tmp_path: Path) -> None:
        script = (
            "import os, signal, sys, time; from pathlib import Path\n"
            "from ciq_ray.gpu.child import ForkedChild\n"
            "def answer(request):\n"
            "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "    Path(sys.argv[1]).write_text(str(os.getpid()))\n"
            "    time.sleep(600)\n"
            "ForkedChild(lambda: answer, Path(os.devnull)).call(None, 600)\n"
        )
        path = tmp_path / "pid"
        owner = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT)
        try:
            wait_until(lambda: path.exists() and path.read_text() != "")
            pid = int(path.read_text())
            assert alive(pid)
        finally:
            owner.kill()
            owner.wait()
        wait_until(lambda: not alive(pid))

    def test_its_signal_handlers_are_its_own(self, start: Start, tmp_path: Path) -> None:
        before = signal.signal(signal.SIGTERM, lambda number, frame: (tmp_path / "undone").touch())
        try:
            child = start(lambda request: time.sleep(60))
            with pytest.raises(ChildTimeout):
                child.call(None, 0.3)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert not (tmp_path / "undone").exists()

    def test_its_lock_is_not_the_childs(self, start: Start, tmp_path: Path) -> None:
        import fcntl

        first, second = ((tmp_path / "lock").open("w") for _ in range(2))
        with first, second:
            fcntl.flock(first, fcntl.LOCK_EX)
            child = start(lambda request: request)
            assert child.call(1, 30) == 1
            first.close()
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)  # would raise if the child had it

    def test_nothing_at_exit_runs_in_the_child(self, tmp_path: Path) -> None:
        script = (
            "import atexit, os; from pathlib import Path; from ciq_ray.gpu.child import ForkedChild\n"
            "atexit.register(lambda: print('undo'))\n"
            "child = ForkedChild(lambda: lambda request: request, Path(os.devnull))\n"
            "child.call(1, 30); child.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert done.stdout == "undo\n"

    def test_orphans_of_others_go_where_they_went_before(self, start: Start) -> None:
        value = ctypes.c_int(-1)
        child = start(lambda request: request)
        child.close()
        ctypes.CDLL(None).prctl(37, ctypes.byref(value), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
        assert value.value == 0


def wait_until(condition: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
