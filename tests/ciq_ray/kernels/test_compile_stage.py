import contextlib
import os
import pickle
import tempfile
import time
from pathlib import Path

import pytest

from ciq_ray.errors import ConfigurationError, UnsupportedError
from ciq_ray.kernels import Artefact, CompileStage, Kernel, Resources, Target
from ciq_ray.worker.payload import Pickler
from ciq_ray.worker.protocol import Task
from ciq_ray.worker.slots import NativePool
from searchers import Range, Space
from tests.ciq_ray.kernels.host_kernel import HostKernel

CPU = Target(0, "CPU", max_threads=128)


class Made(Kernel):
    """Calls a function in place of a compiler."""

    def __init__(self, make):
        self.space = Space({"x": Range(0, 9)})
        self.make = make

    def compile(self, config, target, *, keep=False):
        return self.make(config)

    def workload(self, runtime, shape, seed):
        raise NotImplementedError

    def load(self, artefact, config, runtime, workload):
        raise NotImplementedError


def test_a_success_comes_with_its_artefact():
    before = time.time()
    attached = CompileStage(HostKernel(), CPU)({"behaviour": "ok", "block": 64, "unroll": 1})
    outcome = attached.outcome
    assert outcome.ok
    artefact = Artefact.from_bytes(attached.data)
    assert artefact.binary.startswith(b"\x7fELF")
    assert outcome.metrics["digest"] == artefact.digest
    assert (outcome.metrics["registers"], outcome.metrics["threads"]) == (16, 64)
    assert outcome.values == (outcome.compile_s,)
    begin, end = outcome.metrics["compile_at"]
    assert before - 0.1 <= begin < end
    assert end - begin == pytest.approx(outcome.compile_s, abs=1e-3)


def test_a_failure_has_the_compilers_text_and_no_artefact():
    attached = CompileStage(HostKernel(("no_compile",)), CPU)(
        {"behaviour": "no_compile", "block": 64, "unroll": 1}
    )
    assert attached.outcome.status == "compile_error"
    assert "error" in attached.outcome.message
    assert attached.data == b""
    assert attached.outcome.compile_s > 0


def test_a_launch_that_cannot_fit_is_refused_and_its_resources_are_kept():
    attached = CompileStage(HostKernel(), CPU)({"behaviour": "ok", "block": 256, "unroll": 1})
    assert attached.outcome.status == "resource_exceeded"
    assert attached.outcome.metrics["threads"] == 256
    assert attached.data == b""


def test_a_value_that_does_not_fit_is_the_candidates_fault_and_a_missing_compiler_is_not():
    def wrong(config):
        raise ConfigurationError("`grid` gave 0")

    def missing(config):
        raise UnsupportedError("nvcc was not found")

    assert CompileStage(Made(wrong), CPU)({"x": 1}).outcome.status == "compile_error"
    with pytest.raises(UnsupportedError, match="nvcc"):
        CompileStage(Made(missing), CPU)({"x": 1})


def test_temporary_files_go_to_the_runs_folder(tmp_path):
    def make(config):
        return Artefact(b"", meta={"where": tempfile.mkdtemp()})

    before = tempfile.gettempdir()
    attached = CompileStage(Made(make), CPU, tmp_path / "work")({"x": 1})
    assert Path(Artefact.from_bytes(attached.data).meta["where"]).parent == tmp_path / "work"
    assert tempfile.gettempdir() == before


def test_keep_asks_for_the_texts():
    config = {"behaviour": "ok", "block": 64, "unroll": 1}
    kept = CompileStage(HostKernel(), CPU, keep=True)(config)
    assert "kernel.c" in Artefact.from_bytes(kept.data).files
    assert Artefact.from_bytes(CompileStage(HostKernel(), CPU)(config).data).files == {}


def test_in_a_pool_artefacts_arrive_attached_to_reports(tmp_path):
    stage = CompileStage(HostKernel(), CPU, tmp_path / "work")
    with contextlib.closing(NativePool(stage, num_workers=2)) as pool:
        for unroll in (1, 2):
            pool.submit(Task(str(unroll), {"behaviour": "ok", "block": 64, "unroll": unroll}))
        reports = []
        while len(reports) < 2:
            reports += pool.poll(30)
    # the two compile to the same binary
    digests = {Artefact.from_bytes(report.attached).digest for report in reports}
    assert len(digests) == 1
    assert all(report.outcome.ok and report.pid != os.getpid() for report in reports)


def test_it_can_be_sent_to_a_process():
    stage = pickle.loads(Pickler(CompileStage(HostKernel(), CPU)).function)
    assert stage({"behaviour": "ok", "block": 16, "unroll": 1}).outcome.ok


def test_resources_that_are_not_known_refuse_nothing():
    made = Made(lambda config: Artefact(b"x", Resources()))
    assert CompileStage(made, Target(90, max_threads=1, max_shared=1, max_registers=1))({"x": 1}).outcome.ok
