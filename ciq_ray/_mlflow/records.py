"""The record of one evaluation; see `ciq_ray._mlflow.store`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ciq_ray._mlflow.names import finite, flattened, shortened

if TYPE_CHECKING:
    from ciq_ray._mlflow.store import Record
    from ciq_ray._mlflow.summary import Scores
    from ciq_ray.engine import Evaluation

__all__ = ["evaluation_record"]


def evaluation_record(
    key: str,
    fields: Mapping[str, Any],
    evaluation: Evaluation | None,
    scores: Scores,
    *,
    generation: int,
    place: Mapping[str, Any],
    log_config: bool,
    answers: bool,
) -> Record:
    """What MLflow is to know of an evaluation: its scores come first among the metrics.

    Args:
        key: Of its run.
        fields: The documented `Score`, as JSON data.
        evaluation: The whole of it, if it is known.
        scores: What the scores are called.
        generation: The one it counts in, which is also the step of its metrics.
        place: Where it ran, as keyword arguments of the event.
        log_config: Whether its parameters are recorded.
        answers: Whether a process that outlives an evaluation says which run the objective has started.
    """
    raw, norm = _numbers(fields["score"]), _numbers(fields.get("norm_score"))
    numbers: dict[str, Any] = dict(zip(scores.names, scores.shown(raw) if raw else [], strict=False))
    numbers |= {f"norm_{name}": value for name, value in zip(scores.names, norm, strict=False)}
    status, message = ("ok", "") if raw else ("failed", str(fields.get("metadata", "")))
    end_s, run_s = time.time(), 0.0
    record: Record = {"key": key, "name": key}
    if evaluation is not None:
        outcome = evaluation.outcome
        status, message = outcome.status, outcome.message
        end_s, run_s = evaluation.at or end_s, outcome.run_s or 0.0
        numbers |= {"run_s": outcome.run_s, "compile_s": outcome.compile_s}
        for name, value in outcome.metrics.items():
            numbers[name if name not in numbers else f"{name}_2"] = value
        if evaluation.context.get("mlflow_run_id"):
            record["run_id"] = evaluation.context["mlflow_run_id"]
        elif answers and not evaluation.context and not evaluation.replayed:
            record["look"] = True  # the process did not live to say what it had begun
    end = int(end_s * 1000)
    metrics, odd = finite(numbers)
    tags = {"ciq.status": status, "ciq.generation": str(generation)}
    for name, value in place.items():
        if value and name != "task_id":
            tags[f"ciq.{name.removesuffix('_id')}"] = str(value)
    tags |= {f"ciq.not_finite.{name}": text for name, text in odd.items()}
    if message.strip():
        tags["ciq.message"] = shortened(message.strip())
    record |= {
        "start": end - int(run_s * 1000),
        "end": end,
        "status": "FINISHED" if status == "ok" else "FAILED",
        "metrics": [[name, value, end, generation] for name, value in metrics.items()],
        "tags": tags,
    }
    if log_config:
        record["params"] = flattened(fields["params"])
    return record


def _numbers(score: Any) -> list[float]:
    """The scores of a success as a list; empty for a failure."""
    values = score if isinstance(score, (list, tuple)) else [score]
    return [] if any(value in ("*", None) for value in values) else [float(value) for value in values]
