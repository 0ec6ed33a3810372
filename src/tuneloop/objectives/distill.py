"""Distillation: the student learns the teacher's distribution over the next token, and not just the token itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tuneloop.objectives import base
from tuneloop.types import Batch, LossOutput, Outputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective(base.Objective):
    """Hinton et al. 2015, arXiv 1503.02531, on the teacher's K most likely tokens, averaged over supervised tokens.

        L  = alpha KL - (1 - alpha) log p(y_t)
        KL = sum_k q_k (log q_k - log p_k) + q_rest (log q_rest - log p_rest),   q_rest = 1 - sum_k q_k

    with the teacher's q and the student's p. The tokens beyond the K are one bucket, so KL is 0 only where the student
    gives that bucket the teacher's mass, and never exceeds the divergence over the whole vocabulary. Token weights
    multiply both terms.

    Deviations from the paper: K tokens instead of all, so that the teacher can be run once and its answer kept; and no
    temperature, because what is kept are log-probs of the softmax at temperature 1, and those at another one need the
    logits of the whole vocabulary. p_rest is kept above the rounding error of the sum it is made from.

    A branch brings `select_ids` and `teacher_logprobs`, (supervised, K) each.
    """

    teacher: str
    """Id or path of the teacher; it must share the student's vocabulary."""
    top_k: int = 64
    """K: how many of the teacher's most likely tokens are kept."""
    alpha: float = 0.5
    """How much the teacher counts; the rest is for the answers themselves."""

    space: ClassVar[base.Space] = {"alpha": {"low": 0.2, "high": 0.9}}

    def __post_init__(self) -> None:
        if not self.teacher:
            raise ValueError("teacher must name a model")
        if self.top_k < 1:
            raise ValueError("top_k must be at least 1")
        if not 0 < self.alpha <= 1:
            raise ValueError("alpha must be greater than 0 and at most 1; objective sft needs no teacher")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"selected", "teacher"})

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        assert out.selected is not None
        kl = divergence(batch.named["teacher_logprobs"].to(out.selected.dtype), out.selected)      # (M,)
        nll = -out.logprobs
        losses = self.alpha * kl + (1 - self.alpha) * nll
        return LossOutput((losses * batch.weights).sum(), {
            "teacher_kl": (kl * batch.weights).sum(), "nll": (nll * batch.weights).sum()})


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student), (M,), from log-probs (M, K) of the same K tokens; all other tokens are one bucket."""
    import torch

    q = teacher.exp()
    q_rest = (1 - q.sum(-1)).clamp(min=0)
    p_rest = (1 - student.exp().sum(-1)).clamp(min=torch.finfo(student.dtype).eps)
    return (q * (teacher - student)).sum(-1) + q_rest.xlogy(q_rest) - q_rest * p_rest.log()
