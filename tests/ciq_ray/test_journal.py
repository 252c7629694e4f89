"""The journal under torn writes, damage, a full disk and a second writer."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import textwrap
import time
from pathlib import Path

import pytest

from ciq_ray.errors import JournalError
from ciq_ray.journal import FILE_NAME, Journal, read_header, read_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a journal of a header and three records."""
    journal = Journal.create(tmp_path, {"seed": 7})
    journal.write([{"t": "ask", "n": 1}, {"t": "ask", "n": 2}])
    journal.write([{"t": "end"}])
    journal.close()
    return tmp_path


def append(folder: Path, data: bytes) -> None:
    with (folder / FILE_NAME).open("ab") as file:
        file.write(data)


def test_what_is_written_is_read_in_order(folder):
    assert read_header(folder) == {"t": "header", "version": 1, "seed": 7}
    assert [record.get("n") for record in read_records(folder)] == [1, 2, None]


def test_records_can_be_read_before_anything_is_closed(tmp_path):
    journal = Journal.create(tmp_path, {})
    journal.write([{"t": "ask", "n": 1}])
    assert list(read_records(tmp_path)) == [{"t": "ask", "n": 1}]
    journal.close()


def test_reopened_journal_is_appended_to(folder):
    journal = Journal.reopen(folder)
    assert journal.header["seed"] == 7
    journal.write([{"t": "resumed"}])
    journal.close()
    assert [record["t"] for record in read_records(folder)] == ["ask", "ask", "end", "resumed"]


def test_closing_twice_is_fine(tmp_path):
    journal = Journal.create(tmp_path, {})
    journal.close()
    journal.close()


def test_the_disk_is_waited_for_or_not(tmp_path, wait_for):
    journal = Journal.create(tmp_path, {})
    header = journal.size
    assert journal.safe == header
    journal.write([{"t": "ask", "n": 1}])
    assert journal.safe == header < journal.size
    journal.sync()
    assert journal.safe == journal.size
    journal.write([{"t": "ask", "n": 2}])
    journal.sync_soon()
    wait_for(lambda: journal.safe == journal.size, "the writing in the background", within=5)
    journal.close()


@pytest.mark.parametrize("waiting", [True, False])
def test_a_disk_that_has_lost_a_page_is_never_trusted_again(tmp_path, monkeypatch, wait_for, waiting):
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = Journal.create(tmp_path, {})
    journal.write([{"t": "ask", "n": 1}])
    with monkeypatch.context() as broken:
        broken.setattr("ciq_ray.journal.os.fsync", fails)
        if waiting:
            with pytest.raises(JournalError, match="Input/output error"):
                journal.sync()
        else:
            journal.sync_soon()
            wait_for(lambda: journal._failure is not None, "the failure", within=5)
    with pytest.raises(JournalError, match="Input/output error"):
        journal.sync()
    with pytest.raises(JournalError, match="Input/output error"):
        journal.sync_soon()
    with pytest.raises(JournalError, match="Input/output error"):
        journal.close()


def test_second_journal_in_a_folder_is_refused(folder):
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(JournalError, match="File exists"):
        Journal.create(folder, {})
    assert (folder / FILE_NAME).read_bytes() == before


def test_missing_journal(tmp_path):
    with pytest.raises(JournalError, match="No such file"):
        Journal.reopen(tmp_path)
    with pytest.raises(JournalError, match="No such file"):
        read_header(tmp_path)
    with pytest.raises(JournalError, match="No such file"):
        list(read_records(tmp_path))


@pytest.mark.parametrize("torn", [b"{", b'{"t":"outcome","id":"3"', b"\0" * 70_000, b"\xff\xfe"])
def test_torn_last_line_is_cut_off_with_a_notice(folder, caplog, torn):
    before = (folder / FILE_NAME).read_bytes()
    append(folder, torn)
    assert len(list(read_records(folder))) == 3, "a reader leaves it out"
    with caplog.at_level(logging.WARNING):
        journal = Journal.reopen(folder)
    assert f"its {len(torn)} bytes are cut off" in caplog.text
    assert (folder / FILE_NAME).read_bytes() == before
    journal.write([{"t": "resumed"}])
    journal.close()
    assert [record["t"] for record in read_records(folder)][-1] == "resumed"


def test_whole_last_line_is_left_alone(folder, caplog):
    with caplog.at_level(logging.WARNING):
        Journal.reopen(folder).close()
    assert caplog.text == ""


def test_torn_header_is_refused_and_kept(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b'{"t":"header","vers')
    with pytest.raises(JournalError, match="does not begin with a header"):
        Journal.reopen(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == b'{"t":"header","vers'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"no json\n", "line 5 .* cannot be read"),
        (b'{"t":"ask","n"\n', "line 5 .* cannot be read"),
        (b"\xff\xff\n", "line 5 .* cannot be read"),
        (b"[" * 100_000 + b"\n", "line 5 .* cannot be read"),
        (b"9" * 10_000 + b"\n", "line 5 .* cannot be read"),
        (b"[1]\n", "line 5 .* is not a record"),
        (b"\n", "line 5 .* cannot be read"),
    ],
)
def test_damaged_line_is_named(folder, line, message):
    append(folder, line)
    append(folder, b'{"t":"end"}\n')
    with pytest.raises(JournalError, match=message):
        list(read_records(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with a header"),
        (b'{"t":"ask"}\n', "does not begin with a header"),
        (b'{"t":"header","version":2}\n', "has version 2; this release reads version 1"),
        (b'{"t":"header"}\n', "has version None"),
    ],
)
def test_what_is_no_journal_is_refused(tmp_path, content, message):
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(JournalError, match=message):
        read_header(tmp_path)
    with pytest.raises(JournalError, match=message):
        Journal.reopen(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == content


HOLDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from ciq_ray.journal import Journal
    journal = Journal.reopen(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(60)
    """
)


def test_one_process_at_a_time(folder, scripts):
    holder = scripts.start(scripts.write(HOLDER), folder)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(JournalError, match="another process is writing"):
        Journal.reopen(folder)
    assert len(list(read_records(folder))) == 3, "reading is allowed"
    holder.kill()
    holder.wait()
    Journal.reopen(folder).close()


FULL_DISK = textwrap.dedent(
    """
    import resource, sys
    from pathlib import Path
    from ciq_ray.errors import JournalError
    from ciq_ray.journal import FILE_NAME, Journal
    folder = Path(sys.argv[1])
    journal = Journal.reopen(folder)
    size = (folder / FILE_NAME).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
    try:
        journal.write([{"t": "outcome", "message": "x" * 1000}])
    except JournalError as error:
        print(error)
    journal.write([{"t": "end", "reason": "full"}])
    journal.close()
    """
)


def test_half_a_record_never_stays_in_the_middle(folder, scripts):
    """A disk that is full takes half of a large record, and later a small one.

    In a process of its own: the limit would also hold for the file that pytest's output goes to.
    """
    run = scripts.run(scripts.write(FULL_DISK), folder)
    assert re.search(r"cannot write to the journal .*File too large", run.stdout)
    kept = [json.loads(line) for line in (folder / FILE_NAME).read_bytes().splitlines()]
    assert kept[-1] == {"t": "end", "reason": "full"}
    assert [record["t"] for record in read_records(folder)] == ["ask", "ask", "end", "end"]


def test_objects_that_json_has_no_form_for_are_written_by_their_repr(tmp_path):
    journal = Journal.create(tmp_path, {"x": {1, 2}})
    journal.close()
    assert read_header(tmp_path)["x"] == "{1, 2}"


def test_another_thread_brings_records_to_the_disk(folder):
    journal = Journal.reopen(folder)
    assert journal.safe == 0, "nobody knows what an earlier process has synced"
    journal.write([{"t": "again"}])
    journal.sync_soon()
    deadline = time.monotonic() + 30
    while journal.safe < journal.size and time.monotonic() < deadline:
        time.sleep(0.001)
    assert journal.safe == journal.size == (folder / FILE_NAME).stat().st_size
    journal.write([{"t": "again"}])
    assert journal.safe < journal.size
    journal.close()
    assert journal.safe == journal.size


def test_disk_that_fails_behind_the_scenes_is_an_error_for_good(folder):
    """The kernel says once that it could not write a page; what comes after that proves nothing."""
    journal = Journal.reopen(folder)
    file = os.dup(journal._descriptor)
    reading, writing = os.pipe()
    os.dup2(writing, journal._descriptor)  # takes data, but cannot be synced
    journal.write([{"t": "again"}])
    journal.sync_soon()
    assert journal._syncer is not None
    journal._syncer.join(30)
    os.dup2(file, journal._descriptor)
    for call in (journal.sync, journal.sync_soon, journal.close):
        with pytest.raises(JournalError, match="cannot write to the journal"):
            call()
    for descriptor in (file, reading, writing):
        os.close(descriptor)
