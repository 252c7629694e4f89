import math
from types import SimpleNamespace

import numpy as np
import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.evidence import Evidence
from ciq_ray.gpu.host import HostRuntime
from ciq_ray.kernels import LIBRARY, CommandKernel, Target
from ciq_ray.kernels.bench import Bench, figures
from ciq_ray.kernels.jobs import CANDIDATE, WINDOW, Job, TimingOptions
from searchers import Choice
from tests.ciq_ray.kernels.host_kernel import HostKernel, Line

BEHAVIOURS = ("ok", "wrong", "nan", "nothing", "late", "stray", "no_load", "raises", "slow")
QUICK = TimingOptions(budget_ms=2.0, warmup_ms=1.0, min_samples=3, window_ms=2.0)


class Counted(HostKernel):
    """Counts what it is asked for."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.loads = 0
        self.seeds = []
        self.launches = 0

    def load(self, artefact, config, runtime, workload):
        self.loads += 1
        launch = super().load(artefact, config, runtime, workload)

        def counted():
            self.launches += 1
            launch()

        return counted

    def workload(self, runtime, shape, seed):
        self.seeds.append((shape, seed))
        return super().workload(runtime, shape, seed)


class Timed:
    """A kernel, its bench, and jobs for both."""

    def __init__(self, kernel=None, options=QUICK, **others):
        self.kernel = kernel or Counted(BEHAVIOURS)
        self.bench = Bench(self.kernel, HostRuntime(1 << 16), options=options, **others)

    def __call__(self, behaviour="ok", kind=CANDIDATE, control=None, block=64, **options):
        config = {"behaviour": behaviour, "block": block, "unroll": 1}
        artefact = self.kernel.compile(config, Target(0))
        return self.bench.evaluate(Job(kind, config, artefact.to_bytes(), **options), artefact, control)


@pytest.fixture(scope="module")
def timed():
    return Timed()


def test_a_right_kernel_has_a_time_and_what_is_behind_it(timed):
    outcome = timed()
    timing = outcome.metrics["timing"][""]
    assert outcome.values == (timing["median_ms"],)
    assert timing["median_ms"] == pytest.approx(np.median(timing["samples_ms"]))
    assert outcome.spread == pytest.approx((timing["spread_ms"],))
    assert outcome.samples == len(timing["samples_ms"]) >= 3
    assert (outcome.metrics["registers"], outcome.metrics["threads"]) == (16, 64)
    seconds = outcome.values[0] / 1e3
    assert outcome.metrics["tflops"] == pytest.approx(2 * 4096 / seconds / 1e12)
    assert outcome.metrics["gbs"] == pytest.approx(16 * 4096 / seconds / 1e9)
    assert "peak_percent" not in outcome.metrics  # of the CPU no peak is known


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("wrong", "1 of 4096 element differs, the worst at (7)"),
        ("nan", "nan instead of"),
        ("nothing", "4096 of 4096"),
        ("late", "right at first, wrong after it was timed"),
        ("stray", "right at first, wrong after it was timed"),
    ],
)
def test_wrong_is_a_status_and_spoils_nothing_for_the_next(timed, behaviour, said):
    outcome = timed(behaviour)
    assert outcome.status == "wrong"
    assert said in outcome.message
    assert outcome.values == ()
    assert outcome.metrics["registers"] == 16
    assert timed().ok


def test_a_failure_of_the_kernels_own_keeps_its_status(timed):
    outcome = timed("no_load")
    assert (outcome.status, outcome.metrics["threads"]) == ("resource_exceeded", 64)
    with pytest.raises(ValueError, match="no such grid"):
        timed("raises")


def test_a_right_kernel_is_not_blamed_for_spoiled_arrays():
    timed = Timed()
    assert timed().ok
    for workload in timed.bench._workloads.values():
        workload.x += 1  # as an earlier kernel may, out of its bounds
        workload.kept += 1
    assert timed().ok
    assert timed.kernel.seeds == 2 * [(4096, 0), (4096, 1)]


def test_both_seeds_are_checked_and_arrays_and_binaries_are_kept():
    timed = Timed()
    timed()
    assert timed.kernel.seeds == [(4096, 0), (4096, 1)]
    assert timed.kernel.loads == 2
    timed()
    assert timed.kernel.loads == 2
    timed(block=32)
    assert timed.kernel.seeds == [(4096, 0), (4096, 1)]
    assert timed.kernel.loads == 4


def test_other_seeds_can_be_chosen():
    timed = Timed(options=TimingOptions(budget_ms=1.0, warmup_ms=1.0, min_samples=3, seeds=(5, 6, 7)))
    timed()
    assert [seed for _, seed in timed.kernel.seeds] == [5, 6, 7]


def test_windows_check_only_what_was_not_checked_in_this_process():
    timed = Timed()
    assert timed("wrong", WINDOW).status == "wrong"
    assert timed(kind=WINDOW).ok
    loaded = timed.kernel.loads
    outcome = timed(kind=WINDOW)
    assert outcome.ok
    assert timed.kernel.loads == loaded
    total = sum(outcome.metrics["timing"][""]["samples_ms"])
    assert 0 < total < 50 * QUICK.window_ms


def test_windows_check_every_shape_with_every_seed():
    timed = Timed(Counted(("ok",), {"small": 1024, "large": 2048}))
    assert timed(kind=WINDOW).ok
    assert timed.kernel.seeds == [(1024, 0), (1024, 1), (2048, 0), (2048, 1)]


def test_in_a_window_nobody_is_blamed_for_what_another_did_to_the_arrays():
    timed = Timed()
    assert timed(kind=WINDOW).ok
    for workload in timed.bench._workloads.values():
        workload.kept += 1  # as the one between two windows may, out of its bounds
    assert timed(kind=WINDOW).ok
    assert timed("late", WINDOW).status == "wrong"


def test_several_shapes_are_scored_by_their_ratios_to_the_control():
    shapes = {"small": 1024, "large": 1 << 16}
    timed = Timed(Counted(("ok", "wrong"), shapes))
    control = timed()
    medians = {name: timing["median_ms"] for name, timing in control.metrics["timing"].items()}
    assert set(medians) == set(shapes)
    assert control.values[0] == pytest.approx(math.sqrt(medians["small"] * medians["large"]))
    given = {"small": 1.0, "large": 4.0}
    outcome = timed(block=32, control=given)
    times = {name: timing["median_ms"] for name, timing in outcome.metrics["timing"].items()}
    assert outcome.values[0] == pytest.approx(math.sqrt(times["small"] * times["large"] / 4.0))
    assert outcome.samples == sum(len(t["samples_ms"]) for t in outcome.metrics["timing"].values())
    relative = [t["spread_ms"] / t["median_ms"] for t in outcome.metrics["timing"].values()]
    assert outcome.spread[0] == pytest.approx(outcome.values[0] * math.hypot(*relative) / 2)
    wrong = timed("wrong")
    assert wrong.message.startswith("shape small: ")


def test_the_library_is_timed_without_a_check():
    timed = Timed()
    outcome = timed.bench.evaluate(Job(CANDIDATE, LIBRARY), None, None)
    assert outcome.ok
    assert "digest" not in outcome.metrics
    timed.kernel.library = lambda runtime, workload: None
    again = timed.bench.evaluate(Job(WINDOW, LIBRARY), None, None)
    assert again.ok  # made once
    timed.bench._forget("")
    none = timed.bench.evaluate(Job(CANDIDATE, LIBRARY), None, None)
    assert (none.status, "`library`" in none.message) == ("invalid_result", True)


def test_a_clearly_slower_kernel_is_let_go():
    timed = Timed(options=TimingOptions(budget_ms=200.0, warmup_ms=1.0, noise=1e-9))
    outcome = timed("slow", slower_than_ms=0.01)
    assert outcome.metrics["timing"][""]["stopped"] == "slower"


class Hot:
    """A watcher of a device that is always too hot."""

    def __init__(self, spoiled="HwThermal"):
        self.spoiled = spoiled

    def begin(self):
        pass

    def sample(self):
        pass

    def end(self):
        return Evidence(1200.0, 2619.0, 650.0, 84.0, 0x40, self.spoiled)


def test_a_device_that_slows_itself_down_is_not_the_candidates_fault():
    options = TimingOptions(budget_ms=1.0, warmup_ms=1.0, min_samples=3, retries=0)
    outcome = Timed(options=options, watcher=Hot())()
    assert outcome.status == "throttled"
    assert outcome.metrics["registers"] == 16


def test_clocks_power_and_temperature_are_in_the_record():
    outcome = Timed(watcher=Hot(""))()
    found = {name: outcome.metrics[name] for name in ("sm_mhz", "power_w", "temp_c")}
    assert found == {"sm_mhz": 1200.0, "power_w": 650.0, "temp_c": 84.0}


def test_preparing_reads_versions_and_what_was_measured_before_is_used():
    timed = Timed()
    prepared = timed.bench.prepare()
    assert prepared["peaks"] == {}
    assert {"python", "numpy"} <= set(prepared["versions"])
    timed.bench.set_prepared({**prepared, "peaks": {"tflops": 1.0, "gbs": 10.0}})
    outcome = timed()
    at_peak_ms = max(2 * 4096 / 1e12, 16 * 4096 / 1e10) * 1e3
    assert outcome.metrics["peak_percent"] == pytest.approx(100 * at_peak_ms / outcome.values[0])
    assert timed.bench.prepare()["peaks"] == {"tflops": 1.0, "gbs": 10.0}


def test_the_canary_gives_the_known_answer(timed, monkeypatch):
    assert timed.bench.canary() is True
    runtime = HostRuntime(1 << 16)
    broken = Bench(timed.kernel, runtime, options=QUICK)
    monkeypatch.setattr(runtime, "copy", lambda array: array.copy() + 1)
    assert broken.canary() is False


def test_arrays_stay_as_far_as_there_is_memory(monkeypatch):
    shapes = {str(size): size for size in (1024, 2048, 4096)}
    timed = Timed(Counted(("ok",), shapes))
    for _ in range(2):
        assert timed().ok
    assert len(timed.kernel.seeds) == 6
    monkeypatch.setattr(Line, "nbytes", 1 << 20, raising=False)
    tight = Timed(Counted(("ok",), shapes))
    tight.bench._most_bytes = 3 << 20
    assert tight().ok
    assert len(tight.kernel.seeds) == 6
    assert [shape for shape, _ in tight.bench._workloads] == ["2048", "4096", "4096"]
    assert {key[1] for key in tight.bench._loaded} == {"2048", "4096"}


@pytest.mark.parametrize(
    ("flops", "moved", "peaks", "percent"),
    [
        ({"": 1e9}, {"": 1e6}, {"tflops": 2.0, "gbs": 1.0}, 100.0),  # 1 ms: memory
        ({"": 1e9}, {"": 1e6}, {"tflops": 1.0, "gbs": 100.0}, 100.0),  # 1 ms: computing
        ({"": 1e9}, {}, {"tflops": 10.0, "gbs": 1.0}, 10.0),
        ({"": 1e9}, {}, {}, None),
        ({"": 1e9}, {"": 1e6}, {"gbs": 1.0}, None),  # of a type without a matrix product: who knows its limit
        ({"": 1e9}, {}, {"gbs": 1.0}, None),
        ({}, {}, {"tflops": 1.0}, None),
    ],
)
def test_the_share_of_the_peak_is_that_of_the_roofline(flops, moved, peaks, percent):
    kernel = SimpleNamespace(flops=flops, bytes=moved)
    found = figures(kernel, {"": 1.0}, peaks)
    assert found.get("peak_percent") == (percent if percent is None else pytest.approx(percent))
    assert ("tflops" in found, "gbs" in found) == (bool(flops), bool(moved))


def test_the_share_of_several_shapes_adds_up_what_limits_each():
    kernel = SimpleNamespace(flops={"a": 1e9, "b": 1e9}, bytes={"a": 1e6, "b": 4e6})
    # a: 1 ms of computing, b: 2 ms of memory, of 4 and 8 ms
    found = figures(kernel, {"a": 4.0, "b": 8.0}, {"tflops": 1.0, "gbs": 2.0})
    assert found["peak_percent"] == pytest.approx(100 * 3 / 12)
    assert found["tflops"] == pytest.approx(2e9 / 12e-3 / 1e12)
    assert found["gbs"] == pytest.approx(5e6 / 12e-3 / 1e9)


def test_times_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="above 0"):
        figures(SimpleNamespace(flops={}, bytes={}), {"": 0.0}, {})


def test_a_command_measures_itself(tmp_path):
    kernel = CommandKernel(None, "echo {x}", space={"x": Choice([1, 2])}, directory=tmp_path, needs_gpu=False)
    bench = Bench(kernel, HostRuntime(1 << 16), options=QUICK)
    artefact = kernel.compile({"x": 2}, Target(0))
    outcome = bench.evaluate(Job(CANDIDATE, {"x": 2}, artefact.to_bytes()), artefact, None)
    assert (outcome.values, outcome.metrics["digest"]) == ((2.0,), artefact.digest)
    none = bench.evaluate(Job(CANDIDATE, LIBRARY), None, None)
    assert (none.status, none.message) == ("invalid_result", "CommandKernel has no `library`")
