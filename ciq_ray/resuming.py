"""From a run's journal back to the fields of its `Search`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ciq_ray import journal as journals
from ciq_ray import origin, settings, types
from ciq_ray._mlflow.uris import without_credentials
from ciq_ray.errors import CiqError, JournalError
from ciq_ray.race import Plan
from ciq_ray.searching import raw_config
from ciq_ray.spaces import from_description, resolve
from ciq_ray.warm_start import cache_from_record
from searchers.errors import SearcherError, SpaceError

__all__ = ["fields_of", "recorded_worker_options", "run_folder", "tracker_record"]

_TRACKERS = (
    "DefaultTrackerConfig",
    "DisabledTrackerConfig",
    "LoguruTrackerConfig",
    "MLflowTrackerConfig",
    "TrackerConfig",
)
_PLAIN = (
    "run_id",
    "search_config",
    "searcher_options",
    "seed",
    "specialization_key",
    "max_evaluations",
    "time_budget_s",
    "target",
    "exit_on_failure",
    "remeasure_every",
    "dump_results",
    "cache_folder",
    "debug",
)


def run_folder(name: str | Path) -> Path:
    """The folder of a run: a path to it or to its journal, or its number in ``CIQ_RUNS_DIR``.

    Raises:
        JournalError: There is no such run.
    """
    for folder in (Path(name), settings.runs_dir() / str(name)):
        if folder.name == journals.FILE_NAME:
            folder = folder.parent
        if (folder / journals.FILE_NAME).is_file():
            return folder
    raise JournalError(
        f"there is no run {str(name)!r}: neither a folder with a {journals.FILE_NAME} nor a run in "
        f"{settings.runs_dir()}"
    )


def fields_of(
    path: Path, objective: Callable[..., Any] | None, given: dict[str, Any], *, force: bool
) -> tuple[Path, dict[str, Any]]:
    """Where a run is, and the fields of a `Search` that goes on with it.

    Raises:
        JournalError: The journal cannot be read, or does not hold a field that is not `given` either.
    """
    folder = run_folder(path)
    header = journals.read_header(folder)
    try:
        fields = _restored(header, given)
        described = header["objective"]
    except (CiqError, SearcherError):
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise JournalError(
            f"the header of {str(folder / journals.FILE_NAME)!r} is damaged ({what})"
        ) from error
    fields["objective_function"] = objective or origin.load(described, force=force)
    return folder, fields


def _restored(header: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    fields = {name: header[name] for name in _PLAIN if header.get(name) is not None}
    race = header.get("final_race", False)
    fields["final_race"] = Plan(**race) if isinstance(race, dict) else race
    if "tracker_config" not in given:
        fields["tracker_config"] = _tracker(header.get("tracker"))
    fields.update(given)
    if "searcher" not in given:
        record = header["searcher"]
        if record["name"] is None:
            raise JournalError(f"the run used a searcher of yours, {record['class']}; give it as `searcher`")
        fields["searcher"] = record["name"]
    if "searcher_options" not in given and header["searcher_options"] is None:
        raise JournalError(
            "the run had `searcher_options` that a journal cannot hold; give them as `searcher_options`"
        )
    if "worker_type" not in given:
        if header["worker_type"] is None:
            raise JournalError("the run used a worker of yours; give its class as `worker_type`")
        fields["worker_type"] = header["worker_type"]
    if "constraints" not in given:
        if header["constraints"] is None:
            raise JournalError("the run had constraints that are code; give them as `constraints`")
        fields["constraints"] = header["constraints"]
    if "search_space" not in given:
        try:
            fields["search_space"] = from_description(header["space"])
        except SpaceError as error:
            raise JournalError(f"{error}; give it as `search_space`") from error
    if "initial_configs" not in given and header["initial_rows"] is not None:
        space = resolve(fields["search_space"], fields["constraints"]).space
        fields["initial_configs"] = [raw_config(space, row) for row in header["initial_rows"]]
    if "cache" not in given:
        fields["cache"] = cache_from_record(header.get("cache"))
    return fields


def recorded_worker_options(header: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The further keyword arguments of `Search.start` that a run began with.

    Args:
        header: Of the run's journal; empty for a new one.
        given: What `start` has been given now.

    Raises:
        JournalError: One is an object that a journal cannot hold, and it is not given again.
    """
    record = header.get("worker_options", {})
    missing = [name for name in record.get("unknown", []) if name not in given]
    if missing:
        raise JournalError(
            f"the run began with a `{missing[0]}` that a journal cannot hold; give it again: "
            f"`Search.resume(path).start({missing[0]}=...)`, or `{missing[0]}=None` to go on without"
        )
    known: dict[str, Any] = record.get("known", {})
    return known


def tracker_record(config: Any) -> dict[str, Any] | None:
    """What the journal keeps of a tracker, but for credentials; ``None`` if it is code or has a stream."""
    if type(config).__name__ not in _TRACKERS:
        return None
    fields = config.model_dump()
    if isinstance(fields.get("tracking_uri"), str):
        fields["tracking_uri"] = without_credentials(fields["tracking_uri"])
    try:
        plain: dict[str, Any] = json.loads(json.dumps(fields))
    except (TypeError, ValueError):
        return None
    return {"config": type(config).__name__, "fields": plain}


def _tracker(record: dict[str, Any] | None) -> Any:
    if record is None:
        warnings.warn(
            "the run had a tracker of yours, or one that wrote to a stream: it records nothing now; give it "
            "as `tracker_config`",
            stacklevel=6,
        )
        record = {"config": "DisabledTrackerConfig", "fields": {}}
    if record["config"] not in _TRACKERS:
        raise JournalError(f"the run had the tracker {record['config']!r}, which this release does not know")
    return getattr(types, record["config"])(**record["fields"])
