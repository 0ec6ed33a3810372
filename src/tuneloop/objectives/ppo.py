"""Proximal policy optimisation: a clipped policy gradient, with advantages from a value head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tuneloop.objectives import base
from tuneloop.objectives._shared import check_policy, clipped, group_size, group_sum, k3, policy_needs, rewards
from tuneloop.types import Batch, LossOutput, Outputs, Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective(base.Objective):
    """Schulman et al. 2017, arXiv 1707.06347, eq. 9, averaged over the supervised tokens of an optimizer step:

        L    = L_pi + c_v L_v - c_e H
        L_pi = - min(rho A, clip(rho, 1 - e, 1 + e) A),                  rho = pi(t) / pi_old(t)
        L_v  = 1/2 max((V - G)^2, (V_old + clip(V - V_old, -e_v, e_v) - G)^2),     G = A + V_old
        A_t  = sum_l (gamma lam)^l d_{t+l},   d_t = r_t + gamma V_old(t+1) - V_old(t)         (arXiv 1506.02438)
        r_t  = - beta log(pi_old(t) / ref(t)), plus the completion's reward at its last token

    An action is a token, the state before it is what it is predicted from, and V is 0 after the last.

    "The 37 implementation details of PPO" (Huang et al. 2022), the 13 core ones:

        done here        GAE; clipped surrogate; clipped value loss; overall loss with entropy bonus; debug variables
                         (policy_loss, value_loss, entropy, clip_fraction, approx_kl, explained_variance)
        the loop's       learning-rate annealing; global gradient clipping; minibatches (steps drawn from the rollouts)
        another owner's  vectorised sampling (training/online.py, or rollouts are given); initialisation (the head's);
                         shared network (policy and value head are one model, always)
        not done         Adam's epsilon of 1e-5 (the loop's is the default); normalisation of advantages over a
                         minibatch: it would depend on how a step is cut into micro-batches. `whiten` does it over a
                         group, which is never cut.
        no use here      those of Atari, of continuous actions, of LSTMs and of MultiDiscrete actions

    "The N implementation details of RLHF with PPO" (Huang, Liu, von Werra 2023; also arXiv 2403.17031):

        done here        per-token KL penalty; clipped value function; discount 1; reward at the end of a completion
        another owner's  score head reads at the last token; query and response as one input; positions that know no
                         padding; seeds per process; head initialisation; adaptive KL coefficient (rollouts.kl_target)
        not done         normalisation of the reward model; another sampling temperature than 1; whitening of rewards,
                         and of advantages over a minibatch; rejection of completions without an end (give them a low
                         reward); fixed response length and queries that end with a period (of that paper's data)

    A branch brings `rewards`, and per token `old_logprobs`, `old_values` and, with beta, `reference_logprobs`.
    """

    epsilon: float = 0.2
    """e: how far the ratio may be from 1 before its gradient is cut off."""
    value_epsilon: float | None = 0.2
    """e_v: how far a value may move from the old one before its gradient is cut off; None: as far as it likes."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """GAE's trade of bias (0) against variance (1)."""
    beta: float = 0.05
    """Weight of the divergence from the reference model within the reward; 0 needs no reference model."""
    value_coefficient: float = 0.1
    """c_v."""
    entropy_coefficient: float = 0.0
    """c_e."""
    whiten: bool = False
    """Bring advantages to mean 0 and standard deviation 1 over the tokens of a prompt's completions."""
    reference: str | None = None
    """Id or path of the reference model; None: the base itself."""

    batch_kind = Rollout
    pace = 0.05
    space: ClassVar[base.Space] = {"beta": {"low": 0.01, "high": 0.2, "log": True}}

    def __post_init__(self) -> None:
        check_policy(self.epsilon, self.beta)
        if self.value_epsilon is not None and self.value_epsilon <= 0:
            raise ValueError("value_epsilon must be greater than 0")
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise ValueError("gamma and lam must be at least 0 and at most 1")
        if min(self.value_coefficient, self.entropy_coefficient) < 0:
            raise ValueError("value_coefficient and entropy_coefficient must be at least 0")

    @property
    def needs(self) -> frozenset[str]:
        return policy_needs(self.beta) | {"values", "old_values"} | ({"entropy"} if self.entropy_coefficient else set())

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        assert out.values is not None
        old_logprobs, old_values = (batch.named[name].to(out.logprobs.dtype) for name in ("old_logprobs", "old_values"))
        advantage = self._advantages(out, batch, old_logprobs, old_values)                          # (M,)
        returns = advantage + old_values
        if self.whiten:
            advantage = whitened(advantage, batch.group_of[batch.branch_of])
        ratio = (out.logprobs - old_logprobs).exp()
        policy_loss = -(ratio * advantage).minimum(ratio.clamp(1 - self.epsilon, 1 + self.epsilon) * advantage)
        value_loss = self._value_loss(out.values, old_values, returns)
        losses = policy_loss + self.value_coefficient * value_loss
        tokens = {"policy_loss": policy_loss, "value_loss": value_loss, "approx_kl": k3(old_logprobs, out.logprobs),
                  "clip_fraction": clipped(ratio, advantage, self.epsilon, self.epsilon)}
        if self.beta:
            tokens["kl"] = old_logprobs - batch.reference.logprobs
        if out.entropy is not None:
            losses = losses - self.entropy_coefficient * out.entropy
            tokens["entropy"] = out.entropy
        left = returns - out.values.detach()
        tokens |= {"returns": returns, "returns_squared": returns ** 2, "left": left, "left_squared": left ** 2}
        sums = {name: (values * batch.weights).sum() for name, values in tokens.items()}
        return LossOutput((losses * batch.weights).sum(), sums | {"reward": rewards(out, batch).sum()},
                          {"reward": "branch"})

    def told(self, means: dict[str, float]) -> dict[str, float]:
        """With the share of the returns' variance that the value head explains, 1 - var(G - V) / var(G)."""
        mean, square, left, left_square = (means.pop(name) for name in (
            "returns", "returns_squared", "left", "left_squared"))
        variance = square - mean ** 2
        explained = 1 - (left_square - left ** 2) / variance if variance > 0 else 0.0
        return means | {"explained_variance": explained}

    def _advantages(self, out: Outputs, batch: Batch, old_logprobs: Tensor, old_values: Tensor) -> Tensor:
        """Generalised advantage estimates of all tokens, (M,)."""
        none = batch.branch_of.new_full((1,), -1)
        last = (batch.branch_of.diff(append=none) != 0).to(old_values.dtype)    # (M,) 1 at the end of each completion
        reward = last * rewards(out, batch)[batch.branch_of]
        if self.beta:
            reward = reward - self.beta * (old_logprobs - batch.reference.logprobs)
        delta = reward + self.gamma * (1 - last) * old_values.roll(-1) - old_values
        advantage = delta
        for _ in range(int(group_size(delta, batch.branch_of).max()) - 1):      # each round looks one token further
            advantage = delta + self.gamma * self.lam * (1 - last) * advantage.roll(-1)
        return advantage

    def _value_loss(self, values: Tensor, old_values: Tensor, returns: Tensor) -> Tensor:
        loss = (values - returns) ** 2
        if self.value_epsilon is not None:
            near = old_values + (values - old_values).clamp(-self.value_epsilon, self.value_epsilon)
            loss = loss.maximum((near - returns) ** 2)
        return loss / 2


def whitened(values: Tensor, group_of: Tensor) -> Tensor:
    """`values` with mean 0 and standard deviation 1 within each group. Same shape."""
    size = group_size(values, group_of)
    centred = values - group_sum(values, group_of) / size
    return centred / (group_sum(centred ** 2, group_of) / size + 1e-8).sqrt()
