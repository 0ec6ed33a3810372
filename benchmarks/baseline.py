"""The other side: a training step as a careful engineer writes it with transformers and PEFT alone.

Rows are padded on the right to the longest of the step, attention is torch's own (SDPA), the head runs at supervised
positions only, nothing is checkpointed, and what follows the last target is not fed. The reference model of DPO is the
same model with its adapters off, in a pass without gradient. Losses are written from the papers, not taken from us.

R rows of a step, W tokens of the longest, M supervised tokens in the order of rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sides import MAX_GRAD_NORM, Step, new_optimizer
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from tuneloop.types import Group, Rendered

Kind = Literal["sft", "dpo", "grpo"]
BETA, EPSILON = 0.1, 0.2        # of DPO, of GRPO


@dataclass(frozen=True)
class Rows:
    """A step as rectangles."""

    ids: Tensor         # (R, W)
    mask: Tensor        # (R, W) 1 at tokens, 0 at padding
    where: Tensor       # (R, W) bool: the hidden state here predicts a target
    targets: Tensor     # (M,)
    row_of: Tensor      # (M,)


def pad(samples: Sequence[Rendered], device: torch.device) -> Rows:
    """Right-padded inputs; the last target of the step's rows is predicted and not fed."""
    width = max(map(len, samples)) - 1
    ids, mask, labels = (torch.zeros(len(samples), width, dtype=torch.long) for _ in range(3))
    where = torch.zeros(len(samples), width, dtype=torch.bool)
    for i, sample in enumerate(samples):
        inputs = len(sample) - 1
        ids[i, :inputs] = torch.from_numpy(sample.ids[:-1])
        labels[i, :inputs] = torch.from_numpy(sample.ids[1:])
        where[i, :inputs] = torch.from_numpy(sample.weights[1:] > 0)
        mask[i, :inputs] = 1
    rows = torch.arange(len(samples)).unsqueeze(1).expand(-1, width)
    return Rows(*(x.to(device) for x in (ids, mask, where, labels[where], rows[where])))


class Padded:
    """Trains a PEFT model `model`, which must not be shared with another side."""

    name = "transformers + PEFT"

    def __init__(self, model: Any, kind: Kind, learning_rate: float) -> None:
        self.model, self.kind, self.learning_rate = model, kind, learning_rate
        self.reset()

    def reset(self) -> None:
        """A new optimizer; the caller has put the initial weights back."""
        self.optimizer = new_optimizer(self.model, self.learning_rate)

    def step(self, groups: Sequence[Group]) -> Step:
        """One optimizer step on the rows of all groups."""
        began = time.perf_counter()
        samples = [r for group in groups for r in group.branches]
        rows = pad(samples, next(self.model.parameters()).device)
        loss = self._loss(samples, rows)
        loss.backward()     # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(float(loss.detach()), float(norm), time.perf_counter() - began)

    def logprobs(self, rows: Rows) -> Tensor:
        """(M,) log p(target | the row before it)."""
        inner = self.model.get_base_model()
        hidden = inner.model(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False).last_hidden_state
        return -cross_entropy(inner.lm_head(hidden[rows.where]).float(), rows.targets, reduction="none")

    def _loss(self, samples: Sequence[Rendered], rows: Rows) -> Tensor:
        if self.kind == "sft":
            return -self.logprobs(rows).mean()
        return self._dpo(rows) if self.kind == "dpo" else self._grpo(samples, rows)

    def _dpo(self, rows: Rows) -> Tensor:
        """arXiv 2305.18290, eq. 7; rows come as chosen, rejected, chosen, rejected …"""
        with torch.no_grad(), self.model.disable_adapter():
            reference = self.logprobs(rows)
        ratio = _row_sums(self.logprobs(rows) - reference, rows)        # (R,)
        return -logsigmoid(BETA * (ratio[0::2] - ratio[1::2])).mean()

    def _grpo(self, samples: Sequence[Rendered], rows: Rows) -> Tensor:
        """arXiv 2402.03300, eq. 3 without its divergence term; all rows answer one prompt."""
        device = rows.ids.device
        reward = torch.tensor([float(s.named["rewards"]) for s in samples], device=device)
        advantage = ((reward - reward.mean()) / (reward.std() + 1e-4))[rows.row_of]
        old = torch.cat([torch.from_numpy(s.named["old_logprobs"]) for s in samples]).to(device)
        ratio = (self.logprobs(rows) - old).exp()
        losses = -torch.minimum(ratio * advantage, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantage)
        return (_row_sums(losses, rows) / _row_sums(torch.ones_like(losses), rows)).mean()


def _row_sums(values: Tensor, rows: Rows) -> Tensor:
    """(M,) -> (R,)"""
    return values.new_zeros(len(rows.ids)).index_add(0, rows.row_of, values)
