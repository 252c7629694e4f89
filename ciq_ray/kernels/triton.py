"""`TritonKernel`: a ``@triton.jit`` function whose meta-parameters are tuned."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ciq_ray.compilers import KernelReport, ptxas_report
from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.kernels.arguments import Arguments, packed
from ciq_ray.kernels.array_kernel import ArrayKernel, Computation, Extent, Figure
from ciq_ray.kernels.autotune import read_autotuner
from ciq_ray.kernels.jit import enable_pickling
from ciq_ray.kernels.pasting import TRITON_OPTIONS, as_triton
from ciq_ray.kernels.protocol import Artefact, Resources, Target
from ciq_ray.kernels.resources import combined, disassembled, needs
from ciq_ray.kernels.specialise import Specialisation, check_names, specialise
from searchers import Choice

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime
    from ciq_ray.kernels.protocol import Launch, Workload

__all__ = ["TritonKernel"]

_WARP: Final = 32
_KEPT: Final = ("ttir", "ttgir", "llir", "ptx")
_one_at_a_time = threading.Lock()  # Triton is told by environment variables where to write


class TritonKernel(ArrayKernel):
    """A Triton kernel as an objective. It is compiled for a target without touching a GPU.

    ::

        kernel = TritonKernel(
            add,
            arguments={"x": Tensor(1 << 24), "y": Tensor(1 << 24), "out": Output(1 << 24), "n": 1 << 24},
            grid=lambda meta: (triton.cdiv(meta["n"], meta["BLOCK"]),),
            space={"BLOCK": PowerOfTwo(64, 4096), "num_warps": Choice([1, 2, 4, 8])},
            default={"BLOCK": 1024, "num_warps": 4},
            reference=lambda a: a["x"] + a["y"],
        )

    Of the space's parameters, ``num_warps``, ``num_stages``, ``num_ctas`` and ``maxnreg`` are options of
    the compiler; all others are ``tl.constexpr`` arguments. A `maxnreg` of 0 or ``None`` sets no limit.
    Integers that are 1 are compiled in, multiples of 16 are known to be, as Triton's JIT does it; shapes
    for which that differs get a binary each.

    Args:
        function: The ``@triton.jit`` function. For ``@triton.autotune`` see `from_autotune`.
        arguments: Its other arguments by name, in any order, see `ArrayKernel`; for ``tl.constexpr`` ones
            any value.
        grid: Number of blocks, see `ArrayKernel`.
        space: What can be configured, see `ArrayKernel`; ``None`` for a kernel with nothing to tune.
        reference: What should come out, see `ArrayKernel`.
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
        options: Options of the compiler that are the same for all configurations, such as
            ``{"enable_fp_fusion": False}``.

    Raises:
        ConfigurationError: An argument has a value it cannot have, or does not fit the function.
    """

    def __init__(
        self,
        function: Any,
        *,
        arguments: Arguments,
        grid: Extent,
        space: Any,
        reference: Computation,
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
        options: Mapping[str, Any] | None = None,
    ) -> None:
        from triton.runtime.jit import JITFunction

        if not isinstance(function, JITFunction):
            way = "; use TritonKernel.from_autotune" if hasattr(function, "configs") else ""
            if hasattr(function, "values"):
                way = "; put what @triton.heuristics computes into `arguments` or into the space"
            raise ConfigurationError(f"`function` is {function!r}; it must be a @triton.jit function{way}")
        super().__init__(
            arguments=arguments,
            grid=grid,
            space={"num_warps": Choice([4])} if space is None else space,
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
        configured = self.space.parameters if isinstance(self.space.parameters, Mapping) else {}
        for values in self.resolved().values():
            check_names(function.params, values, [name for name in configured if name not in TRITON_OPTIONS])
        enable_pickling()
        self.function = function
        self.options = dict(options or {})

    @classmethod
    def from_autotune(
        cls,
        autotuner: Any,
        *,
        arguments: Arguments,
        grid: Extent,
        reference: Computation,
        space: Any = None,
        constraints: Sequence[Any] = (),
        **options: Any,
    ) -> Self:
        """Take over a function under ``@triton.autotune``.

        Its configurations become the `initial_configs`, the first one the baseline. What it says besides of
        how to tune (``key``, ``prune_configs_by``, ``warmup``, ``rep``) is left behind.

        Args:
            autotuner: What the decorator made.
            arguments: See the class.
            grid: See the class.
            reference: See the class.
            space: What can be configured. ``None``: each parameter has the values that it has in one of the
                configurations, and all combinations are tried.
            constraints: Of the space.
            **options: Further arguments of the class.

        Raises:
            ConfigurationError: It is no such function, or has what cannot be taken over (pre-hooks,
                ``@triton.heuristics``); or what it restores before each launch is not ``inout``.
            TypeError: An option is none of the class's.
        """
        function, configs, spanned, restored = read_autotuner(autotuner, TRITON_OPTIONS)
        kernel = cls(
            function,
            arguments=arguments,
            grid=grid,
            reference=reference,
            space=spanned if space is None else space,
            constraints=constraints,
            **{"initial_configs": configs, **options},
        )
        first = next(iter(kernel.resolved().values()))
        for name in restored:
            if getattr(first.get(name), "role", "inout") != "inout":
                raise ConfigurationError(
                    f"`arguments`: @triton.autotune puts {name!r} back before each launch, so it must be "
                    'role="inout", with init="zeros" if it is in reset_to_zero'
                )
        return kernel

    # --- compiling ---

    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """Compile one configuration for all shapes."""
        variants: dict[str, Any] = {}
        resources: list[Resources] = []
        files: dict[str, bytes] = {}
        binary, messages, grids = b"", [], {}
        for name, arguments in self.resolved().items():
            grids[name] = self.grid_of(arguments, config)
            chosen = self._specialised(arguments, config)
            if chosen.key in variants:
                continue
            with _private_folder() as folder:
                compiled, printed = self._compile(chosen, config, target)
                cubin = compiled.asm["cubin"]
                if keep:
                    files |= _texts(compiled, cubin, Path(folder), name)
            meta = _launch_meta(compiled, chosen)
            variants[chosen.key] = {**meta, "at": len(binary), "size": len(cubin)}
            binary += cubin
            report = ptxas_report(printed).get(compiled.metadata.name, KernelReport())
            threads = _WARP * compiled.metadata.num_warps
            needed = needs(report, threads=threads, dynamic_shared=compiled.metadata.shared)
            resources.append(needed if report.registers else Resources(shared=needed.shared, threads=threads))
            messages.append(printed.strip())
        meta = {"variants": variants, "grids": grids}
        return Artefact(binary, combined(resources), meta, files, "\n".join(filter(None, messages)))

    def _specialised(self, arguments: Mapping[str, Any], config: Mapping[str, Any]) -> Specialisation:
        constants = {name: value for name, value in config.items() if name not in TRITON_OPTIONS}
        return specialise(self.function.params, arguments, constants)

    def _compile(self, chosen: Specialisation, config: Mapping[str, Any], target: Target) -> tuple[Any, str]:
        """Triton's result, and what ptxas printed."""
        import triton
        from triton import knobs
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        options = {**self.options, **{name: config[name] for name in TRITON_OPTIONS if config.get(name)}}
        source = ASTSource(self.function, chosen.signature, chosen.constants, chosen.attributes)
        printed = io.StringIO()
        try:
            with knobs.nvidia.scope(), contextlib.redirect_stdout(printed):
                knobs.nvidia.dump_ptxas_log = True
                compiled = triton.compile(
                    source, target=GPUTarget("cuda", target.arch, _WARP), options=options
                )
        except Exception as error:
            raise _failure(error) from error
        return compiled, printed.getvalue()

    # --- on the device ---

    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """Load the variant for the arrays of `workload`."""
        from ciq_ray.kernels import driver
        from ciq_ray.kernels.workload import ArrayWorkload

        if not isinstance(workload, ArrayWorkload):
            raise ConfigurationError("`workload` must be one that this kernel has made")
        arguments = workload.arguments
        chosen = self._specialised(arguments, config)
        meta = artefact.meta["variants"].get(chosen.key)
        if meta is None:
            raise ConfigurationError(
                f"the shape {workload.shape!r} is none that this binary was compiled for"
            )
        cubin = artefact.binary[meta["at"] : meta["at"] + meta["size"]]
        grid = self.grid_of(arguments, config)
        if meta["special"]:
            from ciq_ray.kernels.triton_launcher import special_launch

            return special_launch(self.function, chosen, meta, cubin, grid, workload)
        values = [
            packed(runtime.pointer(workload.arrays[name]), "uint64")
            if kind == "pointer"
            else packed(arguments[name].value if name in arguments else self._default(name), kind)
            for name, kind in chosen.passed
        ]
        scratch, keep = [], []
        for size in meta["scratch"]:
            address = 0
            if size:
                count = size * grid[0] * grid[1] * grid[2]
                keep.append(runtime.array((count,), "uint8", "zeros", 0))
                address = runtime.pointer(keep[-1])
            scratch.append(packed(address, "uint64"))
        function = driver.load(cubin, meta["name"])
        block = (meta["num_warps"] * _WARP, 1, 1)
        return function.launcher(grid, block, meta["shared"], [*values, *scratch], (workload, keep))

    def _default(self, name: str) -> Any:
        return next(parameter.default for parameter in self.function.params if parameter.name == name)

    def shown(self, config: Any, style: str) -> str:
        """``triton``: a ``triton.Config`` to paste into ``@triton.autotune``."""
        if style != "triton":
            return super().shown(config, style)
        return as_triton(config)


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """A folder for Triton's cache and temporary files, for one compilation.

    So that a user's cache does not make a compilation look free, and nothing is left behind by those
    that fail.
    """
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="ciq-triton-") as folder:
        before = os.environ.get("TRITON_CACHE_DIR"), tempfile.tempdir
        os.environ["TRITON_CACHE_DIR"], tempfile.tempdir = os.path.join(folder, "cache"), folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before[1]
            if before[0] is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before[0]


def _launch_meta(compiled: Any, chosen: Specialisation) -> dict[str, Any]:
    """What a launch needs to know."""
    metadata = compiled.metadata._asdict()
    scratch = [metadata.get("global_scratch_size") or 0, metadata.get("profile_scratch_size") or 0]
    special = bool(
        metadata.get("num_ctas", 1) > 1
        or metadata.get("launch_cooperative_grid")
        or metadata.get("launch_pdl")
        or metadata.get("tensordesc_meta")
    )
    kept = {}
    if special:  # Triton's own launcher wants all of it
        metadata["target"] = metadata["target"].__dict__
        kept = {"metadata": json.loads(json.dumps(metadata, default=str))}
    # a release of Triton has one or two parameters for scratch memory at the end, or none
    declared = len(re.findall(r"\.param\b", _entry(compiled.asm["ptx"])))
    return {
        "name": metadata["name"],
        "num_warps": metadata["num_warps"],
        "shared": metadata["shared"],
        "scratch": scratch[: max(0, declared - len(chosen.passed))],
        "special": special,
        **kept,
    }


def _entry(ptx: str) -> str:
    """The parameters of the kernel in PTX."""
    found = re.search(r"\.entry\s+[\w$]+\s*\((.*?)\)", ptx, re.DOTALL)
    return found[1] if found else ""


def _texts(compiled: Any, cubin: bytes, folder: Path, shape: str) -> dict[str, bytes]:
    suffix = re.sub(r"[^\w.-]", "_", shape)
    stem = f"kernel_{suffix}" if suffix else "kernel"
    texts = {f"{stem}.{kind}": compiled.asm[kind].encode() for kind in _KEPT if kind in compiled.asm}
    return {**texts, f"{stem}.cubin": cubin, f"{stem}.sass": disassembled(cubin, folder)}


def _failure(error: Exception) -> ObjectiveFailure:
    from triton.runtime.errors import OutOfResources

    text = str(error).strip() or type(error).__name__
    too_much = isinstance(error, OutOfResources) or re.search(r"too much shared data|out of resource", text)
    status = "resource_exceeded" if too_much else "compile_error"
    return ObjectiveFailure(status, f"{type(error).__name__}: {text}"[:4000])
