"""Saved state in a file: JSON, the old or the new but never half of it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from searchers.errors import StateError

__all__ = ["read_state", "write_state"]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Replace the file at `path`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_state(path: Path) -> Any:
    """What `write_state` wrote.

    Raises:
        StateError: The file cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"cannot read the searcher state {str(path)!r}: {error}") from error
