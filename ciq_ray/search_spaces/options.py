"""Compiler options as a search space: the ``ciq-compiler-space`` form, and the text of a candidate.

``docs/compiler-spaces.md`` describes the form. A candidate is the content of an options file: one
option on each line, in the order of the space, nothing for an option at the compiler's default. The
empty text therefore is the compiler's defaults.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.quoting import GNU, NVIDIA, QUOTINGS, option_line, split_lines
from ciq_ray.search_spaces.strict_json import Fields
from searchers.errors import ConfigError, SearcherError
from searchers.files import param_from_dict
from searchers.params import Boolean, Param
from searchers.space import Space

__all__ = ["FORMAT", "CompilerOption", "CompilerSpace", "OptionsText", "option_line", "parse_version"]

FORMAT: Final = "ciq-compiler-space"
VERSION: Final = 1

_KINDS = ("switch", "boolean", "choice", "range", "power_of_two")
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FLAG = re.compile(r"-[A-Za-z0-9_=.-]*[A-Za-z0-9]")
_FLAGS = re.compile(rf"{_FLAG.pattern}(?: {_FLAG.pattern})?")
_MAX_LEVELS = 1 << 16


def parse_version(text: str) -> tuple[int, int] | None:
    """``"13.3"`` as (13, 3), or ``None`` if it is not a version of that form."""
    match = _VERSION.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, slots=True)
class CompilerOption:
    """One option of a compiler.

    Attributes:
        name: Its name in expressions.
        flag: Its text, without the value.
        param: Its values.
        switch: The flag stands alone, and is there or not.
        default: The value the compiler has without it, which is not written; ``None`` if the option
            is knocked out instead.
        companions: Further lines that belong to it: it does nothing without them, or they keep it from
            doing more than it should.
        since: First compiler version that has it, or ``None``.
        until: Last compiler version that has it, or ``None``.
        architectures: Where it holds; empty means everywhere.
        changes_results: The program's results may differ from those without it.
        limits_launch: It bounds the block size that the compiled kernel may be launched with.
        doc: What it does, in a line.
        off: The line of a boolean that is false, where that is not ``flag=false``.
        joined: The value follows the flag without ``=``.
        quoting: How a value is written; see `ciq_ray.search_spaces.quoting`.
    """

    name: str
    flag: str
    param: Param
    switch: bool
    default: Any
    companions: tuple[str, ...]
    since: tuple[int, int] | None
    until: tuple[int, int] | None
    architectures: tuple[str, ...]
    changes_results: bool
    limits_launch: bool
    doc: str
    off: str | None = None
    joined: bool = False
    quoting: str = NVIDIA

    def lines(self) -> list[tuple[str, Any]]:
        """The line of each value, with the value; the default's line is empty."""
        if self.switch:
            return [("", False), (self.flag, True)]
        texts = {True: self.flag, False: self.off} if self.off is not None else {}
        default = (type(self.default), self.default)  # True equals 1: the type counts
        values = [self.param.value(level) for level in range(self.param.n_levels)]
        return [
            ("" if (type(value), value) == default else texts.get(value) or self._line(value), value)
            for value in values
        ]

    def _line(self, value: Any) -> str:
        return option_line(self.flag, value, quoting=self.quoting, joined=self.joined)

    def holds_for(self, versions: Collection[tuple[int, int]], architectures: Collection[str]) -> bool:
        """Whether every one of `versions` and `architectures` has it."""
        return (
            all(self.since is None or version >= self.since for version in versions)
            and all(self.until is None or version <= self.until for version in versions)
            and (not self.architectures or set(architectures) <= set(self.architectures))
        )


class OptionsText:
    """Turns a configuration into the text of an options file, and back.

    Args:
        options: The options, in the order of their lines.

    Attributes:
        fingerprint: 16 hexadecimal digits that change when a candidate's text could.
    """

    def __init__(self, options: tuple[CompilerOption, ...]) -> None:
        table = [(option.name, option.lines(), option.companions) for option in options]
        self.fingerprint = hashlib.sha256(repr(table).encode()).hexdigest()[:16]
        self._companions = {name: companions for name, _, companions in table}
        self._lines = {
            name: {(type(value), value): line for line, value in lines} for name, lines, _ in table
        }
        self._defaults = {name: value for name, lines, _ in table for line, value in lines if not line}
        self._settings = {line: (name, value) for name, lines, _ in table for line, value in lines if line}
        self._quoting = options[0].quoting
        self._pairs = {option.flag.split()[0] for option in options if " " in option.flag}

    def __call__(self, config: Mapping[str, Any]) -> str:
        """The text: a line for each option that is not at its default.

        Args:
            config: Values by option name; absent options are left to the compiler.
        """
        lines: list[str] = []
        for name, known in self._lines.items():
            if name not in config:
                continue
            line = known[type(config[name]), config[name]]
            if line:
                lines += [other for other in self._companions[name] if other not in lines]
                lines.append(line)
        return "".join(f"{line}\n" for line in lines)

    def parse(self, text: Any) -> dict[str, Any]:
        """The configuration of a text, so that one in use today can be given to a search.

        Raises:
            ConfigError: It is not text, or a line is not an option of this space.
        """
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} is not the text of an options file")
        config = dict(self._defaults)
        companions = {line for lines in self._companions.values() for line in lines}
        set_by: dict[str, str] = {}
        present: set[str] = set()
        where = "option" if self._quoting == GNU else "line"
        for number, line in enumerate(split_lines(text, self._quoting, self._pairs), start=1):
            if line in companions:
                present.add(line)
                continue
            if not line:
                continue
            if line not in self._settings:
                raise ConfigError(f"{where} {number}: {line!r} is not an option, or a value, of this space")
            name, value = self._settings[line]
            if name in set_by:
                raise ConfigError(
                    f"{where} {number}: {line!r} comes after {set_by[name]!r}; keep one of them"
                )
            set_by[name] = line
            config[name] = value
        needed = {line for name in set_by for line in self._companions[name]}
        if present != needed:
            line = min(present ^ needed)
            raise ConfigError(f"{line} must be there exactly when an option that needs it is")
        return config


@dataclass(frozen=True, slots=True)
class CompilerSpace:
    """The options of one compiler that a search may set.

    Attributes:
        compiler: Its name, for example ``ptxas``.
        versions: The versions this space holds for.
        variant: Which selection of options it is.
        doc: What it is for.
        options: The options, in the order of their lines.
        constraints: Expressions over option names; an absent option is ``None``.
    """

    compiler: str
    versions: tuple[str, ...]
    variant: str
    doc: str
    options: tuple[CompilerOption, ...]
    constraints: tuple[str, ...]

    @classmethod
    def from_json(cls, data: Any, source: str) -> CompilerSpace:
        """The space that a file describes.

        Args:
            data: The file's JSON value.
            source: The file's path, for messages.

        Raises:
            SearchSpaceError: A field is missing, unknown or has a value it cannot have.
        """
        fields = Fields(data, source)
        form, version = fields.text("format"), fields.integer("version")
        if form != FORMAT:
            fields.fail("format", f"is {form!r}; it must be {FORMAT!r}")
        if version != VERSION:
            fields.fail("version", f"is {version}; this release reads version {VERSION}")
        compiler, variant = fields.text("compiler"), fields.text("variant")
        doc = fields.text("doc")
        versions = fields.texts("compiler_versions")
        for text in versions:
            if parse_version(text) is None:
                fields.fail("compiler_versions", f"has {text!r}; a version is of the form 13.3")
        if not versions:
            fields.fail("compiler_versions", "is empty; name the versions that have these options")
        constraints = fields.texts("constraints", ())
        quoting = fields.text("quoting", NVIDIA)
        if quoting not in QUOTINGS:
            fields.fail("quoting", f"is {quoting!r}; it must be one of {', '.join(QUOTINGS)}")
        options: list[CompilerOption] = []
        for position, item in enumerate(fields.items("options")):
            option = _option(Fields(item, source, f"options[{position}]"), quoting)
            for other in options:
                for what in ("name", "flag"):
                    if getattr(other, what) == getattr(option, what):
                        twice = f"is {getattr(option, what)!r}, as of an earlier option"
                        fields.fail(f"options[{position}].{what}", twice)
            options.append(option)
        taken = {line for option in options for line in option.companions}
        for position, option in enumerate(options):
            for line, _ in option.lines():
                if line and line in taken:
                    fields.fail(f"options[{position}]", f"makes the line {line!r}, as another option does")
                taken.add(line)
        fields.done()
        if not options:
            fields.fail("options", "is empty; there is nothing to search")
        return cls(compiler, versions, variant, doc, tuple(options), constraints)

    def select(self, version: str | None = None, architecture: str | None = None) -> CompilerSpace:
        """The part that holds for a compiler version and an architecture.

        Args:
            version: One of `versions`; ``None`` keeps what all of them have.
            architecture: For example ``sm_90``; ``None`` keeps what holds everywhere.

        Raises:
            SearchSpaceError: The version is not one of `versions`, or no option is left.
        """
        if version is not None and version not in self.versions:
            raise SearchSpaceError(
                f"`version` is {version!r}; this {self.compiler} space holds for {', '.join(self.versions)}"
            )
        versions = (version,) if version is not None else self.versions
        parsed = [found for text in versions if (found := parse_version(text)) is not None]
        wanted = () if architecture is None else (architecture,)
        kept = tuple(
            option
            for option in self.options
            if option.holds_for(parsed, wanted) and (architecture is not None or not option.architectures)
        )
        if not kept:
            raise SearchSpaceError(f"no option of this {self.compiler} space holds for {version} {wanted}")
        dropped = {option.name for option in self.options} - {option.name for option in kept}
        if not dropped:
            return replace(self, versions=versions)
        kept = tuple(_rewritten(option, dropped) for option in kept)
        constraints = tuple(_without(text, dropped) for text in self.constraints)
        return replace(self, versions=versions, options=kept, constraints=constraints)

    def to_space(self) -> Space:
        """The space to search; its configurations are texts, and its default is the empty one.

        Raises:
            SearchSpaceError: An expression cannot be used, or the compiler's defaults break one.
        """
        text = OptionsText(self.options)
        parameters = {option.name: option.param for option in self.options}
        try:
            return Space(parameters, self.constraints, default=text.parse(""), render=text)
        except SearcherError as error:
            raise SearchSpaceError(f"the {self.compiler} space cannot be used: {error}") from error


def _option(fields: Fields, quoting: str) -> CompilerOption:
    name, flag = fields.text("name"), fields.text("flag")
    if not _NAME.fullmatch(name):
        fields.fail("name", f"is {name!r}; expressions need letters, digits and underscores")
    companions, off = fields.texts("with", ()), fields.text("off", None)
    written = [("flag", flag), *(("with", text) for text in companions)]
    for where, text in [*written, ("off", off)] if off is not None else written:
        if not (_FLAGS if quoting == GNU else _FLAG).fullmatch(text):
            fields.fail(where, f"has {text!r}, which does not look like an option")
    since, until = (_optional_version(fields, where) for where in ("since", "until"))
    if since is not None and until is not None and since > until:
        fields.fail("since", "is later than `until`")
    values = dict(fields.object("values"))
    switch = values.get("type") == "switch"
    default = fields.value("default")
    param = _param(fields, values, switch)
    if off is not None and values.get("type") != "boolean":
        fields.fail("off", "is how a boolean says no; `values` are of another type")
    if switch and default is not None:
        fields.fail("default", "a switch is off by default; leave it out")
    if switch and param.knockout_prob is not None:
        fields.fail("knockout_prob", "a switch can be off already; leave it out")
    if not switch and (default is None) == (param.knockout_prob is None):
        fields.fail(
            None,
            "needs either `default` (the compiler's own value) or `knockout_prob`, so that the compiler's "
            "defaults belong to the space",
        )
    if param.when is not None and param.knockout_prob is None:
        fields.fail("when", "needs `knockout_prob`: where it is false, the option is absent")
    if default is not None:
        try:
            default = param.value(param.level(default))
        except ConfigError as error:
            fields.fail("default", str(error))
    option = CompilerOption(
        name=name,
        flag=flag,
        param=param,
        switch=switch,
        default=default,
        companions=companions,
        since=since,
        until=until,
        architectures=fields.texts("architectures", ()),
        changes_results=fields.boolean("changes_results", False),
        limits_launch=fields.boolean("limits_launch", False),
        doc=fields.text("doc"),
        off=off,
        joined=fields.boolean("joined", False),
        quoting=quoting,
    )
    fields.done()
    try:
        lines = [line for line, _ in option.lines()]
    except SearchSpaceError as error:
        fields.fail("values", str(error))
    if len(set(lines)) != len(lines):
        fields.fail("values", "has two values that look the same in an options file")
    return option


def _param(fields: Fields, values: dict[str, Any], switch: bool) -> Param:
    kind = values.get("type")
    if kind not in _KINDS:
        fields.fail("values.type", f"is {kind!r}; it must be one of {', '.join(_KINDS)}")
    for name in ("knockout_prob", "when"):
        if name in values:
            fields.fail(f"values.{name}", f"belongs beside `values`, as `{name}` of the option")
    if switch and len(values) > 1:
        fields.fail("values", "a switch has no other fields")
    own = {name: found for name in ("knockout_prob", "when") if (found := fields.value(name)) is not None}
    try:
        param = Boolean(**own) if switch else param_from_dict({**values, **own}, "values")
    except SearcherError as error:
        fields.fail(None, str(error))
    if not isinstance(param, Param) or param.n_levels > _MAX_LEVELS:
        fields.fail("values", f"holds more than {_MAX_LEVELS} values")
    for level in range(param.n_levels):
        value = param.value(level)
        if not isinstance(value, (str, int)):
            fields.fail("values", f"holds {value!r}; an option's values are text, whole numbers or booleans")
    return param


def _optional_version(fields: Fields, name: str) -> tuple[int, int] | None:
    text = fields.text(name, None)
    if text is None:
        return None
    version = parse_version(text)
    if version is None:
        fields.fail(name, f"is {text!r}; a version is of the form 13.3")
    return version


def _rewritten(option: CompilerOption, dropped: Collection[str]) -> CompilerOption:
    """`option` for a space that lacks the options `dropped`."""
    if option.param.when is None:
        return option
    data = {**option.param.to_dict(), "when": _without(option.param.when, dropped)}
    param = param_from_dict(data)
    return replace(option, param=param) if isinstance(param, Param) else option


class _Absent(ast.NodeTransformer):
    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(None) if node.id in self._names else node


def _without(expression: str, names: Collection[str]) -> str:
    """`expression` with ``None`` for parameters that are not there."""
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return expression  # the space refuses it, with the reason
    return ast.unparse(ast.fix_missing_locations(_Absent(names).visit(tree)))
