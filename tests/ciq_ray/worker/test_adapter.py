from __future__ import annotations

import threading
import time
import warnings

import pytest

from ciq_ray.errors import BaselineError, ConfigurationError, WorkerError
from ciq_ray.types import Score, Worker
from ciq_ray.worker.adapter import WorkerAdapter
from ciq_ray.worker.protocol import Report, StreamingWorker, Task


class Custom(Worker):
    """Runs everything in order in its own thread, and remembers its calls."""

    def __init__(self, cache_folder=".", normalize=False, tracker=None, **flags):
        super().__init__(cache_folder, normalize, tracker, **flags)
        self.calls = []

    @classmethod
    def create(cls, cache_folder, normalize, tracker):
        return cls(cache_folder, normalize, tracker)

    def run(self, *, function, params_pool, params_ids, num_function_returns=1, num_workers=1, **kwargs):
        self.calls.append((list(params_pool), self.current_generation, num_workers, kwargs))
        return self.finished(
            [
                Score(
                    score=function(params),
                    params=params,
                    param_id=param_id,
                    num_objectives=num_function_returns,
                )
                for params, param_id in zip(params_pool, params_ids, strict=True)
            ]
        )

    def finished(self, scores):
        return scores


def collect(adapter: WorkerAdapter, count: int) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    deadline = time.monotonic() + 10
    while len(reports) < count:
        reports |= {report.task_id: report for report in adapter.poll(1)}
        assert time.monotonic() < deadline
    return reports


@pytest.fixture
def adapted():
    adapters = []

    def make(worker, function=lambda config: config["x"], *, pool_size=4, options=None, **rest):
        adapter = WorkerAdapter(worker, pool_size=pool_size, options=options)
        adapters.append(adapter)
        adapter.open(function, **rest)
        return adapter

    yield make
    for adapter in adapters:
        adapter.close()


def submit(adapter, *xs, generation=0):
    for x in xs:
        adapter.submit(Task(f"t{x}", {"x": x}, generation))


def test_a_pool_goes_in_one_call(adapted):
    worker = Custom()
    adapter = adapted(worker, num_workers=3)
    assert isinstance(adapter, StreamingWorker)
    assert adapter.free == 4
    submit(adapter, 3, 1, 2)
    assert adapter.free == 1
    reports = collect(adapter, 3)
    assert {name: report.outcome.values for name, report in reports.items()} == {
        "t3": (3.0,),
        "t1": (1.0,),
        "t2": (2.0,),
    }
    assert reports["t1"].worker == "Custom"
    assert worker.calls == [([{"x": 3}, {"x": 1}, {"x": 2}], 0, 3, {})]
    assert adapter.free == 4


def test_each_generation_has_its_own_call(adapted):
    worker = Custom()
    adapter = adapted(worker)
    submit(adapter, 1, 2)
    submit(adapter, 3, generation=1)
    submit(adapter, 4)
    collect(adapter, 4)
    assert [([p["x"] for p in params], generation) for params, generation, *_ in worker.calls] == [
        ([1, 2, 4], 0),
        ([3], 1),
    ]


def test_scores_in_another_order(adapted):
    class Reversed(Custom):
        def finished(self, scores):
            return scores[::-1]

    adapter = adapted(Reversed())
    submit(adapter, 1, 2, 3)
    assert collect(adapter, 3)["t1"].outcome.values == (1.0,)


def test_poll_stays_live(adapted):
    adapter = adapted(Custom(), lambda config: time.sleep(0.5) or 1.0)
    submit(adapter, 1)
    started = time.monotonic()
    assert adapter.poll(0.1) == []
    assert time.monotonic() - started < 0.4
    assert adapter.free == 3
    assert collect(adapter, 1)["t1"].outcome.ok


def test_the_worker_gets_copies(adapted):
    adapter = adapted(Custom(), lambda config: config.pop("x"))
    config = {"x": 1}
    adapter.submit(Task("a", config))
    collect(adapter, 1)
    assert config == {"x": 1}


def test_failed_scores(adapted):
    class Failing(Custom):
        def finished(self, scores):
            scores[0].metadata = "the board is off"
            return scores

    adapter = adapted(Failing(), lambda config: "*")
    submit(adapter, 1, 2)
    reports = collect(adapter, 2)
    assert {report.outcome.status for report in reports.values()} == {"invalid_result"}
    assert reports["t1"].outcome.message == "the board is off"
    assert "invalid score" in reports["t2"].outcome.message


def test_missing_and_double_scores_fail_their_candidates(adapted):
    class Careless(Custom):
        def finished(self, scores):
            return [scores[0], scores[0], scores[2]]

    adapter = adapted(Careless())
    submit(adapter, 1, 2, 3)
    reports = collect(adapter, 3)
    assert "2 scores" in reports["t1"].outcome.message
    assert "no score" in reports["t2"].outcome.message
    assert reports["t3"].outcome.ok


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "returned None; it must return a list of Score"),
        ([1.0], "a float in its list"),
        ([Score(score=1.0, params={}, param_id=99, num_objectives=1)], "`param_id` 99"),
    ],
)
def test_wrong_results_end_the_search(adapted, result, words):
    class Wrong(Custom):
        def finished(self, scores):
            return result

    adapter = adapted(Wrong())
    submit(adapter, 1)
    with pytest.raises(WorkerError, match=words):
        collect(adapter, 1)
    with pytest.raises(WorkerError, match=words):
        adapter.poll(0)


def test_an_exception_in_run_ends_the_search(adapted):
    def objective(config):
        raise ValueError("no")

    adapter = adapted(Custom(), objective)
    submit(adapter, 1)
    with pytest.raises(WorkerError, match=r"Custom.run raised ValueError: no") as caught:
        collect(adapter, 1)
    assert isinstance(caught.value.__cause__, ValueError)


def test_timeout_only_for_workers_that_support_it(adapted):
    worker = Custom(supports_timeout=True)
    adapter = adapted(worker, task_timeout=7)
    submit(adapter, 1)
    collect(adapter, 1)
    assert worker.calls[0][3] == {"task_timeout": 7}

    other = Custom()
    with pytest.warns(UserWarning, match="Custom does not support `task_timeout`"):
        adapter = adapted(other, task_timeout=7)
    submit(adapter, 1)
    collect(adapter, 1)
    assert other.calls[0][3] == {}


def test_options_nobody_uses_are_a_warning(adapted):
    class Strict(Custom):
        def run(self, *, function, params_pool, params_ids, num_function_returns=1, num_workers=1, board="a"):
            self.board = board
            return super().run(function=function, params_pool=params_pool, params_ids=params_ids)

    worker = Strict()
    with pytest.warns(UserWarning, match="Strict does not use `bord`"):
        adapter = adapted(worker, options={"bord": "b", "board": "c"})
    submit(adapter, 1)
    assert collect(adapter, 1)["t1"].outcome.ok
    assert worker.board == "c"

    loose = Custom()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter = adapted(loose, options={"anything": 1})
    submit(adapter, 1)
    collect(adapter, 1)
    assert loose.calls[0][3] == {"anything": 1}


def test_the_baseline_is_measured_each_generation(adapted):
    class Normalizing(Custom):
        def finished(self, scores):
            for score in scores:
                if self.baseline_score is not None:
                    score.norm_score = self.normalize_scores(score.score, self.baseline_score)
            return scores

    worker = Normalizing(normalize=True)
    adapter = adapted(worker, baseline_config={"x": 4})
    submit(adapter, 1)
    submit(adapter, 2, generation=1)
    reports = collect(adapter, 2)
    assert [params for params, *_ in worker.calls] == [[{"x": 4}], [{"x": 1}], [{"x": 4}], [{"x": 2}]]
    assert reports["t1"].outcome.values == (1.0,)
    assert reports["t1"].baseline == (4.0,)
    assert reports["t2"].normalized == (0.5,)


def test_scores_of_the_workers_own_baseline_are_skipped(adapted):
    class Own(Custom):
        def finished(self, scores):
            self.baseline_score = 8.0
            base = Score(score=8.0, params={}, param_id="base", num_objectives=1, is_baseline=True)
            return [base, *scores]

    adapter = adapted(Own(normalize=True))
    submit(adapter, 1)
    report = collect(adapter, 1)["t1"]
    assert report.outcome.ok
    assert report.baseline == (8.0,)


@pytest.mark.parametrize(("value", "words"), [("*", "failed"), (0, "divided by 0")])
def test_a_baseline_that_fails_ends_the_search(adapted, value, words):
    adapter = adapted(Custom(normalize=True), baseline_config={"x": value})
    submit(adapter, 1)
    with pytest.raises(BaselineError, match=words):
        collect(adapter, 1)


def test_cancel_drops_what_comes_back_later(adapted):
    release = threading.Event()
    running = threading.Semaphore(1)

    def objective(config):
        assert running.acquire(blocking=False), "two calls of run at a time"
        if config["x"] == 1:
            release.wait(10)
        running.release()
        return config["x"]

    adapter = adapted(Custom(), objective)
    submit(adapter, 1)
    assert adapter.poll(0.05) == []
    submit(adapter, 2)
    assert adapter.cancel() == ["t1", "t2"]
    assert adapter.free == 4
    submit(adapter, 3)
    assert adapter.poll(0.1) == []  # the call that was dropped is still running
    release.set()
    assert {name: report.outcome.values for name, report in collect(adapter, 1).items()} == {"t3": (3.0,)}


def test_close_says_when_it_leaves_something_behind():
    release = threading.Event()
    adapter = WorkerAdapter(Custom(), pool_size=1)
    adapter.open(lambda config: release.wait(10) and 1.0)
    submit(adapter, 1)
    adapter.poll(0.05)
    with pytest.warns(UserWarning, match=r"Custom.run has not returned"):
        adapter.close()
    release.set()
    adapter.close()
    with pytest.raises(WorkerError, match="not open"):
        adapter.poll(0)


def test_bad_arguments():
    with pytest.raises(ConfigurationError, match="`worker` is 3"):
        WorkerAdapter(3, pool_size=1)
    with pytest.raises(ConfigurationError, match="`pool_size` is 0"):
        WorkerAdapter(Custom(), pool_size=0)
    with pytest.raises(ConfigurationError, match="must be callable"):
        WorkerAdapter(Custom(), pool_size=1).open(3)
    adapter = WorkerAdapter(Custom(), pool_size=1)
    adapter.open(lambda config: 1.0)
    submit(adapter, 1)
    with pytest.raises(WorkerError, match="nothing is free"):
        submit(adapter, 2)
    adapter.close()
