"""`Config` and the space builder for it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciq_ray.config import Config
from ciq_ray.config_space import config_space
from ciq_ray.errors import ConfigurationError
from searchers import PowerOfTwo, Range, Space, SpaceError

FULL: dict[str, Any] = {
    "block_sizes": [64, 128],
    "num_threads": 128,
    "loop_orders": [[1, 0], [0, 2, 1]],
    "flatten_loops": [True],
    "l2_groupings": [8],
    "reduction_loops": [None, 32],
    "range_unroll_factors": [0, 2],
    "range_warp_specializes": [None, True],
    "range_num_stages": [0, 3],
    "range_multi_buffers": [False, None],
    "range_flattens": [True, None],
    "static_ranges": [False],
    "load_eviction_policies": ["", "first", "last"],
    "num_warps": 8,
    "num_stages": 3,
    "pid_type": "persistent_blocked",
    "num_sm_multiplier": 4,
    "maxnreg": 128,
    "indexing": ["pointer", "block_ptr", "tensor_descriptor"],
    "advanced_controls_file": "",
}


class TestConfig:
    def test_every_documented_key(self) -> None:
        import inspect

        parameters = inspect.signature(Config).parameters
        assert [*FULL, "kwargs"] == list(parameters)
        assert {p.kind for p in parameters.values()} == {
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        }
        config = Config(**FULL)
        assert dict(config) == FULL
        for name, value in FULL.items():
            assert config[name] == getattr(config, name) == value

    def test_it_is_a_mapping_of_what_was_given(self) -> None:
        config = Config(num_warps=4, block_sizes=[16], num_stages=None, MINE={"a": 1}, nothing=None)
        assert list(config) == ["block_sizes", "num_warps", "MINE", "nothing"]
        assert len(config) == 4
        assert config.get("num_stages") is None
        assert "num_stages" not in config
        assert config["MINE"] == config.MINE == {"a": 1}
        assert config == {"num_warps": 4, "block_sizes": [16], "MINE": {"a": 1}, "nothing": None}
        assert config == Config(**config)
        assert config != Config(num_warps=4)
        assert config != 4
        with pytest.raises(KeyError):
            config["num_stages"]
        with pytest.raises(TypeError):
            hash(config)

    def test_attributes_of_what_was_not_given(self) -> None:
        config = Config()
        assert config.num_warps is None
        assert config.indexing == "pointer"
        assert not hasattr(config, "mine")
        with pytest.raises(AttributeError, match="has nothing"):
            config.mine  # noqa: B018

    def test_it_cannot_be_changed_from_outside(self) -> None:
        sizes = [16, 32]
        config = Config(block_sizes=sizes, mine={"a": [1]})
        sizes.append(64)
        config["block_sizes"].append(1)
        config.mine["a"].append(2)
        assert dict(config) == {"block_sizes": [16, 32], "mine": {"a": [1]}}

    @pytest.mark.parametrize("name", ["num_warps", "num_stages", "mine", "_values"])
    def test_nor_by_an_attribute(self, name: str) -> None:
        config = Config(num_warps=4, mine=1)
        with pytest.raises(AttributeError, match=f"`{name}` cannot be changed.*make another one"):
            setattr(config, name, 3)
        with pytest.raises(AttributeError, match=f"`{name}` cannot be changed"):
            delattr(config, name)
        assert config == {"num_warps": 4, "mine": 1}
        assert (config.num_warps, config.mine) == (4, 1)

    def test_tuples_are_lists(self) -> None:
        assert Config(block_sizes=(16, 32), loop_orders=((0, 1),)) == {  # type: ignore[arg-type]
            "block_sizes": [16, 32],
            "loop_orders": [[0, 1]],
        }

    def test_copies_and_pickles(self) -> None:
        config = Config(**FULL, mine=1)
        assert pickle.loads(pickle.dumps(config)) == config
        assert copy.deepcopy(config) == copy.copy(config) == config

    @pytest.mark.parametrize(
        "bad",
        [
            {"block_sizes": 16},
            {"block_sizes": ["16"]},
            {"block_sizes": [True]},
            {"block_sizes": [0]},
            {"num_threads": "a"},
            {"loop_orders": [[0, 2]]},
            {"loop_orders": [0, 1]},
            {"flatten_loops": [1]},
            {"reduction_loops": [0]},
            {"range_flattens": ["yes"]},
            {"static_ranges": [None]},
            {"load_eviction_policies": ["none"]},
            {"load_eviction_policies": "first"},
            {"num_warps": 0},
            {"num_warps": 4.0},
            {"num_stages": True},
            {"pid_type": "persistent"},
            {"num_sm_multiplier": 3},
            {"num_sm_multiplier": True},
            {"maxnreg": 96},
            {"indexing": "pointers"},
            {"indexing": ["pointer", ""]},
            {"advanced_controls_file": 3},
        ],
    )
    def test_bad_values(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(**bad)
        ((name, value),) = bad.items()
        assert f"`{name}` is {value!r}; it must be" in str(caught.value)

    @pytest.mark.parametrize("config", [Config(), Config(**FULL), Config(mine=1, **{"class": 2, "a b": "c"})])
    def test_repr_can_be_pasted(self, config: Config) -> None:
        assert eval(repr(config)) == config


class TestFiles:
    def test_there_and_back(self, tmp_path: Path) -> None:
        config = Config(**FULL, mine={"deep": [1, None, "x"]})
        assert Config.from_json(config.to_json()) == config
        assert config.save(tmp_path / "best.json") == tmp_path / "best.json"
        assert Config.load(tmp_path / "best.json") == config
        assert json.loads((tmp_path / "best.json").read_text()) == dict(config)

    @pytest.mark.parametrize("name", ["self", "cls", "args", "kwargs", "text", "_values", "__init__", ""])
    def test_any_name_is_a_parameter(self, name: str, tmp_path: Path) -> None:
        config = Config.from_json(json.dumps({name: 1}))
        assert config == Config(**{name: 1}) == {name: 1}
        assert Config.load(config.save(tmp_path / "best.json")).minimize({}) == {name: 1}
        assert eval(repr(config)) == config

    @pytest.mark.parametrize("value", [{1: 2}, object(), float("nan"), {1, 2}])
    def test_what_json_cannot_hold(self, value: Any, tmp_path: Path) -> None:
        (tmp_path / "old").write_text("kept")
        with pytest.raises(ConfigurationError, match="JSON"):
            Config(mine=value).save(tmp_path / "old")
        assert (tmp_path / "old").read_text() == "kept"

    @pytest.mark.parametrize("text", ["", "[1]", "{", '{"num_warps": "4"}', "[" * 100_000])
    def test_bad_files(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigurationError, match=r"bad\.json"):
            Config.load(tmp_path / "bad.json")

    def test_files_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot read"):
            Config.load(tmp_path / "none.json")
        with pytest.raises(ConfigurationError, match="cannot write"):
            Config().save(tmp_path / "none" / "c.json")


class Spec:
    def default_config(self) -> Config:
        return Config(block_sizes=[64, 64], num_warps=4)


class TestMinimize:
    def test_what_is_the_default_anyway_is_left_out(self) -> None:
        config = Config(block_sizes=[64, 64], num_warps=8, num_stages=2)
        assert config.minimize(Spec()) == {"num_warps": 8, "num_stages": 2}
        assert config.minimize({"num_stages": 2, "num_warps": 4}) == {"block_sizes": [64, 64], "num_warps": 8}
        assert isinstance(config.minimize({}), Config)
        assert len(config) == 3

    def test_a_space_has_defaults(self) -> None:
        space = Space(
            {"num_warps": PowerOfTwo(1, 8), "num_stages": Range(1, 4)},
            default={"num_warps": 4, "num_stages": 2},
        )
        assert Config(num_warps=4, num_stages=3).minimize(space) == {"num_stages": 3}

    @pytest.mark.parametrize(
        ("value", "default", "left"),
        [
            ("pointer", {}, False),
            (["pointer", "pointer"], {}, False),
            ([], {}, False),
            (["pointer", "block_ptr"], {}, True),
            ("block_ptr", {"indexing": "block_ptr"}, False),
            (["block_ptr"] * 3, {"indexing": "block_ptr"}, False),
            ("pointer", {"indexing": "block_ptr"}, True),
            (["pointer"], {"indexing": ["pointer"]}, False),
            ("pointer", {"indexing": ["pointer", "pointer"]}, False),
            ("pointer", {"indexing": ["pointer", "block_ptr"]}, True),
            ("block_ptr", {"indexing": ["pointer", "pointer"]}, True),
            ("pointer", {"indexing": []}, False),
            ([], {"indexing": ["pointer", "pointer"]}, False),
            ([], {"indexing": "block_ptr"}, True),
        ],
    )
    def test_indexing_is_by_pointer(self, value: Any, default: dict[str, Any], left: bool) -> None:
        assert ("indexing" in Config(indexing=value).minimize(default)) is left

    def test_equal_numbers_of_other_types_are_not_the_same(self) -> None:
        assert Config(mine=1).minimize({"mine": True}) == {"mine": 1}

    @pytest.mark.parametrize("spec", [None, 3, Space([{"x": Range(0, 1)}])])
    def test_no_spec(self, spec: Any) -> None:
        with pytest.raises(ConfigurationError, match="config_spec"):
            Config().minimize(spec)


class TestConfigSpace:
    def every(self) -> Space:
        return config_space(
            block_sizes=[(16, 256), (16, 128)],
            num_threads=[(32, 256)],
            loop_orders=[3, 2],
            flatten_loops=1,
            l2_groupings=[(1, 64)],
            reduction_loops=[(16, 64)],
            range_loops=2,
            static_ranges=1,
            loads=2,
            memory_operations=3,
            num_warps=(1, 32),
            num_stages=(1, 8),
            pid_types=["flat", "persistent_blocked"],
            maxnreg=True,
            advanced_controls_files=["fast.bin"],
            parameters={"MINE": Range(0, 3)},
        )

    def test_its_configurations_are_configs(self) -> None:
        space = self.every()
        seen: dict[str, set[str]] = {}
        for row in space.sample(300, np.random.default_rng(0)):
            config = Config(**space.decode(row))
            assert len(config.block_sizes) == 2
            assert sorted(config.loop_orders[0]) == [0, 1, 2]
            persistent = config.pid_type == "persistent_blocked"
            assert ("num_sm_multiplier" in config) is persistent
            assert ("maxnreg" in config) <= persistent
            for name, value in config.items():
                seen.setdefault(name, set()).add(repr(value))
        assert set(seen) == {*FULL, "MINE"}
        assert all(len(values) > 1 for values in seen.values())

    def test_a_plain_kernel_has_warps_and_stages_only(self) -> None:
        assert config_space().names == ["num_warps", "num_stages"]
        assert config_space(num_warps=None, block_sizes=[(1, 2)]).names == ["block_sizes[0]", "num_stages"]

    def test_blocks_and_warps_are_important(self) -> None:
        leaves = self.every().encoding.leaves
        important = [leaf.name for leaf in leaves if leaf.param.important]
        assert important == ["block_sizes[0]", "block_sizes[1]", "num_warps"]

    def test_default_and_constraints(self) -> None:
        space = config_space(
            block_sizes=[(16, 64)],
            constraints=["block_sizes[0] * num_warps <= 128"],
            default=Config(block_sizes=[32], num_warps=4, num_stages=2),
        )
        assert space.default == {"block_sizes": [32], "num_warps": 4, "num_stages": 2}
        assert Config(block_sizes=[32], num_warps=2, num_stages=2).minimize(space) == {"num_warps": 2}
        assert space.size == sum(8 for b in (16, 32, 64) for w in (1, 2, 4, 8, 16, 32) if b * w <= 128)

    def test_it_goes_into_a_file(self) -> None:
        space = self.every()
        assert Space.from_dict(space.to_dict()).fingerprint == space.fingerprint

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"block_sizes": [16]}, "block_sizes"),
            ({"num_warps": 4}, "num_warps"),
            ({"num_stages": "ab3"}, "num_stages"),
            ({"loads": -1}, "loads"),
            ({"flatten_loops": True}, "flatten_loops"),
            ({"memory_operations": 1, "indexing": ["tma"]}, "indexing"),
            ({"pid_types": ["persistent"]}, "pid_types"),
            ({"pid_types": "flat"}, "pid_types"),
            ({"maxnreg": True}, "maxnreg"),
            ({"parameters": {"num_warps": Range(0, 1)}}, "parameters"),
        ],
    )
    def test_bad_arguments(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=f"`{named}`"):
            config_space(**options)

    def test_bad_limits(self) -> None:
        with pytest.raises(SpaceError, match="power of two"):
            config_space(block_sizes=[(3, 16)])
