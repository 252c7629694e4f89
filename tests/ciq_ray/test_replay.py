"""Searches over recorded landscapes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import searchers
from ciq_ray._replay.recorded import Protocol, Recorded
from ciq_ray._replay.restarts import Restarts
from ciq_ray._replay.run import search
from ciq_ray._replay.virtual import Machine
from ciq_ray.errors import ConfigurationError
from ciq_ray.landscape import Landscape
from ciq_ray.replay import Plan, Replay, Replayer, Run, replay
from searchers import FiniteSearch, OptionError, SpaceSearcher

FOLDER = Path(__file__).parents[2] / "benchmarks" / "landscapes"
LINE = (
    "x,status,time_ms,std_ms,compile_s\n"
    "0,ok,1.0,0.5,1\n"
    "1,ok,1.1,0.5,1\n"
    "2,ok,4.0,0.0,2\n"
    "3,run_error,,,3\n"
    "4,compile_error,,,5\n"
)


@pytest.fixture(scope="module")
def matmul():
    return Landscape.load(FOLDER / "matmul_4096.csv")


@pytest.fixture
def line(tmp_path):
    """Five configurations, of which two fail."""
    (tmp_path / "line.csv").write_text(LINE)
    return Landscape.load(tmp_path / "line.csv")


def by_hand(landscape, searcher, budget, batch):
    """The best recorded time after each evaluation, as a user of `ask` and `tell` finds it."""
    best, curve = math.nan, []
    while len(curve) < budget:
        for candidate in searcher.ask(min(batch, budget - len(curve))):
            time = float(landscape.times[landscape.row(candidate.config)])
            status = landscape.statuses[landscape.row(candidate.config)]
            searcher.tell(candidate.id, searchers.Outcome(status, (time,)))
            best = np.fmin(best, time)
            curve.append(best)
    return curve


class TestRuns:
    @pytest.mark.parametrize("batch", [1, 7])
    def test_as_by_hand(self, matmul, batch):
        found = replay(matmul, "genetic", budget=60, seeds=[3, 5], batch=batch)
        for run, curve in zip(found.runs, found.curves, strict=True):
            searcher = searchers.create("genetic", matmul.space, metric="time_ms", mode="min", seed=run.seed)
            np.testing.assert_array_equal(curve, by_hand(matmul, searcher, 60, batch))
            assert (run.evaluations, run.restarts) == (60, 0)
            assert len(run.cpu_s) == 60
            assert min(run.cpu_s) >= 0

    def test_equal_seeds_equal_runs(self, matmul):
        first, again, other = (
            replay(matmul, "genetic", budget=40, seeds=[seed], noise=True).runs[0] for seed in (1, 1, 2)
        )
        assert replace(first, cpu_s=()) == replace(again, cpu_s=())
        assert first.steps != other.steps

    def test_failures_count(self, line):
        run = replay(line, "random", budget=5, seeds=1).runs[0]
        assert (run.evaluations, run.failures) == (5, 2)
        assert run.steps[-1][1] == 1.0

    def test_a_file_by_its_name(self):
        found = replay(FOLDER / "matmul_4096.csv", "random", budget=12, seeds=2)
        assert found.curves.shape == (2, 12)

    def test_before_the_first_success(self, line):
        run = Run(0, 5, 2, 0, ((3, 4.0), (5, 1.0)), ())
        np.testing.assert_array_equal(run.curve(6), [math.nan, math.nan, 4, 4, 1, 1])

    def test_more_than_there_is(self, line, caplog):
        found = replay(line, "random", budget=9, seeds=1)
        assert found.plan.budget == 5
        assert "`budget` is 9; line has 5 configurations" in caplog.text

    def test_every_evaluation_is_reported(self, line):
        ticks = []
        Replayer(line, Plan(searcher="random", budget=4)).run(0, lambda: ticks.append(1))
        assert len(ticks) == 4

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"budget": 0}, "`budget` is 0; it must be a whole number of at least 1"),
            ({"batch": 0}, "`batch` is 0"),
            ({"batch": 1.5}, "`batch` is 1.5"),
            ({"workers": 0}, "`workers` is 0"),
            ({"devices": True, "workers": 1}, "`devices` is True"),
            ({"devices": 2}, "`devices` is 2, but without `workers`"),
            ({"seeds": 0}, "`seeds` is 0"),
            ({"seeds": []}, "`seeds` is empty"),
            ({"seeds": None}, "`seeds` is None; it must be a list, or how many there are to be"),
            ({"seeds": "12"}, "`seeds` is '12'; it must be a list"),
            ({"seeds": ["a"]}, "`seeds` holds 'a'; a seed is a whole number of at least 0"),
            ({"seeds": [1, -1]}, "`seeds` holds -1"),
            ({"seeds": [True]}, "`seeds` holds True"),
            ({"effort": "none"}, "`effort` is 'none'.*use 'quick' or 'full'"),
            ({"searcher": "finite"}, "`searcher` is 'finite'.*use another one"),
        ],
    )
    def test_refused(self, line, arguments, message):
        with pytest.raises(ConfigurationError, match=message):
            replay(line, **{"searcher": "random", **arguments})

    @pytest.mark.parametrize("landscape", [None, 3, [1]])
    def test_no_landscape(self, landscape):
        with pytest.raises(ConfigurationError, match=r"`landscape` is .*it must be a Landscape"):
            replay(landscape)

    def test_whole_numbers_of_numpy(self, line):
        found = replay(line, "random", budget=np.int64(3), seeds=np.int64(2), batch=np.int32(2))
        assert json.dumps(found.plan.to_dict()) == json.dumps(replay(line, "random", 3, 2, 2).plan.to_dict())
        assert [run.seed for run in found.runs] == [0, 1]
        assert json.dumps(replay(line, "random", 3, [np.int64(7)]).to_dict())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"searcher": "genetc"}, "did you mean 'genetic'"),
            ({"options": {"size": 1}}, "`size` is not an option of 'random'"),
            ({"effort": "huge"}, "`effort` is 'huge'"),
        ],
    )
    def test_refused_by_the_searchers(self, line, arguments, message):
        with pytest.raises(OptionError, match=message):
            replay(line, **{"searcher": "random", **arguments})


class TestRestarts:
    def test_random_search_repeats_nothing(self, matmul):
        searcher = Replayer(matmul, Plan(searcher="random"))._make(1)
        assert len({candidate.row for candidate in searcher.ask(5000)}) == len(matmul) > 2000
        assert replay(matmul, "random", budget=1100, seeds=1).runs[0].restarts == 0
        assert replay(matmul, "random", budget=150, seeds=1, effort="quick").runs[0].restarts == 1

    def test_a_fresh_one_goes_on_and_its_evaluations_count(self, matmul):
        found = replay(matmul, "random", budget=25, seeds=[4], options={"count": 10}).runs[0]
        assert (found.evaluations, found.restarts) == (25, 2)

    def test_the_next_one_has_another_seed_and_knows_nothing(self, line):
        made = []

        def make(seed):
            made.append(searchers.create("random", line.space, metric="time_ms", seed=seed))
            return made[-1]

        run = search(7, Restarts(make, 7, restart=True), recorded(line), Plan(budget=15))
        assert run.evaluations == 15
        assert [searcher.n_proposed for searcher in made] == [5, 5, 5]
        assert made[0].seed == 7
        assert len({searcher.seed for searcher in made}) == 3

    def test_the_best_of_all_counts(self, line):
        lists = iter([[{"x": 0}], [{"x": 2}]])
        restarts = Restarts(lambda seed: FiniteSearch(line.space, next(lists)), 0, restart=True)
        run = search(0, restarts, recorded(line), Plan(budget=2))
        assert run.steps == ((1, 1.0),)

    def test_or_it_ends(self, matmul):
        found = replay(matmul, "random", budget=25, seeds=1, options={"count": 10}, restart=False)
        assert (found.runs[0].evaluations, found.runs[0].restarts) == (10, 0)
        assert found.curves[0][9] == found.curves[0][24]

    def test_one_that_proposes_nothing_does_not_go_on_for_ever(self, line):
        class Mute(SpaceSearcher):
            def _propose(self, n):
                pass

        run = search(0, Restarts(lambda seed: Mute(line.space), 0, restart=True), recorded(line), Plan())
        assert (run.evaluations, run.restarts) == (0, 1)
        assert np.isnan(run.curve(3)).all()


def recorded(landscape, noise=None):
    return Recorded(landscape, noise, Protocol())


class TestOutcomes:
    def test_without_noise(self, line):
        outcome = recorded(line).outcome({"x": 2})
        assert (outcome.values, outcome.compile_s, outcome.run_s) == ((4.0,), 2.0, 0.4)
        assert (outcome.spread, outcome.samples) == (None, None)
        assert recorded(line).outcome({"x": 2}) == outcome

    def test_failures(self, line):
        there, never = (recorded(line).outcome({"x": x}) for x in (3, 4))
        assert (there.status, there.compile_s, there.run_s) == ("run_error", 3.0, 0.05)
        assert (never.status, never.compile_s, never.run_s) == ("compile_error", 5.0, None)

    def test_noise_is_that_of_the_file(self, line):
        values = [recorded(line, np.random.default_rng(i)).outcome({"x": 0}).values[0] for i in range(3000)]
        floor = 0.1
        assert min(values) == pytest.approx(floor)
        assert np.median(values) == pytest.approx(1.0, abs=0.03)
        assert np.quantile(values, 0.84) == pytest.approx(1.5, abs=0.05)

    def test_measured_again_it_is_known_better(self, line):
        source = recorded(line, np.random.default_rng(0))
        outcomes = [source.outcome({"x": 0}) for _ in range(400)]
        assert [outcome.samples for outcome in outcomes[:3]] == [1, 2, 3]
        assert outcomes[0].spread == (0.5,)
        assert outcomes[-1].values[0] == pytest.approx(1.0, abs=0.1)

    def test_protocol(self):
        assert Protocol().run_s(85.0) == 8.5
        assert Protocol().run_s(0.2) == 0.05
        assert Protocol(launches=10, least_s=1.0).run_s(200.0) == 2.0
        assert Protocol().run_s(math.nan) == 0.05


class TestNoise:
    def test_the_score_is_of_what_the_searcher_believes_in(self, line):
        """A lucky draw makes the slower one the incumbent: its recorded time is what counts."""
        lucky = 0
        for seed in range(40):
            finite = FiniteSearch(line.space, [{"x": 0}, {"x": 1}], seed=seed)
            restarts = Restarts(lambda _, finite=finite: finite, seed, restart=False)
            run = search(seed, restarts, recorded(line, np.random.default_rng(seed)), Plan())
            assert run.steps[0] == (1, 1.0)
            assert finite.best[0].config["x"] == (1 if run.steps[-1] == (2, 1.1) else 0)
            lucky += run.steps[-1] == (2, 1.1)
        assert 5 < lucky < 35

    def test_a_measurement_again_is_an_evaluation(self, line):
        class Doubter(FiniteSearch):
            def _observe(self, trial, previous):
                if previous is None:
                    self.remeasure(str(trial.index))

        doubter = Doubter(line.space, [{"x": 0}, {"x": 1}])
        run = search(
            0,
            Restarts(lambda seed: doubter, 0, restart=False),
            recorded(line, np.random.default_rng(0)),
            Plan(),
        )
        assert run.evaluations == 4
        assert doubter.n_proposed == 2
        assert doubter.best[1].samples == 2


def simulate(tasks, workers, devices, until_s=math.inf):
    """Tasks are (seconds of compiling, seconds on a device); returns what ended when, and the usage."""
    queue, told = list(enumerate(tasks)), []
    machine = Machine(
        workers,
        devices,
        lambda: [queue.pop(0)] if queue else [],
        lambda task: task[1],
        lambda task, at: told.append((task[0], at)),
    )
    return told, machine.run(until_s)


class TestMachine:
    def test_one_of_each(self):
        told, usage = simulate([(1, 2), (1, 2), (1, 2)], 1, 1)
        assert told == [(0, 3.0), (1, 5.0), (2, 7.0)]
        assert usage.elapsed_s == 7
        assert usage.workers_busy == pytest.approx(3 / 7)
        assert usage.devices_busy == pytest.approx(6 / 7)

    def test_outcomes_come_in_another_order(self):
        told, _ = simulate([(9, 1), (1, 1), (2, 1)], 2, 1)
        assert [task for task, _ in told] == [1, 2, 0]

    def test_what_does_not_compile_takes_no_device(self):
        told, usage = simulate([(3, 0), (1, 1)], 1, 1)
        assert told == [(0, 3.0), (1, 5.0)]
        assert usage.devices_busy == pytest.approx(1 / 5)

    def test_slow_compilation_keeps_all_workers_busy(self):
        _, usage = simulate([(4, 0.1)] * 64, 8, 1)
        assert usage.workers_busy > 0.97

    def test_slow_runs_keep_all_devices_busy(self):
        _, usage = simulate([(1, 4)] * 64, 3, 2)
        assert usage.devices_busy > 0.97

    def test_nothing_is_asked_for_long_before_it_can_run(self):
        asked = told = most = 0

        def ask():
            nonlocal asked, most
            asked += asked < 50
            most = max(most, asked - told)
            return [asked] if asked < 50 else []

        def tell(task, at):
            nonlocal told
            told += 1

        Machine(4, 2, ask, lambda task: (0.1, 5.0), tell).run()
        assert most <= 4 + 2 + 2

    def test_until_a_moment(self):
        told, usage = simulate([(1, 2)] * 9, 1, 1, until_s=6.0)
        assert told == [(0, 3.0), (1, 5.0)]
        assert usage.elapsed_s == 6.0
        assert usage.devices_busy == pytest.approx(5 / 6)

    def test_nothing_to_do(self):
        told, usage = simulate([], 2, 2)
        assert (told, usage.elapsed_s, usage.devices_busy) == ([], 0.0, 0.0)


class TestVirtualTime:
    def test_more_workers_are_faster(self, matmul):
        elapsed = {
            workers: replay(matmul, "genetic", budget=60, seeds=2, workers=workers).virtual_time().elapsed_s
            for workers in (1, 4)
        }
        assert elapsed[4] < elapsed[1] / 2.5

    def test_all_of_it(self, matmul):
        found = replay(matmul, "genetic", budget=80, seeds=2, workers=4, devices=2, batch=3)
        again = replay(matmul, "genetic", budget=80, seeds=2, workers=4, devices=2, batch=3)
        for run, same in zip(found.runs, again.runs, strict=True):
            assert replace(run, cpu_s=()) == replace(same, cpu_s=())
            assert run.evaluations == 80
            assert list(run.moments) == sorted(run.moments)
            assert len(run.moments) == len(run.steps)
            assert run.usage.elapsed_s >= run.moments[-1]
            seconds = [run.moments[0] / 2, run.moments[-1]]
            np.testing.assert_array_equal(run.at(seconds), [math.nan, run.steps[-1][1]])
        longest = max(run.usage.elapsed_s for run in found.runs)
        assert [run.usage.elapsed_s for run in found.random] == [longest, longest]
        virtual = found.virtual_time()
        assert 0.5 < virtual.workers_busy <= 1
        assert virtual.best_ms <= virtual.random_ms
        assert virtual.as_good_s <= longest

    def test_restarts(self, matmul):
        found = replay(matmul, "random", budget=30, seeds=1, workers=3, options={"count": 8})
        assert (found.runs[0].evaluations, found.runs[0].restarts) == (30, 3)

    def test_there_was_none(self, line):
        found = replay(line, "random", budget=3, seeds=1)
        assert found.random == ()
        with pytest.raises(ConfigurationError, match="no virtual time"):
            found.virtual_time()


class TestResult:
    def test_random_search_scores_nothing(self, matmul):
        found = replay(matmul, "random", budget=100, seeds=60)
        assert found.budgets == (50, 100)
        for mean, error in [*found.scores().values(), found.aggregate()]:
            assert 0 < error < 0.2
            assert abs(mean) < 4 * error

    def test_errors_and_budgets(self, line):
        runs = [Run(seed, 4, 0, 0, ((1, time),), (0.001, 0.003)) for seed, time in enumerate([1.0, 4.0])]
        found = Replay(line, Plan(budget=4), tuple(runs))
        assert found.budgets == (4,)
        scores = line.scores(found.curves)[:, 3]
        mean, error = found.scores()[4]
        assert mean == pytest.approx(scores.mean())
        assert error == pytest.approx(abs(scores[0] - scores[1]) / 2)
        assert math.isnan(found.aggregate()[0])
        assert found.cpu_s() == (0.002, 0.003)

    def test_saved(self, line, tmp_path):
        found = replay(line, "random", budget=5, seeds=1, workers=2, noise=True)
        path = found.save(tmp_path / "replay.json")
        data = json.loads(path.read_text(), parse_constant=pytest.fail)
        assert data == json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert data["plan"]["workers"] == 2
        assert data["scores"]["5"][1] is None
        assert data["runs"][0]["virtual"]["elapsed_s"] > 0
