"""Direct preference optimisation: the policy is its own reward model, relative to a reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tuneloop.objectives import base
from tuneloop.types import Batch, Denominator, LossOutput, Outputs, Preference

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective(base.Objective):
    """With the implicit reward r(y) = beta log(pi(y|x) / ref(y|x)) and the chosen answer w against the rejected l:

        sigmoid  - log sigma(r(w) - r(l))                              Rafailov et al. 2023, arXiv 2305.18290, eq. 7
        hinge    max(0, 1 - (r(w) - r(l)))                             SLiC, Zhao et al. 2023, arXiv 2305.10425
        ipo      (h(w) - h(l) - 1 / (2 beta))^2, h(y) = log(pi / ref)  Azar et al. 2023, arXiv 2310.12036, eq. 17

    averaged over pairs. Label smoothing e (cDPO, Mitchell 2023) supposes that a share e of the pairs is the wrong way
    round: - (1 - e) log sigma(r(w) - r(l)) - e log sigma(r(l) - r(w)).

    Deviations: for ipo h is the mean over the answer's tokens and not their sum, as in TRL 1.16, whose authors had it
    confirmed by the paper's. TRL 1.16 has dropped cDPO. Weights of tokens only say which tokens are the answer's.
    """

    beta: float = 0.1
    """Strength of the pull to the reference model; for ipo the paper's tau."""
    form: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """Which of the losses above."""
    label_smoothing: float = 0.0
    """e: the share of pairs that is thought to be the wrong way round; with `form` sigmoid only."""
    reference_free: bool = False
    """Take a reference under which all answers are equally likely: log ref(y|x) = 0."""
    reference: str | None = None
    """Id or path of the reference model; None: the base itself."""

    batch_kind = Preference
    pace = 0.1
    space: ClassVar[base.Space] = {"beta": {"low": 0.03, "high": 0.5, "log": True}}

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError("beta must be greater than 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError("label_smoothing must be at least 0 and less than 0.5")
        if self.label_smoothing and self.form != "sigmoid":
            raise ValueError(f"label_smoothing goes with form sigmoid and not with {self.form}")
        if self.reference_free and self.reference is not None:
            raise ValueError("reference_free must be false where a reference is given")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(() if self.reference_free else {"reference_logprobs"})

    @property
    def denominator(self) -> Denominator:
        return "group"

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        log_ratio = out.logprobs if self.reference_free else out.logprobs - batch.reference.logprobs    # (M,)
        chosen, rejected = batch.pairs(self.beta * out.per_branch(log_ratio))                           # (G,) rewards
        if self.form == "ipo":
            better, worse = batch.pairs(out.mean_per_branch(log_ratio))
            losses = (better - worse - 1 / (2 * self.beta)) ** 2
        else:
            losses = self._of_margin(chosen - rejected)
        return LossOutput(losses.sum(), {
            "accuracy": (chosen > rejected).sum(), "margin": (chosen - rejected).sum(), "chosen_reward": chosen.sum(),
            "rejected_reward": rejected.sum()})

    def _of_margin(self, margin: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        if self.form == "hinge":
            return (1 - margin).relu()
        return -(1 - self.label_smoothing) * logsigmoid(margin) - self.label_smoothing * logsigmoid(-margin)
