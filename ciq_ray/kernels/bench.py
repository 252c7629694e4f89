"""What happens to one artefact in the process that has the device: load, check, time, check again."""

from __future__ import annotations

import math
import platform
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.gpu.timing import Throttled, measure
from ciq_ray.kernels.peaks import measured_peaks
from ciq_ray.kernels.protocol import LIBRARY, Artefact
from searchers.outcome import Outcome

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime
    from ciq_ray.gpu.timing import Timing, Watches
    from ciq_ray.kernels.jobs import Job, TimingOptions
    from ciq_ray.kernels.protocol import Kernel, Launch, Workload

__all__ = ["Bench", "figures"]

_MOST_LOADED: Final = 1024
_MEMORY_SHARE: Final = 0.4
"""Of the device's memory, for arrays that are kept."""
_HOST_BYTES: Final = 4 << 30
"""The same on the CPU, and on devices that share its memory."""
_WINDOW_WARMUP: Final = 0.25
"""Share of a window's time that its warm-up may take: a race's windows follow one another closely."""
_VERSIONS: Final = ("ciq-ray", "triton", "torch", "cuda-bindings", "numpy")


class Bench:
    """Checks and times artefacts of one kernel on one device, in one process.

    Kernels that are loaded stay loaded, so that windows of a race that take turns cost no loading. Arrays
    stay, too, those of the shapes used last, up to 40% of the device's memory.

    Args:
        kernel: What is timed.
        runtime: Arrays and clocks of the device.
        options: How, see `TimingOptions`.
        watcher: Reads clocks and temperatures around samples; ``None``: one of the runtime's device.
    """

    def __init__(
        self,
        kernel: Kernel,
        runtime: Runtime,
        *,
        options: TimingOptions,
        watcher: Watches | None = None,
    ) -> None:
        self.kernel = kernel
        self.runtime = runtime
        self.options = options
        self._peaks: dict[str, float] | None = None
        if watcher is None and runtime.device is not None:
            from ciq_ray.gpu.evidence import Watcher

            watcher = Watcher(runtime.device)
        self._watcher = watcher
        self._workloads: OrderedDict[tuple[str, int], Workload] = OrderedDict()
        self._loaded: OrderedDict[tuple[str, str, int], Launch] = OrderedDict()
        self._checked: set[tuple[str, str]] = set()
        device = runtime.device
        memory = 0 if device is None else device.memory
        self._most_bytes = int(_MEMORY_SHARE * memory) or _HOST_BYTES

    def prepare(self) -> dict[str, Any]:
        """Measure the device's peaks, unless they are known, and read versions.

        Returns:
            ``peaks`` (``tflops`` of a matrix product in the kernel's type, ``gbs`` of a copy; without
            those that cannot be had), ``versions`` by package, and ``device``, its name.
        """
        if self._peaks is None:
            wanted = bool(self.kernel.flops or self.kernel.bytes) and self.runtime.timer == "events"
            self._peaks = measured_peaks(self.runtime, self.kernel.dtype) if wanted else {}
        versions = {"python": platform.python_version()}
        for name in _VERSIONS:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {"peaks": dict(self._peaks), "versions": versions, "device": self.runtime.name}

    def set_prepared(self, prepared: Mapping[str, Any]) -> None:
        """What `prepare` found in an earlier process on this device, so that it is not measured again."""
        self._peaks = dict(prepared.get("peaks", {}))

    def canary(self) -> bool:
        """Whether the device still computes what is known: sums over whole numbers."""
        count = 1 << 16
        numbers = self.runtime.array((count,), "int64", "arange", 0)
        result = self.runtime.copy(numbers)
        result *= 3
        result += numbers
        self.runtime.synchronize()
        return int(result.sum()) == 4 * (count * (count - 1) // 2)

    def evaluate(self, job: Job, artefact: Artefact | None, control: Mapping[str, float] | None) -> Outcome:
        """Check and time one configuration for all shapes of the kernel.

        The order, for each shape: load; for two seeds poison the outputs, launch, compare; time; compare
        again. In a race's windows what was right before in this process is only compared again when it was
        timed, and the library, by `Kernel.library`, only once.

        Args:
            job: What is asked for.
            artefact: What was compiled; ``None`` for `LIBRARY`.
            control: Milliseconds of the baseline on this device, by name of shape; ``None`` if this is the
                baseline, or there is none.

        Returns:
            For one shape ``values`` are the median in milliseconds; for several the geometric mean of the
            ratios to `control`, or of milliseconds without one. ``metrics["timing"]`` has the samples of
            each shape. Failures are ``wrong``, ``resource_exceeded``, ``throttled`` and what else an
            `ObjectiveFailure` of the kernel says.

        Raises:
            Exception: Whatever a launch raises otherwise. On CUDA the context may be lost then.
        """
        if self.kernel.self_timed:
            return _self_timed(self.kernel, job.config, artefact)
        try:
            timings = {name: self._time_shape(job, artefact, name) for name in self.kernel.shapes}
        except _WrongError as error:
            return Outcome("wrong", message=str(error), metrics=_known(artefact))
        except Throttled as error:
            return Outcome("throttled", message=str(error), metrics=_known(artefact))
        except ObjectiveFailure as error:
            return Outcome(error.status, message=str(error), metrics=_known(artefact))
        return self._outcome(artefact, timings, control)

    # --- one shape ---

    def _time_shape(self, job: Job, artefact: Artefact | None, shape: str) -> Timing:
        if artefact is None or job.config == LIBRARY:
            return self._measure(job, self._library(shape))
        known = (artefact.digest, shape)
        if job.kind == "window" and known in self._checked:
            try:
                return self._timed(job, artefact, shape)
            except _WrongError:
                # the windows in between may have spoiled the arrays: it is checked from the start
                self._checked.discard(known)
        self._check(artefact, job.config, shape)
        timing = self._timed(job, artefact, shape)
        self._checked.add(known)
        return timing

    def _timed(self, job: Job, artefact: Artefact, shape: str) -> Timing:
        launch = self._launch(artefact, job.config, shape, self.options.seeds[0])
        self._workload(shape, self.options.seeds[0]).poison()
        timing = self._measure(job, launch)
        self._check_again(launch, shape)
        return timing

    def _check(self, artefact: Artefact, config: Any, shape: str) -> None:
        """Two seeds. What differs is tried again on new arrays: an earlier kernel may have spoiled these."""
        difference = self._difference(artefact, config, shape)
        if difference and self._forget(shape):
            difference = self._difference(artefact, config, shape)
        if difference:
            # the arrays may be spoiled for those that follow
            self._forget(shape)
            raise _WrongError(_about(shape, difference))

    def _difference(self, artefact: Artefact, config: Any, shape: str) -> str:
        for seed in self.options.seeds:
            launch = self._launch(artefact, config, shape, seed)
            workload = self._workload(shape, seed)
            workload.poison()
            self.runtime.synchronize()
            launch()
            self.runtime.synchronize()
            difference = workload.check()
            if difference:
                return f"{difference} (seed {seed})"
        return ""

    def _check_again(self, launch: Launch, shape: str) -> None:
        workload = self._workload(shape, self.options.seeds[0])
        if workload.in_place:  # what is there now is the result of many launches
            workload.poison()
            launch()
        self.runtime.synchronize()
        difference = workload.check()
        if difference:
            self._forget(shape)
            raise _WrongError(_about(shape, f"right at first, wrong after it was timed: {difference}"))

    def _measure(self, job: Job, launch: Launch) -> Timing:
        options = self.options
        if job.kind == "window":
            return measure(
                launch,
                runtime=self.runtime,
                flush=options.flush,
                min_samples=3,
                noise=0.0,  # a window has its length
                max_samples=options.max_samples,
                budget_ms=options.window_ms,
                warmup_ms=_WINDOW_WARMUP * options.window_ms,
                watcher=self._watcher,
                retries=options.retries,
            )
        return measure(
            launch,
            runtime=self.runtime,
            flush=options.flush,
            min_samples=options.min_samples,
            max_samples=options.max_samples,
            noise=options.noise,
            budget_ms=options.budget_ms,
            warmup_ms=options.warmup_ms,
            # the bound is on the score, which for several shapes is no time
            slower_than_ms=job.slower_than_ms if len(self.kernel.shapes) == 1 else None,
            watcher=self._watcher,
            retries=options.retries,
        )

    # --- what stays ---

    def _workload(self, shape: str, seed: int) -> Workload:
        key = (shape, seed)
        if key not in self._workloads:
            made = self.kernel.workload(self.runtime, self.kernel.shapes[shape], seed)
            self._workloads[key] = made
            while len(self._workloads) > 1 and self._kept_bytes() > self._most_bytes:
                oldest, _ = self._workloads.popitem(last=False)
                self._unload(oldest)
        self._workloads.move_to_end(key)
        return self._workloads[key]

    def _kept_bytes(self) -> int:
        return sum(workload.nbytes for workload in self._workloads.values())

    def _launch(self, artefact: Artefact, config: Any, shape: str, seed: int) -> Launch:
        key = (artefact.digest, shape, seed)
        if key not in self._loaded:
            if len(self._loaded) >= _MOST_LOADED:
                self._loaded.popitem(last=False)
            workload = self._workload(shape, seed)
            self._loaded[key] = self.kernel.load(artefact, config, self.runtime, workload)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _library(self, shape: str) -> Launch:
        seed = self.options.seeds[0]
        workload = self._workload(shape, seed)
        key = (LIBRARY, shape, seed)
        if key not in self._loaded:
            launch = self.kernel.library(self.runtime, workload)
            if launch is None:
                raise ObjectiveFailure("invalid_result", f"{type(self.kernel).__name__} has no `library`")
            self._loaded[key] = launch
        return self._loaded[key]

    def _forget(self, shape: str) -> bool:
        """Drop the arrays of a shape, and what is bound to them; they are made again when needed."""
        keys = [key for key in self._workloads if key[0] == shape]
        for key in keys:
            del self._workloads[key]
            self._unload(key)
        return bool(keys)

    def _unload(self, workload: tuple[str, int]) -> None:
        for key in [key for key in self._loaded if key[1:] == workload]:
            del self._loaded[key]

    # --- the outcome ---

    def _outcome(
        self, artefact: Artefact | None, timings: Mapping[str, Timing], control: Mapping[str, float] | None
    ) -> Outcome:
        medians = {name: timing.median_ms for name, timing in timings.items()}
        relative = [timing.spread_ms / timing.median_ms for timing in timings.values()]
        if len(medians) == 1:
            value = next(iter(medians.values()))
        else:
            value = _geometric_mean(
                [median / (control[name] if control else 1.0) for name, median in medians.items()]
            )
        # of a geometric mean of independent factors
        spread = value * math.sqrt(sum(part * part for part in relative)) / len(relative)
        metrics: dict[str, Any] = {**_known(artefact), **figures(self.kernel, medians, self._peaks or {})}
        metrics |= _evidence(timing.evidence for timing in timings.values())
        metrics["timing"] = {name: timing.to_dict() for name, timing in timings.items()}
        samples = sum(len(timing.samples_ms) for timing in timings.values())
        return Outcome("ok", (value,), spread=(spread,), samples=samples, metrics=metrics)


class _WrongError(Exception):
    """The outputs are not those of the reference."""


def figures(kernel: Kernel, medians: Mapping[str, float], peaks: Mapping[str, float]) -> dict[str, float]:
    """Throughput, for tables.

    Args:
        kernel: What was timed.
        medians: Milliseconds by name of shape.
        peaks: ``tflops`` and ``gbs`` of the device, as far as they are known.

    Returns:
        ``tflops`` and ``gbs`` over all shapes together, as far as the kernel knows its operations and
        bytes, and ``peak_percent``: of the time measured, what the device would need at its measured
        peaks, computing and moving at once (the roofline of Williams, Waterman and Patterson 2009). There
        is no share if one of the two is given whose peak is not known: what limits the kernel would be
        left out.

    Raises:
        ConfigurationError: A time is not above 0.
    """
    if not all(median > 0 for median in medians.values()):
        raise ConfigurationError(f"`medians` is {dict(medians)!r}; times must be above 0")
    seconds = sum(medians.values()) / 1e3
    found = {}
    if kernel.flops:
        found["tflops"] = sum(kernel.flops[name] for name in medians) / seconds / 1e12
    if kernel.bytes:
        found["gbs"] = sum(kernel.bytes[name] for name in medians) / seconds / 1e9
    least = 0.0
    given = [
        (amounts, peaks.get(peak, 0.0) * scale)
        for amounts, peak, scale in ((kernel.flops, "tflops", 1e12), (kernel.bytes, "gbs", 1e9))
        if amounts
    ]
    if all(peak for _, peak in given):
        least = sum(max(amounts[name] / peak for amounts, peak in given) for name in medians if given)
    if least > 0:
        found["peak_percent"] = 100 * least / seconds
    return found


def _self_timed(kernel: Kernel, config: Any, artefact: Artefact | None) -> Outcome:
    """What a kernel that measures itself says."""
    if artefact is None:
        return Outcome("invalid_result", message=f"{type(kernel).__name__} has no `library`")
    outcome = kernel.run(artefact, config)
    return replace(outcome, metrics={**_known(artefact), **outcome.metrics})


def _known(artefact: Artefact | None) -> dict[str, Any]:
    return {} if artefact is None else {**artefact.resources.to_dict(), "digest": artefact.digest}


def _evidence(windows: Iterable[Any]) -> dict[str, float]:
    """Clocks, power and temperature over all shapes."""
    found = {}
    seen = [window for window in windows if window is not None]
    for name in ("sm_mhz", "power_w", "temp_c"):
        values = [value for window in seen if (value := getattr(window, name)) is not None]
        if values:
            found[name] = float(np.mean(values))
    return found


def _about(shape: str, difference: str) -> str:
    return f"shape {shape}: {difference}" if shape else difference


def _geometric_mean(values: list[float]) -> float:
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))
