"""``ciq rerun`` for a kernel: both of its stages once, and what the compilers made of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import BaselineError, ConfigurationError, UnsupportedError
from ciq_ray.kernels.compile_stage import CompileStage
from ciq_ray.kernels.jobs import Job
from ciq_ray.kernels.options import OPTIONS, KernelOptions, read_options
from ciq_ray.kernels.protocol import Artefact
from ciq_ray.kernels.single import calls
from ciq_ray.kernels.stations import target_of
from ciq_ray.kernels.timing_stage import TimingStage, of_owner
from ciq_ray.racing import baseline_of
from ciq_ray.types import WorkerTypes

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.gpu.devices import Device
    from ciq_ray.kernels.protocol import Kernel
    from ciq_ray.worker.protocol import Report
    from searchers.outcome import Outcome

__all__ = ["KernelRerun", "rerun_kernel"]

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
        BaselineError: Over several shapes: what the score is relative to fails.
    """
    kernel: Kernel = search.objective_function  # type: ignore[assignment]  # the caller has looked
    options = _options(search, header)
    device, note = _device(kernel, options, required=kept is None)
    target = target_of(device)
    if kernel.needs_gpu and device is None:
        target = replace(target, arch=int((metrics.get("gpu") or {}).get("arch") or _H100))
        note = f"only compiled, for sm_{target.arch}: {note}"
    with tempfile.TemporaryDirectory(prefix="ciq-rerun-") as name:
        folder = Path(name)
        stage = CompileStage(kernel, target, folder / "compile", keep=kept is not None)
        (compiled,) = calls(stage, config, log_dir=folder / "logs")
        outcome = compiled.outcome
        if kept is not None:
            _keep(kept, compiled)
        if outcome.ok and not note:
            control, baseline = b"", None
            if len(kernel.shapes) > 1:  # whose score is a mean of ratios to it
                baseline = baseline_of(search)
                (of_baseline,) = calls(stage, baseline, log_dir=folder / "logs")
                if not of_baseline.outcome.ok:
                    raise BaselineError(
                        f"the score is a ratio to the baseline, {baseline!r}, which cannot be compiled any "
                        f"more ({of_baseline.outcome.status}): {of_baseline.outcome.message}"
                    )
                control = of_baseline.attached
            jobs = [Job("prepare"), Job("candidate", config, compiled.attached, control, baseline)]
            timing = TimingStage(kernel, device, options.timing)
            timed = of_owner(calls(timing, *jobs, log_dir=folder / "logs")[-1].outcome)
            if "control_failed" in timed.metrics:
                raise BaselineError(
                    f"the score is a ratio to the baseline, {baseline!r}, which fails now: "
                    f"{timed.metrics['control_failed']}"
                )
            outcome = replace(
                timed, compile_s=outcome.compile_s, metrics={**outcome.metrics, **timed.metrics}
            )
        printed = b"".join(path.read_bytes() for path in sorted((folder / "logs").glob("*.log")))
    return KernelRerun(outcome, printed, note)


def _options(search: Search, header: dict[str, Any]) -> KernelOptions:
    """As in the run; what placed it on a cluster is left out."""
    given = (header.get("worker_options") or {}).get("known") or {}
    elsewhere = search.worker_type is WorkerTypes.RAY  # where `devices` is how many
    given = {
        name: value
        for name, value in given.items()
        if name in OPTIONS and not (elsewhere and name == "devices")
    }
    return read_options(given, header.get("task_timeout"))


def _device(kernel: Kernel, options: KernelOptions, *, required: bool) -> tuple[Device | None, str]:
    """Where to time it; without a GPU why there is none."""
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
