"""Arguments of a kernel: arrays by shape and type, scalars by value, made on the device when needed."""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.runtime import check_array

__all__ = ["ITEM_BYTES", "Arguments", "Output", "Role", "Scalar", "Tensor", "packed", "plain", "resolve"]

Role = Literal["in", "out", "inout"]

ITEM_BYTES: Final = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of an element."""

_C_TYPES: Final[dict[str, Any]] = {
    "bool": ctypes.c_bool,
    "int8": ctypes.c_int8,
    "int16": ctypes.c_int16,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "uint8": ctypes.c_uint8,
    "uint16": ctypes.c_uint16,
    "uint32": ctypes.c_uint32,
    "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array argument, in C order.

    Attributes:
        shape: Its sizes; one number for one dimension.
        dtype: Type of its elements, one of `ciq_ray.gpu.runtime.DTYPES`.
        init: How it is filled, one of `ciq_ray.gpu.runtime.INITS`.
        role: ``in`` is only read, ``out`` only written (it holds NaN before a launch), ``inout`` both (it
            is restored before each launch that is checked).

    Raises:
        ConfigurationError: One of these has a value it cannot have.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    init: str = "normal"
    role: Role = "in"

    def __post_init__(self) -> None:
        sizes = self.shape if isinstance(self.shape, Sequence) else (self.shape,)
        try:
            # numpy's integers, too
            object.__setattr__(self, "shape", tuple(operator.index(size) for size in sizes))
        except TypeError as error:
            raise ConfigurationError(f"`shape` is {self.shape!r}; it must be a tuple of integers") from error
        if self.role not in get_args(Role):
            raise ConfigurationError(
                f"`role` is {self.role!r}; it must be one of {', '.join(get_args(Role))}"
            )
        check_array(self.shape, self.dtype, self.init)

    def numel(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.numel() * ITEM_BYTES[self.dtype]


def Output(shape: tuple[int, ...] | int, dtype: str = "float32") -> Tensor:
    """An array that is only written: ``Tensor(shape, dtype, role="out")``.

    Args:
        shape: Its sizes.
        dtype: Type of its elements.

    Raises:
        ConfigurationError: As `Tensor`.
    """
    return Tensor(shape, dtype, "zeros", "out")  # type: ignore[arg-type]  # `Tensor` makes a tuple of a number


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number argument of a given type.

    A plain ``int`` is an ``int32``, a ``float`` a ``float32``, a ``bool`` a ``bool``.

    Attributes:
        value: The number.
        dtype: ``int8`` to ``int64``, ``uint8`` to ``uint64``, ``float32``, ``float64`` or ``bool``.

    Raises:
        ConfigurationError: There is no such type, or it does not hold `value`.
    """

    value: bool | int | float
    dtype: str
    _plain: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.dtype not in _C_TYPES:
            raise ConfigurationError(f"`dtype` is {self.dtype!r}; it must be one of {', '.join(_C_TYPES)}")
        if not isinstance(self.value, (bool, int, float)):
            raise ConfigurationError(f"`value` is {self.value!r}; it must be a number")
        if not self.dtype.startswith("float"):
            try:
                held = _C_TYPES[self.dtype](self.value).value == self.value
            except TypeError:  # a fraction
                held = False
            if not held:
                raise ConfigurationError(
                    f'`value` is {self.value!r}, which no {self.dtype} holds; use Scalar(value, "int64") or '
                    '"float64"'
                )

    @property
    def is_plain(self) -> bool:
        """Whether its type was not given, but follows from the value."""
        return self._plain


Arguments = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]
"""Arguments by name, in the kernel's order; or a function from a shape to them."""


def resolve(arguments: Arguments, shape: Any) -> dict[str, Any]:
    """The arguments for one shape.

    Args:
        arguments: As the user gave them.
        shape: What is handed to `arguments` if it is a function.

    Returns:
        `Tensor` and `Scalar` by name; other values, which only some kinds of kernel take, as they are.

    Raises:
        ConfigurationError: It is no such mapping.
    """
    found = arguments(shape) if callable(arguments) else arguments
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ConfigurationError(
            f"`arguments` is {found!r}; it must be a dict from names to Tensor, Output, Scalar or numbers"
        )
    return {name: _as_argument(name, value) for name, value in found.items()}


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same with numbers in place of `Scalar`."""
    return {name: value.value if isinstance(value, Scalar) else value for name, value in arguments.items()}


def packed(value: bool | int | float, dtype: str) -> Any:
    """A number as the C value that a launch passes.

    Args:
        value: The number.
        dtype: One of the types of `Scalar`, or ``float16``.
    """
    if dtype == "float16":  # C has no such type; the bits are what counts
        return ctypes.c_uint16(int(np.float16(value).view(np.uint16)))
    return _C_TYPES[dtype](value)


def _as_argument(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    try:
        if isinstance(value, bool):
            return Scalar(value, "bool", True)
        if isinstance(value, int):
            small = -(1 << 31) <= value < 1 << 31
            return Scalar(value, "int32" if small else "int64", True)
        if isinstance(value, float):
            return Scalar(value, "float32", True)
    except ConfigurationError as error:
        raise ConfigurationError(f"`arguments`: {name!r}: {error}") from error
    return value
