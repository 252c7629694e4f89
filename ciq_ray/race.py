"""Who really won: finalists and baseline measured again, side by side, and a verdict.

A search reports the luckiest of many single measurements. A race measures a few finalists and the
baseline again, and in two steps, because picking the best and proving that it is better cannot be done
with the same numbers:

1. **Pick.** Finalists and the baseline, the latter twice, in random order, in blocks, each a fresh
   process. From the fifth block on, whoever is clearly worse than the leader is dropped (a paired
   t-test over blocks, as in irace's F-race: Birattari et al., "A racing algorithm for configuring
   metaheuristics", 2002). It ends when one is left, or when those left differ by less than 1%. The
   best that is left is the winner.
2. **Verdict.** The winner against the baseline, again twice, in new processes; `ciq_ray.statistics`
   says whether it won. If it did not, the baseline stays.

Every window is a call of the objective, is written to the run's journal, and is used again when a race
that was interrupted is resumed.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ciq_ray.errors import BaselineError, ConfigurationError
from ciq_ray.statistics import MARGIN, MIN_BLOCKS, Verdict, centre, compare_blocks
from searchers.outcome import Outcome

__all__ = ["Entrant", "Measure", "Plan", "Race", "RaceResult"]

logger = logging.getLogger(__name__)

BASELINE, AGAIN = "baseline", "baseline again"
_DROP_AFTER = 5
_DROP_T = 2.6
"""Student's t at about 2.5% one-sided and 5 to 10 blocks: who is dropped had little chance to win."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A configuration in the race.

    Attributes:
        id: The candidate's id, or `BASELINE`.
        config: What the objective is called with.
    """

    id: str
    config: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        finalists: How many of the best enter.
        pick_blocks: Most blocks, each a fresh process, of the pick.
        verdict_blocks: Blocks of the verdict, at least 6.
        windows: Calls of the objective for each entrant in a block.
        seed: Of the order in which entrants take turns.

    Raises:
        ConfigurationError: A number is too small.
    """

    finalists: int = 8
    pick_blocks: int = 30
    verdict_blocks: int = 20
    windows: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"finalists": 1, "pick_blocks": 1, "verdict_blocks": MIN_BLOCKS, "windows": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
                raise ConfigurationError(
                    f"`{name}` of a race is {value!r}; it must be a whole number of at least {minimum}"
                )

    def calls(self, n_finalists: int) -> int:
        """The most calls of the objective that it takes."""
        pick = self.pick_blocks * (n_finalists + 2) if n_finalists > 1 else 0
        return (pick + self.verdict_blocks * 3) * self.windows


@dataclass(frozen=True, slots=True)
class RaceResult:
    """What came of a race.

    Attributes:
        verdict: Of the winner against the baseline.
        control: Of the baseline against itself, from the same processes: a difference here casts doubt
            on everything else.
        winner: Who was picked, whether or not it beats the baseline.
        chosen: What to use: the winner if it won, else the baseline.
        ranking: Ids still in the race when it was decided, best first, with their ratio to the
            baseline in the pick.
        dropped: Ids that were dropped, with the reason.
        calls: Calls of the objective, those of an earlier process included.
        seconds: What they took in this process.
        library: Of what was chosen against a library that does the same, where the objective knows one.
    """

    verdict: Verdict
    control: Verdict
    winner: Entrant
    chosen: Entrant
    ranking: tuple[tuple[str, float], ...]
    dropped: dict[str, str]
    calls: int
    seconds: float
    library: Verdict | None = None


class Measure(Protocol):
    """Runs one block: entrants in the given order, in one fresh process."""

    def __call__(self, order: Sequence[Entrant]) -> Iterable[tuple[Entrant, Outcome]]:
        """Yield each outcome as it comes."""


@dataclass
class Race:
    """One race.

    Args:
        finalists: Best first; those equal to the baseline are left out.
        baseline: What they have to beat.
        measure: Runs a block.
        mode: ``"min"`` if lower scores are better, else ``"max"``.
        plan: How much is measured.
        record: Called with a dict for each window, for the journal.
        progress: Called after each block with a line for people.
        earlier: Records of an interrupted race with the same finalists, baseline and plan.
        rival: What the baseline is, in words.
    """

    finalists: Sequence[Entrant]
    baseline: Entrant
    measure: Measure
    mode: str = "min"
    plan: Plan = field(default_factory=Plan)
    record: Callable[[dict[str, Any]], None] = lambda record: None
    progress: Callable[[str], None] = lambda line: None
    earlier: Iterable[dict[str, Any]] = ()
    rival: str = BASELINE

    def run(self) -> RaceResult:
        """Race.

        Raises:
            BaselineError: The baseline failed.
            ConfigurationError: There is nobody to race.
            StatisticsError: Scores have no ratio, because they are not above 0.
        """
        begun = time.monotonic()
        self._calls = 0
        self._dropped: dict[str, str] = {}
        self._done = _complete_blocks(self.earlier)
        self._baseline = Entrant(BASELINE, self.baseline.config)
        self._again = Entrant(AGAIN, self.baseline.config)
        finalists = [entrant for entrant in self.finalists if entrant.config != self.baseline.config]
        finalists = finalists[: self.plan.finalists]
        if not finalists:
            raise ConfigurationError("there is no finalist that differs from the baseline: nothing to race")
        ranking = self._pick(finalists)
        if not ranking:
            raise ConfigurationError(f"every finalist failed in the race ({self._reasons()})")
        by_id = {entrant.id: entrant for entrant in finalists}
        for name, _ in ranking:
            winner, judged = by_id[name], self._judge(by_id[name])
            if judged is not None:
                break
        else:
            raise ConfigurationError(f"every finalist failed in the race ({self._reasons()})")
        verdict, control = judged
        chosen = winner if verdict.kind == "win" else self.baseline
        return RaceResult(
            verdict,
            control,
            winner,
            chosen,
            tuple(ranking),
            self._dropped,
            self._calls,
            time.monotonic() - begun,
        )

    def _reasons(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in self._dropped.items())

    def _pick(self, finalists: list[Entrant]) -> list[tuple[str, float]]:
        """Who is left, best first, with the ratio to the baseline."""
        if len(finalists) == 1:
            return [(finalists[0].id, math.nan)]
        blocks: defaultdict[str, list[list[float]]] = defaultdict(list)
        left = list(finalists)
        for number in range(self.plan.pick_blocks):
            samples = self._block("pick", number, [*left, self._baseline, self._again])
            left = [entrant for entrant in left if entrant.id not in self._dropped]
            for entrant in left:
                blocks[entrant.id].append(samples[entrant.id])
            blocks[BASELINE].append(samples[BASELINE] + samples[AGAIN])
            left = self._drop(left, blocks, number + 1)
            if len(left) < 2 or self._all_alike(left, blocks, number + 1):
                break
            self.progress(f"race: block {number + 1}/{self.plan.pick_blocks}, {len(left)} finalists left")
        scores = {entrant.id: self._level(blocks[entrant.id], blocks[BASELINE]) for entrant in left}
        return sorted(
            ((name, math.exp(score if self.mode == "min" else -score)) for name, score in scores.items()),
            key=lambda pair: scores[pair[0]],
        )

    def _drop(self, left: list[Entrant], blocks: dict[str, list[list[float]]], count: int) -> list[Entrant]:
        if count < _DROP_AFTER or len(left) < 2:
            return left
        levels = {e.id: self._levels(blocks[e.id]) for e in left}
        leader = min(left, key=lambda e: centre(levels[e.id] - self._levels(blocks[BASELINE])))
        kept = []
        for entrant in left:
            behind = levels[entrant.id] - levels[leader.id]
            error = float(np.std(behind, ddof=1)) / math.sqrt(count)
            if entrant is not leader and float(np.mean(behind)) > _DROP_T * error:
                self._dropped[entrant.id] = f"clearly worse than {leader.id} after {count} blocks"
            else:
                kept.append(entrant)
        return kept

    def _all_alike(self, left: list[Entrant], blocks: dict[str, list[list[float]]], count: int) -> bool:
        """Whether whoever is left differs from the leader by less than matters, as far as one can tell."""
        if count < _DROP_AFTER:
            return False
        levels = {e.id: self._levels(blocks[e.id]) for e in left}
        leader = min(left, key=lambda e: centre(levels[e.id] - self._levels(blocks[BASELINE])))
        for entrant in left:
            behind = levels[entrant.id] - levels[leader.id]
            error = float(np.std(behind, ddof=1)) / math.sqrt(count)
            if centre(behind) + _DROP_T * error > math.log1p(MARGIN):
                return False
        return True

    def _judge(self, winner: Entrant) -> tuple[Verdict, Verdict] | None:
        """The verdict on `winner` and that on the baseline against itself; ``None`` if it fails."""
        blocks: defaultdict[str, list[list[float]]] = defaultdict(list)
        for number in range(self.plan.verdict_blocks):
            stage = f"verdict {winner.id}" + (f" against the {self.rival}" if self.rival != BASELINE else "")
            samples = self._block(stage, number, [winner, self._baseline, self._again])
            if winner.id in self._dropped:
                return None
            for name, values in samples.items():
                blocks[name].append(values)
            self.progress(f"verdict: block {number + 1}/{self.plan.verdict_blocks}")
        name = f"the {self.rival}"
        verdict = compare_blocks(
            blocks[winner.id],
            blocks[BASELINE],
            blocks[AGAIN],
            mode=self.mode,
            names=(winner.id if winner.id.startswith("the ") else f"candidate {winner.id}", name),
        )
        control = compare_blocks(
            blocks[AGAIN], blocks[BASELINE], mode=self.mode, names=(f"{name} once more", name)
        )
        return verdict, control

    def _block(self, stage: str, number: int, entrants: list[Entrant]) -> dict[str, list[float]]:
        """Samples of each entrant; one that fails is dropped."""
        wanted = {entrant.id for entrant in entrants} - set(self._dropped)
        entrants = [entrant for entrant in entrants if entrant.id in wanted]
        known = self._done.get((stage, number))
        if known is None:
            known = self._measure_block(stage, number, entrants)
        self._calls += len(known)
        samples: defaultdict[str, list[float]] = defaultdict(list)
        for record in known:
            name = record["id"]
            if record["status"] == "ok":
                samples[name].append(record["value"])
            elif name in (BASELINE, AGAIN):
                raise BaselineError(
                    f"the {self.rival} failed in the race: {record['message'] or record['status']}"
                )
            else:
                self._dropped[name] = f"{record['status']}: {record['message']}".rstrip(": ")
        return dict(samples)

    def _measure_block(self, stage: str, number: int, entrants: list[Entrant]) -> list[dict[str, Any]]:
        # the order depends on the block alone, so that a resumed race takes the same turns
        rng = np.random.default_rng([self.plan.seed, stage != "pick", number])
        order = [entrants[i] for _ in range(self.plan.windows) for i in rng.permutation(len(entrants))]
        records: list[dict[str, Any]] = []
        for entrant, outcome in self.measure(order):
            records.append(
                {
                    "t": "race",
                    "stage": stage,
                    "block": number,
                    "of": len(order),
                    "id": entrant.id,
                    "status": outcome.status,
                    "value": outcome.values[0] if outcome.ok else None,
                    "message": outcome.message,
                    "at": time.time(),
                }
            )
            self.record(records[-1])
        return records

    def _levels(self, blocks: list[list[float]]) -> Any:
        sign = 1.0 if self.mode == "min" else -1.0
        return sign * np.array([float(np.median(np.log(values))) for values in blocks])

    def _level(self, blocks: list[list[float]], baseline: list[list[float]]) -> float:
        return centre(self._levels(blocks) - self._levels(baseline))


def _complete_blocks(records: Iterable[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Blocks that were measured to their end; one that was interrupted is measured anew."""
    blocks: defaultdict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        if record.get("t") == "race":
            block = blocks[record["stage"], record["block"]]
            if block and len(block) >= block[0]["of"]:
                block.clear()
            block.append(record)
        elif record.get("t") in ("race_begins", "resumed"):
            for key in [key for key, block in blocks.items() if len(block) < block[0]["of"]]:
                del blocks[key]
    return {key: block for key, block in blocks.items() if len(block) == block[0]["of"]}
