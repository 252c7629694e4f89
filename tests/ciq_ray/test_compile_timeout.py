"""The adaptive limit on compiling: what it becomes, that it goes with each task, and that it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import Search
from ciq_ray.commands import CommandObjective
from ciq_ray.compile_timeout import CompileTimeout
from ciq_ray.engine import Budget, Engine, Evaluation
from ciq_ray.journal import Journal, read_records
from ciq_ray.worker.limits import compile_timeout, set_compile_timeout
from ciq_ray.worker.protocol import Report, Task
from searchers import (
    Choice,
    DESurrogateHybrid,
    DifferentialEvolutionSearch,
    GeneticSearch,
    Outcome,
    Range,
    Space,
)

SPACE = Space({"x": Range(0, 99)}, default={"x": 0})


def compiled(seconds: float | None, status: str = "ok") -> Outcome:
    return Outcome(status, (1.0,), compile_s=seconds)


class TestLimit:
    def after(self, outcomes: list[Outcome], population: int = 5, **options: Any) -> float | None:
        limit = CompileTimeout(options.get("lower", 1.0), options.get("quantile", 0.9), population)
        for outcome in outcomes:
            limit.observe(outcome)
        return limit.limit

    def test_a_quantile_of_the_compile_times(self) -> None:
        times = [compiled(float(t)) for t in range(11)]
        assert self.after(times, 11) == pytest.approx(9.0)
        assert self.after(times, 11, quantile=0.5) == pytest.approx(5.0)

    def test_never_less_than_the_lower_bound(self) -> None:
        assert self.after([compiled(0.1)] * 5, lower=30.0) == 30.0

    def test_none_before_the_initial_population_is_known(self) -> None:
        assert self.after([compiled(9.0)] * 9, 10) is None
        assert self.after([compiled(9.0)] * 9 + [Outcome("run_error")], 10) == 9.0

    def test_none_with_too_few_times(self) -> None:
        assert self.after([compiled(None)] * 50 + [compiled(9.0)] * 4) is None
        assert self.after([compiled(None)] * 50 + [compiled(9.0)] * 5) == 9.0

    def test_what_did_not_compile_is_no_compile_time(self) -> None:
        broken = [compiled(100.0, "compile_error"), compiled(100.0, "compile_timeout")] * 5
        assert self.after(broken) is None
        assert self.after([*broken, *[compiled(9.0, "run_error")] * 5]) == 9.0

    def test_set_once(self) -> None:
        assert self.after([compiled(9.0)] * 5 + [compiled(99.0)] * 50) == 9.0

    def test_of_a_searcher(self) -> None:
        assert CompileTimeout.of(GeneticSearch(SPACE)) is None
        for searcher in (DifferentialEvolutionSearch(SPACE, 12), DESurrogateHybrid(SPACE, 12)):
            limit = CompileTimeout.of(searcher)
            assert limit is not None
            assert (limit.lower_bound, limit.quantile, limit.population) == (30.0, 0.9, 12)
        started = DifferentialEvolutionSearch(SPACE, 12, initial_population_strategy="from_default")
        assert CompileTimeout.of(started).population == 1  # type: ignore[union-attr]


class Instant:
    """A worker that reports at once what `answer` says, and remembers its tasks."""

    free = 1

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.waiting: list[Task] = []

    def submit(self, task: Task) -> None:
        self.tasks.append(task)
        self.waiting.append(task)

    def poll(self, timeout: float) -> list[Report]:
        reports = [Report(task.id, compiled(2.0 + int(task.id) / 100)) for task in self.waiting]
        self.waiting = []
        return reports


class Nobody:
    def evaluated(self, evaluation: Evaluation) -> None:
        pass

    def tick(self) -> None:
        pass


def engine(journal: Journal, worker: Any, evaluations: int) -> Engine:
    searcher = DifferentialEvolutionSearch(
        SPACE, 8, seed=1, compile_timeout_lower_bound=1.0, compile_timeout_quantile=1.0
    )
    return Engine(
        searcher,
        worker,
        journal,
        budget=Budget(evaluations),
        observer=Nobody(),
        pool_size=8,
        compile_timeout=CompileTimeout.of(searcher),
    )


def test_it_goes_with_each_task_and_a_resumed_search_comes_to_the_same(tmp_path: Path) -> None:
    journal, worker = Journal.create(tmp_path, {}), Instant()
    engine(journal, worker, 12).run()
    journal.close()
    limits = [task.compile_timeout for task in worker.tasks]
    assert limits == [None] * 8 + [pytest.approx(2.07)] * 4
    journal, worker = Journal.reopen(tmp_path), Instant()
    resumed = engine(journal, worker, 14)
    resumed.replay(read_records(tmp_path))
    resumed.run()
    journal.close()
    assert [task.compile_timeout for task in worker.tasks] == [pytest.approx(2.07)] * 2


class TestCommands:
    def objective(self, folder: Path, **options: Any) -> CommandObjective:
        return CommandObjective("echo {s}", build="sleep {s}", directory=folder, **options)

    @pytest.mark.parametrize(("own", "given"), [(None, 0.2), (30, 0.2), (0.2, 30), (0.2, None)])
    def test_the_lower_limit_counts(self, tmp_path: Path, own: float | None, given: float | None) -> None:
        set_compile_timeout(given)
        try:
            outcome = self.objective(tmp_path, build_timeout=own)({"s": 20})
        finally:
            set_compile_timeout(None)
        assert outcome.status == "compile_timeout"
        assert outcome.compile_s is not None
        assert 0.2 <= outcome.compile_s < 10
        assert "stopped after 0.2" in outcome.message

    def test_no_limit(self, tmp_path: Path) -> None:
        assert compile_timeout() is None
        assert self.objective(tmp_path)({"s": 0.3}).status == "ok"

    @pytest.mark.parametrize("worker", ["native", "isolated"])
    def test_a_search_learns_what_is_too_long(self, tmp_path: Path, runs: Path, worker: str) -> None:
        (tmp_path / "source").mkdir()
        space = Space({"s": Choice([0, 20], ordered=False), "n": Range(0, 99)})
        known = [{"s": 0, "n": n} for n in range(5)]
        search = Search(
            objective_function=CommandObjective(
                "echo {n}", build="sleep {s}", directory=tmp_path / "source", copy=False
            ),
            search_space=space,
            search_config={"generations": 1},
            searcher="de",
            searcher_options={"population_size": 5, "compile_timeout_lower_bound": 0.4},
            initial_configs=[*known, {"s": 20, "n": 7}, {"s": 20, "n": 8}],
            max_evaluations=7,
            worker_type=worker,
            disable_progress_bar=True,
            seed=1,
        )
        search.start(num_workers=1)
        lines = [json.loads(line) for line in (runs / "1" / "journal.jsonl").read_text().splitlines()]
        outcomes = [line["outcome"] for line in lines if line["t"] == "outcome"]
        assert [outcome["status"] for outcome in outcomes[:5]] == ["ok"] * 5
        assert outcomes[-1]["status"] == "compile_timeout"
        assert "stopped after 0.4" in outcomes[-1]["message"]


class TestWorkers:
    @pytest.mark.parametrize("worker", ["native", "isolated", "async"])
    def test_an_objective_can_ask_for_it(self, tmp_path: Path, worker: str) -> None:
        from ciq_ray.types import WorkerTypes

        streaming: Any = WorkerTypes(worker).worker_type().create(tmp_path)
        streaming.open(asking(worker == "async"), num_workers=1)
        try:
            found = []
            for number, seconds in enumerate([2.5, None, 1.5]):
                while not streaming.free:
                    streaming.poll(0.1)
                streaming.submit(Task(str(number), {}, compile_timeout=seconds))
                reports: list[Report] = []
                while not reports:
                    reports = streaming.poll(1.0)
                found.append(reports[0].outcome.values)
        finally:
            streaming.close()
        assert found == [(2.5,), (-1.0,), (1.5,)]


def asking(asynchronous: bool) -> Any:
    """An objective that goes to the worker by value."""

    def objective(config: Any) -> float:
        from ciq_ray.worker.limits import compile_timeout

        limit = compile_timeout()
        return -1.0 if limit is None else limit

    async def asynchronous_objective(config: Any) -> float:
        return objective(config)

    return asynchronous_objective if asynchronous else objective
