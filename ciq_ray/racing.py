"""The final race of a search: who enters, how a block is run, what the journal keeps of it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciq_ray.errors import CiqError, ConfigurationError
from ciq_ray.journal import Journal, read_records
from ciq_ray.kernels.protocol import LIBRARY, Kernel
from ciq_ray.race import BASELINE, Entrant, Plan, Race, RaceResult
from ciq_ray.results import SearchResult
from ciq_ray.worker.protocol import StreamingWorker, Task
from searchers.outcome import RETRIED, Outcome

if TYPE_CHECKING:
    from ciq_ray.ciq import Search

__all__ = ["BlockRunner", "RaceStopped", "baseline_of", "race_results", "race_run"]

_POLL_S = 0.2
_MOST_TRIES = 4
_CANDIDATES = 8
"""So many times the number of finalists are looked at, since some may have the same binary."""


class RaceStopped(Exception):
    """The race was asked to stop; what was measured is in the journal."""


class BlockRunner:
    """Runs a block in one fresh process, one call at a time.

    Args:
        open_worker: Makes and opens a worker for one evaluation at a time.
        stop_requested: Returns true when the race is to stop.
    """

    def __init__(
        self, open_worker: Callable[[], StreamingWorker], stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        self._open_worker = open_worker
        self._stop_requested = stop_requested

    def __call__(self, order: Sequence[Entrant]) -> Iterator[tuple[Entrant, Outcome]]:
        """Measure entrants in this order; see `ciq_ray.race.Measure`."""
        worker = self._open_worker()
        try:
            for number, entrant in enumerate(order):
                yield entrant, self._measure(worker, f"{number}", entrant)
        finally:
            worker.close()

    def _measure(self, worker: StreamingWorker, name: str, entrant: Entrant) -> Outcome:
        outcome = Outcome("lost")
        for attempt in range(_MOST_TRIES):
            if self._stop_requested():
                raise RaceStopped
            worker.submit(Task(f"{name}.{attempt}", entrant.config))
            reports = worker.poll(_POLL_S)
            while not reports:
                if self._stop_requested():
                    worker.cancel()
                    raise RaceStopped
                reports = worker.poll(_POLL_S)
            outcome = reports[0].outcome
            if outcome.status not in RETRIED:
                return outcome
        return Outcome("run_error", message=f"{outcome.status} {_MOST_TRIES} times: {outcome.message}")


def baseline_of(search: Search) -> Any:
    """What finalists have to beat: the first of `initial_configs`, else the default, else nothing set."""
    space = search.space
    if search.initial_configs:
        return space.decode(space.encode(search.initial_configs[0], nearest=True))
    return space.default_config()


def race_results(
    search: Search,
    result: SearchResult,
    journal: Journal,
    plan: Plan,
    runner: BlockRunner,
    *,
    anew: bool = False,
    say: Callable[[str], None] = lambda line: None,
    call_s: float | None = None,
) -> RaceResult:
    """Race the best of `result` against the baseline; an interrupted race goes on.

    Args:
        search: What was searched.
        result: What was found; it gets the verdict.
        journal: Where every window goes.
        plan: How much is measured.
        runner: Runs a block.
        anew: Begin a new race even if one of the same finalists was interrupted or decided.
        say: Shows a line to people.
        call_s: Seconds that a call takes, for the announcement.

    Raises:
        ConfigurationError: Several objectives, or nobody to race.
        BaselineError: The baseline failed.
        RaceStopped: It was asked to stop.
    """
    if search.search_config.num_objectives != 1:
        raise ConfigurationError("`final_race` needs one objective: with several there is no single winner")
    baseline = Entrant(BASELINE, baseline_of(search))
    finalists = _finalists(search, result, journal.path.parent, plan.finalists)
    begin = {
        "finalists": [entrant.id for entrant in finalists],
        "baseline": baseline.config,
        "plan": asdict(plan),
    }
    earlier = None if anew else _interrupted(journal.path.parent, begin)
    if earlier is None:
        record = {"t": "race_begins", **begin, "host": platform.node(), "at": time.time()}
        journal.write([record])
    calls = plan.calls(len(finalists))
    cost = "" if call_s is None else f" of about {call_s:.2g} s, {_duration(calls * call_s)}"
    if isinstance(search.objective_function, Kernel):  # most of the time is not theirs
        blocks = plan.verdict_blocks + (plan.pick_blocks if len(finalists) > 1 else 0)
        shapes = len(search.objective_function.shapes)
        each = f" for each of {shapes} shapes" if shapes > 1 else ""
        cost = f" of some tens of milliseconds{each}, in at most {blocks} fresh processes of a second or more"
    say(f"final race: {len(finalists)} finalists and the baseline, at most {calls} calls{cost}")
    try:
        raced = Race(
            finalists,
            baseline,
            runner,
            mode=search.search_config.problem_type.value,
            plan=plan,
            record=lambda record: journal.write([record]),
            progress=say,
            earlier=earlier or (),
        ).run()
        raced = _against_library(search, raced, journal, plan, runner, say, earlier or ())
    finally:
        journal.sync()
    journal.write(
        [
            {
                "t": "verdict",
                "verdict": raced.verdict.to_dict(),
                "control": raced.control.to_dict(),
                "library": None if raced.library is None else raced.library.to_dict(),
                "winner": raced.winner.id,
                "chosen": raced.chosen.id,
                "config": raced.chosen.config,
                "ranking": [list(pair) for pair in raced.ranking],
                "dropped": raced.dropped,
                "calls": raced.calls,
                "host": platform.node(),
                "at": time.time(),
            }
        ]
    )
    journal.sync()
    result.verdict, result.race = raced.verdict, raced
    say(raced.verdict.words)
    if raced.library is not None:
        say(raced.library.words)
    return raced


def _finalists(search: Search, result: SearchResult, folder: Path, count: int) -> list[Entrant]:
    """The best that differ from the baseline and, as far as is known, from each other: not in name only."""
    baseline = baseline_of(search)
    rows = result.top(count + 1)
    binaries: dict[str, str] = {}
    taken: set[str] = set()
    if isinstance(search.objective_function, Kernel):
        rows = result.top(_CANDIDATES * count)
        for record in read_records(folder):
            if record.get("t") == "outcome":
                binaries[record["id"]] = record["outcome"].get("metrics", {}).get("digest", "")
        taken = {binaries.get(str(row["param_id"]), "") for row in rows if row["params"] == baseline}
    finalists: list[Entrant] = []
    for row in rows:
        entrant = Entrant(str(row["param_id"]), row["params"])
        binary = binaries.get(entrant.id, "")
        if entrant.config != baseline and (not binary or binary not in taken):
            taken.add(binary)
            finalists.append(entrant)
    return finalists[:count]


def _against_library(
    search: Search,
    raced: RaceResult,
    journal: Journal,
    plan: Plan,
    runner: BlockRunner,
    say: Callable[[str], None],
    earlier: Sequence[dict[str, Any]],
) -> RaceResult:
    """The same with a verdict on what was chosen against the kernel's library, if there is one."""
    kernel = search.objective_function
    if not isinstance(kernel, Kernel) or not kernel.has_library:
        return raced
    try:
        won = raced.chosen == raced.winner
        judged = Race(
            # the id of the baseline is that of the library here
            [raced.chosen if won else replace(raced.chosen, id="the baseline")],
            Entrant(LIBRARY, LIBRARY),
            runner,
            mode=search.search_config.problem_type.value,
            plan=plan,
            record=lambda record: journal.write([record]),
            progress=say,
            earlier=earlier,
            rival="library",
        ).run()
    except CiqError as error:  # what was found is none the worse for it
        say(f"there is no comparison with the library: {error}")
        return raced
    return replace(raced, library=judged.verdict, calls=raced.calls + judged.calls)


def race_run(
    path: str | Path,
    objective_function: Callable[..., Any] | None = None,
    *,
    plan: Plan | None = None,
    force: bool = False,
    task_timeout: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    **fields: Any,
) -> SearchResult:
    """Race the best of an earlier run once more, for example on another machine.

    Args:
        path: The run's folder.
        objective_function: See `Search.resume`.
        plan: How much is measured.
        force: Import a script that has changed.
        task_timeout: Seconds a call may take; by default as in the run.
        say: Shows a line to people.
        **fields: See `Search.resume`.

    Returns:
        The run's results, with the verdict.

    Raises:
        JournalError: See `Search.resume`; or the run has no results yet.
    """
    from ciq_ray.ciq import Search
    from ciq_ray.session import Session

    search = Search.resume(path, objective_function, force=force, **fields)
    return Session(search, 1, task_timeout, {}, search._resume_folder).race_only(plan, say)


def _interrupted(folder: Path, begin: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The windows of the last race, if it was the same and has no verdict."""
    windows: list[dict[str, Any]] | None = None
    begin = json.loads(json.dumps(begin, default=repr))  # as the journal has it
    for record in read_records(folder):
        if record.get("t") == "race_begins":
            same = all(record.get(name) == value for name, value in begin.items())
            windows = [] if same else None
        elif record.get("t") == "verdict":
            windows = None
        elif windows is not None and record.get("t") in ("race", "resumed"):
            windows.append(record)
    return windows


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
