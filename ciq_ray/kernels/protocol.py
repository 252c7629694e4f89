"""The protocol of an objective of two stages: what is compiled, what is loaded, checked and timed.

A plain function that compiles, checks and times is a complete objective already. One of two stages gets
more: `Kernel.compile` runs on CPU workers that see no GPU, many at a time; `Kernel.load` runs in the one
process that has a context on the device, and what it returns is checked against a reference and timed by
us (`ciq_ray.kernels.bench`).
"""

from __future__ import annotations

import hashlib
import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime
    from searchers.outcome import Outcome
    from searchers.space import Space

__all__ = ["LIBRARY", "Artefact", "Kernel", "Launch", "Resources", "Target", "Workload"]

LIBRARY: Final = "ciq:library"
"""In place of a configuration: measure `Kernel.library` instead of the kernel."""

Launch = Callable[[], None]
"""Starts the kernel once, asynchronously where the device allows it."""

_HEAD = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Target:
    """What is compiled for.

    Attributes:
        arch: Compute capability times ten (90 for sm_90), or 0 for the CPU.
        name: The device's name, for people.
        max_shared: Most bytes of shared memory of a block, opt-in limit included; 0 if unknown.
        max_threads: Most threads of a block; 0 if unknown.
        max_registers: 32-bit registers of a block; 0 if unknown.
    """

    arch: int
    name: str = ""
    max_shared: int = 0
    max_threads: int = 0
    max_registers: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel needs of the device, ``None`` where the compiler does not say.

    Attributes:
        registers: For each thread.
        spill_stores: Bytes a thread spills.
        spill_loads: Bytes a thread loads again.
        shared: Bytes of shared memory of a block, static and dynamic.
        threads: Threads of a block.
    """

    registers: int | None = None
    spill_stores: int | None = None
    spill_loads: int | None = None
    shared: int | None = None
    threads: int | None = None

    def to_dict(self) -> dict[str, int]:
        """Those that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Artefact:
    """What comes out of compiling one configuration.

    Attributes:
        binary: What is loaded: a cubin, a shared object; empty where `meta` says where it is.
        resources: What it needs of the device.
        meta: What `Kernel.load` needs besides, JSON-serialisable (entry name, bytes of shared memory).
        files: Texts and binaries for people, by file name, when they were asked for (``keep=True``).
        messages: What the compiler said.
    """

    binary: bytes
    resources: Resources = field(default_factory=Resources)
    meta: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    messages: str = ""

    @property
    def digest(self) -> str:
        """Hash of all that decides what runs; artefacts with the same one share one timing."""
        text = json.dumps(dict(self.meta), sort_keys=True, default=repr)
        return hashlib.sha256(text.encode() + b"\0" + self.binary).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """As it travels and is kept: no pickle, so that what lies on a disk can be read without trust."""
        head = {
            "resources": self.resources.to_dict(),
            "meta": dict(self.meta),
            "messages": self.messages,
            "files": {name: len(data) for name, data in self.files.items()},
            "binary": len(self.binary),
        }
        text = json.dumps(head).encode()
        return b"".join([_HEAD.pack(len(text)), text, self.binary, *self.files.values()])

    @classmethod
    def from_bytes(cls, data: bytes) -> Artefact:
        """The inverse of `to_bytes`.

        Raises:
            ConfigurationError: `data` is no artefact.
        """
        try:
            (size,) = _HEAD.unpack_from(data)
            head = json.loads(data[_HEAD.size : _HEAD.size + size])
            at = _HEAD.size + size
            binary = data[at : at + head["binary"]]
            at += head["binary"]
            files = {}
            for name, length in head["files"].items():
                files[name] = data[at : at + length]
                at += length
            if at != len(data):
                raise ValueError("its length is another")
            return cls(binary, Resources(**head["resources"]), head["meta"], files, head["messages"])
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"not an artefact of a kernel: {error}") from error


class Workload(ABC):
    """The arguments of a kernel for one shape and one seed, on the device; made by `Kernel.workload`.

    Attributes:
        in_place: Whether a launch reads what an earlier launch wrote, so that answers can only be checked
            after a single one.
    """

    in_place: bool = False

    @property
    def nbytes(self) -> int:
        """Memory it takes on the device, 0 if unknown; the arrays of few large problems are kept."""
        return 0

    @abstractmethod
    def poison(self) -> None:
        """Fill outputs with what no kernel writes (NaN), and restore arguments that are read and written."""

    @abstractmethod
    def check(self) -> str:
        """Compare outputs with the reference: nothing if they agree, else what differs and where."""


class Kernel(ABC):
    """An objective of two stages. Give it to `Search` as `objective_function`.

    Subclasses set the attributes and supply `compile`, `workload` and `load`; it must be possible to
    pickle them, and `compile` must not touch a GPU.

    Attributes:
        space: What can be configured, its default being the baseline.
        initial_configs: What is tried first; the first of them is the baseline if there is any.
        num_objectives: How many values an evaluation has.
        problem_type: ``min`` if low values are better, as of times, else ``max``.
        shapes: Problems it is run on, by name; one, ``{"": None}``, unless said otherwise.
        flops: Floating-point operations of a launch for each shape name; empty if unknown.
        bytes: Bytes a launch has to move for each shape name; empty if unknown.
        dtype: In which the peak is measured that a share is shown of, such as ``float16``.
        needs_gpu: Whether it runs on a CUDA device (else on the CPU, one launch at a time).
        self_timed: Whether it times itself, as a benchmark program does: its `run` is called in place of
            `workload` and `load`.
        has_library: Whether `library` has something to compare with.
    """

    space: Space
    initial_configs: Sequence[Any] = ()
    num_objectives: int = 1
    problem_type: str = "min"
    shapes: Mapping[str, Any] = {"": None}
    flops: Mapping[str, float] = {}
    bytes: Mapping[str, float] = {}
    dtype: str = "float32"
    needs_gpu: bool = True
    self_timed: bool = False
    has_library: bool = False

    @abstractmethod
    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """Compile one configuration, on a CPU.

        Args:
            config: As the searcher proposes it.
            target: What to compile for.
            keep: Whether to return intermediate texts (PTX, SASS) in `Artefact.files`.

        Raises:
            ObjectiveFailure: ``compile_error``, ``compile_timeout`` or ``resource_exceeded``.
        """

    @abstractmethod
    def workload(self, runtime: Runtime, shape: Any, seed: int) -> Workload:
        """Make the arguments of one problem on the device, and what should come out.

        Args:
            runtime: Arrays and clocks of the device.
            shape: A value of `shapes`.
            seed: Of the random numbers in the arguments.
        """

    @abstractmethod
    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """Load what was compiled, ready to be launched on the arguments of `workload`."""

    def library(self, runtime: Runtime, workload: Workload) -> Launch | None:
        """The same computation by a library to compare with (cuBLAS, SDPA), ``None`` if there is none."""
        return None

    def run(self, artefact: Artefact, config: Any) -> Outcome:
        """Run and time what was compiled; for a kernel that is `self_timed`."""
        raise ConfigurationError(f"{type(self).__name__} is `self_timed` and has no `run`; define it")

    def shown(self, config: Any, style: str) -> str:
        """A configuration as source to paste.

        Args:
            config: As the searcher proposes it.
            style: ``triton`` or ``flags``.

        Raises:
            ConfigurationError: This kind of kernel has no such form.
        """
        raise ConfigurationError(f"{type(self).__name__} has no form {style!r}; use json")

    def __call__(self, config: Any) -> Any:
        """Not to be called: a search runs the two stages by itself."""
        raise ConfigurationError(
            f"{type(self).__name__} has two stages and cannot be called; give it to `Search`, or to "
            "`ciq_ray.kernels.time_kernel` for a single configuration"
        )
