"""Rotary position embeddings in GGUF: base frequency and the scalings that llama.cpp computes the same way."""

from __future__ import annotations

import math
from typing import Any

from tuneloop.errors import UserError

WRITTEN = ("default", "linear", "llama3")
DEFAULT_BASE, SLIDING_BASE = 10_000.0, 10_000.0
GEMMA3_BASE = 1_000_000.0


def check(config: dict[str, Any]) -> None:
    """Raise a UserError for a scaling that is not written."""
    for layers, rope in (("", _full(config)), ("sliding ", _sliding(config))):
        kind = _kind(rope)
        allowed = ("default",) if layers else WRITTEN
        if kind not in allowed:
            raise UserError(f"The rope scaling {kind} of the model's {layers}layers is not written to GGUF.",
                            wanted="one of " + ", ".join(allowed), fix="export it as a merged model instead")
        if rope.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0) != 1.0:
            raise UserError("A model that rotates only a part of each head is not written to GGUF.",
                            fix="export it as a merged model instead")


def add(writer: Any, config: dict[str, Any], size: int) -> None:
    """Write base and scaling; `size` is the numbers per attention head."""
    import gguf

    rope = _full(config)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(_base(config, rope))
    if _kind(rope) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if config["model_type"] == "gemma3_text":
        base = _sliding(config).get("rope_theta") or config.get("rope_local_base_freq") or SLIDING_BASE
        writer.add_rope_freq_base_swa(float(base))


def factors(config: dict[str, Any]) -> Any:
    """What llama.cpp divides each frequency by for Llama 3's scaling (as a float32 array), or None for others.

    Formula: transformers' `_compute_llama3_parameters`, convert_hf_to_gguf.py's `rope_freqs`.
    """
    rope = _full(config)
    if _kind(rope) != "llama3":
        return None
    import numpy as np

    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    original, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    result = []
    for i in range(0, size, 2):
        wavelength = 2 * math.pi * _base(config, rope) ** (i / size)
        if wavelength < original / high:
            result.append(1.0)
        elif wavelength > original / low:
            result.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            result.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(result, dtype=np.float32)


def _full(config: dict[str, Any]) -> dict[str, Any]:
    """The parameters of layers of full attention, wherever this age of configuration keeps them."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return dict(rope.get("full_attention", {}) if "full_attention" in rope or "sliding_attention" in rope else rope)


def _sliding(config: dict[str, Any]) -> dict[str, Any]:
    return dict((config.get("rope_parameters") or {}).get("sliding_attention") or {})


def _kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _base(config: dict[str, Any], rope: dict[str, Any]) -> float:
    default = GEMMA3_BASE if config["model_type"] == "gemma3_text" else DEFAULT_BASE
    return float(rope.get("rope_theta") or config.get("rope_theta") or default)
