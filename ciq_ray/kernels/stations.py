"""The devices of a kernel search: who owns them from its start to its end, and what works for it meanwhile.

The owner of a device is a process (or, on a cluster, an actor's process) that holds the device's lock and
its clocks and has no CUDA context; it outlives the workers of the search and of each block of the race.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import ConfigurationError
from ciq_ray.kernels.artefacts import ArtefactStore
from ciq_ray.kernels.compile_stage import CompileStage
from ciq_ray.kernels.options import GPU_OPTIONS, KernelOptions, read_options
from ciq_ray.kernels.pipeline import Pipeline
from ciq_ray.kernels.protocol import Kernel, Target
from ciq_ray.kernels.station import Settings, Stage, Station
from ciq_ray.kernels.timing_child import check_packages
from ciq_ray.kernels.timing_stage import END_GRACE_S, TimingStage
from ciq_ray.kernels.worker import KernelWorker
from ciq_ray.types import WorkerTypes
from ciq_ray.warn import warn_caller
from ciq_ray.worker.pool import available_cpus
from ciq_ray.worker.ray_options import OPTIONS as RAY_OPTIONS
from ciq_ray.worker.slots import NativePool

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ciq_ray.gpu.devices import Device

__all__ = ["Stations", "target_of"]

logger = logging.getLogger(__name__)

_MAX_THREADS: Final = 1024
_MAX_REGISTERS: Final = 65536
_SHARED_KIB: Final = {70: 96, 72: 96, 75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227}
"""KiB of shared memory that a block can have by opting in: CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability"; 99 for those that are not in it."""


def target_of(device: Device | None) -> Target:
    """What to compile for.

    Args:
        device: Where it will run; ``None`` for the CPU.
    """
    if device is None:
        return Target(0, platform.machine())
    shared = _SHARED_KIB.get(device.arch, 99) << 10
    return Target(device.arch, device.name, shared, _MAX_THREADS, _MAX_REGISTERS)


class Stations:
    """What one kernel search runs on, as a context manager.

    Args:
        kernel: What is searched.
        worker_type: NATIVE; ISOLATED, where each candidate gets a process of its own on the device; RAY.
        num_workers: How many compile at a time; ``None``: as many as there are processors, less one for
            the search itself; with RAY as many as the cluster has place for.
        task_timeout: Seconds that a candidate may take on the device; ``None``: a minute.
        options: See `ciq_ray.kernels.options.read_options`.

    Raises:
        ConfigurationError: An option has a value it cannot have, or these devices cannot work together.
        UnsupportedError: There is no GPU, or a package is missing that timing on it needs.
    """

    def __init__(
        self,
        kernel: Kernel,
        worker_type: Any,
        num_workers: int | None,
        task_timeout: float | None,
        options: Mapping[str, Any],
    ) -> None:
        if worker_type not in (WorkerTypes.NATIVE, WorkerTypes.ISOLATED, WorkerTypes.RAY):
            raise ConfigurationError(
                f"`worker_type` is {worker_type!r}; a kernel is searched with NATIVE, ISOLATED (a process of "
                "its own for each candidate) or RAY"
            )
        self._kernel = kernel
        self._isolated = worker_type is WorkerTypes.ISOLATED
        self._on_ray = worker_type is WorkerTypes.RAY
        self._num_workers = num_workers
        self._task_timeout = task_timeout
        self._given = options
        self._resources = ExitStack()
        self._stations: list[Station] = []
        self._target = Target(0)
        self._open_compilers: Callable[[int | None, Path, Path], Stage] = self._local_compilers
        self._open_owners: Callable[[int | None], Stage]

    def __enter__(self) -> Self:
        others = RAY_OPTIONS if self._on_ray else ()
        self._options: KernelOptions = read_options(self._given, self._task_timeout, others=others)
        self._warn_of_gpu_options()
        with ExitStack() as stack:
            if self._on_ray:
                self._enter_ray(stack)
            else:
                self._enter_local(stack)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def multiple(self) -> bool:
        """Whether scores come from several devices, and compare as ratios to the control of each."""
        return len(self._stations) > 1 or (self._on_ray and self._options.devices != 1)

    @property
    def compares_times(self) -> bool:
        """Whether a score is a time, which says nothing without the device it is of.

        Over several shapes it is a ratio to the control already, and of a kernel that times itself it may
        be several numbers of any kind.
        """
        return len(self._kernel.shapes) == 1 and self._kernel.num_objectives == 1

    def worker(
        self, cache: Path, *, baseline: Any, normalize: bool, needed: bool, racing: bool
    ) -> KernelWorker:
        """A worker for the search, or for a block of the race.

        Args:
            cache: Where compiled kernels are kept.
            baseline: What devices measure as their control; ``None`` if there is none.
            normalize: Whether scores are ratios to it.
            needed: Whether nothing can go on without it.
            racing: Whether it is for a block of a race.

        Raises:
            ConfigurationError: Scores of this kernel cannot be normalised.
        """
        if normalize and self._kernel.num_objectives > 1:
            raise ConfigurationError(
                f"`normalize` is set, and {type(self._kernel).__name__} has {self._kernel.num_objectives} "
                "objectives; a kernel's control is one time, so search for them without `normalize`"
            )
        if racing and self._on_ray and self.multiple:
            self._keep_one_owner()
        single = len(self._kernel.shapes) == 1
        settings = Settings(
            baseline=baseline,
            needs_baseline=needed or normalize or not single,
            normalize=normalize and single and not racing,
            window=racing,
            fresh=self._isolated,
            in_ms=single,
            compile_timeout=self._options.compile_timeout,
        )
        store = ArtefactStore(cache / "artefacts")
        logs = cache / "logs"

        def make() -> Pipeline:
            workers = 1 if racing else self._num_workers
            pipeline = Pipeline(
                settings, lambda: self._open_compilers(workers, cache, logs), self._stations, store
            )
            if not racing:
                pipeline.start_compilers()
            return pipeline

        return KernelWorker(make, self._options.max_resends)

    def _warn_of_gpu_options(self) -> None:
        if self._kernel.needs_gpu:
            return
        given = [name for name in GPU_OPTIONS if self._given.get(name) not in (None, False)]
        # on a cluster it is how many time at once, with or without GPUs
        names = ", ".join(f"`{name}`" for name in given if not (self._on_ray and name == "devices"))
        if names:
            warn_caller(f"{type(self._kernel).__name__} needs no GPU; without effect: {names}")

    # --- here ---

    def _enter_local(self, stack: ExitStack) -> None:
        from ciq_ray.gpu.preflight import plan

        devices = self._devices()
        check_packages(self._kernel)
        self._target = target_of(devices[0])
        clocks = self._options.timing.clocks
        for device in devices:
            if device is not None and clocks is not None:
                plan(device, clocks)  # refuses what is out of the card's range
            self._stations.append(self._station(device, stack))

    def _devices(self) -> list[Device | None]:
        if not self._kernel.needs_gpu:
            return [None]
        from ciq_ray.gpu.devices import devices, lost_cards, one_of_each_card

        chosen = self._options.devices
        found = devices([chosen] if isinstance(chosen, (int, str)) else chosen)
        if chosen is None:
            for text in lost_cards():
                logger.warning("%s; the search goes on without it", text)
        apart = one_of_each_card(found)
        if chosen is not None and len(apart) < len(found):
            raise ConfigurationError(
                f"`devices` is {chosen!r}: several instances (MIG) of one card, which share its clock and "
                "power and spoil each other's times; name one of each card"
            )
        found = apart
        kinds = {device.arch: device.name for device in found}
        if len(kinds) > 1:
            raise ConfigurationError(
                f"`devices` are of different kinds ({', '.join(kinds.values())}), for which different "
                "binaries are compiled; choose those of one kind, and search for each kind apart"
            )
        return [*found]

    def _station(self, device: Device | None, stack: ExitStack) -> Station:
        stage = TimingStage(self._kernel, device, self._options.timing)
        pool = NativePool(stage, num_workers=1, end_grace_s=END_GRACE_S)
        stack.callback(pool.close)
        station = Station(pool, "the CPU" if device is None else f"{device.name} ({device.uuid})")
        station.prepare()  # while the search is made ready
        return station

    def _local_compilers(self, most: int | None, cache: Path, logs: Path) -> Stage:
        stage = CompileStage(self._kernel, self._target, cache / "compile")
        return NativePool(stage, num_workers=most or max(1, available_cpus() - 1), log_dir=logs)

    # --- on a cluster ---

    def _enter_ray(self, stack: ExitStack) -> None:
        from ciq_ray.kernels import on_ray
        from ciq_ray.worker.ray_cluster import connected
        from ciq_ray.worker.ray_options import ActorOptions
        from ciq_ray.worker.ray_options import read_options as read_actor_options

        count = self._options.devices
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ConfigurationError(
                f"`devices` is {count!r}; with RAY it is a number of GPUs, or None for all"
            )
        given = {name: self._given[name] for name in RAY_OPTIONS if name in self._given}
        # an owner works while its device does, and must find its place among those that compile
        owners = read_actor_options(
            {"num_gpus": 1 if self._kernel.needs_gpu else 0, **given, "num_cpus": 0}
        ).options
        compilers = {"num_cpus": given.get("num_cpus") or 1, "num_gpus": 0}
        if "runtime_env" in given:
            compilers["runtime_env"] = given["runtime_env"]
        stack.enter_context(connected(self._num_workers, ActorOptions(compilers)))
        self._target = target_of(on_ray.cluster_device(owners) if self._kernel.needs_gpu else None)
        self._open_owners = lambda most: on_ray.timing_pool(self._kernel, self._options.timing, owners, most)
        self._stations.append(Station(self._open_owners(count), "the cluster", pooled=True))
        stack.callback(lambda: self._stations[0].stage.close())
        self._open_compilers = lambda most, cache, logs: on_ray.compile_pool(
            self._kernel, self._target, compilers, most
        )

    def _keep_one_owner(self) -> None:
        """For the race, in which only windows of one device compare."""
        self._stations[0].stage.close()
        self._stations[0] = Station(self._open_owners(1), "the cluster", pooled=True)
        self._options = replace(self._options, devices=1)
