"""What Ray Tune calls, without Ray Tune: points known beforehand, saved state, and the journal of results."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from ray import tune

from searchers import (
    Choice,
    ConfigError,
    OptionError,
    Outcome,
    Range,
    Space,
    SpaceSearcher,
    StateError,
    create,
)
from searchers.tune_contract import MOST_SENT_AGAIN

DOMAINS = {"x": tune.randint(0, 10), "y": tune.choice(["a", "b"])}


def space() -> Space:
    return Space({"x": Range(0, 9), "y": Choice(["a", "b"])}, [lambda config: config["x"] != 7])


def made(name: str = "genetic", **options: Any) -> SpaceSearcher:
    return create(name, space(), metric="m", mode="min", seed=0, **options)


def run(searcher: SpaceSearcher, n: int, start: int = 0) -> list[tuple[Any, Any]]:
    """`n` trials, each of which reports x."""
    tried = []
    for i in range(start, start + n):
        config = searcher.suggest(f"t{i}")
        assert isinstance(config, dict)
        searcher.on_trial_complete(f"t{i}", {"m": float(config["x"])})
        tried.append((config["x"], config["y"]))
    return tried


class TestPointsToEvaluate:
    POINTS = ({"x": 5, "y": "b"}, {"x": 3, "y": "a"}, {"x": 9, "y": "a"})

    def test_without_rewards_they_come_first(self) -> None:
        searcher = made(points_to_evaluate=list(self.POINTS), initial_configs=[{"x": 1, "y": "b"}])
        assert run(searcher, 4) == [(1, "b"), (5, "b"), (3, "a"), (9, "a")]

    @pytest.mark.parametrize("known", [True, False])
    def test_with_rewards_they_are_learnt_from_and_not_proposed(self, known: bool) -> None:
        options: dict[str, Any] = {
            "points_to_evaluate": list(self.POINTS),
            "evaluated_rewards": [2.0, None, math.nan],
        }
        if known:
            searcher = made("random", **options)
        else:
            searcher = create("random", seed=0, **options)
            searcher.set_search_properties("m", "min", DOMAINS)
        assert searcher.best is not None
        assert searcher.best[0].config == self.POINTS[0]
        assert searcher.best[1].values == (2.0,)
        tried = run(searcher, 16)
        assert tried[0] == (3, "a")
        assert (5, "b") not in tried
        assert (9, "a") not in tried

    def test_several_objectives(self) -> None:
        searcher = create(
            "random",
            metric=["a", "b"],
            mode=["min", "max"],
            points_to_evaluate=list(self.POINTS[:2]),
            evaluated_rewards=[[1.0, 5.0], [2.0, 4.0]],
        )
        searcher.set_search_properties(None, None, DOMAINS)
        assert [outcome.values for _, outcome in searcher.front] == [(1.0, 5.0)]

    def test_mode_comes_too_late(self) -> None:
        searcher = create("random", space(), points_to_evaluate=[{"x": 5, "y": "b"}], evaluated_rewards=[1.0])
        with pytest.raises(OptionError, match=r"`mode` is 'max'.*give `metric`"):
            searcher.set_search_properties("m", "max", {"epochs": 3})

    @pytest.mark.parametrize(
        ("points", "rewards", "message"),
        [
            ({"x": 1}, None, "points_to_evaluate"),
            ([{"x": 1, "y": "a"}], [1.0, 2.0], "evaluated_rewards"),
            (None, [1.0], "evaluated_rewards"),
            ([{"x": 1, "y": "a"}], 1.0, "evaluated_rewards"),
            ([{"x": 1, "y": "a"}], ["fast"], "values"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, points: Any, rewards: Any, message: str) -> None:
        with pytest.raises(OptionError, match=message):
            made(points_to_evaluate=points, evaluated_rewards=rewards)

    def test_no_members(self) -> None:
        with pytest.raises(ConfigError, match="breaks"):
            made(points_to_evaluate=[{"x": 7, "y": "a"}], evaluated_rewards=[1.0])
        searcher = create("random", points_to_evaluate=[{"x": 17, "y": "a"}], evaluated_rewards=[1.0])
        with pytest.raises(ConfigError, match="17"):
            searcher.set_search_properties("m", "min", DOMAINS)


class TestTrials:
    def test_lost_trials_are_sent_again_some_times(self) -> None:
        searcher = made("random")
        first = searcher.suggest("t0")
        for i in range(MOST_SENT_AGAIN):
            searcher.on_trial_complete(f"t{i}", {"m": math.nan, "ciq_status": "lost"})
            assert searcher.n_pending == 1
            assert searcher.suggest(f"t{i + 1}") == first
        searcher.on_trial_complete(f"t{MOST_SENT_AGAIN}", {"m": math.nan, "ciq_status": "throttled"})
        assert searcher.n_pending == 0
        outcome = searcher._trials[0].outcome
        assert outcome is not None
        assert outcome.status == "run_error"
        assert searcher.suggest("t9") != first

    def test_a_failed_trial_that_was_resumed(self) -> None:
        searcher = made("random")
        searcher.suggest("t0")
        searcher.on_trial_complete("t0", None, True)
        searcher.on_trial_complete("t0", error=True)
        assert searcher.best is None
        searcher.on_trial_complete("t0", {"m": 3.0})
        assert searcher.best is not None
        searcher.on_trial_complete("t0", {"m": 1.0})  # it is done
        assert searcher.best[1].values == (3.0,)

    def test_finished_though_a_candidate_is_with_somebody_else(self) -> None:
        searcher = made(generations=2, pool_size=6, generational=True)
        searcher.ask(6)
        assert searcher.suggest("t0") == searcher.FINISHED


class TestPickling:
    def test_another_process_goes_on(self, tmp_path: Path) -> None:
        searcher = made()
        run(searcher, 8)
        (tmp_path / "searcher").write_bytes(cloudpickle.dumps(searcher))
        script = (
            "import pickle, sys\n"
            "searcher = pickle.load(open(sys.argv[1], 'rb'))\n"
            "print([searcher.suggest(str(i)) for i in range(5)], searcher.space.fingerprint)\n"
        )
        other = subprocess.run(
            [sys.executable, "-c", script, tmp_path / "searcher"], capture_output=True, text=True, check=True
        )
        assert searcher.space is not None
        mine = [searcher.suggest(str(i)) for i in range(5)]
        assert other.stdout.strip() == f"{mine} {searcher.space.fingerprint}"


class TestState:
    def test_the_space_comes_back_with_the_state(self, tmp_path: Path) -> None:
        first = create("genetic", seed=0)
        first.set_search_properties("m", "max", {"inner": DOMAINS, "epochs": 3})
        config = first.suggest("t0")
        first.save(str(tmp_path / "state"))
        # as Tuner.restore does, unless it is given `param_space`
        second = create("genetic", seed=0)
        second.restore(str(tmp_path / "state"))
        assert (second.metric, second.mode) == ("m", "max")
        for searcher in (first, second):
            searcher.on_trial_complete("t0", {"m": 1.0})
        assert second.best is not None
        assert second.best[0].config == config
        assert second.suggest("t1") == first.suggest("t1")
        assert json.dumps(second.get_state()) == json.dumps(first.get_state())

    def test_another_space_than_that_of_the_state(self, tmp_path: Path) -> None:
        first, second = create("random"), create("random")
        first.set_search_properties("m", "max", DOMAINS)
        first.save(str(tmp_path / "state"))
        second.restore(str(tmp_path / "state"))
        with pytest.raises(StateError, match="param_space"):
            second.set_search_properties("m", "max", {"x": tune.randint(0, 11)})

    def test_a_space_that_json_cannot_hold(self, tmp_path: Path) -> None:
        domains = {"shape": tune.choice([(1, 2), (2, 1)])}
        first, second = create("random"), create("random")
        first.set_search_properties("m", "max", domains)
        first.suggest("t0")
        first.save(str(tmp_path / "state"))
        with pytest.raises(StateError, match=r"`param_space` to Tuner\.restore"):
            second.restore(str(tmp_path / "state"))
        second.set_search_properties("m", "max", domains)
        second.restore(str(tmp_path / "state"))
        assert second.n_proposed == first.n_proposed


class TestJournal:
    def test_what_came_since_the_snapshot_is_known(self, tmp_path: Path) -> None:
        searcher = made()
        searcher.keep_journal(tmp_path / "results.jsonl")
        pickled = cloudpickle.dumps(searcher)
        run(searcher, 4)
        searcher.save(str(tmp_path / "state"))
        before = run(searcher, 5, start=4)
        restored: SpaceSearcher = cloudpickle.loads(pickled)
        restored.restore(str(tmp_path / "state"))
        after = run(restored, 9, start=20)
        assert not set(before) & set(after)
        assert searcher.best is not None
        assert len({line["trial"] for line in self.lines(tmp_path)}) == 18
        assert restored.n_pending == 0

    def test_a_new_search_goes_on_from_it(self, tmp_path: Path) -> None:
        first = made()
        first.keep_journal(tmp_path / "results.jsonl")
        tried = run(first, 9)
        second = made("random")
        second.keep_journal(tmp_path / "results.jsonl")
        assert not set(run(second, 9)) & set(tried)
        assert second.finished or second.suggest("t99") == second.FINISHED

    def test_failures_and_later_results_of_the_same(self, tmp_path: Path) -> None:
        first = made("random")
        first.keep_journal(tmp_path / "results.jsonl")
        for i in range(3):
            first.suggest(f"t{i}")
        first.on_trial_complete("t0", {"m": math.nan, "ciq_status": "wrong", "ciq_message": "off by one"})
        first.on_trial_complete("t1", error=True)
        first.on_trial_complete("t1", {"m": 2.0})
        second = made("random")
        second.keep_journal(tmp_path / "results.jsonl")
        second.suggest("t0")
        known = [trial.outcome for trial in second._trials[:2]]
        assert [(o and o.status, o and o.values, o and o.message) for o in known] == [
            ("wrong", (), "off by one"),
            ("ok", (2.0,), ""),
        ]

    def test_a_torn_line_is_cut_off(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        first = made("random")
        first.keep_journal(tmp_path / "results.jsonl")
        tried = run(first, 3)
        text = (tmp_path / "results.jsonl").read_bytes()
        (tmp_path / "results.jsonl").write_bytes(text[:-9])
        second = made("random")
        second.keep_journal(tmp_path / "results.jsonl")
        with caplog.at_level(logging.WARNING):
            again = run(second, 1)
        assert "torn" in caplog.text
        assert second.n_proposed >= 3
        assert not set(again) & set(tried[:2])
        assert [line["trial"] for line in self.lines(tmp_path)] == ["t0", "t1", "t0"]

    @pytest.mark.parametrize(
        "text",
        [
            "no journal\n",
            "[]\n",
            '{"version": 1, "space": "0123"}\n',
            "HEADER{}\n",
            'HEADER{"row": [0, 99], "outcome": {"status": "wrong"}}\n',
            'HEADER{"row": [0, 0], "outcome": {"status": "?"}}\n',
            'HEADER{"row": [0, 0], "outcome": {"status": "ok", "values": [1.0, 2.0]}}\n',
        ],
    )
    def test_something_else_is_refused(self, text: str, tmp_path: Path) -> None:
        header = json.dumps({"version": 1, "space": space().fingerprint}) + "\n"
        (tmp_path / "results.jsonl").write_text(text.replace("HEADER", header))
        searcher = made()
        searcher.keep_journal(tmp_path / "results.jsonl")
        with pytest.raises(StateError, match=r"results\.jsonl', line [12]"):
            searcher.suggest("t0")
        assert (tmp_path / "results.jsonl").read_text() == text.replace("HEADER", header)

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"`path`.*folder"):
            made().keep_journal(tmp_path / "none" / "results.jsonl")

    def test_a_journal_that_cannot_be_written_costs_no_result(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "folder").mkdir()
        searcher = made()
        searcher.keep_journal(tmp_path / "folder" / "results.jsonl")
        (tmp_path / "folder").rmdir()
        run(searcher, 2)
        assert searcher.best is not None
        assert "cannot write a result" in caplog.text

    def lines(self, folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()[1:]]


class TestOutcomeOfAResult:
    def test_fields_besides_the_status_reach_the_searcher(self) -> None:
        searcher = made("random")
        searcher.suggest("t0")
        result = {
            "m": 2.0,
            "ciq_run_s": 0.5,
            "ciq_compile_s": 3,
            "ciq_spread": 0.1,
            "ciq_samples": 7,
            "ciq_metrics/registers": 40,
        }
        searcher.on_trial_complete("t0", result)
        expected = Outcome(
            "ok",
            (2.0,),
            run_s=0.5,
            compile_s=3.0,
            spread=(0.1,),
            samples=7,
            metrics={"registers": 40},
        )
        assert searcher._trials[0].outcome == expected

    @pytest.mark.parametrize(
        "odd",
        [
            {"ciq_run_s": "fast"},
            {"ciq_run_s": -1.0},
            {"ciq_run_s": math.nan},
            {"ciq_spread": "wide"},
            {"ciq_spread": [1.0, 2.0]},
            {"ciq_samples": 0},
            {"ciq_samples": 2.5},
            {"ciq_metrics": 3},
        ],
    )
    def test_what_is_no_such_value_is_left_out(self, odd: dict[str, Any]) -> None:
        searcher = made("random")
        searcher.suggest("t0")
        searcher.on_trial_complete("t0", {"m": 2.0, **odd})
        assert searcher._trials[0].outcome == Outcome("ok", (2.0,))

    def test_a_failure_keeps_its_time(self) -> None:
        searcher = made("random")
        searcher.suggest("t0")
        searcher.on_trial_complete(
            "t0", {"ciq_status": "run_timeout", "ciq_run_s": 9.0, "ciq_message": "hung"}
        )
        assert searcher._trials[0].outcome == Outcome("run_timeout", run_s=9.0, message="hung")


def test_what_has_begun_and_what_runs() -> None:
    searcher = made("random")
    assert (searcher.n_begun, searcher.has_running_trials) == (0, False)
    searcher.suggest("t0")
    assert (searcher.n_begun, searcher.has_running_trials) == (1, True)
    searcher.on_trial_complete("t0", {"ciq_status": "lost"})
    assert (searcher.n_begun, searcher.has_running_trials) == (0, False)
    searcher.suggest("t1")
    searcher.on_trial_complete("t1", {"m": 1.0})
    searcher.add_evaluated_point({"x": 5, "y": "b"}, 1.0)
    assert (searcher.n_begun, searcher.has_running_trials) == (2, False)


def test_results_that_are_told_together_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    searcher = made("random")
    searcher.keep_journal(path)
    for number in range(4):
        searcher.suggest(f"t{number}")
    with contextlib.suppress(RuntimeError), searcher.writing_together():
        for number in range(3):
            searcher.on_trial_complete(f"t{number}", {"m": 1.0})
        assert not path.exists()
        raise RuntimeError("whatever happens")
    assert len(path.read_text().splitlines()) == 4
    with searcher.writing_together():
        pass
    searcher.on_trial_complete("t3", {"m": 1.0})
    assert len(path.read_text().splitlines()) == 5
    again = made("random")
    again.keep_journal(path)
    again.learn_journal()
    assert again.n_begun == 4
