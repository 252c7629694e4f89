"""Locks among processes: who holds them, and that they end with whoever does."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu import locks
from ciq_ray.gpu.locks import HostLock, Owner, release_command, state_folder

UUID = "GPU-00000001-1111-2222-3333-444444444444"

HOLDER = """
import os, sys, time
from ciq_ray.gpu.locks import HostLock
lock = HostLock(sys.argv[1], "timing")
lock.acquire(0.0)
if sys.argv[2] == "fork" and os.fork() == 0:
    print("held", flush=True)
    time.sleep(600)
if sys.argv[2] != "fork":
    print("held", flush=True)
time.sleep(float(sys.argv[3]))
lock.release()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CIQ_GPU_STATE_DIR", str(tmp_path / "states"))
    return tmp_path / "states"


@pytest.fixture
def holder(folder, scripts):
    """Starts a process that holds the lock."""

    def start(how="alone", seconds=600):
        process = scripts.start(scripts.write(HOLDER), UUID, how, seconds)
        assert process.stdout.readline() == "held\n", process.stderr.read()
        return process

    return start


def test_one_at_a_time_and_who(holder):
    process = holder()
    with pytest.raises(ConfigurationError) as caught:
        HostLock(UUID, "timing").acquire(0.0)
    for part in (UUID, "is in use", f"process {process.pid} of", "since 20", "script.py", "timing on it"):
        assert part in str(caught.value)
    owner = HostLock(UUID, "timing").holder()
    assert (owner.pid, owner.alive) == (process.pid, True)
    HostLock(UUID, "clocks").acquire(0.0)


def test_it_is_waited_for(holder):
    holder(seconds=0.3)
    lock = HostLock(UUID, "timing")
    lock.acquire(60.0)
    assert lock.holder().pid == os.getpid()
    lock.release()
    assert lock.holder() is None


def test_waiting_ends(holder):
    holder()
    with pytest.raises(ConfigurationError, match=r"in use after waiting 0\.05 s"):
        HostLock(UUID, "timing").acquire(0.05)


def test_a_killed_process_holds_nothing(holder):
    process = holder()
    process.kill()
    process.wait()
    assert HostLock(UUID, "timing").holder() is None
    lock = HostLock(UUID, "timing")
    lock.acquire(10.0)
    lock.release()


def test_what_a_killed_process_has_forked_still_holds_it(holder, scripts):
    process = holder("fork")
    process.kill()
    process.wait()
    with pytest.raises(ConfigurationError, match=rf"started by process {process.pid} .*, which has ended"):
        HostLock(UUID, "timing").acquire(0.0)
    (child,) = scripts.alive()
    os.kill(child, signal.SIGKILL)
    lock = HostLock(UUID, "timing")
    lock.acquire(10.0)
    lock.release()


def test_release_is_for_forked_processes_as_well(folder):
    lock = HostLock(UUID, "timing")
    lock.acquire(0.0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    lock.release()
    other = HostLock(UUID, "timing")
    other.acquire(0.0)
    other.release()
    os.close(write)
    os.waitpid(child, 0)


def test_this_very_process(folder):
    lock = HostLock(UUID, "clocks")
    lock.acquire(0.0)
    with pytest.raises(ConfigurationError, match="this very process is holding its clocks"):
        HostLock(UUID, "clocks").acquire(0.0)
    lock.release()


def test_asking_who_makes_no_files(folder):
    assert HostLock(UUID, "timing").holder() is None
    assert not folder.exists()


def test_other_users_can_use_the_file_and_links_are_not_followed(folder, tmp_path):
    lock = HostLock(UUID, "timing")
    before = os.umask(0o077)
    try:
        lock.acquire(0.0)
    finally:
        os.umask(before)
    lock.release()
    path = folder / f"{UUID}.timing"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    path.unlink()
    (tmp_path / "precious").write_text("x")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigurationError, match="set CIQ_GPU_STATE_DIR"):
        lock.acquire(0.0)
    assert (tmp_path / "precious").read_text() == "x"


class TestFolder:
    @pytest.fixture(autouse=True)
    def shared(self, tmp_path, monkeypatch):
        monkeypatch.delenv("CIQ_GPU_STATE_DIR", raising=False)
        monkeypatch.setattr(locks, "_SHARED", tmp_path / "lock" / "ciq-ray-gpu")
        return tmp_path / "lock"

    def test_it_is_everybodys_as_tmp_is(self, shared):
        shared.mkdir()
        found = state_folder()
        assert found == shared / "ciq-ray-gpu"
        assert stat.S_IMODE(found.stat().st_mode) == 0o1777

    def test_root_finds_it(self, shared):
        assert release_command().startswith("sudo env CIQ_GPU_STATE_DIR=")
        shared.mkdir()
        state_folder()
        assert release_command() == f"sudo {sys.executable} -m ciq_ray gpu release"

    def test_else_the_users_own(self, tmp_path):
        assert state_folder(create=False) == tmp_path / "cache" / "gpu"
        assert not (tmp_path / "cache").exists()
        assert state_folder().is_dir()

    def test_one_that_somebody_else_has_prepared_is_not_used(self, shared, tmp_path, monkeypatch):
        shared.mkdir()
        (shared / "ciq-ray-gpu").mkdir()
        (shared / "ciq-ray-gpu").chmod(0o777)
        if os.geteuid() == 0:
            os.chown(shared / "ciq-ray-gpu", 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert state_folder() == tmp_path / "cache" / "gpu"

    def test_nor_a_link(self, shared, tmp_path):
        shared.mkdir()
        (tmp_path / "other").mkdir()
        (shared / "ciq-ray-gpu").symlink_to(tmp_path / "other")
        assert state_folder() == tmp_path / "cache" / "gpu"

    def test_one_that_cannot_be_made(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("CIQ_GPU_STATE_DIR", str(tmp_path / "file" / "x"))
        with pytest.raises(ConfigurationError, match="set CIQ_GPU_STATE_DIR to a folder"):
            state_folder()


class TestOwner:
    def test_this_process(self):
        owner = Owner.this()
        assert owner.alive
        assert Owner.from_dict(owner.to_dict()) == owner
        assert f"process {os.getpid()} of" in str(owner)
        assert len(owner.command) <= 120

    @pytest.mark.parametrize("data", [None, [], {}, {"pid": 1}])
    def test_what_is_none(self, data):
        with pytest.raises(ValueError, match="not a record"):
            Owner.from_dict(data)

    def test_wrong_types(self):
        with pytest.raises(ValueError, match="`pid` is '1'"):
            Owner.from_dict({**Owner.this().to_dict(), "pid": "1"})

    def test_a_program_with_brackets_and_blanks_in_its_name(self, tmp_path):
        odd = tmp_path / "a) Z 1 (b"
        odd.symlink_to(shutil.which("sleep"))
        process = subprocess.Popen([odd, "600"])
        try:
            assert locks._started(process.pid) >= locks._started(os.getpid())
        finally:
            process.kill()
            process.wait()
        assert locks._started(process.pid) is None
