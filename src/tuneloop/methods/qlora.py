"""LoRA on a quantised base (Dettmers et al. 2023, arXiv 2305.14314): NF4 with double quantisation, by bitsandbytes.

The paper's paged optimizer is `training.optimizer: paged_adamw`, on a GPU; a CPU has but one memory.
"""

from __future__ import annotations

from typing import Literal

from tuneloop.methods import lora


class Method(lora.Method):
    """LoRA whose frozen base is held in 4 bits; merged into the base in full precision."""

    kind: Literal["lora", "qlora"] = "qlora"
    bits: Literal[4, 8] | None = 4
