"""`CommandObjective`: what a search calls to build and run a command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ciq_ray import settings
from ciq_ray.commands.copies import Copy, WorkingCopies, fingerprint
from ciq_ray.commands.processes import Finished, Sink, run_command
from ciq_ray.commands.scoring import Score, ScoreNotFoundError, read_output
from ciq_ray.commands.templates import CONFIG_FILE, Template
from ciq_ray.errors import ConfigurationError
from ciq_ray.worker.limits import compile_timeout
from searchers.outcome import Outcome

__all__ = ["CommandObjective"]

_BRANDS: Final = {"command": "the command", "build": "the build"}


@dataclass(frozen=True, slots=True)
class _Expanded:
    command: list[str]
    build: list[str]
    variables: dict[str, str | None]
    key: str


class CommandObjective:
    """A command as an objective; `ciq tune` makes one, and `Search` takes one.

    An evaluation fills the configuration into the words of the build and of the command (see
    `ciq_ray.commands.templates`), builds, runs, and reads the scores. No shell is involved. Nothing a
    command starts outlives it.

    With a build, each evaluation has a working copy of `directory` of its own, equal to what the
    directory was when the search began; builds are kept for a while, so that one configuration measured
    again is not built again. The copies are removed when this object, or the process that made it, ends.

    The statuses: ``compile_error`` and ``compile_timeout`` for a build that fails or takes too long,
    ``run_error`` for a command with a wrong exit status (or one that cannot be started, or a value that no
    argument can hold), ``run_timeout``, ``wrong`` if `fail_pattern` is in its output, ``invalid_result`` if
    its score is not.

    Args:
        command: The benchmark: words with placeholders, or one text that is split as a shell would.
        build: What is run before it, in the same form; ``None`` for nothing.
        scores: Where the scores come from, see `ciq_ray.commands.scoring`: ``last``, ``wall``, or keys of
            JSON output, with ``max:`` before one for which high values are better. If both kinds occur,
            the values of the ``max:`` ones are negated.
        directory: Where both run.
        copy: Whether evaluations get working copies of `directory`; ``None``: if there is a build.
        env: Environment variables for both, with placeholders; without a value, one is unset.
        ok_exit: Exit statuses of the command that are none of a failure.
        fail_pattern: A regular expression for lines of its output that say that it has failed.
        timeout: Seconds one run of the command may take.
        build_timeout: Seconds the build may take; less, if the searcher has learnt that builds take less
            (its `compile_timeout_quantile`; see `ciq_ray.compile_timeout`).
        repeat: Runs of the command for one evaluation. The score is their median; all are in the
            outcome's ``metrics["samples"]``.
        warmup: Runs before these that do not count.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        command: Sequence[str] | str,
        *,
        build: Sequence[str] | str | None = None,
        scores: Sequence[str] | str = ("last",),
        directory: str | os.PathLike[str] = ".",
        copy: bool | None = None,
        env: Mapping[str, str] | None = None,
        ok_exit: Sequence[int] = (0,),
        fail_pattern: str | None = None,
        timeout: float | None = None,
        build_timeout: float | None = None,
        repeat: int = 1,
        warmup: int = 0,
    ) -> None:
        self._command = _templates("command", command)
        self._build = [] if build is None else _templates("build", build)
        given = [scores] if isinstance(scores, str) else list(scores)
        if not given:
            raise ConfigurationError("`scores` is empty; name at least one")
        self.scores = tuple(Score.parse(text) for text in given)
        self.directory = Path(directory).absolute()
        if not self.directory.is_dir():
            raise ConfigurationError(f"`directory` is {str(directory)!r}, which is not a directory")
        self._env = {_variable(name): Template(value) for name, value in (env or {}).items()}
        self._ok_exit = tuple(_whole("ok_exit", code, 0) for code in ok_exit)
        self._pattern = None if fail_pattern is None else _pattern(fail_pattern)
        self._timeout = _seconds("timeout", timeout)
        self._build_timeout = _seconds("build_timeout", build_timeout)
        self._repeat = _whole("repeat", repeat, 1)
        self._warmup = _whole("warmup", warmup, 0)
        self._copies: WorkingCopies | None = None
        if bool(self._build) if copy is None else copy:
            self._copies = WorkingCopies(self.directory, [settings.runs_dir().absolute()])

    # --- what a search needs to know ---

    @property
    def num_objectives(self) -> int:
        """How many scores there are."""
        return len(self.scores)

    @property
    def problem_type(self) -> str:
        """What a search is to do with the values: ``max`` if high is better for all scores, else ``min``."""
        return "max" if all(score.mode == "max" for score in self.scores) else "min"

    def shown(self, values: Sequence[float]) -> tuple[float, ...]:
        """Values of an outcome as the command gave them, where they are negated for the search."""
        return tuple(value * sign for value, sign in zip(values, self._signs, strict=True))

    @cached_property
    def _signs(self) -> tuple[float, ...]:
        return tuple(1.0 if score.mode == self.problem_type else -1.0 for score in self.scores)

    @property
    def copies(self) -> WorkingCopies | None:
        """The working copies, if there are any."""
        return self._copies

    @property
    def words(self) -> dict[str, list[Template]]:
        """The templates of ``build``, ``command`` and ``env`` (the values of the variables)."""
        return {"build": self._build, "command": self._command, "env": list(self._env.values())}

    # --- one evaluation ---

    def argv(self, config: Any, config_file: str = CONFIG_FILE) -> dict[str, list[str]]:
        """What would run for a configuration: the words of ``build`` (if there is one) and ``command``.

        Args:
            config: As the search proposes it.
            config_file: What ``{CONFIG_FILE}`` becomes.

        Raises:
            ConfigurationError: A value cannot be an argument.
        """
        expanded = self._expand(config, config_file)
        words = {"build": expanded.build} if self._build else {}
        return {**words, "command": expanded.command}

    def variables(self, config: Any, config_file: str = CONFIG_FILE) -> dict[str, str | None]:
        """The environment variables that would be set for a configuration, ``None`` for one to be unset.

        Args:
            config: As the search proposes it.
            config_file: What ``{CONFIG_FILE}`` becomes.

        Raises:
            ConfigurationError: A value cannot be in a variable.
        """
        return {
            name: next(iter(template.expand(config, config_file, joined=True)), None)
            for name, template in self._env.items()
        }

    def __call__(self, config: Any) -> Outcome:
        """Build and run for one configuration."""
        return self.evaluate(config)

    def evaluate(self, config: Any, *, sink: Sink | None = None, keep: bool = False) -> Outcome:
        """Build and run for one configuration.

        Args:
            config: As the search proposes it.
            sink: Gets everything that is printed, and a line before each command.
            keep: Leave the working copy behind; ``outcome.metrics["kept"]`` says where.
        """
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._config_file(config))
                expanded = self._expand(config, file)
            except ConfigurationError as error:
                return Outcome("run_error", message=str(error))
            if self._copies is None:
                return self._build_and_run(expanded, self.directory, None, sink)
            if keep:
                self._copies.keep()
            try:
                copy = stack.enter_context(self._copies.use(expanded.key))
            except OSError as error:
                return Outcome("run_error", message=f"the working copy of {self.directory} failed: {error}")
            outcome = self._build_and_run(expanded, copy.path, copy, sink)
            if keep:
                fields = {**outcome.to_dict(), "metrics": {**outcome.metrics, "kept": str(copy.path)}}
                outcome = Outcome.from_dict(fields)
            return outcome

    def _build_and_run(
        self, expanded: _Expanded, directory: Path, copy: Copy | None, sink: Sink | None
    ) -> Outcome:
        environment = dict(os.environ)
        for name, value in expanded.variables.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value

        def execute(what: str, argv: list[str], timeout: float | None) -> Finished:
            if sink is not None:
                sink(f"[{what}] {shlex.join(argv)}\n".encode("utf-8", "surrogateescape"))
            return run_command(argv, directory=directory, environment=environment, timeout=timeout, sink=sink)

        compile_s = None
        metrics: dict[str, Any] = {}
        if self._build and (copy is None or copy.fresh):
            before = 0 if copy is None else fingerprint(directory)
            limits = [limit for limit in (self._build_timeout, compile_timeout()) if limit is not None]
            finished = execute("build", expanded.build, min(limits, default=None))
            compile_s = finished.seconds
            if finished.code != 0:
                status = "compile_timeout" if finished.timed_out else "compile_error"
                return Outcome(status, compile_s=compile_s, message=_failure("build", finished))
            if copy is not None:
                if fingerprint(directory) == before:
                    metrics["build_changed_nothing"] = True
                copy.built()
        samples: list[tuple[float, ...]] = []
        command_s = 0.0
        for number in range(self._warmup + self._repeat):
            finished = execute("run", expanded.command, self._timeout)
            command_s += finished.seconds
            status, values, message = self._judge(finished)
            if status != "ok":
                return Outcome(status, compile_s=compile_s, message=message, metrics=metrics)
            if number >= self._warmup:
                samples.append(values)
        return self._outcome(samples, compile_s, {**metrics, "command_s": command_s})

    def _judge(self, finished: Finished) -> tuple[str, tuple[float, ...], str]:
        if finished.timed_out:
            return "run_timeout", (), _failure("command", finished)
        if finished.code not in self._ok_exit:
            return "run_error", (), _failure("command", finished)
        if self._pattern is not None:
            for data in (finished.stderr, finished.stdout):
                found = self._pattern.search(data.decode("utf-8", "replace"))
                if found is not None:
                    return "wrong", (), f"the command printed {found[0]!r}\n{finished.tail}"
        try:
            values = read_output(self.scores, finished)
        except ScoreNotFoundError as error:
            return "invalid_result", (), f"{error}\n{finished.tail}"
        return "ok", self.shown(values), ""

    def _outcome(
        self, samples: list[tuple[float, ...]], compile_s: float | None, metrics: dict[str, Any]
    ) -> Outcome:
        columns = list(zip(*samples, strict=True))
        spread = None
        if len(samples) > 1:
            spread = tuple(statistics.stdev(column) for column in columns)
            metrics["samples"] = [list(values) if len(values) > 1 else values[0] for values in samples]
        return Outcome(
            "ok",
            tuple(statistics.median(column) for column in columns),
            spread=spread,
            samples=len(samples),
            compile_s=compile_s,
            metrics=metrics,
        )

    def _expand(self, config: Any, config_file: str) -> _Expanded:
        command = [word for template in self._command for word in template.expand(config, config_file)]
        build = [word for template in self._build for word in template.expand(config, config_file)]
        for what, words, templates in (("command", command, self._command), ("build", build, self._build)):
            if templates and not words:
                raise ConfigurationError(f"{_BRANDS[what]} has no words left: all were dropped")
        variables = self.variables(config, config_file)
        # a build is the same if its words are; the name of the configuration's file says nothing
        neutral = [word for template in self._build for word in template.expand(config, "")]
        content: list[Any] = [neutral, self.variables(config, "")]
        if any(_reads_file(template) for template in (*self._build, *self._env.values())):
            content += [config, None]
        key = hashlib.sha256(json.dumps(content, default=repr).encode()).hexdigest()
        return _Expanded(command, build, variables, key)

    @contextlib.contextmanager
    def _config_file(self, config: Any) -> Iterator[str]:
        if not any(_reads_file(template) for words in self.words.values() for template in words):
            yield ""
            return
        with tempfile.TemporaryDirectory(prefix="ciq-config-") as folder:
            if isinstance(config, str):
                path, text = Path(folder, "config.options"), config
            else:
                path, text = Path(folder, "config.json"), json.dumps(config, indent=1, default=str) + "\n"
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
            yield str(path)

    # --- in the journal, and back ---

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON from which `from_dict` makes an equal objective."""
        return {
            "command": [template.word for template in self._command],
            "build": [template.word for template in self._build] or None,
            "scores": [score.text for score in self.scores],
            "directory": str(self.directory),
            "copy": self._copies is not None,
            "env": {name: template.word for name, template in self._env.items()},
            "ok_exit": list(self._ok_exit),
            "fail_pattern": None if self._pattern is None else self._pattern.pattern,
            "timeout": self._timeout,
            "build_timeout": self._build_timeout,
            "repeat": self._repeat,
            "warmup": self._warmup,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CommandObjective:
        """The inverse of `to_dict`.

        Raises:
            ConfigurationError: It is no such data, or the directory is gone.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigurationError(f"not a command: {error}") from error

    def files(self) -> dict[str, str]:
        """The files that are named in the words, such as the program and its scripts, with their sha256."""
        found = {}
        for template in (*self._command, *self._build):
            path = self.directory / template.word
            if template.word and not template.placeholders and _is_file(path):
                found[template.word] = _sha256(path)
        return found


def _templates(name: str, words: Sequence[str] | str) -> list[Template]:
    if isinstance(words, str):
        try:
            words = shlex.split(words)
        except ValueError as error:
            raise ConfigurationError(f"`{name}` is {words!r}, which cannot be split: {error}") from error
    templates = [Template(word) for word in words]
    if not templates:
        raise ConfigurationError(f"`{name}` is empty; give a program and its arguments")
    return templates


def _reads_file(template: Template) -> bool:
    return any(placeholder.keys == (CONFIG_FILE,) for placeholder in template.placeholders)


def _failure(what: str, finished: Finished) -> str:
    return f"{_BRANDS[what]} {finished.ending}\n{finished.tail}".strip()


def _variable(name: str) -> str:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise ConfigurationError(f"`env` has {name!r}, which is no name of a variable")
    return name


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.MULTILINE)
    except (re.error, TypeError, RecursionError) as error:
        raise ConfigurationError(f"`fail_pattern` is {text!r}, no regular expression: {error}") from error


def _whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"`{name}` is {value!r}; it must be a whole number, at least {least}")
    return value


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"`{name}` is {value!r}; it must be a number of seconds above 0")
    return float(value)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
