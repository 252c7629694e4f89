"""Compiled kernels of a search, kept in its cache folder: what is measured again is not compiled again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from ciq_ray._files import write_atomic

__all__ = ["ArtefactStore"]


class ArtefactStore:
    """Artefacts by configuration.

    Args:
        folder: Where they are; made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, config: Any) -> bytes | None:
        """What a configuration was compiled to, ``None`` if it was not."""
        try:
            return self._path(config).read_bytes()
        except OSError:
            return None

    def put(self, config: Any, artefact: bytes) -> None:
        """Keep what a configuration was compiled to; without a place for it, it is compiled again."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path(config), [artefact], durable=False)

    def _path(self, config: Any) -> Path:
        text = json.dumps(config, sort_keys=True, default=repr)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.artefact"
