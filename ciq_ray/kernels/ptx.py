"""`PtxKernel`: the options of ptxas on a PTX file, measured on the device."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ciq_ray.compilers import find_tool
from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.arguments import Arguments
from ciq_ray.kernels.array_kernel import Computation, Extent, Figure
from ciq_ray.kernels.cubin_kernel import CubinKernel, Shared, option_list, run_compiler
from ciq_ray.kernels.cuda import read_source
from ciq_ray.kernels.protocol import Artefact, Target
from ciq_ray.kernels.resources import disassembled

__all__ = ["PtxKernel"]

_TARGET = re.compile(r"^\s*\.target\s+sm_(\w+)", re.MULTILINE)


class PtxKernel(CubinKernel):
    """A kernel in PTX as an objective: the configuration is what ptxas is told.

    ::

        kernel = PtxKernel(
            Path("spectrum.sm_90.ptx"),
            "spectrum",
            arguments={"x": Tensor((4096, 512)), "out": Output((4096, 512))},
            grid=4096,
            block=512,
            space=PtxasSearchSpace(),
            reference=spectrum_in_torch,
        )

    Args:
        source: The PTX: a path, or the text itself.
        name: The kernel's name in it.
        arguments: In the kernel's order, see `CudaKernel`.
        grid: Number of blocks, see `ArrayKernel`.
        block: Threads of a block, in the same form.
        space: A provider such as `PtxasSearchSpace`, whose configurations are texts for
            ``ptxas --options-file``; or any space, with `options`.
        reference: What should come out, see `ArrayKernel`.
        options: From a configuration to the options for ptxas, as a list or a text; ``None``: the
            configuration is the text of the options.
        shared: Bytes of dynamic shared memory; or a function, as for `grid`.
        constraints: See `ArrayKernel`.
        default: See `ArrayKernel`.
        library: See `ArrayKernel`.
        shapes: See `ArrayKernel`.
        flops: See `ArrayKernel`.
        bytes: See `ArrayKernel`.
        rtol: See `ArrayKernel`.
        atol: See `ArrayKernel`.
        initial_configs: See `ArrayKernel`; for a provider ``""``, no options, unless said otherwise.
        dtype: See `ArrayKernel`.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        name: str,
        *,
        arguments: Arguments,
        grid: Extent,
        block: Extent,
        space: Any,
        reference: Computation,
        options: Callable[[Any], str | Sequence[str]] | None = None,
        shared: Shared = 0,
        constraints: Sequence[Any] = (),
        default: Any = None,
        library: Computation | None = None,
        shapes: Mapping[str, Any] | Sequence[Any] | None = None,
        flops: Figure = None,
        bytes: Figure = None,
        rtol: float | None = None,
        atol: float | None = None,
        initial_configs: Sequence[Any] = (),
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            name,
            arguments=arguments,
            grid=grid,
            block=block,
            shared=shared,
            space=space,
            reference=reference,
            constraints=constraints,
            default=default,
            library=library,
            shapes=shapes,
            flops=flops,
            bytes=bytes,
            rtol=rtol,
            atol=atol,
            initial_configs=initial_configs,
            dtype=dtype,
        )
        self.source, _ = read_source(source, ".version")
        found = _TARGET.search(self.source)
        if found is None:
            raise ConfigurationError("`source` is no PTX: it has no line `.target sm_...`")
        self.target = found[1]
        self.options = options

    def option_text(self, config: Any) -> str:
        """The text for ``ptxas --options-file``.

        Raises:
            ConfigurationError: The configuration is no text, and there is no `options` to make one.
        """
        if self.options is not None:
            return "".join(f"{option}\n" for option in option_list(self.options(config)))
        if not isinstance(config, str):
            raise ConfigurationError(
                f"the configuration is {config!r}, not the text of ptxas's options; give `options`, a "
                "function that makes a list of them"
            )
        return config

    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """Assemble with one set of options."""
        with tempfile.TemporaryDirectory(prefix="ciq-ptx-") as name:
            folder = Path(name)
            source, options, cubin = folder / "kernel.ptx", folder / "options.txt", folder / "kernel.cubin"
            source.write_text(self.source)
            options.write_text(self.option_text(config))
            command: list[str | Path] = [
                find_tool("ptxas"),
                "--verbose",
                f"--gpu-name=sm_{self._architecture(target)}",
            ]
            command += ["--options-file", options, "--output-file", cubin, source]
            result = run_compiler(command, folder)
            binary = cubin.read_bytes()
            files = {}
            if keep:
                files = {"kernel.ptx": self.source.encode(), "options.txt": options.read_bytes()}
                files |= {"kernel.cubin": binary, "kernel.sass": disassembled(binary, folder)}
        return self.artefact(binary, result.stderr, config, files)

    def _architecture(self, target: Target) -> str:
        """The device's, with the PTX's suffix if there is one: ``sm_90a`` runs nowhere else."""
        suffix = self.target.lstrip("0123456789")
        return f"{target.arch}{suffix}"

    def shown(self, config: Any, style: str) -> str:
        """``flags``: the options for ptxas, in one line."""
        if style != "flags":
            return super().shown(config, style)
        return " ".join(self.option_text(config).split())
