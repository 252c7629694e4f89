"""Tracking URIs: made absolute, and without the credentials that some have in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["absolute_uri", "known_uri", "sqlite_path", "without_credentials"]


def absolute_uri(uri: str) -> str:
    """The URI with an absolute path, if it is that of a database file: other processes run elsewhere."""
    scheme, found, path = uri.partition(":///")
    if not found or not scheme.startswith("sqlite") or path.startswith("/") or path in ("", ":memory:"):
        return uri
    return f"{scheme}:///{os.path.abspath(path)}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a database that is one."""
    scheme, found, path = uri.partition(":///")
    return Path(path) if found and scheme.startswith("sqlite") and path.startswith("/") else None


def without_credentials(text: str) -> str:
    """A text, of whose URIs ``http://user:secret@host`` becomes ``http://host``: fit to be shown and kept."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def known_uri(uri: str) -> str:
    """The URI as ``MLFLOW_TRACKING_URI`` has it, if that has credentials and is the same without them.

    It is how a URI that was kept gets back the credentials that were not.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return given if without_credentials(given) == uri else uri
