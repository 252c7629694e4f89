"""The folders of a run: made when it begins, removed if nothing came of it, emptied at its end."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ciq_ray import journal as journals
from ciq_ray import settings
from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.ciq import Search

__all__ = ["keep_logs", "new_folder", "remove_unused"]


def new_folder(search: Search) -> Path:
    """Make the folder of a new run, and give the search its number.

    Raises:
        ConfigurationError: It cannot be made, or is there already.
    """
    runs = settings.runs_dir()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        # one that an earlier start has assigned is no wish of the user's
        if search.run_id not in (None, search._assigned_run_id):
            folder = runs / str(search.run_id)
            folder.mkdir()
            return folder
        names = [entry.name for entry in runs.iterdir()]
        taken = [int(name) for name in names if name.isascii() and name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            try:
                (runs / str(number)).mkdir()
                break
            except FileExistsError:
                number += 1
    except FileExistsError as error:
        raise ConfigurationError(
            f"`run_id` is {search.run_id}, which exists in {runs}; leave it out, or go on with "
            f"`Search.resume({str(runs / str(search.run_id))!r})`"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"cannot make a folder for the run in {runs} (CIQ_RUNS_DIR): {error.strerror}"
        ) from error
    search.run_id = search._assigned_run_id = number
    return runs / str(number)


def remove_unused(search: Search, folder: Path, run_id: int | None, error: BaseException | None) -> None:
    """After an error, remove a folder in whose journal there is nothing to go on with.

    Args:
        search: What it was made for.
        folder: The folder.
        run_id: The search's number before.
        error: What ended the search; ``None`` if nothing did.
    """
    if error is None:
        return
    path = folder / journals.FILE_NAME
    with suppress(OSError):
        if path.exists():
            with path.open("rb") as lines:
                next(lines, None)  # the header
                if any(b'"t":"ask"' in line for line in lines):
                    return
            path.unlink()
        folder.rmdir()
        search.run_id = run_id


def keep_logs(cache: Path) -> None:
    """Remove what else there is in the folder for what a run needs meanwhile."""
    for entry in cache.iterdir():
        if entry.is_dir():
            if entry.name != "logs":
                shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
