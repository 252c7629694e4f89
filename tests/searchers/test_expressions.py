from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from searchers.errors import ConstraintError
from searchers.expressions import MAX_DEPTH, MAX_TEXT, Const, Leaf, Op, conjuncts, parse

TREE = {"BLOCK": 0, "outer": {"inner": 1, "list": [2, 3]}, "blocks": [4, 5], "-O": 6, "flag": 7}
TOKENS = [
    "BLOCK",
    "outer",
    "['inner']",
    "blocks",
    "[0]",
    "[9]",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "+",
    "-",
    "*",
    "**",
    "//",
    "%",
    "<",
    "<=",
    "==",
    "!=",
    "in",
    "not",
    "and",
    "or",
    "is",
    "if",
    "else",
    "None",
    "lambda",
    "x",
    ".",
    ";",
    "=",
    ":=",
    "'a'",
    "f'{BLOCK}'",
    "1",
    "2.5",
    "1e999",
    "9999999999999999999",
    "0x",
    "min(",
    "max(",
    "len(",
    "sum(",
    "int(",
    "\n",
    "\t",
    "\\",
    "é",
    "\x00",
    "#",
]


class TestParse:
    def test_names_resolve_to_parameters(self) -> None:
        assert parse("BLOCK", TREE) == Leaf(0)
        assert parse("outer['inner']", TREE) == Leaf(1)
        assert parse('outer["list"][1]', TREE) == Leaf(3)
        assert parse("blocks[-1]", TREE) == Leaf(5)
        assert parse("config['-O']", TREE) == Leaf(6)

    def test_a_list_at_the_top_is_called_parts(self) -> None:
        tree = [{"x": 0}, {"x": 1, "y": 2}]
        assert parse("parts[1]['x']", tree) == Leaf(1)
        with pytest.raises(ConstraintError, match="parts"):
            parse("x > 1", tree)

    def test_a_name_for_several_parameters_is_the_list_of_them(self) -> None:
        assert parse("sum(blocks)", TREE) == Op("sum", (Op("list", (Leaf(4), Leaf(5))),))

    def test_a_parameter_may_shadow_every_special_name(self) -> None:
        tree = {"config": 0, "parts": 1, "min": 2}
        assert parse("config + parts + min", tree).leaves == {0, 1, 2}
        assert parse("min(min, parts)", tree) == Op("min", (Leaf(2), Leaf(1)))

    def test_chained_comparisons_become_a_conjunction(self) -> None:
        assert list(conjuncts(parse("1 < BLOCK <= 5 and flag", TREE))) == [
            Op("<", (Const(1), Leaf(0))),
            Op("<=", (Leaf(0), Const(5))),
            Leaf(7),
        ]

    def test_identifiers_are_compared_normalised(self) -> None:
        assert parse("ﬁne > 1", {"ﬁne": 0}).leaves == {0}

    def test_a_set_may_only_be_searched(self) -> None:
        assert parse("BLOCK in {1, 2}", TREE).leaves == {0}
        with pytest.raises(ConstraintError, match="a set is not allowed"):
            parse("len({1, 2}) > BLOCK", TREE)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("BLOK <= 3", "did you mean BLOCK?"),
            ("inner > 2", "did you mean outer['inner']?"),
            ("outer['iner'] > 2", "it has 'inner', 'list'"),
            ("blocks[7] > 2", "indices 0 to 1"),
            ("outer > 2", "is a group of parameters"),
            ("blocks[BLOCK] > 2", "must be a constant"),
            ("BLOCK.real > 1", "an attribute"),
            ("BLOCK < __import__('os').getpid()", "allowed are"),
            ("(lambda: 1)() < BLOCK", "allowed are"),
            ("[x for x in blocks]", "ListComp"),
            ("f'{BLOCK}' == '1'", "f-string"),
            ("BLOCK is 3", "write =="),
            ("min(BLOCK, key=1)", "keyword"),
            ("round() > 1", "takes 1 to 2 arguments"),
            ("blocks[0:1]", "slice"),
            ("BLOCK == 1j", "complex"),
            ("BLOCK == b'x'", "bytes"),
            ("BLOCK <", "invalid syntax"),
            ("BLOCK = 3", "syntax"),
            ("", "empty"),
            ("9" * 200 + " > BLOCK", "bits"),
        ],
    )
    def test_refusals_say_why(self, text: str, expected: str) -> None:
        with pytest.raises(ConstraintError) as caught:
            parse(text, TREE)
        assert expected in str(caught.value)

    def test_the_caret_is_under_the_place(self) -> None:
        with pytest.raises(ConstraintError) as caught:
            parse("'é' == 'x' or BLOK < 3", TREE)
        message, line, caret = str(caught.value).split("\n")
        assert line[caret.index("^")] == "B"
        assert "at column 15" in message

    def test_text_that_is_not_text_is_refused(self) -> None:
        with pytest.raises(ConstraintError, match="must be a string"):
            parse(3, TREE)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "text",
        [
            "-" * 9000 + "BLOCK",
            "not " * 2000 + "BLOCK",
            "BLOCK" + "+BLOCK" * 1000,
            "(" * 199 + "BLOCK" + ")" * 199 + "(",
            "[" * 5000,
            "BLOCK[" * 190 + "0" + "]" * 190,
            "min(" * 180 + "BLOCK" + ")" * 180,
            "BLOCK if " * 900,
            "a" * (MAX_TEXT + 1),
        ],
    )
    def test_bombs_are_refused_quickly(self, text: str) -> None:
        started = time.perf_counter()
        with pytest.raises(ConstraintError):
            parse(text, TREE)
        assert time.perf_counter() - started < 2

    def test_depth_is_bounded(self) -> None:
        parse("-(" * (MAX_DEPTH // 2) + "BLOCK" + ")" * (MAX_DEPTH // 2), TREE)
        with pytest.raises(ConstraintError, match="nested"):
            parse("BLOCK" + " + 1" * MAX_DEPTH, TREE)

    @settings(max_examples=400, deadline=2000)
    @given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(TOKENS), max_size=20).map(" ".join)))
    @example("\ud800")
    @example("'\\N{foo}' == BLOCK")
    @example("1if BLOCK else 2")
    @example("'\\d' == BLOCK")
    def test_any_text_gives_an_expression_or_our_error(self, text: str) -> None:
        with contextlib.suppress(ConstraintError):
            assert parse(text, TREE).leaves <= set(range(8))
