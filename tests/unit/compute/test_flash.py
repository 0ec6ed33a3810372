"""The CUDA kernels' wire: what is handed to them and taken back, against the kernels of the CPU.

There is no GPU here, so a stand-in computes what the CUDA kernels document: tensors as (B, T, H, D), more query heads
than key heads, log-sum-exp as (B, H, T) in float32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tuneloop.compute import flash


def stand_in(q: Tensor, k: Tensor, v: Tensor, cum_q: Any, cum_k: Any, max_q: int, max_k: int, dropout: float,
             causal: bool, debug: bool, *, scale: float) -> tuple[Tensor, ...]:
    assert (cum_q, cum_k, max_q, max_k, dropout, debug) == (None, None, q.shape[1], k.shape[1], 0.0, False)
    assert all(x.is_contiguous() for x in (q, k, v))
    out, lse = flash._cpu(*(x.transpose(1, 2) for x in (q, k, v)), 0.0, causal, scale=scale)
    return out.transpose(1, 2), lse, torch.zeros(2), torch.zeros(1), torch.zeros(1)


def stand_in_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cum_q: Any, cum_k: Any,
                      max_q: int, max_k: int, dropout: float, causal: bool, state: Tensor, unused: Tensor, *,
                      scale: float) -> tuple[Tensor, ...]:
    assert (max_q, max_k, dropout, lse.shape[-1]) == (q.shape[1], k.shape[1], 0.0, q.shape[1])
    parts = flash._cpu_backward(*(x.transpose(1, 2) for x in (grad, q, k, v, out)), lse, 0.0, causal, scale=scale)
    return tuple(x.transpose(1, 2) for x in parts)


@pytest.mark.parametrize(("queries", "keys", "causal"), [(7, 7, True), (5, 9, False)])
def test_the_cuda_wire_gives_what_the_cpu_gives(queries: int, keys: int, causal: bool,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "_cuda", stand_in)
    monkeypatch.setattr(flash, "_cuda_backward", stand_in_backward)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, count, 16) for heads, count in ((6, queries), (2, keys), (2, keys)))
    ours, theirs = flash.cuda_forward(q, k, v, causal, 0.3), flash.forward(q, k, v, causal, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    grad = torch.randn_like(ours[0])
    back = flash.cuda_backward(grad, q, k, v, *ours, causal, 0.3)
    wanted = flash.backward(grad, q, k, v, *theirs, causal, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(back, wanted, strict=True))


def test_the_real_kernels_take_these_arguments() -> None:
    """By their schemas, as far as they can be known without a GPU."""
    forward = {a.name for a in torch.ops.aten._flash_attention_forward.default._schema.arguments}
    backward = [a.name for a in torch.ops.aten._flash_attention_backward.default._schema.arguments]
    assert {"query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "is_causal", "scale"} <= forward
    assert backward[:14] == ["grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q",
                             "max_k", "dropout_p", "is_causal", "rng_state", "unused"]


@pytest.mark.parametrize(("dtype", "available"), [(torch.float32, True), (torch.float64, True)])
def test_a_cpu_has_kernels_for_full_precision(dtype: torch.dtype, available: bool) -> None:
    assert flash.available(torch.zeros(1, 1, 1, 8, dtype=dtype)) is available
