"""What a report and its figures are made from: the evaluations of a run or of a table, in one form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ciq_ray import journal as journals
from ciq_ray.errors import CiqError, JournalError, ResultError
from ciq_ray.parameter_values import Parameter, from_configs, from_rows
from ciq_ray.run_view import Entry, RunView
from searchers.errors import SearcherError
from searchers.outcome import OK

if TYPE_CHECKING:
    from ciq_ray.results import SearchResult
    from searchers.space import Space

__all__ = ["Evaluated", "ReportData"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One candidate and what came of it.

    Attributes:
        id: Its id.
        config: What the objective got.
        generation: The block it counts in, if known.
        status: ``ok`` or the kind of failure.
        values: Its scores as the objective gave them; empty for a failure.
        ranked: What it is ranked by: normalized scores if there are any.
        message: Why it failed.
        run_s: Seconds it took, the last time.
        compile_s: Seconds of that spent building.
        metrics: Whatever else was measured, by name.
        device: Where it ran, as one text.
        measured: How often.
    """

    id: str
    config: Any
    generation: int | None
    status: str
    values: tuple[float, ...]
    ranked: tuple[float, ...]
    message: str = ""
    run_s: float | None = None
    compile_s: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    measured: int = 1


@dataclass
class ReportData:
    """The evaluations of a search, and what is known about it.

    Attributes:
        rows: The evaluations, in their order.
        score_names: A name for each score.
        modes: ``"min"`` or ``"max"`` for each score, as the objective gave it.
        normalized: Whether `Evaluated.ranked` are multiples of a baseline's scores.
        view: The run behind them, if there is one.
        space: Its search space, if the journal holds it.
        verdict: The verdict of the final race, as its record in the journal.
    """

    rows: list[Evaluated]
    score_names: list[str]
    modes: list[str]
    normalized: bool = False
    view: RunView | None = None
    space: Space | None = None
    verdict: dict[str, Any] | None = None

    @classmethod
    def of_run(cls, folder: Path) -> ReportData:
        """Of a run's journal.

        Raises:
            JournalError: The journal cannot be read.
        """
        view = RunView(folder)
        rows = [
            _evaluated(view, entry, entry.config, entry.generation, entry.status)
            for entry in view.entries.values()
            if entry.outcomes
        ]
        normalized = any(entry.normalized for entry in view.entries.values())
        return cls(rows, view.score_names, _modes(view), normalized, view, _space_of(view), view.verdict)

    @classmethod
    def of_result(cls, result: SearchResult) -> ReportData:
        """Of a table of results, and of the journal in its folder, if it has one."""
        view = _view_of(result)
        table = result.get_results()
        columns = {str(name): table[name].tolist() for name in table.columns}
        scores = _tuples(columns, result, "score")
        ranked = _tuples(columns, result, "norm_score") if result.is_normalized else scores
        rows = []
        for i, param_id in enumerate(columns.get("param_id", ())):
            config, generation = columns["params"][i], int(columns["generation"][i])
            status = str(columns["status"][i])
            entry = None if view is None else view.entries.get(str(param_id))
            if view is not None and entry is not None and entry.outcomes:
                rows.append(_evaluated(view, entry, config, generation, status))
            else:
                ok = status == OK and all(map(math.isfinite, ranked[i]))
                values = (scores[i], ranked[i]) if ok else ((), ())
                message = str(columns["message"][i])
                rows.append(Evaluated(str(param_id), config, generation, status, *values, message))
        names = ["score"] if result.num_scores == 1 else [f"score_{i}" for i in range(result.num_scores)]
        modes = [result.problem_type.value] * result.num_scores
        if view is not None:
            names, modes = view.score_names, _modes(view)
        space = None if view is None else _space_of(view)
        return cls(rows, names, modes, result.is_normalized, view, space, _verdict_of(result, view))

    # --- the evaluations as arrays ---

    @property
    def num_scores(self) -> int:
        """How many scores an evaluation has."""
        return len(self.score_names)

    @property
    def passed(self) -> npt.NDArray[np.bool_]:
        """Which rows have scores, shape (n,)."""
        return np.array([bool(row.values) for row in self.rows], dtype=bool)

    @property
    def scores(self) -> Floats:
        """Scores as the objective gave them, NaN for failures; shape (n, num_scores)."""
        return self._matrix([row.values for row in self.rows])

    @property
    def losses(self) -> Floats:
        """What rows are ranked by, less is better, NaN for failures; shape (n, num_scores)."""
        signs = np.array([1.0 if mode == "min" else -1.0 for mode in self.modes])
        return np.asarray(self._matrix([row.ranked for row in self.rows]) * signs)

    def _matrix(self, rows: Sequence[tuple[float, ...]]) -> Floats:
        blank = (math.nan,) * self.num_scores
        return np.array([row or blank for row in rows], dtype=np.float64).reshape(-1, self.num_scores)

    @property
    def front(self) -> npt.NDArray[np.int64]:
        """Positions of the rows that no other beats, best first by the first score; equal rows once."""
        losses, passed = self.losses, self.passed
        if not passed.any():
            return np.empty(0, dtype=np.int64)
        places = np.flatnonzero(passed)
        if self.num_scores == 1:
            return places[[int(losses[passed, 0].argmin())]]
        import moocore

        best = moocore.is_nondominated(losses[passed], keep_weakly=False)
        places = places[np.asarray(best, dtype=bool)]
        return np.asarray(places[np.lexsort(losses[places].T[::-1])])

    @property
    def statuses(self) -> dict[str, int]:
        """How many rows have each status, the most frequent first."""
        return dict(Counter(row.status for row in self.rows).most_common())

    def parameters(self) -> list[Parameter]:
        """All parameters, in the order of the space, or of their appearance."""
        if not self.rows:
            return []
        if self.space is not None:
            matrix = self._space_rows(self.space)
            if matrix is not None:
                return from_rows(self.space, matrix)
        return from_configs([row.config for row in self.rows])

    def _space_rows(self, space: Space) -> npt.NDArray[np.int32] | None:
        entries = {} if self.view is None else self.view.entries
        found = [entries[row.id].row for row in self.rows if row.id in entries]
        if len(found) < len(self.rows) or any(len(row) != space.encoding.n_columns for row in found):
            return None
        return np.array(found, dtype=np.int32)

    def require_results(self) -> None:
        """Say so when there is nothing to draw.

        Raises:
            ResultError: Nothing was evaluated, or all evaluations failed.
        """
        if not self.rows:
            raise ResultError("there are no results: nothing has been evaluated yet")
        if not self.passed.any():
            kinds = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
            raise ResultError(f"all {len(self.rows)} evaluations failed ({kinds}): there is nothing to draw")


def _evaluated(view: RunView, entry: Entry, config: Any, generation: int | None, status: str) -> Evaluated:
    last = entry.outcomes[-1]
    values = view.shown(entry.values) if entry.values else ()
    ranked = entry.ranked if entry.normalized else values
    # actors come and go; what a time depends on is the node and its device
    where = [f"{name} {entry.place[name]}" for name in ("node", "gpu") if entry.place.get(name)]
    return Evaluated(
        entry.id,
        config,
        generation,
        status,
        values,
        ranked if values else (),
        last.message,
        last.run_s,
        last.compile_s,
        last.metrics,
        " ".join(where) or entry.worker,
        len(entry.outcomes),
    )


def _modes(view: RunView) -> list[str]:
    if view.command is not None:
        return [str(text)[:3] for text in view.command["scores"]]
    return [view.mode] * view.num_objectives


def _space_of(view: RunView) -> Space | None:
    """The run's search space; ``None`` if it is code, or its file is gone."""
    from ciq_ray.spaces import from_description, resolve

    try:
        return resolve(from_description(view.header["space"])).space
    except (CiqError, SearcherError, OSError, KeyError, TypeError, ValueError):
        return None


def _view_of(result: SearchResult) -> RunView | None:
    if result.folder is None or not (result.folder / journals.FILE_NAME).is_file():
        return None
    try:
        view = RunView(result.folder)
    except JournalError:  # the table has what matters
        return None
    return view if view.num_objectives == result.num_scores else None


def _verdict_of(result: SearchResult, view: RunView | None) -> dict[str, Any] | None:
    race = result.race
    if race is None:
        return None if view is None else view.verdict
    return {
        "verdict": race.verdict.to_dict(),
        "control": race.control.to_dict(),
        "library": None if race.library is None else race.library.to_dict(),
        "winner": race.winner.id,
        "chosen": race.chosen.id,
        "config": race.chosen.config,
        "ranking": [list(pair) for pair in race.ranking],
        "dropped": race.dropped,
        "calls": race.calls,
    }


def _tuples(columns: Mapping[str, list[Any]], result: SearchResult, prefix: str) -> list[tuple[float, ...]]:
    names = [prefix] if result.num_scores == 1 else [f"{prefix}_{i}" for i in range(result.num_scores)]
    return list(zip(*(columns[name] for name in names), strict=True))
