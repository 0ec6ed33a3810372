"""Odds ratio preference optimisation: instruction tuning and preference in one loss, without a reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tuneloop.objectives import base
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Preference

if TYPE_CHECKING:
    from torch import Tensor

CERTAIN = -1e-6
"""Mean log-prob above which an answer counts as certain: its odds would be infinite."""


@dataclass(frozen=True)
class Objective(base.Objective):
    """Hong et al. 2024, arXiv 2403.07691, eqs. 4 to 7, averaged over pairs. With log P(y|x) the mean over y's tokens:

        L = - log P(w|x) - lambda log sigma(log odds(w) - log odds(l)),   odds(y) = P(y|x) / (1 - P(y|x))

    Deviations: the first term is the mean over pairs of the chosen answer's mean per token, as the paper writes it,
    where its code and TRL take the mean over all tokens of a micro-batch. log P is kept below -1e-6, because the odds
    of a certain answer are infinite.
    """

    odds_weight: float = 0.1
    """lambda: how much the odds ratio counts beside the likelihood of the chosen answer."""

    batch_kind = Preference
    pace = 0.1
    space: ClassVar[base.Space] = {"odds_weight": {"low": 0.03, "high": 0.5, "log": True}}

    def __post_init__(self) -> None:
        if self.odds_weight < 0:
            raise ValueError("odds_weight must be at least 0")

    @property
    def denominator(self) -> Denominator:
        return "group"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        from torch.nn.functional import logsigmoid

        chosen, rejected = batch.pairs(out.mean_per_branch())           # (G,) log P
        log_odds_ratio = log_odds(chosen) - log_odds(rejected)
        losses = -chosen - self.odds_weight * logsigmoid(log_odds_ratio)
        return LossOutput(losses.sum(), {
            "accuracy": (chosen > rejected).sum(), "log_odds_ratio": log_odds_ratio.sum(), "chosen_nll": -chosen.sum()})


def log_odds(log_p: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p."""
    log_p = log_p.clamp(max=CERTAIN)
    return log_p - (-log_p.expm1()).log()       # expm1, because 1 - exp(log p) cancels where p is close to 1
