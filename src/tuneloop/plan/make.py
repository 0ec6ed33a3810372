"""The plan: every hyperparameter with its origin and reason, the memory and the time, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tuneloop.compute.packing import build_forest, sorted_paths, unique_tokens
from tuneloop.errors import UserError
from tuneloop.methods.base import MethodSpec
from tuneloop.models.shape import Shape
from tuneloop.plan import estimate
from tuneloop.plan.hardware import Hardware
from tuneloop.plan.spec import TrainingSpec
from tuneloop.record import Value
from tuneloop.types import Group

GIB = 2**30
SAFE = 0.7              # share of the memory that is planned with: estimates may be low
SAMPLE_STEPS = 8        # optimizer steps packed to learn how much is shared


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

    def __getitem__(self, key: str) -> Any:
        return self.values[key].value

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        memory = written["memory"]
        return cls({k: Value(v["value"], v["origin"], v.get("why", "")) for k, v in written["values"].items()},
                   estimate.Memory(**memory["parts"]), memory["available_bytes"], memory["limit_bytes"],
                   written["steps"], written["sharing"],
                   written["seconds"], written["notes"])

    def to_json(self) -> dict[str, Any]:
        return {"values": {k: v.to_json() for k, v in self.values.items()},
                "memory": {"total_bytes": self.memory.total_bytes, "available_bytes": self.available_bytes,
                           "limit_bytes": self.limit_bytes,
                           "parts": asdict(self.memory)},
                "steps": self.steps, "sharing": round(self.sharing, 3), "seconds": self.seconds, "notes": self.notes}


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


def make(training: TrainingSpec, method: MethodSpec, shape: Shape, work: Workload, hardware: Hardware) -> Plan:
    """Resolve what the recipe left open. A value that the recipe gives is never changed."""
    cost = method.memory(shape)
    values = _resolve(training, method, shape, work, hardware)
    batch, budget = values["training.batch_size"].value, values["training.token_budget"].value
    if batch > len(work.train):
        raise UserError(f"training.batch_size is {batch}, and there are only {len(work.train)} training rows.",
                        fix=f"set it to {len(work.train)} or less")
    steps = math.ceil(values["training.epochs"].value * len(work.train) / batch)
    if training.max_steps is not None:
        steps = training.max_steps if training.epochs is None else min(steps, training.max_steps)
    looks = values.setdefault("training.evaluate_every", Value(
        max(5, math.ceil(steps / 6)), "planned", "about six looks at the validation loss, at least five steps apart"))
    values.setdefault("training.checkpoint_every", Value(looks.value, "planned", "with every look at validation"))
    share = method.exact_when_shared
    unique, logical = tokens_per_step(work.train, batch, share)
    largest = int(min(budget, max(unique, work.longest(share)))) + method.slots
    memory = estimate.training_memory(shape, cost, largest, values["training.checkpointing"].value,
                                      training.optimizer)
    limit, notes = _limit(training, hardware), []
    if memory.total_bytes > limit:
        notes.append(f"the peak of about {memory.total_bytes / GIB:.1f} GiB is more than the "
                     f"{limit / GIB:.1f} GiB that training may use: use method: lora, or a smaller base")
    return Plan(values, memory, hardware.available_bytes, limit, steps, logical / unique,
                _seconds(shape, cost, work, hardware, steps, unique, looks.value, share), notes)


def _resolve(training: TrainingSpec, method: MethodSpec, shape: Shape, work: Workload,
             hardware: Hardware) -> dict[str, Value]:
    rows, longest = len(work.train), work.longest(method.exact_when_shared)
    rate, why = method.learning_rate(shape.parameters)
    if work.pace != 1:
        rate, why = rate * work.pace, f"{work.pace:g} times this method's for instruction tuning, as the objective asks"
    epochs, batch = planned_epochs(rows), planned_batch(rows)
    fits = {again: estimate.fitting_tokens(shape, method.memory(shape), int(SAFE * _limit(training, hardware)), again,
                                           training.optimizer) - method.slots for again in (False, True)}
    checkpointing = training.checkpointing if training.checkpointing is not None else fits[False] < longest
    budget = estimate.token_budget(fits[checkpointing], longest)
    planned = {
        "learning_rate": (rate, why),
        "epochs": (epochs, f"{rows} training rows: the fewer, the more passes, and early stopping ends them"),
        "batch_size": (batch, f"{rows} training rows: at least ten optimizer steps a pass where possible"),
        "token_budget": (budget, f"what fits in {SAFE:.0%} of the memory, at most 8192 tokens at once"),
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


def tokens_per_step(groups: Sequence[Group], batch: int, share: bool) -> tuple[float, float]:
    """Unique and logical tokens of an optimizer step, from a few that are really packed."""
    order = np.random.default_rng(0).permutation(len(groups))
    packed = [build_forest([r for i in order[low:low + batch] for r in groups[i].branches], share=share)
              for low in range(0, min(len(groups), SAMPLE_STEPS * batch), batch)]
    return (float(np.mean([f.unique_tokens for f in packed])), float(np.mean([f.logical_tokens for f in packed])))


def _seconds(shape: Shape, cost: Any, work: Workload, hardware: Hardware, steps: int, unique: float,
             every: int, share: bool) -> dict[str, float]:
    rate = hardware.flops_per_second * estimate.EFFICIENCY

    def forward(groups: Sequence[Group], choices: int) -> float:
        if not groups:
            return 0.0
        per_row = tokens_per_step(groups, 32, share)[0] / min(32, len(groups))
        if len(groups[0].branches) == 1:        # other labels have a few tokens of their own
            per_row += 3 * max(0, choices - 1)
        return estimate.forward_flops(shape, per_row * len(groups), 2 * max(1, choices) * len(groups)) / rate

    supervised = float(np.mean([sum(r.supervised for r in group.branches) for group in work.train]))
    evaluation = forward(work.test, work.choices)
    if not work.choices:        # generation reads all weights for every token, in batches of about 16
        answer = min(work.max_new_tokens, 2 * supervised)
        evaluation += estimate.forward_flops(shape, 4, 4) * answer * len(work.test) / 16 / rate * 4
    training = steps * estimate.training_flops(shape, cost, unique, supervised * unique / 64) / rate
    looks = max(1, steps // every) * forward(work.validation, 1)
    asked = work.frozen_passes * (forward(work.train, 1) + forward(work.validation, 1))
    seconds = {"baseline": evaluation, "training": training + looks + asked, "evaluation": evaluation}
    return {stage: round(s, 1) for stage, s in seconds.items()}
