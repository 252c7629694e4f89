from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.evidence import Watcher
from ciq_ray.gpu.host import HostRuntime
from ciq_ray.gpu.timing import Throttled, Timing, measure, spread_of
from tests.ciq_ray.gpu.simulated import (
    HotRuntime,
    SimulatedRuntime,
    SimulatedWatcher,
    bursts,
    heavy_tailed,
    noisy,
    steady,
)
from tests.fake_nvml import FakeMachine


def timed(runtime: SimulatedRuntime, **options: Any) -> Timing:
    return measure(runtime.launch, runtime=runtime, clock=runtime.clock, sleep=runtime.sleep, **options)


class TestWarmUp:
    def test_goes_on_until_two_batches_agree(self) -> None:
        # each launch is 5% faster than the one before, until the 20th
        runtime = SimulatedRuntime(lambda number, rng: 200 * 1.05 ** max(0, 20 - number))
        timing = timed(runtime)
        assert timing.samples_ms == (0.2,) * 10
        assert timing.warmup >= 20

    def test_is_one_full_run_and_two_batches_at_least(self) -> None:
        assert timed(SimulatedRuntime(steady(200))).warmup == 11

    def test_ends_at_its_limit(self) -> None:
        runtime = SimulatedRuntime(noisy(1000, 0.5))
        begun = runtime.clock()
        timing = timed(runtime, warmup_ms=20, budget_ms=1, min_samples=1, noise=0)
        assert timing.warmup < 60
        assert runtime.clock() - begun < 0.04

    def test_what_a_library_does_at_its_first_call_is_not_the_warm_up(self) -> None:
        # 400 ms, then each launch 5% faster than the one before, until the 20th
        runtime = SimulatedRuntime(lambda number, rng: 200 * 1.05 ** max(0, 20 - number) + 4e5 * (not number))
        assert timed(runtime).samples_ms == (0.2,) * 10

    def test_a_slow_kernel_is_launched_one_at_a_time(self) -> None:
        timing = timed(SimulatedRuntime(steady(40_000)))
        assert timing.warmup == 3

    def test_what_is_very_slow_is_not_warmed_up_for(self) -> None:
        runtime = SimulatedRuntime(lambda number, rng: 40_000 * 0.9**number)
        assert timed(runtime, slower_than_ms=1.0).warmup == 2


class TestStopping:
    def test_noise(self) -> None:
        timing = timed(SimulatedRuntime(noisy(200, 0.02)), noise=0.005, budget_ms=1000)
        assert timing.stopped == "noise"
        error = 1.2533 * timing.spread_ms / len(timing.samples_ms) ** 0.5
        assert error <= 0.005 * timing.median_ms
        assert 10 <= len(timing.samples_ms) < 100

    def test_less_noise_needs_fewer_samples(self) -> None:
        counts = [
            len(timed(SimulatedRuntime(noisy(200, relative)), noise=0.004, budget_ms=1000).samples_ms)
            for relative in (0.001, 0.02, 0.04)
        ]
        assert counts == sorted(counts)
        assert counts[0] == 10
        assert counts[2] > 2 * counts[1]

    def test_budget(self) -> None:
        runtime = SimulatedRuntime(noisy(400, 0.3))
        timing = timed(runtime, noise=0.0001, budget_ms=50)
        assert timing.stopped == "budget"
        assert 90 <= len(timing.samples_ms) <= 125  # of 460 us each, flush included

    def test_a_window_has_its_length_whatever_the_noise(self) -> None:
        timing = timed(SimulatedRuntime(steady(200)), noise=0, budget_ms=20, min_samples=3)
        assert timing.stopped == "budget"
        assert 20 <= len(timing.samples_ms) * 0.26 <= 26

    def test_most_samples(self) -> None:
        timing = timed(SimulatedRuntime(noisy(200, 0.3)), noise=0.0001, max_samples=23)
        assert timing.stopped == "samples"
        assert len(timing.samples_ms) == 23

    def test_a_very_slow_kernel_is_let_off_with_three(self) -> None:
        timing = timed(SimulatedRuntime(noisy(100_000, 0.2)), budget_ms=50)
        assert timing.stopped == "budget"
        assert len(timing.samples_ms) == 3

    @pytest.mark.parametrize(("us", "most"), [(400, 10), (260, 10)])
    def test_clearly_slower(self, us: float, most: int) -> None:
        runtime = SimulatedRuntime(noisy(us, 0.01))
        timing = timed(runtime, slower_than_ms=0.24, noise=1e-6, budget_ms=1e6)
        assert timing.stopped == "slower"
        assert len(timing.samples_ms) <= most

    def test_what_is_a_little_faster_is_measured_to_the_end(self) -> None:
        for seed in range(200):
            runtime = SimulatedRuntime(noisy(240, 0.02), seed=seed)
            assert timed(runtime, slower_than_ms=0.247).stopped != "slower"


class TestMedian:
    @pytest.mark.parametrize("relative", [0.002, 0.02, 0.1])
    def test_is_not_biased_by_the_stop_rule(self, relative: float) -> None:
        medians = [
            timed(SimulatedRuntime(noisy(200, relative), seed=seed), noise=0.01).median_ms
            for seed in range(300)
        ]
        error = np.std(medians) / len(medians) ** 0.5
        assert abs(np.mean(medians) - 0.2) < 4 * error
        assert np.std(medians) < 0.015 * 0.2  # the noise asked for, or the budget's

    def test_and_its_error_is_about_what_was_asked_for(self) -> None:
        medians = [
            timed(SimulatedRuntime(noisy(200, 0.1), seed=seed), noise=0.01, budget_ms=1e6).median_ms
            for seed in range(200)
        ]
        assert 0.005 < np.std(medians) / 0.2 < 0.015

    def test_tails_do_not_move_it(self) -> None:
        medians, means = [], []
        for seed in range(100):
            timing = timed(SimulatedRuntime(heavy_tailed(200), seed=seed), noise=0.005)
            medians.append(timing.median_ms)
            means.append(np.mean(timing.samples_ms))
        assert abs(np.median(medians) / 0.2 - 1) < 0.005
        assert np.mean(means) > 1.2 * 0.2  # they are there

    def test_spread_is_the_standard_deviation_of_a_normal_distribution(self) -> None:
        samples = np.random.default_rng(0).normal(10.0, 0.5, 20_000).tolist()
        assert spread_of(samples) == pytest.approx(0.5, rel=0.03)
        assert spread_of([*samples, 1e9]) == pytest.approx(0.5, rel=0.03)

    def test_drift_shows_in_the_samples(self) -> None:
        runtime = SimulatedRuntime(lambda number, rng: 200 * (1 + number / 1000))
        timing = timed(runtime, noise=0, budget_ms=20)
        assert list(timing.samples_ms) == sorted(timing.samples_ms)  # in the order taken


class TestTimers:
    def test_a_cold_launch_pays_for_the_cold_cache(self) -> None:
        assert timed(SimulatedRuntime(steady(200), cold_us=80)).median_ms == pytest.approx(0.28)
        warm = timed(SimulatedRuntime(steady(200), cold_us=80), flush=False)
        assert (warm.median_ms, warm.regime) == (pytest.approx(0.2), "warm")

    def test_launching_slowly_does_not_count(self) -> None:
        timing = timed(SimulatedRuntime(steady(200), launch_us=40))
        assert (timing.median_ms, timing.blocked) == (pytest.approx(0.2), False)

    def test_a_short_kernel_gets_a_blocking_one_in_front(self) -> None:
        # without it the device would wait for each launch: 60 us of flush are over before
        runtime = SimulatedRuntime(steady(10), launch_us=20, flush_us=1)
        timing = timed(runtime)
        assert timing.blocked
        assert runtime.blocks > 0
        assert timing.median_ms == pytest.approx(0.01)
        assert (timing.timer, timing.launches) == ("events", 1)

    def test_for_as_long_as_launching_takes(self) -> None:
        timing = timed(SimulatedRuntime(steady(10), launch_us=400, flush_us=1))
        assert timing.median_ms == pytest.approx(0.01)

    def test_warm_it_is_timed_as_a_graph(self) -> None:
        runtime = SimulatedRuntime(steady(10), launch_us=20)
        timing = timed(runtime, flush=False)
        assert (timing.timer, timing.regime, timing.blocked) == ("graph", "warm", False)
        assert 16 <= timing.launches <= 100
        assert timing.median_ms == pytest.approx(0.01, rel=0.02)

    def test_where_there_are_no_graphs_it_is_blocked(self) -> None:
        runtime = SimulatedRuntime(steady(10), launch_us=20, graphs=False)
        timing = timed(runtime, flush=False)
        assert (timing.timer, timing.blocked) == ("events", True)
        assert timing.median_ms == pytest.approx(0.01)

    def test_the_host_has_neither(self) -> None:
        runtime = SimulatedRuntime(steady(10), launch_us=0, timer="host")
        timing = timed(runtime, flush=False)
        assert (timing.timer, timing.blocked, runtime.blocks) == ("host", False, 0)


class TestThrottling:
    def test_spoiled_batches_are_dropped_and_taken_again(self) -> None:
        runtime = SimulatedRuntime(noisy(200, 0.02), throttled=bursts(400_000, 60_000))
        runtime.cpu = 380_000.0  # the burst comes in the middle
        timing = timed(runtime, watcher=SimulatedWatcher(runtime), noise=0, budget_ms=50, retries=5)
        assert timing.dropped == len(timing.dropped_ms) > 0
        assert max(timing.samples_ms) < 0.25  # a throttled one takes 0.3 ms
        assert max(timing.dropped_ms) > 0.25
        assert timing.stopped == "budget"
        assert timing.evidence is not None
        assert timing.evidence.spoiled == ""

    def test_pauses_grow(self) -> None:
        runtime = SimulatedRuntime(steady(200), throttled=lambda at: True)
        with pytest.raises(Throttled, match="SwPowerCap") as caught:
            timed(runtime, watcher=SimulatedWatcher(runtime), retries=6)
        assert caught.value.status == "throttled"
        assert runtime.slept_s == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]

    def test_pauses_end(self) -> None:
        # good for a millisecond after each pause: without an end it would take two hundred of them
        runtime = SimulatedRuntime(noisy(200, 0.3))
        runtime.throttled = lambda at: at - runtime.woken > 4_000
        timing = timed(runtime, watcher=SimulatedWatcher(runtime), noise=0, budget_ms=1000)
        assert timing.stopped == "throttled"
        assert len(timing.samples_ms) >= 3
        assert 3 <= sum(runtime.slept_s) < 4

    def test_pauses_are_not_charged_to_the_kernel(self) -> None:
        runtime = SimulatedRuntime(steady(200), throttled=lambda at: 10_000 < at < 300_000)
        timing = timed(runtime, watcher=SimulatedWatcher(runtime), noise=0, budget_ms=30, retries=9)
        assert sum(runtime.slept_s) > 0.2
        assert 29 <= len(timing.samples_ms) * 0.26 <= 36

    def test_what_was_valid_before_is_kept(self) -> None:
        runtime = SimulatedRuntime(steady(200), throttled=lambda at: at > 20_000)
        timing = timed(runtime, watcher=SimulatedWatcher(runtime), noise=0, budget_ms=100)
        assert timing.stopped == "throttled"
        assert set(timing.samples_ms) == {0.2}

    def test_two_samples_are_none(self) -> None:
        runtime = SimulatedRuntime(steady(20_000), throttled=lambda at: at > 105_000)
        with pytest.raises(Throttled, match=r"6 of 8 samples .* lock its clocks"):
            timed(runtime, watcher=SimulatedWatcher(runtime))

    @pytest.mark.parametrize("us", [200, 2_000, 20_000])
    def test_a_power_limit_that_its_own_load_reaches(self, us: float) -> None:
        # a kernel after another, as in a search; each pause is long enough, if what follows is short
        runtime = HotRuntime(noisy(us, 0.003))
        watcher = SimulatedWatcher(runtime)
        medians = []
        dropped = 0
        for _ in range(20):
            timing = timed(runtime, watcher=watcher)
            assert len(timing.samples_ms) >= 10
            medians.append(timing.median_ms)
            dropped += timing.dropped
        assert dropped > 0
        assert medians == pytest.approx([us / 1e3] * 20, rel=0.005)
        assert runtime.clock() < 20 * (0.02 + 120 * us * 1e-6)

    @pytest.mark.parametrize("us", [200, 2_000, 20_000])
    def test_windows_of_a_race_in_a_row_under_a_power_limit(self, us: float) -> None:
        runtime = HotRuntime(noisy(us, 0.003))
        watcher = SimulatedWatcher(runtime)
        medians = [
            timed(runtime, watcher=watcher, min_samples=3, noise=0, budget_ms=20, warmup_ms=5).median_ms
            for _ in range(100)
        ]
        assert sum(runtime.slept_s) > 0.5  # it was at the limit
        assert medians == pytest.approx([us / 1e3] * 100, rel=0.008)
        assert runtime.clock() / 100 < 0.08 + 40 * us * 1e-6

    def test_no_retries(self) -> None:
        runtime = SimulatedRuntime(steady(200), throttled=lambda at: True)
        with pytest.raises(Throttled):
            timed(runtime, watcher=SimulatedWatcher(runtime), retries=0)
        assert runtime.slept_s == []

    def test_evidence_of_several_batches_is_put_together(self) -> None:
        runtime = SimulatedRuntime(noisy(200, 0.1))
        watcher = SimulatedWatcher(runtime)
        evidence = timed(runtime, watcher=watcher, noise=0, budget_ms=20).evidence
        assert evidence is not None
        assert watcher.windows > 3
        assert evidence.sm_mhz == pytest.approx(1000 + (1 + watcher.windows) / 2)
        assert evidence.temp_c == 40 + watcher.windows


class TestWithNvml:
    """The real watcher, on a fake driver."""

    def test_a_throttled_card_gives_no_timing(self, fake_nvml: Callable[..., FakeMachine]) -> None:
        fake_nvml(scenario="throttled")
        with pytest.raises(Throttled, match="SwPowerCap, SwThermal"):
            measure(lambda: None, runtime=HostRuntime(1), watcher=Watcher(devices()[0]), sleep=lambda s: None)

    def test_a_burst_costs_a_batch(self, fake_nvml: Callable[..., FakeMachine]) -> None:
        fake_nvml(scenario="burst")
        pauses: list[float] = []
        timing = measure(
            lambda: None,
            runtime=HostRuntime(1),
            watcher=Watcher(devices()[0]),
            budget_ms=5,
            sleep=pauses.append,
        )
        assert timing.dropped > 0
        assert pauses == [0.05]
        assert timing.evidence is not None
        assert timing.evidence.sm_mhz is not None
        assert timing.evidence.spoiled == ""


class TestRecord:
    def test_is_json_with_all_samples(self) -> None:
        runtime = SimulatedRuntime(noisy(200, 0.02), throttled=bursts(400_000, 60_000))
        runtime.cpu = 380_000.0
        timing = timed(runtime, watcher=SimulatedWatcher(runtime), noise=0)
        data = json.loads(json.dumps(timing.to_dict()))
        assert data["samples_ms"] == list(timing.samples_ms)
        assert data["dropped_ms"] == list(timing.dropped_ms)
        assert data["dropped"] == timing.dropped > 0
        assert {"median_ms", "spread_ms", "timer", "regime", "stopped", "warmup"} <= set(data)
        assert data["evidence"]["mem_mhz"] == 1593.0

    def test_the_same_seed_gives_the_same_timing(self) -> None:
        first, second = (timed(SimulatedRuntime(heavy_tailed(200), seed=3)) for _ in range(2))
        assert first == second


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"min_samples": 0}, "min_samples"),
            ({"min_samples": 5, "max_samples": 4}, "max_samples"),
            ({"budget_ms": 0}, "budget_ms"),
        ],
    )
    def test_are_checked(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=f"`{named}`"):
            timed(SimulatedRuntime(steady(200)), **options)

    def test_what_a_launch_raises_comes_through(self) -> None:
        def launch() -> None:
            raise RuntimeError("no such kernel")

        with pytest.raises(RuntimeError, match="no such kernel"):
            measure(launch, runtime=SimulatedRuntime(steady(200)))
