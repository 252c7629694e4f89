"""The two stages of a kernel search on a Ray cluster: compiled by actors on CPUs, timed by those with a GPU.

The actor with a GPU is the device's owner: it holds lock and clocks and never a CUDA context. Its child has
imported what timing needs, and forks the process with the context.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import UnsupportedError, WorkerError
from ciq_ray.kernels.compile_stage import CompileStage
from ciq_ray.kernels.jobs import PREPARE, Job, TimingOptions
from ciq_ray.kernels.protocol import Kernel, Target
from ciq_ray.kernels.timing_stage import TimingStage
from ciq_ray.worker.ray_actor import Setup
from ciq_ray.worker.ray_cluster import RayCluster
from ciq_ray.worker.ray_options import ActorOptions
from ciq_ray.worker.ray_payload import ClusterPickler
from ciq_ray.worker.ray_pool import RayPool
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.gpu.devices import Device
    from ciq_ray.gpu.hold import Clocks, Held

__all__ = ["ActorStage", "cluster_device", "compile_pool", "timing_pool"]

_HELD: Final = "CIQ_HELD"
_ASK_LIMIT_S: Final = 120.0


@dataclass(slots=True)
class ActorStage:
    """The stage that times, on whichever device the actor has been given.

    Attributes:
        kernel: What is timed.
        options: How.
    """

    kernel: Kernel
    options: TimingOptions
    _stage: TimingStage | None = None

    def __call__(self, job: Job) -> Outcome:
        """Do a job; see `TimingStage`."""
        if self._stage is None:
            device = _visible() if self.kernel.needs_gpu else None
            self._stage = TimingStage(self.kernel, device, self.options, held=_held_by_parent())
            if job.kind != PREPARE:
                self._stage(Job(PREPARE))  # what goes wrong shows in the job itself
        return self._stage(job)


@contextmanager
def held(clocks: Clocks | None, wait_s: float | None) -> Iterator[None]:
    """Hold the device that this process has been given; its child is told what is held."""
    from ciq_ray.gpu.hold import Clocks, hold

    with hold(_visible(), clocks or Clocks(), wait_s=wait_s) as device:
        os.environ[_HELD] = json.dumps(asdict(device))
        yield


def _held_by_parent() -> Held | None:
    from ciq_ray.gpu.hold import Held

    told = os.environ.get(_HELD)
    return None if told is None else Held(**json.loads(told))


def timing_pool(
    kernel: Kernel, options: TimingOptions, actors: Mapping[str, Any], most: int | None
) -> RayPool:
    """Open the actors that time.

    Args:
        kernel: What is timed.
        options: How.
        actors: Options of Ray's for them.
        most: How many there are at most; ``None``: as many as there are GPUs.

    Raises:
        ConfigurationError: The cluster has no place for one, or the kernel cannot be sent.
    """
    needs_gpu = kernel.needs_gpu
    hold = pickle.dumps(partial(held, options.clocks, options.lock_wait_s)) if needs_gpu else None
    # the places of a cluster without GPUs are its processors, of which compiling needs most
    return _pool(ActorStage(kernel, options), actors, most if needs_gpu else most or 1, hold)


def compile_pool(kernel: Kernel, target: Target, actors: Mapping[str, Any], most: int | None) -> RayPool:
    """Open the actors that compile.

    Args:
        kernel: What is compiled.
        target: For what.
        actors: Options of Ray's for them.
        most: How many there are at most; ``None``: as many as there is place for.

    Raises:
        ConfigurationError: The cluster has no place for one, or the kernel cannot be sent.
    """
    return _pool(CompileStage(kernel, target, None), actors, most, None)


def cluster_device(actors: Mapping[str, Any]) -> Device:
    """One of the devices that actors with these options are given, which has to stand for all.

    Raises:
        UnsupportedError: There is none.
        WorkerError: No node answers.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    options = {name: value for name, value in actors.items() if name != "runtime_env"}
    try:
        return ray.get(ray.remote(_visible).options(**options).remote(), timeout=_ASK_LIMIT_S)  # type: ignore[no-any-return]
    except GetTimeoutError as error:
        raise WorkerError(
            f"no node with a GPU answered within {_ASK_LIMIT_S:g} s; is there one that is not in use?"
        ) from error
    except RayError as error:
        raise UnsupportedError(f"no node has a GPU that can be used: {error}") from error


def _visible() -> Device:
    from ciq_ray.gpu.devices import devices

    return devices()[0]


def _pool(
    stage: Callable[[Any], Any], actors: Mapping[str, Any], most: int | None, hold: bytes | None
) -> RayPool:
    options = ActorOptions(actors)
    pickler = ClusterPickler(stage)
    setup = Setup(
        function=pickler.function,
        num_objectives=1,
        task_timeout=None,
        baseline=None,
        log_dir=None,
        folder=None if "working_dir" in actors.get("runtime_env", {}) else os.getcwd(),
        argv=list(sys.argv),
        sees_gpus=actors["num_gpus"] > 0,
    )
    return RayPool(RayCluster(options, replace(setup, hold=hold)), pickler, most)
