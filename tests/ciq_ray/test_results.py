"""The results of a search."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciq_ray.errors import ConfigurationError, ResultError
from ciq_ray.results import SearchResult
from ciq_ray.types import MultiScoreComparison, ProblemType, Score

PARAMS: list[Any] = [
    {"n": 1, "x": 0.1, "on": True, "name": 'a,"b"\n\r', "none": None, "sub": {"l": [1, 2.0]}},
    "-O3 --fmad=false\n",
    ["-O1", {"a": 1}],
    "",
    {"n": 1.0},
    '{"looks": "like JSON"}',
]


def score(value: Any, params: Any = None, **fields: Any) -> Score:
    count = len(value) if isinstance(value, (list, tuple)) else fields.pop("count", 1)
    made = {"params": {} if params is None else params, "param_id": 0, "num_objectives": count}
    return Score(score=value, **{**made, **fields})


def results(*values: Any, kind: str = "min", count: int | None = None, **more: Any) -> SearchResult:
    number = count or (len(values[0]) if isinstance(values[0], tuple) else 1)
    result = SearchResult(None, kind, number)
    for position, value in enumerate(values):
        made = score(value, {"n": position}, param_id=position, **({"count": number} if value == "*" else {}))
        result.add_result(made, position // 2, **more)
    return result


class TestTable:
    def test_columns_of_one_score(self) -> None:
        result = results(3, "*", 1.5)
        table = result.df_results
        assert list(table.columns) == [
            "generation",
            "param_id",
            "score",
            "params",
            "metadata",
            "status",
            "message",
        ]
        assert table["generation"].tolist() == [0, 0, 1]
        assert table["score"].isna().tolist() == [False, True, False]
        assert table["status"].tolist() == ["ok", "invalid_result", "ok"]
        assert (result.score_columns, result.is_normalized, len(result)) == (["score"], False, 3)
        assert result.get_results() is table
        assert (result.problem_type, result.num_scores) == (ProblemType.MIN, 1)

    def test_columns_of_several_normalized_scores(self) -> None:
        result = SearchResult(None, ProblemType.MAX, 2)
        result.add_result(score((1, 2), norm_score=(0.5, 4)), 0, True)
        result.add_result(score((1, 2)), 0, True)
        assert list(result.df_results.columns)[2:6] == ["score_0", "score_1", "norm_score_0", "norm_score_1"]
        assert result.score_columns == ["norm_score_0", "norm_score_1"]
        assert result.is_normalized
        best = result.get_best_result()
        assert isinstance(best, list)
        assert [row["param_id"] for row in best] == [0]
        assert (best[0]["score"], best[0]["norm_score"]) == ([1.0, 2.0], [0.5, 4.0])

    def test_status_message_and_metadata(self) -> None:
        result = SearchResult(None, "min", 1)
        result.add_result(score("*", metadata="node 7"), 3, status="run_timeout", message="30 s")
        result.add_result(score(5.0), 3, status="wrong")
        result.add_result(score("*"), 3, status="ok")
        table = result.df_results
        assert table["status"].tolist() == ["run_timeout", "wrong", "invalid_result"]
        assert table["message"].tolist() == ["30 s", "", ""]
        assert table["metadata"].tolist() == ["node 7", "", ""]
        assert table["score"].isna().all()

    def test_rows_added_later_and_columns_of_the_user(self) -> None:
        result = results(1, 2)
        result.df_results["mine"] = ["a", "b"]
        result.add_result(score(3, {"n": 2}, norm_score=0.5), 1, True)
        table = result.df_results
        assert table["mine"].isna().tolist() == [False, False, True]
        assert table["score"].tolist() == [1.0, 2.0, 3.0]
        assert table["norm_score"].tolist()[2] == 0.5
        assert [row["params"]["n"] for row in result.rows(1)] == [1, 2]

    def test_a_table_may_be_replaced(self) -> None:
        result = results(1, 2, 3)
        result.df_results = result.df_results[result.df_results["score"] > 1]
        result.add_result(score(0.5, {"n": 9}), 4)
        assert result.df_results["score"].tolist() == [2.0, 3.0, 0.5]
        with pytest.raises(ResultError, match="generation"):
            result.df_results = pd.DataFrame({"a": [1]})

    def test_empty(self, tmp_path: Path) -> None:
        for result in (SearchResult(None, "min", 2), SearchResult(pd.DataFrame(), "min", 2)):
            assert len(result) == len(result.df_results) == 0
            assert result.score_columns == ["score_0", "score_1"]
            assert len(result.clear_duplicates()) == 0
            for call in (result.get_best_result, result.pareto_front):
                with pytest.raises(ResultError, match="nothing has been evaluated"):
                    call()
            path = tmp_path / "empty.csv"
            result.save(path)
            loaded = SearchResult.from_csv(path, "min")
            assert (len(loaded), loaded.num_scores) == (0, 2)

    def test_adding_is_linear(self) -> None:
        result = SearchResult(None, "min", 1)
        one = score(1.0)
        times = []
        gc.freeze()  # a pass over what other tests have imported is none of its cost
        try:
            for _ in range(5):
                start = time.process_time()
                for _ in range(20_000):
                    result.add_result(one, 0)
                times.append(time.process_time() - start)
        finally:
            gc.unfreeze()
        assert len(result) == 100_000
        assert times[-1] < 4 * min(times) + 0.1
        assert len(result.df_results) == 100_000

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: SearchResult(None, "least", 1), ConfigurationError, "`problem_type` is 'least'"),
            (lambda: SearchResult(None, "min", 0), ConfigurationError, "`num_scores` is 0"),
            (lambda: SearchResult([], "min", 1), ResultError, "must be a pandas DataFrame"),
            (lambda: SearchResult(results(1).df_results, "min", 2), ResultError, "`num_scores` is 2"),
            (lambda: SearchResult(results((1, 2)).df_results, "min", 1), ResultError, "`num_scores` is 1"),
            (lambda: results(1).add_result(score((1, 2)), 0), ResultError, "2 objectives"),
            (lambda: results(1).add_result(score(1), 0, status="fine"), ResultError, "`status` is 'fine'"),
        ],
    )
    def test_what_does_not_fit(self, make: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            make()


class TestBest:
    @pytest.mark.parametrize(("kind", "expected"), [("min", 1), ("max", 3)])
    def test_one_score(self, kind: str, expected: int) -> None:
        result = results("*", 1.0, 2.0, 3.0, 1.0, 3.0, kind=kind)
        best = result.get_best_result()
        assert isinstance(best, dict)
        assert best["param_id"] == best["params"]["n"] == expected
        assert best["generation"] == expected // 2
        for scope in MultiScoreComparison:
            assert result.get_best_result(scope) == best
        assert type(best["score"]) is float

    def test_normalized_scores_decide(self) -> None:
        result = SearchResult(None, "min", 1)
        result.add_result(score(1.0, param_id=0, norm_score=2.0), 0, True)
        result.add_result(score(5.0, param_id=1, norm_score=0.5), 0, True)
        assert result.get_best_result()["param_id"] == 1  # type: ignore[call-overload]

    @pytest.mark.parametrize(("kind", "front", "average"), [("min", [0, 1, 4], 1), ("max", [0, 3], 3)])
    def test_several_scores(self, kind: str, front: list[int], average: int) -> None:
        points = [(0.0, 9.0), (2.0, 2.0), "*", (5.0, 5.0), (2.0, 2.0)]
        result = results(*points, kind=kind)
        found = result.get_best_result()
        assert isinstance(found, list)
        assert [row["param_id"] for row in found] == front
        assert found == result.pareto_front() == result.get_best_result("pareto_front")
        best = result.get_best_result("avg")
        assert isinstance(best, dict)
        assert best["param_id"] == average
        assert best["score"] == [best["score_0"], best["score_1"]]
        spread = result.get_best_result("stddev")
        assert isinstance(spread, dict)
        assert spread["param_id"] == 1

    def test_the_front_of_one_score_is_its_best_rows(self) -> None:
        assert [row["param_id"] for row in results(2, 1, "*", 1).pareto_front()] == [1, 3]

    def test_all_failed(self) -> None:
        result = SearchResult(None, "min", 1)
        for _ in range(3):
            result.add_result(score("*"), 0, status="run_error", message="ValueError: no such tile\nmore")
        with pytest.raises(
            ResultError, match=r"all 3 evaluations failed.*run_error: ValueError: no such tile"
        ):
            result.get_best_result()
        with pytest.raises(ResultError, match="all 3 evaluations failed"):
            result.pareto_front()

    def test_unknown_scope(self) -> None:
        with pytest.raises(ConfigurationError, match='"avg", "stddev", "pareto_front"'):
            results(1).get_best_result("median")  # type: ignore[arg-type]

    @settings(max_examples=60)
    @given(
        st.lists(
            st.lists(
                st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan"), float("inf")]), min_size=3, max_size=3
            ),
            max_size=12,
        ),
        st.sampled_from(["min", "max"]),
    )
    def test_the_front_by_definition(self, points: list[list[float]], kind: str) -> None:
        mask = SearchResult(None, kind, 3).calculate_pareto_front(np.array(points).reshape(-1, 3))
        sign = -1.0 if kind == "max" else 1.0
        finite = [p for p in points if np.isfinite(p).all()]

        def beaten(point: list[float]) -> bool:
            return any(
                all(sign * a <= sign * b for a, b in zip(other, point, strict=True)) and other != point
                for other in finite
            )

        assert mask.tolist() == [bool(np.isfinite(p).all()) and not beaten(p) for p in points]
        assert mask.dtype == np.bool_

    @pytest.mark.parametrize("scores", [np.ones(3), np.ones((2, 0)), np.array([["a"]]), [[1], [1, 2]]])
    def test_what_is_no_array_of_scores(self, scores: Any) -> None:
        with pytest.raises(ResultError, match="`scores`"):
            results(1).calculate_pareto_front(scores)


class TestDuplicates:
    def test_params_and_scores_must_be_equal(self) -> None:
        result = SearchResult(None, "min", 1)
        for value, params in [
            (1, {"a": 1, "b": 2}),
            (1, {"b": 2, "a": 1}),
            (2, {"a": 1, "b": 2}),
            (1, {"a": 1.0, "b": 2}),
            (1, {"a": True, "b": 2}),
            ("*", "-O1"),
            ("*", "-O1"),
        ]:
            result.add_result(score(value, params), 0)
        table = result.clear_duplicates()
        assert table["score"].tolist()[:4] == [1.0, 2.0, 1.0, 1.0]
        assert len(table) == len(result) == len(result.df_results) == 5
        assert table.index.tolist() == [0, 1, 2, 3, 4]

    def test_loading_compares_params_only(self, tmp_path: Path) -> None:
        result = SearchResult(None, "min", 1)
        for value in (3, 1, 2):
            result.add_result(score(value, {"a": 1}), 0)
        result.add_result(score(4, {"a": 2}), 0)
        path = tmp_path / "r.csv"
        result.save(path)
        assert SearchResult.from_csv(path, "min").df_results["score"].tolist() == [3.0, 4.0]
        assert len(SearchResult.from_csv(path, "min", clear_duplicates=False)) == 4
        assert len(SearchResult.from_dataframe(result.df_results, "min")) == 2
        assert len(SearchResult.from_dataframe(result.df_results, "min", False)) == 4
        assert len(result) == 4


class TestFiles:
    def test_round_trip(self, tmp_path: Path) -> None:
        result = SearchResult(None, "max", 2)
        for position, params in enumerate(PARAMS):
            value = "*" if position == 1 else (0.1 + position, 1e-300)
            made = score(
                value, params, num_objectives=2, norm_score=value, param_id=position, metadata="a\rb,"
            )
            result.add_result(made, position, True, message='say "no"')
        path = tmp_path / "r.csv"
        result.save(str(path))
        loaded = SearchResult.from_csv(str(path), "max", clear_duplicates=False)
        pd.testing.assert_frame_equal(loaded.df_results, result.df_results)
        assert repr(loaded.df_results["params"].tolist()) == repr(PARAMS)
        assert loaded.pareto_front() == result.pareto_front()
        assert (loaded.num_scores, loaded.is_normalized, loaded.problem_type) == (2, True, "max")
        again = SearchResult.from_dataframe(loaded.get_results(), "max", clear_duplicates=False)
        pd.testing.assert_frame_equal(again.df_results, result.df_results)
        again.save(tmp_path / "again.csv")
        assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                    max_leaves=5,
                ),
                st.floats(),
                st.text(),
                st.sampled_from(["7", "007", "12e4", "a"]),
            ),
            max_size=4,
        )
    )
    def test_any_json_parameters_come_back(self, tmp_path: Path, rows: list[Any]) -> None:
        result = SearchResult(None, "min", 1)
        for position, (params, value, text, name) in enumerate(rows):
            made = score(value, {"p": params}, metadata=text.replace("\0", ""), param_id=f"{name}-{position}")
            result.add_result(made, position)
        path = tmp_path / "r.csv"
        result.save(path)
        loaded = SearchResult.from_csv(path, "min", clear_duplicates=False).df_results
        for name in result.df_results.columns:
            assert repr(loaded[name].tolist()) == repr(result.df_results[name].tolist())

    def test_ids_keep_their_kind(self, tmp_path: Path) -> None:
        for ids in ([1, 20], ["12e4", "007"], ["1", "a"]):
            result = SearchResult(None, "min", 1)
            for number in ids:
                result.add_result(score(1, {"a": number}, param_id=number), 0)
            result.save(tmp_path / "r.csv")
            assert SearchResult.from_csv(tmp_path / "r.csv", "min").df_results["param_id"].tolist() == ids

    def test_values_without_json_form_are_saved_as_repr(self, tmp_path: Path) -> None:
        class Thing:
            def __repr__(self) -> str:
                return "Thing()"

        result = SearchResult(None, "min", 1)
        result.add_result(score(1, {"a": Thing(), "n": np.int64(3)}), 0)
        result.add_result(score(1, {(1, 2): 3}), 0)
        with pytest.warns(UserWarning, match=r"no form for \(Thing, dict\)"):
            result.save(tmp_path / "r.csv")
        loaded = SearchResult.from_csv(tmp_path / "r.csv", "min").df_results["params"].tolist()
        assert loaded == [{"a": "Thing()", "n": 3}, "{(1, 2): 3}"]

    def test_the_default_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        results(1, 2).save()
        assert len(SearchResult.from_csv("search_results.csv", "min")) == 2
        assert os.listdir(tmp_path) == ["search_results.csv"]

    def test_a_file_that_cannot_be_written_is_left_as_it_was(self, tmp_path: Path) -> None:
        with pytest.raises(ResultError, match="cannot be written"):
            results(1).save(tmp_path / "none" / "r.csv")
        with pytest.raises(ResultError, match="cannot be written"):
            results(1).save(tmp_path)

    def test_failures_may_be_stars_and_columns_may_be_missing_or_more(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text(
            ',generation,score,params,note,cost\n0,0,*,"{""a"": 1}",x,1.5\n\n1,0,2.5,"""-O3""",y,\n'
        )
        table = SearchResult.from_csv(path, "min").df_results
        assert table["status"].tolist() == ["invalid_result", "ok"]
        assert table["params"].tolist() == [{"a": 1}, "-O3"]
        assert table["param_id"].tolist() == [0, 1]
        assert table["note"].tolist() == ["x", "y"]
        assert table["cost"].tolist()[0] == 1.5
        assert table["metadata"].tolist() == ["", ""]

    def test_a_data_frame_with_stars_and_json(self) -> None:
        frame = pd.DataFrame(
            {"generation": [0, 1], "params": ['{"a": 1}', '"-O3"'], "score": ["*", 2], "more": [1, 2]},
            index=[5, 5],
        )
        result = SearchResult.from_dataframe(frame, "max")
        assert result.df_results["params"].tolist() == [{"a": 1}, "-O3"]
        assert result.get_best_result()["more"] == 2  # type: ignore[call-overload]
        assert frame["score"].tolist() == ["*", 2]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"a,b\n1,2\n", "'generation' is missing"),
            (b"generation,params\n0,{}\n", "score columns are missing"),
            (b"generation,params,score_0,score_2\n", "score_0, score_2"),
            (b"generation,params,score_0,score_1,norm_score_0\n", "norm_score"),
            (b"generation,params,score,score\n", "twice"),
            (b"generation,params,score\n0,{}\n", "line 2: 2 cells where the header has 3"),
            (b"generation,params,score\n0,{},1\nx,{},1\n", "line 3: 'generation' is 'x'"),
            (b"generation,params,score\n1.5,{},1\n", "line 2: 'generation' is '1.5'"),
            (b"generation,params,score\n0,{},fast\n", "line 2: 'score' is 'fast'"),
            (b"generation,params,score\n0,{,1\n", "line 2: 'params' is '{'"),
            (b"generation,params,score\n0,3,1\n", "line 2: 'params' is '3'"),
            (b'generation,params,score\n0,"{},1\n', "line 2"),
            (b"generation,params,score\n0," + b"[" * 99999 + b",1\n", "line 2: 'params'"),
            (b"\xff\xfe\x00\x01", "not UTF-8"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "r.csv"
        path.write_bytes(content)
        with pytest.raises(ResultError, match=message):
            SearchResult.from_csv(path, "min")

    def test_bad_arguments(self, tmp_path: Path) -> None:
        results(1).save(tmp_path / "r.csv")
        with pytest.raises(ConfigurationError, match="`problem_type`"):
            SearchResult.from_csv(tmp_path / "r.csv", "minimum")
        for source in (tmp_path / "none.csv", tmp_path, "a\0b", 3):
            with pytest.raises(ResultError):
                SearchResult.from_csv(source, "min")  # type: ignore[arg-type]
        with pytest.raises(ResultError, match="must be a pandas DataFrame"):
            SearchResult.from_dataframe({"score": [1]}, "min")  # type: ignore[arg-type]
        columns = {"generation": [0, 0], "params": ["a", "b"], "score": [1, True]}
        frame = pd.DataFrame(columns, dtype=object)
        with pytest.raises(ResultError, match="row 1 of the table: 'score' is True"):
            SearchResult.from_dataframe(frame, "min")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=60) | st.text('",\n\r{}1*gs', max_size=60).map(str.encode), st.booleans())
    def test_any_bytes_are_read_or_refused(self, tmp_path: Path, content: bytes, header: bool) -> None:
        path = tmp_path / "r.csv"
        path.write_bytes((b"generation,params,score\n" if header else b"") + content)
        with contextlib.suppress(ResultError):
            assert SearchResult.from_csv(path, "min").num_scores == 1
