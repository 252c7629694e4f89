"""Tune a matrix product in Triton: 4096 x 4096 x 4096, half precision, against cuBLAS.

Needs an NVIDIA GPU with PyTorch and Triton; the recorded times are of an H100. Kernels are compiled on all
processor cores but one while the GPU times those that are ready. Without a GPU it searches the recorded
times of all 2240 configurations instead, and says so.

    python examples/triton_matmul.py --max-evaluations 400 --seed 0 --output triton_matmul
"""

import sys
from typing import Any

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    sys.exit("Triton is missing, which this example needs also without a GPU: pip install 'ciq-ray[gpu]'")

from ciq_ray.kernels import Tensor, TritonKernel
from searchers import Choice, PowerOfTwo

SIZE = 4096


@triton.jit
def matmul(
    a_ptr,
    b_ptr,
    c_ptr,
    M,
    N,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """C = A B, all in C order; K is a multiple of BLOCK_K."""
    # blocks that run at the same time share rows of A and columns of B in L2
    block = tl.program_id(0)
    blocks_m = tl.cdiv(M, BLOCK_M)
    blocks_n = tl.cdiv(N, BLOCK_N)
    in_group = GROUP_M * blocks_n
    first = block // in_group * GROUP_M
    height = min(blocks_m - first, GROUP_M)
    block_m = first + block % in_group % height
    block_n = block % in_group // height

    rows = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    # rows beyond the edge are read from the other end, and not stored: cheaper than a mask on each load
    a_ptrs = a_ptr + (rows % M)[:, None] * K + inner[None, :]
    b_ptrs = b_ptr + inner[:, None] * N + (columns % N)[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for _ in range(0, K, BLOCK_K):
        sums = tl.dot(tl.load(a_ptrs), tl.load(b_ptrs), sums)
        a_ptrs += BLOCK_K
        b_ptrs += BLOCK_K * N

    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(c_ptr + rows[:, None] * N + columns[None, :], sums.to(c_ptr.dtype.element_ty), mask=inside)


def grid(meta: dict[str, Any]) -> tuple[int]:
    return (triton.cdiv(SIZE, meta["BLOCK_M"]) * triton.cdiv(SIZE, meta["BLOCK_N"]),)


def cublas(arrays: dict[str, Any]) -> Any:
    import torch  # not above: the processes that compile do without it, and start in a tenth of a second

    return torch.matmul(arrays["a_ptr"], arrays["b_ptr"])


KERNEL = TritonKernel(
    matmul,
    arguments={
        "a_ptr": Tensor((SIZE, SIZE), "float16"),
        "b_ptr": Tensor((SIZE, SIZE), "float16"),
        "c_ptr": Tensor((SIZE, SIZE), "float16", role="out"),
        "M": SIZE,
        "N": SIZE,
        "K": SIZE,
    },
    grid=grid,
    space={
        "BLOCK_M": PowerOfTwo(16, 256),
        "BLOCK_N": PowerOfTwo(16, 256),
        "BLOCK_K": PowerOfTwo(16, 128),
        "GROUP_M": Choice([1, 8]),
        "num_warps": PowerOfTwo(2, 8),
        "num_stages": Choice([1, 2, 3, 4]),
    },
    # sums are kept in registers: at most 256 in a thread
    constraints=["BLOCK_M * BLOCK_N <= 32768", "BLOCK_M * BLOCK_N <= 8192 * num_warps"],
    default={
        "BLOCK_M": 128,
        "BLOCK_N": 128,
        "BLOCK_K": 32,
        "GROUP_M": 8,
        "num_warps": 4,
        "num_stages": 4,
    },
    reference=cublas,
    library=cublas,
    flops=2 * SIZE**3,
    bytes=3 * 2 * SIZE**2,
    rtol=1e-2,
    atol=0.05,
)


def main() -> int:
    from _kernel_example import options, replay, tune, usable_gpus

    arguments = options(__doc__, max_evaluations=400)
    if not usable_gpus(arguments):
        return replay("matmul_4096.csv", KERNEL, arguments)

    return tune(KERNEL, arguments, library="cuBLAS (torch.matmul)")


if __name__ == "__main__":
    sys.exit(main())
