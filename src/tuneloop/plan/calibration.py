"""What two measured steps say of a base and method on this machine, kept for later plans.

The peak is affine in what is computed at once, so two micro-batches fix what the arithmetic of `estimate` cannot know:
an intercept and a slope on its figure of what a step adds to weights, gradients and moments. In the same way seconds
are affine in FLOPs: so much for every piece, and so much for a FLOP. Kept in the user's cache folder by the base's
hash, the method, the machine and the versions of what computes; a measurement of others is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import psutil

from tuneloop.models.cache import root
from tuneloop.plan.estimate import Memory

ERROR = 0.1             # of a peak above the runtime, the bar to both sides after two measured steps
APART = 0.1             # figures nearer to each other than this share tell no slope
COMPUTES = ("torch", "transformers", "peft", "bitsandbytes")     # packages whose version may change a peak


@dataclass(frozen=True)
class Point:
    """A measured micro-batch and what the arithmetic said of it."""

    tokens: int                 # computed at once
    expected: Memory            # by arithmetic, without any fit
    peak_bytes: int             # measured, above the runtime
    flops: float                # of the step, by arithmetic
    pieces: int
    cpu_seconds: float          # of the process, for the step
    seconds: float              # by the clock

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on what is computed at once."""
        return self.expected.weights + self.expected.gradients + self.expected.optimizer

    @property
    def figure(self) -> int:
        """Bytes that a step adds to them, by arithmetic."""
        return self.expected.total_bytes - self.expected.runtime - self.fixed

    @property
    def off(self) -> float:
        """How far the arithmetic was off above the runtime, as a share of what was measured."""
        return (self.expected.total_bytes - self.expected.runtime) / self.peak_bytes - 1


@dataclass(frozen=True)
class Fit:
    """The arithmetic put right. Bytes that a step adds = intercept + slope x figure; seconds in the same way."""

    intercept_bytes: float
    slope: float
    cpu_per_piece: float
    cpu_per_flop: float
    seconds_per_piece: float
    seconds_per_flop: float
    most_tokens: int            # of what was measured
    off: tuple[float, ...]      # of the arithmetic alone, at each point
    made: str = ""              # the day

    @classmethod
    def of(cls, points: Sequence[Point], made: str = "") -> Self:
        """Through two points."""
        intercept, slope = line([(p.figure, p.peak_bytes - p.fixed) for p in points])
        cpu, clock = ([(p.flops / p.pieces, s / p.pieces) for p, s in zip(points, times, strict=True)]
                      for times in ([p.cpu_seconds for p in points], [p.seconds for p in points]))
        return cls(intercept, slope, *_rising(line(cpu)), *_rising(line(clock)),
                   most_tokens=max(p.tokens for p in points), off=tuple(round(p.off, 4) for p in points), made=made)

    def applied(self, memory: Memory) -> Memory:
        """`memory` as measured here: what the arithmetic missed is spread over what depends on the step."""
        figure = memory.activations + memory.head + memory.other
        wanted = max(0.0, self.intercept_bytes + self.slope * figure)
        ratio = wanted / figure if figure else 0.0
        activations, head = int(memory.activations * ratio), int(memory.head * ratio)
        return replace(memory, activations=activations, head=head, other=int(wanted) - activations - head, error=ERROR)

    def seconds(self, flops: float, pieces: float) -> float:
        """By the clock, for `flops` in so many pieces."""
        return self.seconds_per_piece * pieces + self.seconds_per_flop * flops

    def cpu_seconds(self, flops: float, pieces: float) -> float:
        """Of the process, over all its threads."""
        return self.cpu_per_piece * pieces + self.cpu_per_flop * flops


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope of least squares; through the origin where the points are too near each other."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if max(xs) - min(xs) <= APART * max(xs):
        return 0.0, sum(ys) / sum(xs)
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a in xs)
    return (y - slope * x, slope) if slope > 0 else (0.0, sum(ys) / sum(xs))


def _rising(found: tuple[float, float]) -> tuple[float, float]:
    """No piece takes less than nothing: noise of the shorter one goes into the slope."""
    return max(0.0, found[0]), found[1]


# ── keeping it ───────────────────────────────────────────────────────────────────────────────────────────────────────

def key(base_sha256: str, method: Mapping[str, Any], *, optimizer: str, checkpointing: bool) -> str:
    """What a measurement is known by: everything that a peak depends on beside the rows."""
    told = {"base": base_sha256, "method": dict(method), "optimizer": optimizer, "checkpointing": checkpointing,
            "machine": machine(), "versions": versions()}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:24]


def machine() -> dict[str, Any]:
    """This machine, as far as memory and time of a step depend on it."""
    return {"name": platform.node(), "system": platform.platform(), "processor": platform.processor(),
            "cpus": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total,
            "threads": os.environ.get("OMP_NUM_THREADS", "")}


def versions() -> dict[str, str]:
    """Of what computes."""
    found = {}
    for name in ("tuneloop", *COMPUTES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def place(name: str) -> Path:
    """The file of the measurement known by `name`."""
    return root() / "calibrations" / f"{name}.json"


def keep(name: str, fit: Fit, told: Mapping[str, Any]) -> Path:
    """Write a fit, and what was measured for whoever reads the file. Raises UserError."""
    from tuneloop.errors import TrainingFailed, UserError
    from tuneloop.record import write_json

    file = place(name)
    try:
        write_json(file, {"fit": asdict(fit), "machine": machine(), "versions": versions(), **told})
    except TrainingFailed as error:
        raise UserError(error.found, fix="free disk space, or set TUNELOOP_CACHE to another folder") from error
    return file


def any_kept() -> bool:
    """Whether anything was ever measured here."""
    return any(place("").parent.glob("*.json"))


def known(name: str) -> Fit | None:
    """The fit of that name; None where there is none that can be read."""
    try:
        told = json.loads(place(name).read_text(encoding="utf-8"))["fit"]
        return Fit(**told | {"off": tuple(told["off"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
