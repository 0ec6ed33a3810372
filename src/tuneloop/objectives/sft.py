"""Supervised fine-tuning: the negative log-likelihood of the answers' tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.objectives import base
from tuneloop.types import Batch, LossOutput, Outputs


@dataclass(frozen=True)
class Objective(base.Objective):
    """L = - sum_t w_t log p(y_t | y_<t, prompt) / sum_t w_t, over all supervised tokens of an optimizer step.

    With label smoothing e (Szegedy et al. 2015, arXiv 1512.00567, sec. 7) the target is 1 - e on y_t, and e spread
    evenly over the V tokens of the vocabulary, y_t among them:

        L = - sum_t w_t [(1 - e) log p(y_t) + (e / V) sum_v log p(v)] / sum_t w_t

    Deviation from the mean per row that some tools use: none of the tokens counts more because its row is short.
    """

    label_smoothing: float = 0.0
    """e: the share of the target that is spread over the vocabulary."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError("label_smoothing must be at least 0 and less than 1")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"mean_logprobs"} if self.label_smoothing else ())

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        nll = -out.logprobs
        if out.mean_logprobs is not None and self.label_smoothing:
            nll = (1 - self.label_smoothing) * nll - self.label_smoothing * out.mean_logprobs
        return LossOutput((nll * batch.weights).sum())
