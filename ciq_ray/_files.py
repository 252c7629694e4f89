"""Files that are either the old or the new, whenever a reader looks or the power fails."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_atomic"]


def write_atomic(path: str | os.PathLike[str], chunks: Iterable[bytes], *, durable: bool = True) -> Path:
    """Replace a file's content as a whole.

    What is not a regular file, such as a pipe or ``/dev/stdout``, is written to instead of replaced.
    A link stays a link: what it points to is replaced. An existing file keeps its permissions.

    Args:
        path: The file, in a folder that exists.
        chunks: The content, in pieces.
        durable: Whether it is on the disk on return, and not only in the system's memory.

    Returns:
        `path` as a `Path`.

    Raises:
        OSError: The file cannot be written; an existing one is then as it was.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            stream.writelines(chunks)
        return Path(path)
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    # a long name must leave room for the suffix
    temporary = target.with_name(f".{target.name[:80]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(chunks)
            stream.flush()
            if mode is not None:
                os.fchmod(stream.fileno(), mode)
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Path(path)
