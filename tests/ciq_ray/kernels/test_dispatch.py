"""Few configurations for many shapes: the choice against brute force, the table in all its forms."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciq_ray.errors import ConfigurationError, JournalError
from ciq_ray.kernels.dispatch import DispatchTable
from ciq_ray.kernels.run_times import times_of
from ciq_ray.kernels.selection import choose

SHAPES = ("1024x1024", "1024x4096", "4096x4096", "8192x512")


def measured(
    count: int, shapes: tuple[str, ...] = SHAPES, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    times = np.exp(rng.normal(0.0, 0.4, (count, len(shapes)))) * np.array(
        [0.1 * 2**i for i in range(len(shapes))]
    )
    configs = {str(row): {"BLOCK": 16 << row % 5, "n": row} for row in range(count)}
    return configs, {str(row): dict(zip(shapes, map(float, times[row]), strict=True)) for row in range(count)}


def brute_force(losses: Any, entries: int) -> float:
    return min(
        float(losses[list(rows)].min(axis=0).sum())
        for size in range(1, min(entries, len(losses)) + 1)
        for rows in itertools.combinations(range(len(losses)), size)
    )


class TestChoose:
    @pytest.mark.parametrize("seed", range(12))
    @pytest.mark.parametrize("entries", [1, 2, 3, 4])
    def test_nobody_does_better(self, seed: int, entries: int) -> None:
        rng = np.random.default_rng(seed)
        losses = rng.exponential(1.0, (14, int(rng.integers(1, 8))))
        losses -= losses.min(axis=0)
        rows, exact = choose(losses, entries)
        assert exact
        assert 1 <= len(rows) <= entries
        assert losses[rows].min(axis=0).sum() == pytest.approx(brute_force(losses, entries), abs=1e-8)

    def test_as_few_as_do(self) -> None:
        losses = np.array([[0.0, 0.0, 0.5], [1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [9.0, 9.0, 0.5]])
        assert choose(losses, 3) == ([0], True)

    def test_of_equal_rows_the_first(self) -> None:
        assert choose(np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), 2) == ([0, 2], True)

    def test_exchange_comes_close_where_all_cannot_be_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(1)
        gaps = []
        for _ in range(20):
            losses = rng.exponential(1.0, (30, 8))
            losses -= losses.min(axis=0)
            best = losses[choose(losses, 3)[0]].min(axis=0).sum()
            with monkeypatch.context() as patch:
                patch.setattr("ciq_ray.kernels.selection._EXACT", 0)
                rows, exact = choose(losses, 3)
            assert not exact
            assert len(rows) == len(set(rows)) == 3
            gaps.append(float(losses[rows].min(axis=0).sum() / best))
        assert min(gaps) >= 1 - 1e-9
        assert np.median(gaps) == pytest.approx(1.0, abs=0.02)
        assert max(gaps) < 1.2

    def test_exchange_alone_finds_what_the_greedy_start_misses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # the best single row is in no best pair
        losses = np.array([[0.4, 0.4, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
        monkeypatch.setattr("ciq_ray.kernels.selection._EXACT", 0)
        assert choose(losses, 2) == ([1, 2], False)

    def test_thousands_of_configurations(self) -> None:
        losses = np.random.default_rng(0).exponential(1.0, (5000, 20))
        rows, exact = choose(losses - losses.min(axis=0), 4)
        assert len(rows) == 4
        assert not exact


class TestTable:
    def test_regret_and_lookup(self) -> None:
        configs, times = measured(40)
        table = DispatchTable.from_times(configs, times, 2)
        assert len(table.configs) <= 2
        for shape in SHAPES:
            best = min(found[shape] for found in times.values())
            of_entry = times[table.ids[table.entries[shape]]][shape]
            assert table.best_ms[shape] == best
            assert table.times_ms[shape] == of_entry == min(times[name][shape] for name in table.ids)
            assert table.regret[shape] == pytest.approx(of_entry / best - 1)
            assert table.lookup(shape) == configs[table.ids[table.entries[shape]]]
        logs = [math.log(table.times_ms[shape] / table.best_ms[shape]) for shape in SHAPES]
        assert table.mean_regret == pytest.approx(math.exp(sum(logs) / len(logs)) - 1)

    def test_as_many_entries_as_shapes_lose_nothing(self) -> None:
        table = DispatchTable.from_times(*measured(40), len(SHAPES))
        assert set(table.regret.values()) == {0.0}
        assert table.mean_regret == pytest.approx(0.0)
        assert set(table.ids) == set(table.best_ids.values())

    def test_more_entries_never_lose_more(self) -> None:
        lost = [DispatchTable.from_times(*measured(30, seed=3), k).mean_regret for k in (1, 2, 3, 4)]
        assert lost == sorted(lost, reverse=True)

    def test_an_unknown_shape_gets_its_nearest(self) -> None:
        table = DispatchTable.from_times(*measured(40), 4)
        assert table.lookup((1000, 1100)) is table.lookup("1024x1024")
        assert table.lookup((4096, 4096)) is table.lookup("4096x4096")
        assert table.lookup("7000x600") is table.lookup("8192x512")
        # 2x in one is as far as in the other: by logarithms, not by differences
        assert table.lookup((1024, 3000)) is table.lookup("1024x4096")
        with pytest.raises(ConfigurationError, match=r"`shape` is \(1, 2, 3\), which is not in the table"):
            table.lookup((1, 2, 3))
        with pytest.raises(ConfigurationError, match="nothing near"):
            table.lookup("tall")

    def test_json_there_and_back(self, tmp_path: Path) -> None:
        table = DispatchTable.from_times(*measured(40), 3)
        path = table.save(tmp_path / "table.json")
        assert DispatchTable.load(path) == table
        assert json.loads(path.read_text())["format"] == "ciq-dispatch-table"

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "other"},
            {"version": 2},
            {"entries": {}},
            {"entries": {"a": 7}},
            {"entries": {"a": -1}},
            {"times_ms": {}},
            {"best_ms": 3},
            {"configs": None},
        ],
    )
    def test_what_is_no_table(self, change: dict[str, Any], tmp_path: Path) -> None:
        data = {**DispatchTable.from_times(*measured(9), 2).to_dict(), **change}
        (tmp_path / "x.json").write_text(json.dumps(data))
        with pytest.raises(ConfigurationError, match="not a dispatch table"):
            DispatchTable.load(tmp_path / "x.json")

    def test_what_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(b"\x80\x04pickle")
        with pytest.raises(ConfigurationError, match="is not JSON"):
            DispatchTable.load(tmp_path / "x.json")

    def test_the_source_does_what_the_table_does(self) -> None:
        table = DispatchTable.from_times(*measured(40), 3)
        names: dict[str, Any] = {}
        exec(table.as_python(), names)
        for shape in [(1024, 1024), (8192, 512), (3000, 3000), (1, 1), (100_000, 7)]:
            assert names["config_for"](*shape) == table.lookup(shape)

    def test_source_for_shapes_without_numbers(self) -> None:
        table = DispatchTable.from_times(*measured(40, ("short", "long")), 2)
        names: dict[str, Any] = {}
        exec(table.as_python(), names)
        assert names["config_for"]("long") == table.lookup("long")

    def test_text(self) -> None:
        text = DispatchTable.from_times(*measured(40), 2).table()
        assert text.splitlines()[0].split() == ["shape", "entry", "ms", "best", "ms", "best", "regret"]
        for shape in SHAPES:
            assert shape in text
        assert "entry 0: candidate " in text
        assert "slower than the best for each shape (no other choice of as many loses less)" in text

    @pytest.mark.parametrize("entries", [0, -1, True, 1.5])
    def test_entries_must_be_a_count(self, entries: Any) -> None:
        with pytest.raises(ConfigurationError, match="`entries` is"):
            DispatchTable.from_times(*measured(4), entries)

    @pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
    def test_times_must_be_times(self, time: float) -> None:
        configs, times = measured(4)
        times["2"]["1024x1024"] = time
        with pytest.raises(ConfigurationError, match="not a number above 0"):
            DispatchTable.from_times(configs, times, 2)


class TestOfARun:
    @staticmethod
    def journal(folder: Path, outcomes: list[tuple[str, dict[str, Any]]]) -> Path:
        header = {
            "t": "header",
            "version": 1,
            "objective": {"kind": "kernel", "qualname": "KERNEL"},
            "search_config": {"num_objectives": 1, "problem_type": "min"},
        }
        lines: list[dict[str, Any]] = [header]
        for name in dict.fromkeys(name for name, _ in outcomes):
            candidate = {"id": name, "row": [int(name)], "generation": None, "config": {"B": int(name)}}
            lines.append({"t": "ask", "n": 1, "candidates": [candidate]})
        lines += [{"t": "outcome", "id": name, "outcome": outcome} for name, outcome in outcomes]
        folder.mkdir()
        (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    @staticmethod
    def timed(**times: float) -> dict[str, Any]:
        timing = {shape: {"median_ms": ms, "samples_ms": [ms]} for shape, ms in times.items()}
        return {"status": "ok", "values": [1.0], "metrics": {"timing": timing}}

    def test_times_are_medians_of_all_measurements(self, tmp_path: Path) -> None:
        folder = self.journal(
            tmp_path / "run",
            [
                ("0", self.timed(a=1.0, b=4.0)),
                ("1", self.timed(a=3.0, b=2.0)),
                ("2", {"status": "wrong"}),
                ("3", self.timed(a=0.1)),  # not on every shape
                ("0", self.timed(a=2.0, b=5.0)),
                ("0", self.timed(a=9.0, b=6.0)),
            ],
        )
        configs, times = times_of(folder)
        assert configs == {"0": {"B": 0}, "1": {"B": 1}, "3": {"B": 3}}
        assert times == {"0": {"a": 2.0, "b": 5.0}, "1": {"a": 3.0, "b": 2.0}}
        table = DispatchTable.of(folder, 1)
        assert table.ids == ("1",)
        assert table.regret == {"a": 0.5, "b": 0.0}

    def test_a_slow_device_does_not_decide(self, tmp_path: Path) -> None:
        """Candidate 1 is the faster one, on a device on which everything takes half as long again."""

        def on(device: str, control: float, **times: float) -> dict[str, Any]:
            one = self.timed(**times)
            one["metrics"] |= {"gpu": {"uuid": device}, "control_ms": control}
            return one

        outcomes = [("0", on("GPU-a", 2.0, a=1.0, b=1.0)), ("1", on("GPU-b", 3.0, a=1.2, b=1.2))]
        _, times = times_of(self.journal(tmp_path / "run", outcomes))
        assert times["0"] == pytest.approx({"a": 1.25, "b": 1.25})
        assert times["1"] == pytest.approx({"a": 1.0, "b": 1.0})
        assert DispatchTable.of(tmp_path / "run", 1).ids == ("1",)

    def test_a_run_without_times_by_shape(self, tmp_path: Path) -> None:
        folder = self.journal(tmp_path / "run", [("0", {"status": "ok", "values": [1.0]})])
        with pytest.raises(ConfigurationError, match="only searches of a kernel"):
            DispatchTable.of(folder)

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(JournalError, match="there is no run"):
            DispatchTable.of(tmp_path / "nothing")
