"""The optimisation options of the GCC or clang that is installed, as a search space.

Nothing here is fetched: the compiler is asked which options it has, with which values, and each is tried
on a small program. The answer is kept in the cache until the compiler changes. ``docs/gcc.md`` shows how
to tune a program of your own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from ciq_ray import settings
from ciq_ray._files import write_atomic
from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces import gcc_tables as tables
from ciq_ray.search_spaces.gcc_help import Setting, docs_of, gcc_settings, llvm_docs
from ciq_ray.search_spaces.installed import Compiler, inspect_compiler

__all__ = ["ClangSearchSpace", "GccSearchSpace", "InstalledSearchSpace"]

Metadata = dict[str, str | int | None]
Entry = dict[str, Any]

VARIANTS: Final = ("default", "full")
_RECIPE: Final = 1
"""Changes when the same compiler would get another space, so that the one in the cache is not used."""
_RARE: Final = 0.75
"""How often an initial candidate leaves an option to the compiler, so that it is not far from what the
compiler would do: with half of a hundred options set against their defaults, most are slow."""
_NAMES: Final = {"--param=": "param_", "-mllvm -": "llvm_", "-f": "", "-m": "m_"}
"""How an option's name begins, by how its flag does."""
_GCC_CONSTRAINTS: Final = (
    # GCC warns that it does not prefetch then
    (frozenset({"level", "prefetch_loop_arrays"}), 'level != "s" or not prefetch_loop_arrays'),
    # GCC warns that it does not reassociate then
    (
        frozenset(
            {"fast_math", "signaling_nans", "signed_zeros", "trapping_math", "unsafe_math_optimizations"}
        ),
        "not (fast_math or unsafe_math_optimizations) "
        "or not (signaling_nans or signed_zeros or trapping_math)",
    ),
)
_CLANG_CONSTRAINTS: Final = (
    # clang warns that the latter takes the former back
    (
        frozenset({"fp_contract", "fast_math"}),
        'fp_contract != "fast" or fast_math is None or fast_math',
    ),
)


class InstalledSearchSpace:
    """Base of the providers that ask a compiler for its options.

    A candidate is the text of a response file, one option on each line, for ``gcc @FILE``. The empty
    text is the compiler's default, which does not optimise; ``-O3`` is a text too.

    Subclasses set `family` and say which options there are.

    Args:
        executable: The compiler's name or path.
        variant: ``default`` has the most useful options of those that leave a correct program's results
            as they are; ``full`` has all that shape the code, and the ones that change results too.

    Raises:
        SearchSpaceError: There is no such variant.
    """

    family: ClassVar[str]

    def __init__(self, executable: str | os.PathLike[str], variant: str = "default") -> None:
        if not isinstance(executable, (str, os.PathLike)) or not os.fspath(executable):
            raise SearchSpaceError(f"`executable` is {executable!r}; it must be a compiler's name or path")
        if variant not in VARIANTS:
            raise SearchSpaceError(f"`variant` is {variant!r}; it must be one of {', '.join(VARIANTS)}")
        self.executable = os.fspath(executable)
        self.variant = variant
        self._metadata: Metadata | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.executable!r}, {self.variant!r})"

    def retrieve(self) -> Path:
        """The path of the space's file in the cache, made if this compiler has none yet.

        Raises:
            UnsupportedError: The compiler is not installed, or is another one.
            SearchSpaceError: The file cannot be written.
        """
        compiler = inspect_compiler(self.executable, self.family)
        folder = settings.cache_dir() / "search_spaces" / "installed"
        key = hashlib.sha256(f"{_RECIPE} {compiler.path} {compiler.sha256}".encode()).hexdigest()[:16]
        path = folder / f"{self.family}-{compiler.version}-{self.variant}-{key}.json"
        data = _kept(path)
        if data is None:
            data = self._make(compiler)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(path, [data])
            except OSError as error:
                raise SearchSpaceError(
                    f"{path}: cannot be written: {error.strerror or error}; set CIQ_CACHE_DIR to a folder "
                    "that can"
                ) from error
        self._metadata = {
            "provider": type(self).__name__,
            "compiler": self.family,
            "version": compiler.version,
            "variant": self.variant,
            "tag": None,
            "release": None,
            "source": str(compiler.path),
            "path": str(path),
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "target": compiler.target,
            "compiler_sha256": compiler.sha256,
        }
        return path

    def resolution_metadata(self) -> Metadata:
        """What `retrieve` found, which is called if it was not yet.

        Returns:
            The record of `ciq_ray.search_spaces.compilers.CompilerSearchSpaceBase`, with the compiler's
            path as ``source`` and no ``tag`` or ``release``; and ``target`` and ``compiler_sha256``.

        Raises:
            UnsupportedError: As `retrieve`.
            SearchSpaceError: As `retrieve`.
        """
        if self._metadata is None:
            self.retrieve()
        return dict(self._metadata or {})

    def entries(self, compiler: Compiler) -> Iterable[Entry]:
        """Options in the form of a compiler-space file, not yet tried."""
        raise NotImplementedError

    def constraints(self) -> Sequence[tuple[frozenset[str], str]]:
        """What does not go together: expressions, each with the names of the options in it."""
        return ()

    def _make(self, compiler: Compiler) -> bytes:
        # not above: it loads the searchers, which finding a file in the cache does not need
        from ciq_ray.search_spaces.options import CompilerSpace

        keeps = " that keep a program's results" if self.variant == "default" else ""
        entries = list(self.entries(compiler))
        form: dict[str, Any] = {
            "format": "ciq-compiler-space",
            "version": 1,
            "compiler": self.family,
            "compiler_versions": [".".join(compiler.version.split(".")[:2])],
            "variant": self.variant,
            "quoting": "gnu",
            "doc": f"Options of {self.family} {compiler.version} for {compiler.target}{keeps}.",
            "options": entries,
        }
        texts = [
            ["\n".join([*option.companions, line]) for line, _ in option.lines()]
            for option in CompilerSpace.from_json(form, self.family).options
        ]
        usable = compiler.usable(texts)
        restricted = (_restricted(entry, own, usable) for entry, own in zip(entries, texts, strict=True))
        form["options"] = [entry for entry in restricted if entry is not None]
        names = {entry["name"] for entry in form["options"]}
        form["constraints"] = [text for needed, text in self.constraints() if names >= needed]
        return (json.dumps(form, indent=1) + "\n").encode()


class GccSearchSpace(InstalledSearchSpace):
    """The optimisation options of an installed GCC; see `InstalledSearchSpace`.

    Args:
        executable: GCC's name or path, for example ``gcc-13`` or ``aarch64-linux-gnu-gcc``.
        variant: ``default`` or ``full``.
    """

    family = "gcc"

    def __init__(self, executable: str | os.PathLike[str] = "gcc", variant: str = "default") -> None:
        super().__init__(executable, variant)

    def constraints(self) -> Sequence[tuple[frozenset[str], str]]:
        """What does not go together: expressions, each with the names of the options in it."""
        return _GCC_CONSTRAINTS

    def entries(self, compiler: Compiler) -> Iterator[Entry]:
        """Options in the form of a compiler-space file, not yet tried."""
        optimizers = gcc_settings(compiler.ask("-O2", "-Q", "--help=optimizers"))
        parameters = gcc_settings(compiler.ask("-O2", "-Q", "--help=params"))
        docs = docs_of(compiler.ask("--help=optimizers"))
        docs |= docs_of(compiler.ask("--help=params")) | docs_of(compiler.ask("--help=target"))
        full = self.variant == "full"
        yield _level()
        yield from _target_options(docs, keep_results=not full)
        for flag, values in tables.GCC_TARGET_VALUES.items():
            yield _entry(flag, values, docs)
        found: dict[str, Entry] = {}
        for setting in [*optimizers, *parameters]:
            flag = setting.flag
            if not flag.startswith(("-f", "--param=")) or flag.startswith(tables.GCC_NOT_FOR_SPEED):
                continue
            choices = _gcc_values(setting, full)
            # -falign-loops is a switch and takes a value too; the values say more
            if choices is not None and (choices or flag not in found):
                marked = flag in tables.GCC_CHANGES_RESULTS
                found[flag] = _entry(flag, choices, docs, marked=marked)
        yield from found.values()


class ClangSearchSpace(InstalledSearchSpace):
    """The optimisation options of an installed clang, and of the LLVM in it; see `InstalledSearchSpace`.

    Those of LLVM (``-mllvm``) are not a stable interface: a name may be gone in the next version, and
    is left out then.

    Args:
        executable: Clang's name or path.
        variant: ``default`` or ``full``, which has LLVM's unfinished passes too.
    """

    family = "clang"

    def __init__(self, executable: str | os.PathLike[str] = "clang", variant: str = "default") -> None:
        super().__init__(executable, variant)

    def constraints(self) -> Sequence[tuple[frozenset[str], str]]:
        """What does not go together: expressions, each with the names of the options in it."""
        return _CLANG_CONSTRAINTS

    def entries(self, compiler: Compiler) -> Iterator[Entry]:
        """Options in the form of a compiler-space file, not yet tried."""
        docs = docs_of(compiler.ask("--help-hidden"))
        nothing = ["-x", "c", "-c", os.devnull, "-o", os.devnull]
        llvm = llvm_docs(compiler.ask(*nothing, "-mllvm", "-help-hidden"))
        docs |= {f"-mllvm -{name}": doc for name, doc in llvm.items()}
        full = self.variant == "full"
        yield _level()
        yield from _target_options(docs, keep_results=not full)
        for flag in tables.CLANG_SWITCHED:
            yield _entry(flag, (), docs)
        for flag, values in tables.CLANG_VALUES.items():
            yield _entry(flag, values, docs)
        if full:
            yield _entry("-ffp-contract", ("off", "on", "fast"), docs, marked=True)
            for flag in tables.CLANG_CHANGES_RESULTS:
                yield _entry(flag, (), docs, marked=True)
        for name in (*tables.LLVM_SWITCHED, *(tables.CLANG_EXPERIMENTAL if full else ())):
            if name in llvm:
                yield _entry(f"-mllvm -{name}", (), docs)
        for name, numbers in tables.LLVM_CHOICES.items():
            yield _entry(f"-mllvm -{name}", numbers, docs)


def _level() -> Entry:
    return {
        "name": "level",
        "flag": "-O",
        "joined": True,
        "values": {"type": "choice", "choices": list(tables.LEVELS)},
        "knockout_prob": 0.0,
        "doc": "How hard to optimise; without it, not at all, whatever else is set.",
    }


def _target_options(docs: dict[str, str], keep_results: bool) -> Iterator[Entry]:
    for flag, values in tables.TARGET_VALUES.items():
        entry = _entry(flag, values, docs, rare=0.5 if values == ("native",) else _RARE)
        if flag == "-march":
            entry |= {"with": ["-ffp-contract=off"]} if keep_results else {"changes_results": True}
        yield entry


def _gcc_values(setting: Setting, full: bool) -> Sequence[str | int] | None:
    """The values to search, none for a switch; ``None`` if the option is not in the variant."""
    parameter = setting.flag.removeprefix("--param=")
    if parameter != setting.flag:
        low, high = setting.bounds or (0, None)
        curated = [
            value
            for value in tables.GCC_PARAMETERS.get(parameter, ())
            if value >= low and (high is None or value <= high)
        ]
        return curated or (_around(setting) if full else None)
    if not setting.takes_value:
        return () if full or setting.flag.removeprefix("-f") in tables.GCC_SWITCHED else None
    if full or setting.flag in tables.GCC_VALUED:
        return tables.GCC_VALUED.get(setting.flag) or _around(setting)
    return None


def _around(setting: Setting) -> Sequence[str | int] | None:
    """Values of an option that is not in the tables: those listed, or some around the present one."""
    if setting.choices:
        return setting.choices
    if setting.bounds is not None and setting.bounds[1] - setting.bounds[0] < 8:
        return range(setting.bounds[0], setting.bounds[1] + 1)
    now = setting.number
    if now is None or now <= 0:
        return None
    low, high = setting.bounds or (1, now * 4)
    found = {min(max(value, low), high) for value in (now // 4, now // 2, now * 2, now * 4)} - {now}
    return sorted(found) or None


def _entry(
    flag: str,
    values: Sequence[str | int],
    docs: dict[str, str],
    *,
    marked: bool = False,
    rare: float = _RARE,
) -> Entry:
    """An option with these values, or one that can be turned on and off if there are none."""
    name = flag
    for start, prefix in _NAMES.items():
        if flag.startswith(start):
            name = prefix + flag.removeprefix(start)
            break
    name = re.sub(r"\W", "_", name)
    entry: Entry = {"name": name, "flag": flag, "knockout_prob": rare, "doc": docs.get(flag, f"{flag}.")}
    if values:
        entry["values"] = {"type": "choice", "choices": list(values)}
        if all(isinstance(value, int) for value in values):
            entry["values"]["ordered"] = True
    else:
        entry["values"] = {"type": "boolean"}
        entry["off"] = f"{flag}=false" if flag.startswith("-mllvm") else flag.replace("-f", "-fno-", 1)
    if marked:
        entry["changes_results"] = True
    return entry


def _restricted(entry: Entry, texts: Sequence[str], usable: frozenset[str]) -> Entry | None:
    """`entry` with the values that can be used, ``None`` if there are none.

    Args:
        entry: The option.
        texts: For each of its values, the line with those that come with it, its own last.
        usable: The texts that the compiler takes.
    """
    good = [text in usable for text in texts]
    if all(good):
        return entry
    if not any(good):
        return None
    if entry["values"]["type"] == "choice":
        choices = [value for value, keep in zip(entry["values"]["choices"], good, strict=True) if keep]
        return entry | {"values": entry["values"] | {"choices": choices}}
    only = next(text for text, keep in zip(texts, good, strict=True) if keep).rsplit("\n", 1)[-1]
    left = {key: value for key, value in entry.items() if key not in ("off", "knockout_prob")}
    return left | {"flag": only, "values": {"type": "switch"}}


def _kept(path: Path) -> bytes | None:
    """The file in the cache, if it is whole."""
    try:
        data = path.read_bytes()
        json.loads(data)
    except (OSError, ValueError):
        return None
    return data
