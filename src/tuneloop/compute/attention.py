"""Attention over a forest: every token sees the tokens before it on its own path and nothing else.

Tokens are laid out depth first, so the descendants of a segment are one slice. Each segment attends causally to itself,
and the slice below a segment attends to all of it. The parts of a query's softmax are merged by their log-sum-exp:
with lse = log(sum_p exp(lse_p)) the output is sum_p exp(lse_p - lse) out_p (FlashAttention, arXiv 2205.14135,
section 3.1). The backward of each part is that of flash attention with the *merged* output and log-sum-exp, so no
(T, T) matrix and no copy of a prefix's keys is ever made.

Shapes: query (1, H, T, D), key and value (1, Hkv, T, D); H is a multiple of Hkv.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuneloop.types import Segments

NAME = "tuneloop_forest"
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Layout:
    """The calls that cover a forest. Computed once per batch and used in every layer.

    `runs` are neighbouring segments of equal length, attended to in one call: (start, count, length).
    `crosses` are the slices below a segment that look at it: (start, end, below).
    """

    runs: list[tuple[int, int, int]]
    crosses: list[tuple[int, int, int]]
    longest: int        # longest path, in tokens

    @classmethod
    def of(cls, segments: Segments, longest: int) -> Layout:
        runs: list[tuple[int, int, int]] = []
        for start, end, _ in segments:
            if runs and runs[-1][2] == end - start:
                first, count, length = runs[-1]
                runs[-1] = (first, count + 1, length)
            else:
                runs.append((start, 1, end - start))
        return cls(runs, [(s, e, b) for s, e, b in segments if b > e], longest)


class _Cascade(torch.autograd.Function):
    """Flash attention kernels of the CPU, merged over the segments of a forest."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float64 if query.dtype == torch.float64 else torch.float32)
        for start, count, length in layout.runs:
            span = slice(start, start + count * length)
            part, part_lse = _flash(_rows(query, span, count), _rows(key, span, count), _rows(value, span, count),
                                    0.0, True, scale=scale)
            out[:, :, span] = _flat(part)
            lse[:, :, span] = part_lse.transpose(0, 1).reshape(1, query.shape[1], -1)
        for start, end, below in layout.crosses:
            part, part_lse = _flash(query[:, :, end:below], key[:, :, start:end], value[:, :, start:end],
                                    0.0, False, scale=scale)
            own = lse[:, :, end:below]
            merged = torch.logaddexp(own, part_lse)
            out[:, :, end:below] = (out[:, :, end:below] * (own - merged).exp().unsqueeze(-1)
                                    + part * (part_lse - merged).exp().unsqueeze(-1)).to(out.dtype)
            lse[:, :, end:below] = merged
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad = grads[0].contiguous()
        query, key, value, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for start, count, length in ctx.layout.runs:
            span = slice(start, start + count * length)
            part = _flash_backward(
                _rows(grad, span, count), _rows(query, span, count), _rows(key, span, count), _rows(value, span, count),
                _rows(out, span, count), lse[:, :, span].reshape(-1, count, length).transpose(0, 1).contiguous(),
                0.0, True, scale=ctx.scale)
            for total, piece in zip((dq, dk, dv), part, strict=True):
                total[:, :, span] = _flat(piece)
        for start, end, below in ctx.layout.crosses:
            mine, theirs = slice(end, below), slice(start, end)
            part = _flash_backward(grad[:, :, mine], query[:, :, mine], key[:, :, theirs], value[:, :, theirs],
                                   out[:, :, mine], lse[:, :, mine].contiguous(), 0.0, False, scale=ctx.scale)
            dq[:, :, mine] += part[0]
            dk[:, :, theirs] += part[1]
            dv[:, :, theirs] += part[2]
        return dq, dk, dv, None, None


def _rows(x: Tensor, span: slice, count: int) -> Tensor:
    """(1, H, count * length, D) -> (count, H, length, D), so that equal segments go through one call."""
    part = x[:, :, span]
    return part if count == 1 else part.reshape(x.shape[1], count, -1, x.shape[3]).transpose(0, 1)


def _flat(x: Tensor) -> Tensor:
    """The inverse of `_rows`."""
    return x if x.shape[0] == 1 else x.transpose(0, 1).reshape(1, x.shape[1], -1, x.shape[3])


def _masked(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """The same through one (T, T) mask, for devices without the CPU kernels."""
    tokens = query.shape[2]
    allowed = torch.zeros(tokens, tokens, dtype=torch.bool, device=query.device)
    for start, count, length in layout.runs:
        block = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        for i in range(count):
            at = slice(start + i * length, start + (i + 1) * length)
            allowed[at, at] = block
    for start, end, below in layout.crosses:
        allowed[end:below, start:end] = True
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed, scale=scale, enable_gqa=query.shape[1] != key.shape[1])


def attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
           scaling: float | None = None, dropout: float = 0.0, layout: Layout | None = None,
           sliding_window: int | None = None, **unused: Any) -> tuple[Tensor, None]:
    """What transformers calls in every layer. Returns (1, T, H, D)."""
    if layout is None or attention_mask is not None or dropout:
        raise RuntimeError("forest attention takes a layout, no mask and no attention dropout")
    if sliding_window is not None and sliding_window < layout.longest:
        raise RuntimeError(f"a path of {layout.longest} tokens is longer than the window of {sliding_window}")
    if unused.get("s_aux") is not None or unused.get("softcap") is not None:
        raise RuntimeError("attention sinks and soft-capped attention have no forest form")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if query.device.type == "cpu":
        out = _Cascade.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]    # torch types no apply
    else:
        out = _masked(query, key, value, layout, scale)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the attention known to transformers under `NAME`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
