"""A base as a torch model: precision by hardware, memory checked before anything is loaded."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tuneloop.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

NOISE = ("MatMul8bitLt: inputs will be cast", "Failed to load CPU gemm_4bit_forward")
"""What bitsandbytes says for every layer, though its results are right: int8 goes by way of float16, and the CPU takes
its general kernel."""
NOISY_LOGGERS = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")


def device() -> torch.device:
    """Where models run: CUDA, else Apple's GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision() -> torch.dtype:
    """bf16 where the hardware multiplies it, else fp32: on a CPU without bf16 units it is eight times slower."""
    import torch

    where = device()
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if where.type == "cpu" and torch.cpu._is_amx_tile_supported() else torch.float32


def load_model(folder: Path, bits: int | None = None, **options: Any) -> nn.Module:
    """The causal language model in `folder`, frozen, in evaluation mode and with its own dropout off.

    Bases with dropout in their configuration were pre-trained with it; when fine-tuning, dropout belongs to the method.
    `bits` holds the linear layers of its blocks in 4 (NF4, double quantisation) or 8 bits (LLM.int8).
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    config = AutoConfig.from_pretrained(folder)
    for name in dropouts(config):
        setattr(config, name, 0.0)
    disable_progress_bar()
    options.setdefault("dtype", precision())
    if bits is not None:
        options |= {"quantization_config": _quantisation(bits, options["dtype"]), "device_map": {"": device()}}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, **options)
    except (ImportError, RuntimeError, ValueError) as error:
        if getattr(config, "quantization_config", None) is None:
            raise
        raise UserError(f"This quantised base cannot be loaded here: {str(error).rstrip('.')}.",
                        fix="mend that, or choose a base in full precision") from error
    placed = model if bits is not None else model.to(device())
    if bits == 4:
        _never_pack(placed)
    return cast("nn.Module", placed.requires_grad_(False).eval())


def need_bitsandbytes() -> None:
    """Raise a UserError where a base cannot be quantised; without importing anything heavy."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("A quantised base needs bitsandbytes, which is not installed.",
                        fix="pip install 'tuneloop[quant]', or choose method: lora")


def _quantisation(bits: int, compute: torch.dtype) -> Any:
    need_bitsandbytes()
    from transformers import BitsAndBytesConfig

    for name in NOISY_LOGGERS:
        found = logging.getLogger(name)
        if _not_noise not in found.filters:
            found.addFilter(_not_noise)
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)    # outliers would depend on the batch
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=compute)


def _never_pack(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference on CPUs with AVX512-BF16.

    It does so at a layer's first forward without gradients, for good; from then on the layer multiplies in bfloat16 and
    passes no gradient on to its input (bitsandbytes 0.50), so that a base which answered could no longer be trained.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            cast(Any, module).support_avx512bf16_for_cpu = False


def _not_noise(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(NOISE)


def dropouts(config: Any) -> list[str]:
    """Names of the dropout rates in a transformers config that are not zero."""
    return [name for name, value in vars(config).items()
            if "drop" in name and isinstance(value, float) and value]
