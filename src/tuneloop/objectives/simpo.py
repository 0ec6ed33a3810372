"""Simple preference optimisation: the mean log-prob is the reward, without a reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tuneloop.objectives import base
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Preference


@dataclass(frozen=True)
class Objective(base.Objective):
    """Meng et al. 2024, arXiv 2405.14734, eq. 6, averaged over pairs. Deviation: none.

        L = - log sigma(r(w) - r(l) - gamma),   r(y) = beta / |y| log pi(y|x)
    """

    beta: float = 2.0
    """Scale of the reward; the paper uses 2 to 2.5, and 10 for a strong model."""
    gamma: float = 1.0
    """Target margin between the rewards; the paper uses 0.3 to 1.6."""

    batch_kind = Preference
    pace = 0.1
    space: ClassVar[base.Space] = {"beta": {"low": 1.0, "high": 10.0, "log": True}, "gamma": {"low": 0.3, "high": 1.6}}

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError("beta must be greater than 0")
        if self.gamma < 0:
            raise ValueError("gamma must be at least 0")

    @property
    def denominator(self) -> Denominator:
        return "group"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        from torch.nn.functional import logsigmoid

        chosen, rejected = batch.pairs(self.beta * out.mean_per_branch())   # (G,) rewards
        losses = -logsigmoid(chosen - rejected - self.gamma)
        return LossOutput(losses.sum(), {
            "accuracy": (chosen > rejected).sum(), "margin": (chosen - rejected).sum(), "chosen_reward": chosen.sum(),
            "rejected_reward": rejected.sum()})
