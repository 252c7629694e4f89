"""Tune the options of ptxas on a kernel that runs out of registers, by the time the kernel takes.

``ptxas_spill.py`` looks for the options with the least spilling. Whether less spilling is faster is another
question, and only a GPU can answer it: this one launches the same kernel and times it. Needs an NVIDIA GPU
of compute capability 9.0 (H100, H200) with PyTorch, and ptxas. Without a GPU it assembles sixteen option
sets and shows their registers and spills, which is all that can be known then.

    python examples/ptx_spill_runtime.py --max-evaluations 200 --seed 0 --output ptx_spill_runtime
"""

import sys
from pathlib import Path
from typing import Any

from ciq_ray.kernels import PtxKernel, Tensor
from ciq_ray.search_spaces.compilers import PtxasSearchSpace

POINTS, COLUMNS = 32, 1 << 20
THREADS = 512

PTX = Path(__file__).resolve().parent / "kernels" / "spectrum.sm_90.ptx"
# nothing in it is newer than PTX 8.0, which every ptxas since CUDA 12.0 takes
SOURCE = PTX.read_text().replace(".version 9.3", ".version 8.0")


def cufft(arrays: dict[str, Any]) -> Any:
    import torch  # not above: the processes that compile do without it

    signal, response = (torch.view_as_complex(arrays[name]) for name in ("signal", "response"))
    return torch.view_as_real(torch.fft.fft(signal, dim=0) * response[:, None])


KERNEL = PtxKernel(
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
    space=PtxasSearchSpace(),
    reference=cufft,
    library=cufft,
    flops=COLUMNS * (5 * POINTS * 5 + 6 * POINTS),  # 5 n log2(n), and a complex product
    bytes=2 * 8 * POINTS * COLUMNS,
    rtol=1e-4,
    atol=1e-3,
)


def without_a_gpu(seed: int, count: int = 16) -> int:
    """Registers and spills of some option sets, by ptxas."""
    import numpy as np

    from ciq_ray import CiqError, ObjectiveFailure
    from ciq_ray.kernels import Target

    print(f"{count} option sets are assembled instead; how long the kernel would take is not known.\n")
    print(f"{'registers':>9}  {'spilled':>9}  options")
    space = KERNEL.space
    samples = [space.decode(row) for row in space.sample(count - 1, np.random.default_rng(seed))]
    for config in ["", *samples]:
        try:
            found = KERNEL.compile(config, Target(90, "H100")).resources
        except ObjectiveFailure as failure:
            print(f"{failure.status}: {' '.join(config.split())}")
            continue
        except CiqError as error:
            print(error, file=sys.stderr)
            return 1
        spilled = (found.spill_stores or 0) + (found.spill_loads or 0)
        print(f"{found.registers:>9}  {spilled:>7} B  {' '.join(config.split()) or '(none)'}")
    return 0


def main() -> int:
    from _kernel_example import options, tune, usable_gpus

    arguments = options(__doc__, max_evaluations=200)
    if not usable_gpus(arguments):
        return without_a_gpu(arguments.seed)

    return tune(KERNEL, arguments, library="cuFFT (torch)")


if __name__ == "__main__":
    sys.exit(main())
