"""``ciq rerun`` for a kernel: both of its stages once, and what the compilers made of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.kernels.compile_stage import CompileStage
from ciq_ray.kernels.jobs import Job
from ciq_ray.kernels.options import KernelOptions, read_options
from ciq_ray.kernels.protocol import Artefact
from ciq_ray.kernels.stations import target_of
from ciq_ray.kernels.timing_stage import TimingStage
from ciq_ray.racing import baseline_of
from ciq_ray.worker.protocol import Report, Task
from ciq_ray.worker.slots import NativePool
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.gpu.devices import Device
    from ciq_ray.kernels.protocol import Kernel

__all__ = ["KernelRerun", "rerun_kernel"]

_END_GRACE_S: Final = 3.0
"""Seconds that the owner of a device has to put its clocks back."""
_H100: Final = 90
"""What is compiled for if neither this machine nor the run has a GPU to say so."""


@dataclass(frozen=True, slots=True)
class KernelRerun:
    """What came of it.

    Attributes:
        outcome: Of both stages; of the first alone if it failed, or if there is no GPU.
        printed: What the processes of both printed.
        note: Why it was only compiled; empty if it was timed, too.
    """

    outcome: Outcome
    printed: bytes
    note: str = ""


def rerun_kernel(
    search: Search, config: Any, header: dict[str, Any], metrics: dict[str, Any], kept: Path | None
) -> KernelRerun:
    """Compile one configuration, and check and time it as the search did.

    Args:
        search: The search, as `Search.resume` returns it.
        config: The configuration.
        header: Of the run's journal: its options are used again.
        metrics: Of the candidate's last outcome in the run.
        kept: Where texts and binaries of the compilers go; they are then wanted, and timing is not if there
            is no GPU.

    Raises:
        UnsupportedError: There is no GPU, and nothing is kept; or there is no compiler.
    """
    kernel: Kernel = search.objective_function  # type: ignore[assignment]  # the caller has looked
    options = read_options(
        (header.get("worker_options") or {}).get("known") or {}, header.get("task_timeout")
    )
    device, note = _device(kernel, options, required=kept is None)
    target = target_of(device)
    if kernel.needs_gpu and device is None:
        target = replace(target, arch=int((metrics.get("gpu") or {}).get("arch") or _H100))
        note = f"only compiled, for sm_{target.arch}: {note}"
    with tempfile.TemporaryDirectory(prefix="ciq-rerun-") as name:
        folder = Path(name)
        stage = CompileStage(kernel, target, folder / "compile", keep=kept is not None)
        compiled = _called(stage, [config], folder / "logs")[0]
        outcome = compiled.outcome
        if kept is not None:
            _keep(kept, compiled)
        if outcome.ok and not note:
            control, baseline = b"", None
            if len(kernel.shapes) > 1:  # whose score is a mean of ratios to it
                baseline = baseline_of(search)
                control = _called(stage, [baseline], folder / "logs")[0].attached
            jobs = [Job("prepare"), Job("candidate", config, compiled.attached, control, baseline)]
            timing = TimingStage(kernel, device, options.timing)
            timed = _called(timing, jobs, folder / "logs", end_grace_s=_END_GRACE_S)[-1].outcome
            outcome = replace(
                timed, compile_s=outcome.compile_s, metrics={**outcome.metrics, **timed.metrics}
            )
        printed = b"".join(path.read_bytes() for path in sorted((folder / "logs").glob("*.log")))
    return KernelRerun(outcome, printed, note)


def _device(kernel: Kernel, options: KernelOptions, *, required: bool) -> tuple[Device | None, str]:
    """Where to time it; without a GPU why there is none."""
    from ciq_ray.errors import ConfigurationError, UnsupportedError
    from ciq_ray.gpu.devices import devices

    if not kernel.needs_gpu:
        return None, ""
    chosen = options.devices
    try:
        found = devices([chosen] if isinstance(chosen, (int, str)) else chosen)
    except (ConfigurationError, UnsupportedError) as error:
        if required:
            raise UnsupportedError(
                f"{error}\nWith --keep the candidate is compiled all the same, and what the compilers made "
                "of it is kept"
            ) from error
        return None, str(error)
    return found[0], ""


def _called(stage: Any, arguments: list[Any], logs: Path, *, end_grace_s: float = 0.0) -> list[Report]:
    """What a stage says to each of these, in one process of its own; nothing after the first failure."""
    reports: list[Report] = []
    pool = NativePool(stage, num_workers=1, log_dir=logs, end_grace_s=end_grace_s)
    try:
        for number, argument in enumerate(arguments):
            pool.submit(Task(str(number), argument))
            found = pool.poll(1.0)
            while not found:
                found = pool.poll(1.0)
            reports += found
            if not found[-1].outcome.ok:
                break
    finally:
        pool.close()
    return reports


def _keep(folder: Path, compiled: Report) -> None:
    """Write what the compilers made and said."""
    files: dict[str, bytes] = {}
    messages = compiled.outcome.message
    if compiled.outcome.ok:
        artefact = Artefact.from_bytes(compiled.attached)
        files, messages = dict(artefact.files), artefact.messages
    folder.mkdir(parents=True)
    files["messages.txt"] = f"{messages.rstrip()}\n".encode(errors="replace") if messages.strip() else b""
    for name, data in files.items():
        (folder / Path(name).name).write_bytes(data)
