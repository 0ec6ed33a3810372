"""The tensors of a base from its config.json alone: names and sizes as its files would hold them, without any file.

For planning a base that is not here. Families that are not listed are refused rather than guessed: a family is added by
a function that names what one block holds, and the test compares it with what transformers builds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tuneloop.errors import UserError

Tensor = tuple[str, list[int]]          # name, sizes as stored
Config = dict[str, Any]

STORED_IN = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}    # torch_dtype -> dtype in safetensors


def tensors_of(config: Config) -> dict[str, tuple[str, list[int]]]:
    """Name -> (dtype, sizes) of every tensor of the base that `config` describes. Raises UserError.

    Of a multimodal base only the language model, whose config.json is `read_config`'s.
    """
    family = str(config.get("model_type", "unknown"))
    if family not in FAMILIES:
        raise UserError(f"The parameters of a base of the family {family} cannot be counted from its config.json.",
                        wanted=f"one of {', '.join(sorted(FAMILIES))}, or a base with its safetensors files",
                        fix="fetch the base; its files are counted, whatever the family")
    if config.get("quantization_config"):
        raise UserError("This config.json is of quantised weights, whose sizes only their files tell.",
                        fix="fetch the base, or take the config.json of the base in full precision")
    dtype = STORED_IN.get(str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"), "BF16")
    try:
        return {name: (dtype, size) for name, size in FAMILIES[family](config)}
    except KeyError as error:
        raise UserError(f"The config.json of this {family} base has no {error.args[0]}.",
                        fix="use a complete config.json") from error


def _llama(c: Config) -> Iterator[Tensor]:
    """Llama and what has its block: Mistral, Qwen 2 and 3, Gemma 1 to 3, mixtures of experts."""
    d, family = c["hidden_size"], c["model_type"]
    heads = c["num_attention_heads"]
    size = c.get("head_dim") or d // heads
    q, kv = heads * size, (c.get("num_key_value_heads") or heads) * size
    yield "model.embed_tokens.weight", [c["vocab_size"], d]
    for n in range(c["num_hidden_layers"]):
        block = f"model.layers.{n}"
        for name, out, into in (("q", q, d), ("k", kv, d), ("v", kv, d), ("o", d, q)):
            yield f"{block}.self_attn.{name}_proj.weight", [out, into]
            if c.get("attention_bias") or (family in ("qwen2", "qwen2_moe") and name != "o"):
                yield f"{block}.self_attn.{name}_proj.bias", [out]
        if family in ("qwen3", "qwen3_moe", "gemma3_text"):
            yield f"{block}.self_attn.q_norm.weight", [size]
            yield f"{block}.self_attn.k_norm.weight", [size]
        yield from _feedforward(c, block)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if family in ("gemma2", "gemma3_text"):
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for norm in norms:
            yield f"{block}.{norm}.weight", [d]
    yield "model.norm.weight", [d]
    if not c.get("tie_word_embeddings", family.startswith("gemma")):
        yield "lm_head.weight", [c["vocab_size"], d]


def _feedforward(c: Config, block: str) -> Iterator[Tensor]:
    """The MLP of a block; of a mixture every expert and the router."""
    d, f, family = c["hidden_size"], c["intermediate_size"], c["model_type"]
    if family == "mixtral":
        yield f"{block}.block_sparse_moe.gate.weight", [c["num_local_experts"], d]
        for expert in range(c["num_local_experts"]):
            for name, size in (("w1", [f, d]), ("w2", [d, f]), ("w3", [f, d])):
                yield f"{block}.block_sparse_moe.experts.{expert}.{name}.weight", size
        return
    into = [f"{block}.mlp"]
    if family == "qwen3_moe":
        experts = c.get("num_experts") or c["num_local_experts"]       # transformers 5 writes the latter
        yield f"{block}.mlp.gate.weight", [experts, d]
        into, f = [f"{block}.mlp.experts.{n}" for n in range(experts)], c["moe_intermediate_size"]
    for mlp in into:
        for name, size in (("gate_proj", [f, d]), ("up_proj", [f, d]), ("down_proj", [d, f])):
            yield f"{mlp}.{name}.weight", size
            if c.get("mlp_bias"):
                yield f"{mlp}.{name}.bias", size[:1]


def _phi3(c: Config) -> Iterator[Tensor]:
    """Phi-3 and 4: one layer for queries, keys and values, and one for gate and up."""
    d, f, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    kv = (c.get("num_key_value_heads") or heads) * (d // heads)
    yield "model.embed_tokens.weight", [c["vocab_size"], d]
    for n in range(c["num_hidden_layers"]):
        block = f"model.layers.{n}"
        yield f"{block}.self_attn.qkv_proj.weight", [d + 2 * kv, d]
        yield f"{block}.self_attn.o_proj.weight", [d, d]
        yield f"{block}.mlp.gate_up_proj.weight", [2 * f, d]
        yield f"{block}.mlp.down_proj.weight", [d, f]
        yield f"{block}.input_layernorm.weight", [d]
        yield f"{block}.post_attention_layernorm.weight", [d]
    yield "model.norm.weight", [d]
    if not c.get("tie_word_embeddings", False):
        yield "lm_head.weight", [c["vocab_size"], d]


def _gpt2(c: Config) -> Iterator[Tensor]:
    """GPT-2 and 3: layers are stored as (in, out), positions are learnt, the head is the embedding."""
    d = c["n_embd"]
    f = c.get("n_inner") or 4 * d
    yield "transformer.wte.weight", [c["vocab_size"], d]
    yield "transformer.wpe.weight", [c["n_positions"], d]
    for n in range(c["n_layer"]):
        block = f"transformer.h.{n}"
        for name, into, out in (("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, f),
                                ("mlp.c_proj", f, d)):
            yield f"{block}.{name}.weight", [into, out]
            yield f"{block}.{name}.bias", [out]
        for norm in ("ln_1", "ln_2"):
            yield from _layer_norm(f"{block}.{norm}", d)
    yield from _layer_norm("transformer.ln_f", d)


def _gpt_neox(c: Config) -> Iterator[Tensor]:
    """GPT-NeoX and Pythia."""
    d, f = c["hidden_size"], c["intermediate_size"]
    yield "gpt_neox.embed_in.weight", [c["vocab_size"], d]
    for n in range(c["num_hidden_layers"]):
        block = f"gpt_neox.layers.{n}"
        for name, out, into in (("attention.query_key_value", 3 * d, d), ("attention.dense", d, d),
                                ("mlp.dense_h_to_4h", f, d), ("mlp.dense_4h_to_h", d, f)):
            yield f"{block}.{name}.weight", [out, into]
            if name.startswith("mlp") or c.get("attention_bias", True):
                yield f"{block}.{name}.bias", [out]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield from _layer_norm(f"{block}.{norm}", d)
    yield from _layer_norm("gpt_neox.final_layer_norm", d)
    if not c.get("tie_word_embeddings", False):
        yield "embed_out.weight", [c["vocab_size"], d]


def _opt(c: Config) -> Iterator[Tensor]:
    """OPT; two rows more of positions than its longest row, as in fairseq."""
    d, f = c["hidden_size"], c["ffn_dim"]
    e = c.get("word_embed_proj_dim") or d
    yield "model.decoder.embed_tokens.weight", [c["vocab_size"], e]
    yield "model.decoder.embed_positions.weight", [c["max_position_embeddings"] + 2, d]
    if e != d:
        yield "model.decoder.project_in.weight", [d, e]
        yield "model.decoder.project_out.weight", [e, d]
    for n in range(c["num_hidden_layers"]):
        block = f"model.decoder.layers.{n}"
        for name, out, into in (("self_attn.q_proj", d, d), ("self_attn.k_proj", d, d), ("self_attn.v_proj", d, d),
                                ("self_attn.out_proj", d, d), ("fc1", f, d), ("fc2", d, f)):
            yield f"{block}.{name}.weight", [out, into]
            yield f"{block}.{name}.bias", [out]
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            yield from _layer_norm(f"{block}.{norm}", d)
    if c.get("do_layer_norm_before", True):
        yield from _layer_norm("model.decoder.final_layer_norm", d)


def _layer_norm(name: str, size: int) -> Iterator[Tensor]:
    yield f"{name}.weight", [size]
    yield f"{name}.bias", [size]


FAMILIES: dict[str, Callable[[Config], Iterator[Tensor]]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mixtral", "qwen3_moe"),
                    _llama),
    "phi3": _phi3, "gpt2": _gpt2, "gpt_neox": _gpt_neox, "opt": _opt,
}
