"""What GCC and LLVM say about their own options, read into records."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Setting", "docs_of", "gcc_settings", "llvm_docs"]

_ROW = re.compile(r"  (--?[A-Za-z][^\s]*)(?:\s+(.*))?")
_OLD_PARAMETER = re.compile(r"  ([a-z][a-z0-9-]+)\s+default (-?\d+) minimum (-?\d+) maximum (-?\d+)")
_NAME = re.compile(r"(--param=[^=\s]+|-[^=<\[\s]+)(=?)(.*)")
_BOUNDS = re.compile(r"<(-?\d+),(-?\d+)>")
_UNDOCUMENTED = "This option lacks documentation."


@dataclass(frozen=True, slots=True)
class Setting:
    """One option in the output of ``gcc -Q --help=...``.

    Attributes:
        flag: Its text, without the value: ``-funroll-loops``, ``--param=max-unroll-times``.
        takes_value: Whether a value follows, after ``=``.
        choices: The values it can have, if they are listed.
        bounds: Smallest and largest value, if they are given.
        current: What stands for its present value, as printed: ``[enabled]``, ``8``, or nothing.
    """

    flag: str
    takes_value: bool
    choices: tuple[str, ...]
    bounds: tuple[int, int] | None
    current: str

    @property
    def number(self) -> int | None:
        """The present value, if it is a number."""
        return int(self.current) if re.fullmatch(r"-?\d+", self.current) else None


def gcc_settings(text: str) -> list[Setting]:
    """Read ``gcc -Q --help=optimizers`` or ``gcc -Q --help=params``, as GCC 4.9 and later print it.

    Args:
        text: The output, in English. Options of other languages are left out.
    """
    found: dict[tuple[str, bool], Setting] = {}
    for line in text.splitlines():
        if old := _OLD_PARAMETER.fullmatch(line.rstrip()):
            low, high = int(old[3]), int(old[4])
            bounds = (low, high) if high > low else None
            setting = Setting(f"--param={old[1]}", True, (), bounds, old[2])
        elif (row := _ROW.fullmatch(line.rstrip())) and (name := _NAME.fullmatch(row[1])):
            current = (row[2] or "").strip()
            if current.startswith("[available in"):
                continue
            rest = name[3]
            listed = tuple(rest[1:-1].split("|")) if rest.startswith("[") and rest.endswith("]") else ()
            limits = _BOUNDS.fullmatch(rest)
            bounds = (int(limits[1]), int(limits[2])) if limits else None
            setting = Setting(name[1], name[2] == "=", listed, bounds, current)
        else:
            continue
        found.setdefault((setting.flag, setting.takes_value), setting)
    return list(found.values())


def docs_of(text: str) -> dict[str, str]:
    """Read what each option does from ``gcc --help=...`` or ``clang --help-hidden``.

    Args:
        text: The output, in English.

    Returns:
        A sentence for each flag without its value, as far as there is one.
    """
    docs: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        row = _ROW.fullmatch(line.rstrip())
        if row and (name := _NAME.fullmatch(row[1])):
            current = docs.setdefault(name[1], [])
            # a placeholder of clang's may have blanks: -falign-loops=<N> is one word, "-arch <value>" two
            current.append(re.sub(r"^<[^>]*>\s*", "", row[2] or ""))
        elif line.startswith(" " * 12):
            current.append(line.strip())
        else:
            current = []
    joined = {
        flag: " ".join(part for part in parts if part and part != _UNDOCUMENTED)
        for flag, parts in docs.items()
    }
    # lines are broken at hyphens too
    return {flag: re.sub(r"(?<=\w-) (?=\w)", "", doc) for flag, doc in joined.items() if doc}


def llvm_docs(text: str) -> dict[str, str]:
    """Read ``clang -mllvm -help-hidden``.

    Args:
        text: The output.

    Returns:
        A sentence for each option of LLVM, by its name without dashes.
    """
    rows = re.finditer(r"^ +--?([A-Za-z][\w-]*)(?:=<[^>]*>|=)? +- (.+)$", text, re.MULTILINE)
    return {row[1]: row[2].strip() for row in rows}
