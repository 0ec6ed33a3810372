"""How sides are compared: losses must agree first, then they take turns, and the ratio is taken pair by pair."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, Step

from tuneloop.types import Group

AGREE = 1e-4                # greatest difference of losses, over the first steps
CHECKED = 2                 # steps from equal weights whose losses are compared
RESAMPLES = 2000
PASS_SHARE = 0.9            # a row passes when the interval's lower end reaches this share of its goal
HEADER = ("workload", "against", "ratio", "95 % interval", "goal", "passes", "other s", "ours s", "loss difference",
          "note")


class Disagreement(RuntimeError):
    """Two sides do not compute the same thing, so their times mean nothing."""


@dataclass(frozen=True)
class Row:
    """One line of the results. `ratio` is the other side's seconds over ours, unless the note says otherwise."""

    workload: str
    against: str
    ratio: float | None
    low: float | None
    high: float | None
    goal: float | None
    other: float | None = None          # median of a step, in seconds unless the note says otherwise
    ours: float | None = None
    loss_difference: float | None = None
    note: str = ""
    at_most: bool = False               # the goal is an upper bound
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool | None:
        """None where there is no goal or no figure."""
        if self.goal is None or self.low is None or self.high is None:
            return None
        return self.high <= self.goal / PASS_SHARE if self.at_most else self.low >= PASS_SHARE * self.goal

    def cells(self) -> list[str]:
        def number(x: float | None, text: str) -> str:
            return "" if x is None else format(x, text)

        verdict = {True: "yes", False: "NO", None: ""}[self.passes]
        bound = "" if self.goal is None else f"{'≤' if self.at_most else '≥'} {self.goal:g}"
        span = "" if self.low is None or self.high is None else f"{self.low:.2f} to {self.high:.2f}"
        return [self.workload, self.against, number(self.ratio, ".2f"), span, bound, verdict, number(self.other, ".2f"),
                number(self.ours, ".2f"), number(self.loss_difference, ".0e"), self.note]


def take_turns(sides: Sequence[Side], steps: Sequence[Sequence[Group]]) -> list[list[Step]]:
    """Every step by each side in turn, the first of them changing; [side][step]."""
    done: list[list[Step]] = [[] for _ in sides]
    for number, groups in enumerate(steps):
        order = list(range(len(sides)))
        for i in order if number % 2 == 0 else reversed(order):
            done[i].append(sides[i].step(groups))
    return done


def check(theirs: Sequence[Step], ours: Sequence[Step], steps: int = CHECKED, tolerance: float = AGREE) -> float:
    """The greatest difference of losses over the first `steps`; raises Disagreement if one is too great."""
    for step in (*theirs, *ours):
        if step.grad_norm is not None and not step.grad_norm > 0:
            raise Disagreement(f"a gradient's norm is {step.grad_norm}")
    worst = max(abs(a.loss - b.loss) for a, b in zip(theirs[:steps], ours[:steps], strict=True))
    if not worst <= tolerance:
        raise Disagreement(f"losses differ by {worst:.1e}: {[s.loss for s in theirs[:steps]]} against "
                           f"{[s.loss for s in ours[:steps]]}")
    return worst


def interval(values: Sequence[float], centre: Callable[[Sequence[float]], float] = statistics.median) -> tuple[
        float, float, float]:
    """The median of `values` and its 95 % interval by percentile bootstrap; of few values, about their range."""
    random = np.random.default_rng(0)
    drawn = random.choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile([centre(list(d)) for d in drawn], [2.5, 97.5])
    return float(centre(values)), float(low), float(high)


def compare(workload: str, theirs: Side, ours: Side, steps: Sequence[Sequence[Group]], goal: float | None,
            note: str = "") -> Row:
    """Both sides over `steps`, in turns."""
    other, own = take_turns([theirs, ours], steps)
    return row_of(workload, theirs.name, other, own, goal, note)


def row_of(workload: str, against: str, other: Sequence[Step], own: Sequence[Step], goal: float | None, note: str = "",
           tolerance: float = AGREE) -> Row:
    """The row of two sides' steps, paired; the first ones must agree."""
    difference = check(other, own, tolerance=tolerance)
    timed = list(zip(other, own, strict=True))
    median, low, high = interval([a.seconds / b.seconds for a, b in timed])
    return Row(workload, against, median, low, high, goal, statistics.median(a.seconds for a, _ in timed),
               statistics.median(b.seconds for _, b in timed), difference, note,
               details={"other": [asdict(s) for s in other], "ours": [asdict(s) for s in own]})


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    return "\n".join(lines + ["| " + " | ".join(row.cells()) + " |" for row in rows])


def keep(row: Row, file: Path, context: dict[str, Any]) -> None:
    """Append a row to the JSON list in `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    kept.append({"time": datetime.now().isoformat(timespec="seconds"), **context, **asdict(row), "passes": row.passes})
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
