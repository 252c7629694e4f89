"""Ray Tune's contract: what `Tuner` and `tune.run` call on a searcher, in terms of `ask` and `tell`.

What a Ray Tune of version 2.60 does that its documentation does not say: it pickles the searcher when the
`Tuner` is made; it sets metric, mode and space only if ``param_space`` is not empty; it reports a trial
that raised without a result; it calls again for a trial it has resumed, under the same id, and for one it
has restarted under an id nobody has seen; and when it was killed, it forgets what came since its last
snapshot, which `keep_journal` is for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from searchers.encoding import Matrix
from searchers.errors import OptionError, SpaceError, StateError
from searchers.metrics import check_metrics, outcome_of
from searchers.outcome import RETRIED, Candidate, Outcome
from searchers.space import Space
from searchers.state import read_state, whole, write_state
from searchers.trial import Trial
from searchers.tune_domains import from_param_space
from searchers.tune_journal import TuneJournal

__all__ = ["TuneContract", "space_in"]

logger = logging.getLogger(__name__)

MOST_SENT_AGAIN = 3
"""A candidate whose trial reports ``lost`` or ``throttled`` is tried again this often, then it has failed."""


class TuneContract(Searcher):
    """The half of `SpaceSearcher` that Ray Tune calls; the other half is the batch contract."""

    space: Space | None
    _metrics: list[str] | None
    _modes: list[str]
    _trials: list[Trial]
    _again: deque[int]
    _ready: deque[int]
    _initial: deque[Any]

    def __init__(self, metric: str | list[str] | None, mode: str | list[str] | None) -> None:
        super().__init__(metric=metric, mode=mode)
        self._tune_ids: dict[str, int] = {}  # of trials that run, or failed and may be resumed
        self._sent_again: dict[int, int] = {}
        self._evaluated: list[tuple[Any, Outcome]] = []
        self._tune_space: dict[str, Any] | None = None  # ``param_space`` as data, if JSON can hold it
        self._space_is_restored = False
        self._journal: TuneJournal | None = None
        self._held: list[tuple[str, Matrix, Outcome]] | None = None  # results to be written together

    # -- what the other half has ------------------------------------------------------------------

    @abstractmethod
    def ask(self, n: int = 1) -> list[Candidate]:
        """See `SpaceSearcher`."""

    @abstractmethod
    def tell(self, candidate_id: str, outcome: Outcome) -> None:
        """See `SpaceSearcher`."""

    @abstractmethod
    def _learn(self, row: Matrix, outcome: Outcome) -> None:
        """Take in an evaluation made elsewhere."""

    @abstractmethod
    def _check_objectives(self, count: int) -> None:
        """Refuse more objectives than the algorithm takes."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """See `SpaceSearcher`."""

    # -- the search -------------------------------------------------------------------------------

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric, mode and ``param_space`` from Ray Tune where the constructor was given none.

        Raises:
            OptionError: Metric or mode cannot be used, or come after outcomes that were taken as minimised.
            SpaceError: A domain of ``param_space`` has no list of values.
            ConfigError: An initial configuration or evaluated point is not a member of the space.
            StateError: The state that was restored is of another space.
        """
        if metric and self._metrics is None:
            metrics, modes = check_metrics(metric, mode)
            self._check_objectives(len(modes))
            if modes != self._modes and any(trial.outcome is not None for trial in self._trials):
                raise OptionError(
                    f"`mode` is {mode!r}, but outcomes have been taken in as 'min' already; give `metric` "
                    "and `mode` to the searcher"
                )
            self._metrics, self._modes = metrics, modes
            self._metric, self._mode = metric, mode
        elif mode and not self._trials and self._metric is not None and self._mode is None:
            self._metrics, self._modes = check_metrics(self._metric, mode)
            self._mode = mode
        taken = self.space is None or self._space_is_restored
        if taken and config:
            space = Space(from_param_space(config))
            if self.space is None:
                for initial in self._initial:
                    space.encode(initial, nearest=True)
                self.space = space
                with contextlib.suppress(SpaceError):  # a value that JSON cannot hold
                    self._tune_space = space.to_dict()
            elif self.space.fingerprint != space.fingerprint:
                raise StateError("`param_space` is another one than that of the state that was restored")
            self._space_is_restored = False
        if self.space is not None:
            evaluated, self._evaluated = self._evaluated, []
            for parameters, outcome in evaluated:
                self._learn(self.space.encode(parameters, nearest=True), outcome)
        return taken

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A configuration for Ray Tune, ``None`` to be asked again, or ``Searcher.FINISHED``.

        A configuration that is not a dict (a list of parts, a compiler's text) comes under the key
        ``"config"``.

        Raises:
            OptionError: There is no metric.
            StateError: There is no space, or the journal is of another one.
        """
        if self._metrics is None:
            raise OptionError(
                "`metric` is not set: Ray Tune tells a searcher that has a space of its own neither metric "
                "nor mode, so give both to the searcher"
            )
        self.learn_journal()
        candidates = self.ask(1)
        if not candidates:
            # one that runs may be lost, and tried again; with nothing running Ray Tune would wait a full
            # second for each None, to no purpose
            return None if self.has_running_trials else str(self.FINISHED)
        self._tune_ids[trial_id] = int(candidates[0].id)
        config = candidates[0].config
        return config if isinstance(config, dict) else {"config": config}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a finished trial; one that failed or lacks the metric is a failure.

        A result may say how it failed under the key ``"ciq_status"``, one of `Outcome`'s statuses; what
        is ``lost`` or ``throttled`` is tried again. Other fields of an `Outcome` are read from such keys
        too: ``"ciq_message"``, ``"ciq_run_s"`` and those that `searchers.metrics.outcome_of` lists. A
        second call for a trial that failed (Ray Tune resumed it) replaces its label; ids that are unknown
        or done are ignored.
        """
        index = self._tune_ids.pop(trial_id, None)
        if index is None:
            return
        outcome = outcome_of(self._metrics, result, error)
        if outcome.status in RETRIED:
            count = self._sent_again.get(index, 0) + 1
            if count <= MOST_SENT_AGAIN:
                self._sent_again[index] = count
                self._again.append(index)
                return
            outcome = Outcome("run_error", message=f"{outcome.status} {count} times; {outcome.message}")
        if not outcome.ok:
            self._tune_ids[trial_id] = index
        self.tell(str(index), outcome)
        told = (trial_id, self._trials[index].row, outcome)
        if self._held is not None:
            self._held.append(told)
        else:
            self._write_to_journal([told])

    @contextlib.contextmanager
    def writing_together(self) -> Iterator[None]:
        """Have the journal wait for the disk once for all results that are told meanwhile."""
        held = self._held = []
        try:
            yield
        finally:
            self._held = None
            self._write_to_journal(held)

    def _write_to_journal(self, results: list[tuple[str, Matrix, Outcome]]) -> None:
        if self._journal is None or self.space is None or not results:
            return
        try:
            self._journal.append(self.space, results)
        except OSError as problem:  # a full disk is no reason to lose a trial
            logger.error("cannot write a result to %s: %s", self._journal.path, problem)

    @property
    def n_begun(self) -> int:
        """How many configurations have been handed out or learnt from, but for those to be tried again."""
        return len(self._trials) - len(self._ready) - len(self._again)

    @property
    def has_running_trials(self) -> bool:
        """Whether a trial of Ray Tune has begun whose end has not been told."""
        return any(self._trials[index].outcome is None for index in self._tune_ids.values())

    # -- evaluations made elsewhere ---------------------------------------------------------------

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float | Sequence[float] | None,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Learn from an evaluation made elsewhere; one already known is relabelled.

        Before the space is known (it comes with ``param_space``) the point is kept until it is.

        Args:
            parameters: The configuration.
            value: Of the metric, or one for each; NaN and ``None`` are failures.
            error: It failed.
            pruned: It was given up, which counts as a failure.
            intermediate_values: Not used.

        Raises:
            ConfigError: `parameters` is not a member of the space.
            OptionError: `value` is no number, or has not one for each metric.
        """
        failed = error or pruned or value is None
        outcome = Outcome("run_error") if failed else Outcome("ok", value)  # type: ignore[arg-type]
        if self.space is None:
            self._evaluated.append((parameters, outcome))
        else:
            self._learn(self.space.encode(parameters, nearest=True), outcome)

    def add_evaluated_trials(self, trials_or_analysis: Any, metric: str | Sequence[str]) -> None:
        """Learn from the trials of another experiment that have ended.

        A value is a trial's last one, as in `on_trial_complete`. What a trial's configuration has besides
        the space's parameters (constants of ``param_space``) is left out.

        Args:
            trials_or_analysis: A Ray Tune ``Trial``, a list of them, an ``ExperimentAnalysis`` or a
                ``ResultGrid``.
            metric: The name of their value, or a list of names.

        Raises:
            StateError: There is no space yet.
            ConfigError: A configuration is not a member of the space.
            OptionError: `trials_or_analysis` is something else, or `metric` has not one name for each
                objective.
        """
        if self.space is None:
            raise StateError("there is no space yet; give `space`, or use `add_evaluated_point`")
        names, _ = check_metrics(metric, None)
        if names is None or len(names) != len(self._modes):
            raise OptionError(f"`metric` is {metric!r}; give one name for each of {len(self._modes)} metrics")
        for config, result, failed in _ended(trials_or_analysis):
            outcome = outcome_of(names, result, failed)
            if outcome.status not in RETRIED:
                self._learn(self.space.encode(_own_part(self.space, config), nearest=True), outcome)

    # -- saving -----------------------------------------------------------------------------------

    def keep_journal(self, path: str | os.PathLike[str]) -> None:
        """Write each result to a file as it comes, and learn what is in it already.

        Ray Tune saves an experiment at most every ten seconds. A driver that is killed has forgotten what
        came since; with a journal, ``Tuner.restore`` finds a searcher that knows all of it, and proposes
        none of those configurations again. A new searcher with the same space goes on from it, too. For
        one search at a time.

        Args:
            path: A file on the driver's machine, which need not exist; see `searchers.tune_journal`.

        Raises:
            OptionError: Its folder does not exist.
        """
        self._journal = TuneJournal(path)

    def learn_journal(self) -> None:
        """Learn what the journal has that is not known here; `suggest` does so by itself.

        Raises:
            StateError: The journal is of another space.
        """
        if self._journal is not None and self.space is not None:
            for row, outcome in self._journal.unread(self.space, len(self._modes)):
                self._learn(row, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Write the whole state as JSON; never half of it."""
        write_state(Path(checkpoint_path), self.get_state())

    def restore(self, checkpoint_path: str) -> None:
        """Continue from a saved state.

        A space that came with ``param_space`` comes back with the state, since ``Tuner.restore`` gives
        ``param_space`` only if it is told to.

        Raises:
            StateError: The file is not such a state, or is of another searcher or space; or there is no
                space, and that in the state had values that JSON cannot hold.
        """
        self.set_state(read_state(Path(checkpoint_path)))

    def _tune_state(self) -> dict[str, Any]:
        """What this half remembers, as JSON data."""
        return {
            "space": self._tune_space,
            "ids": dict(self._tune_ids),
            "sent_again": [list(item) for item in self._sent_again.items()],
        }

    def _load_tune_state(self, state: dict[str, Any], count: int) -> None:
        """The inverse of `_tune_state`, for a searcher with `count` trials."""
        self._tune_ids = {name: whole("ids", index, count - 1) for name, index in state["ids"].items()}
        self._sent_again = {
            whole("sent_again", index, count - 1): whole("sent_again", times)
            for index, times in state["sent_again"]
        }


def space_in(state: dict[str, Any]) -> Space:
    """The space that came with ``param_space``, from a saved state.

    Raises:
        StateError: It is not in there.
    """
    try:
        return Space.from_dict(state["tune"]["space"])
    except (KeyError, TypeError, SpaceError) as error:
        raise StateError(
            "there is no space, and none in the saved state; give `space` to the searcher, or "
            "`param_space` to Tuner.restore"
        ) from error


def _ended(source: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any], bool]]:
    """Configuration, last result and whether it failed, of each trial that has ended."""
    from ray.tune import ExperimentAnalysis, ResultGrid
    from ray.tune.experiment import Trial as TuneTrial

    if isinstance(source, ResultGrid):
        for result in source:
            yield result.config or {}, result.metrics or {}, result.error is not None
        return
    trials = source.trials if isinstance(source, ExperimentAnalysis) else source
    trials = [trials] if isinstance(trials, TuneTrial) else trials
    if not isinstance(trials, (list, tuple)) or not all(isinstance(trial, TuneTrial) for trial in trials):
        raise OptionError(
            f"`trials_or_analysis` is {source!r}; it must be a Trial, a list of them, an ExperimentAnalysis "
            "or a ResultGrid"
        )
    for trial in trials:
        if trial.status in (TuneTrial.TERMINATED, TuneTrial.ERROR):
            yield trial.config, trial.last_result, trial.status == TuneTrial.ERROR


def _own_part(space: Space, config: dict[str, Any]) -> Any:
    """What of a trial's configuration is the space's; its constants as the space has them."""
    if not isinstance(space.parameters, Mapping) or space.render is not None:
        return config["config"]
    constant = {
        name
        for name, param in space.parameters.items()
        if getattr(param, "n_levels", 0) == 1 and not getattr(param, "knockout_prob", 0)
    }
    return {
        name: space.parameters[name].value(0) if name in constant else value
        for name, value in config.items()
        if name in space.parameters
    }
