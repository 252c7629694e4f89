"""The final race of a run, before it and after it: its baseline tried, its result read back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.errors import BaselineError, ConfigurationError, JournalError
from ciq_ray.journal import read_records
from ciq_ray.race import BASELINE, Entrant, RaceResult
from ciq_ray.racing import BlockRunner, baseline_of
from ciq_ray.statistics import Verdict

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.results import SearchResult

__all__ = ["baseline_is_known", "decided_race", "race_result_from", "try_baseline"]


def try_baseline(search: Search, runner: BlockRunner) -> None:
    """Call the objective once with what the final race compares with.

    A baseline that cannot be raced against is known then before a search is spent on it.

    Raises:
        BaselineError: It fails.
        ConfigurationError: Its score is not above 0, so that there are no ratios to it.
        RaceStopped: It was asked to stop.
    """
    baseline = baseline_of(search)
    [(_, outcome)] = runner([Entrant(BASELINE, baseline)])
    if search.initial_configs:
        called = f"the baseline of `final_race` is the first of `initial_configs`, {baseline!r}"
        way_out = "give another one first"
    else:
        default = search.space.default_row is not None
        called = (
            f"the baseline of `final_race` is {'the default' if default else 'nothing set'}, {baseline!r}"
        )
        way_out = "give the configuration in use today as `initial_configs`, or as a `default` of the space"
    if not outcome.ok:
        raise BaselineError(
            f"{called}, and the objective fails with it ({outcome.status}): {outcome.message.strip()}\n"
            f"Nothing else was evaluated: {way_out}, or search without `final_race`"
        )
    if not outcome.values[0] > 0:
        raise ConfigurationError(
            f"{called}, and its score is {outcome.values[0]!r}; a race compares by ratio, for which scores "
            f"must be above 0. Nothing else was evaluated: return such scores, {way_out}, or search without "
            "`final_race`"
        )


def baseline_is_known(records: Iterable[dict[str, Any]]) -> bool:
    """Whether a race in these records has measured the baseline, with a score it can be raced by."""
    return any(
        record.get("t") == "race" and record.get("id") == BASELINE and (record.get("value") or 0) > 0
        for record in records
    )


def decided_race(folder: Path, result: SearchResult) -> RaceResult | None:
    """The last race of a run, ``None`` if it has no verdict or the run has gone on since.

    Args:
        folder: The run's folder.
        result: What the run has found.

    Raises:
        JournalError: The record of it cannot be read.
    """
    found = None
    for record in read_records(folder):
        if record.get("t") == "verdict":
            found = record
        elif record.get("t") in ("outcome", "race_begins"):
            found = None
    if found is None:
        return None
    try:
        return race_result_from(found, result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{folder} has a verdict that cannot be read: {found}") from error


def race_result_from(record: dict[str, Any], result: SearchResult) -> RaceResult:
    """A race from its ``verdict`` record; it took no seconds of this process.

    Raises:
        KeyError: The record lacks something, or `result` lacks the winner.
    """
    params = {str(row["param_id"]): row["params"] for row in result.rows()}
    winner = Entrant(record["winner"], params[record["winner"]])
    won = record["chosen"] == winner.id
    chosen = winner if won else Entrant(record["chosen"], record["config"])
    return RaceResult(
        Verdict.from_dict(record["verdict"]),
        Verdict.from_dict(record["control"]),
        winner,
        chosen,
        tuple((name, ratio) for name, ratio in record["ranking"]),
        dict(record["dropped"]),
        record["calls"],
        0.0,
        None if record.get("library") is None else Verdict.from_dict(record["library"]),
    )
