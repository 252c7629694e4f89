"""Tune the options of ptxas on a kernel that runs out of registers, by the time the kernel takes.

``ptxas_spill.py`` looks for the options with the least spilling. Whether less spilling is faster is another
question, and only a GPU can answer it: this one launches the same kernel and times it. Needs an NVIDIA GPU
of compute capability 9.0 (H100, H200) with PyTorch, and ptxas. Without a GPU it searches recorded times
instead, and says so: those of a part of the space, 840 combinations of five options that matter here, since
no card could time all of it.

    python examples/ptx_spill_runtime.py --max-evaluations 200 --seed 0 --output ptx_spill_runtime
"""

import sys
from pathlib import Path
from typing import Any

from ciq_ray.kernels import PtxKernel, Tensor
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from searchers import Choice, Range, Space

POINTS, COLUMNS = 32, 1 << 20
THREADS = 512

PTX = Path(__file__).resolve().parent / "kernels" / "spectrum.sm_90.ptx"
# nothing in it is newer than PTX 8.0, which every ptxas since CUDA 12.0 takes
SOURCE = PTX.read_text().replace(".version 9.3", ".version 8.0")


def cufft(arrays: dict[str, Any]) -> Any:
    import torch  # not above: the processes that compile do without it

    signal, response = (torch.view_as_complex(arrays[name]) for name in ("signal", "response"))
    return torch.view_as_real(torch.fft.fft(signal, dim=0) * response[:, None])


def spectrum(space: Any, options: Any = None) -> PtxKernel:
    """The kernel with a space of options."""
    return PtxKernel(
        SOURCE,
        "spectrum",
        arguments={
            "signal": Tensor((POINTS, COLUMNS, 2), "float32"),
            "response": Tensor((POINTS, 2), "float32"),
            "filtered": Tensor((POINTS, COLUMNS, 2), "float32", role="out"),
            "columns": COLUMNS,
        },
        grid=(COLUMNS // THREADS,),
        block=(THREADS,),
        space=space,
        options=options,
        reference=cufft,
        library=cufft,
        flops=COLUMNS * (5 * POINTS * 5 + 6 * POINTS),  # 5 n log2(n), and a complex product
        bytes=2 * 8 * POINTS * COLUMNS,
        rtol=1e-4,
        atol=1e-3,
    )


def option_list(config: dict[str, Any]) -> list[str]:
    """The options of a configuration of `RECORDED`."""
    options = ["--override-directive-values"]  # the kernel's launch bounds, for --maxrregcount
    for name in ("maxrregcount", "opt_level", "register_usage_level"):
        options += [f"--{name.replace('_', '-')}={config[name]}"]
    for name in ("def_load_cache", "def_store_cache"):
        if config[name] != "default":
            options += [f"--{name.replace('_', '-')}={config[name]}"]
    return options


KERNEL = spectrum(PtxasSearchSpace())

RECORDED = spectrum(
    Space(
        {
            "maxrregcount": Range(24, 128, step=8),
            "opt_level": Choice([1, 3]),
            "register_usage_level": Choice([0, 5, 10]),
            "def_load_cache": Choice(["default", "cs"]),
            "def_store_cache": Choice(["default", "wb", "cg", "cs", "wt"]),
        },
        default={  # the code is the same as without any options
            "maxrregcount": 64,
            "opt_level": 3,
            "register_usage_level": 5,
            "def_load_cache": "default",
            "def_store_cache": "default",
        },
    ),
    option_list,
)
"""The part of the space that was recorded. Left out are `--Ofast-compile`, which is about the time that ptxas
takes, and options and values that change nothing in this kernel's code, or no more than these."""


def main() -> int:
    from _kernel_example import options, replay, tune, usable_gpus

    arguments = options(__doc__, max_evaluations=200)
    if not usable_gpus(arguments):
        names = ", ".join(RECORDED.space.names)
        print(f"PtxasSearchSpace is too large to be timed as a whole; a part of it was recorded: {names}.")
        return replay("ptx_spectrum.csv", RECORDED, arguments)

    return tune(KERNEL, arguments, library="cuFFT (torch)")


if __name__ == "__main__":
    sys.exit(main())
