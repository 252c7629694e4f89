"""A search of 100,000 evaluations: memory stays small and the end is as quick as the beginning."""

from __future__ import annotations

import json
import textwrap

import pytest

SEARCHER = textwrap.dedent(
    """
    import json, resource, sys, time
    import searchers
    from ciq_ray.results import SearchResult
    from ciq_ray.types import Score

    name, total, batch = sys.argv[1], int(sys.argv[2]), 100
    space = searchers.Space({f"p{i}": searchers.Range(0, 99) for i in range(8)})
    options = {"genetic": {"generations": None}, "random": {"count": total}}[name]
    searcher = searchers.create(name, space, metric="score", mode="min", seed=1, **options)
    result = SearchResult(None, "min", 1)
    times = []  # of this process, so that others on the machine do not count
    for start in range(0, total, batch):
        for candidate in searcher.ask(batch):
            value = float(sum(candidate.config.values()))
            searcher.tell(candidate.id, searchers.Outcome("ok", (value,)))
            score = Score(score=value, params=candidate.config, param_id=int(candidate.id), num_objectives=1)
            result.add_result(score, start // 1000)
        times.append(time.process_time())
    tenth = len(times) // 10
    print(json.dumps({
        "evaluations": len(result.get_results()),
        # without the very first, which import what they need
        "first_tenth": tenth * batch / (times[tenth + 5] - times[5]),
        "last_tenth": tenth * batch / (times[-1] - times[-1 - tenth]),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "best": result.get_best_result()["score"],
    }))
    """
)

NATIVE = textwrap.dedent(
    """
    import json, resource, statistics, sys
    from ciq_ray import Search
    from ciq_ray.search_spaces.base import range as range_of

    def main():
        def objective(config):
            return sum(config.values())

        search = Search(
            objective_function=objective,
            search_space={f"p{i}": range_of(0, 99) for i in range(8)},
            search_config={"generations": 10_000},
            max_evaluations=int(sys.argv[1]),
            seed=1,
            disable_progress_bar=True,
        )
        result = search.start(num_workers=2)
        with open(f"runs/{search.run_id}/journal.jsonl") as journal:
            records = [json.loads(line) for line in journal]
        times = [record["at"] for record in records if record["t"] == "outcome"]
        piece = len(times) // 200
        rates = [
            piece / (times[start + piece] - times[start])
            for start in range(0, len(times) - piece, piece)
        ]
        print(json.dumps({
            "evaluations": len(result.get_results()),
            # medians of many pieces: what else the machine is busy with comes and goes
            "first_tenth": statistics.median(rates[1:21]),
            "last_tenth": statistics.median(rates[-20:]),
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }))

    main()
    """
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["genetic", "random"])
def test_a_hundred_thousand_evaluations_told_in_batches(scripts, name, record_property):
    done = scripts.run(scripts.write(SEARCHER), name, 100_000, within=800)
    found = json.loads(done.stdout)
    record_property("numbers", found)
    assert found["evaluations"] == 100_000
    assert found["megabytes"] < 1000, found
    assert found["last_tenth"] >= 0.8 * found["first_tenth"], found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_evaluations_by_native_workers(scripts, record_property):
    done = scripts.run(scripts.write(NATIVE), 20_000, within=800)
    found = json.loads(done.stdout)
    record_property("numbers", found)
    assert found["evaluations"] == 20_000
    assert found["megabytes"] < 1000, found
    assert found["last_tenth"] >= 0.8 * found["first_tenth"], found
