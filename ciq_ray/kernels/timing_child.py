"""What runs in the timing child, and how its failures are read."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import UnsupportedError
from ciq_ray.gpu.nvml import NvmlError
from ciq_ray.gpu.packages import CUDA_BINDINGS, TORCH, check_installed
from ciq_ray.kernels.protocol import Artefact
from ciq_ray.settings import ENV_VISIBLE_DEVICES
from ciq_ray.worker.child import describe_failure
from searchers.outcome import STATUSES, Outcome

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device
    from ciq_ray.gpu.runtime import Runtime
    from ciq_ray.kernels.jobs import Job, Measuring, TimingOptions
    from ciq_ray.kernels.protocol import Kernel

__all__ = [
    "Canary",
    "Evaluate",
    "Prepare",
    "check_packages",
    "import_for",
    "is_sticky",
    "outcome_of",
    "serve",
]

_STICKY: Final = re.compile(
    r"illegal memory access|misaligned address|unspecified launch failure|illegal instruction"
    r"|illegal address|invalid program counter|hardware stack error|device-side assert|\bECC\b"
    r"|CUDA error|CUDA_ERROR_(ILLEGAL|MISALIGNED|LAUNCH_FAILED|ASSERT|HARDWARE|INVALID_PC|ECC)",
    re.IGNORECASE,
)
_RESOURCES: Final = re.compile(
    r"out of (memory|resource)|too many resources|OUT_OF_(MEMORY|RESOURCES)|OutOfResources|OutOfMemory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask for `Measuring.prepare`."""


@dataclass(frozen=True, slots=True)
class Canary:
    """Ask for `Measuring.canary`."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Ask for `Measuring.evaluate`; the answer is an `Outcome`, whatever happens."""

    job: Job
    control: Mapping[str, float] | None


def check_packages(kernel: Kernel) -> None:
    """Say before anything is done which packages are missing to time a kernel; imports none of them.

    Raises:
        UnsupportedError: One is missing.
    """
    if not _launches_on_gpu(kernel):
        return
    from ciq_ray.kernels.cubin_kernel import CubinKernel
    from ciq_ray.kernels.triton import TritonKernel

    by_driver = isinstance(kernel, (CubinKernel, TritonKernel))
    check_installed([TORCH, CUDA_BINDINGS] if by_driver else [TORCH])


def import_for(kernel: Kernel) -> None:
    """Import in the owner what every child will need; touches no device.

    Raises:
        UnsupportedError: A package is missing, or this process has a CUDA context.
    """
    check_packages(kernel)
    # a library that starts threads at its import would leave the child without them
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    import ciq_ray.gpu.timing
    import ciq_ray.kernels.bench

    if _launches_on_gpu(kernel):
        import ciq_ray.gpu.torch_runtime

        torch = ciq_ray.gpu.torch_runtime.import_torch()
        if torch.cuda.is_initialized():
            raise UnsupportedError(
                "this process has used CUDA already, and a child forked from it cannot; time kernels in a "
                "process that has not, or before anything else is done on the GPU"
            )
    else:
        import ciq_ray.gpu.host


def serve(
    kernel: Kernel,
    device: Device | None,
    options: TimingOptions,
    prepared: Mapping[str, Any] | None,
    *,
    measuring: Callable[..., Measuring] | None = None,
) -> Callable[[Any], Any]:
    """Take the device; what answers `Prepare`, `Canary` and `Evaluate`.

    Args:
        kernel: What is timed.
        device: The one that is seen; ``None``: whichever are.
        options: How.
        prepared: What an earlier child on this device answered to `Prepare`.
        measuring: Makes what does it, in place of `ciq_ray.kernels.bench.Bench`.
    """
    if device is not None:
        os.environ[ENV_VISIBLE_DEVICES] = device.uuid
    runtime: Runtime
    if _launches_on_gpu(kernel):
        from ciq_ray.gpu.torch_runtime import TorchRuntime

        runtime = TorchRuntime(device)
    else:
        from ciq_ray.gpu.host import HostRuntime

        runtime = HostRuntime()
    if measuring is None:
        from ciq_ray.kernels.bench import Bench

        measuring = Bench
    bench = measuring(kernel, runtime, options=options)
    if prepared is not None:
        bench.set_prepared(prepared)

    def answer(request: Any) -> Any:
        if isinstance(request, Prepare):
            return bench.prepare()
        if isinstance(request, Canary):
            return bench.canary()
        return _evaluate(bench, request)

    return answer


def _launches_on_gpu(kernel: Kernel) -> bool:
    """Whether the child has a context itself: a command that times itself has its own."""
    return kernel.needs_gpu and not kernel.self_timed


def _evaluate(bench: Measuring, request: Evaluate) -> Outcome:
    job = request.job
    begun = time.perf_counter()
    try:
        artefact = Artefact.from_bytes(job.artefact) if job.artefact else None
        outcome = bench.evaluate(job, artefact, request.control)
    except Exception as error:
        return outcome_of(error, run_s=time.perf_counter() - begun)
    return outcome


def outcome_of(error: BaseException, *, run_s: float | None = None) -> Outcome:
    """What an exception says about the candidate: its own `status`, lack of resources, or ``run_error``.

    It is nobody's fault, ``lost``, if the device's driver does not answer.
    """
    status = getattr(error, "status", None)
    text = describe_failure(error)
    if isinstance(status, str) and status in STATUSES and status != "ok":
        return Outcome(status, message=str(error), run_s=run_s)
    if isinstance(error, NvmlError):
        return Outcome("lost", message=str(error), run_s=run_s)
    first = text.partition("\n")[0]
    if isinstance(error, MemoryError) or _RESOURCES.search(first):
        return Outcome("resource_exceeded", message=text, run_s=run_s)
    return Outcome("run_error", message=text, run_s=run_s)


def is_sticky(text: str) -> bool:
    """Whether a message names an error after which a CUDA context cannot be used any more.

    Such an error comes back from every later call, so that the next candidate would be blamed for it.
    Any other ``CUDA error`` counts as well: it costs a child, not a wrong result.
    """
    return _STICKY.search(text) is not None
