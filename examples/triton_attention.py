"""Tune causal attention in Triton: batch 4, 16 heads, 4096 tokens of 64, half precision, against PyTorch's.

Needs an NVIDIA GPU with PyTorch and Triton; the recorded times are of an H100. Kernels are compiled on all
processor cores but one while the GPU times those that are ready. Without a GPU it searches the recorded
times of all 1584 configurations instead, and says so.

    python examples/triton_attention.py --max-evaluations 400 --seed 0 --output triton_attention
"""

import math
import sys
from typing import Any

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    sys.exit("Triton is missing, which this example needs also without a GPU: pip install 'ciq-ray[gpu]'")

from ciq_ray.kernels import Tensor, TritonKernel
from searchers import Choice, PowerOfTwo

BATCH, HEADS, TOKENS, WIDTH = 4, 16, 4096, 64


@triton.jit
def attention(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    scale,
    tokens,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRE_SCALE: tl.constexpr,
    FUSE_MASK: tl.constexpr,
):
    """Softmax(scale Q K^T) V with online softmax; a token sees itself and what is before it.

    Arrays are (batch * heads, tokens, WIDTH) in C order; `tokens` is a multiple of both blocks.
    """
    block = tl.program_id(0)
    begin = tl.program_id(1).to(tl.int64) * tokens * WIDTH
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    lanes = tl.arange(0, WIDTH)
    factor = scale * 1.4426950408889634  # log2(e): exp2 is one instruction
    q = tl.load(q_ptr + begin + rows[:, None] * WIDTH + lanes[None, :])
    if PRE_SCALE:
        q = (q * factor).to(q.dtype)
    k_ptrs = k_ptr + begin + columns[None, :] * WIDTH + lanes[:, None]
    v_ptrs = v_ptr + begin + columns[:, None] * WIDTH + lanes[None, :]

    highest = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    out = tl.zeros([BLOCK_M, WIDTH], dtype=tl.float32)
    for start in range(0, (block + 1) * BLOCK_M, BLOCK_N):
        scores = tl.dot(q, tl.load(k_ptrs + start * WIDTH))
        if not PRE_SCALE:
            scores = scores * factor
        seen = rows[:, None] >= start + columns[None, :]
        if FUSE_MASK:
            scores = tl.where(seen, scores, float("-inf"))
        else:
            scores += tl.where(seen, 0.0, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(weights, 1)
        out = out * shrink[:, None]
        v = tl.load(v_ptrs + start * WIDTH)
        out = tl.dot(weights.to(v.dtype), v, out)
        highest = higher

    out = out / total[:, None]
    places = out_ptr + begin + rows[:, None] * WIDTH + lanes[None, :]
    tl.store(places, out.to(out_ptr.dtype.element_ty))


def grid(meta: dict[str, Any]) -> tuple[int, int]:
    return TOKENS // meta["BLOCK_M"], BATCH * HEADS


def sdpa(arrays: dict[str, Any]) -> Any:
    # not above: the processes that compile do without it, and start in a tenth of a second
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(arrays["q_ptr"], arrays["k_ptr"], arrays["v_ptr"], is_causal=True)


SHAPE = (BATCH, HEADS, TOKENS, WIDTH)

KERNEL = TritonKernel(
    attention,
    arguments={
        "q_ptr": Tensor(SHAPE, "float16"),
        "k_ptr": Tensor(SHAPE, "float16"),
        "v_ptr": Tensor(SHAPE, "float16"),
        "out_ptr": Tensor(SHAPE, "float16", role="out"),
        "scale": 1 / math.sqrt(WIDTH),
        "tokens": TOKENS,
        "WIDTH": WIDTH,
    },
    grid=grid,
    space={
        "BLOCK_M": PowerOfTwo(16, 256),
        "BLOCK_N": PowerOfTwo(16, 256),
        "num_warps": PowerOfTwo(2, 16),
        "num_stages": Choice([1, 2, 3, 4]),
        "PRE_SCALE": Choice([0, 1]),
        "FUSE_MASK": Choice([0, 1]),
    },
    # scores are kept in registers; with more of them than this in a thread, all is spilled
    constraints=["BLOCK_M * BLOCK_N <= 16384 * num_warps"],
    default={
        "BLOCK_M": 128,
        "BLOCK_N": 64,
        "num_warps": 4,
        "num_stages": 3,
        "PRE_SCALE": 0,
        "FUSE_MASK": 1,
    },
    reference=sdpa,
    library=sdpa,
    flops=2 * 2 * BATCH * HEADS * TOKENS**2 * WIDTH / 2,  # two products, of which causality leaves half
    bytes=4 * 2 * math.prod(SHAPE),
    rtol=1e-2,
    atol=4e-3,
)


def main() -> int:
    from _kernel_example import options, replay, tune, usable_gpus

    arguments = options(__doc__, max_evaluations=400)
    if not usable_gpus(arguments):
        return replay("attention_causal.csv", KERNEL, arguments)

    return tune(KERNEL, arguments, library="SDPA (torch)")


if __name__ == "__main__":
    sys.exit(main())
