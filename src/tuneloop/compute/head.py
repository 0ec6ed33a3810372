"""What objectives read from a model's distribution, chunk by chunk: whole logits are never kept.

U unique positions, M pairs (position, target), K selected tokens per pair, d hidden size, V vocabulary. With a frozen
head of weights W everything below is a function of z = W h, and with p = softmax(z) and H the entropy of p

    d log p_j / dh = W_j - p W        d mean_j(log p_j) / dh = mean_j(W_j) - p W        dH / dh = -((p log p) W + H p W)

so p W (and, for entropy, (p log p) W) computed in the forward while the logits are at hand is all that the backward
needs: it touches no logits (as Liger does for the loss, arXiv 2410.10989), and no gradient to W is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 256     # positions whose logits exist at once
Shaping = Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Wanted:
    """Which reducers to apply beside the log-prob of the target."""

    entropy: bool = False
    mean_logprobs: bool = False
    selected: Tensor | None = None      # (M, K) ids of further tokens
    top: int = 0                        # how many of the most likely tokens; without gradient only


@dataclass(frozen=True)
class Reduced:
    """What the reducers gave, as the fields of `types.Outputs`."""

    logprobs: Tensor                        # (M,)
    entropy: Tensor | None = None           # (M,)
    mean_logprobs: Tensor | None = None     # (M,)
    selected: Tensor | None = None          # (M, K)
    top_ids: Tensor | None = None           # (M, top)
    top_logprobs: Tensor | None = None      # (M, top)


def reduce_head(hidden: Tensor, at: Tensor, targets: Tensor, head: nn.Module, shape_logits: Shaping,
                wanted: Wanted) -> Reduced:
    """The reducers at hidden (U, d): log p(targets[m]) at hidden[at[m]], and what else is wanted.

    `shape_logits` is what the model does to its logits, if anything.
    """
    if torch.is_grad_enabled() and not wanted.top and shape_logits is None and _frozen_linear(head):
        logprobs, entropy, mean, selected = _FrozenHead.apply(  # type: ignore[no-untyped-call]    # torch types none
            hidden, head.weight, at, targets, wanted.selected, wanted.entropy, wanted.mean_logprobs)
        return Reduced(logprobs, entropy[at] if wanted.entropy else None, mean[at] if wanted.mean_logprobs else None,
                       selected if wanted.selected is not None else None)
    parts: list[Reduced] = []
    order: list[Tensor] = []
    for low in range(0, len(hidden), CHUNK):
        here = _pairs(at, low)
        select = None if wanted.selected is None else wanted.selected[here]
        parts.append(checkpoint(_chunk, hidden[low:low + CHUNK], at[here] - low, targets[here], head, shape_logits,
                                replace(wanted, selected=select), use_reentrant=False))
        order.append(here)
    return join(parts, torch.cat(order))


def join(parts: Sequence[Reduced], order: Tensor) -> Reduced:
    """Parts in one; `order` says which pair each of their rows belongs to."""
    back = torch.argsort(order)
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Reduced)}
    joined: dict[str, Any] = {name: None if column[0] is None else torch.cat(column)[back]
                              for name, column in columns.items()}
    return Reduced(**joined)


def reduce_logits(logits: Tensor, at: Tensor, targets: Tensor, wanted: Wanted) -> Reduced:
    """The reducers by their definitions, on logits (U, V)."""
    logprobs = logits.to(accumulate(logits.dtype)).log_softmax(-1)
    top = logprobs.detach().topk(wanted.top) if wanted.top else None
    return Reduced(
        logprobs[at, targets],
        -(logprobs.exp() * logprobs).sum(-1)[at] if wanted.entropy else None,
        logprobs.mean(-1)[at] if wanted.mean_logprobs else None,
        None if wanted.selected is None else logprobs[at.unsqueeze(-1), wanted.selected],
        None if top is None else top.indices[at], None if top is None else top.values[at])


class _FrozenHead(torch.autograd.Function):
    """Linear head without bias whose weights take no gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, at: Tensor, targets: Tensor, select: Tensor | None,
                want_entropy: bool, want_mean: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count, kind = len(hidden), accumulate(hidden.dtype)
        logprobs = hidden.new_empty(len(targets), dtype=kind)
        entropy = hidden.new_empty(count if want_entropy else 0, dtype=kind)
        mean = hidden.new_empty(count if want_mean else 0, dtype=kind)
        selected = hidden.new_empty((0, 0) if select is None else tuple(select.shape), dtype=kind)
        expected = torch.empty_like(hidden)                                 # (U, d) p W
        tilted = torch.empty_like(hidden) if want_entropy else None         # (U, d) (p log p) W
        for low in range(0, count, CHUNK):
            span, here = slice(low, low + CHUNK), _pairs(at, low)
            logits = (hidden[span] @ weight.T).to(kind)
            logits.sub_(logits.logsumexp(-1, keepdim=True))
            logprobs[here] = logits[at[here] - low, targets[here]]
            if select is not None:
                selected[here] = logits[(at[here] - low).unsqueeze(-1), select[here]]
            if want_mean:
                mean[span] = logits.mean(-1)
            if tilted is not None:
                weighted = logits.exp().mul_(logits)
                entropy[span] = -weighted.sum(-1)
                tilted[span] = weighted.to(weight.dtype) @ weight
            expected[span] = logits.exp_().to(weight.dtype) @ weight
        ctx.save_for_backward(weight, at, targets, select, expected, tilted, entropy)
        ctx.want_mean = want_mean
        return logprobs, entropy, mean, selected

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        weight, at, targets, select, expected, tilted, entropy = ctx.saved_tensors
        to_target, to_entropy, to_mean, to_selected = (g.to(expected.dtype) for g in grads)
        dhidden = torch.zeros_like(expected).index_add_(0, at, to_target.unsqueeze(-1) * weight[targets])
        total = torch.zeros_like(expected[:, 0]).index_add_(0, at, to_target)
        if select is not None:
            dhidden.index_add_(0, at, nn.functional.embedding_bag(select, weight, per_sample_weights=to_selected,
                                                                  mode="sum"))
            total.index_add_(0, at, to_selected.sum(-1))
        if ctx.want_mean:
            dhidden.add_(torch.outer(to_mean, weight.mean(0)))
            total.add_(to_mean)
        if tilted is not None:
            dhidden.sub_(tilted * to_entropy.unsqueeze(-1))
            total.add_(to_entropy * entropy.to(total.dtype))
        return dhidden.sub_(expected * total.unsqueeze(-1)), None, None, None, None, None, None


def _frozen_linear(head: Any) -> bool:
    """Whether `head` is x W with frozen W and nothing else; what PEFT wraps around a layer is a class of its own."""
    exact: bool = type(head) is nn.Linear
    return exact and head.bias is None and not head.weight.requires_grad


def _chunk(hidden: Tensor, at: Tensor, targets: Tensor, head: nn.Module, shape_logits: Shaping,
           wanted: Wanted) -> Reduced:
    logits = head(hidden)
    return reduce_logits(logits if shape_logits is None else shape_logits(logits), at, targets, wanted)


def _pairs(at: Tensor, low: int) -> Tensor:
    """Indices of the pairs whose position lies in the chunk that starts at `low`."""
    return torch.nonzero((at >= low) & (at < low + CHUNK)).squeeze(-1)


def accumulate(dtype: torch.dtype) -> torch.dtype:
    """The precision of log-probs: float32 at least."""
    return dtype if dtype == torch.float64 else torch.float32
