import subprocess
import sys

import pytest

import ciq_ray.kernels as kernels

NAMES = [
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


def test_the_names_are_these():
    assert kernels.__all__ == NAMES
    assert all(getattr(kernels, name) is not None for name in NAMES)
    assert dir(kernels) == sorted(NAMES)
    with pytest.raises(AttributeError, match="no attribute 'Cuda'"):
        _ = kernels.Cuda


def test_importing_the_package_costs_next_to_nothing():
    code = (
        "import sys, ciq_ray.kernels; print(sorted({'numpy', 'triton', 'torch', 'ray'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
