"""Bayesian optimisation with a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from searchers import effort
from searchers.acquisition import CAUTION, highest, log_expected_improvement, log_feasible, warped
from searchers.base import SpaceSearcher, Trial
from searchers.checks import whole_option
from searchers.divided import MOST_FEATURES, DividedModel, Evidence
from searchers.divisibility import Spread
from searchers.encoding import Matrix
from searchers.features import Features
from searchers.gaussian_process import Floats
from searchers.moves import Moves
from searchers.offspring import offspring
from searchers.outcome import Outcome
from searchers.points import GRID_LIMIT, Points, sampled
from searchers.space import Space
from searchers.state import positions, whole
from searchers.surrogate import Surrogate

__all__ = ["BayesianSearch"]

_LEAST_SUCCESSES = 3
"""No model is fitted to fewer."""
_CONVERGED = -8.0
"""Logarithm of the expected improvement, in deviations of the warped losses, below which the model, supposing
what it does of what is pending, considers the search done. It is then wrong more often than it thinks ..."""
_TURNS = (
    (128, ("part", "likely neighbour", "part", "uncertain neighbour")),
    (math.inf, ("child",) * 7 + ("model",)),
)
"""... so up to the 128th, proposals come from models of parts of the space and are neighbours of the best;
and then most are what a genetic algorithm would try."""
_PARENTS = 32
_CHILDREN = 32
_NEIGHBOUR_RADIUS = 16
_SCALAR_TILT = 0.05
_LARGEST = 1e100
"""Losses are cut off there: squares and differences of any that are left are finite."""


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What a proposal is chosen by; N points may be proposed, and n candidates have succeeded.

    Attributes:
        passed: Indices of the successes.
        targets: Of each, less is better, shape (n,).
        noise: Known variance of each target, shape (n,).
        best: Rows of the best of them.
        incumbent: What has to be improved upon, on the scale of the targets.
        points: What may be proposed.
        free: Which of them are unknown, shape (N,).
        means: What the model expects of each, shape (N,).
        improvement: Logarithm of the expected improvement of each, shape (N,).
        feasible: What the risk of failing takes from it, see `log_feasible`, shape (N,).
    """

    passed: list[int]
    targets: Floats
    noise: Floats
    best: Matrix
    incumbent: float
    points: Points
    free: npt.NDArray[np.bool_]
    means: Floats
    improvement: Floats
    feasible: Floats


class BayesianSearch(SpaceSearcher):
    """The sample-efficient searcher: a Gaussian process says what is worth evaluating.

    After a few random candidates, a Gaussian process is fitted to the losses, warped so that differences near
    the best count most (`searchers.acquisition.warped`). Its kernel (`searchers.kernel`) has a length scale
    for each parameter, and up to 32 features a part that adds up what each does by itself; how large that
    part is, is fitted too. As long as there are no more than 32, features also say how often two divides a
    whole number, of which random candidates have each degree alike often (`searchers.divisibility`), and, in
    a space of up to 32,768 configurations, how many neighbours each has (`searchers.room`). Proposed is the
    configuration with the largest expected improvement, times the fourth power of the probability of success
    that a second process, fitted to what failed and what did not, gives it. All configurations of a space of
    up to 32,768 are scored; of a larger one, neighbours and offspring of the best and random ones.

    When the expected improvement becomes negligible, proposals come from models of parts of the space
    (`searchers.divided`, up to 32 features), and every other is an unknown neighbour of the best
    configurations: in turn that of the best mean, and that of the largest expected improvement, where failing
    counts as no worse than not improving. After 128 such proposals seven of eight are children of good
    configurations, by crossover and mutation. They find what a smooth model cannot see.

    Candidates that are pending are taken to do one standard deviation worse than expected, so that a batch
    spreads out. A label's spread and number of samples are its noise. Several objectives are weighted anew
    for each proposal (augmented Tchebycheff: Knowles, "ParEGO", 2006). A fit looks at 250 observations at
    most and the model keeps about 500, the best half of them, so that a proposal's cost stays bounded.

    Args:
        space: See `SpaceSearcher`.
        initial_population: Random candidates before the first fit; `initial_configs` count.
        metric: See `SpaceSearcher`.
        mode: See `SpaceSearcher`.
        seed: See `SpaceSearcher`.
        initial_configs: See `SpaceSearcher`.

    Raises:
        OptionError: An argument has a value it cannot have.
    """

    _needs: ClassVar[tuple[str, ...]] = ("scipy.linalg", "scipy.optimize", "scipy.sparse", "scipy.special")

    def __init__(
        self,
        space: Space | None = None,
        initial_population: int = effort.MODEL_INITIAL_POPULATION,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        seed: int | None = None,
        initial_configs: Sequence[Any] = (),
    ) -> None:
        super().__init__(space, metric=metric, mode=mode, seed=seed, initial_configs=initial_configs)
        self.initial_population = whole_option("initial_population", initial_population)
        self._observed: list[int] = []
        self._start = 0
        self._turn = 0
        self._spread: Spread | None = None
        self._translation: Features | None = None
        self._objective: Surrogate | None = None
        self._feasibility: Surrogate | None = None
        self._divided = DividedModel()
        self._grid: Points | None = None

    # -- what is known ----------------------------------------------------------------------------

    def _observe(self, trial: Trial, previous: Outcome | None) -> None:
        if previous is None:
            self._observed.append(trial.index)
            return
        for model in (self._objective, self._feasibility):
            if model is not None:
                model.forget()
        self._divided.forget()

    def _begin(self, start: int) -> None:
        """Learn the objective from the trials with this index and later ones alone."""
        self._start, self._turn = start, 0
        self._objective, self._divided = None, DividedModel()

    def _learnt(self) -> list[int]:
        """What has been observed since the start, in the order in which it came."""
        return [index for index in self._observed if index >= self._start] if self._start else self._observed

    def _successes(self) -> list[int]:
        """The successes, in the order in which they came."""
        return [index for index in self._learnt() if self._succeeded(index)]

    def _waiting(self) -> list[int]:
        """What is being evaluated or about to be."""
        return sorted({*self._pending, *self._ready})

    def _can_be_modelled(self) -> bool:
        """Whether there are successes enough, and they differ: a model of a constant likes corners best."""
        successes = (self._outcome(index) for index in self._learnt() if self._outcome(index).ok)
        first = [outcome.values for outcome in islice(successes, _LEAST_SUCCESSES)]
        return len(first) == _LEAST_SUCCESSES and (
            len(set(first)) > 1 or any(outcome.values != first[0] for outcome in successes)
        )

    def _outcome(self, index: int) -> Outcome:
        outcome = self._trials[index].outcome
        return Outcome("lost") if outcome is None else outcome

    def _targets(self, passed: list[int]) -> tuple[Floats, Floats]:
        """Warped losses and their noise, one for each success; several objectives are weighted anew."""
        losses = np.array([self._losses(self._outcome(index)) for index in passed])
        losses = losses.clip(-_LARGEST, _LARGEST)
        noise = np.array([_noise(self._outcome(index)) for index in passed])
        if losses.shape[1] == 1:
            return warped(losses[:, 0], noise[:, 0])
        low, high = losses.min(0), losses.max(0)
        scale = np.where(high > low, np.maximum(high - low, 1 / _LARGEST), 1.0)
        weights = self._rng.dirichlet(np.ones(losses.shape[1]))
        weighted = weights * (losses - low) / scale
        scalar = weighted.max(1) + _SCALAR_TILT * weighted.sum(1)
        return warped(scalar, (np.minimum(weights / scale * np.sqrt(noise), 1.0) ** 2).sum(1))

    # -- proposals --------------------------------------------------------------------------------

    def _propose(self, n: int) -> None:
        missing = self.initial_population - (len(self._trials) - self._start)
        if missing > 0:
            n -= len(self._admit_random(min(n, missing), seed_share=effort.SEED_SHARE))
        if not self._can_be_modelled():
            if n > 0:
                self._admit_random(n)
            return
        while n > 0 and not self._exhausted:
            n -= self._propose_by_model(n)

    def _sample(self, n: int, seed_share: float | None) -> Matrix:
        if self._spread is None:
            self._spread = Spread(self._known_space())
        return self._spread(super()._sample(n, seed_share), self._rng)

    def _propose_by_model(self, n: int) -> int:
        """Admit up to `n` rows that the model chooses one after the other."""
        passed = self._successes()
        targets, noise = self._targets(passed)
        order = np.argsort(targets, kind="stable")
        best = self._rows_of([passed[i] for i in order[:_PARENTS]])
        waiting = self._waiting()
        points, new = self._points(best, waiting)
        objective = self._learn_objective(passed, targets, noise, points, new)
        feasible = self._feasible(points, new)
        keys = np.fromiter(self._by_key, dtype=np.uint64, count=len(self._by_key))
        free = np.ones(len(points.rows), dtype=bool)
        free[points.places(keys)] = False
        count = 0
        with objective.imagining():
            if waiting:
                objective.imagine(self._features(self._rows_of(waiting)))
            while count < n:
                if count and self.n_objectives > 1:
                    targets, noise = self._targets(passed)
                means, deviations = objective.predict(targets)
                incumbent = float((objective.smoothed(targets) if noise.any() else targets).min())
                improvement = log_expected_improvement(means, deviations, incumbent)
                outlook = _Outlook(
                    passed=passed,
                    targets=targets,
                    noise=noise,
                    best=best,
                    incumbent=incumbent,
                    points=points,
                    free=free,
                    means=means,
                    improvement=improvement,
                    feasible=feasible,
                )
                row = self._choose(outlook)
                if row is None:
                    break
                (trial,) = self._admit(row[None, :])
                free[points.places(self._known_space().keys(trial.row[None, :]))] = False
                objective.imagine(self._features(trial.row[None, :]))
                count += 1
        return count or len(self._admit_random(n))

    def _choose(self, outlook: _Outlook) -> Matrix | None:
        """The row to propose next, ``None`` if all that may be proposed is known."""
        free, row = outlook.free, None
        score = outlook.improvement + outlook.feasible
        turn = self._next_turn(score[free])
        if turn == "likely neighbour":
            row = self._neighbour(outlook, outlook.feasible - outlook.means)
        elif turn == "uncertain neighbour":
            row = self._neighbour(outlook, outlook.improvement + outlook.feasible / CAUTION)
        elif turn == "child":
            row = self._child(outlook.best)
        elif turn == "part":
            row = self._of_a_part(outlook)
        if row is None and free.any():
            row = outlook.points.rows[_highest(score, free)]
        return row

    def _next_turn(self, scores: Floats) -> str:
        """Who proposes the next candidate, given the model's scores of what may be proposed."""
        if not len(scores) or scores.max() >= _CONVERGED:
            return "model"
        turns = next(turns for until, turns in _TURNS if self._turn < until)
        turn = turns[self._turn % len(turns)]
        self._turn += 1
        return turn

    def _of_a_part(self, outlook: _Outlook) -> Matrix | None:
        """What a model of a part of the space finds the most promising."""
        if self._objective is None or self._features.n_features > MOST_FEATURES:
            return None
        space = self._known_space()
        rows = self._rows_of(outlook.passed)
        pending = self._rows_of(self._waiting())
        evidence = Evidence(
            states=space.encoding.states(rows, space.inactive(rows)),
            features=self._features(rows),
            targets=outlook.targets,
            noise=outlook.noise,
            incumbent=outlook.incumbent,
            pending=space.encoding.states(pending, space.inactive(pending)),
            pending_features=self._features(pending),
        )
        start, points = self._objective.hyperparameters, outlook.points
        place = self._divided.best(evidence, start, points, outlook.free, outlook.feasible, self._rng)
        return None if place is None else np.asarray(points.rows[place])

    def _neighbour(self, outlook: _Outlook, promise: Floats) -> Matrix | None:
        """The most promising unknown neighbour of the best configuration that has one."""
        space, points = self._known_space(), outlook.points
        for row in outlook.best:
            near = np.zeros(len(outlook.free), dtype=bool)
            near[points.places(space.keys(Moves(space, row, _NEIGHBOUR_RADIUS).single()))] = True
            near &= outlook.free
            if near.any():
                return np.asarray(points.rows[_highest(promise, near)])
        return None

    def _child(self, best: Matrix) -> Matrix | None:
        """An unknown child of good configurations."""
        children = offspring(self._known_space(), best, _CHILDREN, self._rng)
        first = next(iter(self._fresh(children)), None)
        return None if first is None else np.asarray(children[first])

    # -- models -----------------------------------------------------------------------------------

    @property
    def _features(self) -> Features:
        if self._translation is None:
            space = self._known_space()
            plain, small = Features(space), self._scores_all
            choices = ((True, small), (True, False), (False, small))
            finer = (Features(space, divisibility=by_two, edges=edges) for by_two, edges in choices)
            fitting = (made for made in finer if made.n_features <= MOST_FEATURES)
            # made one after the other until one fits, and not at all where none can
            self._translation = next(fitting, plain) if plain.n_features < MOST_FEATURES else plain
        return self._translation

    @property
    def _scores_all(self) -> bool:
        """Whether the space is so small that all its configurations are looked at for each proposal."""
        size = self._known_space().size
        return size is not None and size <= GRID_LIMIT

    def _points(self, best: Matrix, waiting: list[int]) -> tuple[Points, bool]:
        """What may be proposed, and whether it is something else than at the last call."""
        space = self._known_space()
        if not self._scores_all or space.rows is None:
            return sampled(space, self._features, best, list(self._rows_of(waiting)), self._rng), True
        if self._grid is None:
            self._grid = Points(space, space.rows, self._features)
        return self._grid, False

    def _learn_objective(
        self, passed: list[int], targets: Floats, noise: Floats, points: Points, new: bool
    ) -> Surrogate:
        if self._objective is None:
            self._objective = Surrogate(self._features.n_features)
        features = self._features(self._rows_of(passed))
        self._objective.learn(features, targets, noise, points.grid, new_grid=new)
        return self._objective

    def _feasible(self, points: Points, new: bool) -> Floats:
        """What the risk of failing takes from the acquisition at each point, see `log_feasible`."""
        labels = np.array([1.0 if self._outcome(index).ok else -1.0 for index in self._observed])
        if (labels > 0).all():
            return np.zeros(len(points.rows))
        if self._feasibility is None:
            self._feasibility = Surrogate(self._features.n_features)
        features, mean = self._features(self._rows_of(self._observed)), labels.mean()
        self._feasibility.learn(features, labels - mean, np.zeros(len(labels)), points.grid, new_grid=new)
        means, deviations = self._feasibility.predict(labels - mean)
        return log_feasible(means + mean, deviations)

    # -- state ------------------------------------------------------------------------------------

    def _algorithm_state(self) -> dict[str, Any]:
        return {
            "observed": self._observed,
            "start": self._start,
            "turn": self._turn,
            "objective": self._objective and self._objective.state(),
            "feasibility": self._feasibility and self._feasibility.state(),
            "divided": self._divided.state(),
        }

    def _load_algorithm_state(self, state: dict[str, Any]) -> None:
        self._observed = positions("observed", state["observed"], len(self._trials), once=True)
        self._start = whole("start", state["start"], len(self._trials))
        self._turn = whole("turn", state["turn"])
        models: dict[str, Surrogate | None] = {"objective": None, "feasibility": None}
        for name, count in (("objective", len(self._successes())), ("feasibility", len(self._observed))):
            if state[name] is not None:
                models[name] = model = Surrogate(self._features.n_features)
                model.load(state[name], count)
        divided = DividedModel()
        divided.load(state["divided"], self._features.n_features)
        self._objective, self._feasibility, self._divided = (
            models["objective"],
            models["feasibility"],
            divided,
        )


def _highest(score: Floats, among: npt.NDArray[np.bool_]) -> int:
    return highest(np.where(among, score, -np.inf))


def _noise(outcome: Outcome) -> tuple[float, ...]:
    """Variance of each value, 0 where it is unknown."""
    spreads = outcome.spread or ()
    if len(spreads) != len(outcome.values) or not all(map(math.isfinite, spreads)):
        return (0.0,) * len(outcome.values)
    return tuple(min(abs(spread), _LARGEST) ** 2 / max(1, outcome.samples or 1) for spread in spreads)
