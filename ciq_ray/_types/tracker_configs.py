"""What to track and where to: the configurations of the trackers."""

from __future__ import annotations

import builtins
import logging
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from pydantic import BeforeValidator, ConfigDict, Field, SkipValidation, Strict, field_validator

from ciq_ray._model import Model
from ciq_ray._types.enums import TrackerTypes

if TYPE_CHECKING:
    from ciq_ray._types.tracker import BaseTracker

__all__ = [
    "DefaultTrackerConfig",
    "DisabledTrackerConfig",
    "LoguruTrackerConfig",
    "MLflowTrackerConfig",
    "TrackerConfig",
]


def _as_type(value: Any) -> Any:
    return TrackerTypes(value) if isinstance(value, str) and value in set(TrackerTypes) else value


_Named = BeforeValidator(_as_type)
_Bool = Annotated[bool, Strict()]


class TrackerConfig(Model):
    """How experiment tracking is handled.

    A tracker of your own comes with a subclass of this, whose `tracker_class` returns it.

    Attributes:
        type: The type of tracker it creates.
        enqueue: Whether records pass a queue, so that writing them holds nobody up.

    Raises:
        ConfigurationError: A field has a value it cannot have, or is unknown.
    """

    type: Annotated[TrackerTypes | Literal["loguru", "mlflow", "disabled"], _Named]
    enqueue: _Bool = True

    def tracker_class(self) -> builtins.type[BaseTracker]:
        """Return the `BaseTracker` subclass that this configuration is for."""
        from ciq_ray import tracker

        if self.type == TrackerTypes.LOGURU:
            return tracker.LoguruTracker
        if self.type == TrackerTypes.MLFLOW:
            return tracker.MLflowTracker
        return tracker.DisabledTracker


class DisabledTrackerConfig(TrackerConfig):
    """A configuration to disable tracking.

    Attributes:
        type: The type of tracker it creates.
    """

    type: Annotated[Literal[TrackerTypes.DISABLED], _Named] = TrackerTypes.DISABLED


class DefaultTrackerConfig(DisabledTrackerConfig):
    """A configuration to use the default tracker, which tracks nothing.

    Attributes:
        type: The type of tracker it creates.
    """

    type: Annotated[Literal[TrackerTypes.DISABLED], _Named] = TrackerTypes.DISABLED


class LoguruTrackerConfig(TrackerConfig):
    """A configuration for the `LoguruTracker`. By default, it will log to stderr.

    Attributes:
        type: The type of tracker it creates.
        sink: Where records go: a file's path, an open stream, or a list of these and of whatever
            else Loguru takes as a sink; ``None`` for stderr. The caller keeps closing the streams.
        enqueue: Whether records pass a queue and a thread of their own, which write them.
        level: The least severe level that is recorded, a name that Loguru knows.
        format: Loguru's template of a line. ``extra[task_id]`` is the evaluation a record is about,
            ``-`` for records that are about none.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    type: Annotated[Literal[TrackerTypes.LOGURU], _Named] = TrackerTypes.LOGURU
    sink: Annotated[str | TextIO | list[Any] | None, SkipValidation()] = None
    enqueue: _Bool = True
    level: Annotated[str, Field(min_length=1)] = "INFO"
    format: str = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {extra[task_id]} | {message}"

    @field_validator("sink", mode="after")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        if isinstance(value, list):
            if not value:
                raise ValueError("an empty list records nothing: leave it out for stderr")
            for sink in value:
                _check_sink(sink)
        elif value is not None:
            _check_sink(value)
        return value


class MLflowTrackerConfig(TrackerConfig):
    """A configuration for the `MLflowTracker`.

    Attributes:
        type: The type of tracker it creates.
        experiment_name: The name of the experiment to use.
        run_name: The name of the run to use.
        tracking_uri: The URI of the tracking server to use.
        description: The description of the run to use.
        score_names: The names of the scores to use.
        log_config: Whether to log the config for each objective function call.
        live_runs: Whether the run of an evaluation is made before the evaluation, so that it can be
            watched; it costs a request before each. Otherwise it is made when the result is in, or
            when the objective itself logs something.
    """

    type: Annotated[Literal[TrackerTypes.MLFLOW], _Named] = TrackerTypes.MLFLOW
    experiment_name: str | None = None
    run_name: str | None = None
    tracking_uri: str | None = None
    description: str | None = None
    score_names: list[str] = Field(default_factory=list)
    log_config: _Bool = True
    live_runs: _Bool = False

    @field_validator("experiment_name", "run_name", "tracking_uri", mode="after")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it must not be empty: leave it out for the default")
        return value

    @field_validator("tracking_uri", mode="after")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        from ciq_ray._mlflow.uris import absolute_uri

        return None if value is None else absolute_uri(value)

    @field_validator("score_names", mode="after")
    @classmethod
    def _can_be_told_apart(cls, value: list[str]) -> list[str]:
        if any(not name.strip() for name in value) or len(set(value)) < len(value):
            raise ValueError("each score needs a name of its own")
        return value


def _check_sink(sink: Any) -> None:
    if isinstance(sink, (str, os.PathLike)):
        if not os.fspath(sink):
            raise ValueError("a sink that is a path must not be empty")
    elif not (callable(sink) or hasattr(sink, "write") or isinstance(sink, logging.Handler)):
        raise ValueError(f"{sink!r} is no sink: use a path, a stream, a function or a list of these")
