"""Which parameters matter: what a model of the evaluations loses when it must do without one.

The model is a random forest (Breiman, "Random forests", Machine Learning 45, 2001), as in the surrogates
of `searchers.LFBOPatternSearch`, on one column for each parameter. It learns where an evaluation stands
among all, by rank, so that neither the unit of the score nor a few terrible configurations count; and it is
judged on evaluations it has not seen, in four folds. The importance of a parameter is how much worse those
predictions become when its values are shuffled among them (Breiman's permutation importance; "model
reliance" in Fisher, Rudin and Dominici, "All models are wrong, but many are useful", JMLR 20, 2019), as a
share of what there is to explain: for a parameter that acts alone it is the share of the variance that it
accounts for, interactions count for each of the parameters in them.

Who explains nothing of unseen evaluations has nothing to say about parameters either: `Importance.quality`
says how much is explained, and below `LEAST_QUALITY` the bars would be noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ciq_ray.parameter_values import Parameter
from ciq_ray.report.data import ReportData

__all__ = ["LEAST_QUALITY", "Importance", "of_failures", "of_score"]

Floats = npt.NDArray[np.float64]

LEAST_QUALITY = 0.1
"""Share of the variance of unseen ranks that has to be explained before importances are shown."""
_LEAST_ROWS = 16
_MOST_ROWS = 1600
"""Evaluations that the model looks at, spread evenly over the search: bounds the time to seconds."""
_FOLDS = 4
_TREES = 40
_REPEATS = 3
_MOST_SHUFFLED = 64
"""Parameters that are shuffled in each fold, those the forest splits by most: the others hardly count."""
_LEAST_FAILURES = 10
_LEAST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Importance:
    """What parameters explain of one score, or of failing.

    Attributes:
        of: What is explained, for people.
        names: The parameters, the most important first.
        shares: For each the share of the variance it accounts for, interactions included; about 0 to 1.
        errors: Standard error of each, over folds and shuffles.
        quality: Share of the variance of unseen evaluations that the model explains (R squared); at most 1.
        n: Evaluations that the model was given.
        reason: Why there are no importances; empty if there are.
    """

    of: str
    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    quality: float = 0.0
    n: int = 0
    reason: str = ""


def of_score(data: ReportData, objective: int, parameters: Sequence[Parameter]) -> Importance:
    """What decides about one score, among the evaluations that passed.

    Args:
        data: The evaluations.
        objective: Number of the score.
        parameters: Of `data`.
    """
    passed = np.flatnonzero(data.passed)
    return _importance(data.score_names[objective], data.losses[passed, objective], parameters, passed)


def of_failures(data: ReportData, parameters: Sequence[Parameter]) -> Importance | None:
    """What decides whether a candidate fails, ``None`` where too few do (or too few pass) to tell."""
    failed = ~data.passed
    count = int(min(failed.sum(), (~failed).sum()))
    if count < _LEAST_FAILURES or failed.mean() < _LEAST_SHARE:
        return None
    return _importance("failing", failed.astype(np.float64), parameters, np.arange(len(failed)))


def _importance(
    of: str, targets: Floats, parameters: Sequence[Parameter], places: npt.NDArray[np.int64]
) -> Importance:
    """Importances for `targets`, which belong to the evaluations at `places`."""
    n = len(targets)
    varying = [(p.name, column) for p in parameters if (column := _column(p, places)) is not None]
    if not varying:
        return Importance(of, n=n, reason="no parameter takes more than one value")
    if n < _LEAST_ROWS:
        return Importance(of, n=n, reason=f"{n} evaluations are too few; it takes {_LEAST_ROWS}")
    if not np.ptp(targets):
        return Importance(of, n=n, reason="all evaluations are equally good")
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_ROWS)).round().astype(np.int64))
    X = np.column_stack([column for _, column in varying])[chosen]
    quality, losses = _reliance(X, _ranks(targets[chosen]))
    if quality < LEAST_QUALITY:
        reason = f"a model of the parameters explains {max(quality, 0):.0%} of unseen evaluations"
        return Importance(of, quality=quality, n=len(chosen), reason=f"{reason}: too little to rank them")
    means, errors = losses.mean(axis=0), losses.std(axis=0) / np.sqrt(len(losses))
    order = np.argsort(-means, kind="stable")
    return Importance(
        of,
        tuple(varying[j][0] for j in order),
        tuple(float(max(means[j], 0.0)) for j in order),
        tuple(float(errors[j]) for j in order),
        quality,
        len(chosen),
    )


def _reliance(X: Floats, targets: Floats) -> tuple[float, Floats]:
    """How much of unseen targets is explained, and for each fold and shuffle what each column is worth.

    Returns:
        R squared, and shares of shape (folds * repeats, columns).
    """
    from sklearn.ensemble import RandomForestRegressor
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    fold_of = rng.permutation(len(X)) % _FOLDS
    unexplained, losses = 0.0, []
    variance = float(targets.var())
    with threadpool_limits(1):
        for fold in range(_FOLDS):
            seen, unseen = fold_of != fold, fold_of == fold
            forest = RandomForestRegressor(
                _TREES, min_samples_leaf=2, max_features=0.5, n_jobs=1, random_state=fold
            )
            forest.fit(X[seen], targets[seen])
            truth = targets[unseen]
            own = float(((forest.predict(X[unseen]) - truth) ** 2).mean())
            unexplained += own * unseen.mean()
            worth = np.zeros((_REPEATS, X.shape[1]))
            for j in np.argsort(-forest.feature_importances_, kind="stable")[:_MOST_SHUFFLED]:
                errors = forest.predict(_shuffled(X[unseen], int(j), rng)).reshape(_REPEATS, -1) - truth
                # shuffling what acts alone adds twice its variance
                worth[:, j] = ((errors**2).mean(axis=1) - own) / (2 * variance)
            losses.append(worth)
    return float(1 - unexplained / variance), np.concatenate(losses)


def _shuffled(X: Floats, column: int, rng: np.random.Generator) -> Floats:
    """`X` once for each repeat, with one column shuffled, shape (repeats * n, columns)."""
    copies = np.tile(X, (_REPEATS, 1))
    copies[:, column] = np.concatenate([rng.permuted(X[:, column]) for _ in range(_REPEATS)])
    return copies


def _column(parameter: Parameter, places: npt.NDArray[np.int64]) -> Floats | None:
    """Where the values stand, absent ones below all others; ``None`` if they are all alike."""
    scale = parameter.scale[places]
    present = scale[~np.isnan(scale)]
    if not len(present):
        return None
    low, high = float(present.min()), float(present.max())
    column = np.where(np.isnan(scale), -1.0, (scale - low) / ((high - low) or 1.0))
    return column if np.ptp(column) else None


def _ranks(targets: Floats) -> Floats:
    """The share of the others that are less, equal ones in the middle of theirs."""
    _, which, counts = np.unique(targets, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    return np.asarray((below + (counts - 1) / 2)[which] / (len(targets) - 1))
