"""The C compiler that is installed: which one it is, and whether it takes an option."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ciq_ray.compilers import ToolResult, run_tool
from ciq_ray.errors import ObjectiveFailure, UnsupportedError

__all__ = ["Compiler", "inspect_compiler"]

_TIMEOUT_S: Final = 60.0
_ENGLISH: Final = {"LC_ALL": "C", "LANGUAGE": ""}
_PROBE: Final = """\
double total;
static int twice(int value) { return value * 2; }
int probe(const double *values, const int *keys, int count) {
    int result = 0;
    for (int i = 0; i < count; i++) {
        total += values[i] * values[i];
        switch (keys[i]) {
            case 0: result += twice(i); break;
            case 1: result -= keys[i]; break;
            case 2: result ^= i; break;
            case 3: result *= 3; break;
            default: if (keys[i] > 7) result++;
        }
    }
    return result;
}
"""
_PACKAGES: Final = {
    "gcc": "apt install gcc (Debian, Ubuntu), dnf install gcc (Fedora), brew install gcc (macOS)",
    "clang": "apt install clang (Debian, Ubuntu), dnf install clang (Fedora), xcode-select --install (macOS)",
}


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler on this machine.

    Attributes:
        family: ``gcc`` or ``clang``.
        path: Where it is.
        version: For example ``"12.2.0"``.
        target: What it compiles for, for example ``x86_64-linux-gnu``.
        sha256: Of its program files, in hexadecimal.
    """

    family: str
    path: Path
    version: str
    target: str
    sha256: str

    def ask(self, *arguments: str) -> str:
        """What it prints on standard output, in English.

        Raises:
            UnsupportedError: It fails.
        """
        return _run(self.path, arguments).stdout

    def complaint(self, lines: Sequence[str]) -> str:
        """What it says about options, at ``-O2``; nothing if it takes them without a word.

        Args:
            lines: As in an options file.
        """
        with tempfile.TemporaryDirectory(prefix="ciq_probe_") as folder:
            source, options = Path(folder) / "probe.c", Path(folder) / "options"
            source.write_text(_PROBE)
            options.write_text("".join(f"{line}\n" for line in ["-O2", *lines]))
            command: list[str | Path] = [self.path, "-std=c11", "-S", "-o", os.devnull, f"@{options}", source]
            try:
                result = run_tool(command, timeout=_TIMEOUT_S, check=False, env=_ENGLISH)
            except ObjectiveFailure as error:
                return str(error)
        said = result.stderr.strip()
        return said or (f"exit status {result.returncode}" if result.returncode else "")

    def usable(self, options: Iterable[Sequence[str]]) -> frozenset[str]:
        """The texts that it takes without a word, each on its own.

        Args:
            options: For each option its possible texts, of one line or more.
        """
        table = list(options)
        taken: set[str] = set()
        for position in range(max(map(len, table), default=0)):
            # no two lines of one option together: the later one would hide what is wrong with the other
            column = [lines[position] for lines in table if position < len(lines)]
            taken.update(self._without_complaint(column))
        return frozenset(taken)

    def _without_complaint(self, lines: Sequence[str]) -> list[str]:
        if not lines:
            return []
        if not self.complaint(lines):
            return list(lines)
        if len(lines) == 1:
            return []
        half = len(lines) // 2
        return self._without_complaint(lines[:half]) + self._without_complaint(lines[half:])


def inspect_compiler(executable: str | os.PathLike[str], family: str) -> Compiler:
    """Find a compiler and ask it who it is.

    Args:
        executable: Its name, looked up on ``PATH``, or its path.
        family: What it should be: ``gcc`` or ``clang``.

    Raises:
        UnsupportedError: There is none, or it is another; the message says what to do.
    """
    name = os.fspath(executable)
    found = shutil.which(name)
    if found is None:
        raise UnsupportedError(
            f"`executable` is {name!r}, which was not found; install {family} with: {_PACKAGES[family]}; or "
            "give the path of the one you have"
        )
    path = Path(found).absolute()
    defined = dict(
        re.findall(
            r"^#define (__\w+__) (\S+)$", _run(path, ["-dM", "-E", "-x", "c", os.devnull]).stdout, re.M
        )
    )
    actual = (
        "clang" if "__clang__" in defined else "gcc" if "__GNUC__" in defined else "neither gcc nor clang"
    )
    if actual != family:
        way_out = "give the path of another as `executable`"
        if actual in _PACKAGES:
            way_out = f"use {actual.capitalize()}SearchSpace, or {way_out}"
        raise UnsupportedError(f"`executable` is {name!r}, and {path} is {actual}, not {family}; {way_out}")
    parts = ("__clang_major__", "__clang_minor__", "__clang_patchlevel__")
    if family == "gcc":
        parts = ("__GNUC__", "__GNUC_MINOR__", "__GNUC_PATCHLEVEL__")
    version = ".".join(defined.get(part, "0") for part in parts)
    target = _run(path, ["-dumpmachine"]).stdout.strip()
    return Compiler(family, path, version, target, _digest(path, family))


def _digest(path: Path, family: str) -> str:
    """Of the driver, what it says about itself, and with GCC of the compiler proper, a file of its own."""
    digest = hashlib.sha256(_run(path, ["-v"]).stderr.encode())
    files = [path]
    if family == "gcc":
        files.append(Path(_run(path, ["-print-prog-name=cc1"]).stdout.strip()))
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _run(path: Path, arguments: Sequence[str]) -> ToolResult:
    try:
        return run_tool([path, *arguments], timeout=_TIMEOUT_S, env=_ENGLISH)
    except ObjectiveFailure as error:
        raise UnsupportedError(f"{path} {' '.join(arguments)} failed: {error}") from error
