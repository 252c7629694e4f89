"""Triton's own launcher, for what `ciq_ray.kernels.driver` does not do: clusters, cooperative grids, PDL."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ciq_ray.errors import ObjectiveFailure
from ciq_ray.kernels.protocol import Launch
from ciq_ray.kernels.specialise import Specialisation
from ciq_ray.kernels.workload import ArrayWorkload

__all__ = ["special_launch"]


def special_launch(
    function: Any,
    chosen: Specialisation,
    meta: Mapping[str, Any],
    cubin: bytes,
    grid: Sequence[int],
    workload: ArrayWorkload,
) -> Launch:
    """A launch by Triton, which compiles a launcher for the signature with the C compiler of this machine.

    Args:
        function: The ``@triton.jit`` function.
        chosen: The variant that was compiled.
        meta: What is known of it; ``metadata`` is Triton's own.
        cubin: The binary.
        grid: Number of blocks.
        workload: The arrays.

    Raises:
        ObjectiveFailure: ``resource_exceeded``: it needs more than the device has.
    """
    from triton.compiler import ASTSource, CompiledKernel
    from triton.runtime.errors import OutOfResources

    source = ASTSource(function, chosen.signature, chosen.constants, chosen.attributes)
    name = meta["name"]
    with tempfile.TemporaryDirectory(prefix="ciq-triton-") as folder:
        binary, description = Path(folder, f"{name}.cubin"), Path(folder, f"{name}.json")
        binary.write_bytes(cubin)
        description.write_text(json.dumps(meta["metadata"]))
        files = {path.name: str(path) for path in (binary, description)}
        compiled = CompiledKernel(source, files, meta["metadata"]["hash"])
    values = {**{name: None for name in chosen.signature}, **chosen.constants, **workload.values}
    values |= workload.arrays
    arguments = [values[name] for name in chosen.signature]
    try:
        start = compiled[tuple(grid)]
    except OutOfResources as error:
        raise ObjectiveFailure("resource_exceeded", str(error)) from error

    def launch() -> None:
        start(*arguments)

    return launch
