"""What a search found."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ciq_ray._files import write_atomic
from ciq_ray._result_csv import warn_lost
from ciq_ray._result_frame import cleaned, columns_of, key_of, load_pandas, plain, reasons
from ciq_ray._result_table import (
    csv_header,
    csv_line,
    make_row,
    raw_columns,
    read_csv,
    score_names,
    table_columns,
)
from ciq_ray._types.enums import MultiScoreComparison, ProblemType
from ciq_ray.errors import ConfigurationError, ResultError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ciq_ray.race import RaceResult
    from ciq_ray.statistics import Verdict
    from ciq_ray.utils.validation import Score

__all__ = ["SearchResult"]


class SearchResult:
    """The results of a search, one row for each evaluation.

    The columns of the table:

    * ``generation``: the generation an evaluation belongs to, from 0;
    * ``param_id``: the id of its parameter set;
    * ``score``, or ``score_0``, ``score_1``, ... of a search with several objectives: floats, NaN for
      a failure;
    * ``norm_score`` in the same way, if scores were normalized;
    * ``params``: the parameters as the objective got them, a dict, a text or a list of these;
    * ``metadata``: what the worker had to say; ``status``: ``ok`` or the kind of failure;
      ``message``: why it failed, for people.

    Args:
        df: A table with these columns (the last three and ``param_id`` may be missing), which is
            copied; ``None`` or an empty one for no results yet.
        problem_type: Whether small (``"min"``) or large (``"max"``) scores are better.
        num_scores: How many scores each evaluation has.

    Attributes:
        problem_type: A `ProblemType`.
        num_scores: As given.
        remeasured: How many evaluations measured a leader again; its row has the median of all.
        verdict: What the final race said of the best against the baseline, if there was one.
        race: The whole of that race, if there was one.
        ended: Why the search ended: ``"finished"``, ``"max_evaluations"``, ``"time_budget"``,
            ``"target"``, or ``"stopped"`` by the user; ``None`` for a table from elsewhere.
        folder: The run's folder, with the journal that says more; ``None`` for a table from elsewhere.
        metric_columns: Names of metrics that are further columns, of a search of a kernel (docs/kernels.md).

    Raises:
        ConfigurationError: `problem_type` or `num_scores` is something else.
        ResultError: `df` is no such table.
    """

    def __init__(self, df: pd.DataFrame | None, problem_type: str | ProblemType, num_scores: int) -> None:
        self.problem_type = _problem_type(problem_type)
        if not isinstance(num_scores, int) or isinstance(num_scores, bool) or num_scores < 1:
            raise ConfigurationError(f"`num_scores` is {num_scores!r}; it must be an integer above 0")
        self.num_scores = num_scores
        self.verdict: Verdict | None = None
        self.race: RaceResult | None = None
        self.remeasured = 0
        self.ended: str | None = None
        self.folder: Path | None = None
        self.metric_columns: tuple[str, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self._merged = 0
        self._normalized = False
        self._df: pd.DataFrame | None = None
        if df is not None and not (isinstance(df, load_pandas().DataFrame) and df.columns.empty):
            self.df_results = df

    @property
    def df_results(self) -> pd.DataFrame:
        """The table of all results; what is changed in it is changed in the results."""
        pending = self._rows[self._merged :]
        if self._df is None or pending:
            new = load_pandas().DataFrame(
                columns_of(pending, [*table_columns(self.num_scores, self._normalized), *self.metric_columns])
            )
            if self._df is not None and len(self._df):
                new = load_pandas().concat([self._df, new], ignore_index=True)
            self._df, self._merged = new, len(self._rows)
        return self._df

    @df_results.setter
    def df_results(self, df: pd.DataFrame) -> None:
        table = cleaned(df)
        found = score_names(table.columns)
        if found[: self.num_scores] != raw_columns(self.num_scores) or len(found) % self.num_scores:
            raise ResultError(
                f"`num_scores` is {self.num_scores}, for which the score columns are "
                f"{', '.join(raw_columns(self.num_scores))}; the table has {', '.join(found)}"
            )
        self._df, self._merged = table, len(self._rows)
        self._normalized = len(found) > self.num_scores

    @property
    def score_columns(self) -> list[str]:
        """The columns that results are ranked by: the normalized scores if there are any."""
        return raw_columns(self.num_scores, "norm_score" if self._normalized else "score")

    @property
    def is_normalized(self) -> bool:
        """Whether there are normalized scores."""
        return self._normalized

    def __len__(self) -> int:
        return (0 if self._df is None else len(self._df)) + len(self._rows) - self._merged

    def __repr__(self) -> str:
        return (
            f"<SearchResult: {len(self)} evaluations, {self.num_scores} score(s), "
            f"problem_type={self.problem_type.value!r}>"
        )

    @classmethod
    def from_csv(
        cls,
        csv_path: str | os.PathLike[str],
        problem_type: str | ProblemType,
        clear_duplicates: bool = True,
    ) -> SearchResult:
        """Load the results in a CSV file.

        Args:
            csv_path: What `save` or a search's `dump_results` wrote.
            problem_type: Problem type, either ``"min"`` or ``"max"``.
            clear_duplicates: Whether to remove rows whose `params` an earlier row has.

        Raises:
            ConfigurationError: `problem_type` is something else.
            ResultError: The file cannot be read or is no table of results; the message names the line.
        """
        kind = _problem_type(problem_type)
        if not isinstance(csv_path, (str, os.PathLike)):
            raise ResultError(f"`csv_path` is {csv_path!r}; it must be the path of a CSV file")
        table = load_pandas().DataFrame(read_csv(Path(csv_path)))
        return cls._loaded(table, kind, clear_duplicates)

    @classmethod
    def from_dataframe(
        cls, df: pd.DataFrame, problem_type: str | ProblemType, clear_duplicates: bool = True
    ) -> SearchResult:
        """Load the results in a data frame, which is copied.

        Args:
            df: A table as the class describes it; `params` may also be JSON text, and a failed
                score ``"*"``.
            problem_type: Problem type, either ``"min"`` or ``"max"``.
            clear_duplicates: Whether to remove rows whose `params` an earlier row has.

        Raises:
            ConfigurationError: `problem_type` is something else.
            ResultError: It is no table of results; the message names the row.
        """
        return cls._loaded(cleaned(df), _problem_type(problem_type), clear_duplicates)

    @classmethod
    def _loaded(cls, table: pd.DataFrame, kind: ProblemType, clear_duplicates: bool) -> SearchResult:
        found = score_names(table.columns)
        scores = sum(not name.startswith("norm_") for name in found)
        result = cls(None, kind, scores)
        result._df, result._normalized = table, len(found) > scores
        if clear_duplicates:
            result._drop_repeated(["params"])
        return result

    def add_result(
        self,
        score: Score,
        generation_num: int,
        normalize: bool = False,
        *,
        status: str | None = None,
        message: str = "",
        replace: bool = False,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a single evaluated score to the results.

        The table is put together when it is next asked for: a call takes the same short time however
        many there were.

        Args:
            score: A single `Score` object returned from the worker.
            generation_num: The generation this score was produced in.
            normalize: Whether normalized scores should also be recorded.
            status: ``"ok"`` or the kind of failure, which has no scores then; by default, what the
                score says.
            message: Why it failed, for people.
            replace: Put it in the place of the row that has the same `param_id`, as for a candidate
                that was measured again.
            metrics: What else was measured; those in `metric_columns` get into the table.

        Raises:
            ResultError: The score has another number of objectives than these results, or `status` is
                none of `searchers.outcome.STATUSES`.
        """
        row = make_row(score, generation_num, self.num_scores, normalize, status, message)
        row.update({name: (metrics or {}).get(name, math.nan) for name in self.metric_columns})
        place = self._place_of(score.param_id) if replace else None
        if place is None:
            self._rows.append(row)
        else:
            self._rows[place] = row
            if place < self._merged and self._df is not None:
                for index in self._df.index[self._df["param_id"] == score.param_id]:
                    for column, value in row.items():
                        self._df.at[index, column] = value
        self._normalized = self._normalized or normalize

    def _place_of(self, param_id: int | str) -> int | None:
        found = (i for i in range(len(self._rows) - 1, -1, -1) if self._rows[i]["param_id"] == param_id)
        return next(found, None)

    def rows(self, start: int = 0) -> list[dict[str, Any]]:
        """The rows that `add_result` appended, from number `start` on, as dictionaries."""
        return self._rows[start:]

    def get_best_result(
        self,
        multiscore_scope: MultiScoreComparison
        | Literal["avg", "stddev", "pareto_front"] = MultiScoreComparison.PARETO,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the best result of the search.

        Args:
            multiscore_scope: For searches with several scores, what decides. ``pareto_front`` (the
                default): all rows that no other row beats. ``avg``: the one row with the best mean
                of its scores, the smallest or the largest by `problem_type`. ``stddev``: the one row
                whose scores spread least (population standard deviation). The scores are taken as
                they are: for ``avg`` and ``stddev`` they should have one scale, as normalized ones do.

        Returns:
            One row as a dictionary: ``score``, ``params``, ``generation`` and all other columns. With
            several scores, ``score`` is their list, next to ``score_0``, ``score_1`` and so on. A
            list of such dictionaries when returning a Pareto front of several scores. Of equal rows,
            the first one counts.

        Raises:
            ConfigurationError: `multiscore_scope` is something else.
            ResultError: There are no results, or all evaluations failed.
        """
        try:
            scope = MultiScoreComparison(multiscore_scope)
        except ValueError as error:
            allowed = ", ".join(f'"{kind.value}"' for kind in MultiScoreComparison)
            raise ConfigurationError(
                f"`multiscore_scope` is {multiscore_scope!r}; it must be one of {allowed}"
            ) from error
        if self.num_scores > 1 and scope is MultiScoreComparison.PARETO:
            return self.pareto_front()
        values = self._ranked_values()
        if scope is MultiScoreComparison.STDDEV and self.num_scores > 1:
            merit = values.std(axis=1)
        else:
            merit = values.mean(axis=1)
            merit = -merit if self.problem_type is ProblemType.MAX else merit
        return self._row(int(np.nanargmin(merit)))

    def top(self, count: int) -> list[dict[str, Any]]:
        """The rows with the best scores, best first, each parameter set once.

        Several scores are ranked by their mean, as `get_best_result` does with ``"avg"``.

        Args:
            count: How many at most.

        Raises:
            ResultError: There are no results, or all evaluations failed.
        """
        merit = self._ranked_values().mean(axis=1)
        merit = -merit if self.problem_type is ProblemType.MAX else merit
        rows: list[dict[str, Any]] = []
        for position in np.argsort(merit, kind="stable"):
            if len(rows) >= count or np.isnan(merit[position]):
                break
            row = self._row(int(position))
            if all(row["params"] != other["params"] for other in rows):
                rows.append(row)
        return rows

    def pareto_front(self) -> list[dict[str, Any]]:
        """Return the Pareto-efficient rows from a multi-score search.

        Returns:
            Rows as `get_best_result` describes them, in the order of the table; of a search with one
            score, the rows that have the best one.

        Raises:
            ResultError: There are no results, or all evaluations failed.
        """
        mask = self.calculate_pareto_front(self._ranked_values())
        return [self._row(int(position)) for position in np.flatnonzero(mask)]

    def get_results(self) -> pd.DataFrame:
        """Return the data frame with all evaluated parameters."""
        return self.df_results

    def calculate_pareto_front(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Find the Pareto-efficient points given a list of scores.

        `pareto_front` yields the same Pareto front. Equal points are efficient together.

        Args:
            scores: An array of shape ``(n_params, n_scores)``. Position ``[i, j]`` is the j-th score
                of the i-th parameter set, in the sense of `problem_type`; NaN marks a failure.

        Returns:
            A mask of shape ``(n_params,)``: which rows of `scores` were selected.

        Raises:
            ResultError: `scores` is not such an array.
        """
        try:
            points = np.asarray(scores, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ResultError("`scores` holds something that is no number") from error
        if points.ndim != 2 or not points.shape[1]:
            raise ResultError(f"`scores` has the shape {points.shape}; it must be (n_params, n_scores)")
        mask: npt.NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
        if mask.any():
            import moocore

            mask[mask] = moocore.is_nondominated(
                points[mask], maximise=self.problem_type is ProblemType.MAX, keep_weakly=True
            )
        return mask

    def clear_duplicates(self) -> pd.DataFrame:
        """Drop each row whose params and scores an earlier row has too.

        A search may send the same parameters again. If the scores are exactly the same as the
        previous time, the row says nothing new.

        Returns:
            The table without them, which is also what the results have from now on.
        """
        norm = raw_columns(self.num_scores, "norm_score") if self.is_normalized else []
        self._drop_repeated(["params", *raw_columns(self.num_scores), *norm])
        return self.df_results

    def _drop_repeated(self, columns: list[str]) -> None:
        table = self.df_results
        cells = [
            [key_of(value) for value in table[name]] if name == "params" else map(repr, table[name].tolist())
            for name in columns
        ]
        seen: set[tuple[str, ...]] = set()
        kept = []
        for key in zip(*cells, strict=True):
            kept.append(key not in seen)
            seen.add(key)
        if not all(kept):
            self._df = table[np.array(kept, dtype=bool)].reset_index(drop=True)

    def save(self, filepath: str | os.PathLike[str] = "./search_results.csv") -> None:
        """Save the entire table to a CSV file, as a whole or not at all.

        `params` becomes a JSON string; values in it that JSON has no form for are written as their
        ``repr``, with a warning. Failed scores are empty cells.

        Args:
            filepath: Path to save the CSV file.

        Raises:
            ResultError: The file cannot be written.
        """
        table = self.df_results
        names = [str(name) for name in table.columns]
        lost: set[str] = set()
        cells = [table.iloc[:, position].tolist() for position in range(len(names))]
        lines = [csv_line(names, row, lost) for row in zip(*cells, strict=True)]
        try:
            write_atomic(filepath, [csv_header(names), *lines])
        except (OSError, TypeError, ValueError) as error:
            raise ResultError(f"`filepath` is {filepath!r}, which cannot be written: {error}") from error
        if lost:
            warn_lost(lost)

    def plot_convergence(self) -> go.Figure:
        """Draw every evaluation and the best so far, and below them failures by kind.

        Raises:
            ResultError: There are no results, or all evaluations failed.
        """
        from ciq_ray import report

        return report.plot_convergence(self)

    def plot_pareto(self) -> go.Figure:
        """Draw the scores against each other, with the Pareto front.

        Raises:
            ResultError: There is one score only, there are no results, or all evaluations failed.
        """
        from ciq_ray import report

        return report.plot_pareto(self)

    def plot_importance(self) -> go.Figure:
        """Draw how much of the variation of the scores each parameter accounts for.

        `ciq_ray.report.importance` says how that is found out.

        Raises:
            ResultError: There are no results, or a model of them explains nothing.
        """
        from ciq_ray import report

        return report.plot_importance(self)

    def report(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write everything there is to see into one HTML file, which needs no network.

        Args:
            path: The file. An earlier report is replaced.
            force: Replace any other file, too.

        Returns:
            `path`.

        Raises:
            ConfigurationError: `path` cannot be written, or is a file that is no report.
        """
        from ciq_ray import report

        return report.report_of_result(self, path, force=force)

    def _ranked_values(self) -> npt.NDArray[np.float64]:
        """Scores by row, NaN for all of a row that has no rank.

        Raises:
            ResultError: No row has a rank.
        """
        if not len(self):
            raise ResultError("there are no results: nothing has been evaluated yet")
        table = self.df_results
        values = table[self.score_columns].to_numpy(dtype=np.float64, copy=True)
        values[~np.isfinite(values).all(axis=1)] = np.nan
        if np.isnan(values).all():
            raise ResultError(f"all {len(table)} evaluations failed{reasons(table)}")
        return values

    def _row(self, position: int) -> dict[str, Any]:
        table = self.df_results
        row = {str(name): plain(table[name].iloc[position]) for name in table.columns}
        if self.num_scores > 1:
            row["score"] = [row[name] for name in raw_columns(self.num_scores)]
            if self.is_normalized:
                row["norm_score"] = [row[name] for name in raw_columns(self.num_scores, "norm_score")]
        return row


def _problem_type(value: Any) -> ProblemType:
    try:
        return ProblemType(value)
    except ValueError as error:
        raise ConfigurationError(f'`problem_type` is {value!r}; it must be "min" or "max"') from error
