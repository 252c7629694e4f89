"""The file of results so far."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from ciq_ray import _result_csv
from ciq_ray._files import write_atomic
from ciq_ray._result_csv import ResultCsv
from ciq_ray._result_table import table_columns
from ciq_ray.errors import ConfigurationError, ResultError
from ciq_ray.results import SearchResult
from ciq_ray.types import Score


def add(result: SearchResult, count: int, *, normalize: bool = False) -> None:
    for _ in range(count):
        number = len(result)
        value = "*" if number % 3 == 2 else number / 7
        made = Score(
            score=value,
            norm_score=value,
            params={"n": number, "t": 'a,"\n'},
            param_id=number,
            num_objectives=1,
            metadata="x\r\n",
        )
        result.add_result(made, number // 4, normalize, message="é")


def test_it_ends_with_what_save_writes(tmp_path: Path) -> None:
    result = SearchResult(None, "min", 1)
    live = ResultCsv(tmp_path / "new" / "live.csv", table_columns(1, True))
    for batch in range(4):
        add(result, 5, normalize=True)
        live.add_rows(result.rows(live.count))
        assert live.flush()
        assert len(SearchResult.from_csv(live.path, "min")) == 5 * (batch + 1)
    assert live.flush(final=True)
    result.save(tmp_path / "saved.csv")
    assert live.path.read_bytes() == (tmp_path / "saved.csv").read_bytes()
    assert os.listdir(tmp_path / "new") == ["live.csv"]


def test_before_any_result_there_is_a_header(tmp_path: Path) -> None:
    live = ResultCsv(tmp_path / "r.csv", table_columns(2, False))
    live.flush()
    assert len(SearchResult.from_csv(live.path, "min")) == 0


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    live = ResultCsv(tmp_path / "r.csv", table_columns(1, False))
    live.flush()
    result, done, seen = SearchResult(None, "min", 1), threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(len(SearchResult.from_csv(live.path, "min")))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(60):
            add(result, 10)
            live.add_rows(result.rows(live.count))
            live.flush()
    finally:
        done.set()
        reader.join()
    assert seen == sorted(seen)
    assert all(count % 10 == 0 for count in seen)


def test_a_large_file_is_not_written_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_result_csv, "_ALWAYS_BELOW_S", 0.0)
    monkeypatch.setattr(_result_csv, "_REST", 1e9)
    result = SearchResult(None, "min", 1)
    live = ResultCsv(tmp_path / "r.csv", table_columns(1, False))
    assert live.flush()
    add(result, 3)
    live.add_rows(result.rows())
    assert not live.flush()
    assert len(SearchResult.from_csv(live.path, "min")) == 0
    assert live.flush(final=True)
    assert len(SearchResult.from_csv(live.path, "min")) == 3


def test_a_failed_write_keeps_the_rows_and_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    result = SearchResult(None, "min", 1)
    live = ResultCsv(folder / "r.csv", table_columns(1, False))
    folder.rmdir()
    add(result, 2)
    live.add_rows(result.rows())
    with pytest.raises(ResultError, match=r"r\.csv"):
        live.flush()
    folder.mkdir()
    live.flush()
    assert len(SearchResult.from_csv(live.path, "min")) == 2


def test_where_there_can_be_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "r.csv", "a\0b/r.csv"):
        with pytest.raises(ConfigurationError, match="`dump_results`"):
            ResultCsv(path, table_columns(1, False))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    live = ResultCsv(tmp_path / "r.csv", table_columns(1, False))
    with pytest.raises(ResultError, match="columns"):
        live.add_rows([{"generation": 1}])


def test_values_without_json_form_are_warned_about_once(tmp_path: Path) -> None:
    live = ResultCsv(tmp_path / "r.csv", table_columns(1, False))
    result = SearchResult(None, "min", 1)
    for number in range(2):
        made = Score(score=1.0, params={"a": {1, 2}}, param_id=number, num_objectives=1)
        result.add_result(made, 0)
    with pytest.warns(UserWarning, match="set"):
        live.add_rows(result.rows(0)[:1])
    live.add_rows(result.rows(1))


class TestWriteAtomic:
    def test_permissions_and_links_stay(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.write_text("old")
        real.chmod(0o640)
        link.symlink_to(real)
        assert write_atomic(link, [b"ne", b"w"]) == link
        assert link.is_symlink()
        assert real.read_bytes() == b"new"
        assert stat.S_IMODE(real.stat().st_mode) == 0o640

    def test_a_new_file_has_the_usual_permissions(self, tmp_path: Path) -> None:
        (tmp_path / "usual").write_text("")
        path = write_atomic(str(tmp_path / ("x" * 250)), [b"a"], durable=False)
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode

    def test_a_pipe_is_written_to(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        write_atomic(pipe, [b"through"])
        reader.join()
        assert read == [b"through"]
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_what_fails_half_way_leaves_the_old_file_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_text("old")

        def chunks() -> object:
            yield b"half"
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space"):
            write_atomic(path, chunks())  # type: ignore[arg-type]
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["f"]
