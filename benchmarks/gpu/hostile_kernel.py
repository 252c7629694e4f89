"""A kernel that misbehaves on request: it hangs, corrupts memory, gives wrong answers, does not compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciq_ray.kernels import CudaKernel, Tensor
from searchers import Choice, PowerOfTwo

COUNT = 1 << 24

CLEAN, HANGS, ILLEGAL, WRONG, SCRIBBLES, BROKEN, GREEDY, MISALIGNED, TRAPS, STALE = range(10)

EXPECTED: Mapping[int, str] = {
    CLEAN: "ok",
    HANGS: "run_timeout",
    ILLEGAL: "run_error",
    WRONG: "wrong",
    SCRIBBLES: "wrong",
    BROKEN: "compile_error",
    GREEDY: "resource_exceeded",
    MISALIGNED: "run_error",
    TRAPS: "run_error",
    STALE: "wrong",
}
"""The status that each behaviour must end in."""

NAMES: Mapping[int, str] = {
    CLEAN: "clean",
    HANGS: "hangs",
    ILLEGAL: "illegal address",
    WRONG: "wrong answer",
    SCRIBBLES: "overwrites its input",
    BROKEN: "does not compile",
    GREEDY: "too much shared memory",
    MISALIGNED: "misaligned address",
    TRAPS: "traps",
    STALE: "writes nothing",
}

SOURCE = r"""
#if BEHAVIOUR == 5
#error "does not compile"
#endif

extern "C" __global__ void scale(const float *__restrict__ x, float *__restrict__ y, int count) {
    const int stride = STRIDED ? gridDim.x * BLOCK : 1;
    int at = STRIDED ? blockIdx.x * BLOCK + threadIdx.x : (blockIdx.x * BLOCK + threadIdx.x) * ITEMS;
#if BEHAVIOUR == 1
    while (clock64() != -1) { }
#elif BEHAVIOUR == 8
    if (at == 0) asm volatile("trap;");
#endif
#pragma unroll
    for (int i = 0; i < ITEMS; i++, at += stride) {
        if (at >= count) break;
        float value = 2.0f * x[at] + 1.0f;
#if BEHAVIOUR == 2
        y[at + (1ll << 40)] = value;
#elif BEHAVIOUR == 3
        y[at] = at == count / 2 ? value + 1.0f : value;
#elif BEHAVIOUR == 4
        y[at] = value;
        const_cast<volatile float *>(x)[at] = 0.0f;
#elif BEHAVIOUR == 7
        *reinterpret_cast<volatile float *>(reinterpret_cast<char *>(y + at) + 1) = value;
#elif BEHAVIOUR == 9
        if (value == 12345.678f) y[at] = value;
#else
        y[at] = value;
#endif
    }
}
"""


def reference(arrays: Mapping[str, Any]) -> Any:
    """What should come out."""
    return 2 * arrays["x"] + 1


def grid(meta: Mapping[str, Any]) -> int:
    """Enough blocks for all elements."""
    each = int(meta["BLOCK"]) * int(meta["ITEMS"])
    return -(-COUNT // each)


def block(meta: Mapping[str, Any]) -> int:
    """Threads of a block."""
    return int(meta["BLOCK"])


def shared(meta: Mapping[str, Any]) -> int:
    """Bytes of dynamic shared memory; more than any GPU has if that is the behaviour."""
    return 1 << 20 if meta["BEHAVIOUR"] == GREEDY else 0


def kernel(behaviours: tuple[int, ...] = tuple(EXPECTED)) -> CudaKernel:
    """The kernel, with some behaviours only.

    Args:
        behaviours: Those in the space; `CLEAN` is the default.
    """
    return CudaKernel(
        SOURCE,
        "scale",
        arguments={
            "x": Tensor((COUNT,), "float32"),
            "y": Tensor((COUNT,), "float32", role="out"),
            "count": COUNT,
        },
        grid=grid,
        block=block,
        shared=shared,
        space={
            "BEHAVIOUR": Choice(list(behaviours)),
            "BLOCK": PowerOfTwo(64, 1024),
            "ITEMS": PowerOfTwo(1, 8),
            "STRIDED": Choice([0, 1]),
        },
        # a hang costs the whole time limit: a few are enough
        constraints=[f"BEHAVIOUR != {HANGS} or STRIDED == 0 and ITEMS <= 2"],
        default={"BEHAVIOUR": CLEAN, "BLOCK": 256, "ITEMS": 1, "STRIDED": 1},
        reference=reference,
        bytes=8 * COUNT,
    )


KERNEL = kernel()
CLEAN_KERNEL = kernel((CLEAN,))
