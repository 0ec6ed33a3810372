"""What takes turns in a measurement: our own training step, and what every side has in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from tuneloop.compute.cut import cut_step, totals_of
from tuneloop.compute.flops import Meter
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.inference.columns import ColumnCache, Scorer, with_columns
from tuneloop.methods.lora import Method
from tuneloop.models.load import load_model
from tuneloop.models.resolve import resolve
from tuneloop.objectives.base import REDUCERS, Objective
from tuneloop.types import Group, Piece

BASE = "smollm2-135m-instruct"
RANK = 16
LEARNING_RATE = 1e-4
MAX_GRAD_NORM = 1.0
TOKEN_BUDGET = 8192         # what the plan allows a piece where memory is no concern


@dataclass(frozen=True)
class Step:
    """What one optimizer step said, and how long it took from rows to updated weights."""

    loss: float
    grad_norm: float | None     # before clipping; None: not told
    seconds: float


class Side(Protocol):
    """One way of training; `step` does one optimizer step, `reset` begins again with a new optimizer."""

    name: str
    model: Any

    def step(self, groups: Sequence[Group]) -> Step: ...

    def reset(self) -> None: ...


def base_folder() -> Path:
    """Where the base lies on this machine; fetched on first use."""
    return resolve(BASE, Path.cwd()).path


def lora(dtype: torch.dtype = torch.float32) -> Any:
    """The base with fresh adapters on all linear layers; the same weights every time."""
    return Method(rank=RANK).apply(load_model(base_folder(), dtype=dtype), seed=0).train()


def new_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW over what trains, without weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)


@dataclass
class Initial:
    """The trainable parameters as they were, to begin every workload with equal weights."""

    kept: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: torch.nn.Module) -> Initial:
        return cls({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})

    @torch.no_grad()
    def restore(self, model: torch.nn.Module) -> None:
        parameters = dict(model.named_parameters())
        for name, value in self.kept.items():
            parameters[name].copy_(value)


class Ours:
    """What `training.loop` does for a step: packing, passes, objective, backward, clipping, AdamW.

    Where the objective needs a reference model, its log-probs are part of the step: computed with the adapters off, or
    found in `cache`.
    """

    name = "tuneloop"

    def __init__(self, model: Any, objective: Objective, learning_rate: float,
                 cache: ColumnCache | None = None) -> None:
        self.model, self.objective, self.learning_rate = model, objective, learning_rate
        self.forest = ForestModel(model).train()
        self.meter = Meter(self.forest)
        self.cache = cache
        self.pieces: list[Piece] = []       # of the last step
        self.counting = False               # count the products of the next step
        self.reset()

    def reset(self) -> None:
        self.optimizer = new_optimizer(self.model, self.learning_rate)

    def step(self, groups: Sequence[Group]) -> Step:
        began = time.perf_counter()
        if "reference_logprobs" in self.objective.needs:
            groups = self.with_reference(groups)
        samples = [r for group in groups for r in group.branches]
        self.pieces = cut_step(samples, TOKEN_BUDGET, groups=[g for g, group in enumerate(groups)
                                                              for _ in group.branches])
        denominator = totals_of(self.pieces)[self.objective.denominator]
        device, total = next(self.model.parameters()).device, 0.0
        with self.meter.counting() if self.counting else nullcontext():
            for _, batch, out in passes(self.forest, self.pieces, device, self.objective.needs & REDUCERS):
                loss = self.objective.loss(out, batch).loss / denominator
                loss.backward()     # type: ignore[no-untyped-call]
                total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(total, float(norm), time.perf_counter() - began)

    def with_reference(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with the log-probs of the base, prefixes shared; from the cache what it holds."""
        assert self.cache is not None
        scorer = Scorer(lambda: (self.forest, True), "benchmark", self.cache, token_budget=TOKEN_BUDGET)
        with self.model.disable_adapter():
            return with_columns(groups, scorer, {"logprobs": "reference_logprobs"})
