"""The file that says what is set: there before the change, and whom it can be believed from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.hold import recover
from ciq_ray.gpu.ledger import Ledger, ledgers, read_ledger
from ciq_ray.gpu.locks import Owner

UUID = "GPU-00000001-1111-2222-3333-444444444444"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CIQ_GPU_STATE_DIR", str(tmp_path / "states"))
    return tmp_path / "states"


@pytest.fixture
def ledger(folder):
    ledger = Ledger(UUID, Owner.this(), ("core", "power"), 700000, "locked 1410 MHz", "sudo")
    ledger.write()
    return ledger


def path(folder):
    return folder / f"{UUID}.ledger.json"


def test_what_is_written_is_read(ledger, folder):
    assert read_ledger(UUID) == ledger
    assert ledgers() == [ledger]
    assert json.loads(path(folder).read_text())["owner"]["pid"] == os.getpid()
    ledger.remove()
    ledger.remove()
    assert read_ledger(UUID) is None
    assert list(folder.iterdir()) == []


def test_what_was_refused_is_taken_out(ledger):
    assert ledger.without("core").changes == ("power",)


def test_the_old_one_stays_when_writing_fails(ledger, folder, monkeypatch):
    def fail(*arguments):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="full"):
            replace(ledger, state="another").write()
    assert read_ledger(UUID) == ledger
    assert list(folder.iterdir()) == [path(folder)]


def test_that_of_a_process_that_lives_is_not_stale(ledger):
    assert not ledger.stale
    assert not ledger.rebooted
    assert replace(ledger, left=True).stale


def test_that_of_a_process_that_has_ended_is(ledger):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = replace(ledger, owner=replace(ledger.owner, pid=child.pid))
    assert other.stale  # there is such a process, but it began at another time
    other = replace(ledger, owner=replace(ledger.owner, pid=child.pid, started=_started(child.pid)))
    assert not other.stale
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert other.stale  # dead, although nobody has asked for its exit status
    child.communicate()
    assert other.stale


def _started(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_the_start_of_the_machine_undoes_it(ledger):
    old = replace(ledger, owner=replace(ledger.owner, boot="0000"))
    assert old.stale
    assert old.rebooted


def test_one_of_another_user_is_not_trusted(ledger, folder, monkeypatch):
    if os.geteuid() == 0:
        os.chown(path(folder), 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert read_ledger(UUID).trusted is False


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"uuid": "GPU-other"},
        {"changes": ["fan"]},
        {"changes": None},
        {"power_mw": "; rm"},
        {"power_mw": True},
        {"fallback": "doas"},
        {"owner": {"pid": 1}},
        {"owner": None},
    ],
)
def test_what_is_no_ledger_counts_for_nothing(ledger, folder, change):
    data = json.loads(path(folder).read_text())
    path(folder).write_text(json.dumps({**data, **change}))
    assert read_ledger(UUID) is None
    assert ledgers() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\xff"])
def test_neither_does_what_is_no_json(folder, text):
    folder.mkdir()
    path(folder).write_text(text)
    assert read_ledger(UUID) is None


def test_links_are_not_followed(ledger, folder, tmp_path):
    path(folder).rename(tmp_path / "elsewhere")
    path(folder).symlink_to(tmp_path / "elsewhere")
    assert read_ledger(UUID) is None


def test_what_a_process_that_was_killed_had_half_written_is_removed(ledger, folder):
    def killed(*arguments):
        os.kill(os.getpid(), 9)

    child = os.fork()
    if child == 0:
        os.replace = killed
        ledger.write()
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 2
    ledger.write()
    assert list(folder.iterdir()) == [path(folder)]


def test_other_users_see_it_whatever_the_umask(folder):
    before = os.umask(0o077)
    try:
        Ledger(UUID, Owner.this(), ("core",)).write()
    finally:
        os.umask(before)
    assert path(folder).stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_told_who_can_remove_it(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        os.chmod(shared, 0o1777)
        monkeypatch.setenv("CIQ_GPU_STATE_DIR", shared)
        Ledger(UUID, replace(Owner.this(), boot="earlier"), ("core",)).write()
        os.seteuid(12345)
        try:
            with pytest.raises(ConfigurationError, match=r"cannot be removed .* sudo env .* gpu release"):
                recover(UUID)
        finally:
            os.seteuid(0)
        assert recover(UUID)
        assert read_ledger(UUID) is None


def test_reading_makes_no_folder(folder):
    assert read_ledger(UUID) is None
    assert ledgers() == []
    assert not folder.exists()
