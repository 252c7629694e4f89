"""Providers of compilers' search spaces.

A provider finds a search-space file and returns its path. In this order it looks in

1. `CIQ_SEARCH_SPACES_DIR`, a folder with ``manifest.json`` and the files it lists;
2. `CIQ_SEARCH_SPACES_REPO`, a release to fetch from, which then is kept in the local cache;
3. the catalogue that ships with this package.

So nothing is fetched unless that is asked for. Every file is checked against the size and the sha256
in its manifest. For a single file without a manifest there is `LocalSearchSpaceBin`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ciq_ray import settings
from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.manifest import FILE_NAME, Entry, Manifest, check

if TYPE_CHECKING:
    from searchers.space import Space

__all__ = [
    "CompilerSearchSpaceBase",
    "LocalSearchSpaceBin",
    "NvccSearchSpace",
    "PtxasSearchSpace",
    "SearchSpaceProvider",
    "load_provider",
]

Metadata = dict[str, str | int | None]

CATALOGUE = Path(__file__).parent / "catalogue"
"""The search spaces that ship with this package."""


@runtime_checkable
class SearchSpaceProvider(Protocol):
    """Anything with a `retrieve` method that returns a search space.

    The constructor takes whatever the provider needs. A provider may also have
    `resolution_metadata`, which returns a record of what it found.
    """

    def retrieve(self) -> dict[str, Any] | Path:
        """The search space: its parameters, or the path of its file."""
        ...


@dataclass(frozen=True, slots=True)
class _Resolution:
    path: Path
    entry: Entry
    source: str
    release: str


class CompilerSearchSpaceBase:
    """Base of the providers that select from a manifest by compiler, version and variant.

    Subclasses set `compiler`.

    Args:
        version: Version of the compiler.
        variant: Selection of options: ``default`` leaves out those that change a program's results
            or limit its launches, ``full`` has them all; a manifest may have more.
        tag: Release of the search spaces; ``latest`` is the newest there is.

    Raises:
        SearchSpaceError: An argument is not text, or the subclass has no `compiler`.
    """

    compiler: ClassVar[str]

    def __init__(self, version: str = "13.3", variant: str = "default", tag: str = "latest") -> None:
        for name, value in (("version", version), ("variant", variant), ("tag", tag)):
            if not isinstance(value, str) or not value:
                raise SearchSpaceError(f'`{name}` is {value!r}; it must be text, for example "13.3"')
        if not isinstance(getattr(self, "compiler", None), str):
            raise SearchSpaceError(
                f"{type(self).__name__} has no `compiler`; a provider sets it, for example compiler = 'ptxas'"
            )
        self.version = version
        self.variant = variant
        self.tag = tag
        self._found: _Resolution | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.version!r}, {self.variant!r}, {self.tag!r})"

    def retrieve(self) -> Path:
        """The path of the search-space file, fetched if it has to be.

        Raises:
            SearchSpaceError: No such compiler, version, variant or release (the message lists what
                there is), or the file is not what its manifest says.
        """
        self._found = self._resolve()
        return self._found.path

    def resolution_metadata(self) -> Metadata:
        """What `retrieve` found, which is called if it was not yet.

        Returns:
            ``provider``, ``compiler``, ``version``, ``variant``, ``tag`` as asked for, ``release``
            that it led to, ``source`` (the folder or URL), ``path``, ``sha256`` and ``size``.

        Raises:
            SearchSpaceError: As `retrieve`.
        """
        if self._found is None:
            self.retrieve()
        found = self._found
        if found is None:  # a subclass has its own `retrieve`
            return {"provider": type(self).__name__, "compiler": self.compiler, "version": self.version}
        return {
            "provider": type(self).__name__,
            "compiler": self.compiler,
            "version": self.version,
            "variant": self.variant,
            "tag": self.tag,
            "release": found.release,
            "source": found.source,
            "path": str(found.path),
            "sha256": found.entry.sha256,
            "size": found.entry.size,
        }

    def _resolve(self) -> _Resolution:
        folder = settings.search_spaces_dir()
        if folder is not None:
            return self._from_folder(folder, "CIQ_SEARCH_SPACES_DIR")
        repo = settings.search_spaces_repo()
        if repo is not None:
            return self._from_release(repo)
        return self._from_folder(CATALOGUE, "the catalogue of this package")

    def _from_folder(self, folder: Path, what: str) -> _Resolution:
        listing = folder / FILE_NAME
        manifest = Manifest.parse(_read(listing, f"{what} needs it"), str(listing))
        if self.tag not in ("latest", manifest.release):
            raise SearchSpaceError(
                f"`tag` is {self.tag!r}, but {what} is release {manifest.release!r}; leave the tag out, or "
                "set CIQ_SEARCH_SPACES_REPO to fetch another release"
            )
        entry = manifest.find(self.compiler, self.version, self.variant)
        path = folder / entry.file
        check(entry, _read(path, f"{listing} lists it"), str(path))
        return _Resolution(path, entry, str(folder), manifest.release)

    def _from_release(self, repo: str) -> _Resolution:
        # not above: a search that fetches nothing needs no HTTP client
        from ciq_ray.search_spaces.release import fetch, fetch_manifest, release_url

        url = release_url(repo, self.tag)
        cache = settings.cache_dir() / "search_spaces"
        manifest = fetch_manifest(url, self.tag, cache)
        entry = manifest.find(self.compiler, self.version, self.variant)
        path = fetch(url, entry, cache)
        return _Resolution(path, entry, url, manifest.release)


class PtxasSearchSpace(CompilerSearchSpaceBase):
    """The options of ptxas, NVIDIA's assembler from PTX to machine code.

    A candidate is the text for ``ptxas --options-file``. See `CompilerSearchSpaceBase`.
    """

    compiler = "ptxas"


class NvccSearchSpace(CompilerSearchSpaceBase):
    """The device-code options of nvcc, NVIDIA's compiler driver, and of the ptxas it runs.

    A candidate is the text for ``nvcc --options-file``. See `CompilerSearchSpaceBase`.
    """

    compiler = "nvcc"


class LocalSearchSpaceBin:
    """A search-space file on disk, without a manifest.

    Args:
        path: The file. It is read when the search starts.

    Raises:
        SearchSpaceError: `path` is not a path.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise SearchSpaceError(f"`path` is {path!r}; it must be the path of a search-space file")
        self.path = Path(path).expanduser()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def retrieve(self) -> Path:
        """The path.

        Raises:
            SearchSpaceError: It is not a file.
        """
        if not self.path.is_file():
            raise SearchSpaceError(f"{self.path}: no such file; `path` must be a search-space file on disk")
        return self.path

    def resolution_metadata(self) -> Metadata:
        """The same record as other providers; what a file without a manifest cannot say is ``None``.

        Raises:
            SearchSpaceError: It cannot be read.
        """
        data = _read(self.retrieve(), "`path` names it")
        return {
            "provider": type(self).__name__,
            "compiler": None,
            "version": None,
            "variant": None,
            "tag": None,
            "release": None,
            "source": str(self.path.parent),
            "path": str(self.path),
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }


def load_provider(provider: SearchSpaceProvider) -> tuple[Space, Metadata]:
    """The space a provider stands for, with the record of what was found.

    A `CompilerSearchSpaceBase` gives the options of its own version; a user's provider may return a
    path or the parameters themselves.

    Raises:
        SearchSpaceError: As `retrieve` and `ciq_ray.search_spaces.files.load_space`; or `retrieve`
            returned neither a path nor a dict.
        SpaceError: The parameters cannot be used.
    """
    # not above: they load the searchers, which finding a file does not need
    from ciq_ray.search_spaces.files import load_space
    from searchers.space import Space

    found = provider.retrieve()
    describe = getattr(provider, "resolution_metadata", None)
    metadata: Metadata = describe() if callable(describe) else {"provider": type(provider).__name__}
    if isinstance(found, dict):
        return Space(found), metadata
    if not isinstance(found, (str, os.PathLike)):
        raise SearchSpaceError(
            f"{type(provider).__name__}.retrieve() returned {type(found).__name__}; it must return a path "
            "or a dict of parameters"
        )
    metadata.setdefault("path", str(found))
    version = provider.version if isinstance(provider, CompilerSearchSpaceBase) else None
    return load_space(found, version=version), metadata


def _read(path: Path, why: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SearchSpaceError(f"{path}: cannot be read ({why}): {error.strerror or error}") from error
