"""What Triton's JIT would compile for given arguments, found out without a GPU."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.arguments import Scalar, Tensor

__all__ = ["Specialisation", "check_names", "specialise"]

_TYPES: Final = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    "float8_e4m3fn": "fp8e4nv",
    "float8_e5m2": "fp8e5",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
}
_C_NAMES: Final = {name: dtype for dtype, name in _TYPES.items()} | {"u1": "uint8"}
_DIVISOR: Final = 16
_FITS: Final = (("int32", -(1 << 31), 1 << 31), ("int64", -(1 << 63), 1 << 63), ("uint64", 0, 1 << 64))


@dataclass(frozen=True, slots=True)
class Specialisation:
    """One variant of a kernel, for arguments that are alike to the compiler.

    Attributes:
        signature: Triton's type of each parameter, ``constexpr`` for those that are compiled in.
        constants: Values of the latter, by name; those of the configuration included.
        divisible: Positions of parameters that are known to be multiples of 16.
        passed: Names and types (of `Scalar`, or ``pointer``) of what a launch passes, in order.
        key: Hash of all that follows from the arguments, and not from the configuration.
    """

    signature: dict[str, str]
    constants: dict[str, Any]
    divisible: tuple[int, ...]
    passed: tuple[tuple[str, str], ...]
    key: str

    @property
    def attributes(self) -> dict[tuple[int], list[list[Any]]]:
        """The same as `divisible`, as Triton's compiler takes it."""
        return {(position,): [["tt.divisibility", _DIVISOR]] for position in self.divisible}


def check_names(parameters: Any, arguments: Collection[str], config: Collection[str]) -> None:
    """Refuse names that the kernel does not have, and parameters that get no value.

    Args:
        parameters: Those of the ``@triton.jit`` function (its `params`).
        arguments: Names of the arguments.
        config: Names in a configuration, options of the compiler left out.

    Raises:
        ConfigurationError: A parameter has no value, or a value has no parameter.
    """
    names = [parameter.name for parameter in parameters]
    for what, given in (("arguments", arguments), ("space", config)):
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigurationError(
                    f"`{what}` has {name!r}, which is no parameter of the kernel; it has "
                    f"{', '.join(names)}{hint}"
                )
    for parameter in parameters:
        if not (parameter.name in arguments or parameter.name in config or parameter.has_default):
            where = "`space`" if parameter.is_constexpr else "`arguments`"
            raise ConfigurationError(
                f"the kernel's parameter {parameter.name!r} has no value; give it in {where}"
            )


def specialise(parameters: Any, arguments: Mapping[str, Any], config: Mapping[str, Any]) -> Specialisation:
    """Decide what is compiled in.

    As Triton's JIT does: an integer of 1 is compiled in, arrays and integers that are multiples of 16 are
    known to be; annotations, ``do_not_specialize`` and defaults count.

    Args:
        parameters: Those of the ``@triton.jit`` function (its `params`).
        arguments: As `ciq_ray.kernels.arguments.resolve` returns them.
        config: Values of ``tl.constexpr`` parameters.

    Raises:
        ConfigurationError: A parameter has no value, or a value has no parameter.
    """
    check_names(parameters, arguments, config)
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    divisible: list[int] = []
    passed: list[tuple[str, str]] = []
    for position, parameter in enumerate(parameters):
        name = parameter.name
        if name in config:
            signature[name], constants[name] = "constexpr", config[name]
            continue
        value = _value(parameter, arguments)
        if isinstance(value, Tensor):
            signature[name] = parameter.annotation_type or _pointer(value.dtype, parameter.is_const)
            passed.append((name, "pointer"))
            # memory of the device begins at multiples of 256
            if not parameter.do_not_specialize and not parameter.do_not_specialize_on_alignment:
                divisible.append(position)
            continue
        kind = "constexpr" if parameter.is_constexpr else _kind(parameter, value)
        signature[name] = kind
        plain = value.value if isinstance(value, Scalar) else value
        if kind == "constexpr":
            constants[name] = plain
            continue
        passed.append((name, _C_NAMES[kind]))
        is_integer = kind[0] in "iu" and kind != "u1"
        if (
            is_integer
            and plain % _DIVISOR == 0
            and not (parameter.do_not_specialize or parameter.do_not_specialize_on_alignment)
        ):
            divisible.append(position)
    fixed = {name: repr(value) for name, value in constants.items() if name not in config}
    text = json.dumps([signature, fixed, divisible], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Specialisation(signature, constants, tuple(divisible), tuple(passed), key)


def _value(parameter: Any, arguments: Mapping[str, Any]) -> Any:
    if parameter.name in arguments:
        return arguments[parameter.name]
    default = parameter.default
    return _scalar(default) if isinstance(default, (bool, int, float)) else default


def _kind(parameter: Any, value: Any) -> str:
    """Triton's type of a number, or ``constexpr`` if it is compiled in."""
    if value is None:
        return "constexpr"
    if not isinstance(value, Scalar):
        raise ConfigurationError(
            f"`arguments`: {parameter.name!r} is {value!r}; only a parameter that is tl.constexpr can be that"
        )
    annotated = str(parameter.annotation_type)
    kind = annotated or ("u1" if value.dtype == "bool" else _TYPES[value.dtype])
    is_integer = kind[0] in "iu" and kind != "u1"
    if is_integer and value.value == 1 and value.dtype != "bool" and not parameter.do_not_specialize:
        return "constexpr"
    return kind


def _scalar(value: bool | int | float) -> Scalar:
    if isinstance(value, bool):
        return Scalar(value, "bool")
    if isinstance(value, float):
        return Scalar(value, "float32")
    for dtype, least, beyond in _FITS:
        if least <= value < beyond:
            return Scalar(value, dtype)
    raise ConfigurationError(f"{value!r} is in no integer type")


def _pointer(dtype: str, is_const: bool) -> str:
    return f"*{'k' if is_const else ''}{'i1' if dtype == 'bool' else _TYPES[dtype]}"
