from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciq_ray import Search
from ciq_ray.engine import Evaluation
from ciq_ray.errors import BaselineError, ConfigurationError
from ciq_ray.journal import Journal
from ciq_ray.race import AGAIN, BASELINE, Entrant, Plan, Race
from ciq_ray.racing import BlockRunner, RaceStopped, _interrupted, race_run
from ciq_ray.remeasure import Remeasurer
from ciq_ray.worker.protocol import Report
from searchers import Candidate, Outcome, Range

Block = Sequence[Entrant]


class Bench:
    """Times by id, with noise; remembers in which order it was called."""

    def __init__(
        self, times: dict[str, float], noise: float = 0.005, fail: dict[str, int] | None = None
    ) -> None:
        self.times, self.noise, self.fail = times, noise, fail or {}
        self.blocks: list[list[str]] = []
        self.calls: Counter[str] = Counter()

    def __call__(self, order: Block) -> Iterator[tuple[Entrant, Outcome]]:
        self.blocks.append([entrant.id for entrant in order])
        rng = np.random.default_rng(len(self.blocks))
        for entrant in order:
            self.calls[entrant.id] += 1
            if self.calls[entrant.id] == self.fail.get(entrant.id):
                yield entrant, Outcome("run_error", message="it broke")
                continue
            name = BASELINE if entrant.id == AGAIN else entrant.id
            yield entrant, Outcome("ok", (self.times[name] * float(np.exp(rng.normal(0, self.noise))),))


def race(bench: Bench, **options: Any) -> Any:
    finalists = [Entrant(name, {"x": name}) for name in bench.times if name != BASELINE]
    return Race(finalists, Entrant(BASELINE, {}), bench, **options).run()


def test_the_fastest_wins_and_the_slow_are_dropped_early() -> None:
    bench = Bench({BASELINE: 1.0, "a": 0.95, "b": 0.9, "c": 1.3, "d": 0.92})
    result = race(bench)
    assert result.winner.id == "b"
    assert result.chosen.id == "b"
    assert result.verdict.kind == "win"
    assert "c" in result.dropped
    assert "clearly worse" in result.dropped["c"]
    assert bench.calls["c"] == 5 * 3


def test_the_baseline_stays_when_nobody_beats_it() -> None:
    result = race(Bench({BASELINE: 1.0, "a": 1.0, "b": 1.001}))
    assert result.verdict.kind == "no significant difference"
    assert result.chosen.config == {}


def test_blocks_hold_everybody_in_random_order() -> None:
    bench = Bench({BASELINE: 1.0, "a": 0.999, "b": 1.0, "c": 1.001}, noise=0.05)
    race(bench, plan=Plan(pick_blocks=6, verdict_blocks=6, windows=2, seed=3))
    for block in bench.blocks[:6]:
        assert sorted(block[:5]) == sorted(block[5:]) == sorted({"a", "b", "c", BASELINE, AGAIN})
    assert len({tuple(block[:5]) for block in bench.blocks[:6]}) > 1
    winner = set(bench.blocks[-1]) - {BASELINE, AGAIN}
    assert len(winner) == 1
    assert [len(block) for block in bench.blocks[6:]] == [6] * 6


def test_higher_is_better() -> None:
    finalists = [Entrant("a", {"x": 1}), Entrant("b", {"x": 2})]
    result = Race(
        finalists, Entrant(BASELINE, {}), Bench({BASELINE: 1.0, "a": 1.1, "b": 0.8}), mode="max"
    ).run()
    assert result.winner.id == "a"
    assert result.verdict.kind == "win"


def test_a_finalist_that_fails_is_out() -> None:
    result = race(Bench({BASELINE: 1.0, "a": 0.5, "b": 0.9}, fail={"a": 4}))
    assert result.winner.id == "b"
    assert "it broke" in result.dropped["a"]


def test_a_baseline_that_fails_ends_the_race() -> None:
    with pytest.raises(BaselineError, match="it broke"):
        race(Bench({BASELINE: 1.0, "a": 0.5, "b": 0.9}, fail={BASELINE: 3}))


def test_nobody_to_race() -> None:
    with pytest.raises(ConfigurationError, match="nothing to race"):
        Race([Entrant("a", {})], Entrant(BASELINE, {}), Bench({BASELINE: 1.0})).run()
    with pytest.raises(ConfigurationError, match="`verdict_blocks`"):
        Plan(verdict_blocks=5)
    with pytest.raises(ConfigurationError, match="every finalist failed"):
        race(Bench({BASELINE: 1.0, "a": 1.0, "b": 1.0}, fail={"a": 1, "b": 2}))


def test_an_interrupted_race_goes_on_where_it_was() -> None:
    plan = Plan(pick_blocks=6, verdict_blocks=6, seed=1)
    times = {BASELINE: 1.0, "a": 0.9, "b": 0.91}
    whole: list[dict[str, Any]] = []
    expected = race(Bench(times), plan=plan, record=whole.append)
    for cut in (0, 1, 40, 100, len(whole)):
        bench, rest = Bench(times), []
        bench.blocks = [[]] * _complete(whole[:cut])  # its noise depends on the number of the block
        result = race(bench, plan=plan, record=rest.append, earlier=whole[:cut])
        done = {(r["stage"], r["block"]) for r in rest} & {(r["stage"], r["block"]) for r in whole[:cut]}
        assert len(done) <= 1  # the block that was cut, measured anew
        assert (result.winner, result.verdict) == (expected.winner, expected.verdict)


def _complete(records: list[dict[str, Any]]) -> int:
    counts = Counter((r["stage"], r["block"]) for r in records)
    return sum(
        counts[r["stage"], r["block"]] == r["of"]
        for r in {(r["stage"], r["block"]): r for r in records}.values()
    )


def noisy(config: dict[str, Any]) -> float:
    import random

    return (10.0 + abs(config.get("x", 30) - 7)) * random.gauss(1.0, 0.01)


def search(tmp_path: Path, **options: Any) -> Search:
    return Search(
        objective_function=noisy,
        search_space={"x": Range(0, 40)},
        search_config={"generations": 3, "pool_size": 10},
        seed=3,
        disable_progress_bar=True,
        cache_folder=tmp_path / "cache",
        **options,
    )


@pytest.mark.slow
def test_a_search_ends_with_a_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path / "runs"))
    plan = Plan(finalists=3, pick_blocks=6, verdict_blocks=6)
    mine = search(tmp_path, final_race=plan, initial_configs=[{"x": 20}])
    result = mine.start(num_workers=2)
    assert result.verdict is not None
    assert result.race is not None
    assert result.verdict.kind == "win"
    assert abs(result.race.chosen.config["x"] - 7) <= 1
    said = capfd.readouterr().err
    assert said.index("final race: 3 finalists and the baseline, at most 144 calls") < said.index(
        "beats the baseline"
    )
    folder = tmp_path / "runs" / "1"
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    windows = [r for r in records if r["t"] == "race"]
    assert len(windows) == result.race.calls
    assert len({r["block"] for r in windows if r["stage"] != "pick"}) == 6

    # resumed: nothing is measured again, the verdict is the same
    again = Search.resume(folder).start()
    assert again.verdict == result.verdict
    # repeated: everything is measured again, the results are those of the journal
    repeated = race_run(folder, plan=plan)
    assert repeated.verdict is not None
    assert repeated.verdict != result.verdict
    assert repeated.verdict.kind == "win"
    assert len(repeated) == len(result)


def test_a_race_needs_one_objective() -> None:
    with pytest.raises(ConfigurationError, match="one objective"):
        Search(
            objective_function=noisy,
            search_space={"x": Range(0, 40)},
            search_config={"generations": 3, "num_objectives": 2},
            final_race=True,
        )


def test_leaders_are_measured_again_until_luck_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The reported best is a median of several measurements, and not the lowest of all."""
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path / "runs"))
    result = search(tmp_path, remeasure_every=1, dump_results=tmp_path / "r.csv").start(num_workers=2)
    records = [
        json.loads(line) for line in (tmp_path / "runs" / "1" / "journal.jsonl").read_text().splitlines()
    ]
    again = Counter(name for r in records if r["t"] == "remeasure" for name in r["ids"])
    assert again
    values: dict[str, list[float]] = {}
    for record in records:
        if record["t"] == "outcome":
            values.setdefault(record["id"], []).append(record["outcome"]["values"][0])
    assert {name: len(found) - 1 for name, found in values.items() if len(found) > 1} == again
    table = result.get_results().set_index("param_id")["score"]
    for name, found in values.items():
        assert table[int(name)] == pytest.approx(np.median(found))
    assert len((tmp_path / "r.csv").read_text().splitlines()) == len(result) + 1
    assert result.remeasured == sum(again.values())
    assert f"{result.remeasured} of {len(result) + result.remeasured} evaluations" in capfd.readouterr().err
    resumed = Search.resume(tmp_path / "runs" / "1").start()
    assert resumed.get_results()["score"].tolist() == result.get_results()["score"].tolist()


def test_an_objective_without_noise_is_soon_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIQ_RUNS_DIR", str(tmp_path / "runs"))
    Search(
        objective_function=lambda config: float(config["x"]),
        search_space={"x": Range(0, 99)},
        search_config={"generations": 5, "pool_size": 10},
        seed=3,
        remeasure_every=1,
        disable_progress_bar=True,
    ).start(num_workers=1)
    records = [
        json.loads(line) for line in (tmp_path / "runs" / "1" / "journal.jsonl").read_text().splitlines()
    ]
    again = [name for r in records if r["t"] == "remeasure" for name in r["ids"]]
    assert len(again) == 6
    assert (
        len({r["id"] for r in records if r["t"] == "outcome"})
        == len((tmp_path / "runs" / "1" / "results.csv").read_text().splitlines()) - 1
    )


def evaluation(name: str, value: float | None) -> Evaluation:
    outcome = Outcome("run_error") if value is None else Outcome("ok", (value,))
    return Evaluation(Candidate(name, {}, (0,), 0), 0, outcome)


def test_a_tie_by_chance_does_not_end_re_measurement() -> None:
    remeasurer = Remeasurer(1, ("min",))
    for name in "abc":
        remeasurer.take(evaluation(name, 1.0))
    remeasurer.sent(["a", "b"])
    assert remeasurer.take(evaluation("a", 1.0)).again
    pooled = remeasurer.take(evaluation("b", 2.0))
    assert (pooled.again, pooled.outcome.values, pooled.outcome.samples) == (True, (1.5,), 2)
    for _ in range(8):
        remeasurer.sent(["a"])
        remeasurer.take(evaluation("a", 1.0))
        remeasurer.take(evaluation("d", 9.0))
    assert remeasurer.due()


def test_a_leader_that_is_overtaken_while_it_is_measured_again_keeps_its_samples() -> None:
    remeasurer = Remeasurer(1, ("min",))
    remeasurer.take(evaluation("a", 5.0))
    remeasurer.sent(["a"])
    for number in range(20):
        remeasurer.take(evaluation(f"b{number}", float(number) / 10))
    pooled = remeasurer.take(evaluation("a", 7.0))
    assert pooled.outcome.values == (6.0,)
    assert pooled.outcome.samples == 2


def test_one_failure_of_a_leader_is_doubted_and_two_are_not() -> None:
    remeasurer = Remeasurer(1, ("min",))
    remeasurer.take(evaluation("a", 5.0))
    remeasurer.sent(["a"])
    kept = remeasurer.take(evaluation("a", None))
    assert (kept.again, kept.outcome.status, kept.outcome.values) == (True, "ok", (5.0,))
    remeasurer.take(evaluation("b", 6.0))
    assert "a" in remeasurer.due()
    remeasurer.sent(["a"])
    assert remeasurer.take(evaluation("a", None)).outcome.status == "run_error"


def test_ctrl_c_stops_a_race_of_short_calls() -> None:
    class Quick:
        closed = False

        def submit(self, task: Any) -> None:
            self.task = task

        def poll(self, timeout: float) -> list[Report]:
            return [Report(self.task.id, Outcome("ok", (1.0,)))]

        def cancel(self) -> list[str]:
            return []

        def close(self) -> None:
            self.closed = True

    worker = Quick()
    calls = iter([False, False, True])
    runner = BlockRunner(lambda: worker, lambda: next(calls))  # type: ignore[arg-type, return-value]
    measured = []
    with pytest.raises(RaceStopped):
        measured.extend(runner([Entrant("a", {})] * 9))
    assert worker.closed


def test_an_interrupted_race_with_a_tuple_in_its_baseline_goes_on(tmp_path: Path) -> None:
    begin = {"finalists": ["1"], "baseline": {"x": (3, 4)}, "plan": {"windows": 1}}
    journal = Journal.create(tmp_path, {})
    journal.write([{"t": "race_begins", **begin}, {"t": "race", "stage": "pick", "block": 0, "of": 9}])
    journal.close()
    assert len(_interrupted(tmp_path, begin) or []) == 1
    assert _interrupted(tmp_path, {**begin, "finalists": ["2"]}) is None
