"""Trackers: what they record, and that they never stop a search."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from ciq_ray.errors import ConfigurationError
from ciq_ray.tracker import (
    DisabledTracker,
    LoguruTracker,
    logging_exception,
    make_tracker,
)
from ciq_ray.types import (
    BaseTracker,
    DisabledTrackerConfig,
    LoguruTrackerConfig,
    Score,
    TrackerConfig,
    TrackerTypes,
)


class Recording(DisabledTracker):
    """Says when it is set up."""

    setups = 0

    def setup(self, **kwargs: Any) -> None:
        super().setup(**kwargs)
        self.setups += 1


class OwnConfig(TrackerConfig):
    """The configuration of a tracker that is none of ours."""

    type: TrackerTypes = TrackerTypes.DISABLED
    stream: Any = None
    names: dict[str, list[str]] = {"a": ["b"]}  # noqa: RUF012 - pydantic copies it

    def tracker_class(self) -> type[BaseTracker]:  # type: ignore[valid-type]
        return Recording


def life(tracker: BaseTracker) -> None:
    """All events of a search with one evaluation that works and one that does not."""
    tracker.search_starts()
    tracker.generation_starts(0)
    for task, value in enumerate((1.5, "*")):
        params = {"flag": "{braces}", "n": task}
        tracker.pre_objective(params, task_id=task, node_id="host")
        score = Score(
            score=value, params=params, param_id=task, num_objectives=1, metadata="out of luck\nline 2"
        )
        tracker.post_objective(score.to_json(), task_id=task)
    tracker.generation_ends(0)
    tracker.search_ends()
    tracker.cleanup()


class TestBase:
    def test_setup_is_called_by_the_constructor(self) -> None:
        tracker = make_tracker(OwnConfig())
        assert isinstance(tracker, Recording)
        assert (tracker.setups, tracker.kwargs, tracker.search_title) == (1, {}, None)
        tracker.setup(node="n")
        assert tracker.kwargs == {"node": "n"}
        assert tracker.tracker_type is TrackerTypes.DISABLED

    def test_the_configuration_is_copied_and_its_streams_are_shared(self) -> None:
        stream = io.StringIO()
        config = OwnConfig(stream=stream)
        tracker = make_tracker(config)
        config.names["a"].append("later")
        assert isinstance(tracker.tracker_config, OwnConfig)
        assert tracker.tracker_config.names == {"a": ["b"]}
        assert tracker.tracker_config.stream is stream

    def test_events_must_be_implemented(self) -> None:
        with pytest.raises(TypeError, match="abstract"):
            BaseTracker(DisabledTrackerConfig())  # type: ignore[abstract]


class TestMake:
    @pytest.mark.parametrize(
        ("config", "kind"),
        [
            (None, DisabledTracker),
            (DisabledTrackerConfig(), DisabledTracker),
            (TrackerConfig(type="disabled"), DisabledTracker),
            (LoguruTrackerConfig(sink=[print]), LoguruTracker),
            (TrackerConfig(type="loguru"), LoguruTracker),
        ],
    )
    def test_by_configuration(self, config: Any, kind: type[BaseTracker]) -> None:
        tracker = make_tracker(config)
        tracker.cleanup()
        assert type(tracker) is kind

    def test_what_is_no_configuration(self) -> None:
        with pytest.raises(ConfigurationError, match="`tracker_config` is 'loguru'"):
            make_tracker("loguru")  # type: ignore[arg-type]


def test_the_disabled_tracker_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    life(DisabledTracker())
    life(DisabledTracker(DisabledTrackerConfig()))
    assert capfd.readouterr() == ("", "")


class TestLoguru:
    def test_one_readable_line_for_each_event(self) -> None:
        stream = io.StringIO()
        life(LoguruTracker(LoguruTrackerConfig(sink=stream)))
        lines = [line.split(" | ", 1)[1] for line in stream.getvalue().splitlines()]
        assert lines == [
            "INFO     | - | search starts",
            "INFO     | - | generation 0 starts",
            "INFO     | 0 | evaluating {'flag': '{braces}', 'n': 0} (node_id='host')",
            "INFO     | 0 | scored 1.5: out of luck",
            "INFO     | 1 | evaluating {'flag': '{braces}', 'n': 1} (node_id='host')",
            "WARNING  | 1 | failed: out of luck",
            "INFO     | - | generation 0 ends",
            "INFO     | - | search ends",
        ]

    def test_by_default_it_logs_to_stderr_once(self) -> None:
        code = (
            "from ciq_ray.tracker import make_tracker\nfrom ciq_ray.types import LoguruTrackerConfig\n"
            "make_tracker(LoguruTrackerConfig()).search_starts()"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout == ""
        assert [line.split(" | ")[-1] for line in found.stderr.splitlines()] == ["search starts"]

    @pytest.mark.parametrize("enqueue", [True, False])
    def test_all_kinds_of_sinks_at_once(self, tmp_path: Path, enqueue: bool) -> None:
        stream, calls = io.StringIO(), []
        path = tmp_path / "run.log"
        config = LoguruTrackerConfig(sink=[stream, str(path), calls.append], enqueue=enqueue)
        life(LoguruTracker(config))
        assert len(stream.getvalue().splitlines()) == len(calls) == 8
        assert path.read_text() == stream.getvalue() == "".join(calls)

    def test_level_and_format(self) -> None:
        stream = io.StringIO()
        life(LoguruTracker(LoguruTrackerConfig(sink=stream, level="WARNING", format="{message}")))
        assert stream.getvalue() == "failed: out of luck\n"

    def test_the_programs_own_handlers_are_left_alone(self) -> None:
        before, own, ours = repr(logger), [], io.StringIO()
        handler = logger.add(own.append, format="{message}")
        try:
            with_ours = repr(logger)
            life(LoguruTracker(LoguruTrackerConfig(sink=ours)))
            logger.info("mine")
            assert repr(logger) == with_ours
            assert own == ["mine\n"]
            assert "mine" not in ours.getvalue()
        finally:
            logger.remove(handler)
        assert repr(logger) == before

    def test_two_trackers_do_not_mix(self) -> None:
        streams = io.StringIO(), io.StringIO()
        first, second = (LoguruTracker(LoguruTrackerConfig(sink=stream)) for stream in streams)
        first.search_starts()
        second.search_ends()
        first.cleanup()
        second.search_starts()
        second.cleanup()
        assert [len(stream.getvalue().splitlines()) for stream in streams] == [1, 2]

    def test_after_cleanup_nothing_is_logged_and_the_stream_is_open(self) -> None:
        stream = io.StringIO()
        tracker = LoguruTracker(LoguruTrackerConfig(sink=stream))
        tracker.cleanup()
        tracker.search_starts()
        tracker.cleanup()
        assert stream.getvalue() == ""

    def test_a_second_setup_does_not_log_twice(self) -> None:
        stream = io.StringIO()
        tracker = LoguruTracker(LoguruTrackerConfig(sink=stream))
        tracker.setup()
        tracker.search_starts()
        tracker.cleanup()
        assert len(stream.getvalue().splitlines()) == 1

    def test_it_goes_on_in_another_process(self, tmp_path: Path) -> None:
        path = tmp_path / "run.log"
        tracker = LoguruTracker(LoguruTrackerConfig(sink=str(path)))
        tracker.search_starts()
        copy = pickle.loads(pickle.dumps(tracker))
        copy.setup()
        copy.search_ends()
        copy.cleanup()
        tracker.cleanup()
        assert sorted(line.split(" | ")[-1] for line in path.read_text().splitlines()) == [
            "search ends",
            "search starts",
        ]

    def test_a_title_and_scores_that_are_no_json(self) -> None:
        stream = io.StringIO()
        tracker = LoguruTracker(LoguruTrackerConfig(sink=stream, format="{message}"))
        tracker.search_title = "gemm"
        tracker.search_starts()
        for scores in ("not json", "3", '{"score": [1, 2], "norm_score": [0.5, 1.0]}'):
            tracker.post_objective(scores)
        tracker.cleanup()
        assert stream.getvalue().splitlines() == [
            "search 'gemm' starts",
            "scored not json",
            "scored 3",
            "scored [1, 2], normalized [0.5, 1.0]",
        ]

    @pytest.mark.parametrize(
        "fields", [{"level": "LOUD"}, {"sink": "/proc/none/x.log"}, {"sink": "a\0b"}, {"sink": "/"}]
    )
    def test_what_cannot_be_set_up(self, fields: Any) -> None:
        with pytest.raises(ConfigurationError, match="the Loguru tracker cannot log to `sink`"):
            LoguruTracker(LoguruTrackerConfig(**fields))

    def test_a_broken_sink_stops_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        def full(_: str) -> None:
            raise OSError("no space left")

        life(LoguruTracker(LoguruTrackerConfig(sink=[full])))
        assert "no space left" in capfd.readouterr().err


class TestLoggingException:
    def test_an_exception_is_logged_with_its_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        class Tracker:
            @logging_exception
            def event(self, number: int, *, scale: int = 1) -> float:
                """Divide."""
                return scale / number

        with caplog.at_level(logging.ERROR):
            assert Tracker().event(2, scale=4) == 2.0
            assert not caplog.records
            assert Tracker().event(0) is None
        assert "ZeroDivisionError" in caplog.text
        assert "Tracker.event failed" in caplog.text
        assert caplog.records[0].name == __name__
        assert Tracker.event.__doc__ == "Divide."
        assert list(inspect.signature(Tracker.event).parameters) == ["self", "number", "scale"]

    def test_an_interrupt_passes(self) -> None:
        @logging_exception
        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stop()
