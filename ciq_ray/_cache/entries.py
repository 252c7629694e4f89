"""Entries of the best-config cache: one JSON file for each key, replaced as a whole.

::

    {"format": "ciq-best-config", "version": 1, "hardware": "...", "specialization_key": "...",
     "config_spec_hash": "...", "modes": ["min"], "normalized": false, "objective": "bench", "source": "...",
     "libraries": null, "saved_at": 1760000000.0,
     "best": [{"config": {...}, "row": [0, 3], "values": [0.19]}, ...]}

`best` holds the best configurations of that key, best first. A configuration is its `row` of the space's
integer matrix; `config` is there for people, and for who has no space at hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ciq_ray._files import write_atomic

__all__ = ["SUFFIX", "SavedBestConfig", "exclusive", "newest_first", "parsed", "write_entry"]

logger = logging.getLogger(__name__)

SUFFIX: Final = ".best_config"
_FORMAT: Final = "ciq-best-config"
_VERSION: Final = 1
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class SavedBestConfig:
    """A parsed cache entry: the best configuration that searches with one key have found.

    Attributes:
        hardware: Where it was found, see `ciq_ray.cache.hardware`.
        specialization_key: What it was found for, as text.
        config: The configuration.
        config_spec_hash: `Space.fingerprint` of its space.
        flat_config: Its row of the space's integer matrix.
        values: Its scores, one for each objective, normalised if the search was.
        modes: ``"min"`` or ``"max"`` for each objective.
        normalized: Whether the scores are relative to a baseline.
        objective: Name of the objective.
        source: Hash of the objective's source, ``None`` if it was not known.
        libraries: Versions of libraries by name, ``None`` in entries that hold for any.
        saved_at: When, in seconds since 1970.
        runners_up: The next best of the same key, best first.
    """

    hardware: str
    specialization_key: str
    config: Any
    config_spec_hash: str
    flat_config: tuple[int, ...]
    values: tuple[float, ...] = ()
    modes: tuple[str, ...] = ("min",)
    normalized: bool = False
    objective: str = ""
    source: str | None = None
    libraries: dict[str, str] | None = None
    saved_at: float = 0.0
    runners_up: tuple[SavedBestConfig, ...] = ()


def newest_first(folder: Path, pattern: str = f"*{SUFFIX}") -> list[Path]:
    """Files of entries, by the time they were written; none if there is no such folder."""
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # removed meanwhile
            found.append((path.stat().st_mtime_ns, path.name, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def parsed(path: Path) -> SavedBestConfig | None:
    """The entry in a file, ``None`` if there is no such file, or, with a warning, if it cannot be used."""
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != _FORMAT or data["version"] != _VERSION:
            raise ValueError(f"its format is {data['format']!r} {data['version']!r}")
        return _entry(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        logger.warning("the cache entry %s is skipped: %s: %s", path, type(error).__name__, error)
        return None


def _entry(data: dict[str, Any]) -> SavedBestConfig:
    texts = {name: data[name] for name in ("hardware", "specialization_key", "config_spec_hash", "objective")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("a text is missing")
    modes = tuple(data["modes"])
    if not modes or not set(modes) <= {"min", "max"}:
        raise ValueError(f"`modes` is {modes!r}")
    libraries = data["libraries"]
    common = {
        **texts,
        "modes": modes,
        "normalized": bool(data["normalized"]),
        "source": data["source"],
        "libraries": None if libraries is None else dict(libraries),
        "saved_at": float(data["saved_at"]),
    }
    saved = [
        SavedBestConfig(
            config=one["config"],
            flat_config=_row(one["row"]),
            values=_values(one["values"], len(modes)),
            **common,
        )
        for one in data["best"]
    ]
    if not saved:
        raise ValueError("it holds no configuration")
    first, *others = saved
    return SavedBestConfig(
        config=first.config,
        flat_config=first.flat_config,
        values=first.values,
        runners_up=tuple(others),
        **common,
    )


def _row(row: Any) -> tuple[int, ...]:
    if not isinstance(row, list) or not all(type(level) is int and 0 <= level < 2**31 for level in row):
        raise ValueError(f"`row` is {row!r}")
    return tuple(row)


def _values(values: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"`values` is {values!r} for {count} objectives")
    return numbers


def write_entry(path: Path, entry: SavedBestConfig) -> None:
    """Replace the file of an entry; readers see the old or the new one.

    Raises:
        OSError: It cannot be written.
    """
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "hardware": entry.hardware,
        "specialization_key": entry.specialization_key,
        "config_spec_hash": entry.config_spec_hash,
        "modes": list(entry.modes),
        "normalized": entry.normalized,
        "objective": entry.objective,
        "source": entry.source,
        "libraries": entry.libraries,
        "saved_at": entry.saved_at,
        "best": [
            {"config": one.config, "row": list(one.flat_config), "values": list(one.values)}
            for one in (entry, *entry.runners_up)
        ],
    }
    write_atomic(path, [json.dumps(data, default=repr).encode("utf-8", "backslashreplace"), b"\n"])


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from changing entries of a folder meanwhile; it is made if it is not there.

    Raises:
        OSError: It cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
