"""Kahneman-Tversky optimisation: learning from answers that people liked or did not, without pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tuneloop.objectives import base
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Rated


@dataclass(frozen=True)
class Objective(base.Objective):
    """Ethayarajh et al. 2024, arXiv 2402.01306, averaged over the answers of an optimizer step:

        L = lambda_y - v(x, y),   r = log(pi(y|x) / ref(y|x)),   z = max(0, mean over probes of r)
        v = lambda_D sigma(beta (r - z)) where y is desirable, lambda_U sigma(beta (z - r)) where it is not

    z estimates KL(pi || ref) from mismatched answers, the same prompt with another row's answer, which are the probes
    of a group: `step_stats` scores them before the step, and no gradient flows through z.

    Deviation from the paper and from TRL: z is the mean over the whole optimizer step and not over a micro-batch, so
    it does not depend on how the step is cut. The clamp is applied to that mean, in `loss`.

    A branch brings `desirable` (1 or 0).
    """

    beta: float = 0.1
    """Strength of the pull to the reference model: how fast value saturates."""
    desirable_weight: float = 1.0
    """lambda_D. With n rows of each kind, lambda_D n_D / (lambda_U n_U) is best between 1 and 4/3."""
    undesirable_weight: float = 1.0
    """lambda_U."""
    reference: str | None = None
    """Id or path of the reference model; None: the base itself."""

    batch_kind = Rated
    pace = 0.1
    space: ClassVar[base.Space] = {"beta": {"low": 0.03, "high": 0.5, "log": True}}

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError("beta must be greater than 0")
        if min(self.desirable_weight, self.undesirable_weight) < 0:
            raise ValueError("desirable_weight and undesirable_weight must be at least 0")
        if self.desirable_weight == self.undesirable_weight == 0:
            raise ValueError("desirable_weight or undesirable_weight must be greater than 0, or nothing is learnt")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_logprobs"})

    @property
    def denominator(self) -> Denominator:
        return "branch"

    def step_stats(self, out: Outputs, batch: Batch) -> LossOutput:
        """`kl`: the mean over the probes of log(pi / ref), which the clamp has still to make a divergence of."""
        total = (out.per_branch() - batch.reference.per_branch()).sum()
        return LossOutput(total, {"kl": total})

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        r = out.per_branch() - batch.reference.per_branch()                             # (B,)
        z = max(batch.stats.get("kl", 0.0), 0.0)        # no probe of the step may have been short enough
        desirable = batch.named["desirable"] > 0                                        # (B,)
        sign = desirable.to(r.dtype) * 2 - 1
        weight = self.desirable_weight * desirable + self.undesirable_weight * ~desirable
        value = (self.beta * sign * (r - z)).sigmoid()
        return LossOutput((weight * (1 - value)).sum(), {
            "kl": r.new_tensor(z * batch.branches), "reward": (self.beta * r).sum(),
            "accuracy": ((r > z) == desirable).sum()})
