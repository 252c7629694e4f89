"""`config_space`: a search space whose configurations have the keys of `ciq_ray.config.Config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ciq_ray.config import (
    EVICTION_POLICIES,
    INDEXING,
    MAXNREG,
    NUM_SM_MULTIPLIERS,
    PID_TYPES,
)
from ciq_ray.errors import ConfigurationError
from searchers.lists import Permutation
from searchers.param import Param
from searchers.params import Boolean, Choice, PowerOfTwo, Range
from searchers.space import Space

__all__ = ["config_space"]

Limits = tuple[int, int]
"""First and last value."""

_PERSISTENT = "pid_type in ('persistent_blocked', 'persistent_interleaved')"
_UNROLL = (0, 4)
_LOOP_STAGES = (0, 4)


def config_space(
    *,
    block_sizes: Sequence[Limits] = (),
    num_threads: Sequence[Limits] = (),
    loop_orders: Sequence[int] = (),
    flatten_loops: int = 0,
    l2_groupings: Sequence[Limits] = (),
    reduction_loops: Sequence[Limits] = (),
    range_loops: int = 0,
    static_ranges: int = 0,
    loads: int = 0,
    memory_operations: int = 0,
    indexing: Sequence[str] = INDEXING,
    num_warps: Limits | None = (1, 32),
    num_stages: Limits | None = (1, 8),
    pid_types: Sequence[str] = (),
    maxnreg: bool = False,
    advanced_controls_files: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    constraints: Sequence[str | Callable[[Any], Any]] = (),
    default: Mapping[str, Any] | None = None,
) -> Space:
    """A space of configurations for one kernel, described by what the kernel has.

    A key is in it only if what it is about is there. Block sizes and `num_warps` are marked as important:
    pattern searches change them most often.

    Args:
        block_sizes: First and last tile size, powers of two, for each tile: ``[(16, 256), (16, 128)]``.
        num_threads: The same for target thread counts, for each axis.
        loop_orders: Number of dimensions of each tile whose order can change, 1 to 12.
        flatten_loops: Number of tiles whose loops can be made into one.
        l2_groupings: First and last group size, powers of two, for each tile.
        reduction_loops: First and last size of a loop, powers of two, for each reduction; ``None``, no
            loop, is one more value.
        range_loops: Number of ``tl.range`` loops. Each has an unroll factor and a number of stages from 0
            to 4, and multi-buffering, flattening and warp specialisation that are on, off or not said.
        static_ranges: Number of loops that can be a ``tl.static_range``.
        loads: Number of loads that can have an eviction policy.
        memory_operations: Number of loads and stores whose indexing can be chosen.
        indexing: The kinds of indexing to choose from.
        num_warps: First and last number of warps, powers of two; ``None``: it is not searched.
        num_stages: First and last number of pipeline stages; ``None``: it is not searched.
        pid_types: The program id types to choose from. If persistent ones are among them, a configuration
            with one of these also has `num_sm_multiplier`.
        maxnreg: Whether configurations with a persistent program id type also have a limit of registers;
            ``None``, no limit, is one of its values.
        advanced_controls_files: Paths of PTXAS control files to choose from; ``""``, none, is added.
        parameters: Further parameters of your own, as for `searchers.Space`.
        constraints: See `searchers.Space`.
        default: The configuration in use today, a `Config` or a mapping with all keys of the space; it is
            what FROM_DEFAULT starts from and what `Config.minimize` compares with.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
        searchers.SpaceError: A limit is not a power of two, or the default is not a member.
    """
    every: dict[str, Any] = {
        "block_sizes": [_powers("block_sizes", pair, important=True) for pair in block_sizes],
        "num_threads": [_powers("num_threads", pair) for pair in num_threads],
        "loop_orders": [Permutation(n) for n in loop_orders],
        "flatten_loops": [Boolean() for _ in _times("flatten_loops", flatten_loops)],
        "l2_groupings": [_powers("l2_groupings", pair) for pair in l2_groupings],
        "reduction_loops": [_reduction(pair) for pair in reduction_loops],
    }
    for name, make in _RANGE_LOOP.items():
        every[name] = [make() for _ in _times("range_loops", range_loops)]
    every |= {
        "static_ranges": [Boolean() for _ in _times("static_ranges", static_ranges)],
        "load_eviction_policies": [Choice(EVICTION_POLICIES) for _ in _times("loads", loads)],
        "indexing": [
            Choice(_subset("indexing", indexing, INDEXING))
            for _ in _times("memory_operations", memory_operations)
        ],
    }
    if num_warps is not None:
        every["num_warps"] = _powers("num_warps", num_warps, important=True)
    if num_stages is not None:
        every["num_stages"] = Range(*_pair("num_stages", num_stages))
    if pid_types:
        every["pid_type"] = Choice(_subset("pid_types", pid_types, PID_TYPES))
    persistent = any(kind.startswith("persistent") for kind in pid_types)
    if persistent:
        every["num_sm_multiplier"] = Choice(NUM_SM_MULTIPLIERS, when=_PERSISTENT)
    if maxnreg:
        if not persistent:
            raise ConfigurationError(
                "`maxnreg` is True, but it is for persistent kernels; name a persistent type in `pid_types`"
            )
        every["maxnreg"] = Choice([None, *reversed(MAXNREG)], ordered=True, when=_PERSISTENT)
    if advanced_controls_files:
        every["advanced_controls_file"] = Choice(["", *advanced_controls_files])
    own = dict(parameters or {})
    taken = sorted(own.keys() & every.keys())
    if taken:
        raise ConfigurationError(f"`parameters` has {taken[0]!r}, which is a key of `Config`; rename it")
    wanted = {name: part for name, part in every.items() if isinstance(part, Param) or part}
    return Space({**wanted, **own}, constraints, None if default is None else dict(default))


def _pair(name: str, limits: Any) -> Limits:
    if isinstance(limits, str) or not isinstance(limits, Sequence) or len(limits) != 2:
        raise ConfigurationError(
            f"`{name}` has {limits!r}; give the first and the last value, such as (1, 8)"
        )
    return limits[0], limits[1]


def _powers(name: str, limits: Any, *, important: bool = False) -> PowerOfTwo:
    return PowerOfTwo(*_pair(name, limits), important=important)


def _reduction(limits: Any) -> Choice:
    sizes = _powers("reduction_loops", limits)
    values = [sizes.value(level) for level in range(sizes.n_levels)]
    # no loop is a loop that does all at once: it stands after the largest size
    return Choice([*values, None], ordered=True)


def _times(name: str, count: Any) -> range:
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ConfigurationError(f"`{name}` is {count!r}; it must be how many there are, a whole number")
    return range(count)


def _subset(name: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = [value for value in given if value not in known]
    if unknown or isinstance(given, str):
        raise ConfigurationError(
            f"`{name}` has {unknown[0] if unknown else given!r}; choose from {', '.join(map(repr, known))}"
        )
    return list(given)


def _said_or_not() -> Choice:
    return Choice([None, False, True])


_RANGE_LOOP: Mapping[str, Callable[[], Param]] = {
    "range_unroll_factors": lambda: Range(*_UNROLL),
    "range_warp_specializes": _said_or_not,
    "range_num_stages": lambda: Range(*_LOOP_STAGES),
    "range_multi_buffers": _said_or_not,
    "range_flattens": _said_or_not,
}
