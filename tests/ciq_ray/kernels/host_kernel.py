"""A kernel of two stages for the CPU, with all the ways to go wrong that a kernel on a GPU has.

``out = 2 * x + 1`` in C, compiled by gcc to a shared object and loaded with ctypes into the timing child.
The parameter `behaviour` says what it does besides:

=============  ==========================================================================================
`ok`           the right answer; its time depends on `block`, 64 being the fastest
`slow`         the right answer, a millisecond later
`no_compile`   a syntax error
`no_load`      needs more than there is: `resource_exceeded` when it is loaded
`raises`       a Python exception at the launch
`sticky`       an exception that names a CUDA error after which a context is lost
`wrong`        one element is off by one
`nan`          one element is NaN
`nothing`      writes nothing
`constant`     the answer to the first arguments it got, whatever it gets
`late`         the wrong answer from the 3rd launch on, after one for each of the two seeds of the check
`stray`        the right answer, then garbage into its input
`hang`         never returns; ended by SIGTERM
`deaf`         never returns; ignores SIGTERM
`segfault`     writes to address 0
`killed`       killed by SIGKILL
`exits`        leaves with code 3
`family`       leaves a process in a session of its own behind, which ignores SIGTERM; the right answer
`flood`        200 MB on stderr; the right answer
=============  ==========================================================================================

`unroll` 1 and 2 compile to the same binary, and so do 3 and 4.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ciq_ray.errors import ObjectiveFailure
from ciq_ray.gpu.runtime import Runtime
from ciq_ray.kernels.protocol import Artefact, Kernel, Launch, Resources, Target, Workload
from searchers import Choice, PowerOfTwo, Range, Space

BEHAVIOURS = (
    "ok",
    "slow",
    "no_compile",
    "no_load",
    "raises",
    "sticky",
    "wrong",
    "nan",
    "nothing",
    "constant",
    "late",
    "stray",
    "hang",
    "deaf",
    "segfault",
    "killed",
    "exits",
    "family",
    "flood",
)

_SOURCE = r"""
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long launches;
static double *first;
static int *volatile nowhere;

static void compute(const double *x, double *out, long n) {
    for (int pass = 0; pass < PASSES; pass++) {
        for (long b = 0; b < n; b += BLOCK) {
            long end = b + BLOCK < n ? b + BLOCK : n;
            for (long i = b; i < end; i++) out[i] = 2 * x[i] + 1;
        }
        __asm__ volatile("" ::: "memory");
    }
}

static void before(void) {
    if (IS(hang) || IS(deaf)) {
        if (IS(deaf)) signal(SIGTERM, SIG_IGN);
        for (;;) pause();
    }
    if (IS(slow)) usleep(1000);
    if (IS(segfault)) *nowhere = 1;
    if (IS(killed)) raise(SIGKILL);
    if (IS(exits)) _exit(3);
    if (IS(family) && launches == 0 && fork() == 0) {
        setsid();
        signal(SIGTERM, SIG_IGN);
        for (;;) pause();
    }
    if (IS(flood) && launches == 0) {
        static char line[1 << 16];
        memset(line, 'x', sizeof line);
        for (int i = 0; i < (200 << 20) / (int)sizeof line; i++)
            if (write(2, line, sizeof line) < 0) break;
    }
}

void run(double *x, double *out, long n) {
    before();
    launches++;
    if (IS(nothing)) return;
    compute(x, out, n);
    if (IS(constant)) {
        if (first == NULL) { first = malloc(n * sizeof *out); memcpy(first, out, n * sizeof *out); }
        memcpy(out, first, n * sizeof *out);
    }
    if (IS(wrong) || (IS(late) && launches > 2)) out[7] += 1;
    if (IS(nan)) out[7] = NAN;
    if (IS(stray)) memset(x, 0x5a, n * sizeof *x);
}
"""


@functools.lru_cache(maxsize=256)
def _function(digest: str, binary: bytes) -> Any:
    """Loaded once for all shapes and seeds, as a module on a GPU is."""
    with tempfile.NamedTemporaryFile(prefix="ciq-host-kernel-", suffix=".so") as file:
        file.write(binary)
        file.flush()
        return ctypes.CDLL(file.name).run


class Line(Workload):
    """One row of numbers in, one out."""

    def __init__(self, runtime: Runtime, size: int, seed: int) -> None:
        self.runtime = runtime
        self.x = runtime.array((size,), "float64", "normal", seed)
        self.kept = runtime.copy(self.x)
        self.out = runtime.array((size,), "float64", "zeros", 0)
        self.expected = 2 * self.x + 1

    def poison(self) -> None:
        """Outputs to NaN, and the input as it was."""
        self.runtime.assign(self.x, self.kept)
        self.runtime.poison(self.out)

    def check(self) -> str:
        """What differs."""
        return self.runtime.difference(self.out, self.expected, 1e-12, 1e-12)


class HostKernel(Kernel):
    """See the module.

    Args:
        behaviours: What the space has.
        shapes: Lengths of the row by name; one of 4096 unless given.
    """

    needs_gpu = False
    dtype = "float64"

    def __init__(self, behaviours: Sequence[str] = ("ok",), shapes: Mapping[str, int] | None = None) -> None:
        self.space = Space(
            {
                "behaviour": Choice(list(behaviours)),
                "block": PowerOfTwo(16, 256),
                "unroll": Range(1, 4, step=1),
            },
            default={"behaviour": behaviours[0], "block": 16, "unroll": 1},
        )
        self.shapes = dict(shapes or {"": 4096})
        self.flops = {name: 2.0 * size for name, size in self.shapes.items()}
        self.bytes = {name: 16.0 * size for name, size in self.shapes.items()}

    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """With gcc."""
        behaviour, block = config["behaviour"], config["block"]
        passes = 10 + 10 * abs(block.bit_length() - (64).bit_length())
        marks = "".join(f"#define IS_{name} {int(name == behaviour)}\n" for name in BEHAVIOURS)
        source = (
            f"{marks}#define IS(name) IS_##name\n#define BLOCK {block}\n#define PASSES {passes}\n{_SOURCE}"
        )
        source += f"const int unroll = {(config['unroll'] + 1) // 2};\n"
        if behaviour == "no_compile":
            source += "this is not C;\n"
        with tempfile.TemporaryDirectory(prefix="ciq-host-kernel-") as folder:
            target_file = os.path.join(folder, "kernel.so")
            done = subprocess.run(
                ["gcc", "-O1", "-w", "-s", "-shared", "-fPIC", "-x", "c", "-", "-o", target_file],
                input=source,
                capture_output=True,
                text=True,
                timeout=60,
            )
            if done.returncode:
                raise ObjectiveFailure("compile_error", done.stderr.strip())
            with open(target_file, "rb") as file:
                binary = file.read()
        return Artefact(
            binary,
            Resources(registers=16, threads=block),
            {"fails": behaviour if behaviour in ("no_load", "raises", "sticky") else ""},
            {"kernel.c": source.encode()} if keep else {},
            done.stderr,
        )

    def workload(self, runtime: Runtime, shape: Any, seed: int) -> Line:
        """The row."""
        return Line(runtime, shape, seed)

    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """With ctypes."""
        assert isinstance(workload, Line)
        fails = artefact.meta["fails"]
        if fails == "no_load":
            raise ObjectiveFailure("resource_exceeded", "needs 512 KiB of shared memory of 227 KiB")
        function = _function(artefact.digest, artefact.binary)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
        function.restype = None
        x, out, size = runtime.pointer(workload.x), runtime.pointer(workload.out), workload.x.size

        def launch() -> None:
            if fails == "raises":
                raise ValueError("no such grid")
            if fails == "sticky":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            function(x, out, size)

        return launch

    def library(self, runtime: Runtime, workload: Workload) -> Launch:
        """With numpy."""
        assert isinstance(workload, Line)
        x, out = workload.x, workload.out

        def launch() -> None:
            np.multiply(x, 2.0, out=out)
            np.add(out, 1.0, out=out)

        return launch


class Assassin(HostKernel):
    """Kills the owner of its device, once.

    Args:
        mark: A file that is made when it is done.
    """

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def workload(self, runtime: Runtime, shape: Any, seed: int) -> Line:
        """The row, but for the first time."""
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return super().workload(runtime, shape, seed)
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class RecordingKernel(HostKernel):
    """Writes down each load; its library can be slow, and a configuration can crash from some time on.

    Args:
        file: What is written to.
        behaviours: See `HostKernel`.
        shapes: See `HostKernel`.
        library_s: Seconds that the library takes besides; below 0: it raises an exception.
    """

    def __init__(
        self,
        file: Path,
        behaviours: Sequence[str] = ("ok",),
        *,
        shapes: Mapping[str, int] | None = None,
        library_s: float = 0.0,
    ) -> None:
        super().__init__(behaviours, shapes)
        self.file = file
        self.library_s = library_s

    def loads(self) -> list[dict[str, Any]]:
        """The loads so far: ``at``, ``child``, ``owner``."""
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """With ctypes."""
        record = {"at": time.time(), "child": os.getpid(), "owner": os.getppid()}
        with self.file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if os.environ.get("TEST_FAILS") == str(config["block"]):
            os._exit(3)
        return super().load(artefact, config, runtime, workload)

    def library(self, runtime: Runtime, workload: Workload) -> Launch:
        """With numpy."""
        compute = super().library(runtime, workload)

        def launch() -> None:
            time.sleep(self.library_s)
            compute()

        return launch
