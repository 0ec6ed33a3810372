"""Where the groups of an optimizer step come from: rows that are given, or answers that the model samples as it learns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tuneloop.objectives.base import Objective
from tuneloop.types import Batch, Group, Outputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """What one optimizer step learns from."""

    groups: Sequence[Group]
    objective: Objective            # a controller may have changed its weights since the last round
    told: Mapping[str, float]       # what its line in metrics.jsonl says beside the losses


class StopTraining(Exception):
    """Training is over, for the reason given; what is best so far is kept."""


class Source(Protocol):
    """Groups of answers made in the course of the training. The same step gives the same groups after a resume."""

    def of_step(self, step: int) -> Drawn:
        """What the optimizer step `step`, counted from 0, learns from; the model is as the step before left it."""

    def learnt(self, step: int, entry: Mapping[str, Any]) -> str:
        """Told of every step that was applied; returns why training must stop, or nothing."""

    def loss(self, step: int) -> float | None:
        """What a look after `step` steps finds on held-out prompts; lower is better; None without any."""


@dataclass(frozen=True)
class Given:
    """Slices of one shuffle of the given groups per epoch."""

    groups: Sequence[Group]
    objective: Objective
    batch_size: int
    seed: int

    def of_step(self, step: int) -> Drawn:
        chosen = samples_of_step(len(self.groups), self.batch_size, step, self.seed)
        return Drawn([self.groups[i] for i in chosen], self.objective, {})


def as_sampled(batch: Batch, out: Outputs) -> tuple[Batch, Tensor | None]:
    """The batch of a policy that learns from its own answers, and how far sampling and training disagree, (M,).

    Log-probs and values from before the step are those of this forward, unless a round of several steps brought them:
    the weights have not moved since.
    """
    sampled = batch.named.get("sampled_logprobs")
    if sampled is None:
        return batch, None
    own = {"old_logprobs": out.logprobs.detach()}
    if out.values is not None:
        own["old_values"] = out.values.detach()
    named = own | dict(batch.named)
    return replace(batch, named=named), (named["old_logprobs"] - sampled).abs()


def samples_of_step(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which of `count` samples the optimizer step sees: consecutive slices of one shuffle per epoch."""
    wanted = range(step * batch_size, (step + 1) * batch_size)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(count)
              for epoch in {position // count for position in wanted}}
    return [int(orders[position // count][position % count]) for position in wanted]
