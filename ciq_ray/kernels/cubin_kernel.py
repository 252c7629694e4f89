"""What `CudaKernel` and `PtxKernel` have in common: a cubin with one kernel, launched through the driver."""

from __future__ import annotations

import math
import numbers
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.compilers import ToolResult, run_tool
from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.kernels.arguments import Scalar, packed
from ciq_ray.kernels.array_kernel import ArrayKernel, Extent, check_launchable
from ciq_ray.kernels.protocol import Artefact
from ciq_ray.kernels.resources import entry_report, needs
from ciq_ray.worker.limits import compile_timeout

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime
    from ciq_ray.kernels.protocol import Launch, Workload

__all__ = ["CubinKernel", "Shared", "option_list", "run_compiler"]

Shared = int | Callable[[dict[str, Any]], int]

_LONGEST_S: Final = 600.0
_TOO_MUCH: Final = "too much shared data"
"""What ptxas says of a kernel with more static shared memory than there is."""


class CubinKernel(ArrayKernel):
    """A kernel that is compiled to a cubin with its name in it; a base.

    Args:
        name: The kernel's name.
        block: Threads of a block.
        shared: Bytes of dynamic shared memory.
        **common: Arguments of `ArrayKernel`.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
    """

    def __init__(self, name: str, *, block: Extent, shared: Shared, **common: Any) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"`name` is {name!r}; it must be the name of the kernel")
        super().__init__(**common)
        self.name = name
        self.block = block
        self.shared = shared
        for arguments in self.resolved().values():
            check_launchable(arguments)

    def artefact(self, cubin: bytes, messages: str, config: Any, files: Mapping[str, bytes]) -> Artefact:
        """What compiling came to.

        Args:
            cubin: The binary.
            messages: What the compiler said, with the report of ``ptxas --verbose``.
            config: The configuration.
            files: What is kept for people.

        Raises:
            ObjectiveFailure: ``compile_error``: the kernel is not in it.
        """
        entry, report = entry_report(messages, self.name)
        launches, most_threads, most_shared = {}, 0, 0
        for shape, arguments in self.resolved().items():
            block = self.extent("block", self.block, arguments, config)
            shared = self._shared(arguments, config)
            launches[shape] = {"grid": self.grid_of(arguments, config), "block": block, "shared": shared}
            most_threads = max(most_threads, math.prod(block))
            most_shared = max(most_shared, shared)
        resources = needs(report, threads=most_threads, dynamic_shared=most_shared)
        return Artefact(cubin, resources, {"name": entry, "launches": launches}, files, messages)

    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """Load the cubin, ready for the arrays of `workload`."""
        from ciq_ray.kernels import driver
        from ciq_ray.kernels.workload import ArrayWorkload

        if not isinstance(workload, ArrayWorkload):
            raise ConfigurationError("`workload` must be one that this kernel has made")
        arguments = workload.arguments
        values = [
            packed(value.value, value.dtype)
            if isinstance(value, Scalar)
            else packed(runtime.pointer(workload.arrays[name]), "uint64")
            for name, value in arguments.items()
        ]
        function = driver.load(artefact.binary, artefact.meta["name"])
        return function.launcher(
            self.grid_of(arguments, config),
            self.extent("block", self.block, arguments, config),
            self._shared(arguments, config),
            values,
            workload,
        )

    def _shared(self, arguments: Mapping[str, Any], config: Any) -> int:
        from ciq_ray.kernels.arguments import plain

        shared: Any = self.shared
        if callable(shared):
            shared = shared({**plain(arguments), **(config if isinstance(config, Mapping) else {})})
        if not isinstance(shared, numbers.Integral) or shared < 0:
            raise ConfigurationError(f"`shared` gave {shared!r} for {config!r}; it must be a number of bytes")
        return int(shared)


def option_list(options: str | Sequence[Any]) -> list[str]:
    """Options of a compiler as a list; a text is taken apart as a shell would.

    Raises:
        ConfigurationError: The text has a quotation that does not end.
    """
    if not isinstance(options, str):
        return [str(option) for option in options]
    try:
        return shlex.split(options)
    except ValueError as error:
        raise ConfigurationError(f"the options {options!r} cannot be read: {error}; give a list") from error


def run_compiler(command: Sequence[str | os.PathLike[str]], folder: Path) -> ToolResult:
    """Run nvcc or ptxas within the limit of the present candidate, ten minutes without one.

    Args:
        command: The program and its arguments.
        folder: Where its temporary files go, so that none are left if it is killed.

    Raises:
        ObjectiveFailure: ``compile_error``, ``compile_timeout``, or ``resource_exceeded`` for static shared
            memory that no device has.
    """
    limit = compile_timeout()
    try:
        return run_tool(command, timeout=_LONGEST_S if limit is None else limit, env={"TMPDIR": str(folder)})
    except ObjectiveFailure as error:
        if error.status == "compile_error" and _TOO_MUCH in error.message:
            raise ObjectiveFailure("resource_exceeded", error.message) from error
        raise
