"""The legacy text of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciq_ray._types import legacy
from ciq_ray.errors import ConfigurationError
from ciq_ray.types import SearchConfiguration


@st.composite
def configurations(draw: st.DrawFn) -> SearchConfiguration:
    objectives = draw(st.integers(1, 5))
    pool = draw(st.none() | st.integers(6, 500))
    share = st.floats(0.0, 1.0)
    weight = st.floats(0.0, exclude_min=True, allow_infinity=False)
    limit = 16 * (objectives + 1) if pool is None else pool
    return SearchConfiguration(
        problem_type=draw(st.sampled_from(["min", "max"])),
        normalize=draw(st.booleans()),
        num_objectives=objectives,
        generations=draw(st.integers(1, 10**6)),
        pool_size=pool,
        cull_size=draw(st.none() | st.integers(1, (limit - 1) // 2).map(lambda half: 2 * half)),
        mutate_rate=draw(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)),
        objective_weights=draw(st.none() | st.lists(weight, min_size=objectives, max_size=objectives)),
        init_with_true_random_threshold=draw(st.none() | share),
        enable_large_fail_pool=draw(st.booleans()),
    )


@given(configurations())
def test_round_trip(config: SearchConfiguration) -> None:
    assert SearchConfiguration.from_legacy(config.to_legacy()) == config


def test_one_field_a_line() -> None:
    config = SearchConfiguration(generations=2, num_objectives=2, objective_weights=[1.5, 1])
    assert config.to_legacy() == (
        '(problem_type "min")\n'
        "(normalize false)\n"
        "(num_objectives 2)\n"
        "(generations 2)\n"
        "(pool_size none)\n"
        "(cull_size none)\n"
        "(mutate_rate 0.25)\n"
        "(objective_weights (1.5 1.0))\n"
        "(init_with_true_random_threshold 0.9)\n"
        "(enable_large_fail_pool true)\n"
    )


def test_blanks_and_comments() -> None:
    text = '; a ( comment\n  (generations\t7) ; "another\r\n(problem_type "max")(mutate_rate\n1e-1)'
    config = SearchConfiguration.from_legacy(text)
    assert (config.generations, config.problem_type, config.mutate_rate) == (7, "max", 0.1)


_ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
        st.recursive(_ATOMS, lambda inner: st.lists(inner, max_size=4), max_leaves=8),
    )
)
def test_values_come_back(fields: dict[str, Any]) -> None:
    found = legacy.loads(legacy.dumps(fields))
    assert repr(found) == repr(fields)  # 1, 1.0 and True are equal, and -0.0 and 0.0


@given(st.text(st.sampled_from('()";\\ \n\tab10.-e\x00é'), max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    message = "line "
    try:
        legacy.loads(text)
    except ConfigurationError as error:
        message = str(error)
    assert message.startswith("line ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(generations 1", r"line 1, column 1: this `\(` is never closed"),
        ("(a 1)\n (b (1 2", r"line 2, column 5: this `\(` is never closed"),
        ("(", "line 1, column 1"),
        ("(a", "line 1, column 1"),
        ("(a 1", "line 1, column 1"),
        ("(a)", "line 1, column 3: `a` has no value"),
        ("a 1", "line 1, column 1: found 'a' where an entry"),
        ("(a 1))", r"line 1, column 6: found '\)'"),
        ("(a 1 2)", "line 1, column 6: `a` has more than one value"),
        ('\n\n  ("a" 1)', "line 3, column 4: found '\"a\"' where a name"),
        ("(9a 1)", "line 1, column 2"),
        ('(a "x)\n(b "y")', "line 1, column 4: this string does not end"),
        (r'(a "\q")', "line 1, column 4: .* escape"),
        ("(a ten)", "line 1, column 4: 'ten' is no value"),
        ("(a TRUE)", "'TRUE' is no value"),
        ("(a 1.)", "'1.' is no value"),
        ("(a 1e999)", "too large"),
        (f"(a {'9' * 5000})", "too large"),
        ("(a 1)\n(a 2)", "line 2, column 2: `a` appears for the second time"),
        (f"(a {'(' * 5000}", "nested more than"),
        ("(a 1)\x00", "line 1, column 6"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        legacy.loads(text)


def test_unknown_fields_are_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="no such field: colour, taste"):
        config = SearchConfiguration.from_legacy('(generations 1) (colour "red") (taste 3)')
    assert config == SearchConfiguration(generations=1)


@pytest.mark.parametrize("value", [3, None, b"(generations 1)"])
def test_only_text_is_legacy_text(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="`legacy` is"):
        SearchConfiguration.from_legacy(value)


def test_what_has_no_legacy_form() -> None:
    for fields in ({"a": float("nan")}, {"a": {}}, {"a b": 1}):
        with pytest.raises(ConfigurationError):
            legacy.dumps(fields)
