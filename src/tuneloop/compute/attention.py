"""Attention over a forest: every token sees the tokens before it on its own path and nothing else.

Tokens are laid out depth first, so the descendants of a segment are one slice. Each segment attends causally to itself,
and the slice below a segment attends to all of it. The parts of a query's softmax are merged by their log-sum-exp:
with lse = log(sum_p exp(lse_p)) the output is sum_p exp(lse_p - lse) out_p (FlashAttention, arXiv 2205.14135,
section 3.1). The backward of each part is that of flash attention with the *merged* output and log-sum-exp, so no
(T, T) matrix and no copy of a prefix's keys is ever made.

Shapes: query (1, H, T, D), key and value (1, Hkv, T, D); H is a multiple of Hkv. Where the first G tokens of the forest
were computed before (`compute.prefix`), query, key and value hold the T - G others, and the prefix's keys come apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuneloop.compute import flash
from tuneloop.compute.prefix import Prefix
from tuneloop.types import Segments

NAME = "tuneloop_forest"


@dataclass(frozen=True, slots=True)
class Layout:
    """The calls that cover a forest. Computed once per batch and used in every layer.

    `runs` are neighbouring segments of equal length, attended to in one call: (start, count, length).
    `crosses` are segments and the slices below that look at them: (start, end, below); the queries are the tokens
    [max(end, given), below), since the first `given` tokens have no queries here.
    """

    runs: list[tuple[int, int, int]]
    crosses: list[tuple[int, int, int]]
    longest: int        # longest path, in tokens
    given: int = 0      # tokens computed before

    @classmethod
    def of(cls, segments: Segments, longest: int, given: int = 0, slots: int = 0, fed: int = 0) -> Layout:
        """The layout of a forest whose first `given` tokens were computed before.

        Above them are `slots` virtual tokens, of which `fed` have queries here: all of them or none.
        """
        spans, longest, given = _below_virtual(segments, slots, fed), longest + slots, given + slots - fed
        runs: list[tuple[int, int, int]] = []
        crosses: list[tuple[int, int, int]] = []
        for start, end, below in _split(spans, given):
            if start >= given and runs and runs[-1][2] == end - start:
                first, count, length = runs[-1]
                runs[-1] = (first, count + 1, length)
            elif start >= given:
                runs.append((start, 1, end - start))
            if below > max(end, given):
                crosses.append((start, end, below))
        return cls(runs, crosses, longest, given)


def _below_virtual(segments: Segments, slots: int, fed: int) -> list[tuple[int, int, int]]:
    """The segments behind `slots` virtual tokens, which every token sees; those that are fed are a segment as well."""
    moved = [(start + slots, end + slots, below + slots) for start, end, below in segments]
    return [(0, slots, max(below for *_, below in moved)), *moved] if fed else moved


def _split(segments: list[tuple[int, int, int]], given: int) -> list[tuple[int, int, int]]:
    """Segments cut at `given`, and what lies before it in one: all of it is seen by all that comes after."""
    spans = [(0, given, max(below for *_, below in segments))] if given else []
    return spans + [(max(start, given), end, below) for start, end, below in segments if end > given]


class _Cascade(torch.autograd.Function):
    """Flash attention kernels, merged over the segments of a forest."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, above_key: Tensor | None,
                above_value: Tensor | None, layout: Layout, scale: float) -> Tensor:
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float64 if query.dtype == torch.float64 else torch.float32)
        for start, count, length in layout.runs:
            span = slice(start - layout.given, start - layout.given + count * length)
            part, part_lse = flash.forward(_rows(query, span, count), _rows(key, span, count),
                                           _rows(value, span, count), True, scale)
            out[:, :, span] = _flat(part)
            lse[:, :, span] = part_lse.transpose(0, 1).reshape(1, query.shape[1], -1)
        for cross in layout.crosses:
            mine, theirs, before = _cross(cross, layout.given)
            keys, values = (above_key, above_value) if before else (key, value)
            assert keys is not None
            assert values is not None
            part, part_lse = flash.forward(query[:, :, mine], keys[:, :, theirs], values[:, :, theirs], False, scale)
            own = lse[:, :, mine]
            merged = torch.logaddexp(own, part_lse)
            out[:, :, mine] = (out[:, :, mine] * (own - merged).exp().unsqueeze(-1)
                               + part * (part_lse - merged).exp().unsqueeze(-1)).to(out.dtype)
            lse[:, :, mine] = merged
        ctx.save_for_backward(query, key, value, above_key, above_value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        query, key, value, above_key, above_value, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        above = [None if x is None else torch.zeros_like(x) for x in (above_key, above_value)]
        for start, count, length in ctx.layout.runs:
            span = slice(start - ctx.layout.given, start - ctx.layout.given + count * length)
            part = flash.backward(
                _rows(grad, span, count), _rows(query, span, count), _rows(key, span, count), _rows(value, span, count),
                _rows(out, span, count), lse[:, :, span].reshape(-1, count, length).transpose(0, 1).contiguous(),
                True, ctx.scale)
            for total, piece in zip((dq, dk, dv), part, strict=True):
                total[:, :, span] = _flat(piece)
        for cross in ctx.layout.crosses:
            mine, theirs, before = _cross(cross, ctx.layout.given)
            keys, values = (above_key, above_value) if before else (key, value)
            part = flash.backward(grad[:, :, mine], query[:, :, mine], keys[:, :, theirs], values[:, :, theirs],
                                  out[:, :, mine], lse[:, :, mine].contiguous(), False, ctx.scale)
            dq[:, :, mine] += part[0]
            for into, gained in zip(above if before else (dk, dv), part[1:], strict=True):
                assert into is not None
                into[:, :, theirs] += gained
        return dq, dk, dv, *above, None, None


def _cross(cross: tuple[int, int, int], given: int) -> tuple[slice, slice, bool]:
    """The queries of a cross, its keys, and whether those are among the tokens computed before."""
    start, end, below = cross
    before = end <= given
    offset = 0 if before else given
    return slice(max(end, given) - given, below - given), slice(start - offset, end - offset), before


def _rows(x: Tensor, span: slice, count: int) -> Tensor:
    """(1, H, count * length, D) -> (count, H, length, D), so that equal segments go through one call."""
    part = x[:, :, span]
    return part if count == 1 else part.reshape(x.shape[1], count, -1, x.shape[3]).transpose(0, 1)


def _flat(x: Tensor) -> Tensor:
    """The inverse of `_rows`."""
    return x if x.shape[0] == 1 else x.transpose(0, 1).reshape(1, x.shape[1], -1, x.shape[3])


def _masked(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """The same through one (T, T) mask, for devices and precisions without the kernels; keys hold the prefix too."""
    total, given = key.shape[2], layout.given
    allowed = torch.zeros(total, total, dtype=torch.bool, device=query.device)
    for start, count, length in layout.runs:
        block = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        for i in range(count):
            at = slice(start + i * length, start + (i + 1) * length)
            allowed[at, at] = block
    for start, end, below in layout.crosses:
        allowed[max(end, given):below, start:end] = True
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed[given:], scale=scale, enable_gqa=query.shape[1] != key.shape[1])


def attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
           scaling: float | None = None, dropout: float = 0.0, layout: Layout | None = None,
           prefix: Prefix | None = None, record: Prefix | None = None, sliding_window: int | None = None,
           **unused: Any) -> tuple[Tensor, None]:
    """What transformers calls in every layer. Returns (1, T, H, D).

    `prefix` is where this forward starts from; `record` is the prefix that this forward computes.
    """
    if layout is None or attention_mask is not None or dropout:
        raise RuntimeError("forest attention takes a layout, no mask and no attention dropout")
    if sliding_window is not None and sliding_window < layout.longest:
        raise RuntimeError(f"a path of {layout.longest} tokens is longer than the window of {sliding_window}")
    if unused.get("s_aux") is not None or unused.get("softcap") is not None:
        raise RuntimeError("attention sinks and soft-capped attention have no forest form")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if record is not None:
        record.record(module, key, value, prefix)
    above = (None, None) if prefix is None else (prefix.keys[id(module)], prefix.values[id(module)])
    if flash.available(query):
        out = _Cascade.apply(query, key, value, *above, layout, scale)  # type: ignore[no-untyped-call]    # untyped
    else:
        key, value = (x if kept is None else torch.cat([kept, x], 2)
                      for kept, x in zip(above, (key, value), strict=True))
        out = _masked(query, key, value, layout, scale)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the attention known to transformers under `NAME`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
