from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import ciq_ray.worker
from ciq_ray.errors import BaselineError, ConfigurationError, WorkerError
from ciq_ray.types import INVALID_SCORE, BaseTracker, DisabledTrackerConfig, Score, Worker, WorkerTypes
from ciq_ray.worker import AsyncWorker, IsoMultiProcessWorker, MultiProcessWorker
from ciq_ray.worker.protocol import StreamingWorker

KINDS = [MultiProcessWorker, IsoMultiProcessWorker, AsyncWorker]


def _objective(kind):
    async def asynchronous(config):
        return blocking(config)

    def blocking(config):
        if config == {}:
            return 2.0
        if config["x"] < 0:
            raise ValueError("negative")
        return config["x"]

    return asynchronous if kind is AsyncWorker else blocking


@pytest.mark.parametrize("kind", KINDS)
def test_both_contracts(kind, tmp_path):
    worker = kind.create(tmp_path, False, None)
    assert isinstance(worker, Worker)
    assert isinstance(worker, StreamingWorker)
    assert worker.respects_num_workers
    assert worker.supports_timeout
    assert worker.free == 0
    assert worker.cancel() == []
    worker.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("NATIVE", MultiProcessWorker), ("ISOLATED", IsoMultiProcessWorker), ("ASYNC", AsyncWorker)],
)
def test_types_name_these_classes(name, kind):
    assert WorkerTypes[name].worker_type() is kind


@pytest.mark.parametrize("kind", KINDS)
def test_run_gives_one_score_each_in_order(kind, tmp_path):
    pool = [{"x": 3}, {"x": -1}, {"x": 1}]
    scores = kind(tmp_path).run(
        function=_objective(kind), params_pool=pool, params_ids=[7, 8, 9], num_workers=2, task_timeout=20
    )
    assert all(isinstance(score, Score) for score in scores)
    assert [(score.param_id, score.score, score.params) for score in scores] == [
        (7, 3.0, {"x": 3}),
        (8, INVALID_SCORE, {"x": -1}),
        (9, 1.0, {"x": 1}),
    ]
    assert [score.failed for score in scores] == [False, True, False]
    assert scores[1].metadata.startswith("run_error: ValueError: negative")
    assert scores[0].norm_score is None


def test_run_with_several_objectives_and_a_timeout(tmp_path):
    def objective(config):
        time.sleep(config["x"])
        return 1, 2

    scores = MultiProcessWorker(tmp_path).run(
        function=objective,
        params_pool=[{"x": 0}, {"x": 60}],
        params_ids=[0, 1],
        num_function_returns=2,
        num_workers=1,
        task_timeout=0.3,
    )
    assert [score.score for score in scores] == [(1.0, 2.0), (INVALID_SCORE, INVALID_SCORE)]
    assert scores[1].metadata.startswith("run_timeout: ")


def test_run_normalizes_with_what_it_measures(tmp_path):
    run = {"function": _objective(None), "params_pool": [{"x": 3}, {"x": -1}], "params_ids": [0, 1]}
    worker = MultiProcessWorker(tmp_path, normalize=True)
    assert [score.norm_score for score in worker.run(**run)] == [1.5, INVALID_SCORE]
    worker.baseline_score = 6.0
    scores = worker.run(**run)
    assert [score.norm_score for score in scores] == [0.5, INVALID_SCORE]
    assert scores[0].score == 3.0


def test_run_with_a_failing_baseline(tmp_path):
    worker = MultiProcessWorker(tmp_path, normalize=True)
    with pytest.raises(BaselineError, match="KeyError"):
        worker.run(function=lambda config: config["x"], params_pool=[{"x": 1}], params_ids=[0])


def test_run_warns_of_what_it_does_not_use(tmp_path):
    with pytest.warns(UserWarning, match="MultiProcessWorker does not use `num_gpus`, `label`"):
        scores = MultiProcessWorker(tmp_path).run(
            function=_objective(None), params_pool=[{"x": 1}], params_ids=[0], num_gpus=1, label="a"
        )
    assert scores[0].score == 1.0


def test_run_on_nothing_and_on_mismatched_ids(tmp_path):
    worker = MultiProcessWorker(tmp_path, normalize=True)
    assert worker.run(function=_objective(None), params_pool=[], params_ids=[]) == []
    with pytest.raises(ConfigurationError, match="1 ids for 2 parameter sets"):
        worker.run(function=_objective(None), params_pool=[{}, {}], params_ids=[0])


def test_run_tells_the_tracker(tmp_path):
    class Recording(BaseTracker):
        def __init__(self):
            self.events = []
            super().__init__(DisabledTrackerConfig())

        def search_starts(self, **kwargs): ...
        def search_ends(self, **kwargs): ...
        def generation_starts(self, generation_number, **kwargs): ...
        def generation_ends(self, generation_number, **kwargs): ...

        def pre_objective(self, config, **kwargs):
            self.events.append(("pre", config, kwargs["task_id"]))

        def post_objective(self, scores, **kwargs):
            self.events.append(("post", json.loads(scores)["score"], kwargs["task_id"]))

    tracker = Recording()
    MultiProcessWorker(tmp_path, tracker=tracker).run(
        function=_objective(None), params_pool=[{"x": 4}], params_ids=[11]
    )
    assert tracker.events == [("pre", {"x": 4}, 11), ("post", 4.0, 11)]


def test_a_worker_is_open_once(tmp_path):
    worker = MultiProcessWorker(tmp_path)
    worker.open(_objective(None), num_workers=1)
    with pytest.raises(WorkerError, match="open already"):
        worker.open(_objective(None), num_workers=1)
    worker.close()
    worker.open(_objective(None), num_workers=1)
    worker.close()


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError):
        _ = ciq_ray.worker.NoSuchWorker


def test_the_package_is_light_and_a_process_lighter():
    code = (
        "import sys, ciq_ray.worker, ciq_ray.worker.child; "
        "heavy = ('ray', 'pydantic', 'pandas', 'numpy', 'cloudpickle', 'searchers'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    code = (
        "import sys, ciq_ray.worker.local, ciq_ray.worker.slots; "
        "print([m for m in ('ray', 'pydantic', 'pandas', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
