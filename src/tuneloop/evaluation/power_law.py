"""How an error falls with the rows that were trained on: a power law with an interval.

    error(n) = a (n / N)^-b + c,   a, c >= 0,  N the most rows there were

the form that learning curves were found to follow over several orders of magnitude (Hestness et al. 2017, arXiv
1712.00409; Rosenfeld et al. 2020, arXiv 1909.12673): c is what no amount of such rows takes away. K sizes, S repeats
(other draws of rows, other seeds of training), R resamples.

The law is fitted to the mean over repeats by least squares: b on a grid, a and c exactly for each b. An interval comes
from fits to R noisy copies of the K errors, whose noise has two parts: the test rows, drawn once for all sizes as in
`intervals`, and the repeats, whose spread is pooled over the sizes and drawn as Student's t, as in `seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Interval

Numbers = NDArray[np.float64]
FEWEST_SIZES = 3
SLOPES = np.geomspace(0.05, 3.0, 120)       # of b: slower is flat over all sizes there are, faster is over at once
ENDS = (0.025, 0.975)
MISFIT = 0.01


@dataclass(frozen=True)
class Law:
    """Fits (...,) of a, b and c; `n` counts in shares of the most rows."""

    a: Numbers
    b: Numbers
    c: Numbers
    squares: Numbers                # sum of squared residuals

    def error(self, share: float) -> Numbers:
        """At so many times the most rows, (...,)."""
        return np.asarray(self.a * share ** -self.b + self.c)

    def share_for(self, error: float) -> Numbers:
        """How many times the most rows bring the error down to this, (...,); infinite where none do."""
        left = error - self.c
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = (self.a / left) ** (1 / self.b)
        return np.where(left > 0, found, np.inf)


@dataclass(frozen=True)
class Curve:
    """A fitted law with its noisy copies, and what it is worth."""

    law: Law                        # of the errors that were measured, ()
    copies: Law                     # (R,)
    most: int                       # N
    fall: Interval                  # of the error from the fewest rows to the most
    misfit: float                   # share of noisy copies of the law itself that it fits as badly

    @property
    def worthless(self) -> str:
        """Why nothing should be read off this law; nothing where it may be."""
        if self.fall.low <= 0:
            return "the score does not certainly rise from the fewest rows to the most, so that there is no law to fit"
        if self.misfit < MISFIT:
            return "the scores lie too far off a power law for their noise"
        return ""

    def gain(self, times: float) -> Interval:
        """How far the error falls with so many times the rows."""
        copies = self.copies.error(1) - self.copies.error(times)
        return _interval(float(self.law.error(1) - self.law.error(times)), copies)

    def rows_for(self, error: float) -> Interval:
        """Rows that bring the error down to this; infinite where none do."""
        return _interval(self.most * float(self.law.share_for(error)), self.most * self.copies.share_for(error))


def fit(sizes: Sequence[int], errors: Numbers) -> Law:
    """The law closest to `errors` (..., K) at these sizes."""
    shares = np.asarray(sizes, np.float64) / max(sizes)
    x = shares[None, :] ** -SLOPES[:, None]                                 # (B, K)
    y = errors[..., None, :]                                                # (..., 1, K)
    mean_x, mean_y = x.mean(-1), y.mean(-1)
    spread = ((x - mean_x[:, None]) ** 2).sum(-1)
    a = ((x - mean_x[:, None]) * (y - mean_y[..., None])).sum(-1) / spread  # (..., B)
    c = mean_y - a * mean_x
    through_zero = (x * y).sum(-1) / (x * x).sum(-1)
    a, c = np.where(c < 0, through_zero, a), np.maximum(c, 0)
    a, c = np.maximum(a, 0), np.where(a < 0, np.maximum(mean_y, 0), c)
    squares = ((a[..., None] * x + c[..., None] - y) ** 2).sum(-1)
    best = squares.argmin(-1)[..., None]
    found = [np.take_along_axis(of, best, -1)[..., 0] for of in (a, np.broadcast_to(SLOPES, a.shape), c, squares)]
    return Law(*found)


def curve(sizes: Sequence[int], errors: Numbers, resampled: Numbers, seed: int = 0) -> Curve:
    """The law of errors (S, K), of which resamples of the test rows gave (S, K, R), the same draws for all.

    Raises a UserError for fewer sizes than a law needs, or a single repeat.
    """
    if len(set(sizes)) < FEWEST_SIZES:
        raise UserError(f"{len(set(sizes))} sizes of training data say nothing about how the score grows.",
                        wanted=f"at least {FEWEST_SIZES}")
    if len(errors) < 2:
        raise UserError("With one training for each size nobody can tell growth from luck.", wanted="two or more")
    mean = errors.mean(0)                                                   # (K,)
    noise = resampled.mean(0).T - mean + _between_repeats(errors, resampled.shape[-1], seed)     # (R, K)
    law = fit(sizes, mean)
    ideal = law.a * (np.asarray(sizes) / max(sizes)) ** -law.b + law.c
    misfit = float((fit(sizes, ideal + noise - noise.mean(0)).squares >= law.squares).mean())
    first, last = int(np.argmin(sizes)), int(np.argmax(sizes))
    fall = _interval(float(mean[first] - mean[last]), mean[first] - mean[last] + noise[:, first] - noise[:, last])
    return Curve(law, fit(sizes, mean + noise), max(sizes), fall, misfit)


def _between_repeats(errors: Numbers, resamples: int, seed: int) -> Numbers:
    """What other repeats would change in the means, (R, K)."""
    repeats, count = errors.shape
    freedom = count * (repeats - 1)
    spread = math.sqrt(float(errors.var(axis=0, ddof=1).mean()) / repeats)
    random = np.random.default_rng([seed, 7])
    scale = np.sqrt(freedom / random.chisquare(freedom, resamples))
    return np.asarray(spread * scale[:, None] * random.standard_normal((resamples, count)))


def _interval(value: float, copies: Numbers) -> Interval:
    low, high = np.quantile(copies, ENDS, method="weibull" if np.isfinite(copies).all() else "lower")
    return Interval(value, min(value, float(low)), max(value, float(high)))
