"""Supervised fine-tuning: the negative log-likelihood of the answers' tokens, and perhaps a pull to the base."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.objectives import base
from tuneloop.objectives._shared import k3
from tuneloop.types import Batch, LossOutput, Outputs


@dataclass(frozen=True)
class Objective(base.Objective):
    """L = - sum_t w_t log p(y_t | y_<t, prompt) / sum_t w_t, over all supervised tokens of an optimizer step.

    With label smoothing e (Szegedy et al. 2015, arXiv 1512.00567, sec. 7) the target is 1 - e on y_t, and e spread
    evenly over the V tokens of the vocabulary, y_t among them:

        L = - sum_t w_t [(1 - e) log p(y_t) + (e / V) sum_v log p(v)] / sum_t w_t

    With `kl` c every token adds c (r - log r - 1), where r = ref(y_t) / p(y_t) is against the base before training: the
    estimator k3 of Schulman 2020, "Approximating KL divergence", 0 where nothing has moved and positive elsewhere.
    Deviation: the note samples y from the model and so estimates KL(p || ref); here y is the row's answer, so it is a
    pull to the base at these tokens, and no estimate of that divergence. With c = 1 what is left of the loss is r: a
    token is learnt the less, the more its probability has grown over the base's. Above 1 the loss is least at
    p = ref c / (c - 1), or p = 1 where that is more.

    Deviation from the mean per row that some tools use: none of the tokens counts more because its row is short.
    """

    label_smoothing: float = 0.0
    """e: the share of the target that is spread over the vocabulary."""
    kl: float = 0.0
    """c: strength of the pull to the base, against forgetting; 0 for none."""

    def __post_init__(self) -> None:
        if self.kl < 0:
            raise ValueError("kl must be at least 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError("label_smoothing must be at least 0 and less than 1")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"mean_logprobs"} if self.label_smoothing else ()) | frozenset(
            {"reference_logprobs"} if self.kl else ())

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        nll = -out.logprobs
        if out.mean_logprobs is not None and self.label_smoothing:
            nll = (1 - self.label_smoothing) * nll - self.label_smoothing * out.mean_logprobs
        if not self.kl:
            return LossOutput((nll * batch.weights).sum())
        kl = k3(out.logprobs, batch.reference.logprobs)
        return LossOutput(((nll + self.kl * kl) * batch.weights).sum(), {"kl": (kl * batch.weights).sum()})
