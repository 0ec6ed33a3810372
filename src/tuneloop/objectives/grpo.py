"""Group relative policy optimisation: PPO's ratio, with the prompt's other completions in place of a value model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tuneloop.objectives import base
from tuneloop.objectives._shared import check_policy, clipped, group_size, group_sum, k3, policy_needs, rewards
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective(base.Objective):
    """Shao et al. 2024, arXiv 2402.03300, eq. 3, for N completions i of a prompt with rewards R_i, per token t:

        L_it = - min(rho A_i, clip(rho, 1 - e_low, 1 + e_high) A_i) + beta KL_it
        rho = pi(t) / pi_old(t),   A_i = (R_i - mean R) / (std R + 1e-4),   KL_it = ref/pi - log(ref/pi) - 1

    `aggregation` says how tokens become one number:

        grpo     mean over a completion's tokens, then over completions: the paper
        dapo     mean over all tokens of the optimizer step (DAPO, Yu et al. 2025, arXiv 2503.14476, eq. 8)
        dr_grpo  sum over a completion's tokens / max_completion_tokens, mean over completions; with `scale_rewards`
                 none this is Dr. GRPO (Liu et al. 2025, arXiv 2503.20783): neither length nor std biases the gradient

    Also from DAPO: e_high above e_low leaves unlikely tokens more room to grow ("clip-higher"). With `unbiased_kl` the
    divergence is multiplied by rho, which makes its gradient that of the true one (DeepSeek-V3.2, arXiv 2512.02556).

    Deviations: std is that of a sample (N - 1) with 1e-4 added, as in TRL 1.16, where the paper is silent; the only
    completion of a prompt has advantage 0. TRL's defaults are beta 0, aggregation dapo and the unbiased divergence;
    ours are the paper's.

    A branch brings `rewards`, and per token `old_logprobs` and, with beta, `reference_logprobs`.
    """

    epsilon: float = 0.2
    """e_low, how far the ratio may fall below 1 before its gradient is cut off."""
    epsilon_high: float | None = None
    """e_high, the same above 1; None: as e_low."""
    beta: float = 0.04
    """Weight of the divergence from the reference model; 0 needs no reference model."""
    unbiased_kl: bool = False
    """Multiply the divergence by the ratio, as above."""
    scale_rewards: Literal["group", "none"] = "group"
    """Whether advantages are divided by the standard deviation of the group's rewards."""
    aggregation: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """How the losses of tokens are put together, as above."""
    max_completion_tokens: int | None = None
    """The constant that sums of dr_grpo are divided by: the longest completion that sampling allows."""
    reference: str | None = None
    """Id or path of the reference model; None: the base itself."""

    batch_kind = Rollout
    pace = 0.05
    space: ClassVar[base.Space] = {"beta": {"low": 0.01, "high": 0.2, "log": True}}
    compares = True

    def __post_init__(self) -> None:
        check_policy(self.epsilon, self.beta)
        if self.epsilon_high is not None and self.epsilon_high <= 0:
            raise ValueError("epsilon_high must be greater than 0")
        if (self.aggregation == "dr_grpo") != (self.max_completion_tokens is not None):
            raise ValueError("max_completion_tokens must be given with aggregation dr_grpo, and only then")
        if self.max_completion_tokens is not None and self.max_completion_tokens < 1:
            raise ValueError("max_completion_tokens must be at least 1")

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta)

    @property
    def denominator(self) -> Denominator:
        return "weight" if self.aggregation == "dapo" else "branch"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        low, high = self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high
        reward = rewards(out, batch)
        advantage = self._advantages(reward, batch.group_of)[batch.branch_of]                   # (M,)
        ratio = (out.logprobs - batch.named["old_logprobs"]).exp()
        losses = -(ratio * advantage).minimum(ratio.clamp(1 - low, 1 + high) * advantage)
        sums = {"reward": reward.sum(),
                "clip_fraction": (clipped(ratio, advantage, low, high) * batch.weights).sum()}
        per: dict[str, Denominator] = {"reward": "branch", "clip_fraction": "weight"}
        if self.beta:
            kl = k3(out.logprobs, batch.reference.logprobs)
            kl = kl * ratio if self.unbiased_kl else kl
            losses = losses + self.beta * kl
            sums["kl"], per["kl"] = (kl * batch.weights).sum(), "weight"
        return LossOutput(self._total(losses, out, batch), sums, per)

    def _advantages(self, reward: Tensor, group_of: Tensor) -> Tensor:
        """(B,) of rewards (B,)."""
        size = group_size(reward, group_of)
        centred = reward - group_sum(reward, group_of) / size
        if self.scale_rewards == "none":
            return centred
        variance = group_sum(centred ** 2, group_of) / (size - 1).clamp(min=1)
        return centred / (variance.sqrt() + 1e-4)

    def _total(self, losses: Tensor, out: Outputs, batch: Batch) -> Tensor:
        """The sum that goes with the denominator, of the tokens' losses (M,)."""
        if self.aggregation == "dapo":
            return (losses * batch.weights).sum()
        if self.max_completion_tokens is not None:
            return losses.sum() / self.max_completion_tokens
        return out.mean_per_branch(losses).sum()
