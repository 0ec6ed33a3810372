"""Several seeds of one recipe: what the recipe achieves, and not only the artefact that one seed made.

S seeds, n rows, R resamples. Every seed's model answers the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Interval, Measured
from tuneloop.grading.metrics import Scores

FEWEST_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe reaches over its seeds, with an interval for seeds and rows that were not tried."""

    mean: Interval
    of_seeds: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Standard deviation between seeds."""
        return float(np.std(self.of_seeds, ddof=1))

    def to_json(self) -> dict[str, Any]:
        """Ready for the certificate."""
        return {**self.mean.to_json(), "seeds": len(self.of_seeds), "of_seeds": list(self.of_seeds),
                "spread": self.spread, "lowest": min(self.of_seeds), "highest": max(self.of_seeds)}


def recipe(of_seeds: Sequence[Measured], within: tuple[float, float] | None = None) -> Recipe:
    """A recipe's mean score over seeds; or its mean difference to a base, if each is a difference to it.

    All must be measured by the same Bootstrap. Raises a UserError for fewer than FEWEST_SEEDS.
    """
    return Recipe(across_seeds(of_seeds).interval(within), tuple(m.value for m in of_seeds))


def recipes_differ(first: Sequence[Measured], second: Sequence[Measured],
                   within: tuple[float, float] | None = None) -> Interval:
    """How much better the second recipe's mean is than the first's: seeds are independent, rows are paired."""
    return (across_seeds(second, stream=1) - across_seeds(first, stream=0)).interval(within)


def across_seeds(of_seeds: Sequence[Measured], stream: int = 0) -> Measured:
    """The mean over seeds, resampled over rows and seeds; measures with different `stream` draw seeds independently.

    The nested bootstrap (Davison and Hinkley 1997, Bootstrap Methods, section 3.8, "hierarchical data"), crossed,
    since all seeds answer the same rows: each resample draws rows once for all seeds. Deviation: resampling three
    seeds with replacement gives 2/3 of their variance and next to no tails. So instead of drawing seeds, each resample
    adds s / sqrt(S) times a draw of Student's t with S - 1 degrees of freedom, s the standard deviation between
    seeds. Without row noise that is the t interval of the seeds' mean; with both it is the Behrens-Fisher interval,
    which covers a little more often than it says. s holds some row noise, too (that of a seed's own errors), which is
    not taken out: that errs on the same side. It supposes that seeds scatter about normally.
    """
    count = len(of_seeds)
    if count < FEWEST_SEEDS:
        raise UserError(f"{count} {'seed says' if count == 1 else 'seeds say'} little about a recipe.",
                        wanted=f"at least {FEWEST_SEEDS} seeds of the same recipe",
                        fix="train it with more seeds, or speak of one artefact")
    bootstrap = of_seeds[0].bootstrap
    if any(m.bootstrap != bootstrap for m in of_seeds):
        raise ValueError("seeds can only be put together if they were measured on the same resamples of the same rows")
    values = np.array([m.value for m in of_seeds])
    random = np.random.default_rng([bootstrap.seed, 3, stream])
    by_seed = random.standard_t(count - 1, bootstrap.resamples) * values.std(ddof=1) / math.sqrt(count)
    by_row: Scores = np.mean([m.resampled for m in of_seeds], axis=0)
    return Measured(float(values.mean()), by_row + by_seed, bootstrap)
