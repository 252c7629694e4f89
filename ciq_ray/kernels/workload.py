"""Arrays of one problem on the device, what should come out, and the check of what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.arguments import ITEM_BYTES, Tensor, plain
from ciq_ray.kernels.protocol import Workload

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime

__all__ = ["TOLERANCE", "ArrayWorkload"]

TOLERANCE: Final = {
    "float64": 1e-9,
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 2e-2,
    "float8_e4m3fn": 1.25e-1,
    "float8_e5m2": 2.5e-1,
}
"""Relative tolerance by type of an output; integers and booleans must be equal.

A few units in the last place of the type (2^-11 for float16, 2^-8 for bfloat16, one for the 8-bit types),
and for the wide types room for sums in another order, whose error grows with their length.
"""

_GUARD_BYTES: Final = 1 << 16
"""Before and behind each output, to notice writes outside of it; a multiple of what CUDA aligns to."""


class ArrayWorkload(Workload):
    """The arrays of one problem.

    An output passes if ``|actual - expected| <= atol + rtol * |expected|`` for each element. If they are
    not given, `rtol` is `TOLERANCE` of its type, and `atol` that times the root mean square of what is
    expected: elements near 0 of a sum with cancellation are as uncertain as its large ones.

    Outputs lie between guards, so that a write just outside of one is found, too.

    Args:
        runtime: Of the device.
        arguments: As `ciq_ray.kernels.arguments.resolve` returns them.
        reference: Computes what should come out.
        seed: Of the random numbers.
        shape: The shape that `arguments` are for.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Attributes:
        arguments: As given.
        shape: As given.
        arrays: The arrays, by name.
        in_place: Whether a launch reads what an earlier launch wrote.

    Raises:
        ConfigurationError: The reference does not return the outputs.
    """

    def __init__(
        self,
        runtime: Runtime,
        arguments: Mapping[str, Any],
        reference: Callable[[Mapping[str, Any]], Any],
        seed: int,
        *,
        shape: Any = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        self.arguments = dict(arguments)
        self.shape = shape
        self.arrays: dict[str, Any] = {}
        self._runtime = runtime
        self._guarded: dict[str, Any] = {}
        self._pristine: dict[str, Any] = {}
        tensors = {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}
        for number, (name, tensor) in enumerate(tensors.items()):
            # one stream of random numbers for each array
            self._make(name, tensor, seed * 1009 + number)
        self.in_place = bool(self._pristine)
        outputs = [name for name, tensor in tensors.items() if tensor.role != "in"]
        expected = _by_name(reference(self.values), outputs, "reference")
        self._expected: dict[str, tuple[Any, float, float]] = {}
        for name, array in expected.items():
            array = self._own(array)
            tolerance = TOLERANCE.get(tensors[name].dtype, 0.0)
            absolute = tolerance * _root_mean_square(array) if atol is None and tolerance else atol or 0.0
            self._expected[name] = array, tolerance if rtol is None else rtol, absolute

    @property
    def values(self) -> dict[str, Any]:
        """The arguments for a reference or a library: arrays and plain numbers by name.

        Arrays that a kernel reads and writes are copies, outputs are left out.
        """
        values = {}
        for name, value in plain(self.arguments).items():
            if name in self._pristine:
                values[name] = self._runtime.copy(self._pristine[name])
            elif name not in self._guarded:
                values[name] = self.arrays.get(name, value)
        return values

    @property
    def nbytes(self) -> int:
        """Memory that this takes on the device, in bytes."""
        expected = [array for array, _, _ in self._expected.values()]
        inputs = [array for name, array in self.arrays.items() if name not in self._guarded]
        arrays = [*inputs, *self._guarded.values(), *self._pristine.values(), *expected]
        return sum(int(array.nbytes) for array in arrays)

    def poison(self) -> None:
        """Fill outputs with NaN (integers with an odd pattern), guards included; restore ``inout`` arrays."""
        for whole in self._guarded.values():
            self._runtime.poison(whole)
        for name, array in self._pristine.items():
            self._runtime.assign(self.arrays[name], array)

    def check(self) -> str:
        """Compare outputs with the reference, and guards with what they were."""
        self._runtime.synchronize()
        for name, (expected, rtol, atol) in self._expected.items():
            difference = self._runtime.difference(self.arrays[name], expected, rtol, atol)
            if difference:
                return f"{name}: {difference}"
        for name, whole in self._guarded.items():
            length = _guard_length(self.arguments[name].dtype)
            untouched = self._runtime.array((length,), self.arguments[name].dtype, "zeros", 0)
            self._runtime.poison(untouched)
            for where, guard in (("before", whole[:length]), ("behind", whole[-length:])):
                if self._runtime.difference(guard, untouched, 0.0, 0.0):
                    return f"{name}: the kernel wrote outside of the array, {where} it"
        return ""

    def disagreement(self, result: Any) -> str:
        """Compare what a library has returned, one array or arrays by name, with what should come out.

        Returns:
            Nothing if they agree, or if it returned something else than arrays; else what differs.
        """
        if not isinstance(result, Mapping) and not hasattr(result, "shape"):
            return ""
        self._runtime.synchronize()
        for name, array in _by_name(result, list(self._expected), "library").items():
            expected, rtol, atol = self._expected[name]
            difference = self._runtime.difference(array, expected, rtol, atol)
            if difference:
                return f"{name}: {difference}"
        return ""

    def _own(self, expected: Any) -> Any:
        """What is expected, copied if it is one of the inputs, or a part of one: a kernel may spoil those."""
        if not hasattr(expected, "nbytes"):
            return expected
        begin = self._runtime.pointer(expected)
        for array in self.arrays.values():
            first = self._runtime.pointer(array)
            if first <= begin < first + int(array.nbytes):
                return self._runtime.copy(expected)
        return expected

    def _make(self, name: str, tensor: Tensor, seed: int) -> None:
        if tensor.role != "out":
            self.arrays[name] = self._runtime.array(tensor.shape, tensor.dtype, tensor.init, seed)
            if tensor.role == "inout":
                self._pristine[name] = self._runtime.copy(self.arrays[name])
            return
        length, count = _guard_length(tensor.dtype), tensor.numel()
        whole = self._runtime.array((count + 2 * length,), tensor.dtype, "zeros", 0)
        self._guarded[name] = whole
        self.arrays[name] = whole[length : length + count].reshape(tensor.shape)


def _guard_length(dtype: str) -> int:
    return _GUARD_BYTES // ITEM_BYTES[dtype]


def _by_name(result: Any, names: list[str], what: str) -> dict[str, Any]:
    if not isinstance(result, Mapping):
        if len(names) != 1:
            raise ConfigurationError(
                f"`{what}` returned {type(result).__name__}, but there are {len(names)} outputs; return a "
                f"dict with {', '.join(names)}"
            )
        result = {names[0]: result}
    if set(result) != set(names):
        raise ConfigurationError(
            f"`{what}` returned {', '.join(map(str, result))}; the outputs are {', '.join(names)}"
        )
    return dict(result)


def _root_mean_square(array: Any) -> float:
    """Of the finite elements; of a torch tensor or a numpy array."""
    if hasattr(array, "double"):
        wide = array.double()
        wide = wide[wide.isfinite()]
    else:
        wide = np.asarray(array, np.float64)
        wide = wide[np.isfinite(wide)]
    return math.sqrt(float((wide * wide).mean())) if math.prod(wide.shape) else 0.0
