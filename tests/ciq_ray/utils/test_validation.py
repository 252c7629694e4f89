"""Scores: what an objective may return, and what becomes of it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciq_ray.errors import ScoreError
from ciq_ray.utils.validation import Score, validate_inf_nan, validate_scores


def score(**fields: Any) -> Score:
    return Score(**{"score": 1.0, "params": {}, "param_id": 0, "num_objectives": 1, **fields})


def test_infinities_and_nan_are_invalid() -> None:
    assert validate_inf_nan(1.5) == 1.5
    assert [validate_inf_nan(value) for value in (math.inf, -math.inf, math.nan, 10**400)] == ["*"] * 4


class TestScore:
    def test_defaults(self) -> None:
        made = score()
        assert (made.norm_score, made.metadata, made.is_baseline, made.failed) == (None, "", False, False)

    @pytest.mark.parametrize(
        ("value", "count", "kept"),
        [
            (1, 1, 1),
            (2.5, 1, 2.5),
            ("*", 1, "*"),
            ([1, 2.5], 2, [1, 2.5]),
            ((1, "*"), 2, (1, "*")),
            ([3], 1, [3]),
            ("*", 3, "*"),
            (math.inf, 1, "*"),
            ([1.0, math.nan], 2, [1.0, "*"]),
            (np.float64(2), 1, 2.0),
        ],
    )
    def test_values_and_containers_are_kept(self, value: Any, count: int, kept: Any) -> None:
        made = score(score=value, norm_score=value, num_objectives=count)
        assert made.score == kept
        assert made.norm_score == kept
        assert type(made.score) is type(kept)

    def test_failed_is_the_presence_of_an_invalid_score(self) -> None:
        assert score(score="*").failed
        assert score(score=[1, "*"], num_objectives=2).failed
        assert not score(score=(1, 2), num_objectives=2).failed

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"score": True}, "`score` is True"),
            ({"score": "1"}, "`score` is '1'"),
            ({"score": None}, "`score` is None"),
            ({"score": [1, "2"], "num_objectives": 2}, r"`score\[1\]` is '2'"),
            ({"score": [1, 2]}, "`num_objectives` is 1"),
            ({"score": 1, "num_objectives": 2}, "`num_objectives` is 2"),
            ({"norm_score": [1, 2]}, "`norm_score` is"),
            ({"params": 3}, "`params` is 3"),
            ({"param_id": True}, "`param_id` is True"),
            ({"num_objectives": 0}, "`num_objectives` is 0"),
            ({"metadata": 3}, "`metadata` is 3"),
            ({"scores": 3}, "`scores` is not a field of Score. Did you mean `score`"),
        ],
    )
    def test_bad_fields(self, fields: Any, message: str) -> None:
        with pytest.raises(ScoreError, match=message):
            score(**fields)

    def test_json_holds_everything(self) -> None:
        made = score(score=(1, "*"), num_objectives=2, params={"a": [1, "x"]}, metadata="why")
        fields = json.loads(made.to_json())
        assert fields["score"] == [1, "*"]
        assert Score(**fields).params == {"a": [1, "x"]}
        assert "object at" in score(params={"a": object()}).to_json()

    def test_params_may_be_text_or_parts(self) -> None:
        assert score(params="-O3").params == "-O3"
        assert score(params=["-O3", {"a": 1}]).params == ["-O3", {"a": 1}]


class TestValidateScores:
    @pytest.mark.parametrize(
        ("returned", "count", "expected"),
        [
            (3, 1, 3),
            (3.5, 1, 3.5),
            ("*", 1, "*"),
            ([3], 1, 3),
            ((3, 4.5), 2, (3, 4.5)),
            ([3, "*"], 2, (3, "*")),
            ("*", 2, ("*", "*")),
            (math.nan, 1, "*"),
            ([1, math.inf], 2, (1, "*")),
            (np.float32(0.5), 1, 0.5),
            (np.int64(3), 1, 3),
            (np.array(2.0), 1, 2.0),
            (np.array([1, 2]), 2, (1, 2)),
            ([np.int8(1), np.float16(2)], 2, (1, 2.0)),
        ],
    )
    def test_good_returns(self, returned: Any, count: int, expected: Any) -> None:
        found = validate_scores(returned, count)
        assert found == expected
        for value in found if isinstance(found, tuple) else (found,):
            assert type(value) in (int, float, str)

    @pytest.mark.parametrize(
        ("returned", "count"),
        [
            (True, 1),
            (np.bool_(True), 1),
            ("fast", 1),
            (None, 1),
            ({}, 1),
            (1 + 2j, 1),
            ([], 1),
            ([[1]], 1),
            (np.ones((2, 2)), 2),
            (1.0, 2),
            ([1, 2, 3], 2),
            ([1, True], 2),
            (b"12", 2),
            ("12", 2),
        ],
    )
    def test_bad_returns_say_what_came_and_what_should(self, returned: Any, count: int) -> None:
        wanted = "one number" if count == 1 else f"{count} numbers"
        with pytest.raises(ScoreError, match=rf"the objective returned .*{wanted}"):
            validate_scores(returned, count)

    def test_objects_that_cannot_even_be_shown(self) -> None:
        class Nasty:
            def __repr__(self) -> str:
                raise RuntimeError

        with pytest.raises(ScoreError, match="Nasty"):
            validate_scores(Nasty(), 1)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(),
            lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
        st.integers(1, 3),
    )
    def test_anything_is_a_score_or_our_error(self, returned: Any, count: int) -> None:
        try:
            found = validate_scores(returned, count)
        except ScoreError:
            return
        made = Score(score=found, params={}, param_id=0, num_objectives=count)
        assert made.score == found
