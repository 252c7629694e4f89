"""CUDA C++ compiled in this process, by NVRTC through cuda-python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ciq_ray.errors import ObjectiveFailure, UnsupportedError

__all__ = ["Compiled", "compile_source"]

_REASONS = 4000


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compiler made.

    Attributes:
        cubin: The binary.
        messages: What it said.
        ptx: The PTX, if it was asked for.
    """

    cubin: bytes
    messages: str
    ptx: bytes = b""


def compile_source(source: str, options: Sequence[str], arch: int, *, keep: bool = False) -> Compiled:
    """Compile with NVRTC.

    Args:
        source: The text.
        options: As nvcc takes them, as far as NVRTC has them.
        arch: Compute capability times ten.
        keep: Whether the PTX is wanted, too.

    Raises:
        UnsupportedError: cuda-python or NVRTC is not installed.
        ObjectiveFailure: ``compile_error``, with the compiler's text.
    """
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise UnsupportedError(
            f'`compiler` is "nvrtc", which cannot be loaded ({error}); install it with: '
            "pip install cuda-bindings nvidia-cuda-nvrtc, or use nvcc"
        ) from error
    result, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], [])
    _check(nvrtc, result, "nvrtcCreateProgram")
    try:
        flags = [f"--gpu-architecture=sm_{arch}", "--ptxas-options=-v", *options]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        messages = _read(nvrtc, program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace").strip()
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise ObjectiveFailure("compile_error", messages[:_REASONS] or str(result))
        cubin = _read(nvrtc, program, "CUBIN")
        return Compiled(cubin, messages, _read(nvrtc, program, "PTX").rstrip(b"\0") if keep else b"")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _read(nvrtc: Any, program: Any, what: str) -> bytes:
    result, size = getattr(nvrtc, f"nvrtcGet{what}Size")(program)
    _check(nvrtc, result, what)
    data = bytes(size)
    (result,) = getattr(nvrtc, f"nvrtcGet{what}")(program, data)
    _check(nvrtc, result, what)
    return data


def _check(nvrtc: Any, result: Any, call: str) -> None:
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, text = nvrtc.nvrtcGetErrorString(result)
        raise ObjectiveFailure("compile_error", f"NVRTC: {text.decode()} ({call})")
