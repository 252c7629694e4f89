"""The owner of a device with real children that run real, hostile kernels on the CPU."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.gpu.clocks import Clocks
from ciq_ray.gpu.devices import Device, devices
from ciq_ray.gpu.nvml import NvmlError
from ciq_ray.gpu.timing import Throttled
from ciq_ray.kernels.jobs import Job, TimingOptions
from ciq_ray.kernels.protocol import LIBRARY, Artefact, Target
from ciq_ray.kernels.timing_child import is_sticky, outcome_of
from ciq_ray.kernels.timing_stage import TimingStage
from ciq_ray.settings import ENV_VISIBLE_DEVICES
from ciq_ray.worker.protocol import Report, Task
from ciq_ray.worker.slots import NativePool
from searchers.outcome import Outcome
from tests.ciq_ray.kernels.host_kernel import BEHAVIOURS, HostKernel
from tests.fake_nvml import FakeMachine

OPTIONS = TimingOptions(
    budget_ms=5, warmup_ms=5, flush=False, run_timeout=20, start_timeout=60, control_every=1000, noise=0.05
)
KERNEL = HostKernel(BEHAVIOURS)
_compiled: dict[tuple[str, int], bytes] = {}


def config(behaviour: str, block: int = 64) -> dict[str, Any]:
    return {"behaviour": behaviour, "block": block, "unroll": 1}


def artefact(behaviour: str, block: int = 64) -> bytes:
    """What gcc makes of it, once for each."""
    key = (behaviour, block)
    if key not in _compiled:
        _compiled[key] = KERNEL.compile(config(behaviour, block), Target(0)).to_bytes()
    return _compiled[key]


def job(behaviour: str, block: int = 64, **options: Any) -> Job:
    return Job(
        **{
            "kind": "candidate",
            "config": config(behaviour, block),
            **options,
            "artefact": artefact(behaviour, block),
        }
    )


Make = Callable[..., TimingStage]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes stages; afterwards their children are gone, with all they started."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with contextlib.ExitStack() as stack:

        def stage(kernel: Any = KERNEL, measuring: Any = None, **options: Any) -> TimingStage:
            made = TimingStage(kernel, None, replace(OPTIONS, **options), measuring=measuring)
            stack.enter_context(made.hold())
            return made

        yield stage
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert left == []


def child_of(stage: TimingStage) -> int | None:
    return None if stage._child is None else stage._child.pid


class TestCandidates:
    def test_a_right_one_is_timed(self, make: Make) -> None:
        outcome = make()(job("ok"))
        assert outcome.ok, outcome.message
        (value,) = outcome.values
        timing = outcome.metrics["timing"][""]
        assert value == timing["median_ms"] > 0
        assert outcome.samples == len(timing["samples_ms"]) >= 3
        assert outcome.metrics["threads"] == 64
        assert outcome.metrics["digest"] == Artefact.from_bytes(artefact("ok")).digest
        begin, end = outcome.metrics["gpu_at"]
        assert begin < end <= time.time()
        assert outcome.run_s == pytest.approx(end - begin)
        json.dumps(outcome.to_dict())

    @pytest.mark.parametrize(
        ("behaviour", "status", "text"),
        [
            ("no_load", "resource_exceeded", "512 KiB"),
            ("raises", "run_error", "ValueError: no such grid"),
            ("wrong", "wrong", "1 of 4096"),
            ("nan", "wrong", "nan instead of"),
            ("nothing", "wrong", "4096 of 4096"),
            ("constant", "wrong", "seed 1"),
            ("late", "wrong", "1 of 4096"),
            ("stray", "wrong", "4096"),
            ("segfault", "run_error", "killed by SIGSEGV"),
            ("killed", "run_error", "killed by SIGKILL"),
            ("exits", "run_error", "exited with code 3"),
            ("sticky", "run_error", "illegal memory access"),
            ("family", "ok", ""),
            ("flood", "ok", ""),
        ],
    )
    def test_each_failure_has_its_status_and_the_next_one_is_fine(
        self, make: Make, behaviour: str, status: str, text: str
    ) -> None:
        stage = make()
        outcome = stage(job(behaviour))
        assert (outcome.status, text in outcome.message) == (status, True), outcome.message
        after = stage(job("ok"))
        assert after.ok, after.message

    @pytest.mark.parametrize("behaviour", ["hang", "deaf"])
    def test_a_hang_is_ended_at_the_limit(self, make: Make, behaviour: str) -> None:
        stage = make(run_timeout=0.7)
        begun = time.monotonic()
        outcome = stage(job(behaviour))
        assert (outcome.status, "longer than 0.7 s" in outcome.message) == ("run_timeout", True)
        assert time.monotonic() - begun < 15
        stage.options = OPTIONS
        assert stage(job("ok")).ok

    def test_what_is_no_artefact(self, make: Make) -> None:
        outcome = make()(replace(job("ok"), artefact=b"junk"))
        assert (outcome.status, "not an artefact" in outcome.message) == ("run_error", True)

    def test_the_library(self, make: Make) -> None:
        outcome = make()(Job("candidate", LIBRARY))
        assert outcome.ok, outcome.message
        assert outcome.metrics["timing"][""]["median_ms"] > 0

    def test_several_shapes_score_by_their_ratios_to_the_control(self, make: Make) -> None:
        stage = make(HostKernel(shapes={"small": 1000, "large": 60_000}))
        control = {"control": artefact("ok", 16), "control_config": config("ok", 16)}
        outcome = stage(job("ok", **control))
        assert outcome.ok, outcome.message
        assert set(outcome.metrics["timing"]) == {"small", "large"}
        # 10 passes against 30
        assert 0.05 < outcome.values[0] < 0.95

    def test_a_window_has_its_length(self, make: Make) -> None:
        outcome = make(window_ms=8.0)(replace(job("ok"), kind="window"))
        assert outcome.ok, outcome.message
        assert outcome.metrics["timing"][""]["stopped"] in ("budget", "samples")


class TestChild:
    def test_is_the_same_as_long_as_it_lives(self, make: Make) -> None:
        stage = make()
        children = set()
        for behaviour in ("ok", "wrong", "raises", "no_load", "ok"):
            stage(job(behaviour))
            children.add(child_of(stage))
        assert len(children) == 1

    @pytest.mark.parametrize("behaviour", ["segfault", "sticky"])
    def test_is_another_after_its_death_and_after_a_lost_context(self, make: Make, behaviour: str) -> None:
        stage = make()
        stage(job("ok"))
        before = child_of(stage)
        stage(job(behaviour))
        stage(job("ok"))
        assert child_of(stage) != before

    def test_is_another_for_a_fresh_one(self, make: Make) -> None:
        stage = make()
        stage(job("ok"))
        before = child_of(stage)
        assert stage(job("ok", fresh=True)).ok
        assert child_of(stage) not in (None, before)

    def test_that_died_with_nothing_to_do_is_nobodys_fault(self, make: Make) -> None:
        stage = make()
        stage(job("ok"))
        child = child_of(stage)
        assert child is not None
        os.kill(child, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(child)], timeout=0.1)
        assert stage(job("ok")).ok

    def test_sees_what_a_stage_is_pickled_with(self) -> None:
        stage = pickle.loads(pickle.dumps(TimingStage(KERNEL, None, OPTIONS)))
        with stage.hold():
            assert stage(job("ok")).ok


class Scripted:
    """In place of the bench: answers by a script that survives the child's death, in a file."""

    def __init__(self, kernel: Any, runtime: Any, *, options: TimingOptions) -> None:
        self.folder = Path(os.environ["TEST_SCRIPT"])

    def prepare(self) -> Mapping[str, Any]:
        self.note("prepare")
        return {"peaks": {"gbs": 3.0}}

    def set_prepared(self, prepared: Mapping[str, Any]) -> None:
        self.note(f"prepared {dict(prepared)}")

    def canary(self) -> bool:
        self.note("canary")
        return not (self.folder / "broken").exists()

    def evaluate(self, job: Job, artefact: Artefact | None, control: Mapping[str, float] | None) -> Outcome:
        what, *arguments = job.config
        self.note(f"{what} {control}")
        if what == "die":
            os._exit(1)
        if what == "once" and self.count("once") == 1:
            return Outcome("run_error", message="spoiled")
        if what == "fail":
            return Outcome(*arguments)
        if what == "see":
            return Outcome("run_error", message=os.environ[arguments[0]])
        if what == "clock":
            return Outcome("ok", (1.0,), metrics={"sm_mhz": arguments[0]})
        if what == "rise":  # each time slower, up to a limit
            return self.timed(min(float(arguments[1]), arguments[0] ** self.count("rise")))
        return self.timed(float(arguments[0]))

    def timed(self, ms: float) -> Outcome:
        return Outcome("ok", (ms,), metrics={"timing": {"": {"median_ms": ms}}})

    def note(self, line: str) -> None:
        with (self.folder / "notes").open("a") as file:
            file.write(line + "\n")

    def count(self, what: str) -> int:
        return sum(line.startswith(what) for line in (self.folder / "notes").read_text().splitlines())


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the scripted bench was asked, in order."""
    monkeypatch.setenv("TEST_SCRIPT", str(tmp_path))
    return lambda: (tmp_path / "notes").read_text().splitlines()


EMPTY = Artefact(b"").to_bytes()


def scripted(*what: Any, control: tuple[Any, ...] | None = None, **options: Any) -> Job:
    if control is None:
        return Job("candidate", what, **options)
    return Job("candidate", what, control=EMPTY, control_config=control, **options)


class TestControl:
    def test_is_measured_first_and_then_when_it_is_due(
        self, make: Make, notes: Callable[[], list[str]]
    ) -> None:
        stage = make(measuring=Scripted, control_every=3)
        for number in range(5):
            outcome = stage(scripted("take", number + 1, control=("base", 2.0)))
            assert (outcome.values, outcome.metrics["control_ms"]) == ((number + 1.0,), 2.0)
        take, base = "take {'': 2.0}", "base None"
        assert notes() == [base, take, take, take, base, take, take]

    def test_is_measured_for_a_new_generation(self, make: Make, notes: Callable[[], list[str]]) -> None:
        stage = make(measuring=Scripted)
        for generation in (0, 0, 1, 0, 1, 2):
            stage(scripted("take", 1, control=("base", 2.0), generation=generation))
        asked = " ".join(line.split()[0] for line in notes())
        assert asked == "base take take base take take take base take"

    def test_none_is_measured_without_one(self, make: Make, notes: Callable[[], list[str]]) -> None:
        outcome = make(measuring=Scripted)(scripted("take", 1))
        assert "control_ms" not in outcome.metrics
        assert notes() == ["take None"]

    def test_is_measured_again_when_it_has_drifted(self, make: Make, notes: Callable[[], list[str]]) -> None:
        stage = make(measuring=Scripted, control_every=1)
        stage(scripted("take", 1, control=("base", 1.0)))
        # 1.1, 1.1 ** 2, ... up to 1.2: beyond 3% of 1.0 each time, and that is noted
        outcome = stage(scripted("take", 1, control=("rise", 1.1, 1.2)))
        assert [line.split()[0] for line in notes()].count("rise") == 4
        assert outcome.metrics["control_drift"] == pytest.approx(0.2)
        assert outcome.metrics["control_ms"] == pytest.approx(1.2)
        # what it has drifted to is what later ones are compared with
        outcome = stage(scripted("take", 1, control=("rise", 1.1, 1.2)))
        assert [line.split()[0] for line in notes()].count("rise") == 5
        assert "control_drift" not in outcome.metrics

    def test_drift_within_the_limit_is_nothing(self, make: Make, notes: Callable[[], list[str]]) -> None:
        stage = make(measuring=Scripted, control_every=1)
        stage(scripted("take", 1, control=("base", 1.0)))
        outcome = stage(scripted("take", 1, control=("base", 1.02)))
        assert "control_drift" not in outcome.metrics
        assert len(notes()) == 4

    def test_that_fails_is_told_and_the_candidate_goes_on(
        self, make: Make, notes: Callable[[], list[str]]
    ) -> None:
        stage = make(measuring=Scripted)
        outcome = stage(scripted("take", 1, control=("die",)))
        assert outcome.ok
        assert "exited with code 1" in outcome.metrics["control_failed"]
        assert "control_ms" not in outcome.metrics
        # once more in a new process, since the fault may have been the old one's
        assert notes() == ["die None", "canary", "die None", "canary", "take None"]

    def test_that_fails_for_what_ran_before_it_is_none_the_worse(
        self, make: Make, notes: Callable[[], list[str]]
    ) -> None:
        stage = make(measuring=Scripted)
        outcome = stage(scripted("take", 1, control=("once", 2.0)))
        assert outcome.metrics["control_ms"] == 2.0
        assert "control_failed" not in outcome.metrics
        assert notes() == ["once None", "canary", "once None", "take {'': 2.0}"]

    def test_none_is_used_by_a_job_without_one(self, make: Make, notes: Callable[[], list[str]]) -> None:
        stage = make(measuring=Scripted)
        stage(scripted("take", 1, control=("base", 2.0)))
        outcome = stage(scripted("take", 1))  # a window of the race
        assert notes()[-1] == "take None"
        assert "control_ms" not in outcome.metrics

    def test_that_was_throttled_says_nothing_about_the_candidate(
        self, make: Make, notes: Callable[[], list[str]]
    ) -> None:
        stage = make(measuring=Scripted)
        assert stage(scripted("take", 1, control=("fail", "throttled"))).status == "throttled"
        assert notes() == ["fail None"]
        assert stage(scripted("take", 1, control=("base", 2.0))).ok


class TestDevice:
    def test_a_canary_comes_after_a_death_only(self, make: Make, notes: Callable[[], list[str]]) -> None:
        stage = make(measuring=Scripted)
        stage(scripted("take", 1))
        stage(scripted("take", 1, fresh=True))
        assert "canary" not in notes()
        assert stage(scripted("die")).status == "run_error"
        assert stage(scripted("take", 2)).ok
        assert notes()[-2:] == ["canary", "take None"]

    def test_a_canary_that_dies_puts_the_device_in_quarantine(
        self, make: Make, notes: Callable[[], list[str]], tmp_path: Path
    ) -> None:
        stage = make(measuring=Scripted)
        stage(scripted("die"))
        (tmp_path / "broken").touch()
        outcome = stage(scripted("take", 1))
        assert (outcome.status, "canary" in outcome.message) == ("lost", True)
        assert child_of(stage) is None
        (tmp_path / "broken").unlink()
        count = len(notes())
        assert stage(scripted("take", 1)).status == "lost"  # for good
        assert len(notes()) == count

    def test_what_cannot_start_is_lost(self, make: Make) -> None:
        def broken(kernel: Any, runtime: Any, *, options: TimingOptions) -> Any:
            raise RuntimeError("no CUDA-capable device is detected")

        outcome = make(measuring=broken)(scripted("take", 1))
        assert (outcome.status, "no CUDA-capable device" in outcome.message) == ("lost", True)

    def test_that_does_not_answer_is_asked_with_a_canary(
        self, make: Make, notes: Callable[[], list[str]]
    ) -> None:
        stage = make(measuring=Scripted)
        assert stage(scripted("fail", "lost")).status == "lost"
        assert stage(scripted("take", 1)).ok
        assert notes() == ["fail None", "canary", "take None"]

    def test_a_launch_with_too_many_resources_costs_no_child(
        self, make: Make, notes: Callable[[], list[str]]
    ) -> None:
        stage = make(measuring=Scripted)
        stage(scripted("fail", "resource_exceeded"))
        before = child_of(stage)
        stage(scripted("take", 1))
        assert child_of(stage) == before

    def test_prepare_is_kept_for_later_children(self, make: Make, notes: Callable[[], list[str]]) -> None:
        stage = make(measuring=Scripted)
        outcome = stage(Job("prepare"))
        assert outcome.ok
        assert outcome.metrics["peaks"] == {"gbs": 3.0}
        stage(scripted("take", 1, fresh=True))
        assert notes() == ["prepare", "prepared {'peaks': {'gbs': 3.0}}", "take None"]

    def test_an_answer_that_is_no_outcome(self, make: Make) -> None:
        class Odd(Scripted):
            def evaluate(self, *arguments: Any) -> Any:
                return 3

        os.environ["TEST_SCRIPT"] = os.devnull
        assert make(measuring=Odd)(scripted("take", 1)).status == "invalid_result"
        del os.environ["TEST_SCRIPT"]

    def test_a_kernel_for_a_gpu_needs_one(self) -> None:
        kernel = HostKernel()
        kernel.needs_gpu = True
        with pytest.raises(ConfigurationError, match="`device` is None"):
            TimingStage(kernel, None, OPTIONS)


class TestHold:
    @pytest.fixture
    def device(self, fake_nvml: Callable[..., FakeMachine]) -> Device:
        self.machine = fake_nvml()
        return devices()[0]

    def test_a_package_that_is_missing_is_named_and_the_device_once(
        self, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        kernel = HostKernel()
        kernel.needs_gpu = True
        stage = TimingStage(kernel, device, OPTIONS)
        with stage.hold():
            outcome = stage(Job("prepare"))
        assert outcome.status == "lost"
        assert outcome.message.startswith(
            f"{device.name} ({device.uuid}) cannot be used: timing on a GPU needs torch, which is not there"
        )

    def test_its_lock_is_held_and_its_child_sees_it_alone(
        self, device: Device, notes: Callable[[], list[str]]
    ) -> None:
        stage = TimingStage(KERNEL, device, OPTIONS, measuring=Scripted)
        with stage.hold():
            other = TimingStage(KERNEL, device, replace(OPTIONS, lock_wait_s=0.0), measuring=Scripted)
            outcome = other(scripted("take", 1))
            assert (outcome.status, "is in use" in outcome.message) == ("lost", True)
            outcome = stage(scripted("see", ENV_VISIBLE_DEVICES))
            assert (outcome.status, outcome.message) == ("run_error", device.uuid)
            about = outcome.metrics["gpu"]
            assert (about["uuid"], about["name"], about["driver"]) == (
                device.uuid,
                device.name,
                device.driver,
            )
        assert child_of(stage) is None
        with stage.hold():  # nobody has it any more
            assert stage(scripted("take", 1)).ok

    def test_its_clocks_are_set_and_put_back(self, device: Device, notes: Callable[[], list[str]]) -> None:
        stage = TimingStage(KERNEL, device, replace(OPTIONS, clocks=Clocks(1410)), measuring=Scripted)
        with stage.hold():
            state = stage(scripted("take", 1)).metrics["gpu"]["clock_state"]
            assert state.startswith("locked 1410")
            # the child ends without undoing what is the owner's
            stage(scripted("die"))
            assert stage(scripted("take", 1)).metrics["gpu"]["clock_state"] == state
            assert self.machine[0].changes == ["core 1410 1410"]
        assert self.machine[0].changes == ["core 1410 1410", "core 0 0"]

    def test_a_lock_that_does_not_hold_is_told(self, device: Device, notes: Callable[[], list[str]]) -> None:
        stage = TimingStage(KERNEL, device, replace(OPTIONS, clocks=Clocks(1410)), measuring=Scripted)
        with stage.hold():
            assert "off_clock" not in stage(scripted("clock", 1411.0)).metrics["gpu"]
            assert "1200 MHz under load" in stage(scripted("clock", 1200.0)).metrics["gpu"]["off_clock"]


class TestInAPool:
    """As a search has it: the owner is a process of its own."""

    @pytest.fixture
    def pool(self) -> Iterator[NativePool]:
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        with contextlib.closing(NativePool(TimingStage(KERNEL, None, OPTIONS), num_workers=1)) as pool:
            yield pool
        children = psutil.Process().children(recursive=True)
        assert [child for child in children if child.pid not in before and is_alive(child)] == []

    def evaluate(self, pool: NativePool, *jobs: Job) -> list[Report]:
        reports = []
        for number, job in enumerate(jobs):
            pool.submit(Task(str(number), job))
            while not (found := pool.poll(1.0)):
                pass
            reports += found
        return reports

    def test_outcomes_come_back_and_nothing_is_left(self, pool: NativePool) -> None:
        reports = self.evaluate(pool, Job("prepare"), job("ok"), job("segfault"), job("family"), job("wrong"))
        statuses = [report.outcome.status for report in reports]
        assert statuses == ["ok", "ok", "run_error", "ok", "wrong"], [r.outcome.message for r in reports]
        assert len({report.pid for report in reports}) == 1  # the owner lives on
        assert reports[1].outcome.metrics["timing"][""]["samples_ms"]

    def test_the_end_of_the_owner_is_its_childs(self, pool: NativePool) -> None:
        (report,) = self.evaluate(pool, job("ok"))
        assert report.pid is not None
        owner = psutil.Process(report.pid)
        (child,) = owner.children()
        pool.submit(Task("hang", job("deaf")))
        owner.kill()
        _, left = psutil.wait_procs([child], timeout=30)
        assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def is_alive(process: psutil.Process) -> bool:
    """Zombies are not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


class TestReading:
    @pytest.mark.parametrize(
        "text",
        [
            "RuntimeError: CUDA error: an illegal memory access was encountered",
            "CUDA_ERROR_MISALIGNED_ADDRESS",
            "unspecified launch failure",
            "an illegal instruction was encountered",
            "device-side assert triggered",
            "uncorrectable ECC error encountered",
            "CUDA error: something new",
        ],
    )
    def test_errors_that_lose_a_context(self, text: str) -> None:
        assert is_sticky(text)

    @pytest.mark.parametrize("text", ["no such grid", "ValueError: SECCOMP", "12 elements differ"])
    def test_errors_that_do_not(self, text: str) -> None:
        assert not is_sticky(text)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("CUDA error: too many resources requested for launch"),
            RuntimeError("out of resource: shared memory, Required: 262144, Hardware limit: 232448"),
            RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        ],
    )
    def test_a_lack_of_resources(self, error: Exception) -> None:
        assert outcome_of(error).status == "resource_exceeded"

    def test_a_driver_that_does_not_answer(self) -> None:
        assert outcome_of(NvmlError("lost", "nvmlDeviceGetClockInfo", "GPU is lost")).status == "lost"

    def test_an_exception_with_a_status_of_its_own(self) -> None:
        assert outcome_of(ObjectiveFailure("wrong", "no")).status == "wrong"
        assert outcome_of(Throttled("hot")).status == "throttled"
        assert outcome_of(ObjectiveFailure("ok", "no")).status == "run_error"


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("budget_ms", 0),
            ("min_samples", 0),
            ("noise", -1),
            ("max_samples", 5),
            ("seeds", ()),
            ("run_timeout", -1),
        ],
    )
    def test_are_checked(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"`{name}`"):
            TimingOptions(**{name: value})
