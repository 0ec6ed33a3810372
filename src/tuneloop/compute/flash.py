"""The flash attention kernels that torch brings along, one call for every device.

Shapes: query (B, H, Tq, D), key and value (B, Hkv, Tk, D), log-sum-exp (B, H, Tq). H is a multiple of Hkv. A causal
call has Tq = Tk. The CUDA kernels exist in half precision only; their path has not been run on a GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_cuda = torch.ops.aten._flash_attention_forward
_cuda_backward = torch.ops.aten._flash_attention_backward

MAX_CUDA_HEAD_DIM = 256
MIN_CUDA_CAPABILITY = (8, 0)


def available(query: Tensor) -> bool:
    """Whether there is a kernel for tensors like `query`."""
    if query.device.type == "cpu":
        return True
    return (query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16)
            and query.shape[-1] <= MAX_CUDA_HEAD_DIM and query.shape[-1] % 8 == 0
            and torch.cuda.get_device_capability(query.device) >= MIN_CUDA_CAPABILITY)


def forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output (B, H, Tq, D) and log-sum-exp (B, H, Tq)."""
    if query.device.type == "cpu":
        out, lse = _cpu(query, key, value, 0.0, causal, scale=scale)
        return out, lse
    return cuda_forward(query, key, value, causal, scale)


def backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, causal: bool,
             scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to query, key and value."""
    if query.device.type == "cpu":
        dq, dk, dv = _cpu_backward(grad, query, key, value, out, lse, 0.0, causal, scale=scale)
        return dq, dk, dv
    return cuda_backward(grad, query, key, value, out, lse, causal, scale)


def cuda_forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """The same by the kernels for CUDA, which lay tensors out as (B, T, H, D)."""
    q, k, v = (x.transpose(1, 2).contiguous() for x in (query, key, value))
    out, lse, *_ = _cuda(q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False, scale=scale)
    return out.transpose(1, 2), lse


def cuda_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, causal: bool,
                  scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the kernels for CUDA; without dropout they draw nothing from the generator's state."""
    g, q, k, v, o = (x.transpose(1, 2).contiguous() for x in (grad, query, key, value, out))
    state = torch.zeros(2, dtype=torch.uint64, device=query.device)
    dq, dk, dv = _cuda_backward(g, q, k, v, o, lse.contiguous(), None, None, q.shape[1], k.shape[1], 0.0, causal,
                                state, torch.empty(0, device=query.device), scale=scale)
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)
