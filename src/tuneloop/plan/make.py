"""The plan: every hyperparameter with its origin and reason, the memory and the time, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuneloop.compute.packing import sorted_paths, unique_tokens
from tuneloop.errors import UserError
from tuneloop.methods.base import MethodSpec
from tuneloop.models.shape import Shape
from tuneloop.plan import estimate, times
from tuneloop.plan.calibration import Fit
from tuneloop.plan.hardware import Hardware
from tuneloop.plan.spec import TrainingSpec
from tuneloop.plan.times import Beside, Clock, tokens_per_step
from tuneloop.record import Value
from tuneloop.types import Group

__all__ = ["Plan", "Workload", "check_fits", "make", "planned_batch", "planned_epochs", "tokens_per_step"]

GIB = 2**30
SAFE = 0.95             # share of the memory that is planned with: what is free changes
SHARES = 1.02           # logical over unique tokens, from which a step shares prefixes
Fits = Callable[[bool], Fit | None]     # with checkpointing or without -> what was measured here, if anything

@dataclass(frozen=True)
class Plan:
    """What will be done. `values` maps recipe keys to resolved values; the rest is expectation."""

    values: dict[str, Value]
    memory: estimate.Memory
    available_bytes: int
    limit_bytes: int                    # what training may use of that
    steps: int
    sharing: float                      # logical over unique tokens
    seconds: dict[str, float]           # stage -> expected seconds
    notes: list[str] = field(default_factory=list)
    seconds_by: times.Stages = field(default_factory=dict)      # stage -> part -> expected seconds
    cpu_seconds: float | None = None    # of this process in all optimizer steps; None where nothing was measured
    calibrated: str = ""                # the day of the measurement that the plan rests on

    def __getitem__(self, key: str) -> Any:
        return self.values[key].value

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        memory = written["memory"]
        parts = {"gradients": 0, "optimizer": memory["parts"].get("trainable", 0)} | memory["parts"]
        parts.pop("trainable", None)        # as plans had it before
        return cls({k: Value(v["value"], v["origin"], v.get("why", "")) for k, v in written["values"].items()},
                   estimate.Memory(**parts, error=memory.get("error", estimate.ERROR)), memory["available_bytes"],
                   memory["limit_bytes"], written["steps"], written["sharing"], written["seconds"], written["notes"],
                   written.get("seconds_by", {}), written.get("cpu_seconds"), written.get("calibrated", ""))

    def to_json(self) -> dict[str, Any]:
        return {"values": {k: v.to_json() for k, v in self.values.items()},
                "memory": {"total_bytes": self.memory.total_bytes, "low_bytes": self.memory.low,
                           "high_bytes": self.memory.high, "error": self.memory.error,
                           "available_bytes": self.available_bytes, "limit_bytes": self.limit_bytes,
                           "parts": self.memory.parts},
                "steps": self.steps, "sharing": round(self.sharing, 3), "seconds": self.seconds, "notes": self.notes,
                "seconds_by": self.seconds_by, "cpu_seconds": self.cpu_seconds, "calibrated": self.calibrated}


@dataclass(frozen=True)
class Workload:
    """What the plan needs to know about the rows."""

    train: Sequence[Group]
    validation: Sequence[Group]
    test: Sequence[Group]       # what is scored of each test row
    choices: int                # answers that a test row is scored with; 0 where answers are generated
    max_new_tokens: int
    frozen_passes: int = 0      # models that are asked about the training rows once, before training
    pace: float = 1.0           # what the objective makes of the method's learning rate
    beside: Beside = field(default_factory=Beside)
    reducers: frozenset[str] = frozenset()      # what the objective reads beside log-probs

    def longest(self, share: bool) -> int:
        """Tokens of the longest row, or of the largest group, which is never split."""
        return max(unique_tokens(sorted_paths(group.branches, None, True), share) for group in self.train)


def check_fits(shape: Shape, hardware: Hardware, base: str, loaded_bytes: int | None = None, beside: int = 0) -> None:
    """Refuse a model whose weights alone do not fit, `beside` so many bytes of another, before anything is loaded.

    They take `loaded_bytes`, float32 unless given.
    """
    needed = estimate.RUNTIME_BYTES + beside + (4 * shape.parameters if loaded_bytes is None else loaded_bytes)
    if needed > hardware.available_bytes:
        raise UserError(f"{base} does not fit in memory: its {shape.parameters / 1e6:,.0f}M parameters need "
                        f"{needed / GIB:.1f} GiB, and {hardware.available_bytes / GIB:.1f} GiB are free.",
                        fix="choose a smaller base (`tuneloop models`), or free memory")


def make(training: TrainingSpec, method: MethodSpec, shape: Shape, work: Workload, hardware: Hardware,
         fits: Fits = lambda checkpointing: None) -> Plan:
    """Resolve what the recipe left open. A value that the recipe gives is never changed.

    `fits`: what was measured of this base and method on this machine.
    """
    cost = method.memory(shape)
    share = method.exact_when_shared and not _padded(method, shape, work)
    values = _resolve(training, method, shape, work, hardware, fits)
    batch = values["training.batch_size"].value
    if batch > len(work.train):
        raise UserError(f"training.batch_size is {batch}, and there are only {len(work.train)} training rows.",
                        fix=f"set it to {len(work.train)} or less")
    steps = math.ceil(values["training.epochs"].value * len(work.train) / batch)
    if training.max_steps is not None:
        steps = training.max_steps if training.epochs is None else min(steps, training.max_steps)
    looks = values.setdefault("training.evaluate_every", Value(
        max(5, math.ceil(steps / 6)), "planned", "about six looks at the validation loss, at least five steps apart"))
    values.setdefault("training.checkpoint_every", Value(looks.value, "planned", "with every look at validation"))
    unique, logical = tokens_per_step(work.train, batch, share)
    peak = Peak(shape, method, work, values["training.checkpointing"].value, training.optimizer, unique, logical,
                batch, fits(values["training.checkpointing"].value))
    fit = peak.fit
    largest = max(times.largest_step(work.train, batch, share), work.longest(share))
    memory = peak.at(int(min(values["training.token_budget"].value, largest)))
    limit = _limit(training, hardware)
    clock = Clock(shape, hardware.flops_per_second, fit)
    flops = times.step_flops(shape, cost, unique, peak.heads_per_token * unique, peak.length, peak.checkpointing)
    pieces = max(1, math.ceil(unique / values["training.token_budget"].value))
    by = times.stages(clock, work, steps * clock.of(flops, pieces), max(1, steps // looks.value), share)
    return Plan(values, memory, hardware.available_bytes, limit, steps, logical / unique,
                {stage: round(sum(parts.values()), 1) for stage, parts in by.items()}, _notes(memory, limit), by,
                None if fit is None else round(steps * fit.cpu_seconds(flops, pieces), 1), fit.made if fit else "")


@dataclass(frozen=True)
class Peak:
    """The peak of a step of these rows by how many tokens are computed at once."""

    shape: Shape
    method: MethodSpec
    work: Workload
    checkpointing: bool
    optimizer: str
    unique: float               # tokens of an optimizer step
    logical: float
    batch: int
    fit: Fit | None = None

    @property
    def heads_per_token(self) -> float:
        """Positions whose logits are computed, per unique token."""
        supervised = float(np.mean([sum(r.supervised for r in group.branches) for group in self.work.train]))
        return min(1.0, supervised * self.batch / max(1.0, self.unique))

    @property
    def length(self) -> float:
        """Tokens of a row."""
        return float(np.mean([len(row) for group in self.work.train[:1000] for row in group.branches]))

    def at(self, tokens: int, heads: int | None = None) -> estimate.Memory:
        """Of a step whose largest piece has so many tokens; those of virtual ones come on top."""
        padded = _padded(self.method, self.shape, self.work)
        heads = math.ceil(tokens * self.heads_per_token) if heads is None else heads
        return estimate.training_memory(
            self.shape, self.method.memory(self.shape), tokens + self.method.slots, self.checkpointing, self.optimizer,
            heads=heads, padded=padded, accumulates=self.unique > tokens,
            shared=not padded and (self.logical > SHARES * self.unique or self.method.slots > 0),
            reducers=self.work.reducers, fit=self.fit)


def peak_of(method: MethodSpec, shape: Shape, work: Workload, checkpointing: bool, optimizer: str, batch: int,
            fits: Fits) -> Peak:
    """The peak of a training that is planned."""
    share = method.exact_when_shared and not _padded(method, shape, work)
    return Peak(shape, method, work, checkpointing, optimizer, *tokens_per_step(work.train, batch, share), batch,
                fits(checkpointing))


def _padded(method: MethodSpec, shape: Shape, work: Workload) -> bool:
    """Whether rows will be padded, because they are longer than the base's attention window."""
    return shape.sliding_window is not None and shape.sliding_window < method.slots + max(
        len(row) for group in work.train for row in group.branches)


def _notes(memory: estimate.Memory, limit: int) -> list[str]:
    """What a reader of the plan must know of its memory."""
    may = f"the {limit / GIB:.1f} GiB that training may use"
    if memory.total_bytes > limit:
        return [f"the peak of about {memory.total_bytes / GIB:.1f} GiB is more than {may}: use method: lora, or a "
                "smaller base"]
    if memory.high > limit:
        return [f"the peak of about {memory.total_bytes / GIB:.1f} GiB may be as much as {memory.high / GIB:.1f} GiB, "
                f"more than {may}; `tuneloop plan --calibrate` measures it, and a run tries its longest batch first"]
    return []


def _resolve(training: TrainingSpec, method: MethodSpec, shape: Shape, work: Workload, hardware: Hardware,
             measured: Fits) -> dict[str, Value]:
    rows, longest = len(work.train), work.longest(method.exact_when_shared)
    rate, why = method.learning_rate(shape.parameters)
    if work.pace != 1:
        rate, why = rate * work.pace, f"{work.pace:g} times this method's for instruction tuning, as the objective asks"
    epochs, batch = planned_epochs(rows), planned_batch(rows)
    fits = {again: estimate.fitting_tokens(shape, method.memory(shape), int(SAFE * _limit(training, hardware)), again,
                                           training.optimizer, measured(again)) - method.slots
            for again in (False, True)}
    checkpointing = training.checkpointing if training.checkpointing is not None else fits[False] < longest
    budget = estimate.token_budget(fits[checkpointing], longest)
    planned = {
        "learning_rate": (rate, why),
        "epochs": (epochs, f"{rows} training rows: the fewer, the more passes, and early stopping ends them"),
        "batch_size": (batch, f"{rows} training rows: at least ten optimizer steps a pass where possible"),
        "token_budget": (budget, f"what fits in {SAFE:.0%} of the memory, error bar included; at most 8192 tokens at "
                                 "once"),
        "checkpointing": (checkpointing, f"{longest} tokens at once would not fit without" if checkpointing
                          else "activations fit into memory, so they are kept"),
    }
    values = {}
    for name, value in training:
        if value is not None:
            values[f"training.{name}"] = Value(value, "given" if name in training.model_fields_set else "default")
        elif name in planned:
            values[f"training.{name}"] = Value(planned[name][0], "planned", planned[name][1])
    return values


def planned_epochs(rows: int) -> float:
    """Passes over so many training rows."""
    return 3.0 if rows < 5_000 else 2.0 if rows < 50_000 else 1.0


def planned_batch(rows: int) -> int:
    """Rows of an optimizer step."""
    return min(rows, 16 if rows >= 160 else 8 if rows >= 64 else 4)


def _limit(training: TrainingSpec, hardware: Hardware) -> int:
    """What training may use: the recipe's word, or what is free."""
    if training.memory_gb is None:
        return hardware.available_bytes
    return min(int(training.memory_gb * GIB), hardware.available_bytes)
