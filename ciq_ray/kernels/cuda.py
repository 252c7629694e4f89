"""`CudaKernel`: CUDA C++ source whose macros are tuned."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ciq_ray.compilers import find_tool
from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.arguments import Arguments
from ciq_ray.kernels.array_kernel import Computation, Extent, Figure
from ciq_ray.kernels.cubin_kernel import CubinKernel, Shared, option_list, run_compiler
from ciq_ray.kernels.protocol import Artefact, Target
from ciq_ray.kernels.resources import disassembled

if TYPE_CHECKING:
    from ciq_ray.kernels.nvrtc import Compiled

__all__ = ["CudaKernel"]

COMPILERS: Final = ("nvcc", "nvrtc")
Flags = str | Sequence[str] | Callable[[dict[str, Any]], str | Sequence[str]]


class CudaKernel(CubinKernel):
    """A CUDA C++ kernel as an objective: each parameter of the space is a macro.

    ::

        kernel = CudaKernel(
            Path("saxpy.cu"),
            "saxpy",
            arguments={"n": 1 << 24, "a": 2.0, "x": Tensor(1 << 24), "y": Tensor(1 << 24, role="inout")},
            grid=lambda meta: -(-meta["n"] // meta["BLOCK"]),
            block=lambda meta: meta["BLOCK"],
            space={"BLOCK": Choice([64, 128, 256, 512]), "UNROLL": Choice([1, 2, 4])},
            default={"BLOCK": 256, "UNROLL": 1},
            reference=lambda a: a["a"] * a["x"] + a["y"],
        )

    ``-DNAME=value`` is passed for each parameter, true and false as 1 and 0, ``None`` not at all. The
    kernel should be ``extern "C"``.

    Args:
        source: The source: a path, or the text itself.
        name: The kernel's name.
        arguments: In the kernel's order, see `ArrayKernel`. An ``int`` is a C ``int``, a ``float`` a C
            ``float``; for others use `Scalar`.
        grid: Number of blocks, see `ArrayKernel`.
        block: Threads of a block, in the same form.
        space: The macros, see `ArrayKernel`.
        reference: What should come out, see `ArrayKernel`.
        shared: Bytes of dynamic shared memory; or a function, as for `grid`.
        flags: Further flags for the compiler, in a list or a text; or a function from a configuration to
            them.
        macros: Names of the parameters that are macros; ``None``: all. Leave out those that only `flags`,
            `grid` and `block` read.
        compiler: ``nvcc``; or ``nvrtc``, through cuda-python, which needs no C++ compiler and starts faster.
        include: Folders for ``#include``; that of `source` is one already.
        constraints: See `ArrayKernel`.
        default: See `ArrayKernel`.
        library: See `ArrayKernel`.
        shapes: See `ArrayKernel`.
        flops: See `ArrayKernel`.
        bytes: See `ArrayKernel`.
        rtol: See `ArrayKernel`.
        atol: See `ArrayKernel`.
        initial_configs: See `ArrayKernel`.
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
        shared: Shared = 0,
        flags: Flags = (),
        macros: Sequence[str] | None = None,
        compiler: Literal["nvcc", "nvrtc"] = "nvcc",
        include: Sequence[str | os.PathLike[str]] = (),
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
        if compiler not in COMPILERS:
            raise ConfigurationError(f"`compiler` is {compiler!r}; it must be one of {', '.join(COMPILERS)}")
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
        self.source, folder = read_source(source, "__global__")
        self.flags = flags if callable(flags) else option_list(flags)
        self.macros = None if macros is None else list(macros)
        self.compiler = compiler
        self.include = [str(path) for path in (*folder, *include)]

    def options(self, config: Mapping[str, Any]) -> list[str]:
        """Macros and flags for a configuration.

        Raises:
            ConfigurationError: A value cannot be a macro.
        """
        flags = self.flags(dict(config)) if callable(self.flags) else self.flags
        return [*_macros(config, self.macros), *option_list(flags)]

    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """Compile one configuration with nvcc or nvrtc."""
        options = [*self.options(config), *(f"-I{path}" for path in self.include)]
        with tempfile.TemporaryDirectory(prefix="ciq-cuda-") as name:
            folder = Path(name)
            if self.compiler == "nvcc":
                compiled = self._nvcc(options, target, folder, keep=keep)
            else:
                from ciq_ray.kernels.nvrtc import compile_source

                compiled = compile_source(self.source, options, target.arch, keep=keep)
            files = {}
            if keep:
                files = {"kernel.cu": self.source.encode(), "kernel.cubin": compiled.cubin}
                files |= {"kernel.ptx": compiled.ptx, "kernel.sass": disassembled(compiled.cubin, folder)}
        return self.artefact(compiled.cubin, compiled.messages, config, files)

    def _nvcc(self, options: list[str], target: Target, folder: Path, *, keep: bool) -> Compiled:
        from ciq_ray.kernels.nvrtc import Compiled

        source, cubin, ptx = folder / "kernel.cu", folder / "kernel.cubin", folder / "kernel.ptx"
        source.write_text(self.source)
        nvcc = find_tool("nvcc")
        common: list[str | Path] = [nvcc, f"-arch=sm_{target.arch}", *options, source]
        result = run_compiler([*common, "-cubin", "-Xptxas", "-v", "-o", cubin], folder)
        if keep:
            run_compiler([*common, "-ptx", "-o", ptx], folder)
        return Compiled(cubin.read_bytes(), result.stderr, ptx.read_bytes() if keep else b"")

    def shown(self, config: Any, style: str) -> str:
        """``flags``: macros and flags for nvcc, quoted for a shell."""
        return shlex.join(self.options(config)) if style == "flags" else super().shown(config, style)


def read_source(source: str | os.PathLike[str], mark: str) -> tuple[str, list[Path]]:
    """A source's text, and its folder if it is a file.

    Args:
        source: A path, or the text.
        mark: What occurs in each such text.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    if isinstance(source, str) and ("\n" in source or mark in source):
        return source, []
    path = Path(source).absolute()
    try:
        return path.read_text(), [path.parent]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"`source` is {os.fspath(source)!r}, which cannot be read ({error}); give a file, or the text"
        ) from error


def _macros(config: Mapping[str, Any], names: Sequence[str] | None) -> list[str]:
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"the configuration is {config!r}; macros need a dict of parameters")
    found = []
    for name in config if names is None else names:
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float, str)):
            raise ConfigurationError(f"`space`: {name!r} is {value!r}; a macro is a number or a text")
        found.append(f"-D{name}={int(value) if isinstance(value, bool) else value}")
    return found
