"""Safety before against after training: suite by suite, and the one number that a goal bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneloop.evaluation.intervals import LEVEL, Bootstrap, Interval, Measured
from tuneloop.evaluation.safety.bias import NEUTRAL
from tuneloop.evaluation.suites.base import Graded
from tuneloop.grading.metrics import Scores, Statistic, mean_of


@dataclass(frozen=True, slots=True)
class Shift:
    """One suite before and after, on the items that were graded both times."""

    suite: str
    rows: int                       # graded both times
    ungraded_before: int
    ungraded_after: int
    before: Interval | None         # mean score, in [0, 1]; None where no item was graded both times
    after: Interval | None
    drop: Interval | None           # before - after: above 0 the model is less safe

    def to_json(self) -> dict[str, Any]:
        """For the certificate."""
        return {"suite": self.suite, "rows": self.rows, "ungraded_before": self.ungraded_before,
                "ungraded_after": self.ungraded_after} | {
            name: interval.to_json() if interval else None
            for name, interval in (("before", self.before), ("after", self.after), ("drop", self.drop))}


@dataclass(frozen=True, slots=True)
class Safety:
    """All suites, and the largest drop among them: what `max_safety_drop` bounds."""

    shifts: tuple[Shift, ...]
    worst: str                      # the suite of the largest drop; "" where nothing could be compared
    drop: Interval | None           # of the largest

    @property
    def unknown(self) -> list[str]:
        """Suites of which no item was graded both before and after: what they lost is not known."""
        return [shift.suite for shift in self.shifts if shift.drop is None]

    def to_json(self) -> dict[str, Any]:
        """For the certificate."""
        return {"suites": [shift.to_json() for shift in self.shifts], "worst": self.worst,
                "drop": self.drop.to_json() if self.drop else None}


def safety(before: Mapping[str, Sequence[Graded]], after: Mapping[str, Sequence[Graded]], *, resamples: int = 2000,
           seed: int = 0) -> Safety:
    """Compare two runs of the same suites on the same items, each with a 95 % paired bootstrap interval.

    The drop of a suite is that of its mean score; of a suite in `NEUTRAL` what is above the neutral mean counts as
    neutral. The largest drop over all suites is the largest of many noisy numbers, so its interval is not that of the
    suite it came from. High end: the largest of the suites' high ends; if that is within a bound, so is every suite
    (an intersection-union test, Berger 1982, needs no correction). Low end: the largest drop less the 97.5 % quantile
    of the largest error over all suites at once (max-T, Westfall and Young 1993), and never above the largest low end.
    """
    if set(before) != set(after):
        raise ValueError(f"suites before: {sorted(before)}, after: {sorted(after)}")
    compared = [_compared(name, before[name], after[name], resamples, seed + i)
                for i, name in enumerate(sorted(before))]
    shifts = tuple(shift for shift, _ in compared)
    drops = [(shift, shift.drop, measured) for shift, measured in compared if shift.drop and measured]
    if not drops:
        return Safety(shifts, "", None)
    errors = np.max([measured.resampled - measured.value for *_, measured in drops], axis=0)
    worst = max(drops, key=lambda one: one[1].value)
    value = worst[1].value
    low = min(max(drop.low for _, drop, _ in drops), value - float(np.quantile(errors, (1 + LEVEL) / 2)), value)
    return Safety(shifts, worst[0].suite, Interval(value, max(low, -1.0), max(drop.high for _, drop, _ in drops)))


def _compared(name: str, before: Sequence[Graded], after: Sequence[Graded], resamples: int,
              seed: int) -> tuple[Shift, Measured | None]:
    first, second = ({item.id: item.score for item in items} for items in (before, after))
    if first.keys() != second.keys() or len(first) != len(before) or len(second) != len(after):
        raise ValueError(f"the items of {name} before and after are not the same, or not unique")
    scores = np.array([(first[id], second[id]) for id in first], dtype=np.float64).reshape(-1, 2)
    missing_before, missing_after = np.isnan(scores).sum(axis=0).tolist()
    scores = scores[~np.isnan(scores).any(axis=1)]
    if not len(scores):
        return Shift(name, 0, missing_before, missing_after, None, None, None), None
    neutral = NEUTRAL.get(name, math.inf)
    measured = Bootstrap(len(scores), resamples, seed).measure([_mean_up_to(neutral, one) for one in scores.T])
    drop, most = measured[0] - measured[1], min(1.0, neutral)
    return Shift(name, len(scores), missing_before, missing_after, measured[0].interval((0.0, most)),
                 measured[1].interval((0.0, most)), drop.interval((-most, most))), drop


def _mean_up_to(most: float, scores: Scores) -> Statistic:
    mean = mean_of(scores)
    return lambda draws: np.minimum(mean(draws), most)
