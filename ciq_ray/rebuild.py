"""The results of a run from its journal alone: no searcher, no objective."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciq_ray.engine import generation_of, recorded_evaluation
from ciq_ray.errors import JournalError
from ciq_ray.journal import read_records
from ciq_ray.kernels.figures import columns_of
from ciq_ray.recorder import add_evaluation
from ciq_ray.remeasure import Remeasurer
from ciq_ray.results import SearchResult
from searchers.outcome import Candidate

if TYPE_CHECKING:
    from ciq_ray.ciq import Search

__all__ = ["load_result"]


def load_result(folder: Path, search: Search) -> SearchResult:
    """What a run has found so far.

    Args:
        folder: The run's folder.
        search: As it was begun, see `Search.resume`.

    Raises:
        JournalError: The journal cannot be read.
    """
    config = search.search_config
    modes = (config.problem_type.value,) * config.num_objectives
    result = SearchResult(None, config.problem_type, config.num_objectives)
    result.folder = folder
    result.metric_columns = columns_of(search.objective_function)
    remeasurer = Remeasurer(1, modes)
    candidates: dict[str, Candidate] = {}
    for record in read_records(folder):
        try:
            if record["t"] == "ask":
                for item in record["candidates"]:
                    row = tuple(item["row"])
                    made = search.space.decode(row)
                    candidates[item["id"]] = Candidate(item["id"], made, row, item["generation"])
            elif record["t"] == "remeasure":
                remeasurer.sent(record["ids"])
            elif record["t"] == "outcome":
                candidate = candidates[record["id"]]
                generation = generation_of(candidate, config.resolved_pool_size)
                evaluation = remeasurer.take(recorded_evaluation(record, candidate, generation))
                add_evaluation(result, evaluation, config)
        except (KeyError, TypeError) as error:
            raise JournalError(f"{folder} has a record that does not fit: {record}") from error
    return result
