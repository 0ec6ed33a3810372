"""Tiny random bases of several families: two layers, a tokenizer trained in-process, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)
SENTENCES = (
    "Is this film review positive or negative? A rich and intelligent film that uses its core conceit well.",
    "The plot is thin, the jokes are old and the ending is worse than the beginning. negative",
    "My order has not arrived yet, what can I do about it? We are sorry; please send us the order number. positive",
    "def add(a, b):\n    return a + b\n\n1 2 3 4 5 6 7 8 9 0",
)
LONGEST = 512
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text", "gpt2", "mistral")


def tiny_tokenizer(chat_template: bool = True) -> Any:
    """A byte-level BPE tokenizer with ChatML's special tokens; eos ends a turn, pad is the end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=384, special_tokens=[END_OF_TEXT, TURN_START, TURN_END], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=TURN_START, eos_token=TURN_END,
                                        pad_token=END_OF_TEXT, unk_token=END_OF_TEXT, model_max_length=LONGEST)
    if chat_template:
        tokenizer.chat_template = CHATML
    return tokenizer


def tiny_config(family: str, tokenizer: Any, **changes: Any) -> Any:
    """A configuration of `family` with two layers and hidden size 32; `changes` are further configuration keys."""
    from transformers import AutoConfig

    shape: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": LONGEST,
        "tie_word_embeddings": True, "initializer_range": 0.1,      # far from uniform, so that answers differ
    }
    own: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": 32, "n_inner": 64, "n_layer": 2, "n_head": 4, "n_positions": LONGEST,
                 "initializer_range": 0.1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        "gemma3_text": shape | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"],
                                "query_pre_attn_scalar": 8},
        "mistral": shape | {"sliding_window": None, "tie_word_embeddings": False},
    }
    return AutoConfig.for_model(family, **(own.get(family, shape) | {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id} | changes))


def tiny_base(folder: Path, family: str = "llama", seed: int = 0, chat_template: bool = True, **changes: Any) -> Path:
    """Save a random base of `family` into `folder` in the Hugging Face layout, and return `folder`."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer(chat_template)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, tokenizer, **changes), dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
