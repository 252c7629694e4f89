"""Several configurations in one trial: how many, what is told of them, and when it is over. No Ray runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from ray import tune

from ciq_ray.errors import ConfigurationError
from ciq_ray.tune import BatchSearcher
from searchers import Range, Space, create


def made(evaluations: int | None = 1000, levels: int = 5000, **options: Any) -> BatchSearcher:
    inner = create("random", Space({"x": Range(0, levels - 1)}), metric="ms", mode="min", seed=0, count=10**6)
    return BatchSearcher(inner, evaluations=evaluations, **options)


def size(suggested: Any) -> int:
    assert isinstance(suggested, dict)
    return len(suggested.get("ciq_batch", [suggested]))


def row(config: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {"ms": float(config["x"]), "ciq_status": "ok", "ciq_message": "", "ciq_run_s": seconds}


def answer(search: BatchSearcher, trial_id: str, suggested: Any, seconds: float) -> None:
    """What the trainable reports of a trial."""
    rows = [row(config, seconds) for config in suggested.get("ciq_batch", [suggested])]
    best = min(rows, key=lambda one: one["ms"])
    search.on_trial_complete(trial_id, best | ({"ciq_rows": rows} if "ciq_batch" in suggested else {}))


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1e-7, 64), (0.001, 64), (0.02, 20), (0.15, 2), (0.3, 1), (10.0, 1)]
)
def test_a_trial_is_as_long_as_is_worth_it(seconds: float, expected: int) -> None:
    search = made()
    first = search.suggest("a")
    assert size(first) == 1  # nothing is known of the time
    answer(search, "a", first, seconds)
    assert size(search.suggest("b")) == expected


def test_it_follows_the_time_that_evaluations_take() -> None:
    search = made()
    sizes = []
    for number in range(30):
        suggested = search.suggest(f"t{number}")
        sizes.append(size(suggested))
        answer(search, f"t{number}", suggested, 0.001 if number < 5 else 1.0)
    assert max(sizes) == 64
    assert sizes[-10:] == [1] * 10


def test_the_budget_counts_candidates() -> None:
    search = made(evaluations=150, batch=40)
    given = []
    while isinstance(suggested := search.suggest(str(len(given))), dict):
        given.append(suggested)
    assert [size(one) for one in given] == [40, 40, 40, 30]
    assert suggested is None  # one that runs may be lost, and then be tried again
    for number, one in enumerate(given):
        answer(search, str(number), one, 0.001)
    assert search.suggest("last") == search.FINISHED
    assert search.searcher.n_begun == 150
    best = search.searcher.best
    assert best is not None
    assert best[1].values == (min(part["x"] for one in given for part in one["ciq_batch"]),)


def test_the_last_ones_are_shared_among_trials_that_run_at_a_time() -> None:
    search = made(evaluations=100, batch=64, at_once=4)
    sizes = []
    while isinstance(suggested := search.suggest(str(len(sizes))), dict):
        sizes.append(size(suggested))
    assert sizes[:3] == [25, 19, 14]
    assert sum(sizes) == 100
    assert min(sizes[:-1]) == 8


def test_failures_of_a_batch_are_told_one_by_one() -> None:
    search = made(batch=3)
    suggested = search.suggest("a")
    rows = [row(config, 0.001) for config in suggested["ciq_batch"]]  # type: ignore[index]
    rows[1] = {"ms": math.nan, "ciq_status": "compile_error", "ciq_message": "no", "ciq_run_s": 0.1}
    search.on_trial_complete("a", {**rows[0], "ciq_rows": rows})
    outcomes = [trial.outcome for trial in search.searcher._trials[:3]]
    assert [outcome and outcome.status for outcome in outcomes] == ["ok", "compile_error", "ok"]
    assert [outcome and outcome.run_s for outcome in outcomes] == [0.001, 0.1, 0.001]


@pytest.mark.parametrize("result", [None, {"ms": 1.0}, {"ms": 1.0, "ciq_rows": []}])
def test_a_batch_that_is_lost_is_tried_again_one_by_one(result: dict[str, Any] | None) -> None:
    search = made(batch=3, evaluations=6)
    lost = search.suggest("a")
    search.on_trial_complete("a", result, error=result is None)
    again = [search.suggest(name) for name in "bcd"]
    assert again == lost["ciq_batch"]  # type: ignore[index]
    search.on_trial_complete("b", None, error=True)  # the one to blame
    search.on_trial_complete("c", row(again[1], 0.1))  # type: ignore[arg-type]
    statuses = [trial.outcome and trial.outcome.status for trial in search.searcher._trials[:3]]
    assert statuses == ["run_error", "ok", None]
    assert size(search.suggest("e")) == 3  # the budget is whole


def test_what_is_known_beforehand_is_no_part_of_the_budget_but_the_journal_is(tmp_path: Path) -> None:
    def fresh() -> BatchSearcher:
        inner = create(
            "random",
            Space({"x": Range(0, 99)}),
            metric="ms",
            mode="min",
            seed=0,
            points_to_evaluate=[{"x": 5}],
            evaluated_rewards=[1.0],
        )
        inner.keep_journal(tmp_path / "journal")
        return BatchSearcher(inner, evaluations=20, batch=4)

    search = fresh()
    given = [search.suggest(str(number)) for number in range(3)]
    for number in (0, 2):
        answer(search, str(number), given[number], 0.001)
    # killed; begun again
    search = fresh()
    sizes, tried = [], []
    while isinstance(suggested := search.suggest(f"again{len(sizes)}"), dict):
        sizes.append(size(suggested))
        tried += [part["x"] for part in suggested["ciq_batch"]]
        answer(search, f"again{len(sizes) - 1}", suggested, 0.001)
    assert sizes == [4, 4, 4]
    assert suggested == search.FINISHED
    known = {part["x"] for number in (0, 2) for part in given[number]["ciq_batch"]}  # type: ignore[index]
    assert not known & {*tried, 5}


def test_it_can_be_saved_as_ray_tune_does(tmp_path: Path) -> None:
    first = cloudpickle.loads(cloudpickle.dumps(made(evaluations=100)))
    one = first.suggest("a")
    answer(first, "a", one, 0.01)
    running = first.suggest("b")
    first.save(str(tmp_path / "state"))
    state = json.loads(json.dumps(first.get_state()))
    copy = made(evaluations=100)
    copy.restore(str(tmp_path / "state"))
    copy.set_state(state)
    for search in (first, copy):
        answer(search, "b", running, 0.01)
        assert search.searcher.n_pending == 0
    assert copy.suggest("c") == first.suggest("c")
    assert copy.get_state() == first.get_state()


def test_ray_tunes_space_reaches_the_searcher() -> None:
    search = BatchSearcher(create("random", seed=0), batch=4)
    assert search.set_search_properties("ms", "max", {"x": tune.randint(0, 6), "fixed": 7})
    assert (search.metric, search.mode) == ("ms", "max")
    suggested = search.suggest("a")
    assert all(part["fixed"] == 7 for part in suggested["ciq_batch"])  # type: ignore[index]
    assert size(search.suggest("b")) == 2  # all there is


@pytest.mark.parametrize("options", [{"evaluations": 0}, {"batch": -1}, {"at_once": 0}, {"batch": True}])
def test_numbers_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        made(**options)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import ciq_ray.tune, sys; dir(ciq_ray.tune); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ray", "mlflow", "pandas", "pydantic", "searchers.base"} & set(done.stdout.split())


def test_only_our_searchers() -> None:
    with pytest.raises(ConfigurationError, match="searcher"):
        BatchSearcher(tune.search.BasicVariantGenerator())
