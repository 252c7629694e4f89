"""`Config`: the configuration of a tiled kernel, with Helion's documented keys; and a space of them.

A `Config` is a mapping that is checked when it is made and never changes. `config_space` builds a
`searchers.Space` whose configurations have the same keys (`ciq_ray.config_space`), so that
``Config(**candidate)`` is what an objective makes of what it is given.
"""

from __future__ import annotations

import json
import keyword
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

from ciq_ray._files import write_atomic
from ciq_ray.errors import ConfigurationError

__all__ = ["Config", "ConfigSpec"]

EvictionPolicy = Literal["", "first", "last"]
Indexing = Literal["pointer", "tensor_descriptor", "block_ptr"]
PidType = Literal["flat", "xyz", "persistent_blocked", "persistent_interleaved"]

EVICTION_POLICIES: Final = ("", "first", "last")
INDEXING: Final = ("pointer", "tensor_descriptor", "block_ptr")
PID_TYPES: Final = ("flat", "xyz", "persistent_blocked", "persistent_interleaved")
NUM_SM_MULTIPLIERS: Final = (1, 2, 4, 8)
MAXNREG: Final = (32, 64, 128, 256)


class ConfigSpec(Protocol):
    """What knows the defaults of a kernel's configuration, such as a `searchers.Space`."""

    def default_config(self) -> Any:
        """The defaults, as a mapping."""
        ...


class Config(Mapping[str, Any]):
    """One configuration of a tiled kernel.

    Only what is given, and is not ``None``, is in it: as an item, and as an attribute. A documented key
    that is not in it is ``None`` as an attribute, except `indexing`, whose default is ``"pointer"``.
    Lists come back as new lists, so that changing one changes nothing here.

    Args:
        block_sizes: Tile sizes, one for each tile.
        num_threads: Target thread count, or one for each axis (what it means is up to the backend).
        loop_orders: For each tile, the order in which its dimensions are iterated: a permutation of 0 to
            n - 1.
        flatten_loops: For each tile, whether its loops are made into one.
        l2_groupings: How many program ids are grouped for locality in the L2 cache.
        reduction_loops: For each reduction, how much of it a loop does at a time; ``None``: no loop.
        range_unroll_factors: Unroll factor of each ``tl.range``.
        range_warp_specializes: Warp specialisation of each ``tl.range``, ``None``: not said.
        range_num_stages: Stages of each ``tl.range``.
        range_multi_buffers: Multi-buffering of accumulators in each ``tl.range``, ``None``: not said.
        range_flattens: Flattening of each ``tl.range``, ``None``: not said.
        static_ranges: Whether each loop is a ``tl.static_range``.
        load_eviction_policies: Of each load: ``""``, ``"first"`` or ``"last"``.
        num_warps: Warps of a program.
        num_stages: Stages of software pipelining.
        pid_type: What program ids mean: ``"flat"``, ``"xyz"``, ``"persistent_blocked"`` or
            ``"persistent_interleaved"``.
        num_sm_multiplier: Thread blocks of a persistent kernel for each SM: 1, 2, 4 or 8.
        maxnreg: Registers of a thread at most: 32, 64, 128 or 256; fewer allow a higher occupancy.
        indexing: How loads and stores address memory: one of ``"pointer"``, ``"tensor_descriptor"`` and
            ``"block_ptr"`` for all, or a list with one for each. Left out or empty: all use pointers.
        advanced_controls_file: Path of a PTXAS control file, ``""`` for none.
        **kwargs: Parameters of your own; values that JSON can hold, if it is to be saved.

    Raises:
        ConfigurationError: A value is not of the documented kind.
    """

    def __init__(
        self,
        /,
        *,
        block_sizes: list[int] | None = None,
        num_threads: list[int] | int | None = None,
        loop_orders: list[list[int]] | None = None,
        flatten_loops: list[bool] | None = None,
        l2_groupings: list[int] | None = None,
        reduction_loops: list[int | None] | None = None,
        range_unroll_factors: list[int] | None = None,
        range_warp_specializes: list[bool | None] | None = None,
        range_num_stages: list[int] | None = None,
        range_multi_buffers: list[bool | None] | None = None,
        range_flattens: list[bool | None] | None = None,
        static_ranges: list[bool] | None = None,
        load_eviction_policies: list[EvictionPolicy] | None = None,
        num_warps: int | None = None,
        num_stages: int | None = None,
        pid_type: PidType | None = None,
        num_sm_multiplier: Literal[1, 2, 4, 8] | None = None,
        maxnreg: Literal[32, 64, 128, 256] | None = None,
        indexing: Indexing | list[Indexing] | None = None,
        advanced_controls_file: str | None = None,
        **kwargs: object,
    ) -> None:
        given = {
            "block_sizes": block_sizes,
            "num_threads": num_threads,
            "loop_orders": loop_orders,
            "flatten_loops": flatten_loops,
            "l2_groupings": l2_groupings,
            "reduction_loops": reduction_loops,
            "range_unroll_factors": range_unroll_factors,
            "range_warp_specializes": range_warp_specializes,
            "range_num_stages": range_num_stages,
            "range_multi_buffers": range_multi_buffers,
            "range_flattens": range_flattens,
            "static_ranges": static_ranges,
            "load_eviction_policies": load_eviction_policies,
            "num_warps": num_warps,
            "num_stages": num_stages,
            "pid_type": pid_type,
            "num_sm_multiplier": num_sm_multiplier,
            "maxnreg": maxnreg,
            "indexing": indexing,
            "advanced_controls_file": advanced_controls_file,
        }
        for name, value in given.items():
            fits, wanted = _CHECKS[name]
            if value is not None and not fits(value):
                raise ConfigurationError(f"`{name}` is {value!r}; it must be {wanted}, or None")
        set_ones = {name: value for name, value in given.items() if value is not None}
        self._values: dict[str, Any]
        self.__dict__["_values"] = _copied({**set_ones, **kwargs})

    def __getitem__(self, name: str) -> Any:
        return _copied(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})  # a copy that is being made has none yet
        if name in values:
            return _copied(values[name])
        if name in _CHECKS:
            return _DEFAULTS.get(name)
        raise AttributeError(f"the configuration has no {name!r}; it has {', '.join(values) or 'nothing'}")

    def __setattr__(self, name: str, value: object) -> None:
        raise self._refusal(name)

    def __delattr__(self, name: str) -> None:
        raise self._refusal(name)

    def _refusal(self, name: str) -> AttributeError:
        return AttributeError(
            f"`{name}` cannot be changed: a configuration stays as it was made; make another one, with "
            f"Config(**{{**config, {name!r}: ...}})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return bool(self._values == _copied(dict(other)))

    __hash__ = None  # type: ignore[assignment]  # a mapping whose values are lists

    def __repr__(self) -> str:
        return f"Config({_arguments(self._values)})"

    def minimize(self, config_spec: ConfigSpec | Mapping[str, Any]) -> Config:
        """A new `Config` without the values that are the defaults anyway.

        Args:
            config_spec: Where the defaults are: a `searchers.Space` with a default, anything else with a
                method ``default_config``, or a mapping. What it does not mention has the default of
                `Config`: of `indexing` that is ``"pointer"``, for all loads and stores.

        Raises:
            ConfigurationError: `config_spec` has no defaults, or they are not a mapping.
        """
        defaults = config_spec if isinstance(config_spec, Mapping) else _defaults_of(config_spec)
        effective = {**_DEFAULTS, **_copied(dict(defaults))}
        kept = {
            name: value
            for name, value in self._values.items()
            if name not in effective or not _means(name, value, effective[name])
        }
        return Config(**kept)

    def to_json(self) -> str:
        """The configuration as a JSON object.

        Raises:
            ConfigurationError: A value of yours is something that JSON cannot hold.
        """
        try:
            text = json.dumps(self._values, allow_nan=False)
            same = json.loads(text) == self._values
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the configuration cannot be written as JSON: {error}") from error
        if not same:
            raise ConfigurationError(
                f"the configuration {self!r} changes when it is written as JSON; use text, numbers, "
                "booleans, null, lists and dicts with text for names"
            )
        return text

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ConfigurationError: `text` is no JSON object, or a value in it is not of the documented kind.
        """
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"not a configuration: {error}") from error
        if not isinstance(data, dict):
            raise ConfigurationError(f"not a configuration: a JSON object is expected, not {data!r:.80}")
        return cls(**data)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON; a file there is replaced as a whole.

        Raises:
            ConfigurationError: A value cannot be written, or the file cannot.
        """
        content = json.dumps(json.loads(self.to_json()), indent=1) + "\n"
        try:
            return write_atomic(path, [content.encode()])
        except OSError as error:
            raise ConfigurationError(f"cannot write {str(path)!r}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            ConfigurationError: The file cannot be read, or is not such a configuration.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read {str(path)!r}: {error}") from error
        try:
            return cls.from_json(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{str(path)!r}: {error}") from error


def _copied(value: Any) -> Any:
    """A copy with lists for tuples, as JSON would give back."""
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return value


def _arguments(values: Mapping[str, Any]) -> str:
    named = {n: value for n, value in values.items() if n.isidentifier() and not keyword.iskeyword(n)}
    rest = {name: value for name, value in values.items() if name not in named}
    parts = [f"{name}={value!r}" for name, value in named.items()]
    return ", ".join([*parts, f"**{rest!r}"] if rest else parts)


def _defaults_of(spec: Any) -> Mapping[str, Any]:
    if not callable(getattr(spec, "default_config", None)):
        raise ConfigurationError(
            f"`config_spec` is {spec!r}; it must be a searchers.Space, a mapping of defaults, or have a "
            "method default_config()"
        )
    defaults = spec.default_config()
    if not isinstance(defaults, Mapping):
        raise ConfigurationError(f"`config_spec` has the defaults {defaults!r}, which are not a mapping")
    return defaults


def _means(name: str, value: Any, default: Any) -> bool:
    """Whether a value is a default: the same, or for `indexing` the same for each load and store."""
    if name == "indexing":
        value, default = value or _DEFAULTS[name], default or _DEFAULTS[name]
        if isinstance(value, list) != isinstance(default, list):
            each, one = (value, default) if isinstance(value, list) else (default, value)
            return all(item == one for item in each)
    return bool(value == default) and type(value) is type(default)


def _is_whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, (list, tuple)) and all(map(fits, values))


def _one_of(choices: Sequence[Any]) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(choice) and value == choice for choice in choices)


def _is_order(value: Any) -> bool:
    whole = isinstance(value, (list, tuple)) and all(_is_whole(item, 0) for item in value)
    return whole and sorted(value) == list(range(len(value)))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_WHOLES: Final = (_each(_is_whole), "a list of whole numbers, at least 1")
_COUNTS: Final = (_each(lambda value: _is_whole(value, 0)), "a list of whole numbers, at least 0")
_FLAGS: Final = (_each(_is_flag), "a list of booleans")
_OPTIONAL_FLAGS: Final = (
    _each(lambda value: value is None or _is_flag(value)),
    "a list of booleans and None",
)
_WHOLE: Final = (_is_whole, "a whole number, at least 1")

_CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "block_sizes": _WHOLES,
    "num_threads": (lambda v: _is_whole(v, 0) or _COUNTS[0](v), "a whole number, or a list of them"),
    "loop_orders": (_each(_is_order), "a list of permutations of 0 to n - 1, such as [[1, 0]]"),
    "flatten_loops": _FLAGS,
    "l2_groupings": _WHOLES,
    "reduction_loops": (
        _each(lambda v: v is None or _is_whole(v)),
        "a list of whole numbers, at least 1, and None",
    ),
    "range_unroll_factors": _COUNTS,
    "range_warp_specializes": _OPTIONAL_FLAGS,
    "range_num_stages": _COUNTS,
    "range_multi_buffers": _OPTIONAL_FLAGS,
    "range_flattens": _OPTIONAL_FLAGS,
    "static_ranges": _FLAGS,
    "load_eviction_policies": (
        _each(_one_of(EVICTION_POLICIES)),
        f"a list with {', '.join(map(repr, EVICTION_POLICIES))}",
    ),
    "num_warps": _WHOLE,
    "num_stages": _WHOLE,
    "pid_type": (_one_of(PID_TYPES), f"one of {', '.join(map(repr, PID_TYPES))}"),
    "num_sm_multiplier": (_one_of(NUM_SM_MULTIPLIERS), "1, 2, 4 or 8"),
    "maxnreg": (_one_of(MAXNREG), "32, 64, 128 or 256"),
    "indexing": (
        lambda v: _one_of(INDEXING)(v) or _each(_one_of(INDEXING))(v),
        f"one of {', '.join(map(repr, INDEXING))}, or a list of them with one for each load and store",
    ),
    "advanced_controls_file": (lambda v: isinstance(v, str), 'a path as text, or ""'),
}
_DEFAULTS: Final[Mapping[str, Any]] = {"indexing": "pointer"}
