"""The best configurations of earlier searches, on this machine's disk.

A search with a cache (`Search(cache=True)`) starts from what earlier ones have found and leaves what it
has found itself. By itself::

    cache = LocalAutotuneCache(searcher, specialization_key=(4096, 4096, "fp16"))
    cache.best_available()        # to begin with
    cache.put(config, 0.19)       # for the next one
    cache.get()                   # the best with this very key

An entry is a file with the suffix ``.best_config``; `docs/cache.md` says what is in it and how to clear it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from ciq_ray import settings
from ciq_ray._cache import identity
from ciq_ray._cache.entries import (
    SUFFIX,
    SavedBestConfig,
    exclusive,
    newest_first,
    parsed,
    write_entry,
)
from ciq_ray._cache.identity import hardware, specialization_text
from ciq_ray.errors import ConfigurationError
from searchers.space import Space

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from searchers.base import SpaceSearcher

__all__ = [
    "LocalAutotuneCache",
    "SavedBestConfig",
    "StrictLocalAutotuneCache",
    "best_configs_dir",
    "get_cache_dir",
    "get_helion_cache_dir",
    "hardware",
    "helion_triton_cache_dir",
    "iter_cache_entries",
    "specialization_text",
]

logger = logging.getLogger(__name__)

KEPT = 5
"""Configurations of an entry. The best of a noisy search is one of the first few."""
_MAX_SCAN = 1000
"""Entries of a space that are looked at, the newest ones: a fraction of a second."""

Row = tuple[int, ...]
_T = TypeVar("_T")


def get_cache_dir() -> Path:
    """The root directory of all caches: ``CIQ_CACHE_DIR``, by default ``~/.cache/ciq_ray``."""
    return settings.cache_dir()


def get_helion_cache_dir() -> Path:
    """`get_cache_dir` under the name it has in Helion."""
    return get_cache_dir()


def helion_triton_cache_dir(device_index: int) -> Path:
    """A directory for Triton's cache of one device, for ``TRITON_CACHE_DIR``; it need not exist.

    Args:
        device_index: The device's number, from 0. With directories of their own, processes on several
            devices do not wait for each other.

    Raises:
        ConfigurationError: `device_index` is not a whole number of at least 0.
    """
    if not isinstance(device_index, int) or isinstance(device_index, bool) or device_index < 0:
        raise ConfigurationError(f"`device_index` is {device_index!r}; it must be a whole number, at least 0")
    return get_cache_dir() / "triton" / str(device_index)


def best_configs_dir() -> Path:
    """Where entries are, unless a cache is given another `path`."""
    return get_cache_dir() / "best_configs"


def iter_cache_entries(
    cache_path: str | os.PathLike[str], *, max_scan: int | None = None
) -> Iterator[SavedBestConfig]:
    """Yield parsed cache entries from `cache_path`, newest first.

    Corrupt or unparsable files are skipped with a warning in the log.

    Args:
        cache_path: The folder, such as `best_configs_dir()`; one that does not exist has no entries.
        max_scan: How many files to look at, at most; ``None``: all.

    Raises:
        ConfigurationError: `max_scan` is not a whole number of at least 0.
    """
    if max_scan is not None and (not isinstance(max_scan, int) or isinstance(max_scan, bool) or max_scan < 0):
        raise ConfigurationError(
            f"`max_scan` is {max_scan!r}; it must be a whole number, at least 0, or None for all"
        )
    entries = map(parsed, newest_first(Path(cache_path))[:max_scan])
    return (entry for entry in entries if entry is not None)


class LocalAutotuneCache:
    """The best configurations on the local file system, found again by a loose key.

    The key is the hardware, the specialisation key, the space (its fingerprint), the objectives (their
    modes, whether scores are normalised) and the source of the objective function, where it can be had.
    Libraries do not count; for those there is `StrictLocalAutotuneCache`.

    An entry holds the best few configurations of its key. Several processes may write at a time: each
    adds what it has to what is there. The best stay; of one configuration the newer score counts, and one
    that has failed since is dropped, so that a lucky measurement does not stay for ever.

    Args:
        autotuner: What searches, or is to: a `Search`, a searcher, or a `searchers.Space`.
        path: Folder of the entries; `best_configs_dir()` by default.
        specialization_key: What the search is for besides its space, such as shapes and types: text, a
            number, or lists and dicts of them. A `Search` has its own.
        hardware: In place of what this machine has.
        objective: The objective function, for its source. A `Search` has its own.

    Raises:
        ConfigurationError: An argument has a value it cannot have.
    """

    strict: ClassVar[bool] = False

    def __init__(
        self,
        autotuner: Search | SpaceSearcher | Space,
        *,
        path: str | os.PathLike[str] | None = None,
        specialization_key: Any = None,
        hardware: str | None = None,
        objective: Callable[..., Any] | None = None,
    ) -> None:
        space = autotuner if isinstance(autotuner, Space) else getattr(autotuner, "space", None)
        if not isinstance(space, Space):
            raise ConfigurationError(
                f"`autotuner` is {autotuner!r}; it must be a Search, a searcher with a space, or a Space"
            )
        if specialization_key is None:
            specialization_key = getattr(autotuner, "specialization_key", None)
        function = objective or getattr(autotuner, "objective_function", None)
        name, source = identity.objective_identity(function)
        self.space = space
        self.path = best_configs_dir() if path is None else Path(path).expanduser()
        modes, normalized = _problem(autotuner)
        self._blank = SavedBestConfig(
            hardware=identity.hardware() if hardware is None else hardware,
            specialization_key=specialization_text(specialization_key),
            config=None,
            config_spec_hash=space.fingerprint,
            flat_config=(),
            modes=modes,
            normalized=normalized,
            objective=name,
            source=source,
            libraries=identity.libraries() if self.strict else None,
        )

    @property
    def file(self) -> Path:
        """The file of the entry with this very key, there or not."""
        blank = self._blank
        key = json.dumps(
            [
                blank.hardware,
                blank.specialization_key,
                blank.modes,
                blank.normalized,
                blank.source,
                blank.libraries,
            ],
            sort_keys=True,
        )
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return self.path / f"{blank.config_spec_hash}-{digest}{SUFFIX}"

    def get(self) -> SavedBestConfig | None:
        """The entry with this very key, ``None`` if there is none."""
        entry = parsed(self.file)
        return None if entry is None else self._of_this_space(entry)

    def best_available(self, limit: int = 20) -> list[SavedBestConfig]:
        """Configurations to start a search from, the most promising first.

        First come those with this very key, best first. Then those of its neighbours: entries with the
        same hardware and space (and, if strict, libraries) whose objectives are the same in number and
        mode. Their best ones come first, then their second best ones, and so on; among these, those of an
        objective with the same name, then by the distance of the specialisation keys: the Euclidean
        distance of the log2 of the numbers in them. Keys that differ in more than their numbers come last,
        the newest first.

        Args:
            limit: How many there are at most.

        Raises:
            ConfigurationError: `limit` is not a whole number of at least 0.
        """
        if not isinstance(limit, Integral) or isinstance(limit, bool) or int(limit) < 0:
            raise ConfigurationError(f"`limit` is {limit!r}; it must be a whole number, at least 0")
        blank, own = self._blank, self.get()
        ranked: list[tuple[tuple[Any, ...], SavedBestConfig]] = []
        files = newest_first(self.path, f"{blank.config_spec_hash}-*{SUFFIX}")[:_MAX_SCAN]
        for age, file in enumerate(files):
            entry = None if file == self.file else parsed(file)
            if entry is None or not self._is_neighbour(entry):
                continue
            usable = self._of_this_space(entry)
            for rank, one in enumerate(_all(usable)):
                apart = identity.distance(one.specialization_key, blank.specialization_key)
                ranked.append(((rank, one.objective != blank.objective, apart, age), one))
        ranked.sort(key=lambda pair: pair[0])
        unique: dict[Row, SavedBestConfig] = {}
        for one in [*_all(own), *(one for _, one in ranked)]:
            unique.setdefault(one.flat_config, one)
        return list(unique.values())[: int(limit)]

    def put(self, config: Any, score: float | Sequence[float]) -> None:
        """Save a configuration and its score; see `put_all`."""
        self.put_all([(config, score)])

    def put_all(
        self, scored: Iterable[tuple[Any, float | Sequence[float]]], failed: Iterable[Any] = ()
    ) -> None:
        """Save the best of some configurations.

        Args:
            scored: Configurations, each once, with their scores, in the objective's own units; with several
                objectives the most wanted first, since there is no order among them.
            failed: Configurations that are known to fail; they are dropped from the entry.

        Raises:
            ConfigurationError: A score is not one finite number for each objective, or the folder cannot
                be written.
            searchers.ConfigError: A configuration is not a member of the space.
        """

        def row_of(config: Any) -> Row:
            return tuple(self.space.encode(config).tolist())

        self.put_rows([(row_of(config), score) for config, score in scored], [row_of(c) for c in failed])

    def put_rows(
        self, scored: Sequence[tuple[Row, float | Sequence[float]]], failed: Sequence[Row] = ()
    ) -> None:
        """The same for rows of the space's matrix."""
        checked = self._best_first([(tuple(row), self._checked(score)) for row, score in scored])
        new = [self._saved(row, values) for row, values in checked[:KEPT]]
        gone = {*self._keys([row for row, _ in checked]), *self._keys(failed)}
        try:
            with exclusive(self.path):
                known = _all(self.get())
                keys = self._keys([one.flat_config for one in known])
                old = [one for one, key in zip(known, keys, strict=True) if key not in gone]
                pairs = self._best_first([(one, one.values) for one in [*new, *old]])
                best = [one for one, _ in pairs]
                if best:
                    first, *others = best[:KEPT]
                    entry = replace(first, runners_up=tuple(others), saved_at=time.time())
                    write_entry(self.file, entry)
                else:
                    self.file.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write to the cache {str(self.path)!r}: {error.strerror or error}"
            ) from error

    def _checked(self, score: float | Sequence[float]) -> tuple[float, ...]:
        scores: Any = [score] if isinstance(score, Real) else score
        try:
            numbers = [] if isinstance(scores, (str, bytes)) else list(map(float, scores))
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if len(numbers) != len(self._blank.modes) or not all(map(math.isfinite, numbers)):
            raise ConfigurationError(
                f"`score` is {score!r}; it must be one finite number for each of {len(self._blank.modes)} "
                "objectives"
            )
        return tuple(numbers)

    def _saved(self, row: Row, values: tuple[float, ...]) -> SavedBestConfig:
        return replace(self._blank, config=self.space.decode(row), flat_config=row, values=values)

    def _best_first(self, scored: list[tuple[_T, tuple[float, ...]]]) -> list[tuple[_T, tuple[float, ...]]]:
        """In order of their scores; as they are if there are several objectives."""
        if len(self._blank.modes) > 1:
            return scored
        sign = -1.0 if self._blank.modes == ("max",) else 1.0
        return sorted(scored, key=lambda pair: sign * pair[1][0])

    def _keys(self, rows: Sequence[Row]) -> list[int]:
        """What tells configurations apart."""
        if not rows:
            return []
        keys: list[int] = self.space.keys(np.array(rows, dtype=np.int32)).tolist()
        return keys

    def _is_neighbour(self, entry: SavedBestConfig) -> bool:
        same = ("hardware", "config_spec_hash", "modes", "normalized")
        if self.strict and entry.libraries != self._blank.libraries:
            return False
        return all(getattr(entry, name) == getattr(self._blank, name) for name in same)

    def _of_this_space(self, entry: SavedBestConfig) -> SavedBestConfig | None:
        """The entry with the space's own objects as configurations; ``None`` if it is no member's."""
        encoding = self.space.encoding
        found = []
        for one in _all(entry):
            row = one.flat_config
            inside = len(row) == encoding.n_columns and bool((np.array(row) < encoding.n_levels).all())
            if not inside or not self.space.valid(np.array([row], dtype=np.int32))[0]:
                logger.warning("a cache entry in %s has a row that is not of its space: %s", self.path, row)
                continue
            found.append(replace(one, config=self.space.decode(row), runners_up=()))
        return replace(found[0], runners_up=tuple(found[1:])) if found else None


class StrictLocalAutotuneCache(LocalAutotuneCache):
    """A `LocalAutotuneCache` whose key also has the versions of libraries.

    These are Python, ciq-ray, and numpy, torch and triton where they are installed. Neighbours must have
    the same ones, too.
    """

    strict = True


def _all(entry: SavedBestConfig | None) -> list[SavedBestConfig]:
    return [] if entry is None else [entry, *entry.runners_up]


def _problem(autotuner: Any) -> tuple[tuple[str, ...], bool]:
    """The mode of each objective, and whether scores are normalised."""
    config = getattr(autotuner, "search_config", None)
    if config is not None:
        return (str(config.problem_type.value),) * config.num_objectives, bool(config.normalize)
    mode = getattr(autotuner, "mode", None)
    if mode is None:
        return ("min",), False
    return ((mode,) if isinstance(mode, str) else tuple(mode)), False
