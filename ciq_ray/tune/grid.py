"""From Ray Tune's results to a `SearchResult`, and back."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from ciq_ray._files import write_atomic
from ciq_ray._types.enums import INVALID_SCORE
from ciq_ray.errors import ConfigurationError, ResultError
from ciq_ray.results import SearchResult
from ciq_ray.tune.experiment import JOURNAL
from ciq_ray.tune.objective import ROWS, batch_of
from ciq_ray.utils.validation import Score
from searchers.errors import OptionError
from searchers.metrics import check_metrics, outcome_of
from searchers.outcome import OK, Outcome
from searchers.tune_journal import read_results

__all__ = ["to_result_grid", "to_search_result"]

_Row = tuple[str, Any, Outcome]


def to_search_result(
    grid: tune.ResultGrid,
    *,
    metric: str | Sequence[str] | None = None,
    mode: str | None = None,
    journal: str | os.PathLike[str] | None = None,
) -> SearchResult:
    """The results of an experiment as a `SearchResult`: one row for each configuration.

    Trials that have not ended have no row. `param_id` is the trial's id, for one of several in a trial with
    its number (``"1f3a.7"``); `generation` counts trials, since what is in one trial was chosen without
    knowing of each other. A configuration under the key ``"config"`` alone (a text, a list of parts) stands
    for itself.

    Args:
        grid: What `Tuner.fit`, `Tuner.get_results` or `ciq_ray.tune.run` returned, of trainables of any kind.
        metric: The name of the objective in the results, or a list of names; by default the experiment's.
        mode: ``"min"`` or ``"max"``, for all of them; by default the experiment's.
        journal: A searcher's journal of the same experiment, which knows what Ray Tune forgot when it was
            killed; by default the one that `ciq_ray.tune.run` keeps in the experiment's folder, if any.

    Raises:
        ConfigurationError: `metric` or `mode` is missing or cannot be used.
        searchers.StateError: The journal cannot be read.
    """
    analysis = grid._experiment_analysis  # nothing public says what the metric was
    metric = analysis.default_metric if metric is None else metric
    mode = analysis.default_mode if mode is None else mode
    if metric is None or mode not in ("min", "max"):
        raise ConfigurationError(
            f"`metric` is {metric!r} and `mode` {mode!r}; give a name or names, and one of 'min' and 'max' "
            "for all of them (have the objective turn the sign of those with the other direction)"
        )
    try:
        names, _ = check_metrics(metric, [mode] * len(metric) if not isinstance(metric, str) else mode)
    except OptionError as error:
        raise ConfigurationError(str(error)) from error
    assert names is not None
    rows: dict[str, _Row] = {}
    kept = Path(grid.experiment_path) / JOURNAL if journal is None else Path(journal)
    if journal is not None or kept.exists():
        rows = {trial: (trial, config, outcome) for trial, config, outcome in read_results(kept)}
    for row in _rows(grid, names):
        rows.setdefault(row[0], row)
    result = SearchResult(None, mode, len(names))
    trials: dict[str, int] = {}
    for row in rows.values():
        generation = trials.setdefault(row[0].partition(".")[0], len(trials))
        result.add_result(_score(row, len(names)), generation, status=row[2].status, message=row[2].message)
    result.ended = "finished"
    return result


def to_result_grid(
    result: SearchResult, folder: str | os.PathLike[str], *, metric: str | Sequence[str] | None = None
) -> tune.ResultGrid:
    """The results of a search as those of an experiment of Ray Tune: one trial for each row.

    Ray Tune reads results from an experiment's folder only, so one is written. All that looks at
    experiments works with it: `ResultGrid`, `tune.ExperimentAnalysis(folder)`,
    `SpaceSearcher.add_evaluated_trials`. It cannot be restored or run. A failure is a trial that has ended,
    with NaN for its metrics and its kind under ``"ciq_status"``.

    Args:
        result: The results of a search.
        folder: A folder that does not exist, or is empty.
        metric: Names for the scores, as many as there are; by default the names of their columns.

    Raises:
        ConfigurationError: `metric` has not a name for each score.
        ResultError: `folder` is not empty, or cannot be written.
    """
    columns = result.score_columns
    names = columns if metric is None else [metric] if isinstance(metric, str) else list(metric)
    if len(names) != len(columns) or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"`metric` is {metric!r}; the results have {len(columns)} score(s)")
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ResultError(f"`folder` is {str(folder)!r}, which is not empty; give another one")
        storage = StorageContext(path.parent, path.name)
        rows: list[dict[Any, Any]] = result.df_results.to_dict("records")
        trials = [_write_trial(storage, at, row, columns, names) for at, row in enumerate(rows)]
        state = {"trial_data": trials, "runner_data": {}, "stats": {"start_time": time.time()}}
        name = time.strftime("experiment_state-%Y-%m-%d_%H-%M-%S.json")
        write_atomic(path / name, [json.dumps(state).encode()])
    except OSError as error:
        raise ResultError(f"`folder` is {str(folder)!r}, which cannot be written: {error}") from error
    alone = len(names) == 1
    return tune.ResultGrid(
        tune.ExperimentAnalysis(
            path.as_posix(),
            default_metric=names[0] if alone else None,
            default_mode=result.problem_type.value if alone else None,
        )
    )


def _write_trial(
    storage: StorageContext, position: int, row: dict[Any, Any], columns: list[str], names: list[str]
) -> tuple[str, str]:
    """One row as a trial: its result in a file, and its state as Ray Tune's snapshots hold it."""
    config = row["params"] if isinstance(row["params"], dict) else {"config": row["params"]}
    own = copy.copy(storage)
    own.trial_dir_name = f"{position:05d}"
    trial = Trial("ciq_ray", stub=True, config=config, trial_id=own.trial_dir_name, storage=own)
    trial.create_placement_group_factory()
    trial.relative_logdir = own.trial_dir_name
    report = {
        **{name: row[column] for name, column in zip(names, columns, strict=True)},
        "ciq_status": row["status"],
        "ciq_message": row["message"],
        "generation": row["generation"],
        "param_id": row["param_id"],
        "trial_id": trial.trial_id,
        "training_iteration": 1,
        "done": True,
        "config": config,
    }
    report = json.loads(json.dumps(report, default=_plain))
    trial.update_last_result(report)
    trial.set_status(Trial.TERMINATED)
    folder = Path(own.trial_fs_path)
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(report) + "\n")
    state: tuple[str, str] = trial.get_json_state()
    return state


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def _rows(grid: tune.ResultGrid, names: list[str]) -> Iterator[_Row]:
    """Id, configuration and outcome of each candidate of the trials that have ended."""
    for trial, result in zip(grid._experiment_analysis.trials, grid, strict=True):
        config, metrics, failed = trial.config, result.metrics or {}, trial.status == Trial.ERROR
        if not failed and (trial.status != Trial.TERMINATED or "training_iteration" not in metrics):
            continue  # it runs, or was stopped before its first result
        batch = batch_of(config)
        if batch is None:
            yield trial.trial_id, _argument(config), _said(names, metrics, failed, trial)
            continue
        rows = metrics.get(ROWS) or [None] * len(batch)
        for number, (part, row) in enumerate(zip(batch, rows, strict=True)):
            lost = failed or row is None
            yield (
                f"{trial.trial_id}.{number}",
                _argument(part),
                _said(names, {} if lost else row, lost, trial),
            )


def _said(names: list[str], metrics: dict[str, Any], failed: bool, trial: Trial) -> Outcome:
    if failed:
        error = trial.get_pickled_error() or trial.get_error()
        return Outcome("run_error", message=f"the trial failed: {error}")
    return outcome_of(names, metrics, False)


def _argument(config: dict[str, Any]) -> Any:
    """What the objective was called with."""
    alone = config.get("config") if len(config) == 1 else None
    return alone if isinstance(alone, (str, list)) else config


def _score(row: _Row, count: int) -> Score:
    trial, config, outcome = row
    values: Any = INVALID_SCORE
    if outcome.status == OK and all(map(math.isfinite, outcome.values)):
        values = outcome.values[0] if count == 1 else outcome.values
    return Score(score=values, params=config, param_id=trial, num_objectives=count)
