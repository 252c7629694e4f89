from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from searchers import (
    Boolean,
    Choice,
    ConfigError,
    ConstraintError,
    ListOf,
    Literal,
    LogRange,
    Permutation,
    PowerOfTwo,
    Range,
    Space,
    SpaceError,
)

RNG = np.random.default_rng(7)


def configs(space: Space) -> list[Any]:
    assert space.rows is not None
    return [space.decode(row) for row in space.rows]


def test_the_pinned_example() -> None:
    space = Space(
        {
            "BLOCK_M": PowerOfTwo(16, 256),
            "stages": Range(1, 4, step=1),
            "order": Choice(["row", "col"]),
            "fast_math": Boolean(),
            "flag": Literal("-x", knockout_prob=0.5),
            "lr": LogRange(1e-5, 1e-1, total=32),
        },
        constraints=["BLOCK_M * stages <= 512", lambda c: c["order"] == "row" or c["stages"] > 1],
        default={"BLOCK_M": 64, "stages": 2, "order": "row", "fast_math": False, "lr": 1e-3},
    )
    pairs = [
        (m, s, o)
        for m in (16, 32, 64, 128, 256)
        for s in (1, 2, 3, 4)
        for o in ("row", "col")
        if m * s <= 512 and (o == "row" or s > 1)
    ]
    assert space.size == len(pairs) * 2 * 2 * 32
    found = {(c["BLOCK_M"], c["stages"], c["order"]) for c in configs(space)}
    assert found == set(pairs)
    assert space.default_row is not None
    assert space.decode(space.default_row) == space.default
    assert space.default["lr"] == pytest.approx(1e-3, rel=0.2)


def test_types_come_back_as_given() -> None:
    space = Space(
        {
            "i": Range(0, 3),
            "f": Range(0.0, 1.0, 0.5),
            "p": PowerOfTwo(1, 4),
            "b": Boolean(),
            "s": Choice(["a", "b"]),
            "n": Choice([None, 2]),
        }
    )
    for row in space.sample(50, RNG):
        config = space.decode(row)
        kinds = {name: type(value) for name, value in config.items()}
        assert kinds.pop("n") in (type(None), int)
        assert kinds == {"i": int, "f": float, "p": int, "b": bool, "s": str}


def test_nested_dicts_and_lists() -> None:
    space = Space(
        {
            "outer": {"inner": Range(1, 2), "deep": {"x": Boolean()}},
            "blocks": [PowerOfTwo(1, 2), Range(5, 6)],
            "many": ListOf(Choice(["a", "b"]), 2),
        },
        constraints=['outer["inner"] == 1', "blocks[0] * blocks[1] == 12", "many[0] != many[1]"],
    )
    assert configs(space) == [
        {"outer": {"inner": 1, "deep": {"x": x}}, "blocks": [2, 6], "many": many}
        for x in (False, True)
        for many in (["a", "b"], ["b", "a"])
    ]
    assert space.names[0] == 'outer["inner"]'


def test_a_list_of_spaces_gives_a_list_of_parts() -> None:
    class Render:
        def __call__(self, config: dict[str, Any]) -> str:
            return " ".join(f"--{name}={value}" for name, value in config.items())

    text = Space({"O": Range(1, 2), "g": Literal("on", knockout_prob=0.5)}, ["O > 1"], render=Render())
    space = Space([{"x": Range(0, 1)}, text], ["parts[0]['x'] == 1 or parts[1]['g'] is None"])
    assert configs(space) == [[{"x": 0}, "--O=2"], [{"x": 1}, "--O=2 --g=on"], [{"x": 1}, "--O=2"]]
    row = space.encode([{"x": 1}, {"O": 2}])
    assert space.decode(row) == [{"x": 1}, "--O=2"]
    with pytest.raises(ConfigError, match="rendered"):
        space.encode([{"x": 1}, "--O=2"])


def test_constraints_of_a_part_see_only_that_part() -> None:
    part = Space({"a": Range(1, 3)}, constraints=["a > 1", lambda c: c["a"] < 3])
    assert configs(Space({"p": part, "a": Range(1, 2)})) == [{"p": {"a": 2}, "a": 1}, {"p": {"a": 2}, "a": 2}]


def test_knockout_makes_a_parameter_absent() -> None:
    space = Space({"x": Range(1, 2, knockout_prob=0.5), "l": ListOf(Boolean(), 2, knockout_prob=0.5)})
    assert space.size == (2 + 1) * (4 + 1)
    found = configs(space)
    assert {} in found
    assert {"x": 1} in found
    assert {"l": [True, False]} in found
    keys = space.keys(space.rows)  # type: ignore[arg-type]
    assert len(set(keys.tolist())) == space.size


def test_knocked_out_genes_do_not_make_a_difference() -> None:
    space = Space({"x": Range(1, 9, knockout_prob=0.5), "y": Boolean()})
    rows = np.array([[3, 1, 1], [7, 1, 1], [3, 1, 0], [7, 1, 0]], dtype=np.int32)
    keys = space.keys(rows).tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert space.decode(rows[0]) == {"y": True}


def test_knockout_probabilities_are_met() -> None:
    space = Space(
        {
            "x": Range(1, 2, knockout_prob=0.2),
            "y": Range(1, 2, knockout_prob=0.0),
            "z": Range(1, 2, knockout_prob=1.0),
        }
    )
    drawn = [space.decode(row) for row in space.sample(4000, np.random.default_rng(1))]
    assert 0.17 < sum("x" not in config for config in drawn) / 4000 < 0.23
    assert all("y" in config for config in drawn)
    assert not any("z" in config for config in drawn)


def test_conditions_switch_parameters_off() -> None:
    space = Space(
        {
            "kind": Choice(["fft", "direct"]),
            "radix": Choice([2, 4], when="kind == 'fft'"),
            "tile": Range(1, 2, when="radix == 4", knockout_prob=0.5),
        }
    )
    assert space.size == 1 + 1 + 3
    assert configs(space) == [
        {"kind": "fft", "radix": 2},
        {"kind": "fft", "radix": 4, "tile": 1},
        {"kind": "fft", "radix": 4, "tile": 2},
        {"kind": "fft", "radix": 4},
        {"kind": "direct"},
    ]
    rows = space.sample(200, RNG)
    assert {json.dumps(space.decode(row)) for row in rows} == {json.dumps(c) for c in configs(space)}
    space.encode({"kind": "direct"})
    with pytest.raises(ConfigError, match="tile"):
        space.encode({"kind": "direct", "tile": 1})
    with pytest.raises(ConfigError, match="radix"):
        space.encode({"kind": "fft"})
    with pytest.raises(ConstraintError, match="earlier"):
        Space({"a": Boolean(when="b"), "b": Boolean()})


def test_encode_is_the_inverse_of_decode() -> None:
    space = Space(
        {
            "x": Range(0, 5),
            "n": {"p": Permutation(3, knockout_prob=0.3)},
            "l": [Boolean(), Range(1, 3)],
            "c": Choice(["a", 1, None]),
            "lr": LogRange(1, 100, 5),
        },
        ["x != 3"],
    )
    for row in space.sample(100, RNG):
        again = space.encode(space.decode(row))
        assert space.keys(again[None]) == space.keys(row[None])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"x": 1, "y": 9}, "y: 9"),
        ({"x": 1}, "y"),
        ({"x": 1, "y": 1, "z": 1}, "z"),
        ({"x": 1, "yy": 1}, "did you mean 'y'"),
        ([1, 2], "dict"),
        ({"x": 2, "y": 2}, "breaks the constraint"),
    ],
)
def test_no_members_are_refused(config: Any, message: str) -> None:
    space = Space({"x": Range(1, 3), "y": Range(1, 3)}, ["x != y or x != 2"])
    with pytest.raises(ConfigError, match=message):
        space.encode(config)


@pytest.mark.parametrize(
    ("parameters", "constraints", "named"),
    [
        ({}, [], "parameters"),
        ({"x": 3}, [], "x is 3"),
        ({"x": [1, 2, 3]}, [], r"x\[0\] is 1"),
        ({3: Boolean()}, [], "3"),
        ({"": Boolean()}, [], "''"),
        ({"x": Boolean()}, ["y"], "y"),
        ({"x": Boolean()}, ["x >"], "x >"),
        ({"x": Boolean()}, ["__import__('os')"], "__import__"),
        ({"x": Range(1, 3)}, ["x > 3"], "x > 3"),
        ({"x": Range(1, 3), "y": Range(1, 3)}, ["x < y", "y < x"], "<"),
        ({"x": Range(1, 3)}, [lambda c: False], "whatever"),
        ({"x": Range(1, 3)}, [lambda c: c["y"]], "y"),
        ({"x": Range(1, 3)}, [7], "7"),
        ({"x": Range(1, 3, knockout_prob=0.5)}, ["x * 2 > 1"], "None"),
        ([Boolean(knockout_prob=0.5)], [], "knockout_prob"),
        ("x", [], "'x'"),
    ],
)
def test_bad_spaces_are_refused_by_name(parameters: Any, constraints: Any, named: str) -> None:
    with pytest.raises(SpaceError, match=named):
        Space(parameters, constraints)


def test_default_must_be_a_member() -> None:
    with pytest.raises(SpaceError, match="default"):
        Space({"x": Range(1, 3)}, default={"x": 4})


def test_enumeration_equals_the_filtered_product() -> None:
    axes = {"a": range(1, 7), "b": range(1, 7), "c": range(1, 7)}
    space = Space({n: Range(1, 6) for n in axes}, ["a * b <= 12", "c % a == 0", lambda c: c["b"] != c["c"]])
    expected = [
        {"a": a, "b": b, "c": c}
        for a, b, c in itertools.product(*axes.values())
        if a * b <= 12 and c % a == 0 and b != c
    ]
    assert configs(space) == expected


def test_a_large_product_with_few_members_takes_seconds() -> None:
    names = "abcdefghi"
    begun = time.monotonic()
    space = Space({n: Range(0, 9) for n in names}, [f"{'+'.join(names)} <= 8"])
    assert space.size == 24310  # 17 over 8
    pairs = [lambda c, i=i: c[names[i]] + c[names[i + 1]] <= 2 for i in range(8)]
    assert (
        Space({n: Range(0, 9) for n in names}, pairs).size == 1782
    )  # paths of length 9 in a graph of three nodes
    assert time.monotonic() - begun < 20  # on a busy machine; it takes about one


def test_without_enumeration_samples_are_valid() -> None:
    space = Space({f"p{i}": Range(0, 99) for i in range(12)}, ["p0 + p1 < 100", lambda c: c["p2"] % 2 == 0])
    assert space.size is None
    assert space.rows is None
    rows = space.sample(500, RNG)
    assert len(rows) == 500
    assert all(c["p0"] + c["p1"] < 100 and c["p2"] % 2 == 0 for c in map(space.decode, rows))


def test_seed_share() -> None:
    space = Space({"x": Range(0, 999, seed_low=100, seed_high=109)})
    drawn = [space.decode(r)["x"] for r in space.sample(4000, np.random.default_rng(3), seed_share=0.9)]
    inside = sum(100 <= x <= 109 for x in drawn) / 4000
    assert 0.88 < inside < 0.93  # 90% and a hundredth of the rest
    without = [space.decode(r)["x"] for r in space.sample(4000, np.random.default_rng(3))]
    assert sum(100 <= x <= 109 for x in without) / 4000 < 0.03


def test_neighbours() -> None:
    space = Space(
        {"x": Range(0, 5), "c": Choice(["a", "b", "c"]), "f": Literal(1, knockout_prob=0.5)}, ["x != 2"]
    )
    row = space.encode({"x": 1, "c": "a", "f": 1})
    found = [space.decode(other) for other in space.neighbours(row)]
    assert found == [
        {"x": 0, "c": "a", "f": 1},
        {"x": 1, "c": "b", "f": 1},
        {"x": 1, "c": "c", "f": 1},
        {"x": 1, "c": "a"},
    ]
    wider = [space.decode(other)["x"] for other in space.neighbours(row, radius=2)]
    assert sorted(set(wider)) == [0, 1, 3]


def test_round_trip_through_json() -> None:
    space = Space(
        {
            "x": Range(0, 9, 2, seed_low=2, seed_high=6),
            "p": PowerOfTwo(1, 8),
            "c": Choice(["a", None, 2]),
            "l": Literal("-f", knockout_prob=0.25),
            "b": Boolean(when="x > 2"),
            "lr": LogRange(1, 9, 3),
            "o": Permutation(3),
            "n": {"many": ListOf(Range(1, 2), 2)},
            "o2": Choice(["s", "m"], ordered=True),
        },
        ["x > 0 or p == 1"],
        default={
            "x": 0,
            "p": 1,
            "c": "a",
            "l": "-f",
            "lr": 1.0,
            "o": [0, 1, 2],
            "n": {"many": [1, 1]},
            "o2": "s",
        },
    )
    again = Space.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again.to_dict() == space.to_dict()
    assert again.fingerprint == space.fingerprint
    assert again.size == space.size
    np.testing.assert_array_equal(again.rows, space.rows)  # type: ignore[arg-type]


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(SpaceError, match="code"):
        Space({"x": Boolean()}, [lambda c: c["x"]]).to_dict()
    with pytest.raises(SpaceError, match="JSON"):
        Space({"x": Choice([object(), 1])}).to_dict()
    with pytest.raises(SpaceError, match="JSON"):
        Space({"x": Choice([(1, 2), 1])}).to_dict()


def test_fingerprint_sees_every_difference() -> None:
    spaces = [
        Space({"x": Range(0, 3)}),
        Space({"x": Range(0, 4)}),
        Space({"y": Range(0, 3)}),
        Space({"x": Range(0, 3)}, ["x < 3"]),
        Space({"x": Range(0, 3)}, [lambda c: c["x"] < 2]),
        Space({"x": Range(0, 3)}, [lambda c: c["x"] < 3]),
        Space({"x": Range(0, 3, knockout_prob=0.1)}),
        Space({"x": Range(0, 3, seed_low=1)}),
        Space({"x": Choice([0, 1, 2, 3])}),
        Space({"x": {"x": Range(0, 3)}}),
        Space([{"x": Range(0, 3)}]),
        Space({"x": Range(0, 1), "y": Range(0, 1)}),
        Space({"y": Range(0, 1), "x": Range(0, 1)}),
    ]
    assert len({space.fingerprint for space in spaces}) == len(spaces)


def test_fingerprint_tells_tuples_from_lists() -> None:
    spaces = [
        Space({"x": Choice([(1, 2), (3, 4)])}),
        Space({"x": Choice([[1, 2], [3, 4]])}),
        Space({"x": Choice([[1, 2], (3, 4)])}),
        Space({"x": Choice([[(1,), 2], [3, 4]])}),
        Space({"x": Choice([{"a": (1, 2)}, 3])}),
        Space({"x": Choice([{"a": [1, 2]}, 3])}),
    ]
    assert len({space.fingerprint for space in spaces}) == len(spaces)


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (Range(0, 3), "0b8fe50a848c026c"),
        (Choice([1, 2.5, None]), "402f3e030571e7c8"),
        (Choice([[1, 2], [3, 4]]), "f8c325c770856f57"),
    ],
)
def test_fingerprints_of_spaces_in_old_journals_stay(param: Any, expected: str) -> None:
    assert Space({"x": param, "n": {"y": Range(0, 1)}}).fingerprint == expected


def test_keys_and_fingerprints_are_the_same_in_another_process() -> None:
    code = (
        "from searchers import *; s = Space({'x': Range(0, 9), 'c': Choice(['a', 'b'])}); "
        "print(s.fingerprint, s.keys(s.rows).sum())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    space = Space({"x": Range(0, 9), "c": Choice(["a", "b"])})
    assert printed == {f"{space.fingerprint} {space.keys(space.rows).sum()}\n"}  # type: ignore[arg-type]


def test_keys_do_not_collide() -> None:
    space = Space({f"p{i}": Range(0, 15) for i in range(5)})
    assert space.rows is not None
    keys = space.keys(space.rows)
    assert len(np.unique(keys)) == 16**5
    np.testing.assert_array_equal(space.index_of(keys), np.arange(16**5))


def test_ray_tune_domains() -> None:
    from ray import tune

    space = Space(
        {
            "a": tune.choice(["x", "y"]),
            "b": tune.randint(1, 4),
            "c": tune.quniform(0, 1, 0.25),
            "d": tune.uniform(0, 1),
            "e": tune.loguniform(1e-4, 1e-1),
            "f": tune.qrandint(0, 20, 5),
            "g": tune.grid_search([1, 2]),
            "h": tune.lograndint(1, 101),
        }
    )
    levels = {
        leaf.name: [leaf.param.value(i) for i in range(leaf.param.n_levels)] for leaf in space.encoding.leaves
    }
    assert levels["a"] == ["x", "y"]
    assert levels["b"] == [1, 2, 3]
    assert levels["c"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert (levels["d"][0], levels["d"][-1], len(levels["d"])) == (0.0, 1.0, 65)
    assert (levels["e"][0], levels["e"][-1], len(levels["e"])) == (1e-4, 1e-1, 65)
    assert levels["f"] == [0, 5, 10, 15, 20]
    assert levels["g"] == [1, 2]
    assert (levels["h"][0], levels["h"][-1]) == (1, 100)
    with pytest.raises(SpaceError, match=r"[Nn]ormal"):
        Space({"x": tune.randn(0, 1)})


def test_bits_under_a_condition_that_is_off_make_no_difference() -> None:
    space = Space({"a": Boolean(), "b": Range(1, 8, knockout_prob=0.5, when="a")})
    keys = space.keys(np.array([[0, 3, 0], [0, 5, 1], [1, 3, 0]], dtype=np.int32))
    assert keys[0] == keys[1] != keys[2]
    assert space.valid(np.array([[0, 3, 0]], dtype=np.int32)).all()


def test_needles_in_a_space_too_large_to_enumerate_are_found() -> None:
    space = Space(
        {f"p{i}": Range(0, 99) for i in range(12)},
        ["p0 * p1 == 9409", "p2 + p3 + p4 == 1", lambda c: int(c["p5"]) % 2 == 0],
    )
    assert space.size is None
    rows = space.sample(300, RNG)
    configs = [space.decode(row) for row in rows]
    assert len(rows) == 300
    assert all(
        c["p0"] == c["p1"] == 97 and c["p2"] + c["p3"] + c["p4"] == 1 and c["p5"] % 2 == 0 for c in configs
    )
    assert len({tuple(row) for row in rows.tolist()}) > 290


def test_names_need_not_be_identifiers() -> None:
    space = Space(
        {
            "-O": Range(0, 3),
            "if": ListOf(Boolean(), 2, knockout_prob=0.5),
            "x y": Range(1, 2, when="config['-O'] > 1"),
        },
        ["config['-O'] < 3"],
    )
    assert {"-O": 2, "x y": 1} in configs(space)
    assert {"-O": 0, "if": [True, False]} in configs(space)
    assert space.size == (2 + 2) * 5


def test_the_default_of_a_logarithmic_range_snaps_to_the_nearest_value() -> None:
    space = Space({"lr": LogRange(1e-5, 1e-1, total=32)}, default={"lr": 1e-3})
    assert space.default_row is not None
    assert 0.8e-3 < space.decode(space.default_row)["lr"] < 1.2e-3
    assert space.default == space.decode(space.default_row)
    for value in (1.0, 1e-3):
        with pytest.raises(ConfigError, match=str(value)):
            space.encode({"lr": value})
