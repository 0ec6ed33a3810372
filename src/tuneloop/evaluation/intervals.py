"""Confidence intervals: how far off a score on these test rows may be, and how many rows would settle a question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneloop.grading.metrics import Scores, Statistic

LEVEL = 0.95
"""Every interval aims to cover the true value this often; with few rows those of perplexity fall short of it."""

_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_CHUNK_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Bootstrap:
    """Statistics over resampled test rows. The same seed draws the same rows, so that differences are paired:
    what one model gains from an easy resample, the other gains too (Efron and Tibshirani 1993, chapters 8 and 13).
    """

    rows: int
    resamples: int = 2000
    seed: int = 0

    def measure(self, statistics: Sequence[Statistic]) -> list[Measured]:
        """All `statistics` on the same draws."""
        random = np.random.default_rng(self.seed)
        chunk = max(1, _CHUNK_BYTES // (8 * self.rows))
        parts = []
        for start in range(0, self.resamples, chunk):
            size = min(chunk, self.resamples - start)
            drawn = random.integers(self.rows, size=(size, self.rows)) + np.arange(size)[:, None] * self.rows
            draws = np.bincount(drawn.ravel(), minlength=size * self.rows).reshape(size, self.rows).astype(np.float64)
            parts.append([statistic(draws) for statistic in statistics])
        once = np.ones((1, self.rows))
        return [Measured(float(statistic(once)[0]), np.concatenate(values), self)
                for statistic, values in zip(statistics, zip(*parts, strict=True), strict=True)]


@dataclass(frozen=True)
class Measured:
    """A statistic's value on the test rows and on every resample, (R,)."""

    value: float
    resampled: Scores
    bootstrap: Bootstrap

    def __sub__(self, other: Measured) -> Measured:
        return Measured(self.value - other.value, self.resampled - other.resampled, self.bootstrap)

    def interval(self, within: tuple[float, float] | None = None) -> Interval:
        """The percentile interval; `within` is the range that the value cannot leave, None if it has no ends.

        A bootstrap only knows the rows it has seen: 50 right answers of 50 would give the interval [1, 1], and four
        rows that only one model gets right would pass for proof. So with a range, every resample also holds
        Poisson(1) unseen rows at either end of it. For n equal rows that is the rule of three: the interval reaches
        3/n of the range further (Hanley and Lippman-Hand 1983, JAMA 249). For paired differences it is the
        added row per discordant cell of Bonett and Price (2012, J. Educ. Behav. Stat. 37). For many rows that
        disagree it vanishes against the sampling error, as 1/n against 1/sqrt(n). It only ever widens.
        """
        ends = [_ends_of(self.resampled)]
        if within:
            low, high = within
            random = np.random.default_rng([self.bootstrap.seed, 1])
            better, worse = random.poisson(1, size=(2, len(self.resampled)))
            unseen = better * (high - self.value) - worse * (self.value - low)
            ends.append(_ends_of(np.clip(self.resampled + unseen / self.bootstrap.rows, low, high)))
        lows, highs = np.transpose(ends)
        return Interval(self.value, min(self.value, *lows.tolist()), max(self.value, *highs.tolist()))


def _ends_of(resampled: Scores) -> Scores:
    """The (R + 1) * 2.5 % smallest and largest of R resamples (Davison and Hinkley 1997, Bootstrap Methods, chapter
    5), so that in the mean over resamplings just 2.5 % of all resamples lie beyond either end. numpy's own rule
    leaves (2.5 % * (R - 1) + 1) / (R + 1) beyond, 2.6 % for 1,000.
    """
    return np.quantile(resampled, _ENDS, method="weibull")


def rows_needed(interval: Interval, bound: float, rows: int) -> int | None:
    """About how many more test rows until `bound` leaves the interval, if the value stays; None if it is the bound.

    The half-width towards the bound shrinks as 1/sqrt(rows).
    """
    distance = abs(interval.value - bound)
    if math.isclose(interval.value, bound, abs_tol=1e-9):
        return None
    half = interval.value - interval.low if bound < interval.value else interval.high - interval.value
    return max(0, math.ceil(rows * (half / distance) ** 2) - rows)
