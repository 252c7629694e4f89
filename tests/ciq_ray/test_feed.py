"""Trackers see the documented life cycle whatever the order of evaluations, and hold nothing up."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.feed import TrackerFeed
from ciq_ray.search_spaces.base import range as range_of
from ciq_ray.types import BaseTracker, DisabledTrackerConfig, Score


class Recording(BaseTracker):
    """Keeps what it is told, as (event, detail)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.threads: set[str] = set()
        super().__init__(DisabledTrackerConfig())

    def note(self, event: str, detail: Any = None) -> None:
        self.threads.add(threading.current_thread().name)
        self.events.append((event, detail))

    def setup(self, **kwargs: Any) -> None:
        super().setup(**kwargs)
        self.note("setup")

    def cleanup(self, **kwargs: Any) -> None:
        self.note("cleanup")

    def search_starts(self, **kwargs: Any) -> None:
        self.note("search_starts", kwargs)

    def search_ends(self, **kwargs: Any) -> None:
        self.note("search_ends", kwargs)

    def generation_starts(self, generation_number: int, **kwargs: Any) -> None:
        self.note("generation_starts", generation_number)

    def generation_ends(self, generation_number: int, **kwargs: Any) -> None:
        self.note("generation_ends", generation_number)

    def pre_objective(self, config: Any, **kwargs: Any) -> None:
        self.note("pre_objective", (config, kwargs["task_id"]))

    def post_objective(self, scores: Any, **kwargs: Any) -> None:
        self.note("post_objective", (json.loads(scores), kwargs["task_id"]))


class Raising(Recording):
    def note(self, event: str, detail: Any = None) -> None:
        super().note(event, detail)
        if event != "setup":
            raise RuntimeError(f"no {event} today")


class Slow(Recording):
    def note(self, event: str, detail: Any = None) -> None:
        if event != "setup":
            time.sleep(0.01)
        super().note(event, detail)


class Hanging(Recording):
    """Hangs in its third evaluation until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        super().__init__()

    def note(self, event: str, detail: Any = None) -> None:
        super().note(event, detail)
        if Counter(name for name, _ in self.events)["post_objective"] == 3:
            self.let_go.wait(60)


def score(number: int) -> Score:
    return Score(score=float(number), params={"x": number}, param_id=number, num_objectives=1)


class Blocks:
    """Which generations are complete, when each has `size` evaluations."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.back: Counter[int] = Counter()

    def closed(self, number: int) -> bool:
        return self.back[number] >= self.size


def fed(tracker: BaseTracker, generations: list[int], size: int = 2) -> list[int]:
    """Feed evaluations of these generations, in this order; the generations the feed went through."""
    blocks, entered = Blocks(size), []
    feed = TrackerFeed(tracker, blocks.closed, entered.append)
    feed.start(run_id=3)
    for number, generation in enumerate(generations):
        blocks.back[generation] += 1
        feed.evaluated(score(number), generation, task_id=str(number), worker="w")
    feed.end(reason="finished")
    return entered


def check_life_cycle(tracker: Recording, evaluations: int) -> list[list[str]]:
    """Check the documented order; the ids of the evaluations of each generation."""
    names = [name for name, _ in tracker.events]
    assert names[:2] == ["setup", "search_starts"]
    assert names[-2:] == ["search_ends", "cleanup"]
    generations: list[list[str]] = []
    inner = iter(tracker.events[2:-2])
    for name, detail in inner:
        assert (name, detail) == ("generation_starts", len(generations))
        ids: list[str] = []
        for name, detail in inner:
            if name == "generation_ends":
                assert detail == len(generations)
                break
            assert name == "pre_objective"
            config, task_id = detail
            name, (told, same_id) = next(inner)
            assert (name, same_id, told["params"]) == ("post_objective", task_id, config)
            ids.append(task_id)
        else:
            pytest.fail("the last generation has no end")
        generations.append(ids)
    assert len({id for ids in generations for id in ids}) == evaluations
    return generations


def test_generations_in_order():
    tracker = Recording()
    assert fed(tracker, [0, 0, 1, 1]) == [0, 1]
    assert check_life_cycle(tracker, 4) == [["0", "1"], ["2", "3"]]
    assert tracker.events[1][1] == {"run_id": 3}
    assert tracker.events[-2][1] == {"reason": "finished"}


def test_what_is_early_waits_for_its_generation():
    tracker = Recording()
    fed(tracker, [0, 1, 2, 1, 0, 2])
    assert check_life_cycle(tracker, 6) == [["0", "4"], ["1", "3"], ["2", "5"]]


def test_the_first_evaluation_may_be_of_a_later_generation():
    tracker = Recording()
    fed(tracker, [1, 0, 0, 1])
    assert check_life_cycle(tracker, 4) == [["1", "2"], ["0", "3"]]


def test_a_search_that_stops_before_its_first_generation_has_begun():
    tracker = Recording()
    fed(tracker, [2])
    assert check_life_cycle(tracker, 1) == [[], [], ["0"]]


def test_a_straggler_counts_in_the_generation_that_is_open():
    tracker = Recording()
    fed(tracker, [0, 0, 1, 0, 1])
    assert check_life_cycle(tracker, 5) == [["0", "1"], ["2", "3", "4"]]


def test_a_search_that_stops_half_way_closes_what_is_open():
    tracker = Recording()
    assert fed(tracker, [0, 1, 2]) == [0, 1, 2]
    assert check_life_cycle(tracker, 3) == [["0"], ["1"], ["2"]]


def test_generation_without_an_evaluation_is_entered_too():
    tracker = Recording()
    fed(tracker, [0, 0, 2, 1, 1, 2])
    assert [len(ids) for ids in check_life_cycle(tracker, 6)] == [2, 2, 2]


def test_search_without_an_evaluation():
    tracker = Recording()
    assert fed(tracker, []) == []
    assert check_life_cycle(tracker, 0) == []


def test_end_without_a_start_does_nothing():
    tracker = Recording()
    TrackerFeed(tracker, lambda number: True).end()
    assert [name for name, _ in tracker.events] == ["setup"]


def test_calls_are_made_by_one_other_thread():
    tracker = Recording()
    tracker.threads.clear()
    fed(tracker, [0, 0])
    assert tracker.threads == {"ciq-tracker"}


def test_what_a_tracker_raises_is_logged_and_it_is_still_told(caplog):
    tracker = Raising()
    fed(tracker, [0, 0, 1, 1])
    names = [name for name, _ in tracker.events]
    assert names.count("pre_objective") == names.count("post_objective") == 4
    assert names[-2:] == ["search_ends", "cleanup"]
    assert "no search_starts today" in caplog.text
    assert "no pre_objective today" in caplog.text


def test_a_slow_tracker_is_not_waited_for_meanwhile():
    tracker, blocks = Slow(), Blocks(2)
    feed = TrackerFeed(tracker, blocks.closed)
    started = time.monotonic()
    feed.start()
    for number in range(50):
        blocks.back[number // 2] += 1
        feed.evaluated(score(number), number // 2, task_id=str(number))
    assert time.monotonic() - started < 0.4, "50 evaluations take this tracker 1.5 s"
    feed.end()
    check_life_cycle(tracker, 50)


def test_a_tracker_that_hangs_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr("ciq_ray.feed.PATIENCE_S", 0.3)
    tracker = Hanging()
    started = time.monotonic()
    fed(tracker, [0, 0, 1, 1, 2, 2])
    took = time.monotonic() - started
    tracker.let_go.set()
    assert took < 5
    assert "Hanging is left behind after 0.3 s" in caplog.text


def test_a_search_that_ends_at_once_hardly_waits_for_its_tracker(caplog):
    tracker, blocks = Slow(), Blocks(300)
    feed = TrackerFeed(tracker, blocks.closed)
    feed.start()
    for number in range(300):
        feed.evaluated(score(number), 0, task_id=str(number))
    started = time.monotonic()
    feed.end(at_once=True, reason="KeyboardInterrupt")
    assert time.monotonic() - started < 3, "telling all takes this tracker 6 s"
    assert "Slow is left behind after 1 s" in caplog.text


def squares() -> Callable[[dict[str, Any]], float]:
    """An objective that goes to worker processes by value: they need not import this module."""

    def objective(config):
        import time

        time.sleep(config["x"] % 7 / 1000)
        if config["x"] % 5 == 0:
            raise ValueError("divisible by five")
        return float(config["x"] ** 2)

    return objective


def search(tracker: BaseTracker, **fields: Any) -> Search:
    return Search(
        objective_function=squares(),
        search_space={"x": range_of(0, 500)},
        search_config=SearchConfiguration(generations=4, pool_size=10),
        tracker_config=tracker,
        disable_progress_bar=True,
        seed=2,
        **fields,
    )


def test_life_cycle_of_a_search_that_breeds_ahead_on_several_workers():
    tracker = Recording()
    result = search(tracker).start(num_workers=3)
    generations = check_life_cycle(tracker, len(result.get_results()))
    assert [len(ids) for ids in generations] == [10, 10, 10, 10]
    order = [task_id for ids in generations for task_id in ids]
    assert order != sorted(order, key=int), "with several workers evaluations come back in any order"
    for name, detail in tracker.events:
        if name == "post_objective":
            told, _ = detail
            expected = "*" if told["params"]["x"] % 5 == 0 else told["params"]["x"] ** 2
            assert told["score"] == expected


def test_life_cycle_for_a_searcher_without_generations():
    tracker = Recording()
    search(tracker, searcher="random", max_evaluations=25).start(num_workers=3)
    assert [len(ids) for ids in check_life_cycle(tracker, 25)] == [10, 10, 5]


def test_a_search_whose_tracker_always_raises_has_the_same_result(caplog):
    plain = search(Recording(), searcher_options={"generational": True}).start(num_workers=2)
    raising = search(Raising(), searcher_options={"generational": True}).start(num_workers=2)
    assert raising.get_best_result()["params"] == plain.get_best_result()["params"]
    assert "no post_objective today" in caplog.text


def test_a_failed_search_ends_its_tracker_too():
    tracker = Recording()
    failing = search(tracker)
    failing.objective_function = lambda config: None
    with pytest.raises(RuntimeError, match="all 10 candidates of the first generation failed"):
        failing.start(num_workers=2)
    check_life_cycle(tracker, sum(name == "pre_objective" for name, _ in tracker.events))
    assert "SearchFailedError" in tracker.events[-2][1]["reason"]
