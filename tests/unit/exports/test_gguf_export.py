"""GGUF files: read back by transformers and by llama.cpp they are the same model, or they are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import SENTENCES, tiny_base, tiny_tokenizer
from tuneloop.errors import UserError
from tuneloop.exports import gguf_file, gguf_tokenizer
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Message

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
GEMMA2: dict[str, Any] = {"sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
                          "final_logit_softcapping": 3.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}), "llama untied": ("llama", {"tie_word_embeddings": False}),
    "llama biases": ("llama", {"attention_bias": True}), "llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "linear rope": ("llama", {"rope_parameters": LINEAR}), "wide heads": ("llama", {"head_dim": 16}),
    "mistral": ("mistral", {}), "qwen2": ("qwen2", {}), "qwen3": ("qwen3", {}),
    "qwen3 of heads of 128": ("qwen3", {"head_dim": 128}), "gemma": ("gemma", {}),
    "gemma2": ("gemma2", GEMMA2), "gemma3": ("gemma3_text", {}),
}
# transformers reads no "gemma", no rope scaling, no soft cap, and for Qwen3 no size of a head but its default.
READ_BACK = ("llama", "llama untied", "mistral", "qwen2", "qwen3 of heads of 128")
TEXT = "It's a film in 1234 parts;  the PLOT\n\n\tis thin, naïve & Ångström-long 日本語… "


def base(folder: Path, case: str) -> Path:
    """A tiny base whose norms and biases are not what they are by default, so that leaving one out shows."""
    import torch
    from safetensors.torch import load_file, save_file

    family, changes = CASES[case]
    tiny_base(folder, family, **changes)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name, weight in weights.items():
        if weight.ndim == 1:
            weights[name] = weight + 0.3 * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def some_ids(count: int = 48) -> list[int]:
    import torch

    return torch.randint(3, 300, (count,), generator=torch.Generator().manual_seed(2)).tolist()


def expected(folder: Path, ids: list[int], **options: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **options)
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0].log_softmax(-1)


def by_llama_cpp(file: Path, ids: list[int]) -> Any:
    """Log-probs as llama.cpp computes them, with a cache in full precision: its default halves it."""
    llama_cpp = pytest.importorskip("llama_cpp")
    import numpy as np
    import torch

    model = llama_cpp.Llama(str(file), logits_all=True, n_ctx=512, verbose=False, n_threads=1, type_k=0, type_v=0,
                            flash_attn=False)
    model.eval(ids)
    found = torch.tensor(np.array(model.scores[:len(ids)])).log_softmax(-1)
    model.close()
    return found


def ids_by_llama_cpp(file: Path, text: str) -> list[int]:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    found: list[int] = model.tokenize(text.encode(), add_bos=False, special=True)
    model.close()
    return found


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_the_same(case: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base", case)
    gguf_file.write(folder, tmp_path / "model.gguf", "f32")
    ids = some_ids()
    assert (by_llama_cpp(tmp_path / "model.gguf", ids) - expected(folder, ids)).abs().max() < 1e-3


@pytest.mark.parametrize("case", READ_BACK)
def test_transformers_reads_the_same_back(case: str, tmp_path: Path) -> None:
    from transformers import GgufConfig

    folder = base(tmp_path / "base", case)
    gguf_file.write(folder, tmp_path / "model.gguf", "f32")
    ids = some_ids()
    back = expected(tmp_path, ids, gguf_file="model.gguf", quantization_config=GgufConfig(dequantize=True))
    assert (back - expected(folder, ids)).abs().max() < 1e-4


def test_the_precision_of_each_tensor(tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = tiny_base(tmp_path / "base", intermediate_size=48, tie_word_embeddings=False)
    kinds = {}
    for quantisation in ("f32", "f16", "q8_0", "q4_0"):
        gguf_file.write(folder, tmp_path / "model.gguf", quantisation)
        kinds[quantisation] = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "model.gguf").tensors}
    for quantisation, found in kinds.items():
        assert found["blk.0.attn_norm.weight"] == "F32"
        assert found["blk.1.attn_q.weight"] == quantisation.upper()
        rest = "F32" if quantisation == "f32" else "F16"
        assert found["token_embd.weight"] == found["output.weight"] == rest
        assert found["blk.0.ffn_down.weight"] == rest       # its rows have 48 numbers, no multiple of 32


def test_quantised_weights_are_near(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    ids, error = some_ids(), {}
    for quantisation in ("f16", "q8_0", "q4_0"):
        gguf_file.write(folder, tmp_path / "model.gguf", quantisation)
        found = by_llama_cpp(tmp_path / "model.gguf", ids)
        error[quantisation] = float((found - expected(folder, ids)).abs().mean())
    assert error["f16"] < 1e-3 < error["q4_0"] < 0.2
    assert error["f16"] < error["q8_0"] < error["q4_0"]


def test_what_the_file_says(tmp_path: Path) -> None:
    from gguf import GGUFReader

    gguf_file.write(tiny_base(tmp_path / "base", "gemma3_text"), tmp_path / "model.gguf", "f16")
    fields = {name: field.contents() for name, field in GGUFReader(tmp_path / "model.gguf").fields.items()}
    tokenizer = ChatTokenizer(tmp_path / "base")
    assert fields["general.architecture"] == "gemma3"
    assert fields["gemma3.attention.sliding_window"] == 16
    assert fields["gemma3.attention.key_length"] == 8
    assert fields["gemma3.context_length"] == 512
    assert fields["tokenizer.chat_template"] == tokenizer.inner.chat_template
    assert fields["tokenizer.ggml.eot_token_id"] == tokenizer.end_of_turn_id
    assert not fields["tokenizer.ggml.add_bos_token"]


REFUSED: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"}, "yarn": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
    "partial": {"partial_rotary_factor": 0.5}, "relu": {"hidden_act": "relu"},
    "gelu": {"model_type": "gemma", "hidden_act": "gelu"},
    "biases": {"model_type": "qwen3", "attention_bias": True},
    "query_pre_attn_scalar": {"model_type": "gemma3_text", "query_pre_attn_scalar": 9},
    "evenly": {"model_type": "gemma3_text", "layer_types": ["full_attention", "sliding_attention"]},
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(named: str) -> None:
    config = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    gguf_file.check(config)
    with pytest.raises(UserError, match=named if named != "partial" else "a part of each head") as error:
        gguf_file.check(config | REFUSED[named])
    if named == "gpt2":
        assert all(family in error.value.text for family in gguf_file.ARCHITECTURES)


def test_other_sliding_windows_end_the_context(tmp_path: Path) -> None:
    from gguf import GGUFReader

    gguf_file.write(tiny_base(tmp_path / "base", "mistral", sliding_window=40), tmp_path / "model.gguf", "f16")
    fields = GGUFReader(tmp_path / "model.gguf").fields
    assert fields["llama.context_length"].contents() == 40


@pytest.mark.parametrize(("value", "told"), [(1e5, "half precision"), (float("nan"), "not finite")])
def test_nothing_is_left_after_an_error(value: float, told: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_base(tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    target = tmp_path / "out" / "model.gguf"
    target.parent.mkdir()
    target.write_text("an older file")
    with pytest.raises(UserError, match=told):
        gguf_file.write(folder, target, "f16")
    assert [file.name for file in target.parent.iterdir()] == ["model.gguf"]
    assert target.read_text() == "an older file"


def pre_tokenized(kind: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    inner = tiny_tokenizer().backend_tokenizer
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    regex = gguf_tokenizer.QWEN2 if kind == "qwen2" else gguf_tokenizer.LLAMA3
    inner.pre_tokenizer = {
        "gpt-2": whole, "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole]),
        "spaces": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), whole]),
    }.get(kind) or pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), parts])
    return inner


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "qwen2", "llama-bpe", "dbrx"])
def test_llama_cpp_splits_text_the_same_way(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, pre_tokenizers, trainers

    folder = tiny_base(tmp_path / "base")
    inner = pre_tokenized(kind)
    inner.train_from_iterator([*SENTENCES, TEXT], trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    stored = json.loads(inner.to_str())
    stored["model"]["ignore_merges"] = kind == "llama-bpe"
    assert gguf_tokenizer.pre_tokenizer(stored) == kind
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    gguf_file.write(folder, tmp_path / "model.gguf", "f32")
    text = "<|im_start|>user\n" + TEXT + "<|im_end|>\n"
    assert ids_by_llama_cpp(tmp_path / "model.gguf", text) == Tokenizer.from_str(json.dumps(stored)).encode(
        text, add_special_tokens=False).ids


def test_unknown_tokenizers_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="WhitespaceSplit"):
        gguf_tokenizer.pre_tokenizer(json.loads(pre_tokenized("spaces").to_str()))
    stored = json.loads(pre_tokenized("gpt-2").to_str())
    with pytest.raises(UserError, match="Lowercase"):
        gguf_tokenizer.pre_tokenizer(stored | {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(UserError, match="ignore_merges"):
        gguf_tokenizer.pre_tokenizer(stored | {"model": {"ignore_merges": True}})


def sentencepiece(prefix: bool) -> Any:
    """A tokenizer.json such as those converted from SentencePiece: every split of a token into two is a merge."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    learnt = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    texts = ["<unk>", "<s>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt]
    vocab = {text: i for i, text in enumerate(texts)}
    merges = [(text[:i], text[i:]) for text in learnt for i in range(1, len(text))
              if text[:i] in vocab and text[i:] in vocab]
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", gguf_tokenizer.MARK)
    inner.normalizer = normalizers.Sequence([normalizers.Prepend(gguf_tokenizer.MARK), replace]) if prefix else replace
    inner.decoder = decoders.Sequence([decoders.Replace(gguf_tokenizer.MARK, " "), decoders.ByteFallback()])
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<|im_end|>",
                                        unk_token="<unk>", model_max_length=512)
    tokenizer.chat_template = ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}")
    return tokenizer


@pytest.mark.parametrize("prefix", [True, False], ids=["space in front", "as it is"])
def test_sentencepiece_gives_the_same_ids(prefix: bool, tmp_path: Path) -> None:
    tokenizer = sentencepiece(prefix)
    folder = tiny_base(tmp_path / "base", "llama", vocab_size=512)
    tokenizer.save_pretrained(folder)
    gguf_file.write(folder, tmp_path / "model.gguf", "f32")
    for text in (TEXT, SENTENCES[0], "the order<|im_end|>the jokes"):
        assert ids_by_llama_cpp(tmp_path / "model.gguf", text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_merges_unlike_sentencepiece_are_refused(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base", "llama", vocab_size=512)
    sentencepiece(prefix=True).save_pretrained(folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["model"]["merges"] = stored["model"]["merges"][::2]
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="otherwise than SentencePiece"):
        gguf_file.write(folder, tmp_path / "model.gguf", "f32")
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".*"))


@pytest.mark.real
@pytest.mark.parametrize(("quantisation", "divergence", "furthest"), [
    ("f32", 1e-6, 1e-2), ("f16", 1e-4, 0.2), ("q8_0", 0.05, None)])
def test_smollm2_as_llama_cpp_runs_it(quantisation: gguf_file.Quantisation, divergence: float, furthest: float | None,
                                      real_base: Path, tmp_path: Path) -> None:
    """In f16 llama.cpp rounds what it multiplies the weights with too; measured: 0.07 at most, divergence 9e-6."""
    tokenizer = ChatTokenizer(real_base)
    text = tokenizer.prompt_text([Message("user", "What is the capital of France? 1234, naïve\n\n ok")])
    ids = tokenizer.encode([text])[0]
    gguf_file.write(real_base, tmp_path / "model.gguf", quantisation)
    assert ids_by_llama_cpp(tmp_path / "model.gguf", text) == ids
    ours, theirs = expected(real_base, ids), by_llama_cpp(tmp_path / "model.gguf", ids)
    assert (ours.exp() * (ours - theirs)).sum(-1).mean() < divergence
    if furthest is not None:
        assert (ours - theirs).abs().max() < furthest
