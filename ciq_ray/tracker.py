"""The trackers: what records the course of a search.

A tracker never stops a search: what goes wrong in it is logged, and the search goes on.
"""

from __future__ import annotations

import atexit
import json
import sys
from typing import TYPE_CHECKING, Any

from ciq_ray._trackers.guarding import logging_exception
from ciq_ray._trackers.mlflow import MLflowTracker
from ciq_ray._types.enums import TrackerTypes
from ciq_ray._types.tracker import BaseTracker
from ciq_ray._types.tracker_configs import (
    DefaultTrackerConfig,
    DisabledTrackerConfig,
    LoguruTrackerConfig,
    MLflowTrackerConfig,
    TrackerConfig,
)
from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    import loguru

    from ciq_ray._types.worker import Params

__all__ = ["DisabledTracker", "LoguruTracker", "MLflowTracker", "logging_exception", "make_tracker"]

_NOTE_LENGTH = 300


def make_tracker(config: TrackerConfig | None = None) -> BaseTracker:
    """Create the tracker that a configuration is for; ``None`` stands for the default one.

    Raises:
        ConfigurationError: `config` is no configuration of a tracker, or the tracker cannot be set up
            as it says.
    """
    if config is None:
        config = DefaultTrackerConfig()
    if not isinstance(config, TrackerConfig):
        raise ConfigurationError(
            f"`tracker_config` is {config!r}; use a TrackerConfig, such as LoguruTrackerConfig()"
        )
    tracker = config.tracker_class()
    if type(config) is TrackerConfig and config.type == TrackerTypes.LOGURU:
        config = LoguruTrackerConfig(enqueue=config.enqueue)
    elif type(config) is TrackerConfig and config.type == TrackerTypes.MLFLOW:
        config = MLflowTrackerConfig(enqueue=config.enqueue)
    return tracker(config)


class DisabledTracker(BaseTracker):
    """DisabledTracker is a tracker that does nothing."""

    def __init__(self, tracker_config: DisabledTrackerConfig | None = None) -> None:
        super().__init__(DisabledTrackerConfig() if tracker_config is None else tracker_config)

    def search_starts(self, **kwargs: Any) -> None:
        """Does nothing."""

    def search_ends(self, **kwargs: Any) -> None:
        """Does nothing."""

    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        """Does nothing."""

    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        """Does nothing."""

    def pre_objective(self, config: Params, **kwargs: Any) -> None:
        """Does nothing."""

    def post_objective(self, scores: str, **kwargs: Any) -> None:
        """Does nothing."""


class LoguruTracker(BaseTracker):
    """Writes one readable line for each event of a search, with Loguru.

    The sinks are this tracker's own: nothing that the program has set up for Loguru is changed, and
    none of these lines appear there. A tracker can be pickled when its sinks can; `setup` then opens
    them again in the other process.

    Args:
        tracker_config: Where to write, and from which level on. Events are at level ``INFO``, failed
            evaluations at ``WARNING``.

    Raises:
        ConfigurationError: A sink cannot be opened, or Loguru does not know the level.
    """

    tracker_config: LoguruTrackerConfig

    def __init__(self, tracker_config: LoguruTrackerConfig) -> None:
        self._logger: loguru.Logger | None = None
        self._handlers: list[int] = []
        super().__init__(tracker_config)

    def setup(self, **kwargs: Any) -> None:
        """Open the sinks; those that are open are closed first."""
        self.cleanup()
        super().setup(**kwargs)
        self._logger = _own_logger().bind(task_id="-", ciq_tracker=id(self))
        atexit.register(self.cleanup)  # what is still queued when the program ends
        sink = self.tracker_config.sink
        for target in sink if isinstance(sink, list) else [sink]:
            self._add(self._logger, sys.stderr if target is None else target)

    def _add(self, logger: loguru.Logger, sink: Any) -> None:
        identity = id(self)
        try:
            handler = logger.add(
                sink,
                level=self.tracker_config.level,
                format=self.tracker_config.format,
                filter=lambda record: record["extra"].get("ciq_tracker") == identity,
                enqueue=self.tracker_config.enqueue,
            )
        except (OSError, TypeError, ValueError) as error:
            self.cleanup()
            raise ConfigurationError(
                f"the Loguru tracker cannot log to `sink` {sink!r} at `level` "
                f"{self.tracker_config.level!r}: {error}"
            ) from error
        self._handlers.append(handler)

    @logging_exception
    def cleanup(self, **kwargs: Any) -> None:
        """Write what is queued and close the sinks; streams stay open, they are the caller's."""
        atexit.unregister(self.cleanup)
        handlers, self._handlers = self._handlers, []
        for handler in handlers:
            if self._logger is not None:
                self._logger.remove(handler)
        self._logger = None

    @logging_exception
    def search_starts(self, **kwargs: Any) -> None:
        """Log that the search begins."""
        title = f" {self.search_title!r}" if self.search_title else ""
        self._log("INFO", f"search{title} starts{_details(kwargs)}", kwargs)

    @logging_exception
    def search_ends(self, **kwargs: Any) -> None:
        """Log that the search is over."""
        self._log("INFO", f"search ends{_details(kwargs)}", kwargs)

    @logging_exception
    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        """Log that a generation begins."""
        self._log("INFO", f"generation {generation_number} starts{_details(kwargs)}", kwargs)

    @logging_exception
    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        """Log that a generation is over."""
        self._log("INFO", f"generation {generation_number} ends{_details(kwargs)}", kwargs)

    @logging_exception
    def pre_objective(self, config: Params, **kwargs: Any) -> None:
        """Log the parameters that are about to be evaluated."""
        self._log("INFO", f"evaluating {config!r}{_details(kwargs)}", kwargs)

    @logging_exception
    def post_objective(self, scores: str, **kwargs: Any) -> None:
        """Log the scores of an evaluation, or that it failed and why."""
        try:
            fields = json.loads(scores)
            score, norm, note = fields["score"], fields.get("norm_score"), fields.get("metadata", "")
        except (ValueError, TypeError, KeyError, AttributeError):
            self._log("INFO", f"scored {scores}{_details(kwargs)}", kwargs)
            return
        failed = "*" in score if isinstance(score, list) else score == "*"
        text = "failed" if failed else f"scored {score!r}"
        if norm is not None and not failed:
            text += f", normalized {norm!r}"
        self._log("WARNING" if failed else "INFO", f"{text}{_details(kwargs)}{_note(note)}", kwargs)

    def _log(self, level: str, message: str, kwargs: dict[str, Any]) -> None:
        if self._logger is None:
            return
        # the message is an argument: braces in a configuration are no format fields
        self._logger.bind(task_id=kwargs.get("task_id", "-")).log(level, "{}", message)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_logger": None, "_handlers": []}


def _own_logger() -> loguru.Logger:
    """A Loguru logger that shares no handlers with the program's.

    Loguru makes its one logger from these two classes and offers no other way. Should a version of
    it come without them, the shared logger serves: the filter keeps our sinks to our records, though
    the program's own handlers then see them too.
    """
    from loguru import logger

    try:
        core = type(logger._core)()  # type: ignore[attr-defined]
        own: loguru.Logger = type(logger)(  # type: ignore[call-arg]
            core=core,
            exception=None,
            depth=0,
            record=False,
            lazy=False,
            colors=False,
            raw=False,
            capture=True,
            patchers=[],
            extra={},
        )
    except (AttributeError, TypeError):
        return logger
    return own


def _details(kwargs: dict[str, Any]) -> str:
    shown = [f"{name}={value!r}" for name, value in kwargs.items() if name != "task_id"]
    return f" ({', '.join(shown)})" if shown else ""


def _note(metadata: Any) -> str:
    """The first line of it: tracebacks and compilers' output are long."""
    lines = str(metadata).strip().splitlines()
    return f": {lines[0][:_NOTE_LENGTH]}" if lines else ""
