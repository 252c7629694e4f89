"""The first of the two stages: what a compile worker runs for each candidate."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.errors import CiqError, ObjectiveFailure, UnsupportedError
from ciq_ray.kernels.array_kernel import ArrayKernel
from ciq_ray.kernels.resources import check_fits
from ciq_ray.worker.attached import Attached
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.kernels.protocol import Kernel, Target

__all__ = ["CompileStage"]


class CompileStage:
    """Compiles candidates of a kernel, in a process that sees no GPU.

    Args:
        kernel: What is compiled.
        target: For which device.
        folder: Where temporary files go, one that is removed with the run, so that what a killed worker
            leaves behind is; ``None``: where they always go.
        keep: Whether to return intermediate texts in `Artefact.files`.
    """

    def __init__(
        self, kernel: Kernel, target: Target, folder: Path | None = None, *, keep: bool = False
    ) -> None:
        self.kernel = kernel.for_compiling() if isinstance(kernel, ArrayKernel) else kernel
        self.target = target
        self.folder = folder
        self.keep = keep

    def __call__(self, config: Any) -> Attached:
        """Compile one configuration, and refuse what the device cannot run.

        Returns:
            For a success the artefact's bytes, with an outcome whose value is the seconds it took, and
            whose metrics are its resources, ``digest`` and ``compile_at`` (begin and end, by `time.time`).
            Failures have no bytes: ``compile_error``, ``compile_timeout`` or ``resource_exceeded``.

        Raises:
            UnsupportedError: The compiler is not there; no candidate can be compiled.
        """
        began, start = time.time(), time.perf_counter()
        metrics: dict[str, Any] = {}
        failure = ObjectiveFailure("compile_error")
        try:
            with _temporary_files_in(self.folder):
                artefact = self.kernel.compile(config, self.target, keep=self.keep)
            metrics = {**artefact.resources.to_dict(), "digest": artefact.digest}
            check_fits(artefact.resources, self.target)
        except UnsupportedError:
            raise
        except ObjectiveFailure as error:
            failure = error
        except CiqError as error:  # a grid or a value that does not fit this configuration
            failure = ObjectiveFailure("compile_error", str(error))
        else:
            seconds = time.perf_counter() - start
            metrics["compile_at"] = [began, began + seconds]
            return Attached(
                Outcome("ok", (seconds,), compile_s=seconds, metrics=metrics), artefact.to_bytes()
            )
        seconds = time.perf_counter() - start
        metrics["compile_at"] = [began, began + seconds]
        return Attached(
            Outcome(failure.status, compile_s=seconds, message=str(failure), metrics=metrics), b""
        )


@contextlib.contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before
