"""Objectives of two stages: compiled on CPU workers, checked and timed on a device.

Give one of the four ready kinds to `Search`, or write your own `Kernel`:

* `TritonKernel`: a ``@triton.jit`` function; its meta-parameters are the space.
* `CudaKernel`: CUDA C++ source whose macros are the space.
* `PtxKernel`: a PTX file; the options of ptxas are the space.
* `CommandKernel`: any build command and benchmark command.

`time_kernel` times a single configuration without a search; `DispatchTable` chooses few configurations for
the shapes of a search. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciq_ray.kernels.arguments import Output, Scalar, Tensor
    from ciq_ray.kernels.command import CommandKernel
    from ciq_ray.kernels.compile_stage import CompileStage
    from ciq_ray.kernels.cuda import CudaKernel
    from ciq_ray.kernels.dispatch import DispatchTable
    from ciq_ray.kernels.protocol import LIBRARY, Artefact, Kernel, Launch, Resources, Target, Workload
    from ciq_ray.kernels.ptx import PtxKernel
    from ciq_ray.kernels.single import time_kernel
    from ciq_ray.kernels.triton import TritonKernel

__all__ = [
    "LIBRARY",
    "Artefact",
    "CommandKernel",
    "CompileStage",
    "CudaKernel",
    "DispatchTable",
    "Kernel",
    "Launch",
    "Output",
    "PtxKernel",
    "Resources",
    "Scalar",
    "Target",
    "Tensor",
    "TritonKernel",
    "Workload",
    "time_kernel",
]

_MODULE_OF = {
    "LIBRARY": "protocol",
    "Artefact": "protocol",
    "CommandKernel": "command",
    "CompileStage": "compile_stage",
    "CudaKernel": "cuda",
    "DispatchTable": "dispatch",
    "Kernel": "protocol",
    "Launch": "protocol",
    "Output": "arguments",
    "PtxKernel": "ptx",
    "Resources": "protocol",
    "Scalar": "arguments",
    "Target": "protocol",
    "Tensor": "arguments",
    "TritonKernel": "triton",
    "Workload": "protocol",
    "time_kernel": "single",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ciq_ray.kernels' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ciq_ray.kernels.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
