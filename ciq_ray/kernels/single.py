"""Compiling, checking and timing a single configuration, without a search."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.kernels.protocol import LIBRARY, Kernel
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device
    from ciq_ray.kernels.jobs import TimingOptions
    from ciq_ray.worker.protocol import Report

__all__ = ["calls", "time_kernel"]

_POLL_S: Final = 1.0


def time_kernel(
    kernel: Kernel,
    config: Any,
    device: Device | int | str | None = None,
    *,
    options: TimingOptions | None = None,
) -> Outcome:
    """Compile, check and time one configuration as a search would, in processes of their own.

    Args:
        kernel: The kernel.
        config: One configuration, or `ciq_ray.kernels.LIBRARY` for the library's computation.
        device: Where: a `Device`, CUDA's number or a UUID; ``None``: the first that is visible. Kernels
            that need no GPU run on the CPU.
        options: How it is measured, clocks included.

    Returns:
        ``values`` in milliseconds (for several shapes their geometric mean), with all samples in
        ``metrics["timing"]``; or how it failed: ``lost`` if the device cannot be used.

    Raises:
        UnsupportedError: There is no GPU.
        ConfigurationError: There is no such device, or the kernel cannot be sent to a process.
    """
    from ciq_ray.kernels.compile_stage import CompileStage
    from ciq_ray.kernels.jobs import CANDIDATE, PREPARE, Job, TimingOptions
    from ciq_ray.kernels.stations import target_of
    from ciq_ray.kernels.timing_stage import TimingStage, of_owner

    place = _device(kernel, device)
    compiled, artefact = Outcome("ok", (0.0,)), b""
    if config != LIBRARY:
        (report,) = calls(CompileStage(kernel, target_of(place)), config)
        compiled, artefact = report.outcome, report.attached
        if not compiled.ok:
            return compiled
    stage = TimingStage(kernel, place, options or TimingOptions())
    prepared, *timed = calls(stage, Job(PREPARE), Job(CANDIDATE, config, artefact))
    outcome = of_owner((timed or [prepared])[0].outcome)
    if not timed:
        return outcome
    return replace(outcome, compile_s=compiled.compile_s, metrics={**compiled.metrics, **outcome.metrics})


def calls(function: Callable[[Any], Any], *arguments: Any, log_dir: Path | None = None) -> list[Report]:
    """Call a stage in a process of its own, up to the first failure.

    Args:
        function: The stage.
        *arguments: What it is called with, one after another.
        log_dir: Where what the process prints goes.
    """
    from ciq_ray.kernels.timing_stage import END_GRACE_S
    from ciq_ray.worker.protocol import Task
    from ciq_ray.worker.slots import NativePool

    reports: list[Report] = []
    with closing(NativePool(function, num_workers=1, log_dir=log_dir, end_grace_s=END_GRACE_S)) as pool:
        for argument in arguments:
            pool.submit(Task("0", argument))
            found = pool.poll(_POLL_S)
            while not found:
                found = pool.poll(_POLL_S)
            reports += found
            if not found[0].outcome.ok:
                break
    return reports


def _device(kernel: Kernel, device: Device | int | str | None) -> Device | None:
    if not kernel.needs_gpu:
        return None
    from ciq_ray.gpu.devices import devices

    if isinstance(device, (int, str)):
        return devices([device])[0]
    return devices()[0] if device is None else device
