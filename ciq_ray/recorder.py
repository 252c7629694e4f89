"""What becomes of evaluations: results, the CSV file, progress and the tracker."""

from __future__ import annotations

import logging
import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ciq_ray._result_csv import ResultCsv
from ciq_ray._result_table import table_columns
from ciq_ray._trackers.run_tracker import RunTracker
from ciq_ray.engine import Evaluation
from ciq_ray.errors import ResultError, SearchFailedError
from ciq_ray.feed import TrackerFeed
from ciq_ray.kernels.figures import columns_of
from ciq_ray.progress import Progress
from ciq_ray.results import SearchResult
from ciq_ray.types import BaseTracker, Score, SearchConfiguration, Worker

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from searchers.base import SpaceSearcher
    from searchers.outcome import Candidate, Outcome

__all__ = ["Recorder", "add_evaluation", "score_of"]

logger = logging.getLogger(__name__)


class Recorder:
    """Results, the CSV file, progress and tracker: whoever wants to know of each evaluation."""

    def __init__(self, search: Search, searcher: SpaceSearcher, tracker: BaseTracker) -> None:
        config = search.search_config
        self.search = search
        self.result = SearchResult(None, config.problem_type, config.num_objectives)
        self.result.metric_columns = columns_of(search.objective_function)
        self._config = config
        self._pool = config.resolved_pool_size
        self._searcher = searcher
        self._back: Counter[int] = Counter()
        self._first_failures: Counter[str] = Counter()
        self._failure_message = ""
        self._passed = 0
        self._best: list[float] | None = None
        self._best_text = ""
        self._leader: tuple[Candidate, Outcome] | None = None
        self._run_s: list[float] = []
        self._replayed: list[Evaluation] = []
        self._progress: Progress | None = None
        self._tracker = tracker
        self._measured: Counter[str] = Counter()
        self._feed = TrackerFeed(tracker, self._closed, self._entered)
        self._csv: ResultCsv | None = None
        self._begin_csv()

    def _begin_csv(self) -> None:
        """Write the file from its first row on; a row in it may have changed."""
        if self.search.dump_results is not None:
            columns = table_columns(self._config.num_objectives, self._config.normalize)
            columns += self.result.metric_columns
            self._csv = ResultCsv(self.search.dump_results, columns)

    def begin(self, total: int, done: int) -> None:
        """The replay, if any, is over; from here on there is something to show."""
        space = self.search.space
        self._progress = Progress(
            total,
            done=done,
            time_budget_s=self.search.time_budget_s,
            default=None if space.default_row is None else space.default_config(),
            disable=self.search.disable_progress_bar,
        )
        self._feed.start(run_id=self.search.run_id)
        for evaluation in self._replayed:
            self._track(evaluation, score_of(evaluation, self._config))
        self._replayed = []

    def evaluated(self, evaluation: Evaluation) -> None:
        """Take in one evaluation."""
        outcome, told = evaluation.outcome, evaluation.told
        score = add_evaluation(self.result, evaluation, self._config)
        if outcome.ok and outcome.run_s is not None:
            self._run_s.append(outcome.run_s)
        self._measured[evaluation.candidate.id] += 1
        self._back[evaluation.generation] += not evaluation.again
        self._passed += outcome.ok
        if not outcome.ok and evaluation.generation == 0:
            self._first_failures[outcome.status] += 1
            self._failure_message = self._failure_message or outcome.message
        if evaluation.again or (outcome.ok and self._improved(told.values)):
            self._best_text = self._describe_best()
        if evaluation.again:
            self._begin_csv()
        if evaluation.replayed:
            self._replayed.append(evaluation)
            return
        self._track(evaluation, score)
        if self._progress is not None:
            self._progress.update(
                status=outcome.status,
                best=self._best_text,
                best_config=None if self._leader is None else self._leader[0].config,
                best_score=None if self._leader is None else self._leader[1].values[0],
                worker=evaluation.worker,
                place=evaluation.place,
            )
        if len(self.result) % self._pool == 0:
            self._dump(final=False)

    def task_context(self, candidate: Candidate) -> Mapping[str, str]:
        """What the tracker gives an evaluation that is about to be sent."""
        if not isinstance(self._tracker, RunTracker):
            return {}
        return self._tracker.task_context(candidate.id, self._measured[candidate.id])

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
        again, total = self.result.remeasured, len(self.result) + self.result.remeasured
        if again:
            print(
                f"{again} of {total} evaluations ({again / total:.0%}) measured leaders again",
                file=sys.stderr,
            )
        self._feed.end(at_once=at_once, reason=reason)
        self._dump(final=True)

    def close(self) -> None:
        """Whatever happened, leave no thread and no bar behind."""
        if self._progress is not None:
            self._progress.close()

    @property
    def tracker_ended(self) -> bool:
        """Whether the tracker is cleaned up, or about to be."""
        return self._feed.ended

    @property
    def call_s(self) -> float | None:
        """Seconds that half of the successful evaluations took at most, ``None`` without any."""
        return statistics.median(self._run_s) if self._run_s else None

    def _track(self, evaluation: Evaluation, score: Score) -> None:
        where = {f"{name}_id": value for name, value in evaluation.place.items()}
        self._feed.evaluated(
            score,
            evaluation.generation,
            evaluation,
            task_id=evaluation.candidate.id,
            worker=evaluation.worker,
            **where,
        )

    def _describe_best(self) -> str:
        if self._config.num_objectives > 1:  # no single candidate has all of these
            return "of each " + ", ".join(f"{value:.6g}" for value in self._best or ())
        self._leader = self._searcher.best
        return "" if self._leader is None else f"{self._leader[1].values[0]:.6g}"

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


def add_evaluation(result: SearchResult, evaluation: Evaluation, config: SearchConfiguration) -> Score:
    """Put an evaluation into the results, in the place of an earlier one of the same candidate.

    Returns:
        Its documented form.
    """
    score = score_of(evaluation, config)
    result.add_result(
        score,
        evaluation.generation,
        config.normalize,
        status=evaluation.outcome.status,
        message=evaluation.outcome.message,
        replace=evaluation.again,
        metrics=evaluation.outcome.metrics,
    )
    result.remeasured += evaluation.again
    return score


def score_of(evaluation: Evaluation, config: SearchConfiguration) -> Score:
    """The documented form of an evaluation."""
    outcome = evaluation.outcome
    invalid = Worker.invalidate_score(config.num_objectives)
    norm = None
    if config.normalize:
        norm = _as_score(evaluation.normalized) if outcome.ok else invalid
    return Score(
        score=_as_score(outcome.values) if outcome.ok else invalid,
        norm_score=norm,
        params=evaluation.candidate.config,
        metadata=(evaluation.metadata or evaluation.worker) if outcome.ok else outcome.message,
        param_id=int(evaluation.candidate.id),
        num_objectives=config.num_objectives,
    )


def _as_score(values: tuple[float, ...] | None) -> Any:
    if values is None:
        return None
    return values[0] if len(values) == 1 else values
