"""Reward modelling: a score whose differences say which of two answers people prefer."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.objectives import base
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Preference


@dataclass(frozen=True)
class Objective(base.Objective):
    """The model of Bradley and Terry 1952, averaged over pairs, with the score s(y) read at the end of an answer:

        L = - log sigma(s(w) - s(l) - m) + c (s(w) + s(l))^2

    The margin m says how much better the chosen answer is, where annotators said so (Llama 2, arXiv 2307.09288, eq. 2);
    both branches of a pair may bring it as `margin`, and the chosen one's is read. The second term keeps scores near 0
    (Eisenstein et al. 2023, arXiv 2312.09244). Deviation: none; both as in TRL 1.16.
    """

    center: float = 0.0
    """c: how strongly scores are kept around 0, without which only their differences mean anything; TRL's
    `center_rewards_coefficient`, for which the paper uses 0.01."""

    batch_kind = Preference

    def __post_init__(self) -> None:
        if self.center < 0:
            raise ValueError("center must be at least 0")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"scores"})

    @property
    def denominator(self) -> Denominator:
        return "group"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        from torch.nn.functional import logsigmoid

        assert out.scores is not None
        chosen, rejected = batch.pairs(out.scores)                              # (G,)
        margin = batch.pairs(batch.named["margin"].to(chosen.dtype))[0] if "margin" in batch.named else 0.0
        losses = -logsigmoid(chosen - rejected - margin) + self.center * (chosen + rejected) ** 2
        return LossOutput(losses.sum(), {
            "accuracy": (chosen > rejected).sum(), "margin": (chosen - rejected).sum(), "chosen_score": chosen.sum(),
            "rejected_score": rejected.sum()})
