"""The results of a run from its journal alone: no searcher, no objective."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.engine import Evaluation
from ciq_ray.errors import JournalError
from ciq_ray.journal import read_records
from ciq_ray.recorder import score_of
from ciq_ray.remeasure import Remeasurer
from ciq_ray.results import SearchResult
from searchers.outcome import Candidate, Outcome

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
    remeasurer = Remeasurer(1, modes)
    candidates: dict[str, Candidate] = {}
    for record in read_records(folder):
        try:
            if record["t"] == "ask":
                for item in record["candidates"]:
                    row = tuple(item["row"])
                    candidates[item["id"]] = Candidate(item["id"], None, row, item["generation"])
            elif record["t"] == "remeasure":
                remeasurer.sent(record["ids"])
            elif record["t"] == "outcome":
                evaluation = _evaluation(record, candidates[record["id"]], search)
                evaluation = remeasurer.take(evaluation)
                result.add_result(
                    score_of(evaluation, config),
                    evaluation.generation,
                    config.normalize,
                    status=evaluation.outcome.status,
                    message=evaluation.outcome.message,
                    replace=evaluation.again,
                )
        except (KeyError, TypeError) as error:
            raise JournalError(f"{folder} has a record that does not fit: {record}") from error
    return result


def _evaluation(record: dict[str, Any], known: Candidate, search: Search) -> Evaluation:
    candidate = Candidate(known.id, search.space.decode(known.row), known.row, known.generation)
    generation = candidate.generation
    if generation is None:
        generation = int(candidate.id) // search.search_config.resolved_pool_size
    normalized = record.get("normalized")
    return Evaluation(
        candidate,
        generation,
        Outcome.from_dict(record["outcome"]),
        None if normalized is None else tuple(normalized),
        record.get("worker", ""),
        record.get("metadata", ""),
        replayed=True,
    )
