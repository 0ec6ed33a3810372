"""What the contract tests of methods run over: variants of every method, families, and what is refused where."""

from __future__ import annotations

from typing import Any

FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2", "qwen3_moe")
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"": {}, "norms": {"only": ["norms"]}, "last": {"layers": 1}},
    "lora": {"": {}, "rslora": {"rslora": True, "rank": 4}, "dora": {"dora": True, "rank": 4},
             "pissa": {"start": "pissa", "rank": 4}, "olora": {"start": "olora", "rank": 4},
             "8bit": {"bits": 8}},
    "qlora": {"": {}, "dora": {"dora": True, "rank": 4}, "loftq": {"start": "loftq", "rank": 4}},
    "adapters": {"": {}, "houlsby": {"placement": "houlsby"}, "parallel": {"placement": "parallel"},
                 "4bit": {"bits": 4}},
    "ia3": {"": {}, "8bit": {"bits": 8}},
    "prefix": {"": {}, "projection": {"projection": True, "projection_hidden": 16}, "4bit": {"bits": 4}},
    "prompt": {"": {}, "mlp": {"encoder": "mlp", "encoder_hidden": 16}},
    "peft": {"": {}, "oft": {"type": "OFT", "options": {"oft_block_size": 8}},
             "loha": {"type": "LOHA", "options": {"r": 4}}},
}
"""Of a method, its name for a variant and the options; a method that is not here has its defaults alone."""
REFUSED = [("peft", "oft", "gpt2"), ("peft", "loha", "gpt2")]
"""What PEFT refuses: GPT-2's layers are of a class of their own, Conv1D."""
CHANGES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 128},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
BLOCKS: dict[bool, dict[str, Any]] = {
    False: {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "moe_intermediate_size": 64},
    True: {"n_embd": 64, "n_inner": 128}}
"""By whether it is GPT-2, layers that hold whole blocks of 64 weights, as 4 bits need."""


def variants(name: str) -> dict[str, dict[str, Any]]:
    """The variants of a method."""
    return VARIANTS.get(name, {"": {}})


def pairs(names: list[str]) -> list[tuple[str, str, str, bool]]:
    """(method, variant, family, whether it is fast); fast are every variant once, and every method on two families."""
    found = []
    count = 0
    for name in names:
        for i, variant in enumerate(variants(name)):
            chosen = {FAMILIES[count % len(FAMILIES)]} | ({FAMILIES[(count + 2) % len(FAMILIES)]} if i == 0 else set())
            found += [(name, variant, family, family in chosen) for family in FAMILIES
                      if (name, variant, family) not in REFUSED]
            count += 1
    return found
