"""A run as its journal tells it: for commands that look at runs, without a searcher or an objective."""

from __future__ import annotations

import fcntl
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciq_ray import journal as journals
from ciq_ray.errors import ConfigurationError, JournalError
from ciq_ray.journal import read_header, read_records
from searchers.errors import OptionError
from searchers.outcome import Outcome

__all__ = ["Entry", "RunView"]


@dataclass(slots=True)
class Entry:
    """One candidate of a run.

    Attributes:
        id: Its id.
        config: As the journal has it.
        row: Its row of the space's matrix.
        generation: The block it belongs to, if the searcher says so.
        outcomes: What came of it, in order; several if it was measured again.
        normalized: The values of the successes among them divided by the baseline's, in a normalized search.
        worker: Where it ran last.
        place: The node, GPU and actor of that, as far as known.
        at: When that was, in seconds since 1970.
    """

    id: str
    config: Any
    row: tuple[int, ...]
    generation: int | None
    outcomes: list[Outcome] = field(default_factory=list)
    normalized: list[tuple[float, ...]] = field(default_factory=list)
    worker: str = ""
    place: dict[str, str] = field(default_factory=dict)
    at: float | None = None

    @property
    def status(self) -> str:
        """The status of the last outcome, ``pending`` if there is none."""
        return self.outcomes[-1].status if self.outcomes else "pending"

    @property
    def values(self) -> tuple[float, ...]:
        """The median over all measurements; empty for a failure."""
        if not self.outcomes or not self.outcomes[-1].ok:
            return ()
        return _medians([found.values for found in self.outcomes if found.ok])

    @property
    def ranked(self) -> tuple[float, ...]:
        """What it is ranked by: its normalized values if there are any."""
        return _medians(self.normalized) if self.values and self.normalized else self.values


class RunView:
    """What a run's journal says.

    Args:
        folder: The run's folder.

    Attributes:
        header: The journal's first record.
        entries: The candidates by id.
        reason: Why it ended; empty while it has not.
        verdict: The record of the last race's verdict, if nothing was evaluated since.

    Raises:
        JournalError: The journal cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = read_header(folder)
        self.entries: dict[str, Entry] = {}
        self.reason = ""
        self.verdict: dict[str, Any] | None = None
        for record in read_records(folder):
            try:
                self._take(record)
            except (AttributeError, KeyError, TypeError, ValueError, OptionError) as error:
                raise JournalError(f"{folder} has a record that does not fit: {record}") from error
        try:
            config = self.header["search_config"]
            self.num_objectives = int(config["num_objectives"])
            self.mode = str(config["problem_type"])
            self.objective = dict(self.header["objective"])
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"the header of the journal in {folder} is damaged: {error}") from error

    def _take(self, record: dict[str, Any]) -> None:
        kind = record.get("t")
        if kind == "ask":
            for item in record["candidates"]:
                entry = Entry(item["id"], item["config"], tuple(item["row"]), item["generation"])
                self.entries.setdefault(entry.id, entry)
        elif kind == "outcome":
            entry = self.entries[record["id"]]
            entry.outcomes.append(Outcome.from_dict(record["outcome"]))
            entry.worker, entry.at = record.get("worker", ""), record.get("at")
            entry.place = dict(record.get("place", {}))
            if record.get("normalized") is not None:
                entry.normalized.append(tuple(record["normalized"]))
            self.verdict, self.reason = None, ""
        elif kind == "resumed":
            self.reason = ""
        elif kind == "end":
            self.reason = record["reason"]
        elif kind == "race_begins":
            self.verdict = None
        elif kind == "verdict":
            self.verdict = record

    # --- what is searched ---

    @property
    def command(self) -> dict[str, Any] | None:
        """The command that is the objective, see `CommandObjective.to_dict`; ``None`` for a function."""
        found = self.objective.get("command")
        return found if isinstance(found, dict) else None

    @property
    def what(self) -> str:
        """What is searched, in a line."""
        if self.command is not None:
            return shlex.join(self.command["command"])
        script = self.objective.get("script")
        where = Path(script).name if script else self.objective.get("module")
        return f"{self.objective.get('qualname')} ({where})"

    @property
    def score_names(self) -> list[str]:
        """A name for each score."""
        if self.command is not None:
            return [str(text).removeprefix("min:").removeprefix("max:") for text in self.command["scores"]]
        return ["score"] if self.num_objectives == 1 else [f"score_{i}" for i in range(self.num_objectives)]

    def shown(self, values: Sequence[float]) -> tuple[float, ...]:
        """Values as the objective gave them; a search with both directions has some of them negated."""
        if self.command is None:
            return tuple(values)
        modes = [str(text)[:3] for text in self.command["scores"]]
        return tuple(
            -value if mode != self.mode else value for value, mode in zip(values, modes, strict=True)
        )

    # --- how it stands ---

    @property
    def state(self) -> str:
        """``running``, ``ended``, ``stopped`` by the user, ``failed``, or ``interrupted``."""
        if _is_locked(self.folder / journals.FILE_NAME):
            return "running"
        if not self.reason:
            return "interrupted"
        if self.reason == "stopped":
            return "stopped"
        return "ended" if self.reason.replace("_", "").isalpha() else "failed"

    @property
    def statuses(self) -> dict[str, int]:
        """How many candidates have each status, those that are pending left out."""
        counts = Counter(entry.status for entry in self.entries.values() if entry.outcomes)
        return dict(counts.most_common())

    @property
    def measurements(self) -> int:
        """How many outcomes there are."""
        return sum(len(entry.outcomes) for entry in self.entries.values())

    @property
    def seconds(self) -> tuple[float, float]:
        """What the evaluations took in all, and building: a part of it, but for kernels beside it."""
        outcomes = [outcome for entry in self.entries.values() for outcome in entry.outcomes]
        return sum(found.run_s or 0 for found in outcomes), sum(found.compile_s or 0 for found in outcomes)

    def best(self) -> list[Entry]:
        """The best candidate, or the Pareto front by their first score; none if all failed."""
        passed = [entry for entry in self.entries.values() if entry.values]
        sign = -1.0 if self.mode == "max" else 1.0
        losses = {entry.id: tuple(sign * value for value in entry.ranked) for entry in passed}
        passed.sort(key=lambda entry: losses[entry.id])
        if self.num_objectives == 1:
            return passed[:1]
        front: list[Entry] = []
        # sorted by the first score, nobody further down beats one that was taken
        for entry in passed:
            mine = losses[entry.id]
            if not any(
                all(a <= b for a, b in zip(losses[other.id], mine, strict=True)) and losses[other.id] != mine
                for other in front
            ):
                front.append(entry)
        return front

    def entry(self, name: str) -> Entry:
        """The candidate with this id.

        Raises:
            ConfigurationError: There is none.
        """
        if name not in self.entries:
            ids = [found for found in self.entries if self.entries[found].outcomes]
            there = f"; there are {ids[0]} to {ids[-1]}" if ids else "; it has evaluated none"
            raise ConfigurationError(f"the run has no candidate {name!r}{there}")
        return self.entries[name]

    def to_dict(self) -> dict[str, Any]:
        """The overview as plain data."""
        run_s, compile_s = self.seconds
        return {
            "run": str(self.folder),
            "created": self.header.get("created"),
            "host": (self.header.get("machine") or {}).get("host"),
            "state": self.state,
            "reason": self.reason,
            "objective": self.what,
            "searcher": (self.header.get("searcher") or {}).get("name"),
            "seed": self.header.get("seed"),
            "evaluations": sum(bool(entry.outcomes) for entry in self.entries.values()),
            "measurements": self.measurements,
            "statuses": self.statuses,
            "seconds": run_s,
            "build_seconds": compile_s,
            "scores": self.score_names,
            "mode": self.mode,
            "best": [self.entry_dict(entry) for entry in self.best()],
            "verdict": None if self.verdict is None else self.verdict.get("verdict"),
            "library": None if self.verdict is None else self.verdict.get("library"),
            "chosen": None if self.verdict is None else self.verdict.get("config"),
        }

    def entry_dict(self, entry: Entry) -> dict[str, Any]:
        """One candidate as plain data."""
        return {
            "id": entry.id,
            "config": entry.config,
            "generation": entry.generation,
            "status": entry.status,
            "values": list(self.shown(entry.values)) if entry.values else [],
            "outcomes": [outcome.to_dict() for outcome in entry.outcomes],
            "worker": entry.worker,
            "place": entry.place,
            "at": entry.at,
        }


def _medians(values: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(statistics.median(column) for column in zip(*values, strict=True))


def _is_locked(path: Path) -> bool:
    """Whether a process is writing a journal."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
