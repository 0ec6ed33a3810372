"""The optimizers: AdamW, and its 8-bit and paged forms by bitsandbytes.

`adamw_8bit` keeps both moments in 8 bits, by blocks (Dettmers et al. 2021, arXiv 2110.02861): a quarter of their
memory; parameters of fewer than 4,096 numbers keep them in 32.
`paged` ones let the moments move to the host's memory where the GPU's is full (QLoRA, arXiv 2305.14314, section 3).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from tuneloop.errors import UserError


def make_optimizer(kind: str, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer called `kind` for parameter groups as torch takes them."""
    for where in {parameter.device.type for group in groups for parameter in group["params"]}:
        check_optimizer(kind, where)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    import bitsandbytes

    name = {"adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW32bit", "paged_adamw_8bit": "PagedAdamW8bit"}[kind]
    made: torch.optim.Optimizer = getattr(bitsandbytes.optim, name)(groups, lr=learning_rate)
    return made


def check_optimizer(kind: str, device: str) -> None:
    """Raise a UserError where the optimizer called `kind` does not run on a type of device."""
    if kind != "adamw" and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"training.optimizer {kind} needs bitsandbytes, which is not installed.",
                        fix="pip install 'tuneloop[quant]', or leave training.optimizer out")
    if kind.startswith("paged") and device != "cuda":
        raise UserError(f"training.optimizer {kind} needs a GPU with CUDA: it moves pages between its memory and the "
                        "host's.", fix="leave training.optimizer out, or set adamw_8bit to save memory here")
