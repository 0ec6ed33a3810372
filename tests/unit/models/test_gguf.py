"""A GGUF file becomes a base that answers as the original did, trains and saves; broken files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import tiny_base
from tuneloop.errors import UserError
from tuneloop.models import gguf
from tuneloop.models.resolve import resolve

LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a query or key projection in the order of GGUF: the two halves of a rotation next to each other."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def write_gguf(folder: Path, file: Path) -> Path:
    """The tiny llama in `folder` as a GGUF file, written by the library of the format's makers."""
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, weight in load_file(folder / "model.safetensors").items():
        turned = next((h for part, h in heads.items() if part in name), None)
        writer.add_tensor(gguf_name(name), interleaved(weight, turned) if turned else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_converted_file_answers_as_the_original(tmp_path: Path, own_cache: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    original = tiny_base(tmp_path / "llama")
    file = write_gguf(original, tmp_path / "tiny.gguf")
    base = resolve("tiny.gguf", tmp_path)
    assert (base.source, base.name, base.notes) == ("gguf", "tiny", ["converted from tiny.gguf"])
    assert own_cache in base.path.parents
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (original, base.path)]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (original, base.path)]
    text = "<|im_start|>user\nIs this film good?<|im_end|>\n"
    ids, again = (tokenizer(text)["input_ids"] for tokenizer in tokenizers)
    assert ids == again
    with torch.no_grad():
        first, second = (model(torch.tensor([ids])).logits for model in models)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    assert not getattr(models[1], "is_quantized", False)

    copy = file.rename(tmp_path / "renamed.gguf")
    assert resolve(str(copy), tmp_path).source == "cache"       # known by its content


def test_contents_are_read_from_the_header(tmp_path: Path) -> None:
    from tuneloop.models.shape import read_shape

    folder = tiny_base(tmp_path / "llama")
    contents = gguf.inspect(write_gguf(folder, tmp_path / "tiny.gguf"))
    assert (contents.parameters, contents.stored_as) == (read_shape(folder).parameters, "F32")


def test_a_cut_off_file_is_refused(tmp_path: Path, own_cache: Path) -> None:
    file = write_gguf(tiny_base(tmp_path / "llama"), tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"tiny.gguf cannot be read as GGUF"):
        resolve("tiny.gguf", tmp_path)
    assert not list((own_cache / "bases").glob("gguf-*"))


def test_too_little_memory_is_said_before_loading(tmp_path: Path, own_cache: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tiny_base(tmp_path / "llama"), tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf.Contents, "float32_bytes", 10 ** 15)
    with pytest.raises(UserError, match=r"needs 1000000\.2 GB of memory"):
        resolve("tiny.gguf", tmp_path)


@pytest.mark.real
def test_the_real_base_knows_the_capital_of_france(real_base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_base)
    model = AutoModelForCausalLM.from_pretrained(real_base, dtype=torch.float32)
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=10, do_sample=False)[0, prompt["input_ids"].shape[1]:]
    assert tokenizer.decode(ids) == "The capital of France is Paris.<|im_end|>"
