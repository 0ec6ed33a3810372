"""Log-probabilities at the positions that predict something, chunk by chunk: whole logits are never kept.

U unique positions, M pairs (position, target), d hidden size, V vocabulary. With a frozen head of weights W the
gradient to a position's hidden state is sum_m g_m (W[target_m] - p W), where p is the softmax there. p W is computed in
the forward while the logits are at hand, so the backward touches no logits at all (as Liger does, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 256     # positions whose logits exist at once


class _FrozenHead(torch.autograd.Function):
    """Linear head without bias whose weights take no gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, at: Tensor, targets: Tensor) -> Tensor:
        logprobs = hidden.new_empty(len(targets), dtype=accumulate(hidden.dtype))
        expected = torch.empty_like(hidden)                       # (U, d) p W
        for low in range(0, len(hidden), CHUNK):
            logits = (hidden[low:low + CHUNK] @ weight.T).to(logprobs.dtype)
            norm = logits.logsumexp(-1, keepdim=True)
            here = _pairs(at, low)
            logprobs[here] = logits[at[here] - low, targets[here]] - norm[at[here] - low, 0]
            expected[low:low + CHUNK] = logits.sub_(norm).exp_().to(weight.dtype) @ weight
        ctx.save_for_backward(weight, at, targets, expected)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        weight, at, targets, expected = ctx.saved_tensors
        grad = grads[0].to(expected.dtype)
        total = torch.zeros(len(expected), dtype=expected.dtype, device=expected.device).index_add_(0, at, grad)
        dhidden = expected.mul(-total.unsqueeze(-1))
        return dhidden.index_add_(0, at, grad.unsqueeze(-1) * weight[targets]), None, None, None


def head_logprobs(hidden: Tensor, at: Tensor, targets: Tensor, head: nn.Module,
                  shape_logits: Callable[[Tensor], Tensor] | None) -> Tensor:
    """(M,) log p(targets[m]) at hidden[at[m]]. `shape_logits` is what the model does to its logits, if anything."""
    if torch.is_grad_enabled() and shape_logits is None and _frozen_linear(head):
        result: Tensor = _FrozenHead.apply(  # type: ignore[no-untyped-call]    # torch types no apply
            hidden, head.weight, at, targets)
        return result
    logprobs = hidden.new_empty(len(targets), dtype=accumulate(hidden.dtype))
    for low in range(0, len(hidden), CHUNK):
        here = _pairs(at, low)
        part = checkpoint(_chunk, hidden[low:low + CHUNK], at[here] - low, targets[here], head, shape_logits,
                          use_reentrant=False)
        logprobs = logprobs.index_put((here,), part)
    return logprobs


def _frozen_linear(head: Any) -> bool:
    """Whether `head` is x W with frozen W and nothing else; what PEFT wraps around a layer is a class of its own."""
    exact: bool = type(head) is nn.Linear
    return exact and head.bias is None and not head.weight.requires_grad


def _chunk(hidden: Tensor, at: Tensor, targets: Tensor, head: nn.Module,
           shape_logits: Callable[[Tensor], Tensor] | None) -> Tensor:
    logits = head(hidden)
    if shape_logits is not None:
        logits = shape_logits(logits)
    logits = logits.to(accumulate(hidden.dtype))
    chosen: Tensor = logits[at, targets] - logits.logsumexp(-1)[at]
    return chosen


def _pairs(at: Tensor, low: int) -> Tensor:
    """Indices of the pairs whose position lies in the chunk that starts at `low`."""
    return torch.nonzero((at >= low) & (at < low + CHUNK)).squeeze(-1)


def accumulate(dtype: torch.dtype) -> torch.dtype:
    """The precision of log-probs: float32 at least."""
    return dtype if dtype == torch.float64 else torch.float32
