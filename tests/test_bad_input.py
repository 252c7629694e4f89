"""A thousand generated inputs, most of them bad: an error of ours or success, soon, each time."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciq_ray.errors import CiqError
from ciq_ray.search_spaces import base
from ciq_ray.search_spaces.files import load_space
from ciq_ray.types import SearchConfiguration
from searchers import (
    Boolean,
    Choice,
    ListOf,
    Literal,
    LogRange,
    Permutation,
    PowerOfTwo,
    Range,
    SearcherError,
    Space,
)

EXAMPLES = settings(
    max_examples=250,
    deadline=5000,  # ms; a hang is a failure
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

numbers = st.one_of(
    st.integers(-5, 300),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 2**31, 2**63, 1e308, 5e-324, math.nan, math.inf, -0.0, True]),
)
# surrogates included: a name may come from anywhere
texts = st.text(st.characters(codec=None, categories=None), max_size=8) | st.sampled_from(
    ["x", "y", "type", "format", "", "a b", "\ud800", "\0", "config", "parts", "None", "é"]
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
junk = st.recursive(
    scalars | st.binary(max_size=4) | st.just(object()) | st.just(len),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=6,
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def ours_or_success(call: Callable[[], Any]) -> Any:
    """The result, or ``None`` after an error of ours; any other error is a failure of the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return call()
        except (CiqError, SearcherError) as error:
            message = str(error)
    assert message.strip(), "an error says something"
    return None


def often(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is asked for, so that an example goes wrong in one place rather than in all."""
    return st.integers(0, 15).flatmap(lambda n: junk if n == 15 else good)


def calls(
    kind: Callable[..., Any], options: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    """Calls of a constructor that are to be made inside the test."""
    return st.fixed_dictionaries(needed, optional=options).map(lambda arguments: Call(kind, arguments))


@dataclass
class Call:
    kind: Callable[..., Any]
    arguments: dict[str, Any]


low, high = often(st.integers(-9, 9) | numbers), often(st.integers(9, 99) | st.floats(9, 99) | numbers)
step, probability = often(st.sampled_from([1, 2, 0.5, 0, -1]) | numbers), often(st.floats(0, 1) | numbers)
values = often(st.lists(st.integers(), min_size=1, max_size=5, unique=True) | st.lists(scalars, max_size=5))
count = often(st.integers(1, 40) | st.integers(-1, 1))
condition = often(
    st.sampled_from(["x == x", "x is not None", "y != y", "x > 1", "y", "x +", "", "x and " * 300 + "x"])
)
knockout = {"knockout_prob": probability}
common = {**knockout, "when": condition}
seeds = {"seed_low": low, "seed_high": high}
parameters = st.one_of(
    calls(Range, {**common, **seeds, "step": step}, start=low, end=high),
    calls(Choice, {**common, "ordered": often(st.booleans())}, choices=values),
    calls(Literal, common, value=junk),
    calls(LogRange, {**common, "total": count}, start=often(st.floats(0.001, 9) | numbers), end=high),
    calls(
        PowerOfTwo,
        common,
        low=often(st.sampled_from([1, 2, 16])),
        high=often(st.sampled_from([16, 2**40, 2**70])),
    ),
    calls(Boolean, common),
    calls(Permutation, common, items=values),
    calls(lambda **given: ListOf(Boolean(), **given), knockout, length=count),
    calls(base.range, {**knockout, **seeds, "step": step}, start=low, end=high),
    calls(base.choice, knockout, choice_list=values),
    calls(base.literal, knockout, const_value=junk),
    calls(
        base.log_sampling, {**knockout, "total": count}, start=often(st.floats(0.001, 9) | numbers), end=high
    ),
)


def built(tree: Any) -> Any:
    """The tree with its constructors called."""
    if isinstance(tree, Call):
        return tree.kind(**tree.arguments)
    if isinstance(tree, dict):
        return {name: built(inner) for name, inner in tree.items()}
    if isinstance(tree, list):
        return [built(inner) for inner in tree]
    return tree


def use(space: Space) -> None:
    """What a search does with a space."""
    rows = space.sample(3, np.random.default_rng(0), seed_share=0.5)
    for row in rows:
        config = space.decode(row)
        assert space.keys(space.encode(config)[None, :]) == space.keys(row[None, :])
        space.neighbours(row)
    assert space.valid(rows).all()
    ours_or_success(space.to_dict)
    assert len(space.fingerprint) == 16


@EXAMPLES
@given(
    tree=st.dictionaries(st.sampled_from("xyz") | texts, often(parameters), min_size=1, max_size=4)
    | st.lists(often(parameters), max_size=3)
    | st.dictionaries(texts, st.dictionaries(texts | numbers, parameters, max_size=2), max_size=2)
    | junk,
    constraints=often(st.just([]) | st.lists(condition, max_size=2)),
    default=often(st.none() | junk),
)
def test_spaces(tree, constraints, default):
    ours_or_success(lambda: use(Space(built(tree), constraints, default)))


names = st.sampled_from(["x", "y", "z", "s", "flag", "inner['n']", "config['x']", "inner", "nope"])
literals = st.one_of(
    st.integers(-3, 300).map(str),
    st.sampled_from(
        ["0", "1e400", "1e-400", "9" * 90, "'a'", "''", "None", "True", "0.5", "(1, 2)", "[]", "...", "2j"]
    ),
)
operators = st.sampled_from(
    [
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "**",
        "<<",
        ">>",
        "&",
        "|",
        "^",
        "<",
        "<=",
        "==",
        "!=",
        "in",
        "not in",
        "is",
        "and",
        "or",
        "if",
        ",",
        "@",
    ]
)
expressions = st.recursive(
    names | literals,
    lambda inner: st.one_of(
        st.tuples(inner, operators, inner).map(" ".join),
        st.tuples(inner, operators, inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda text: f"not {text}"),
        inner.map(lambda text: f"-{text}"),
        st.tuples(st.sampled_from(["min", "max", "len", "log2", "gcd", "sum", "open", "int"]), inner).map(
            lambda parts: f"{parts[0]}({parts[1]}, 3)"
        ),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
    ),
    max_leaves=8,
)
FIXED = {
    "x": Range(0, 9),
    "y": Range(-1.0, 1.0, 0.5),
    "z": PowerOfTwo(1, 16),
    "s": Choice(["a", "bb", None, 3]),
    "flag": Boolean(knockout_prob=0.5),
    "inner": {"n": Range(-1, 1)},
}


@EXAMPLES
@given(
    constraints=st.lists(
        expressions
        | texts
        | st.sampled_from(
            [
                "__import__('os').system('true')",
                "().__class__.__bases__",
                "x.real > 1",
                "[x for x in y]",
                "lambda: x",
                "x := 3",
                "f'{x}'",
                "2 ** 2 ** 2 ** 99 > x",
                "x << 10 ** 9",
                "'a' * 10 ** 12 == s",
                "(" * 90 + "x" + ")" * 90,
                "-" * 5000 + "x",
                "x and " * 1600 + "x",
            ]
        )
        | st.sampled_from(
            [
                len,
                int,
                max,
                lambda c: c["nope"],
                lambda c: 1 / c["x"],
                lambda: True,
                lambda a, b: a,
                lambda c: None,
            ]
        ),
        min_size=1,
        max_size=3,
    )
)
def test_constraints(constraints):
    ours_or_success(lambda: use(Space(FIXED, constraints)))


fields = {
    "problem_type": often(st.sampled_from(["min", "max"])),
    "normalize": often(st.booleans()),
    "num_objectives": often(st.integers(1, 3) | st.integers(-1, 4)),
    "pool_size": often(st.integers(30, 50) | st.integers(0, 50) | st.none()),
    "cull_size": often(st.sampled_from([2, 8, 16, None]) | st.integers(0, 50)),
    "mutate_rate": often(st.floats(0.01, 0.99) | numbers),
    "objective_weights": often(st.none() | st.lists(numbers, max_size=4)),
    "init_with_true_random_threshold": often(st.floats(0, 1) | numbers),
    "enable_large_fail_pool": often(st.booleans()),
}
legacy = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([*fields, "nope", "dna_config"]), literals | texts).map(
            lambda pair: f"({pair[0]} {pair[1]})"
        ),
        texts,
        st.sampled_from(
            ["(", ")", '"', ";", "(generations 3)", "(generations 3) (generations 4)", "(" * 20_000]
        ),
    ),
    max_size=5,
).map("\n".join)


@EXAMPLES
@given(
    configuration=st.fixed_dictionaries({"generations": often(st.integers(1, 9))}, optional=fields)
    | st.fixed_dictionaries({"generations": often(st.integers(-1, 9))}, optional=fields)
    | st.dictionaries(texts | numbers, junk, max_size=3)
    | junk,
    text=legacy,
)
def test_configurations(configuration, text):
    config = ours_or_success(lambda: SearchConfiguration.load(configuration))
    if config is not None:
        assert SearchConfiguration.from_legacy(config.to_legacy()) == config
        assert SearchConfiguration.load(config.to_json_dict()) == config
        assert config.resolved_cull_size < config.resolved_pool_size
    ours_or_success(lambda: SearchConfiguration.from_legacy(text))


def good_file() -> dict[str, Any]:
    space = {name: param for name, param in FIXED.items() if name != "s"}
    return Space(space, ["x * z <= 4096"]).to_dict()


def compiler_file() -> dict[str, Any]:
    folder = Path(base.__file__).parent / "catalogue"
    content: dict[str, Any] = json.loads((folder / "ptxas-13-registers.json").read_text())
    return content


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """The bytes of a file: a good one with something changed, or none at all."""
    kind = draw(st.integers(0, 7))
    if kind == 7:
        return draw(st.binary(max_size=60))
    if kind == 6:
        return draw(
            st.sampled_from(
                [
                    b"",
                    b"[" * 200_000,
                    b'{"a":' * 200_000,
                    b"9" * 10_000,
                    b'{"format": "ciq-space", "format": "ciq-space"}',
                    b'{"format": "ciq-space", "version": NaN}',
                    b'{"format": "ciq-space", "version": 1, "parameters": {"x": {"type": "range", '
                    b'"start": 0, "end": ' + b"9" * 4000 + b"}}}",
                    b'{"format": "ciq-space", "version": 1, "parameters": '
                    + b'{"a": ' * 900
                    + b'{"type": "boolean"}'
                    + b"}" * 901,
                    b"\xff\xfe{}",
                    b"\xef\xbb\xbf{}",
                    b'{"\\ud800": 1}',
                    b"\0" * 100,
                    b"GIF89a\x01\x00",
                ]
            )
        )
    content: Any = good_file() if kind < 4 else compiler_file()
    for _ in range(draw(st.integers(1, 2))):
        content = changed(draw, content)
    data = json.dumps(content).encode()
    if kind == 5:
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + draw(st.integers(0, 3)) :]
    return data


def changed(draw: st.DrawFn, node: Any) -> Any:
    """The tree with one node replaced, removed or added somewhere."""
    if isinstance(node, dict) and node and draw(st.integers(0, 9)) != 9:
        name = draw(st.sampled_from(sorted(node)))
        action = draw(st.integers(0, 15))
        if action == 15:
            return {key: value for key, value in node.items() if key != name}
        if action == 14:
            return {**node, draw(texts): draw(plain)}
        return {**node, name: changed(draw, node[name])}
    if isinstance(node, list) and node and draw(st.integers(0, 9)) != 9:
        place = draw(st.integers(0, len(node) - 1))
        return [*node[:place], changed(draw, node[place]), *node[place + 1 :]]
    return draw(plain)


@EXAMPLES
@given(data=files())
def test_files(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "generated"
    path.write_bytes(data)
    space = ours_or_success(lambda: load_space(path))
    if space is not None:
        ours_or_success(lambda: use(space))
    ours_or_success(lambda: SearchConfiguration.load(path))
