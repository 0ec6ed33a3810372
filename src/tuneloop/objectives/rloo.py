"""REINFORCE leave-one-out: a completion is judged against the mean of the prompt's other completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tuneloop.objectives import base
from tuneloop.objectives._shared import check_policy, clipped, group_size, group_sum, policy_needs, rewards
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Rollout


@dataclass(frozen=True)
class Objective(base.Objective):
    """Ahmadian et al. 2024, arXiv 2402.14740; the estimator of Kool et al. 2019. For N completions i:

        L_i = - min(rho A_i, clip(rho, 1 - e, 1 + e) A_i),   rho = pi(y_i|x) / pi_old(y_i|x)
        A_i = R'_i - 1/(N - 1) sum_{j != i} R'_j,   R'_i = R_i - beta log(pi_old(y_i|x) / ref(y_i|x))

    averaged over completions. A whole completion is one action, so ratio and divergence are those of sequences. On the
    first step after sampling rho is 1 and the gradient is the paper's REINFORCE.

    Deviations: the ratio and its clip, which the paper does not need, are TRL 1.16's, so that rollouts can serve more
    than one step. Advantages are not whitened over the batch (TRL's `normalize_advantages`, off there by default, too):
    that would depend on how the step is cut. The only completion of a prompt has advantage 0.

    A branch brings `rewards`, and per token `old_logprobs` and, with beta, `reference_logprobs`.
    """

    epsilon: float = 0.2
    """How far the ratio may be from 1 before its gradient is cut off."""
    beta: float = 0.05
    """Weight of the divergence from the reference model within the reward; 0 needs no reference model."""
    reference: str | None = None
    """Id or path of the reference model; None: the base itself."""

    batch_kind = Rollout
    pace = 0.05
    space: ClassVar[base.Space] = {"beta": {"low": 0.01, "high": 0.2, "log": True}}
    compares = True

    def __post_init__(self) -> None:
        check_policy(self.epsilon, self.beta)

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta)

    @property
    def denominator(self) -> Denominator:
        return "branch"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        raw = reward = rewards(out, batch)                                          # (B,)
        old = out.per_branch(batch.named["old_logprobs"])
        sums = {"reward": raw.sum()}
        if self.beta:
            kl = old - batch.reference.per_branch()
            reward = raw - self.beta * kl
            sums["kl"] = kl.sum()
        size = group_size(reward, batch.group_of)
        others = (group_sum(reward, batch.group_of) - reward) / (size - 1).clamp(min=1)
        advantage = (reward - others) * (size > 1)
        ratio = (out.per_branch() - old).exp()
        losses = -(ratio * advantage).minimum(ratio.clamp(1 - self.epsilon, 1 + self.epsilon) * advantage)
        sums["clip_fraction"] = clipped(ratio, advantage, self.epsilon, self.epsilon).sum()
        return LossOutput(losses.sum(), sums)
