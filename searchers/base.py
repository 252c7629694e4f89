"""The base of every searcher: identity, queue, duplicates, labels, save and restore, both contracts."""

from __future__ import annotations

import importlib
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from searchers.checks import configs_option, whole_option
from searchers.encoding import Matrix
from searchers.errors import ConfigError, OptionError, StateError
from searchers.metrics import check_metrics
from searchers.outcome import RETRIED, Candidate, Outcome
from searchers.pareto import knee, non_dominated
from searchers.space import Space
from searchers.state import all_or_nothing, flag, positions, trials_of, whole
from searchers.trial import Trial
from searchers.tune_contract import TuneContract, space_in

__all__ = ["SpaceSearcher", "Trial"]

STATE_VERSION = 1
_RANDOM_ROUNDS = 32


class SpaceSearcher(TuneContract):
    """A searcher over a `Space`, for Ray Tune (`suggest`) and for batches (`ask`, `tell`).

    A subclass implements `_propose`, which calls `_admit` (or `_admit_random`) with rows, and may
    override `_observe`, `_finished`, `_algorithm_state` and `_load_algorithm_state`.

    Args:
        space: What to search. Under Ray Tune it may be left out and comes from ``param_space``.
        metric: Name of the value to optimise, or a list of names.
        mode: ``"min"`` (the default) or ``"max"``, or a list of as many.
        seed: Of the one generator that every random decision is drawn from.
        initial_configs: Configurations to propose first.

    Attributes:
        space: The space, ``None`` until it is known.
        seed: As given, or the one that was drawn.
        takes_several: Whether there may be several objectives.
        looks_ahead: Whether a caller may keep a few candidates in stock: cheap proposals that lose
            little when they do not know the very last outcome.

    Raises:
        OptionError: An argument has a value it cannot have.
        ConfigError: One of `initial_configs` is not a member of the space.
    """

    looks_ahead: ClassVar[bool] = False
    _needs: ClassVar[tuple[str, ...]] = ()
    takes_several: ClassVar[bool] = True

    def __init__(
        self,
        space: Space | None = None,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        metrics, modes = check_metrics(metric, mode)
        self._check_objectives(len(modes))
        super().__init__(
            metric if metric is None or isinstance(metric, str) else list(metric),
            (modes if isinstance(metric, (list, tuple)) else modes[0]) if metric else None,
        )
        if space is not None and not isinstance(space, Space):
            raise OptionError(f"`space` is {space!r}; it must be a searchers.Space")
        self.space = space
        if seed is None:
            seed = int(np.random.SeedSequence().entropy) % 2**63  # type: ignore[arg-type]
        self.seed = whole_option("seed", seed, 0)
        self._metrics = metrics
        self._modes = modes
        self._rng = np.random.default_rng(self.seed)
        self._trials: list[Trial] = []
        self._by_key: dict[int, int] = {}
        self._pending: set[int] = set()
        self._ready: deque[int] = deque()
        self._again: deque[int] = deque()
        self._initial: deque[Any] = deque(configs_option("initial_configs", initial_configs))
        self._best: int | None = None
        self._exhausted = False
        if space is not None:
            for config in initial_configs:
                space.encode(config, nearest=True)

    # -- what an algorithm supplies ---------------------------------------------------------------

    def _propose(self, n: int) -> None:
        """Admit at least `n` new rows, fewer while waiting or at the end; what is over is kept in stock."""
        raise NotImplementedError

    def _adopt(self, trial: Trial) -> None:
        """An initial configuration has been admitted on the caller's behalf."""

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        """A trial has its first label, or (`previous`) a new one."""

    def _finished(self) -> bool:
        """Whether the algorithm itself is done."""
        return False

    def _algorithm_state(self) -> dict[str, Any]:
        """What the algorithm remembers, as JSON data."""
        return {}

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        """The inverse of `_algorithm_state`."""

    # -- the batch contract -----------------------------------------------------------------------

    def prepare(self) -> None:
        """Import what proposing will need, while the first candidates are evaluated.

        `ask` would do it by itself, which takes seconds where nobody has imported these modules before.
        It is also what makes a limit on the threads of numeric libraries hold: libraries that are loaded
        later do not know of it.
        """
        for name in self._needs:
            importlib.import_module(name)

    def ask(self, n: int = 1) -> list[Candidate]:
        """Up to `n` candidates; fewer, or none, while the algorithm waits or when it is finished.

        Never a configuration that breaks a constraint, nor one proposed before, except a
        re-measurement, which carries the id it had.

        Raises:
            StateError: There is no space yet.
            OptionError: `n` is not a whole number of at least 0.
        """
        space = self._known_space()
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0:
            raise OptionError(f"`n` is {n!r}; it must be a whole number of at least 0")
        chosen = [self._again.popleft() for _ in range(min(n, len(self._again)))]
        wanted = n - len(chosen)
        while self._initial and len(self._ready) < wanted:
            if self._admit(space.encode(self._initial.popleft(), nearest=True)[None, :]):
                self._adopt(self._trials[-1])
        if len(self._ready) < wanted and not self._exhausted and not self._finished():
            self._propose(wanted - len(self._ready))
        new = [self._ready.popleft() for _ in range(min(wanted, len(self._ready)))]
        self._pending.update(new)
        return [self._candidate(self._trials[index]) for index in chosen + new]

    def tell(self, candidate_id: str, outcome: Outcome) -> None:
        """Label a candidate.

        Unknown ids are ignored. A second label with new values replaces the first, an identical one
        changes nothing. ``throttled`` and ``lost`` are no labels: the candidate stays pending.

        Raises:
            OptionError: `outcome` is not an `Outcome`, or has not one value for each metric.
        """
        if not isinstance(outcome, Outcome):
            raise OptionError(f"`outcome` is {outcome!r}; it must be a searchers.Outcome")
        index = self._index_of(candidate_id)
        if index is None or outcome.status in RETRIED:
            return
        if outcome.ok:
            self._check_objectives(len(outcome.values))
            if self._metrics is None and self._modes == ["min"]:
                self._modes = ["min"] * len(outcome.values)
            if len(outcome.values) != len(self._modes):
                raise OptionError(
                    f"`outcome` has {len(outcome.values)} values for {len(self._modes)} objectives; "
                    "give `metric` and `mode` as lists of as many as the objective returns"
                )
        trial = self._trials[index]
        previous = trial.outcome
        if outcome == previous:
            return
        trial.outcome = outcome
        self._pending.discard(index)
        self._update_best(trial, previous)
        self._observe(trial, previous)

    def remeasure(self, candidate_id: str) -> None:
        """Have a candidate proposed once more, under the id it has, before anything new.

        Raises:
            OptionError: There is no such candidate.
        """
        index = self._index_of(candidate_id)
        if index is None:
            raise OptionError(f"`candidate_id` is {candidate_id!r}, which was never proposed")
        self._again.append(index)

    @property
    def best(self) -> tuple[Candidate, Outcome] | None:
        """The incumbent and its outcome, ``None`` before the first success.

        With several objectives: the member of the Pareto front closest to the ideal point, each
        objective scaled to its range over the front.
        """
        if len(self._modes) > 1:
            front = self.front
            if not front:
                return None
            return front[knee(np.array([self._losses(outcome) for _, outcome in front]))]
        if self._best is None:
            return None
        return self._pair(self._trials[self._best])

    @property
    def front(self) -> list[tuple[Candidate, Outcome]]:
        """The Pareto front in ask order; with one objective, the incumbent alone."""
        passed = [trial for trial in self._trials if trial.outcome is not None and trial.outcome.ok]
        if not passed:
            return []
        losses = np.array([self._losses(trial.outcome) for trial in passed])
        return [self._pair(passed[i]) for i in np.flatnonzero(non_dominated(losses))]

    @property
    def finished(self) -> bool:
        """True once `ask` will return nothing more, unless it is told to evaluate something once more."""
        if self._again or self._initial or self._ready:
            return False
        return self._exhausted or self._finished()

    def generation_closed(self, number: int) -> bool | None:
        """Whether a generation is complete; ``None`` for an algorithm that has no generations."""
        return None

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate with this id.

        Raises:
            OptionError: There is none.
        """
        index = self._index_of(candidate_id)
        if index is None:
            raise OptionError(f"`candidate_id` is {candidate_id!r}, which was never proposed")
        return self._candidate(self._trials[index])

    @property
    def n_proposed(self) -> int:
        """How many configurations have been proposed."""
        return len(self._trials)

    @property
    def n_pending(self) -> int:
        """How many candidates have no label yet."""
        return len(self._pending)

    # -- saving -----------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what is proposed next, as JSON data."""
        return {
            "version": STATE_VERSION,
            "searcher": type(self).__name__,
            "space": None if self.space is None else self.space.fingerprint,
            "seed": self.seed,
            "metrics": self._metrics,
            "modes": self._modes,
            "rng": self._rng.bit_generator.state,
            "trials": [
                [trial.row.tolist(), trial.generation, trial.tag, trial.outcome and trial.outcome.to_dict()]
                for trial in self._trials
            ],
            "ready": list(self._ready),
            "again": list(self._again),
            "initial": len(self._initial),
            "exhausted": self._exhausted,
            "tune": self._tune_state(),
            "algorithm": self._algorithm_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`, on a searcher made with the same arguments.

        A searcher without a space takes that of the state, if it came with ``param_space``.

        Raises:
            StateError: The state is of another searcher, space or version, or is damaged; the searcher
                is as it was.
        """
        self._check("version", STATE_VERSION, state)
        self._check("searcher", type(self).__name__, state)
        space = space_in(state) if self.space is None else self.space
        self._check("space", space.fingerprint, state)
        with all_or_nothing(self):
            if self.space is None:
                self.space, self._tune_space = space, state["tune"]["space"]
                self._space_is_restored = True
            self._load(state, space)
        if self._journal is not None:
            self._journal.rewind()

    def _check(self, name: str, own: Any, state: Any) -> None:
        found = state.get(name) if isinstance(state, dict) else state
        if not isinstance(state, dict) or found != own:
            raise StateError(f"the saved state has `{name}` {found!r}, but this searcher has {own!r}")

    def _load(self, state: dict[str, Any], space: Space) -> None:
        self.seed = whole("seed", state["seed"])
        self._metrics, self._modes = check_metrics(state["metrics"], list(state["modes"]))
        if self._metric is None and self._metrics is not None:
            one = len(self._metrics) == 1
            self._metric, self._mode = (
                (self._metrics[0], self._modes[0]) if one else (self._metrics, self._modes)
            )
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = state["rng"]
        self._trials, self._by_key = trials_of(state["trials"], space, len(self._modes))
        count = len(self._trials)
        self._ready = deque(positions("ready", state["ready"], count, once=True))
        self._again = deque(positions("again", state["again"], count))
        self._pending = {i for i, trial in enumerate(self._trials) if trial.outcome is None} - {*self._ready}
        self._best = None
        for trial in self._trials:
            if trial.outcome is not None:
                self._update_best(trial, None)
        left = whole("initial", state["initial"], len(self._initial))
        self._initial = deque(list(self._initial)[len(self._initial) - left :])
        self._exhausted = flag("exhausted", state["exhausted"])
        self._load_tune_state(state["tune"], count)
        self._load_algorithm_state(state["algorithm"])

    # -- for algorithms ---------------------------------------------------------------------------

    def _admit(
        self, rows: Matrix, *, generation: int | None = None, tags: Sequence[Any] | None = None
    ) -> list[Trial]:
        """Propose those of `rows` that are valid and new, in their order."""
        return [
            self._append(rows[i], key, generation, tags[i] if tags else None)
            for i, key in self._fresh(rows).items()
        ]

    def _fresh(self, rows: Matrix) -> dict[int, int]:
        """Which of `rows` are valid and new: their positions, in order, with their keys."""
        space = self._known_space()
        if not len(rows):
            return {}
        first: dict[int, int] = {}
        for i, key in enumerate(space.keys(rows).tolist()):
            if key not in self._by_key:
                first.setdefault(key, i)
        if not first:
            return {}
        valid = space.valid(rows[list(first.values())]).tolist()
        return {i: key for (key, i), is_valid in zip(first.items(), valid, strict=True) if is_valid}

    def _append(self, row: Matrix, key: int, generation: int | None = None, tag: Any = None) -> Trial:
        """Propose a row that is known to be valid and new."""
        trial = Trial(len(self._trials), row.copy(), generation, tag)
        self._by_key[key] = trial.index
        self._trials.append(trial)
        self._ready.append(trial.index)
        if self.space is not None and len(self._by_key) == self.space.size:
            self._exhausted = True
        return trial

    def _admit_random(
        self, n: int, *, generation: int | None = None, seed_share: float | None = None
    ) -> list[Trial]:
        """Propose `n` random new rows, fewer only when the space has no more."""
        admitted: list[Trial] = []
        for _ in range(_RANDOM_ROUNDS):
            rows = self._sample(n - len(admitted), seed_share)
            admitted += self._admit(rows, generation=generation)
            if len(admitted) >= n or self._exhausted:
                return admitted
        rest = self._unproposed()
        if rest is not None:
            chosen = self._rng.choice(len(rest), size=min(n - len(admitted), len(rest)), replace=False)
            admitted += self._admit(rest[chosen], generation=generation)
        elif not admitted:
            self._exhausted = True  # not one new row in many tries
        return admitted

    def _sample(self, n: int, seed_share: float | None) -> Matrix:
        """Random valid rows for `_admit_random`; the same one may come twice."""
        return self._known_space().sample(n, self._rng, seed_share=seed_share)

    def _learn(self, row: Matrix, outcome: Outcome) -> None:
        """Take in an evaluation made elsewhere."""
        self._admit(row[None, :])
        index = self._by_key.get(int(self._known_space().keys(row[None, :])[0]))
        if index is None:
            raise ConfigError(f"{self._known_space().decode(row)!r} breaks a constraint")
        if index in self._ready:
            self._ready.remove(index)  # it has been evaluated already
        self.tell(str(index), outcome)

    def _unproposed(self) -> Matrix | None:
        """All rows not yet proposed, if the space can be enumerated."""
        space = self._known_space()
        if space.rows is None:
            return None
        mask = np.ones(len(space.rows), dtype=bool)
        proposed = np.fromiter(self._by_key, dtype=np.uint64, count=len(self._by_key))
        if len(proposed):
            mask[space.index_of(proposed)] = False
        return space.rows[mask]

    def _losses(self, outcome: Outcome | None) -> tuple[float, ...]:
        """An outcome's values with maximised ones negated, so that less is better."""
        if outcome is None or not outcome.ok:
            raise StateError("a failed candidate has no losses")
        if "max" not in self._modes:
            return outcome.values
        return tuple(
            value if mode == "min" else -value
            for value, mode in zip(outcome.values, self._modes, strict=True)
        )

    def _succeeded(self, index: int) -> bool:
        """Whether the last outcome of a trial is a success."""
        outcome = self._trials[index].outcome
        return outcome is not None and outcome.ok

    def _loss(self, index: int) -> float:
        """The loss of a trial with one objective, infinite for one that failed or is pending."""
        return self._losses(self._trials[index].outcome)[0] if self._succeeded(index) else math.inf

    def _rows_of(self, indices: Iterable[int]) -> Matrix:
        """The rows of some trials, shape (n, columns)."""
        rows = [self._trials[index].row for index in indices]
        return np.array(rows, dtype=np.int32).reshape(len(rows), self._known_space().encoding.n_columns)

    @property
    def n_objectives(self) -> int:
        """How many values an outcome has."""
        return len(self._modes)

    def _check_objectives(self, count: int) -> None:
        if count > 1 and not self.takes_several:
            raise OptionError(
                f"there are {count} objectives in `metric` or in an outcome, but {type(self).__name__} takes "
                "one objective; use 'auto', 'bayesian' or 'genetic' for several"
            )

    def _known_space(self) -> Space:
        if self.space is None:
            raise StateError(
                f"{type(self).__name__} has no space yet; give `space`, or `param_space` to Ray Tune"
            )
        return self.space

    # -- private ----------------------------------------------------------------------------------

    def _candidate(self, trial: Trial) -> Candidate:
        config = self._known_space().decode(trial.row)
        return Candidate(str(trial.index), config, tuple(trial.row.tolist()), trial.generation)

    def _pair(self, trial: Trial) -> tuple[Candidate, Outcome]:
        if trial.outcome is None:
            raise StateError(f"candidate {trial.index} is pending")
        return self._candidate(trial), trial.outcome

    def _index_of(self, candidate_id: str) -> int | None:
        text = str(candidate_id)
        if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) >= len(self._trials):
            return None
        return int(text)

    def _update_best(self, trial: Trial, previous: Outcome | None) -> None:
        if len(self._modes) > 1:
            return
        if self._best == trial.index and previous is not None:
            passed = [t for t in self._trials if t.outcome is not None and t.outcome.ok]
            best = min(passed, key=lambda t: self._losses(t.outcome)[0], default=None)
            self._best = None if best is None else best.index
        elif trial.outcome is not None and trial.outcome.ok:
            loss = self._losses(trial.outcome)[0]
            if self._best is None or loss < self._losses(self._trials[self._best].outcome)[0]:
                self._best = trial.index
