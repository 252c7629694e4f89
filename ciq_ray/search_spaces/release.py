"""Fetching search-space files of a release.

A release is a folder on a web server that holds ``manifest.json`` and the files it lists. Nothing
here runs unless `CIQ_SEARCH_SPACES_REPO` is set.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Final

from ciq_ray._files import write_atomic
from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.manifest import FILE_NAME, MAX_BYTES, Entry, Manifest, check

__all__ = ["fetch", "fetch_manifest", "release_url"]

TIMEOUT_S: Final = 30.0
"""Longest wait for a server's next bytes."""
DEADLINE_S: Final = 300.0
"""Longest time for one file."""

_OWNER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_WAY_OUT = (
    "check CIQ_SEARCH_SPACES_REPO, unset it to use the catalogue of this package, or point "
    "CIQ_SEARCH_SPACES_DIR to a folder that holds the files"
)


def release_url(repo: str, tag: str) -> str:
    """Where the files of a release are.

    Args:
        repo: ``owner/name`` of a repository on GitHub, or the https URL of a folder that has one
            folder for each tag, ``latest`` included.
        tag: The release; ``latest`` is the newest one.

    Raises:
        SearchSpaceError: `repo` or `tag` is not of that form.
    """
    if not _TAG.fullmatch(tag):
        raise SearchSpaceError(f"`tag` is {tag!r}; a tag has letters, digits, dots, dashes, underscores")
    if _OWNER_NAME.fullmatch(repo):
        where = "latest/download" if tag == "latest" else f"download/{tag}"
        return f"https://github.com/{repo}/releases/{where}"
    if not _is_allowed(repo):
        raise SearchSpaceError(
            f"CIQ_SEARCH_SPACES_REPO is {repo!r}; it must be owner/name or an https URL (http only for "
            "this machine)"
        )
    return f"{repo.rstrip('/')}/{tag}"


def fetch_manifest(url: str, tag: str, cache: Path) -> Manifest:
    """The manifest of the release at `url`.

    A named release does not change, so that its manifest is fetched once; ``latest`` is asked for
    each time.

    Args:
        url: Of the release.
        tag: Its tag.
        cache: The folder to keep manifests in; it is made if it is missing.

    Raises:
        SearchSpaceError: It cannot be fetched or kept, is malformed, or is another release's.
    """
    source = f"{url}/{FILE_NAME}"
    kept = cache / f"{hashlib.sha256(source.encode()).hexdigest()}.json"
    if tag != "latest":
        with contextlib.suppress(OSError, SearchSpaceError):
            return Manifest.parse(kept.read_bytes(), source)
    data = _get(source, MAX_BYTES)
    manifest = Manifest.parse(data, source)
    if tag not in ("latest", manifest.release):
        raise SearchSpaceError(
            f"{source}: this is release {manifest.release!r}, not {tag!r}; the server mixes them up"
        )
    if tag != "latest":
        _write(kept, data)
    return manifest


def fetch(url: str, entry: Entry, cache: Path) -> Path:
    """A file of the release at `url`, from the cache if it is there.

    A file is kept under its own sha256 and is checked each time, so that a cache that was tampered
    with or cut short is fetched again. It appears whole or not at all, whoever else fetches it.

    Args:
        url: Of the release.
        entry: Which file.
        cache: The folder to keep it in; it is made if it is missing.

    Raises:
        SearchSpaceError: It cannot be fetched or kept, or is not what the manifest says.
    """
    target = cache / entry.sha256 / entry.file
    with contextlib.suppress(OSError, SearchSpaceError):
        check(entry, target.read_bytes(), str(target))
        return target
    source = f"{url}/{entry.file}"
    data = _get(source, entry.size)
    check(entry, data, source)
    _write(target, data)
    return target


def _write(target: Path, data: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, [data])
    except OSError as error:
        raise SearchSpaceError(
            f"{target}: cannot be written: {error.strerror or error}; set CIQ_CACHE_DIR to a folder that can"
        ) from error


def _is_allowed(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.query or parts.fragment or parts.username is not None or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and to http on this machine from this machine only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        parts = urllib.parse.urlsplit(newurl)
        local = parts.hostname in _LOOPBACK and urllib.parse.urlsplit(req.full_url).hostname in _LOOPBACK
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(url: str, limit: int) -> bytes:
    """The body at `url`, at most `limit` bytes."""
    handlers: list[urllib.request.BaseHandler] = [_CarefulRedirects()]
    if urllib.parse.urlsplit(url).hostname in _LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            data = _body(answer, limit)
    except urllib.error.HTTPError as error:
        error.close()
        raise SearchSpaceError(f"{url}: HTTP status {error.code}; {_WAY_OUT}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SearchSpaceError(f"{url}: cannot be fetched: {reason}; {_WAY_OUT}") from error
    if len(data) > limit:
        raise SearchSpaceError(f"{url}: larger than the {limit} bytes it may have; {_WAY_OUT}")
    return data


def _body(answer: HTTPResponse, limit: int) -> bytes:
    """All of a body, or a little more than `limit` bytes of it, within `DEADLINE_S`."""
    deadline = time.monotonic() + DEADLINE_S
    data = b""
    while len(data) <= limit and (chunk := answer.read1(1 << 16)):
        data += chunk
        if time.monotonic() > deadline:
            raise TimeoutError(f"not complete after {DEADLINE_S:g} s")
    return data
