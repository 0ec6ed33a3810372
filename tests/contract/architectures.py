"""Every causal architecture of transformers, tiny and random, trained for one step of LoRA: docs/architectures.md.

`python tests/contract/architectures.py` writes the table. Every architecture runs in a process of its own that is
forked after the imports, so that one that hangs or crashes costs no other.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "architectures.md"
if str(ROOT / "tests") not in sys.path:     # as a script
    sys.path.insert(0, str(ROOT / "tests"))

LIMIT = 120     # seconds for one architecture
LARGEST = 10**9     # parameters: tests run beside each other in a few GB
WORDS = 320     # more than the ids in the rows

SIZES: dict[str, Any] = {
    value_name: value for value, names in [
        (32, "hidden_size n_embd d_model embedding_size dim emb_dim embedding_dim attention_hidden_size "
             "word_embed_proj_dim lru_width backbone_hidden_size input_embedding_size output_embedding_size "
             "dim_model_base linear_head_dim hidden_size_per_layer_input ple_embed_dim router_hidden_size"),
        (4, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks "
            "num_encoder_layers num_decoder_layers"),
        (4, "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
            "num_encoder_attention_heads num_decoder_attention_heads attention_heads swa_num_attention_heads "
            "linear_num_value_heads linear_num_heads num_experts n_routed_experts num_local_experts moe_num_experts "
            "kda_num_heads index_n_heads indexer_n_heads rotary_dim conv_kernel_size"),
        (2, "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_experts_per_tok "
            "moe_topk moe_k top_k_experts n_group topk_group ngram num_codebooks o_groups mamba_n_groups "
            "indexer_kv_heads"),
        (8, "head_dim kv_channels d_kv d_head dim_head swa_head_dim linear_key_head_dim linear_value_head_dim "
            "v_head_dim qk_nope_head_dim qk_rope_head_dim attention_head_size index_head_dim indexer_head_dim "
            "state_size ssm_state_size mamba_d_state mamba_head_dim mamba_d_head rank adapter_rank o_lora_rank "
            "laurel_rank d_rel attention_head_dim block_multiple_of chunk_size mamba_chunk_size"),
        (16, "q_lora_rank kv_lora_rank prompt_mid_dim num_buckets"),
        (64, "intermediate_size n_inner ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim feed_forward_size "
             "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size dff dim_ff d_inner "
             "intermediate_size_mlp expert_ffn_hidden_size dense_intermediate_size prefix_dense_intermediate_size "
             "moe_shared_expert_intermediate_size shared_experts_intermediate_size mamba_d_ssm"),
        (512, "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions "
              "max_source_positions original_max_position_embeddings"),
        (128, "sliding_window sliding_window_size window_size attention_window_size local_attention "
              "attention_chunk_size index_topk"),      # longer than the rows, so that a window is no reason by itself
        (WORDS, "vocab_size unpadded_vocab_size decoder_vocab_size vocab_size_per_layer_input"),
        (1, "type_vocab_size n_shared_experts moe_num_shared_experts num_shared_experts first_k_dense_replace"),
        (0, "pad_token_id num_nextn_predict_layers num_mtp_layers num_kv_shared_layers"),
        (1, "bos_token_id"), (2, "eos_token_id"),
        (0.1, "initializer_range init_std"),            # far from uniform
        (True, "is_decoder"), (False, "is_encoder_decoder use_cache"),
    ] for value_name in names.split()}
"""Small values under every name that families use for a size."""

OWN: dict[str, dict[str, Any]] = {}
"""What the generic values do not fit."""


def tiny(kind: Any, **own: Any) -> Any:
    """A tiny configuration of this class, its parts included."""
    known = set().union(*(getattr(c, "__annotations__", {}) for c in kind.__mro__))
    values = {name: value for name, value in SIZES.items() if name in known or name in kind.attribute_map}
    if "kv_lora_rank" in values:                # latent attention: as many heads of keys as of queries
        values |= {name: 4 for name in ("num_key_value_heads",) if name in values}
    for name in kind.attribute_map:             # both names of one thing would be given
        if kind.attribute_map[name] in values:
            values.pop(name, None)
    for name, part in (getattr(kind, "sub_configs", None) or {}).items():
        if hasattr(part, "attribute_map") and "vision" not in name and "audio" not in name:
            with contextlib.suppress(Exception):        # an abstract part (AutoConfig) is left as it is
                values[name] = tiny(part, **own.get(name, {}))
    return kind(**values | {k: v for k, v in own.items() if not (isinstance(v, dict) and k in values)})


def build(name: str) -> nn.Module:
    """A random model as `load_model` would give it: frozen, in evaluation mode, without dropout of its own."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tuneloop.models.load import dropouts

    config: Any = tiny(CONFIG_MAPPING[name], **OWN.get(name, {}))
    for part in {id(c): c for c in (config, config.get_text_config(decoder=True))}.values():
        for rate in dropouts(part):
            setattr(part, rate, 0.0)
    with torch.device("meta"):      # costs no memory
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config, dtype=torch.float32).parameters())
    if size > LARGEST:
        raise ValueError(f"its other parts have no tiny version: {size / 1e9:.1f}B parameters")
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():    # nothing may be hidden behind a weight that starts at zero
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.requires_grad_(False).eval()  # type: ignore[no-any-return]


def try_out(name: str) -> str:
    """What comes of one step of LoRA on this architecture, in a few words."""
    import exact
    from tuneloop.compute.check import choose_packing
    from tuneloop.compute.model import ForestModel
    from tuneloop.errors import UserError
    from tuneloop.methods.lora import Method

    try:
        base = build(name)
    except Exception as error:
        return f"not tried: {short(error)}"
    rows = exact.sharing_rows()
    try:
        model = Method(rank=4).apply(base, seed=0)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        packing = choose_packing(model, rows)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        loss = exact.accumulate(ForestModel(model, packing.mode), rows, share=packing.share, trunks=packing.share)
        optimizer.step()
    except UserError as error:
        return f"refused: {short(error)}"
    except Exception as error:
        return f"fails: {short(error)}"
    if not math.isfinite(loss):
        return f"fails: the loss is {loss}"
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    if not moved or not moved <= trained or any("lora_" not in n for n in trained):
        return "fails: something else than the adapter moved, or nothing"
    return "sharing" if packing.share else {"forest": "packed", "padded": "padded", "rows": "row by row"}[packing.mode]


def short(error: Exception) -> str:
    """The first line of an error, on one line of a table; no addresses, no pipes."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].split(" at 0x")[0].replace("|", "/")
    return f"{text[:110].rstrip('. ')}{'…' if len(text) > 110 else ''}"


def _child(name: str, pipe: Any) -> None:
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pipe.send(try_out(name))
    pipe.close()
    os._exit(0)


def run(name: str) -> str:
    """`try_out` in a process of its own."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(name, theirs))
    child.start()
    theirs.close()
    try:
        if not ours.poll(LIMIT):
            return f"not tried: more than {LIMIT} seconds"
        return str(ours.recv())
    except EOFError:
        child.join()
        return f"fails: the process ended with {child.exitcode}"
    finally:
        child.kill()
        child.join()


def architectures() -> dict[str, str]:
    """model_type -> class, as transformers lists them."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return {name: kind if isinstance(kind, str) else kind[0] for name, kind in sorted(NAMES.items())}


def rows() -> Iterator[tuple[str, str, str]]:
    """(model_type, class, result) of every architecture."""
    import peft  # noqa: F401     # imported before the forks, so that it is once

    import exact  # noqa: F401
    torch.set_num_threads(1)
    for name, kind in architectures().items():
        yield name, kind, run(name)


HEAD = """# Architectures

Every causal language model of transformers {version}, as a tiny random model of four layers, trained for one step with
`method: lora`. A test makes this table (`python tests/contract/architectures.py`); do not edit it.

- **sharing**: rows are packed without padding, and what they have in common at the start is computed once.
- **packed**: rows are packed without padding.
- **padded**: rows are padded to the longest of their batch.
- **row by row**: one row after the other.
- **refused**: tuneloop says that it cannot train this. **fails**: transformers or PEFT stop with an error.
- **not tried**: no tiny model could be made by the generic configuration; that says nothing about the real ones.

Before training, tuneloop takes the first of these ways whose log-probs and gradients are the model's own, so a base
that differs from the tiny one (its attention window is shorter than your rows, say) may go another way: the run says.

"""


def table() -> str:
    """The text of docs/architectures.md."""
    import transformers

    found = list(rows())
    kinds = ("sharing", "packed", "padded", "row by row", "refused", "fails", "not tried")
    counts = [(kind, sum(r.startswith(kind) for *_, r in found)) for kind in kinds]
    told = ", ".join(f"{n} {kind}" for kind, n in counts if n)
    lines = [f"Of {len(found)}: {told}.", "", "| model_type | class | result |", "| --- | --- | --- |",
             *(f"| {name} | {kind} | {result} |" for name, kind, result in found)]
    return HEAD.format(version=transformers.__version__) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        for chosen in sys.argv[1:]:
            print(f"{chosen}: {run(chosen)}")
    else:
        DOC.write_text(table(), encoding="utf-8")
