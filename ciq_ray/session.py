"""One run of a `Search`: its folder, journal, worker, trackers and results, set up and taken down."""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciq_ray import journal as journals
from ciq_ray import origin, scratch, settings
from ciq_ray._files import write_atomic
from ciq_ray._trackers.run_tracker import RunTracker
from ciq_ray.compile_timeout import CompileTimeout
from ciq_ray.engine import Budget, Engine, Observers
from ciq_ray.errors import CiqError, ConfigurationError, JournalError
from ciq_ray.interrupts import Interrupts
from ciq_ray.journal import Journal
from ciq_ray.kernels.protocol import Kernel
from ciq_ray.kernels.worker import KernelWorker
from ciq_ray.progress import RaceProgress
from ciq_ray.race import Plan
from ciq_ray.race_of_run import baseline_is_known, decided_race, try_baseline
from ciq_ray.racing import BlockRunner, RaceStopped, baseline_of, race_results
from ciq_ray.rebuild import load_result
from ciq_ray.recorder import Recorder
from ciq_ray.remeasure import Remeasurer
from ciq_ray.results import SearchResult
from ciq_ray.resuming import recorded_worker_options
from ciq_ray.run_folder import keep_logs, new_folder, remove_unused
from ciq_ray.run_header import run_header
from ciq_ray.searching import effective_options, make_searcher
from ciq_ray.tracker import DisabledTracker, logging_exception, make_tracker
from ciq_ray.types import BaseTracker, Worker, WorkerTypes
from ciq_ray.warm_start import WarmStart
from ciq_ray.worker.adapter import WorkerAdapter, warn_unused
from ciq_ray.worker.protocol import NO_BASELINE, StreamingWorker, TakesOptions

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.kernels.stations import Stations
    from searchers.base import SpaceSearcher

__all__ = ["Session"]

logger = logging.getLogger(__name__)

_USED = "_ciq_used"
"""Attribute of a tracker that a search has had before."""
_KERNEL_COMPILE_LIMIT = 30.0, 0.9, 20
"""At least 30 s, else the 0.9 quantile of the first 20 compile times, as in Helion's autotuner."""


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
        self.resume_folder = resume_folder
        self.folder: Path | None = None
        header = journals.read_header(resume_folder) if resume_folder is not None else {}
        self.worker_kwargs = {**recorded_worker_options(header, worker_kwargs), **worker_kwargs}
        self.num_workers = num_workers if num_workers is not None else header.get("num_workers")
        self.task_timeout = task_timeout if task_timeout is not None else header.get("task_timeout")
        # as they were when the run began, whatever is in the environment and in the cache by now
        self.options = effective_options(search) if resume_folder is None else search.searcher_options
        self.warm_start = WarmStart(search, self.options, self.worker_kwargs)
        self.cached_rows = self.warm_start.rows() if resume_folder is None else header.get("cached_rows", [])
        seed = header.get("seed", search.seed)
        drawn = int(np.random.SeedSequence().generate_state(1, np.uint64)[0]) >> 1
        self.seed: int = drawn if seed is None else seed
        self._stations: Stations | None = None

    def run(self) -> SearchResult:
        """Do it all, and leave nothing behind whatever happens."""
        from threadpoolctl import threadpool_limits

        search = self.search
        recorder: Recorder | None = None
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts())
            stack.push(self._say_how_to_go_on)
            self._hold(stack)
            self._compare_devices(stack)
            tracker = self._tracker()
            _whatever_happens(stack, lambda: self._clean_up(tracker, recorder))
            folder = self._folder(stack)
            journal = self._journal(folder)
            _whatever_happens(stack, journal.close)
            followed = tracker if isinstance(tracker, RunTracker) else None
            if followed is not None:

                def close_tracker(kind: object, error: BaseException | None, trace: object) -> None:
                    with interrupts.afterwards() as stop_requested:
                        followed.run_closed(_result_of(recorder), error, stop_requested)

                stack.push(close_tracker)
                followed.run_opened(folder, journal.header)
            cache = self._cache(folder, stack)
            if search.final_race and self._stations is None:  # a kernel's is measured as the control
                self._try_baseline(cache, tracker, interrupts)
            worker = self._worker(cache, tracker)
            _whatever_happens(stack, worker.close)
            # worker processes come up while Ray Tune's base class is imported here
            searcher = make_searcher(search, self.seed, options=self.options, further_rows=self.cached_rows)
            stack.enter_context(threadpool_limits(1))  # the cores belong to the candidates
            stack.enter_context(_frozen_heap())
            recorder = Recorder(search, searcher, tracker)
            recorder.result.folder = folder
            _whatever_happens(stack, recorder.close)
            engine = Engine(
                searcher,
                worker,
                journal,
                budget=self._budget(searcher),
                observer=Observers(recorder, self.warm_start),
                pool_size=self.config.resolved_pool_size,
                look_ahead=not isinstance(worker, WorkerAdapter),
                compile_timeout=self._compile_timeout(searcher),
                remeasurer=self._remeasurer(searcher),
                stop_requested=lambda: interrupts.requested,
                max_resends=worker.max_resends if isinstance(worker, (TakesOptions, KernelWorker)) else None,
                prepare=lambda: self._prepare(searcher, stack),
                task_context=None if followed is None else recorder.task_context,
                check=recorder.check,
            )
            total = self._total(searcher, engine)
            done = 0
            if self.resume_folder is not None:
                self._prepare(searcher, stack)  # with more threads, the last bits of a model may be others
                done = engine.replay(journals.read_records(folder))
                engine.resumed()
                self._say(f"run {search.run_id} goes on from {done} evaluations: {folder}")
            else:
                self._say(f"run {search.run_id}: {folder}")
            self._search(engine, recorder, lambda: recorder.begin(total, done))
            self.warm_start.save(searcher)
            result = recorder.result
            result.save(folder / "results.csv")
            reason = result.ended
            if reason != "stopped" and search.final_race:
                worker.close()  # nothing else runs while the race is timed
                if followed is not None:
                    with interrupts.afterwards() as stop_requested:
                        followed.settle(stop_requested)
                reason = self._race(recorder, journal, cache, tracker, interrupts)
            if reason == "stopped":
                self._say(f"stopped; go on with: ciq resume {folder}")
            return result

    def _prepare(self, searcher: SpaceSearcher, stack: ExitStack) -> None:
        """Load what the searcher needs while the first candidates run, and have it keep to one thread."""
        from threadpoolctl import threadpool_limits

        searcher.prepare()
        stack.enter_context(threadpool_limits(1))  # the limit set before is of libraries loaded before

    def _search(self, engine: Engine, recorder: Recorder, begin: Callable[[], None]) -> None:
        """The search itself; whatever happens, everything that is recorded gets its end."""
        reason, at_once = "failed", False
        with ExitStack() as ends:
            _whatever_happens(ends, lambda: recorder.end(reason, at_once))
            _whatever_happens(ends, lambda: engine.end(reason))
            try:
                begin()
                reason = recorder.result.ended = engine.run()
                recorder.check_end()
            except BaseException as error:
                reason = f"{type(error).__name__}: {error}"
                at_once = not isinstance(error, Exception)
                _whatever_happens(ends, engine.worker.cancel)
                raise

    def race_only(self, plan: Plan | None, say: Callable[[str], None]) -> SearchResult:
        """Race the best of a run that is over; see `ciq_ray.racing.race_run`."""
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts())
            self._hold(stack)
            folder = self._folder(stack)
            journal = self._journal(folder)
            _whatever_happens(stack, journal.close)
            result = load_result(folder, self.search)
            cache = self._cache(folder, stack)
            runner = self._runner(cache, DisabledTracker(), interrupts)
            try:
                race_results(self.search, result, journal, plan or self._plan(), runner, anew=True, say=say)
            except RaceStopped:
                raise KeyboardInterrupt from None
            return result

    def _race(
        self, recorder: Recorder, journal: Journal, cache: Path, tracker: BaseTracker, interrupts: Interrupts
    ) -> str:
        """The final race; returns why it ended."""
        result = recorder.result
        decided = decided_race(journal.path.parent, result) if self.resume_folder is not None else None
        if decided is not None:
            result.verdict, result.race = decided.verdict, decided
            return "finished"
        runner = self._runner(cache, tracker, interrupts)
        progress = RaceProgress(disable=self.search.disable_progress_bar)
        try:
            race_results(
                self.search,
                result,
                journal,
                self._plan(),
                runner,
                say=progress.say,
                call_s=recorder.call_s,
            )
        except RaceStopped:
            return "stopped"
        except CiqError as error:  # the search's own results are not lost for that
            progress.say(f"there is no verdict: {error}")
        finally:
            progress.close()
        return "finished"

    def _try_baseline(self, cache: Path, tracker: BaseTracker, interrupts: Interrupts) -> None:
        if self.resume_folder is not None and baseline_is_known(journals.read_records(self.resume_folder)):
            return
        runner = self._runner(cache, tracker, interrupts)
        with suppress(RaceStopped):  # the search is about to stop for the same reason
            try_baseline(self.search, runner)

    def _runner(self, cache: Path, tracker: BaseTracker, interrupts: Interrupts) -> BlockRunner:
        return BlockRunner(lambda: self._worker(cache, tracker, racing=True), lambda: interrupts.requested)

    def _plan(self) -> Plan:
        plan = self.search.final_race
        return plan if isinstance(plan, Plan) else Plan(seed=self.seed % 2**32)

    def _remeasurer(self, searcher: SpaceSearcher) -> Remeasurer:
        search, config = self.search, self.config
        generations = 2 if search.remeasure_every is None else search.remeasure_every
        return Remeasurer(
            generations * config.resolved_pool_size,
            (config.problem_type.value,) * config.num_objectives,
            only_if_noisy=search.remeasure_every is None and not search.final_race,
            front=lambda: [candidate.id for candidate, _ in searcher.front],
        )

    # -- set-up -----------------------------------------------------------------------------------

    def _tracker(self) -> BaseTracker:
        config = self.search.tracker_config
        if not isinstance(config, BaseTracker):
            return make_tracker(config)
        if vars(config).get(_USED):  # and cleaned up since
            config.setup(**getattr(config, "kwargs", {}))
        vars(config)[_USED] = True
        return config

    def _clean_up(self, tracker: BaseTracker, recorder: Recorder | None) -> None:
        """Clean up a tracker that no feed has cleaned up."""
        if recorder is None or not recorder.tracker_ended:
            logging_exception(tracker.cleanup)()

    def _folder(self, stack: ExitStack) -> Path:
        """The run's folder; one that is made here is removed with `stack` if the start fails."""
        if self.resume_folder is None:
            before = self.search.run_id
            folder = new_folder(self.search)
            stack.push(lambda kind, error, trace: remove_unused(self.search, folder, before, error))
        else:
            folder = self.resume_folder
            if folder.name.isascii() and folder.name.isdigit():
                self.search.run_id = int(folder.name)
        self.folder = folder
        return folder

    def _journal(self, folder: Path) -> Journal:
        if self.resume_folder is None:
            header = run_header(
                self.search,
                seed=self.seed,
                options=self.options,
                cached_rows=self.cached_rows,
                num_workers=self.num_workers,
                task_timeout=self.task_timeout,
                worker_options=self.worker_kwargs,
            )
            return Journal.create(folder, header)
        journal = Journal.reopen(folder)
        if journal.header.get("space_fingerprint") != self.search.space.fingerprint:
            journal.close()
            raise JournalError(
                f"the search space is not the one that {str(folder)!r} was begun with; give the same one"
            )
        return journal

    def _cache(self, folder: Path, stack: ExitStack) -> Path:
        """A folder for what is needed meanwhile, cleaned up with `stack`."""
        base = self.search.cache_folder or settings.cache_dir() / "searches"
        kept = settings.keep_cache() or self.search.debug
        try:
            base.mkdir(parents=True, exist_ok=True)
            scratch.remove_orphans(base)
            cache = stack.enter_context(scratch.owned(base, folder.name, kept=kept))
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a folder in {base} (`cache_folder`): {error.strerror}"
            ) from error
        if kept:
            _whatever_happens(stack, lambda: self._keep(cache))
        header = journals.read_header(folder)
        for name, content in (("search_space.json", "space"), ("main_config.json", "search_config")):
            write_atomic(cache / name, [json.dumps(header[content], indent=1).encode()])
        (cache / "logs").mkdir()
        return cache

    def _keep(self, cache: Path) -> None:
        if settings.keep_cache():
            self._say(f"cache files kept: {cache}")
            return
        keep_logs(cache)
        self._say(f"logs of the workers kept: {cache / 'logs'}")

    def _worker_class(self) -> type[Worker]:
        kind = self.search.worker_type
        return kind.worker_type() if isinstance(kind, WorkerTypes) else kind

    def _hold(self, stack: ExitStack) -> None:
        """Check the options of the worker, and keep over a race what is expensive to start, with `stack`."""
        kernel = self.search.objective_function
        if isinstance(kernel, Kernel):
            from ciq_ray.kernels.stations import Stations

            kind = self.search.worker_type
            stations = Stations(kernel, kind, self.num_workers, self.task_timeout, self.worker_kwargs)
            self._stations = stack.enter_context(stations)
            return
        worker_class = self._worker_class()
        if issubclass(worker_class, TakesOptions):
            stack.enter_context(worker_class.hold(self.num_workers, self.worker_kwargs))

    def _compare_devices(self, stack: ExitStack) -> None:
        """Have scores of several devices be normalised, with `stack`."""
        if self._stations is None:
            return
        from ciq_ray.kernels.of_search import must_normalize

        if must_normalize(self.search, self._stations, resumed=self.resume_folder is not None):
            self._say("several devices: scores are ratios to the baseline's time on each (`normalize`)")
            stack.callback(setattr, self.search, "search_config", self.config)
            self.config = self.config.model_copy(update={"normalize": True})
            self.search.search_config = self.config

    def _worker(self, cache: Path, tracker: BaseTracker, *, racing: bool = False) -> StreamingWorker:
        """The worker of the search, or one for a single evaluation at a time for a block of a race."""
        if self._stations is not None:
            from ciq_ray.kernels.of_search import has_baseline

            known = has_baseline(self.search)
            kernels = self._stations.worker(
                cache,
                baseline=baseline_of(self.search) if known or self.config.normalize else None,
                normalize=self.config.normalize,
                needed=bool(self.search.final_race),
                racing=racing,
            )
            kernels.open(self.search.objective_function)
            return kernels
        worker_class = self._worker_class()
        worker = worker_class.create(cache, self.config.normalize and not racing, tracker)
        streaming: StreamingWorker
        if isinstance(worker, StreamingWorker):
            if isinstance(worker, TakesOptions):
                worker.configure(self.worker_kwargs)
            else:
                warn_unused(worker_class.__name__, self.worker_kwargs)
            streaming = worker
        else:
            streaming = WorkerAdapter(
                worker, pool_size=self.config.resolved_pool_size, options=self.worker_kwargs
            )
        baseline: Any = NO_BASELINE
        if self.config.normalize and not racing:
            baseline = self.search.space.default_config()
        try:
            streaming.open(
                self.search.objective_function,
                num_workers=1 if racing else self.num_workers,
                task_timeout=self.task_timeout,
                num_objectives=self.config.num_objectives,
                baseline_config=baseline,
                log_dir=cache / "logs",
            )
        except BaseException:
            streaming.close()
            raise
        return streaming

    def _compile_timeout(self, searcher: SpaceSearcher) -> CompileTimeout | None:
        found = CompileTimeout.of(searcher)
        if found is None and self._stations is not None:
            return CompileTimeout(*_KERNEL_COMPILE_LIMIT)
        return found

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

    def _say_how_to_go_on(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt) and self.folder is not None and self.folder.exists():
            self._say(f"stopped at once; go on with: ciq resume {self.folder}")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr)


def _whatever_happens(stack: ExitStack, step: Callable[[], object]) -> None:
    """Have `stack` take a step at its end; an error of it does not replace an earlier one."""

    def take(kind: object, error: BaseException | None, trace: object) -> None:
        try:
            step()
        except Exception as another:
            if error is None:
                raise
            logger.warning("and at the end of the search: %s: %s", type(another).__name__, another)

    stack.push(take)


def _result_of(recorder: Recorder | None) -> SearchResult | None:
    return None if recorder is None else recorder.result


def _has_generations(searcher: SpaceSearcher) -> bool:
    return searcher.generation_closed(0) is not None


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Keep the garbage collector from going through all that was there before.

    A full pass over the objects of so many modules takes some tenths of a second, in which no worker
    gets anything to do.
    """
    if gc.get_freeze_count():  # the program does that itself
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
