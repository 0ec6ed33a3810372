"""Supervised fine-tuning: the negative log-likelihood of the answers' tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.objectives import base
from tuneloop.types import Batch, LossOutput, Outputs


@dataclass(frozen=True)
class Objective(base.Objective):
    """L = - sum_t w_t log p(y_t | y_<t, prompt) / sum_t w_t, over all supervised tokens of an optimizer step.

    Deviation from the mean per row that some tools use: none of the tokens counts more because its row is short.
    """

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        return LossOutput(-(out.logprobs * batch.weights).sum())
