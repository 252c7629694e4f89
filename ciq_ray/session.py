"""One run of a `Search`: its folder, journal, worker, trackers and results, set up and taken down."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciq_ray import journal as journals
from ciq_ray import origin, settings
from ciq_ray._files import write_atomic
from ciq_ray._result_csv import ResultCsv
from ciq_ray._result_table import table_columns
from ciq_ray._version import __version__
from ciq_ray.engine import Budget, Engine, Evaluation
from ciq_ray.errors import ConfigurationError, JournalError, ResultError, SearchFailedError
from ciq_ray.feed import TrackerFeed
from ciq_ray.interrupts import Interrupts
from ciq_ray.journal import Journal
from ciq_ray.progress import Progress
from ciq_ray.results import SearchResult
from ciq_ray.searching import make_searcher, searcher_record
from ciq_ray.spaces import describe
from ciq_ray.tracker import make_tracker
from ciq_ray.types import BaseTracker, Score, Worker, WorkerTypes
from ciq_ray.worker.adapter import WorkerAdapter, warn_unused
from ciq_ray.worker.protocol import NO_BASELINE, StreamingWorker

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from searchers.base import SpaceSearcher

__all__ = ["Session"]

logger = logging.getLogger(__name__)


class Session:
    """One run, from `Search.start` to its result.

    Args:
        search: What to run.
        num_workers: See `Search.start`.
        task_timeout: See `Search.start`.
        worker_kwargs: See `Search.start`.
        resume_folder: The folder of a run to go on with, ``None`` for a new one.
    """

    def __init__(
        self,
        search: Search,
        num_workers: int | None,
        task_timeout: float | None,
        worker_kwargs: dict[str, Any],
        resume_folder: Path | None,
    ) -> None:
        script = origin.importing.get()
        if script is not None:
            raise JournalError(
                f"{script!r} starts a search when it is imported; put that under `if __name__ == '__main__'`"
            )
        self.search = search
        self.config = search.search_config
        self.worker_kwargs = worker_kwargs
        self.resume_folder = resume_folder
        header = journals.read_header(resume_folder) if resume_folder is not None else {}
        self.num_workers = num_workers if num_workers is not None else header.get("num_workers")
        self.task_timeout = task_timeout if task_timeout is not None else header.get("task_timeout")
        seed = header.get("seed", search.seed)
        drawn = int(np.random.SeedSequence().generate_state(1, np.uint64)[0]) >> 1
        self.seed: int = drawn if seed is None else seed

    def run(self) -> SearchResult:
        """Do it all, and leave nothing behind whatever happens."""
        from threadpoolctl import threadpool_limits

        search = self.search
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts())
            tracker = self._tracker()
            folder = self._folder()
            journal = self._journal(folder)
            stack.callback(journal.close)
            cache = self._cache(folder)
            stack.callback(self._clean, cache)
            worker = self._worker(cache, tracker)
            stack.callback(worker.close)
            # worker processes come up while Ray Tune's base class is imported here
            searcher = make_searcher(search, self.seed)
            stack.enter_context(threadpool_limits(1))  # the cores belong to the candidates
            recorder = _Recorder(search, searcher, tracker)
            stack.callback(recorder.close)
            engine = Engine(
                searcher,
                worker,
                journal,
                budget=self._budget(searcher),
                observer=recorder,
                pool_size=self.config.resolved_pool_size,
                look_ahead=not isinstance(worker, WorkerAdapter),
                stop_requested=lambda: interrupts.requested,
                check=recorder.check,
            )
            total = self._total(searcher, engine)
            if self.resume_folder is not None:
                done = engine.replay(journals.read_records(folder))
                engine.resumed()
                self._say(f"run {search.run_id} goes on from {done} evaluations: {folder}")
                recorder.begin(total, done)
            else:
                self._say(f"run {search.run_id}: {folder}")
                recorder.begin(total, 0)
            reason, at_once = "failed", False
            try:
                reason = engine.run()
                recorder.check_end()
            except BaseException as error:
                reason = f"{type(error).__name__}: {error}"
                at_once = not isinstance(error, Exception)
                worker.cancel()
                raise
            finally:
                engine.end(reason)
                recorder.end(reason, at_once)
            recorder.result.save(folder / "results.csv")
            if reason == "stopped":
                self._say(f"stopped; go on with: ciq resume {folder}")
            return recorder.result

    # -- set-up -----------------------------------------------------------------------------------

    def _tracker(self) -> BaseTracker:
        config = self.search.tracker_config
        return config if isinstance(config, BaseTracker) else make_tracker(config)

    def _folder(self) -> Path:
        search = self.search
        if self.resume_folder is not None:
            name = self.resume_folder.name
            search.run_id = int(name) if name.isascii() and name.isdigit() else search.run_id
            return self.resume_folder
        runs = settings.runs_dir()
        try:
            runs.mkdir(parents=True, exist_ok=True)
            # one that an earlier start has assigned is no wish of the user's
            if search.run_id not in (None, search._assigned_run_id):
                folder = runs / str(search.run_id)
                folder.mkdir()
                return folder
            taken = [int(entry.name) for entry in runs.iterdir() if entry.name.isdigit()]
            number = max(taken, default=0) + 1
            while True:
                try:
                    (runs / str(number)).mkdir()
                    break
                except FileExistsError:
                    number += 1
        except FileExistsError as error:
            raise ConfigurationError(
                f"`run_id` is {search.run_id}, which exists in {runs}; leave it out, or go on with "
                f"`Search.resume({str(runs / str(search.run_id))!r})`"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a folder for the run in {runs} (CIQ_RUNS_DIR): {error.strerror}"
            ) from error
        search.run_id = search._assigned_run_id = number
        return runs / str(number)

    def _journal(self, folder: Path) -> Journal:
        if self.resume_folder is None:
            return Journal.create(folder, self._header())
        journal = Journal.reopen(folder)
        if journal.header.get("space_fingerprint") != self.search.space.fingerprint:
            journal.close()
            raise JournalError(
                f"the search space is not the one that {str(folder)!r} was begun with; give the same one"
            )
        return journal

    def _header(self) -> dict[str, Any]:
        search = self.search
        worker = search.worker_type
        constraints = list(search.constraints)
        return {
            "run_id": search.run_id,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": {
                "ciq_ray": __version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
            "machine": {
                "host": platform.node(),
                "platform": platform.platform(),
                "cpus": os.cpu_count(),
            },
            "objective": origin.describe(search.objective_function),
            "space": describe(search._space_parts, isinstance(search.search_space, (list, tuple))),
            "space_fingerprint": search.space.fingerprint,
            "constraints": constraints if all(isinstance(text, str) for text in constraints) else None,
            "search_config": self.config.to_json_dict(),
            "searcher": searcher_record(search.searcher),
            "searcher_options": search.searcher_options,
            "seed": self.seed,
            "initial_rows": None
            if search.initial_configs is None
            else [search.space.encode(config).tolist() for config in search.initial_configs],
            "worker_type": worker.value if isinstance(worker, WorkerTypes) else None,
            "max_evaluations": search.max_evaluations,
            "time_budget_s": search.time_budget_s,
            "target": search.target,
            "exit_on_failure": search.exit_on_failure,
            "num_workers": self.num_workers,
            "task_timeout": self.task_timeout,
        }

    def _cache(self, folder: Path) -> Path:
        base = self.search.cache_folder or settings.cache_dir() / "searches"
        try:
            base.mkdir(parents=True, exist_ok=True)
            cache = Path(tempfile.mkdtemp(prefix=f"run-{folder.name}-", dir=base))
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a folder in {base} (`cache_folder`): {error.strerror}"
            ) from error
        header = journals.read_header(folder)
        for name, content in (("search_space.json", "space"), ("main_config.json", "search_config")):
            write_atomic(cache / name, [json.dumps(header[content], indent=1).encode()])
        (cache / "logs").mkdir()
        return cache

    def _clean(self, cache: Path) -> None:
        if settings.keep_cache():
            self._say(f"cache files kept: {cache}")
        elif self.search.debug:
            for entry in cache.iterdir():
                if entry.name != "logs":
                    entry.unlink()
            self._say(f"logs of the workers kept: {cache / 'logs'}")
        else:
            shutil.rmtree(cache, ignore_errors=True)

    def _worker(self, cache: Path, tracker: BaseTracker) -> StreamingWorker:
        kind = self.search.worker_type
        worker_class: type[Worker] = kind.worker_type() if isinstance(kind, WorkerTypes) else kind
        worker = worker_class.create(cache, self.config.normalize, tracker)
        streaming: StreamingWorker
        if isinstance(worker, StreamingWorker):
            warn_unused(worker_class.__name__, self.worker_kwargs)
            streaming = worker
        else:
            streaming = WorkerAdapter(
                worker, pool_size=self.config.resolved_pool_size, options=self.worker_kwargs
            )
        baseline: Any = NO_BASELINE
        if self.config.normalize:
            space = self.search.space
            baseline = _empty(space) if space.default_row is None else space.decode(space.default_row)
        try:
            streaming.open(
                self.search.objective_function,
                num_workers=self.num_workers,
                task_timeout=self.task_timeout,
                num_objectives=self.config.num_objectives,
                baseline_config=baseline,
                log_dir=cache / "logs",
            )
        except BaseException:
            streaming.close()
            raise
        return streaming

    def _budget(self, searcher: SpaceSearcher) -> Budget:
        search, config = self.search, self.config
        limit = search.max_evaluations
        if not _has_generations(searcher):
            planned = config.generations * config.resolved_pool_size
            limit = planned if limit is None else min(limit, planned)
        modes = (str(config.problem_type.value),) * config.num_objectives
        return Budget(limit, search.time_budget_s, search.targets, modes)

    def _total(self, searcher: SpaceSearcher, engine: Engine) -> int:
        planned = self.config.generations * self.config.resolved_pool_size
        limits = [
            planned,
            engine.budget.max_evaluations,
            self.search.space.size,
            getattr(searcher, "count", None),
        ]
        return min(limit for limit in limits if limit is not None)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr)


class _Recorder:
    """Results, the CSV file, progress and tracker: whoever wants to know of each evaluation."""

    def __init__(self, search: Search, searcher: SpaceSearcher, tracker: BaseTracker) -> None:
        config = search.search_config
        self.search = search
        self.result = SearchResult(None, config.problem_type, config.num_objectives)
        self._config = config
        self._pool = config.resolved_pool_size
        self._searcher = searcher
        self._back: Counter[int] = Counter()
        self._first_failures: Counter[str] = Counter()
        self._failure_message = ""
        self._passed = 0
        self._best: list[float] | None = None
        self._best_text = ""
        self._replayed: list[Evaluation] = []
        self._progress: Progress | None = None
        self._feed = TrackerFeed(tracker, self._closed, self._entered)
        self._csv: ResultCsv | None = None
        if search.dump_results is not None:
            columns = table_columns(config.num_objectives, config.normalize)
            self._csv = ResultCsv(search.dump_results, columns)

    def begin(self, total: int, done: int) -> None:
        """The replay, if any, is over; from here on there is something to show."""
        self._progress = Progress(total, done=done, disable=self.search.disable_progress_bar)
        self._feed.start(run_id=self.search.run_id)
        for evaluation in self._replayed:
            self._track(evaluation, self._score(evaluation))
        self._replayed = []

    def evaluated(self, evaluation: Evaluation) -> None:
        """Take in one evaluation."""
        outcome, told = evaluation.outcome, evaluation.told
        score = self._score(evaluation)
        self._back[evaluation.generation] += 1
        self._passed += outcome.ok
        if not outcome.ok:
            self._first_failures[outcome.status] += 1
            self._failure_message = self._failure_message or outcome.message
        elif self._improved(told.values):
            self._best_text = ", ".join(f"{value:.6g}" for value in self._best or ())
        self.result.add_result(
            score,
            evaluation.generation,
            self._config.normalize,
            status=outcome.status,
            message=outcome.message,
        )
        if evaluation.replayed:
            self._replayed.append(evaluation)
            return
        self._track(evaluation, score)
        if self._progress is not None:
            self._progress.update(failed=not outcome.ok, best=self._best_text)
        if len(self.result) % self._pool == 0:
            self._dump(final=False)

    def tick(self) -> None:
        """Keep the display alive."""
        if self._progress is not None:
            self._progress.tick()

    def check(self) -> None:
        """End the search when its whole first generation has failed."""
        if self.search.exit_on_failure and not self._passed and self._back[0] >= self._pool:
            self._raise_failed(self._back[0])

    def check_end(self) -> None:
        """The same for a search that was shorter than a generation."""
        if self.search.exit_on_failure and not self._passed and self._back[0]:
            self._raise_failed(self._back[0])

    def end(self, reason: str, at_once: bool) -> None:
        """The search is over: everything that is recorded gets its end; hardly waits if `at_once`."""
        if self._progress is not None:
            self._progress.close()
        self._feed.end(at_once=at_once, reason=reason)
        self._dump(final=True)

    def close(self) -> None:
        """Whatever happened, leave no thread and no bar behind."""
        if self._progress is not None:
            self._progress.close()

    def _score(self, evaluation: Evaluation) -> Score:
        count = self._config.num_objectives
        outcome = evaluation.outcome
        invalid = Worker.invalidate_score(count)
        norm = None
        if self._config.normalize:
            norm = _as_score(evaluation.normalized) if outcome.ok else invalid
        return Score(
            score=_as_score(outcome.values) if outcome.ok else invalid,
            norm_score=norm,
            params=evaluation.candidate.config,
            metadata=evaluation.worker if outcome.ok else outcome.message,
            param_id=int(evaluation.candidate.id),
            num_objectives=count,
        )

    def _track(self, evaluation: Evaluation, score: Score) -> None:
        self._feed.evaluated(
            score, evaluation.generation, task_id=evaluation.candidate.id, worker=evaluation.worker
        )

    def _improved(self, values: tuple[float, ...]) -> bool:
        better = min if self._config.problem_type == "min" else max
        merged = list(values) if self._best is None else list(map(better, self._best, values))
        changed, self._best = merged != self._best, merged
        return changed

    def _closed(self, generation: int) -> bool:
        closed = self._searcher.generation_closed(generation)
        return self._back[generation] >= self._pool if closed is None else closed

    def _entered(self, generation: int) -> None:
        self.search.current_generation = generation

    def _dump(self, *, final: bool) -> None:
        if self._csv is not None:
            self._csv.add_rows(self.result.rows(self._csv.count))
            try:
                self._csv.flush(final=final)
            except ResultError as error:
                logger.warning("%s; the search goes on, and its results are in the run's folder too", error)

    def _raise_failed(self, count: int) -> None:
        kinds = ", ".join(f"{number} {kind}" for kind, number in self._first_failures.most_common())
        raise SearchFailedError(
            f"all {count} candidates of the first generation failed ({kinds}). The first said: "
            f"{self._failure_message.strip() or 'nothing'}\nCorrect the objective or the space; or set "
            "`exit_on_failure=False` if so many failures are to be expected"
        )


def _as_score(values: tuple[float, ...] | None) -> Any:
    if values is None:
        return None
    return values[0] if len(values) == 1 else values


def _empty(space: Any) -> Any:
    """What an objective is called with to measure a baseline when the space has no default."""
    encoding = space.encoding
    if () in encoding.renders:
        return ""
    if isinstance(encoding.tree, list):
        return ["" if (i,) in encoding.renders else {} for i in range(len(encoding.tree))]
    return {}


def _has_generations(searcher: SpaceSearcher) -> bool:
    return searcher.generation_closed(0) is not None
