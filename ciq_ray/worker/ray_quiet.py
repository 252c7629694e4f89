"""Keeps a Ray of the search's own from writing a screenful about each actor that dies."""

from __future__ import annotations

import contextlib
import re
from typing import Final

__all__ = ["be_quiet"]

_DEATHS: Final = re.compile("^A worker died or was killed while executing a task")


def be_quiet(quiet: bool) -> None:
    """Have Ray leave out what it prints about dead actors, which the journal says in a line; or undo that.

    Neither ``log_to_driver`` nor a logging level is asked before Ray prints it. What is asked is
    ``RAY_DEDUP_LOGS_SKIP_REGEX``, which is read when Ray is imported, long before it is known whose Ray it
    will be; so this sets what that variable sets, unless the user has. It is not public: where it is
    gone the text is back.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private.ray_logging import stdout_deduplicator

        if quiet and stdout_deduplicator.skip_re is None:
            stdout_deduplicator.skip_re = _DEATHS
        elif not quiet and stdout_deduplicator.skip_re is _DEATHS:
            stdout_deduplicator.skip_re = None
