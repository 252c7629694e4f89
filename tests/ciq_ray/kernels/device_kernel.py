"""A kernel for GPUs that are not there: its children see the devices of the fake NVML, and use none.

It times itself, as a benchmark program does, so that all is as on a real machine (owners with lock and
clocks, children that see one device) but for torch and CUDA. A configuration `x` takes ``x`` milliseconds on
the first device and ``2 * x`` on the second.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ciq_ray.gpu.nvml import nvml
from ciq_ray.gpu.runtime import Runtime
from ciq_ray.kernels.protocol import Artefact, Kernel, Launch, Target, Workload
from searchers import Range, Space
from searchers.outcome import Outcome
from tests.fake_nvml import state as fake


class DeviceKernel(Kernel):
    """See the module.

    Args:
        hang: The number of the evaluation in a child that never comes back; 0: all do.
        lost: The index of a device that is lost for good at its second evaluation.
        pace_s: What each evaluation takes.
        together: Evaluations wait until so many devices have had one.
    """

    needs_gpu = True
    self_timed = True

    def __init__(
        self, *, hang: int = 0, lost: int | None = None, pace_s: float = 0.01, together: int = 1
    ) -> None:
        self.space = Space({"x": Range(1, 64)}, default={"x": 32})
        self.hang = hang
        self.lost = lost
        self.pace_s = pace_s
        self.together = together
        self.runs = 0

    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """Nothing to it."""
        return Artefact(json.dumps(config).encode(), meta={"arch": target.arch})

    def run(self, artefact: Artefact, config: Any) -> Outcome:
        """See the module."""
        self.runs += 1
        uuid = os.environ["CUDA_VISIBLE_DEVICES"]
        file = Path(os.environ["CIQ_FAKE_NVML"])
        state = fake.attach(file)
        index = [gpu.uuid.decode() for gpu in state.gpus].index(uuid)
        if self.runs == self.hang:
            file.with_name("hangs").touch()
            time.sleep(600)
        if index == self.lost and self.runs > 1:
            state.gpus[index].lost = 1
        with nvml() as session:
            session.handle(uuid)
        file.with_name(f"{index}.ran").touch()
        while len(list(file.parent.glob("*.ran"))) < self.together:
            time.sleep(0.01)
        time.sleep(self.pace_s)
        return Outcome("ok", (config["x"] * (1.0 + index),), metrics={"pid": os.getpid()})

    def workload(self, runtime: Runtime, shape: Any, seed: int) -> Workload:
        """None: it times itself."""
        raise NotImplementedError

    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """Nor this."""
        raise NotImplementedError
