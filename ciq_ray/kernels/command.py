"""`CommandKernel`: any build command and benchmark command, in two stages."""

from __future__ import annotations

import io
import logging
import os
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray import settings
from ciq_ray.commands import CommandObjective
from ciq_ray.commands.checks import check_space
from ciq_ray.commands.copies import WorkingCopies
from ciq_ray.commands.templates import CONFIG_FILE
from ciq_ray.compilers import ptxas_report
from ciq_ray.errors import ConfigurationError, ObjectiveFailure
from ciq_ray.kernels.array_kernel import read_space
from ciq_ray.kernels.protocol import Artefact, Kernel, Resources, Target
from ciq_ray.kernels.resources import combined
from ciq_ray.worker.limits import compile_timeout

if TYPE_CHECKING:
    from ciq_ray.gpu.runtime import Runtime
    from ciq_ray.kernels.protocol import Launch, Workload
    from searchers.outcome import Outcome

__all__ = ["CommandKernel"]

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 64 << 20
_STATUS: Final = {"run_error": "compile_error", "run_timeout": "compile_timeout"}


class CommandKernel(Kernel):
    """Any build command and benchmark command as an objective of two stages.

    ::

        kernel = CommandKernel(
            "nvcc -O3 -Xptxas -v -DBLOCK={BLOCK} -o bench bench.cu",
            "./bench",
            space={"BLOCK": PowerOfTwo(32, 1024)},
            default={"BLOCK": 256},
            directory="my_kernel",
        )

    Builds run on the compile workers, each in a working copy of `directory`. What a build has made or
    changed travels to the owner of the device, where the command runs in another copy, alone on its device:
    the lock is held, and ``CUDA_VISIBLE_DEVICES`` names it. Builds that come to the same files, and have
    the same command line, share one measurement. The command measures itself, and checks itself: see
    `CommandObjective` for how it says so.

    Args:
        build: Words with placeholders, or one text, see `CommandObjective`; ``None`` for no build.
        command: The benchmark, likewise.
        space: What can be configured: a `Space`, a dict of parameters, or a provider.
        scores: Where the scores come from, see `CommandObjective`. If all are ``max:`` ones, the search needs
            ``SearchConfiguration(problem_type="max")``, as any.
        directory: Where both run.
        constraints: Constraints of the space, if `space` is a dict.
        default: The configuration in use today, the baseline, if `space` is a dict.
        initial_configs: Configurations to try first.
        outputs: Patterns (as of `fnmatch`) for the paths of the files that the command needs of a build;
            ``None``: all it has made or changed, 64 MiB at most. With the program alone, builds that differ
            in nothing else share a measurement.
        needs_gpu: Whether the command runs on a GPU. Else it runs on the CPU, one at a time.
        env: See `CommandObjective`.
        ok_exit: See `CommandObjective`.
        fail_pattern: See `CommandObjective`.
        timeout: See `CommandObjective`.
        build_timeout: See `CommandObjective`.
        repeat: See `CommandObjective`.
        warmup: See `CommandObjective`.

    Attributes:
        objective: The same as an objective of one stage.

    Raises:
        ConfigurationError: An argument cannot be used, or the commands do not fit the space.
    """

    self_timed = True

    def __init__(
        self,
        build: Sequence[str] | str | None,
        command: Sequence[str] | str,
        *,
        space: Any,
        scores: Sequence[str] | str = ("last",),
        directory: str | os.PathLike[str] = ".",
        constraints: Sequence[Any] = (),
        default: Any = None,
        initial_configs: Sequence[Any] = (),
        outputs: Sequence[str] | None = None,
        needs_gpu: bool = True,
        env: Mapping[str, str] | None = None,
        ok_exit: Sequence[int] = (0,),
        fail_pattern: str | None = None,
        timeout: float | None = None,
        build_timeout: float | None = None,
        repeat: int = 1,
        warmup: int = 0,
    ) -> None:
        self._env = dict(env or {})
        self._running: dict[str, Any] = {
            "scores": scores,
            "env": self._env,
            "ok_exit": ok_exit,
            "fail_pattern": fail_pattern,
            "timeout": timeout,
            "repeat": repeat,
            "warmup": warmup,
        }
        self.objective = CommandObjective(
            command,
            build=build,
            directory=directory,
            copy=False,
            build_timeout=build_timeout,
            **self._running,
        )
        self.num_objectives = self.objective.num_objectives
        self.problem_type = self.objective.problem_type
        self.space = read_space(space, constraints, default)
        self.initial_configs = list(initial_configs)
        self.needs_gpu = needs_gpu
        for warning in check_space(self.objective, self.space):
            logger.warning("%s", warning)
        words = self.objective.words
        self._build = [template.word for template in words["build"]]
        self._command = [template.word for template in words["command"]]
        self._reads_file = any(
            placeholder.keys == (CONFIG_FILE,)
            for group in words.values()
            for template in group
            for placeholder in template.placeholders
        )
        self._build_timeout = build_timeout
        self._outputs = None if outputs is None else list(outputs)
        self._copies: WorkingCopies | None = None
        if self._build:
            left_out = [settings.runs_dir().absolute()]
            self._copies = WorkingCopies(self.objective.directory, left_out)

    def compile(self, config: Any, target: Target, *, keep: bool = False) -> Artefact:
        """Run the build."""
        identity: dict[str, Any] = {
            "command": self.objective.argv(config, "")["command"],
            "env": self.objective.variables(config, ""),
        }
        if self._reads_file:
            identity["config"] = config
        if self._copies is None:
            return Artefact(b"", meta=identity)
        # a key of its own: the copy is then equal to the source, so that all that differs is the build's
        with self._copies.use(secrets.token_hex(8)) as copy:
            before = dict(_listing(copy.path))
            messages = self._run_build(config, copy.path)
            made = [name for name, state in _listing(copy.path) if before.get(name) != state]
            if self._outputs is not None:
                made = [name for name in made if any(fnmatch(name, each) for each in self._outputs)]
            binary = _packed(copy.path, sorted(made))
        report = ptxas_report(messages).values()
        resources = combined(
            Resources(each.registers, each.spill_stores, each.spill_loads) for each in report
        )
        files = {"build.log": messages.encode(), "build.tar": binary} if keep else {}
        return Artefact(binary, resources, identity, files, messages)

    def _run_build(self, config: Any, directory: Path) -> str:
        limits = [limit for limit in (self._build_timeout, compile_timeout()) if limit is not None]
        build = CommandObjective(
            self._build,
            scores="wall",
            directory=directory,
            copy=False,
            env=self._env,
            timeout=min(limits, default=None),
        )
        printed: list[bytes] = []
        outcome = build.evaluate(config, sink=printed.append)
        if not outcome.ok:
            text = outcome.message.replace("the command", "the build", 1)
            raise ObjectiveFailure(_STATUS.get(outcome.status, outcome.status), text)
        return b"".join(printed).decode("utf-8", "replace")

    def run(self, artefact: Artefact, config: Any) -> Outcome:
        """Run the benchmark with what a build has made.

        Args:
            artefact: What `compile` returned.
            config: The same configuration.
        """
        if self._copies is None:
            return self._benchmark(config, self.objective.directory)
        with self._copies.use(artefact.digest) as copy:
            if copy.fresh:
                with tarfile.open(fileobj=io.BytesIO(artefact.binary)) as archive:
                    archive.extractall(copy.path, filter="data")
                copy.built()
            return self._benchmark(config, copy.path)

    def _benchmark(self, config: Any, directory: Path) -> Outcome:
        return CommandObjective(self._command, directory=directory, copy=False, **self._running).evaluate(
            config
        )

    def workload(self, runtime: Runtime, shape: Any, seed: int) -> Workload:
        """There is none: the command makes its own arguments.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError("a CommandKernel is checked and timed by its command; call `run`")

    def load(self, artefact: Artefact, config: Any, runtime: Runtime, workload: Workload) -> Launch:
        """There is nothing to load; see `run`.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError("a CommandKernel is checked and timed by its command; call `run`")


def _listing(folder: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Files and links with what tells that they were changed."""
    for parent, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(parent, name)))):
            path = os.path.join(parent, name)
            state = os.lstat(path)
            yield os.path.relpath(path, folder), (state.st_size, state.st_mtime_ns, state.st_ino)


def _packed(folder: Path, names: Sequence[str]) -> bytes:
    """An archive that is equal for equal files: without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            info = archive.gettarinfo(folder / name, arcname=name)
            info.mtime = info.uid = info.gid = 0
            info.uname = info.gname = ""
            if info.isreg():
                with (folder / name).open("rb") as file:
                    archive.addfile(info, file)
            elif info.issym():
                archive.addfile(info)
            if buffer.tell() > _MOST_BYTES:
                raise ObjectiveFailure(
                    "compile_error",
                    f"the build leaves more than {_MOST_BYTES >> 20} MiB of files; name those "
                    "that the command needs with `outputs`",
                )
    return buffer.getvalue()
