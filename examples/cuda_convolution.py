"""Tune a convolution in CUDA C++: 4096 x 4096 results of a 17 x 17 filter, single precision, against cuDNN.

Needs an NVIDIA GPU with PyTorch, and nvcc; the recorded times are of an H100. The source
(``kernels/convolution.cu``) gets its parameters as macros. Without a GPU it searches the recorded times of
all 4032 configurations instead, and says so.

    python examples/cuda_convolution.py --max-evaluations 400 --seed 0 --output cuda_convolution
"""

import math
import sys
from pathlib import Path
from typing import Any

from ciq_ray.kernels import CudaKernel, Tensor
from searchers import Choice, PowerOfTwo

WIDTH = HEIGHT = 4096
TAPS = 17
SIGMA = 2.4


def laplacian_of_gaussian() -> list[float]:
    """A filter that finds edges, row after row; unlike a Gaussian it is no product of a row and a column."""
    middle = TAPS // 2
    squares = [(x - middle) ** 2 + (y - middle) ** 2 for y in range(TAPS) for x in range(TAPS)]
    values = [(r / SIGMA**2 - 2) * math.exp(-r / (2 * SIGMA**2)) for r in squares]
    return [value / sum(map(abs, values)) for value in values]


FILTER = laplacian_of_gaussian()
MACROS = {
    "WIDTH": WIDTH,
    "HEIGHT": HEIGHT,
    "FILTER_WIDTH": TAPS,
    "FILTER_HEIGHT": TAPS,
    "FILTER": "{" + ", ".join(f"{value:.9e}f" for value in FILTER) + "}",
}
SOURCE = "".join(f"#define {name} {value}\n" for name, value in MACROS.items())
SOURCE += (Path(__file__).resolve().parent / "kernels" / "convolution.cu").read_text()


def grid(meta: dict[str, Any]) -> tuple[int, int]:
    return WIDTH // (meta["BX"] * meta["TX"]), HEIGHT // (meta["BY"] * meta["TY"])


def block(meta: dict[str, Any]) -> tuple[int, int]:
    return meta["BX"], meta["BY"]


def flags(meta: dict[str, Any]) -> list[str]:
    return [f"-maxrregcount={meta['MAXREG']}"] if meta["MAXREG"] else []


WEIGHTS: dict[Any, Any] = {}
"""The filter on each device: copying it there again is not what is timed."""


def cudnn(arrays: dict[str, Any]) -> Any:
    import torch  # not above: the processes that compile do without it

    image = arrays["image"]
    if image.device not in WEIGHTS:
        WEIGHTS[image.device] = torch.tensor(FILTER, device=image.device).reshape(1, 1, TAPS, TAPS)
    with torch.backends.cudnn.flags(allow_tf32=False):  # as exact as the kernel
        return torch.nn.functional.conv2d(image[None, None], WEIGHTS[image.device])[0, 0]


KERNEL = CudaKernel(
    SOURCE,
    "convolve",
    arguments={
        "image": Tensor((HEIGHT + TAPS - 1, WIDTH + TAPS - 1), "float32"),
        "result": Tensor((HEIGHT, WIDTH), "float32", role="out"),
    },
    grid=grid,
    block=block,
    space={
        "BX": PowerOfTwo(8, 128),
        "BY": PowerOfTwo(1, 16),
        "TX": PowerOfTwo(1, 8),
        "TY": PowerOfTwo(1, 8),
        "SHMEM": Choice([0, 1]),
        "PAD": Choice([0, 1]),
        "UNROLL": Choice([0, 1]),
        "MAXREG": Choice([0, 64]),
    },
    constraints=["32 <= BX * BY <= 1024", "PAD <= SHMEM"],
    default={"BX": 16, "BY": 16, "TX": 1, "TY": 1, "SHMEM": 1, "PAD": 0, "UNROLL": 1, "MAXREG": 0},
    flags=flags,
    reference=cudnn,
    library=cudnn,
    flops=2 * WIDTH * HEIGHT * TAPS**2,
    bytes=4 * (WIDTH * HEIGHT + (WIDTH + TAPS - 1) * (HEIGHT + TAPS - 1)),
    rtol=1e-4,
    atol=1e-4,
)


def main() -> int:
    from _kernel_example import options, replay, tune, usable_gpus

    arguments = options(__doc__, max_evaluations=600)
    if not usable_gpus(arguments):
        return replay("conv_17.csv", KERNEL, arguments)

    return tune(KERNEL, arguments, library="cuDNN (torch conv2d)")


if __name__ == "__main__":
    sys.exit(main())
