"""What kernels on arrays have in common: arguments, a reference to be checked against, shapes, figures."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.gpu.runtime import DTYPES
from ciq_ray.kernels.arguments import Arguments, Scalar, Tensor, plain, resolve
from ciq_ray.kernels.protocol import Kernel
from ciq_ray.kernels.workload import ArrayWorkload

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime
    from ciq_ray.kernels.protocol import Launch, Workload
    from searchers.space import Space

__all__ = ["ArrayKernel", "Computation", "Extent", "Figure", "check_launchable", "read_space"]

Computation = Callable[[Mapping[str, Any]], Any]
"""From arguments by name (torch tensors on CUDA, numpy arrays on the CPU, plain numbers) to the outputs:
one array, or a dict of arrays by name."""

Extent = Sequence[int] | int | Callable[[dict[str, Any]], Sequence[int] | int]
"""Sizes of a grid or a block, up to three; or a function from arguments (arrays as `Tensor`, plain numbers)
and configuration, in one dict, to them."""

Figure = float | Mapping[str, float] | Callable[[Any], float] | None
"""A number, if there is one shape; a dict from names of shapes to numbers; or a function from a shape to a
number."""

_GRID_LIMITS = ((1 << 31) - 1, 65535, 65535)


class ArrayKernel(Kernel):
    """A kernel on arrays that are made for it, checked against a reference. Base of the ready kinds.

    Args:
        arguments: Arguments in the kernel's order: `Tensor`, `Output`, `Scalar` or numbers, by name; or a
            function that makes them from a shape.
        grid: Number of blocks.
        space: What can be configured: a `Space`, its dict of parameters, or a provider of a compiler's
            search space.
        reference: What should come out. It is called once for each shape and seed, and must leave its
            arguments as they are.
        constraints: Constraints of the space, if `space` is a dict.
        default: The configuration in use today, the baseline, if `space` is a dict. Without one there is
            no final race, unless there are `initial_configs`.
        library: The same by a library, timed for comparison. What it returns has to agree with `reference`;
            one that returns no array, or dict of arrays, is not checked.
        shapes: Problems to tune for: a dict by name, or a list; ``None`` for a single one, for which
            `arguments` gets ``None``.
        flops: Floating-point operations of a launch, see `Figure`.
        bytes: Bytes that a launch has to read and write at least, likewise.
        rtol: Relative tolerance of the check; ``None``: by the type of the output, see `ArrayWorkload`.
        atol: Absolute tolerance of the check; ``None``: likewise.
        initial_configs: Configurations to try first.
        dtype: Type in which the peak is measured; ``None``: that of the first array.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
        SpaceError: The space cannot be used.
    """

    def __init__(
        self,
        *,
        arguments: Arguments,
        grid: Extent,
        space: Any,
        reference: Computation,
        constraints: Sequence[Any] = (),
        default: Any = None,
        library: Computation | None = None,
        shapes: Mapping[str, Any] | Sequence[Any] | None = None,
        flops: Figure = None,
        bytes: Figure = None,
        rtol: float | None = None,
        atol: float | None = None,
        initial_configs: Sequence[Any] = (),
        dtype: str | None = None,
    ) -> None:
        for name, value in (("reference", reference), ("library", library)):
            if not callable(value) and not (name == "library" and value is None):
                raise ConfigurationError(f"`{name}` is {value!r}; it must be a function of the arguments")
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            if tolerance is not None and not (isinstance(tolerance, numbers.Real) and tolerance >= 0):
                raise ConfigurationError(f"`{name}` is {tolerance!r}; it must be a number of at least 0")
        self.arguments = arguments
        self.grid = grid
        self.space = read_space(space, constraints, default)
        self.initial_configs = list(initial_configs)
        self.shapes = _shapes(shapes)
        self.flops = _figures("flops", flops, self.shapes)
        self.bytes = _figures("bytes", bytes, self.shapes)
        self.rtol, self.atol = rtol, atol
        self._reference: Computation | None = reference
        self._library = library
        self.has_library = library is not None
        first = resolve(arguments, next(iter(self.shapes.values())))
        arrays = [value for value in first.values() if isinstance(value, Tensor)]
        if not any(array.role != "in" for array in arrays):
            raise ConfigurationError(
                "`arguments` has no output, so that nothing could be checked; use Output(shape, dtype), or "
                'Tensor(..., role="inout")'
            )
        self.dtype = arrays[0].dtype if dtype is None else dtype
        if self.dtype not in DTYPES:
            raise ConfigurationError(f"`dtype` is {dtype!r}; it must be one of {', '.join(DTYPES)}")

    def for_compiling(self) -> Self:
        """A copy with nothing in it that only the device's side needs.

        Sent to compile workers, it spares them the modules that reference and library refer to.
        """
        small = copy.copy(self)
        small._reference = small._library = None
        return small

    def workload(self, runtime: Runtime, shape: Any, seed: int) -> ArrayWorkload:
        """Make the arrays of one problem, and what should come out."""
        if self._reference is None:
            raise ConfigurationError("this kernel is a copy for compile workers; it has no reference")
        arguments = resolve(self.arguments, shape)
        return ArrayWorkload(
            runtime, arguments, self._reference, seed, shape=shape, rtol=self.rtol, atol=self.atol
        )

    def library(self, runtime: Runtime, workload: Workload) -> Launch | None:
        """The library's computation on the same arrays.

        Raises:
            ObjectiveFailure: ``wrong``: it returns something else than the reference.
        """
        if self._library is None or not isinstance(workload, ArrayWorkload):
            return None
        compute = self._library
        difference = workload.disagreement(compute(workload.values))
        if difference:
            text = f"`library` returns something else than `reference`: {difference}"
            raise ObjectiveFailure("wrong", text)
        values = workload.values  # some are copies, and may have been written to

        def launch() -> None:
            compute(values)

        return launch

    def extent(self, what: str, source: Extent, arguments: Mapping[str, Any], config: Any) -> list[int]:
        """Sizes of a grid or a block for a configuration, always three.

        Args:
            what: ``grid`` or ``block``, for messages.
            source: As the user gave it.
            arguments: As `resolve` returns them.
            config: As the searcher proposes it.

        Raises:
            ConfigurationError: It is no such sizes.
        """
        sizes: Any = source
        if callable(source):
            sizes = source({**plain(arguments), **(config if isinstance(config, Mapping) else {})})
        sizes = [sizes] if isinstance(sizes, numbers.Integral) else sizes
        if (
            not isinstance(sizes, Sequence)
            or not 1 <= len(sizes) <= 3
            or not all(isinstance(size, numbers.Integral) and int(size) >= 1 for size in sizes)
        ):
            raise ConfigurationError(
                f"`{what}` gave {sizes!r} for {config!r}; it must be up to three sizes, from 1"
            )
        return [*map(int, sizes), 1, 1][:3]

    def grid_of(self, arguments: Mapping[str, Any], config: Any) -> list[int]:
        """The grid for a configuration.

        Raises:
            ConfigurationError: `grid` gave no sizes, or more blocks than CUDA can launch.
        """
        sizes = self.extent("grid", self.grid, arguments, config)
        if any(size > limit for size, limit in zip(sizes, _GRID_LIMITS, strict=True)):
            raise ConfigurationError(
                f"`grid` gave {sizes} for {config!r}; CUDA launches at most {_GRID_LIMITS}"
            )
        return sizes

    def resolved(self) -> dict[str, dict[str, Any]]:
        """The arguments of each shape, by the shape's name."""
        return {name: resolve(self.arguments, shape) for name, shape in self.shapes.items()}


def check_launchable(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are neither arrays nor numbers.

    Raises:
        ConfigurationError: There is one.
    """
    for name, value in arguments.items():
        if not isinstance(value, (Tensor, Scalar)):
            raise ConfigurationError(
                f"`arguments`: {name!r} is {value!r}; it must be a Tensor, an Output, a Scalar or a number"
            )


def read_space(space: Any, constraints: Sequence[Any], default: Any) -> Space:
    """A space from what a user gave: a `Space`, a dict of parameters, or a provider of a compiler's space.

    Raises:
        ConfigurationError: `constraints` or `default` with a space that has its own.
        SpaceError: It cannot be used.
    """
    # not above: a process that only compiles or times gets the space ready-made
    from searchers.space import Space

    if hasattr(space, "retrieve"):
        from ciq_ray.search_spaces.compilers import load_provider

        space = load_provider(space)[0]
    if isinstance(space, Space):
        if constraints or default is not None:
            raise ConfigurationError(
                "`constraints` and `default` go with a dict; give them to the Space itself"
            )
        return space
    return Space(space, constraints, default)


def _shapes(shapes: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, Any]:
    if shapes is None:
        return {"": None}
    if not isinstance(shapes, Mapping):
        shapes = {_shape_name(shape): shape for shape in shapes}
    if not shapes:
        raise ConfigurationError("`shapes` is empty; give one, or leave it out")
    return dict(shapes)


def _shape_name(shape: Any) -> str:
    if isinstance(shape, Sequence) and not isinstance(shape, str):
        return "x".join(map(str, shape))
    return str(shape)


def _figures(what: str, source: Figure, shapes: Mapping[str, Any]) -> dict[str, float]:
    if source is None:
        return {}
    if isinstance(source, Mapping):
        missing = sorted(shapes.keys() - source.keys())
        if missing:
            raise ConfigurationError(f"`{what}` has no number for the shape {missing[0]!r}")
        found = {name: source[name] for name in shapes}
    elif callable(source):
        found = {name: source(shape) for name, shape in shapes.items()}
    elif len(shapes) > 1:
        raise ConfigurationError(
            f"`{what}` is {source!r}, one number for {len(shapes)} shapes; give a dict from their names "
            f"({', '.join(shapes)}) to numbers, or a function from a shape to a number"
        )
    else:
        found = dict.fromkeys(shapes, source)
    for name, value in found.items():
        if not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
            raise ConfigurationError(
                f"`{what}` is {value!r} for the shape {name!r}; it must be a number from 0"
            )
    return {name: float(value) for name, value in found.items()}
