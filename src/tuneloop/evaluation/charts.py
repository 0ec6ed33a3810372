"""Geometry of the report's charts: every position is a percentage of the plot, from its left and its top, so that the
drawing stretches with the page while its letters keep their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_POINTS = 400


@dataclass(frozen=True)
class Axis:
    """Maps values to percent of an axis. `down` turns it round: SVG counts y from the top."""

    low: float
    high: float
    down: bool = False

    def at(self, value: float) -> float:
        """Where `value` is, in percent; what is beyond an end is drawn at that end."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return round(100 * (1 - share if self.down else share), 2)

    def ticks(self, about: int = 5) -> list[tuple[float, float]]:
        """Round values inside the axis, each with its place."""
        step = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(round(i * step, 12), self.at(i * step)) for i in range(first, last + 1)]


def _round_step(wanted: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten, upwards."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next((power * step for step in (1, 2, 5) if power * step >= wanted * 0.999), power * 10)


def around(values: Sequence[float], *, room: float = 0.08) -> Axis:
    """An axis that holds all `values`, with some room at the ends."""
    low, high = min(values), max(values)
    spare = (high - low) * room or max(abs(high), 1.0) * room
    return Axis(low - spare, high + spare)


def loss_chart(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Training and validation loss by step from the lines of metrics.jsonl; None if there is nothing to draw.

    A step that was repeated after a resume counts as last written.
    """
    train = _by_step(lines, "step")
    validation = _by_step(lines, "validation")
    if not train and not validation:
        return None
    best = max((line["step"] for line in lines if line.get("event") == "validation" and line.get("best")), default=None)
    steps, losses = [*train, *validation], [*train.values(), *validation.values()]
    x = Axis(0, max(1, *steps))
    spare = 0.05 * ((max(losses) - min(0.0, *losses)) or 1.0)
    # from 0, which a likelihood's loss cannot pass; a policy's can
    y = Axis(min(0.0, min(losses) - spare) if min(losses) < 0 else 0, max(0.0, *losses) + spare, down=True)

    def points(curve: dict[int, float]) -> list[tuple[float, float]]:
        return [(x.at(step), y.at(loss)) for step, loss in curve.items()]

    return {
        "x": [(f"{int(value):,}", place) for value, place in x.ticks(6) if value == int(value)],
        "y": [(f"{value:g}", place) for value, place in y.ticks(4)],
        "raw": points(_thinned(train)), "smooth": points(_smoothed(train)), "validation": points(validation),
        "best": None if best is None or best not in validation else
                {"step": best, "loss": validation[best], "x": x.at(best), "y": y.at(validation[best])},
        "first": next(iter(train.values()), None), "last": next(reversed(_smoothed(train).values()), None),
    }


def _by_step(lines: Sequence[dict[str, Any]], event: str) -> dict[int, float]:
    found = {line["step"]: float(line["loss"]) for line in lines
             if line.get("event") == event and line.get("loss") is not None and math.isfinite(line["loss"])}
    return dict(sorted(found.items()))


def _thinned(curve: dict[int, float]) -> dict[int, float]:
    """At most so many points as a screen can show."""
    every = math.ceil(len(curve) / _MOST_POINTS) or 1
    return dict(list(curve.items())[::every])


def _smoothed(curve: dict[int, float]) -> dict[int, float]:
    """The mean over a window of a tenth of the steps, around each step."""
    if not curve:
        return {}
    half = max(1, len(curve) // 20)
    values = np.array(list(curve.values()))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(0, at - half), np.minimum(len(values), at + half + 1)
    return _thinned(dict(zip(curve, ((sums[high] - sums[low]) / (high - low)).tolist(), strict=True)))
