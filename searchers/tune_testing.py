"""What every searcher promises Ray Tune; `searchers.testing.SearcherContract` holds the rest."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest

from searchers.base import SpaceSearcher
from searchers.errors import StateError
from searchers.params import PowerOfTwo, Range
from searchers.space import Space

__all__ = ["TunePromises"]


class TunePromises:
    """The part of the contract that Ray Tune's calls are about; no process of Ray's is started."""

    @abstractmethod
    def make(self, space: Space | None, **options: Any) -> SpaceSearcher:
        """See `searchers.testing.SearcherContract`."""

    def test_ray_tune_contract(self) -> None:
        """`suggest` and `on_trial_complete` as Ray Tune calls them, errors and unknown ids included."""
        space = Space({"x": Range(0, 9), "y": Range(0.0, 2.0, 0.25), "z": PowerOfTwo(1, 64)})
        searcher = self.make(space, metric="time", mode="min", seed=1)
        config = searcher.suggest("t1")
        assert isinstance(config, dict)
        assert set(config) == {"x", "y", "z"}
        searcher.on_trial_complete(trial_id="t1", result={"time": 2.0, "done": True})
        searcher.suggest("t2")
        searcher.on_trial_complete("t2", None, True)
        searcher.suggest("t3")
        searcher.on_trial_complete("t3", {"ciq_status": "compile_error", "ciq_message": "no"})
        searcher.suggest("t4")
        searcher.on_trial_complete("t4", {"other": 1})
        searcher.on_trial_complete("never suggested", {"time": 0.0})
        searcher.on_trial_complete("t1", {"time": 0.0})
        lost = searcher.suggest("t5")
        searcher.on_trial_complete("t5", {"ciq_status": "lost"})
        assert searcher.suggest("t6") == lost
        searcher.on_trial_complete("t6", {"time": float("nan")})
        assert searcher.n_pending == 0
        best = searcher.best
        assert best is not None
        assert (best[0].config, best[1].values) == (config, (2.0,))

    def test_ray_tune_gives_the_space(self) -> None:
        """Without a space it takes Ray Tune's ``param_space``; asked before that it says so."""
        searcher = self.make(None, seed=1)
        with pytest.raises(StateError, match="space"):
            searcher.ask(1)
        from ray import tune

        space = {"x": tune.randint(0, 5), "y": tune.choice(["a", "b"]), "fixed": 7}
        assert searcher.set_search_properties("time", "max", space)
        config = searcher.suggest("t1")
        assert isinstance(config, dict)
        assert config["fixed"] == 7
        assert not searcher.set_search_properties("time", "max", space)

    def test_ray_tune_is_told_when_it_is_over(self) -> None:
        """FINISHED, never ``None``, when nothing runs and nothing will come."""
        searcher = self.make(Space({"x": Range(0, 2)}), metric="time", mode="min", seed=1)
        names: list[str] = []
        for i in range(50):
            config = searcher.suggest(f"t{i}")
            if config is None:
                searcher.on_trial_complete(names[-1], {"time": 1.0})
                continue
            if config == searcher.FINISHED:
                break
            names.append(f"t{i}")
            searcher.on_trial_complete(f"t{i}", {"time": float(i)})
        else:
            pytest.fail("never finished")

    def test_the_last_one_may_be_lost(self) -> None:
        """It is not over while a trial runs, for that one may have to be tried again."""
        searcher = self.make(Space({"x": Range(0, 2)}), metric="time", mode="min", seed=1)
        running = searcher.suggest("t0")
        for i in range(1, 50):
            if not isinstance(config := searcher.suggest(f"t{i}"), dict):
                break
            searcher.on_trial_complete(f"t{i}", {"time": float(i)})
        assert config is None
        searcher.on_trial_complete("t0", {"ciq_status": "lost"})
        assert searcher.suggest("again") == running
        searcher.on_trial_complete("again", {"time": 0.0})
        assert searcher.best is not None
        assert searcher.best[0].config == running

    def test_points_evaluated_elsewhere(self) -> None:
        """They are learnt from and not proposed again."""
        space = Space({"x": Range(0, 9)})
        searcher = self.make(space, metric="m", mode="min", seed=1)
        searcher.add_evaluated_point({"x": 4}, -5.0)
        searcher.add_evaluated_point({"x": 5}, 0.0, error=True)
        assert searcher.best is not None
        assert searcher.best[0].config == {"x": 4}
        proposed = [c.config["x"] for c in searcher.ask(10)]
        assert 4 not in proposed
        assert 5 not in proposed

    def test_what_is_known_before_the_space(self, tmp_path: Path) -> None:
        """Evaluated points and a saved state are kept until Ray Tune gives the space."""
        from ray import tune

        space = {"x": tune.randint(0, 10)}
        first, copy = self.make(None, seed=1), self.make(None, seed=99)
        for searcher in (first, copy):
            searcher.add_evaluated_point({"x": 4}, 5.0)
        assert first.set_search_properties("m", "max", space)
        first.suggest("t1")
        first.on_trial_complete("t1", {"m": 1.0})
        first.suggest("t2")
        first.save(str(tmp_path / "state"))
        copy.restore(str(tmp_path / "state"))
        assert copy.set_search_properties("m", "max", space)  # or not at all: the space is in the state
        assert not copy.set_search_properties("m", "max", space)
        assert json.dumps(copy.get_state()) == json.dumps(first.get_state())
        for searcher in (first, copy):
            assert searcher.best is not None
            assert (searcher.best[0].config, searcher.best[1].values) == ({"x": 4}, (5.0,))
            searcher.on_trial_complete("t2", {"m": 2.0})
        assert copy.suggest("t3") == first.suggest("t3")
