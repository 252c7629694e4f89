"""What the search's own run says: how each generation did, and what was found."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import logging
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ciq_ray._mlflow.names import legal_names, shortened
from ciq_ray._mlflow.uris import without_credentials
from ciq_ray.errors import CiqError

if TYPE_CHECKING:
    from ciq_ray.results import SearchResult

__all__ = ["Progress", "Scores", "best_keys", "files_at_end", "files_at_start", "links", "params_of"]

logger = logging.getLogger(__name__)

_MARGIN: Final = 0.1
_BEST: Final = 20
_FRONT: Final = 1000
"""Rows of the front's table; more of them nobody reads."""


class Scores:
    """The scores of a search as people know them.

    Args:
        header: The journal's header.
        names: Names from the user; none for the search's own.

    Attributes:
        names: A legal name for each score.
        largest: For each, whether large values are good.
    """

    def __init__(self, header: Mapping[str, Any], names: Sequence[str] = ()) -> None:
        config = header["search_config"]
        count = int(config["num_objectives"])
        modes = [str(config["problem_type"])] * count
        own = ["score"] if count == 1 else [f"score_{i}" for i in range(count)]
        self._signs = [1.0] * count
        command = (header.get("objective") or {}).get("command")
        if isinstance(command, dict):
            # a search with both directions has some of the scores negated
            wanted = [str(text)[:3] for text in command["scores"]]
            own = [str(text).removeprefix("min:").removeprefix("max:") for text in command["scores"]]
            self._signs = [1.0 if mode == modes[0] else -1.0 for mode in wanted]
            modes = wanted
        self.names = list(legal_names(names or own).values())
        self.largest = [mode == "max" for mode in modes]

    def shown(self, values: Sequence[float]) -> list[float]:
        """Values of an outcome as the objective gave them."""
        return [sign * value for sign, value in zip(self._signs, values, strict=True)]


class Progress:
    """Keeps what the metrics of a generation are made of.

    The hypervolume is that of all successes so far, against a reference point that is a tenth beyond the
    worst of the first generation that had any, in each score; it never shrinks, unless a candidate that
    was measured again turned out worse.
    """

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._values: dict[str, list[float]] = {}
        self._of: dict[int, set[str]] = {}
        self._counts: Counter[str] = Counter()
        self._reference: np.ndarray[Any, Any] | None = None

    def add(self, candidate: str, generation: int, values: Sequence[float] | None) -> None:
        """Take in an evaluation; a candidate that was measured before gets new values."""
        self._counts["ok" if values else "failed"] += 1
        self._of.setdefault(generation, set()).add(candidate)
        if values:
            self._values[candidate] = list(values)
        else:
            self._values.pop(candidate, None)

    def metrics(self, generation: int) -> dict[str, float]:
        """The metrics of a generation that has ended."""
        found = {f"evaluations_{kind}": float(self._counts[kind]) for kind in ("ok", "failed")}
        members = self._of.pop(generation, set())
        present = np.array([self._values[name] for name in members if name in self._values])
        if self._values:
            everything = np.array(list(self._values.values()))
            for i, (name, large) in enumerate(zip(self._scores.names, self._scores.largest, strict=True)):
                found[f"best_{name}"] = float(everything[:, i].max() if large else everything[:, i].min())
                if len(present):
                    found[f"mean_{name}"] = float(present[:, i].mean())
            if everything.shape[1] > 1:
                found["hypervolume"] = self._hypervolume(everything)
        return found

    def _hypervolume(self, values: np.ndarray[Any, Any]) -> float:
        import moocore

        losses = values * np.where(self._scores.largest, -1.0, 1.0)
        if self._reference is None:
            worst, best = losses.max(axis=0), losses.min(axis=0)
            extent = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1.0))
            self._reference = worst + _MARGIN * extent
        return float(moocore.hypervolume(losses, ref=self._reference))


def params_of(header: Mapping[str, Any]) -> dict[str, str]:
    """The search's settings as parameters of its run."""
    import mlflow

    searcher = header.get("searcher") or {}
    found: dict[str, Any] = dict(header.get("search_config") or {})
    found |= {"searcher": searcher.get("name") or searcher.get("class")}
    found |= {f"searcher.{name}": value for name, value in (header.get("searcher_options") or {}).items()}
    names = "seed worker_type num_workers task_timeout max_evaluations time_budget_s target final_race run_id"
    found |= {name: header.get(name) for name in names.split()}
    objective = header.get("objective") or {}
    found["objective"] = objective.get("qualname") or (objective.get("command") or {}).get("command")
    found |= {f"version.{name}": value for name, value in (header.get("versions") or {}).items()}
    found["version.mlflow"] = mlflow.__version__
    legal = legal_names(found)
    return {
        legal[name]: value if isinstance(value, str) else json.dumps(value, default=repr)
        for name, value in found.items()
        if value is not None
    }


def files_at_start(header: Mapping[str, Any]) -> dict[str, str]:
    """The space, the search's settings and the environment, as JSON files."""
    environment = {
        "python": sys.version,
        "platform": platform.platform(),
        "machine": header.get("machine"),
        "argv": [without_credentials(text) for text in sys.argv],
        "packages": {
            str(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()
        },
    }
    return {
        "search/space.json": _json(header.get("space")),
        "search/search.json": _json({key: value for key, value in header.items() if key != "space"}),
        "search/environment.json": _json(environment),
    }


def files_at_end(result: SearchResult, scores: Scores) -> dict[str, str]:
    """The best configuration, the front and the figures; what cannot be had is left out."""
    files: dict[str, str] = {}
    try:
        best = result.get_best_result()
    except CiqError:  # nothing succeeded
        return files
    front = best if isinstance(best, list) else [best]
    chosen = [_row(row, scores) for row in front[:_FRONT]]
    files["best_config.json"] = _json(chosen[0] if result.num_scores == 1 else chosen)
    if result.num_scores > 1:
        columns = [*scores.names, "candidate", "generation", "params"]
        rows = [
            [*(row["scores"][name] for name in scores.names), row["candidate"], row["generation"], _line(row)]
            for row in chosen
        ]
        table = io.StringIO()  # MLflow's pages show such a file as a table
        csv.writer(table, lineterminator="\n").writerows([columns, *rows])
        files["front.csv"] = table.getvalue()
    if result.race is not None:
        files["verdict.json"] = _json(
            {
                "words": result.race.verdict.words,
                "verdict": result.race.verdict.to_dict(),
                "control": result.race.control.to_dict(),
                "library": None if result.race.library is None else result.race.library.to_dict(),
                "chosen": result.race.chosen.id,
                "config": result.race.chosen.config,
            }
        )
    for name in ("convergence", "pareto") if result.num_scores > 1 else ("convergence",):
        page = _figure(result, f"plot_{name}")
        if page:
            files[f"figures/{name}.html"] = page
    return files


def _row(row: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    values = row["score"] if isinstance(row["score"], (list, tuple)) else [row["score"]]
    return {
        "candidate": str(row["param_id"]),
        "generation": int(row["generation"]),
        "scores": dict(zip(scores.names, scores.shown(values), strict=True)),
        "params": row["params"],
    }


def _figure(result: SearchResult, method: str) -> str:
    """A figure as a page that needs no network; MLflow shows it among the artefacts."""
    try:
        page = getattr(result, method)().to_html(include_plotlyjs=True, full_html=True)
    except CiqError as error:
        logger.info("no figure: %s", error)
        return ""
    return str(page)


def best_keys(result: SearchResult) -> list[str]:
    """Ids of the best candidates, best first."""
    try:
        return [str(row["param_id"]) for row in result.top(_BEST)]
    except CiqError:
        return []


def links(uri: str, experiment_id: str, parent_id: str, best: Sequence[str]) -> str:
    """Where to look, in Markdown; the paths hold on whatever address the server has.

    MLflow opens an experiment in a view that hides parameters; the links name the classic one.
    """
    base = uri.rstrip("/") if uri.startswith(("http://", "https://")) else ""
    view = "?workflowType=machine_learning"
    experiment = f"{base}/#/experiments/{experiment_id}"
    found = [
        f"[All evaluations in a table]({experiment}/runs{view})",
        f"[This search]({experiment}/runs/{parent_id}{view})",
    ]
    if len(best) > 1:
        ids = ",".join(f"%22{run}%22" for run in best)
        query = f"runs=[{ids}]&experiments=[%22{experiment_id}%22]"
        query = query.replace("[", "%5B").replace("]", "%5D").replace(",", "%2C")
        found.append(f"[Compare the best {len(best)}]({base}/#/compare-runs?{query})")
    return " · ".join(found)


def _line(row: Mapping[str, Any]) -> str:
    params = row["params"]
    return shortened(params if isinstance(params, str) else json.dumps(params, default=repr))


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, default=repr, ensure_ascii=False)
